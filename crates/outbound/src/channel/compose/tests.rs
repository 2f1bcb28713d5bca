use super::*;
use mail_parser::{MessageParser, MimeHeaders};
use uuid::Uuid;

fn mailbox_of(name: Option<&str>, address: &str) -> Mailbox {
    Mailbox { name: name.map(str::to_owned), address: address.to_owned() }
}

fn build(name: Option<&str>, content: &Rendered) -> Vec<u8> {
    let from = mailbox_of(name, "orders@acme.example");
    let reply_to = mailbox_of(Some("Help"), "help@acme.example");
    let id = MessageId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
    let date = Timestamp(1_800_000_000_123);
    let letter = Letter { id, from: &from, reply_to: Some(&reply_to), to: "jane+x@example.com", date };
    let message = compose(&letter, content);
    check_wire(&message);
    message
}

/// 7-bit, CRLF only, no line over 998 bytes (RFC 5322 section 2.1.1).
fn check_wire(message: &[u8]) {
    let text = std::str::from_utf8(message).unwrap();
    assert!(text.is_ascii() && !text.contains('\0'));
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "bare line breaks");
    assert!(text.split("\r\n").all(|line| line.len() <= 998));
    let headers = text.split("\r\n\r\n").next().unwrap();
    assert!(headers.split("\r\n").all(|line| line.len() <= 78 && !line.trim().is_empty()), "{headers}");
}

fn rendered(subject: &str, html: Option<&str>, text: Option<&str>) -> Rendered {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Rendered { subject: Some(subject.to_owned()), html: owned(html), text: owned(text) }
}

#[test]
fn headers_read_back() {
    let content = rendered(
        "Grüße aus Zürich — 你好 🎉 und noch viel mehr, bis es nicht mehr in eine Zeile passt",
        Some("<p>x</p>"),
        None,
    );
    let message = build(Some("Ächme \"Ltd\", Köln"), &content);
    let parsed = MessageParser::default().parse(&message).unwrap();
    assert_eq!(parsed.subject(), content.subject.as_deref());
    let from = parsed.from().unwrap().first().unwrap();
    assert_eq!((from.name(), from.address()), (Some("Ächme \"Ltd\", Köln"), Some("orders@acme.example")));
    assert_eq!(parsed.to().unwrap().first().unwrap().address(), Some("jane+x@example.com"));
    assert_eq!(parsed.reply_to().unwrap().first().unwrap().address(), Some("help@acme.example"));
    assert_eq!(parsed.message_id(), Some("01900000-0000-7000-8000-000000000001@acme.example"));
    assert_eq!(parsed.date().unwrap().to_timestamp(), 1_800_000_000);
    assert_eq!(build(Some("Ächme"), &content), build(Some("Ächme"), &content), "the same at every try");
}

#[test]
fn names_and_subjects_of_every_kind_read_back() {
    let long = "word ".repeat(60);
    for name in
        ["Acme", "A \"quoted\" \\ name", "=?utf-8?B?SGk=?=", "O'Brien, Ltd.", &"n".repeat(200), &"é".repeat(200)]
    {
        let message = build(Some(name), &rendered("s", None, Some("t")));
        let parsed = MessageParser::default().parse(&message).unwrap();
        assert_eq!(parsed.from().unwrap().first().unwrap().name(), Some(name));
    }
    for subject in ["x", long.trim(), "=?utf-8?Q?a?=", &"z".repeat(3_000), "two  spaces", &"ü".repeat(500)] {
        let message = build(None, &rendered(subject, None, Some("t")));
        assert_eq!(MessageParser::default().parse(&message).unwrap().subject(), Some(subject));
    }
}

#[test]
fn alternatives_are_in_order_and_text_is_made_from_html() {
    let html = "<p>Hello <b>Zoë</b></p>";
    let message = build(None, &rendered("s", Some(html), None));
    let parsed = MessageParser::default().parse(&message).unwrap();
    assert_eq!(parsed.body_html(0).unwrap().trim(), html);
    assert_eq!(parsed.body_text(0).unwrap().trim(), "Hello **Zoë**");
    let order: Vec<_> = parsed.parts.iter().filter_map(|part| part.content_type()?.subtype()).collect();
    assert_eq!(order, ["alternative", "plain", "html"]);
    let message = build(None, &rendered("s", None, Some("only text")));
    let parsed = MessageParser::default().parse(&message).unwrap();
    assert_eq!((parsed.content_type().unwrap().ctype(), parsed.parts.len()), ("text", 1));
    assert_eq!(parsed.body_text(0).unwrap(), "only text");
}

#[test]
fn texts_of_every_kind_read_back() {
    let long = "a long line without a break ".repeat(100);
    let texts = [
        "",
        "plain\nlines\n\n.\n..dots\nFrom me",
        "trailing \t\nspace ",
        "Grüße\n.\n= =3D ÿ\n",
        "windows\r\nand mac\rlines",
        "control\u{0}\u{8}\u{b}s",
        "你好，世界。".repeat(200).as_str(),
        long.as_str(),
        "é".repeat(999).as_str(),
    ]
    .map(str::to_owned);
    for text in texts {
        let message = build(None, &rendered("s", Some("<p>ä</p>"), Some(&text)));
        let parsed = MessageParser::default().parse(&message).unwrap();
        let read = parsed.body_text(0).unwrap().replace("\r\n", "\n");
        assert_eq!(read, normalized(&text));
    }
    let encoded = quoted_printable(&"=".repeat(300));
    assert!(encoded.split("\r\n").all(|line| line.len() <= 76));
}
