//! Builds an email message (RFC 5322, RFC 2045 to 2047).
//!
//! The result is 7-bit clean, has CRLF line endings and no line over 998 bytes, whatever the content: bodies that
//! are not plain short lines of ASCII are encoded, and so are headers. So a relay need not offer 8BITMIME or SMTPUTF8.

mod html;

use mail_builder::encoders::base64::{base64_encode, base64_encode_mime};
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::mime::MimePart;
use model::channel::Mailbox;
use model::clock::Timestamp;
use model::ids::MessageId;
use wire::template::Rendered;

pub use html::text_of;

/// What a message is built from, besides its content.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The message. Its id makes the `Message-ID`, the same at every try, so that receivers can tell a repetition.
    pub id: MessageId,
    /// The sender.
    pub from: &'a Mailbox,
    /// Where answers go, if not to the sender.
    pub reply_to: Option<&'a Mailbox>,
    /// The recipient's address.
    pub to: &'a str,
    /// The time for `Date`.
    pub date: Timestamp,
}

/// Builds the message. Where the content has HTML only, a text part is made from it.
pub fn compose(letter: &Letter<'_>, content: &Rendered) -> Vec<u8> {
    let mut headers = String::new();
    let mut add = |name: &str, value: &str| {
        headers.push_str(name);
        headers.push_str(": ");
        headers.push_str(value);
        headers.push_str("\r\n");
    };
    add("Date", &Date::new(letter.date.seconds()).to_rfc822());
    add("From", &mailbox(letter.from));
    if let Some(reply_to) = letter.reply_to {
        add("Reply-To", &mailbox(reply_to));
    }
    add("To", letter.to);
    add("Message-ID", &message_id(letter));
    if let Some(subject) = &content.subject {
        add("Subject", &unstructured(subject, "Subject: ".len()));
    }
    add("MIME-Version", "1.0");
    let mut message = headers.into_bytes();
    let written = body(letter.id, content).write_part(&mut message);
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    message
}

fn message_id(letter: &Letter<'_>) -> String {
    let domain = letter.from.address.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    format!("<{}@{domain}>", letter.id)
}

fn body(id: MessageId, content: &Rendered) -> MimePart<'static> {
    match (&content.text, &content.html) {
        (text, Some(html)) => {
            let text = text.as_ref().map_or_else(|| text_of(html), Clone::clone);
            let parts = vec![text_part("text/plain", &text), text_part("text/html", html)];
            // `=_` cannot occur in quoted-printable or base64 (RFC 2045 section 6.7), and plain text would have to
            // spell the message's id.
            let boundary = format!("=_{}", id.0.simple());
            MimePart::new(ContentType::new("multipart/alternative").attribute("boundary", boundary), parts)
        }
        (text, None) => text_part("text/plain", text.as_deref().unwrap_or_default()),
    }
}

/// A part of text in the transfer encoding that suits it: 7bit where it is short lines of ASCII, base64 where most of
/// it is not ASCII, and quoted-printable between.
fn text_part(content_type: &'static str, text: &str) -> MimePart<'static> {
    let text = normalized(text);
    let special = text.bytes().filter(|byte| !byte.is_ascii()).count();
    let plain = special == 0 && text.split('\n').all(|line| line.len() <= 76 && !line.ends_with([' ', '\t']));
    let (encoding, encoded) = if plain {
        ("7bit", text.replace('\n', "\r\n"))
    } else if special * 4 > text.len() {
        ("base64", base64_lines(&text.replace('\n', "\r\n")))
    } else {
        ("quoted-printable", quoted_printable(&text))
    };
    let content_type = ContentType::new(content_type).attribute("charset", "utf-8");
    MimePart::new(content_type, encoded).transfer_encoding(encoding)
}

/// One `\n` for every kind of line break, none at the end (a part's end supplies it), and no other control characters.
fn normalized(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.trim_end_matches('\n').chars().filter(|c| !c.is_ascii_control() || matches!(c, '\n' | '\t')).collect()
}

fn base64_lines(text: &str) -> String {
    let mut encoded = Vec::with_capacity(text.len() * 3 / 2);
    let written = base64_encode_mime(text.as_bytes(), &mut encoded, false);
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    String::from_utf8(encoded).expect("base64 is ASCII")
}

/// Quoted-printable, RFC 2045 section 6.7. A dot at the start of a line is encoded too: some relays lose it.
fn quoted_printable(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 5 / 4);
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            encoded.push_str("\r\n");
        }
        let mut width = 0;
        for (index, byte) in line.bytes().enumerate() {
            let last = index + 1 == line.len();
            let literal = match byte {
                b' ' | b'\t' => !last,
                b'.' => width > 0,
                _ => (33..=126).contains(&byte) && byte != b'=',
            };
            let needed = if literal { 1 } else { 3 };
            if width + needed > 75 {
                encoded.push_str("=\r\n");
                width = 0;
            }
            if literal {
                encoded.push(char::from(byte));
            } else {
                encoded.push_str(&format!("={byte:02X}"));
            }
            width += needed;
        }
    }
    encoded
}

/// A mailbox as in `From` (RFC 5322 section 3.4). The name is a quoted string or encoded words: an encoded word
/// within quotes, as some libraries write it, is none (RFC 2047 section 5).
fn mailbox(mailbox: &Mailbox) -> String {
    let address = &mailbox.address;
    let name = mailbox.name.as_deref().map(str::trim).filter(|name| !name.is_empty());
    match name {
        None => address.clone(),
        Some(name) if name.bytes().all(is_header_text) && name.len() <= 60 && !name.contains("=?") => {
            format!("\"{}\"\r\n <{address}>", name.replace('\\', "\\\\").replace('"', "\\\""))
        }
        Some(name) => format!("{}\r\n <{address}>", encoded_words(name)),
    }
}

fn is_header_text(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

/// A header's text, folded at spaces where it is ASCII, else as encoded words. `used` is the length of the header's
/// name with its colon and space.
fn unstructured(text: &str, used: usize) -> String {
    let text = text.trim();
    let ascii = text.bytes().all(is_header_text) && !text.contains("=?");
    if !ascii || text.split(' ').any(|word| word.len() > 200) {
        return encoded_words(text);
    }
    let mut folded = String::with_capacity(text.len() + 16);
    let mut width = used;
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            // Never before an empty word: a line of nothing but spaces would end the header for some readers.
            if width + 1 + word.len() > 76 && !word.is_empty() {
                folded.push_str("\r\n");
                width = 0;
            }
            folded.push(' ');
            width += 1;
        }
        folded.push_str(word);
        width += word.len();
    }
    folded
}

/// The most bytes of text in an encoded word: with its frame and a header's name before it, it ends before column 76
/// (RFC 2047 section 2).
const ENCODED_WORD_BYTES: usize = 39;

/// Text as encoded words, each with whole characters.
fn encoded_words(text: &str) -> String {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.floor_char_boundary(ENCODED_WORD_BYTES));
        let encoded = base64_encode(chunk.as_bytes()).unwrap_or_default();
        words.push(format!("=?utf-8?B?{}?=", String::from_utf8_lossy(&encoded)));
        rest = after;
    }
    words.join("\r\n ")
}

#[cfg(test)]
mod tests;
