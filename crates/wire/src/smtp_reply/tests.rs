use super::*;
use proptest::prelude::*;

/// Replies as servers write them, with the code that they mean.
#[rustfmt::skip]
const REPLIES: &[(u16, &str, Classified)] = &[
    // Postfix
    (550, "5.1.1 <nobody@example.com>: Recipient address rejected: User unknown in local recipient table", Classified::INVALID_RECIPIENT),
    (550, "5.1.1 <nobody@example.com>: Recipient address rejected: User unknown in virtual mailbox table", Classified::INVALID_RECIPIENT),
    (450, "4.1.1 <nobody@example.com>: Recipient address rejected: unverified address: User unknown", Classified::SOFT_BOUNCE),
    (554, "5.7.1 <jane@example.org>: Relay access denied", Classified::RELAYING_DENIED),
    (454, "4.7.1 <jane@example.org>: Relay access denied", Classified::RELAYING_DENIED),
    (450, "4.1.8 <bounce@nx.invalid>: Sender address rejected: Domain not found", Classified::ADMIN_FAILURE),
    (550, "5.1.8 <bounce@nx.invalid>: Sender address rejected: Domain not found", Classified::ADMIN_FAILURE),
    (450, "4.1.2 <jane@nx.invalid>: Recipient address rejected: Domain not found", Classified::DNS_FAILURE),
    (550, "5.1.2 <jane@nx.invalid>: Recipient address rejected: Domain not found", Classified::INVALID_RECIPIENT),
    (552, "5.3.4 Message size exceeds fixed limit", Classified::MESSAGE_TOO_LARGE),
    (552, "5.3.4 Error: message file too big", Classified::MESSAGE_TOO_LARGE),
    (452, "4.3.1 Insufficient system storage", Classified::SOFT_BOUNCE),
    (450, "4.7.25 Client host rejected: cannot find your hostname, [192.0.2.1]", Classified::MAIL_BLOCK),
    (554, "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.1", Classified::SPAM_BLOCK),
    (450, "4.2.0 <jane@example.com>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/example.com.html", Classified::TRANSIENT),
    (554, "5.7.1 <jane@example.com>: Recipient address rejected: Access denied", Classified::RECIPIENT_REFUSED),
    (550, "5.7.1 <jane@example.com>: Recipient address rejected: Message rejected due to: SPF fail - not authorized", Classified::MAIL_BLOCK),
    (550, "5.4.4 <jane@nx.invalid>: Host or domain name not found. Name service error for name=nx.invalid type=A: Host not found", Classified::INVALID_RECIPIENT),
    (450, "4.4.3 <jane@slow.invalid>: Host or domain name not found. Name service error for name=slow.invalid type=MX: Host not found, try again", Classified::DNS_FAILURE),
    (550, "5.2.2 <jane@example.com>: Recipient address rejected: Mailbox is full / Blad 4.2.2", Classified::MAILBOX_FULL),
    (556, "5.1.10 <jane@example.com>: Recipient address rejected: Domain example.com does not accept mail (nullMX)", Classified::INVALID_RECIPIENT),
    (530, "5.7.0 Must issue a STARTTLS command first", Classified::ADMIN_FAILURE),
    (535, "5.7.8 Error: authentication failed: UGFzc3dvcmQ6", Classified::ADMIN_FAILURE),
    (421, "4.7.0 mx.example.com Error: too many connections from 192.0.2.1", Classified::TRANSIENT),
    (550, "5.7.1 Message content rejected, id=04321-07 - SPAM", Classified::SPAM_CONTENT),
    // Dovecot LMTP
    (552, "5.2.2 <jane@example.com> Quota exceeded (mailbox for user is full)", Classified::MAILBOX_FULL),
    (550, "5.1.1 <jane@example.com> User doesn't exist: jane@example.com", Classified::INVALID_RECIPIENT),
    // Exim
    (550, "Unrouteable address", Classified::INVALID_RECIPIENT),
    (550, "relay not permitted", Classified::RELAYING_DENIED),
    (550, "Sender verify failed", Classified::ADMIN_FAILURE),
    (550, "No such person at this address", Classified::INVALID_RECIPIENT),
    (552, "message too big", Classified::MESSAGE_TOO_LARGE),
    (550, "This message was classified as SPAM and may not be delivered", Classified::SPAM_CONTENT),
    (550, "Verification failed for <x@example.com>\r\n550-Previous (cached) callout verification failure\r\n550 Sender verify failed", Classified::ADMIN_FAILURE),
    // sendmail
    (550, "5.1.1 <nobody@example.com>... User unknown", Classified::INVALID_RECIPIENT),
    (553, "5.1.8 <x@nx.invalid>... Domain of sender address x@nx.invalid does not exist", Classified::ADMIN_FAILURE),
    (550, "5.7.1 <jane@example.org>... Relaying denied. Proper authentication required.", Classified::RELAYING_DENIED),
    // qmail
    (553, "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", Classified::RELAYING_DENIED),
    (550, "sorry, no mailbox here by that name. (#5.7.17)", Classified::INVALID_RECIPIENT),
    (552, "sorry, that message size exceeds my databytes limit (#5.3.4)", Classified::MESSAGE_TOO_LARGE),
    // Exchange and Exchange Online
    (550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", Classified::INVALID_RECIPIENT),
    (550, "5.4.1 Recipient address rejected: Access denied. AS(201806281) [DB5EUR03FT042.eop-EUR03.prod.protection.outlook.com]", Classified::INVALID_RECIPIENT),
    (550, "5.7.54 SMTP; Unable to relay recipient in non-accepted domain", Classified::RELAYING_DENIED),
    (550, "5.7.64 TenantAttribution; Relay Access Denied", Classified::RELAYING_DENIED),
    (550, "5.7.1 RESOLVER.RST.AuthRequired; authentication required", Classified::ADMIN_FAILURE),
    (550, "5.7.1 RESOLVER.RST.NotAuthorized; not authorized", Classified::RECIPIENT_REFUSED),
    (552, "5.2.3 RESOLVER.RST.RecipSizeLimit; message too large for this recipient", Classified::MESSAGE_TOO_LARGE),
    (552, "5.2.2 STOREDRV.Deliver; mailbox full", Classified::MAILBOX_FULL),
    (554, "5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded", Classified::MAILBOX_FULL),
    (550, "5.7.509 Access denied, sending domain example.com does not pass DMARC verification and has a DMARC policy of reject.", Classified::MAIL_BLOCK),
    (530, "5.7.57 Client not authenticated to send mail.", Classified::ADMIN_FAILURE),
    (550, "5.7.60 SMTP; Client does not have permissions to send as this sender", Classified::ADMIN_FAILURE),
    (451, "4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)", Classified::SOFT_BOUNCE),
    (451, "4.4.2 Timeout waiting for client input", Classified::TIMEOUT),
    (550, "4.4.7 QUEUE.Expired; message expired", Classified::TIMEOUT),
    // Outlook.com
    (550, "5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", Classified::INVALID_RECIPIENT),
    (550, "5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150).", Classified::SPAM_BLOCK),
    (451, "4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation.", Classified::TRANSIENT),
    // Gmail
    (550, "5.1.1 The email account that you tried to reach does not exist. Please try\n5.1.1 double-checking the recipient's email address for typos or\n5.1.1 unnecessary spaces. https://support.google.com/mail/?p=NoSuchUser x-20020a - gsmtp", Classified::INVALID_RECIPIENT),
    (550, "5.2.1 The email account that you tried to reach is disabled. Learn more at https://support.google.com/mail/?p=DisabledUser - gsmtp", Classified::INVALID_RECIPIENT),
    (552, "5.2.2 The recipient's inbox is out of storage space. Please direct the recipient to https://support.google.com/mail/?p=OverQuotaPerm - gsmtp", Classified::MAILBOX_FULL),
    (452, "4.2.2 The email account that you tried to reach is over quota. https://support.google.com/mail/?p=OverQuotaTemp - gsmtp", Classified::MAILBOX_FULL),
    (552, "5.3.4 Your message exceeded Google's message size limits. https://support.google.com/mail/?p=MaxSizeError - gsmtp", Classified::MESSAGE_TOO_LARGE),
    (550, "5.7.1 Our system has detected that this message is likely unsolicited mail.", Classified::SPAM_CONTENT),
    (550, "5.7.26 This mail has been blocked because the sender is unauthenticated.\n5.7.26 Gmail requires all senders to authenticate with either SPF or DKIM.", Classified::MAIL_BLOCK),
    (421, "4.7.0 [192.0.2.1 15] Our system has detected an unusual rate of unsolicited mail originating from your IP address. To protect our users from spam, mail sent from your IP address has been temporarily rate limited.", Classified::SPAM_BLOCK),
    (550, "5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered.", Classified::SOFT_BOUNCE),
    (450, "4.2.1 The user you are trying to contact is receiving mail too quickly.", Classified::SOFT_BOUNCE),
    (550, "5.4.5 Daily user sending limit exceeded.", Classified::ADMIN_FAILURE),
    (550, "5.7.25 The IP address sending this message does not have a PTR record setup", Classified::MAIL_BLOCK),
    // Yahoo and AOL
    (554, "delivery error: dd This user doesn't have a yahoo.com account (nobody@yahoo.com) [0] - mta1234.mail.gq1.yahoo.com", Classified::INVALID_RECIPIENT),
    (554, "delivery error: dd Sorry, your message to jane@yahoo.com cannot be delivered. This mailbox is disabled (554.30).", Classified::INVALID_RECIPIENT),
    (552, "1 Requested mail action aborted, mailbox not found", Classified::INVALID_RECIPIENT),
    (421, "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes", Classified::SPAM_BLOCK),
    (554, "5.7.9 Message not accepted for policy reasons. See https://postmaster.yahooinc.com/error-codes", Classified::MAIL_BLOCK),
    (554, "Message not allowed - [PH01] Email not accepted for policy reasons.", Classified::MAIL_BLOCK),
    // Apple, Comcast, GMX, T-Online, Proofpoint and others
    (552, "5.2.2 <jane@icloud.com>: user is over quota", Classified::MAILBOX_FULL),
    (550, "5.1.0 <x@example.com> sender rejected. AUP#CXSNDR", Classified::MAIL_BLOCK),
    (550, "Requested action not taken: mailbox unavailable\n550-Reject due to policy restrictions.", Classified::MAIL_BLOCK),
    (550, "Requested action not taken: mailbox unavailable", Classified::INVALID_RECIPIENT),
    (552, "Requested mail action aborted: exceeded storage allocation", Classified::MAILBOX_FULL),
    (550, "5.7.1 Mail from 192.0.2.1 blocked, reputation too low", Classified::SPAM_BLOCK),
    (550, "5.7.0 Virus found in message: Eicar-Test-Signature", Classified::SPAM_CONTENT),
    (550, "permanent failure for one or more recipients (jane@example.com:blocked)", Classified::MAIL_BLOCK),
    (550, "5.7.1 <jane@example.com> is not accepting mail from this sender", Classified::RECIPIENT_REFUSED),
    (501, "5.1.3 Bad recipient address syntax", Classified::INVALID_RECIPIENT),
    (550, "#5.1.0 Address rejected.", Classified::INVALID_RECIPIENT),
    (550, "5.1.0 Address rejected.", Classified::INVALID_RECIPIENT),
    (450, "4.7.1 mail rate limit exceeded, slow down", Classified::TRANSIENT),
    (550, "5.7.1 number of messages exceeds the maximum for this hour", Classified::MAIL_BLOCK),
    (550, "Domain example.com does not accept mail (nullMX)", Classified::INVALID_RECIPIENT),
    (550, "5.7.1 Recipient address rejected: filter service unavailable", Classified::RECIPIENT_REFUSED),
    (550, "5.1.1 Mailbox temporarily disabled; see http://spam.example.com/policy", Classified::INVALID_RECIPIENT),
    (550, "Message size exceeds maximum permitted", Classified::MESSAGE_TOO_LARGE),
    (550, "5.2.1 Mailbox unavailable. Your IP address 192.0.2.1 is blocked using a blacklist", Classified::SPAM_BLOCK),
    // Hardly a word
    (550, "", Classified::INVALID_RECIPIENT),
    (551, "User not local", Classified::INVALID_RECIPIENT),
    (553, "Requested action not taken", Classified::INVALID_RECIPIENT),
    (521, "no", Classified::INVALID_RECIPIENT),
    (552, "Requested action aborted", Classified::MAILBOX_FULL),
    (554, "Transaction failed", Classified::SOFT_BOUNCE),
    (554, "5.0.0 Service unavailable", Classified::SOFT_BOUNCE),
    (550, "5.7.1 Refused", Classified::MAIL_BLOCK),
    (550, "5.6.1 Media not supported", Classified::GENERIC),
    (500, "Command unrecognized", Classified::ADMIN_FAILURE),
    (421, "Service not available, closing transmission channel", Classified::SOFT_BOUNCE),
    (450, "4.2.0 try again later", Classified::SOFT_BOUNCE),
    (451, "Requested action aborted: local error in processing", Classified::SOFT_BOUNCE),
    (451, "4.4.1 no answer from host", Classified::TIMEOUT),
    (250, "2.1.5 Ok", Classified::UNDETERMINED),
    (0, "", Classified::UNDETERMINED),
];

#[test]
fn classifies_the_replies_of_real_servers() {
    assert!(REPLIES.len() >= 40);
    let wrong: Vec<_> = REPLIES
        .iter()
        .map(|(code, text, expected)| (code, text, expected, classify(*code, None, text)))
        .filter(|(_, _, expected, found)| *expected != found)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_codes_in_the_text_make_no_difference() {
    for (code, text, expected) in REPLIES.iter().filter(|(code, ..)| *code >= 400) {
        let lines: Vec<_> = text.lines().map(|line| format!("{code}-{line}")).collect();
        assert_eq!(classify(*code, None, &lines.join("\r\n")), *expected, "{code} {text}");
        if let Some(enhanced) = parse_enhanced(text) {
            assert_eq!(classify(*code, Some(enhanced), text), *expected, "{code} {text}");
        }
    }
}

#[test]
fn an_enhanced_code_apart_from_the_text_counts() {
    assert_eq!(classify(550, Some((5, 2, 2)), "Sorry"), Classified::MAILBOX_FULL);
    assert_eq!(classify(554, Some((5, 1, 1)), "Sorry"), Classified::INVALID_RECIPIENT);
    assert_eq!(classify(550, Some((5, 7, 1)), "Sorry"), Classified::MAIL_BLOCK);
    assert_eq!(classify(450, Some((4, 4, 3)), "Sorry"), Classified::DNS_FAILURE);
}

#[test]
fn reads_enhanced_codes_where_they_are() {
    for (text, expected) in [
        ("5.1.1 no such user", Some((5, 1, 1))),
        ("5.1.1", Some((5, 1, 1))),
        ("550 5.7.26 unauthenticated", Some((5, 7, 26))),
        ("550-5.1.1 The email account", Some((5, 1, 1))),
        ("said: 550 5.1.1 <x@example.com>", Some((5, 1, 1))),
        ("sorry, no mailbox here by that name. (#5.1.1)", Some((5, 1, 1))),
        ("#5.1.0 Address rejected.", Some((5, 1, 0))),
        ("[4.4.1] timeout", Some((4, 4, 1))),
        ("5.7.509: Access denied", Some((5, 7, 509))),
        ("2.1.5 Ok", Some((2, 1, 5))),
        ("Exim 4.96.1 says no", None),
        ("3.1.1 odd class", None),
        ("5.1.1.1 an address", None),
        ("192.0.2.1 blocked", None),
        ("5.1 short", None),
        ("5.1.1234 long", None),
        ("5.1.x", None),
        ("5..1", None),
        ("5.+1.1", None),
        ("", None),
    ] {
        assert_eq!(parse_enhanced(text), expected, "{text}");
    }
}

#[test]
fn every_code_has_its_type_in_the_public_table() {
    let hard = ["10", "15"];
    let soft = ["20", "21", "22", "54", "100"];
    for (_, class) in RULES {
        let expected = match class.code {
            code if hard.contains(&code) => FailureType::Hard,
            code if soft.contains(&code) => FailureType::Soft,
            _ => FailureType::Ignored,
        };
        assert_eq!(class.failure_type, expected, "{}", class.code);
    }
}

#[test]
fn no_rule_is_dead_for_want_of_reach() {
    let reached: std::collections::HashSet<_> =
        REPLIES.iter().map(|(code, text, _)| classify(*code, None, text).code).collect();
    for (_, class) in RULES.iter().filter(|(_, class)| class.code != "100") {
        assert!(reached.contains(class.code), "no example ends in {}", class.code);
    }
}

#[test]
fn a_huge_text_is_judged_by_its_start() {
    let long = format!("5.1.1 user unknown {}", "ü".repeat(1_000_000));
    assert_eq!(classify(550, None, &long), Classified::INVALID_RECIPIENT);
}

proptest! {
    #[test]
    fn no_text_panics(code: u16, enhanced: Option<(u8, u16, u16)>, text in "(?s).{0,300}") {
        let _ = classify(code, enhanced, &text);
        let _ = parse_enhanced(&text);
    }

    #[test]
    fn a_temporary_reply_is_never_hard(
        code in 400..500u16, index in 0..REPLIES.len(), noise in "\\PC{0,40}",
    ) {
        let text = format!("{} {noise}", REPLIES[index].1);
        prop_assert_ne!(classify(code, None, &text).failure_type, FailureType::Hard);
    }

    #[test]
    fn what_is_written_is_read(class in prop::sample::select(vec![2u8, 4, 5]), subject in 0..1000u16, detail in 0..1000u16) {
        let enhanced = (class, subject, detail);
        let text = format!("{class}.{subject}.{detail} words");
        prop_assert_eq!(parse_enhanced(&text), Some(enhanced));
    }
}
