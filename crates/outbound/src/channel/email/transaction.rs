//! One message's transaction: MAIL, RCPT, DATA (RFC 5321 section 3.3).

use super::dialogue::{COMMAND_TIMEOUT, DATA_TIMEOUT, Reply, Trouble};
use super::relay::{Connection, Extensions};
use model::clock::Clock;
use model::ids::MessageId;

/// Sender and recipient, fit to be written into commands.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    from: &'a str,
    to: &'a str,
    id: MessageId,
}

/// What the relay answered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Mail,
    Recipient,
    Data,
    End,
}

/// What came of MAIL and RCPT.
#[derive(Debug)]
pub(super) enum Begun {
    /// The relay takes the message.
    Ready,
    /// It does not, or not now.
    Answered(Stage, Reply),
}

/// What came of a message.
#[derive(Debug)]
pub(super) enum Handed {
    /// The relay has it.
    Accepted { code: u16, duration_ms: u32 },
    /// The relay does not take it, or not now.
    Answered(Stage, Reply),
    /// The gate stayed shut.
    Withheld,
}

impl<'a> Envelope<'a> {
    /// None where an address could end a command early, or is none for SMTP without extensions. Addresses have been
    /// checked before; this is the last place where a line break could become a command.
    pub(super) fn new(from: &'a str, to: &'a str, id: MessageId) -> Option<Self> {
        let harmless = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>');
        let fits = |address: &str| !address.is_empty() && address.len() <= 254 && address.bytes().all(harmless);
        (fits(from) && fits(to)).then_some(Self { from, to, id })
    }

    /// With DSN (RFC 3461), the relay is asked to name the message in its delivery-status notifications and to leave
    /// the content out of them. BODY=8BITMIME is not needed: messages are built 7-bit clean.
    fn mail(&self, extensions: &Extensions, size: usize) -> String {
        let mut command = format!("MAIL FROM:<{}>", self.from);
        if extensions.size {
            command.push_str(&format!(" SIZE={size}"));
        }
        if extensions.dsn {
            command.push_str(&format!(" RET=HDRS ENVID={}", self.id));
        }
        command.push_str("\r\n");
        command
    }

    fn recipient(&self, extensions: &Extensions) -> String {
        let mut command = format!("RCPT TO:<{}>", self.to);
        if extensions.dsn {
            command.push_str(&format!(" NOTIFY=FAILURE,DELAY ORCPT=rfc822;{}", xtext(self.to)));
        }
        command.push_str("\r\n");
        command
    }
}

/// RFC 3461 section 4.
fn xtext(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b'+' | b'=') || !byte.is_ascii_graphic() {
            encoded.push_str(&format!("+{byte:02X}"));
        } else {
            encoded.push(char::from(byte));
        }
    }
    encoded
}

impl Begun {
    pub(super) fn is_closing(&self) -> bool {
        matches!(self, Self::Answered(_, reply) if reply.is_closing())
    }
}

impl Handed {
    pub(super) fn is_closing(&self) -> bool {
        matches!(self, Self::Answered(_, reply) if reply.is_closing())
    }
}

/// Says MAIL and RCPT, at once where the relay allows it (RFC 2920).
pub(super) async fn begin(connection: &mut Connection, envelope: &Envelope<'_>, size: usize) -> Result<Begun, Trouble> {
    if connection.in_transaction {
        abandon(connection).await?;
    }
    connection.in_transaction = true;
    let Connection { dialogue, extensions, .. } = connection;
    let (mail, recipient) = (envelope.mail(extensions, size), envelope.recipient(extensions));
    if extensions.pipelining {
        dialogue.write("MAIL", format!("{mail}{recipient}").as_bytes()).await?;
        let mail = dialogue.reply("MAIL", COMMAND_TIMEOUT).await?;
        if mail.is_closing() {
            return answered(Stage::Mail, mail);
        }
        // Read in any case, or the next command would get this reply.
        let recipient = dialogue.reply("RCPT", COMMAND_TIMEOUT).await?;
        return if mail.is_positive() { answered(Stage::Recipient, recipient) } else { answered(Stage::Mail, mail) };
    }
    let mail = dialogue.command("MAIL", &mail).await?;
    if !mail.is_positive() {
        return answered(Stage::Mail, mail);
    }
    answered(Stage::Recipient, dialogue.command("RCPT", &recipient).await?)
}

fn answered(stage: Stage, reply: Reply) -> Result<Begun, Trouble> {
    match reply.code {
        200..300 => Ok(Begun::Ready),
        400..600 => Ok(Begun::Answered(stage, reply)),
        _ => Err(Trouble::Refused { stage: "MAIL and RCPT", reply }),
    }
}

/// Transfers the message. Only after the gate is open: from here on the relay may have it, whatever is heard of it.
pub(super) async fn transfer(
    connection: &mut Connection,
    message: &[u8],
    clock: &dyn Clock,
) -> Result<Handed, Trouble> {
    let dialogue = &mut connection.dialogue;
    let go_ahead = dialogue.command("DATA", "DATA\r\n").await?;
    match go_ahead.code {
        354 => {}
        400..600 => return Ok(Handed::Answered(Stage::Data, go_ahead)),
        _ => {
            return Err(Trouble::Refused { stage: "DATA", reply: go_ahead });
        }
    }
    let started = clock.now();
    dialogue.write("message", &transparent(message)).await?;
    let reply = dialogue.reply("end of the message", DATA_TIMEOUT).await?;
    let duration_ms = u32::try_from(clock.now().since(started).as_millis()).unwrap_or(u32::MAX);
    match reply.code {
        200..300 => {
            connection.in_transaction = false;
            Ok(Handed::Accepted { code: reply.code, duration_ms })
        }
        400..600 => Ok(Handed::Answered(Stage::End, reply)),
        _ => Err(Trouble::Refused { stage: "the message", reply }),
    }
}

/// Ends a transaction without a message.
pub(super) async fn abandon(connection: &mut Connection) -> Result<(), Trouble> {
    let reply = connection.dialogue.command("RSET", "RSET\r\n").await?;
    if !reply.is_positive() {
        return Err(Trouble::Refused { stage: "RSET", reply });
    }
    connection.in_transaction = false;
    Ok(())
}

/// The message with its leading dots doubled, and the line that ends it (RFC 5321 section 4.5.2). A dot after a bare
/// line feed is doubled too: there are relays that take that for the start of a line.
fn transparent(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + message.len() / 64 + 5);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            bytes.push(b'.');
        }
        bytes.extend_from_slice(line);
    }
    if !bytes.is_empty() && !bytes.ends_with(b"\r\n") {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b".\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ID: MessageId = MessageId(Uuid::from_u128(1));

    #[test]
    fn no_address_can_become_a_command() {
        for bad in [
            "",
            "a@b.example\r\nRCPT TO:<x@y.example>",
            "a@b.example\n",
            "a b@c.example",
            "a@b.example>",
            "a\0@b.example",
            "jané@b.example",
        ] {
            assert!(Envelope::new(bad, "a@b.example", ID).is_none(), "{bad:?}");
            assert!(Envelope::new("a@b.example", bad, ID).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn parameters_are_sent_where_they_are_offered() {
        let envelope = Envelope::new("orders@acme.example", "jane+a=b@example.com", ID).unwrap();
        let none = Extensions::default();
        assert_eq!(envelope.mail(&none, 9), "MAIL FROM:<orders@acme.example>\r\n");
        assert_eq!(envelope.recipient(&none), "RCPT TO:<jane+a=b@example.com>\r\n");
        let mut all = Extensions::default();
        (all.size, all.dsn) = (true, true);
        assert_eq!(
            envelope.mail(&all, 9),
            "MAIL FROM:<orders@acme.example> SIZE=9 RET=HDRS ENVID=00000000-0000-0000-0000-000000000001\r\n"
        );
        assert_eq!(
            envelope.recipient(&all),
            "RCPT TO:<jane+a=b@example.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;jane+2Ba+3Db@example.com\r\n"
        );
    }

    #[test]
    fn leading_dots_are_doubled() {
        for (message, sent) in [
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            ("", ".\r\n"),
            (".\r\n..\r\nx.\r\n", "..\r\n...\r\nx.\r\n.\r\n"),
            ("a\n.\nb\r\n", "a\n..\nb\r\n.\r\n"),
        ] {
            assert_eq!(transparent(message.as_bytes()), sent.as_bytes(), "{message:?}");
        }
    }
}
