//! The SMTP sender against relays that behave and relays that do not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixtures;
mod relay;

use fixtures::{Door, Setup, delay_of, message, message_to, outcome_of};
use model::channel::SmtpTls;
use model::outcome::{FailureCategory, FailureType, FeedbackStatus, Verdict};
use outbound::channel::{Sender, Sent};
use relay::{Answer, Relay, Script};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::time::timeout;

/// The reason and the code of what a message ends with when its time is up.
fn end_of(sent: Sent) -> (FeedbackStatus, String, String) {
    let Sent::Later { at_the_end, .. } = sent else { panic!("{sent:?}") };
    let failure = at_the_end.failure().unwrap();
    assert_eq!(failure.category, FailureCategory::Sync);
    (at_the_end.status(), failure.code.clone(), failure.reason.clone())
}

#[tokio::test]
async fn a_message_is_sent_and_the_connection_used_again() {
    let relay = Relay::start(Script::plain()).await;
    let setup = Setup::new(&relay);
    for number in 0..3 {
        let outcome = outcome_of(setup.send(&message(number)).await);
        assert_eq!(outcome.verdict, Verdict::Sent);
        assert_eq!((outcome.response_code, outcome.response_duration_ms), (Some(250), Some(0)));
    }
    assert_eq!(setup.door.opened(), 3);
    let id = message(2).key.id().to_string();
    relay.seen(|seen| {
        assert_eq!((seen.connections, seen.count("EHLO acme.example"), seen.count("RSET")), (1, 1, 0));
        let mail = seen.commands.iter().rfind(|command| command.starts_with("MAIL")).unwrap();
        assert!(mail.starts_with("MAIL FROM:<orders@acme.example> SIZE="), "{mail}");
        assert!(mail.ends_with(&format!(" RET=HDRS ENVID={id}")), "{mail}");
        let recipient = seen.commands.iter().rfind(|command| command.starts_with("RCPT")).unwrap();
        assert_eq!(
            recipient,
            "RCPT TO:<jane+tag@example.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;jane+2Btag@example.com"
        );
    });
    let mail = relay.messages().pop().unwrap();
    assert!(mail.contains(&format!("Message-ID: <{id}@acme.example>\r\n")), "{mail}");
}

#[tokio::test]
async fn content_arrives_as_it_was_written() {
    let relay = Relay::start(Script::plain().offering(&[])).await;
    let mut setup = Setup::new(&relay);
    setup.version.settings.content.subject = Some("Grüße {{context.x}} 🎉".to_owned());
    setup.version.settings.content.text = Some(".\n..\nthree\n.".to_owned());
    outcome_of(setup.send(&message(0)).await);
    let mail = relay.messages().pop().unwrap();
    let parsed = mail_parser::MessageParser::default().parse(&mail).unwrap();
    assert_eq!(parsed.subject(), Some("Grüße  🎉"));
    assert_eq!(parsed.body_text(0).unwrap().trim_end(), ".\r\n..\r\nthree\r\n.");
    relay.seen(|seen| assert!(seen.commands.contains(&"MAIL FROM:<orders@acme.example>".to_owned())));
}

#[tokio::test]
async fn refusals_bounce_with_the_relays_own_words() {
    for (point, words, reason, failure_type, code) in [
        ("MAIL", "550 5.7.1 sender blocked", "550 5.7.1 sender blocked", FailureType::Ignored, "50"),
        ("RCPT", "550-5.1.1 no such\r\n550 5.1.1 user", "550 5.1.1 no such user", FailureType::Hard, "10"),
        ("RCPT", "552 5.2.2 mailbox full", "552 5.2.2 mailbox full", FailureType::Soft, "22"),
        ("DATA", "554 5.7.1 spam message rejected", "554 5.7.1 spam message rejected", FailureType::Ignored, "52"),
        ("END", "552 5.3.4 message too big", "552 5.3.4 message too big", FailureType::Ignored, "23"),
    ] {
        for extensions in [&["PIPELINING"][..], &[]] {
            let relay = Relay::start(Script::plain().offering(extensions).then(point, Answer::Say(words))).await;
            let setup = Setup::new(&relay);
            let outcome = outcome_of(setup.send(&message(0)).await);
            let Verdict::Bounce(failure) = outcome.verdict else { panic!("{:?}", outcome.verdict) };
            assert_eq!(failure.reason, reason);
            assert_eq!((failure.category, failure.failure_type), (FailureCategory::Sync, failure_type), "{words}");
            assert_eq!((failure.code.as_str(), outcome.response_code), (code, words[..3].parse().ok()));
            assert_eq!(setup.door.opened(), usize::from(matches!(point, "DATA" | "END")));
            // The next message gets a clean transaction on the same connection.
            assert_eq!(outcome_of(setup.send(&message(1)).await).verdict, Verdict::Sent);
            relay.seen(|seen| assert_eq!((seen.connections, seen.count("RSET")), (1, 1), "{words}"));
        }
    }
}

#[tokio::test]
async fn temporary_refusals_wait_and_end_as_a_soft_bounce() {
    for point in ["MAIL", "RCPT", "DATA", "END"] {
        let words = Answer::Say("452 4.2.2 mailbox full");
        let relay = Relay::start(Script::plain().then(point, words)).await;
        let setup = Setup::new(&relay);
        let sent = setup.send(&message(0)).await;
        assert_eq!(delay_of(&sent).response_code, Some(452));
        let Sent::Later { at_the_end: Verdict::Bounce(failure), .. } = sent else { panic!("{sent:?}") };
        assert_eq!((failure.failure_type, failure.code.as_str()), (FailureType::Soft, "22"));
        assert_eq!(outcome_of(setup.send(&message(0)).await).verdict, Verdict::Sent);
        relay.seen(|seen| assert_eq!(seen.connections, 1));
    }
    let relay = Relay::start(Script::plain().then("RCPT", Answer::Say("451 4.7.1 greylisted, try again"))).await;
    let end = end_of(Setup::new(&relay).send(&message(0)).await);
    assert_eq!((end.0, end.2.as_str()), (FeedbackStatus::Bounce, "451 4.7.1 greylisted, try again"));
}

#[tokio::test]
async fn a_connection_lost_around_the_dot_is_tried_again_with_the_same_id() {
    for (point, arrived) in [("DATA", 0), ("BODY", 0), ("END", 1)] {
        let relay = Relay::start(Script::plain().then(point, Answer::Close)).await;
        let setup = Setup::new(&relay);
        let (status, code, reason) = end_of(setup.send(&message(0)).await);
        assert_eq!((status, code.as_str()), (FeedbackStatus::Error, "25"), "{reason}");
        assert_eq!((setup.door.opened(), relay.messages().len()), (1, arrived));
        assert_eq!(outcome_of(setup.send(&message(0)).await).verdict, Verdict::Sent);
        let ids = relay.messages();
        let ids: Vec<_> = ids.iter().map(|mail| mail.lines().find(|line| line.starts_with("Message-ID"))).collect();
        assert_eq!(ids.len(), arrived + 1);
        assert!(ids.iter().all(|id| id.is_some() && *id == ids[0]), "{ids:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_relay_closed_is_replaced() {
    for (point, answer) in [
        ("END", Answer::SayAndClose("250 2.0.0 queued, and goodbye")),
        ("MAIL", Answer::SayAndClose("421 4.3.2 idle for too long")),
        ("MAIL", Answer::Close),
    ] {
        let mut script = Script::plain();
        if point == "MAIL" {
            script = script.then("MAIL", Answer::Say("250 ok"));
        }
        let relay = Relay::start(script.then(point, answer)).await;
        let setup = Setup::new(&relay);
        assert_eq!(outcome_of(setup.send(&message(0)).await).verdict, Verdict::Sent);
        assert_eq!(outcome_of(setup.send(&message(1)).await).verdict, Verdict::Sent, "{point} {answer:?}");
        assert_eq!((setup.door.opened(), relay.messages().len()), (2, 2));
        relay.seen(|seen| assert_eq!(seen.connections, 2));
    }
}

#[tokio::test]
async fn a_closing_relay_is_not_asked_again_at_once() {
    for point in ["MAIL", "RCPT", "DATA", "END"] {
        let relay = Relay::start(Script::plain().then(point, Answer::SayAndClose("421 4.3.2 shutting down"))).await;
        let setup = Setup::new(&relay);
        let sent = setup.send(&message(0)).await;
        assert_eq!(delay_of(&sent).response_code, Some(421));
        assert_eq!(end_of(sent).0, FeedbackStatus::Bounce);
        relay.seen(|seen| assert_eq!(seen.connections, 1, "{point}"));
        assert_eq!(outcome_of(setup.send(&message(0)).await).verdict, Verdict::Sent);
        relay.seen(|seen| assert_eq!(seen.connections, 2, "{point}"));
    }
}

#[tokio::test]
async fn a_shut_gate_lets_nothing_out() {
    let relay = Relay::start(Script::plain()).await;
    let setup = Setup::new(&relay).with_door(Door::shut());
    assert!(matches!(setup.send(&message(0)).await, Sent::Withheld));
    relay.seen(|seen| {
        assert_eq!((seen.count("RCPT"), seen.count("DATA"), seen.count("RSET")), (1, 0, 1));
        assert!(seen.messages.is_empty());
    });
    let setup = setup.with_door(Door::default());
    assert_eq!(outcome_of(setup.send(&message(0)).await).verdict, Verdict::Sent);
    relay.seen(|seen| assert_eq!((seen.connections, seen.count("RSET")), (1, 1)));
}

#[tokio::test]
async fn the_gate_is_opened_after_the_recipient_was_taken_and_before_data() {
    let relay = Arc::new(Relay::start(Script::plain()).await);
    let witness = relay.clone();
    let look = move || witness.seen(|seen| assert_eq!((seen.count("RCPT"), seen.count("DATA")), (1, 0)));
    let setup = Setup::new(&relay).with_door(Door::looking(look));
    assert_eq!(outcome_of(setup.send(&message(0)).await).verdict, Verdict::Sent);
}

#[tokio::test]
async fn starttls_and_implicit_tls_encrypt_everything() {
    for tls in [SmtpTls::Starttls, SmtpTls::Implicit] {
        let script = Script { tls, ..Script::plain().offering(&["STARTTLS", "AUTH PLAIN LOGIN"]) };
        let relay = Relay::start(script).await;
        let setup = Setup::new(&relay).with_tls(tls).with_login("user", "secret");
        assert_eq!(outcome_of(setup.send(&message(0)).await).verdict, Verdict::Sent);
        relay.seen(|seen| {
            let expected = if tls == SmtpTls::Starttls { 2 } else { 1 };
            assert_eq!((seen.count("EHLO"), seen.count("AUTH PLAIN")), (expected, 1));
        });
        setup.sender().check().await.unwrap();
        relay.seen(|seen| assert_eq!(seen.count("QUIT"), 1));
    }
}

#[tokio::test]
async fn nothing_is_sent_without_the_tls_that_was_asked_for() {
    let relay = Relay::start(Script::plain()).await;
    let setup = Setup::new(&relay).with_tls(SmtpTls::Starttls).with_login("user", "secret");
    let (status, code, reason) = end_of(setup.send(&message(0)).await);
    assert_eq!((status, code.as_str()), (FeedbackStatus::Error, "25"));
    assert!(reason.contains("does not offer STARTTLS"), "{reason}");
    relay.seen(|seen| assert_eq!(seen.commands.len(), 1, "only EHLO"));

    let script = Script::plain().offering(&["STARTTLS"]).then("STARTTLS", Answer::Say("454 4.7.0 not now"));
    let relay = Relay::start(script).await;
    let (_, _, reason) = end_of(Setup::new(&relay).with_tls(SmtpTls::Starttls).send(&message(0)).await);
    assert_eq!(reason, "the relay refuses STARTTLS: 454 4.7.0 not now");

    let injected = Answer::Say("220 go ahead\r\n250 injected");
    let relay = Relay::start(Script::plain().offering(&["STARTTLS"]).then("STARTTLS", injected)).await;
    let (_, _, reason) = end_of(Setup::new(&relay).with_tls(SmtpTls::Starttls).send(&message(0)).await);
    assert!(reason.contains("TLS"), "{reason}");
    relay.seen(|seen| assert_eq!(seen.count("MAIL"), 0));
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_trouble() {
    for tls in [SmtpTls::Starttls, SmtpTls::Implicit] {
        let relay = Relay::start(Script { tls, ..Script::plain().offering(&["STARTTLS"]) }).await;
        let setup = Setup::new(&relay).with_tls(tls);
        for setup in [setup.clone().trusting_nobody(), setup.at_host("localhost")] {
            let (status, code, reason) = end_of(setup.send(&message(0)).await);
            assert_eq!((status, code.as_str()), (FeedbackStatus::Error, "25"));
            assert!(reason.contains("certificate"), "{reason}");
        }
        relay.seen(|seen| assert_eq!(seen.count("MAIL"), 0));
    }
}

#[tokio::test]
async fn wrong_credentials_wait_and_end_as_an_error() {
    for mechanisms in ["AUTH PLAIN LOGIN", "AUTH LOGIN", "AUTH=LOGIN"] {
        let relay = Relay::start(Script::plain().offering(&[mechanisms])).await;
        let setup = Setup::new(&relay).with_login("user", "wrong-one");
        let (status, code, reason) = end_of(setup.send(&message(0)).await);
        assert_eq!((status, code.as_str()), (FeedbackStatus::Error, "25"));
        assert_eq!(reason, "the relay refuses the credentials: 535 5.7.8 authentication failed");
        assert!(setup.sender().check().await.unwrap_err().contains("535 5.7.8"));
        assert!(!format!("{:?}", setup.sender()).contains("wrong-one"));
        let setup = setup.with_login("user", "secret");
        assert_eq!(outcome_of(setup.send(&message(0)).await).verdict, Verdict::Sent);
    }
    let relay = Relay::start(Script::plain().offering(&["AUTH CRAM-MD5"])).await;
    let (_, _, reason) = end_of(Setup::new(&relay).with_login("user", "secret").send(&message(0)).await);
    assert!(reason.contains("neither AUTH PLAIN nor AUTH LOGIN"), "{reason}");
}

#[tokio::test]
async fn trouble_with_the_relay_says_nothing_about_the_recipient() {
    for (point, words) in [
        ("GREETING", "554 5.7.1 no service for you"),
        ("EHLO", "550 5.7.1 bad name"),
        ("MAIL", "530 5.7.0 authentication required"),
    ] {
        let relay = Relay::start(Script::plain().then(point, Answer::Say(words))).await;
        let sent = Setup::new(&relay).send(&message(0)).await;
        assert_eq!(delay_of(&sent).response_code, words[..3].parse().ok());
        let (status, code, reason) = end_of(sent);
        assert_eq!((status, code.as_str()), (FeedbackStatus::Error, "25"));
        assert!(reason.ends_with(words), "{reason}");
    }
    let relay = Relay::start(Script::plain().then("GREETING", Answer::Say("not smtp"))).await;
    assert_eq!(end_of(Setup::new(&relay).send(&message(0)).await).0, FeedbackStatus::Error);

    let setup = Setup::new(&relay);
    drop(relay);
    let (status, _, reason) = end_of(setup.send(&message(0)).await);
    assert_eq!(status, FeedbackStatus::Error);
    assert!(reason.contains("no connection to the relay"), "{reason}");
}

#[tokio::test]
async fn bad_addresses_never_reach_the_relay() {
    let relay = Relay::start(Script::plain()).await;
    let setup = Setup::new(&relay);
    for (address, code) in [
        (Some("a@b.example>\r\nRCPT TO:<evil@example.com"), "050024"),
        (Some("a@b.example\r\n"), "050024"),
        (Some("nobody"), "050024"),
        (None, "050020"),
    ] {
        let outcome = outcome_of(setup.send(&message_to(0, address)).await);
        assert_eq!(outcome.verdict.exclusion().unwrap().code, code, "{address:?}");
    }
    relay.seen(|seen| assert_eq!(seen.connections, 0));
}

#[tokio::test]
async fn the_pool_never_has_more_connections_than_it_may() {
    let relay = Relay::start(Script::plain()).await;
    // Each gate waits for two others: the messages pass only if three are under way together.
    let setup = Setup::new(&relay).with_door(Door::meeting(Arc::new(Barrier::new(3)))).with_connections(3);
    let sender = setup.sender();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (sender, setup) = (sender.clone(), setup.clone());
        tasks.spawn(async move { sender.send(&message(number), &setup.version, &setup.door).await });
    }
    let results = timeout(Duration::from_secs(60), tasks.join_all()).await.unwrap();
    assert!(results.into_iter().all(|sent| outcome_of(sent).verdict == Verdict::Sent));
    relay.seen(|seen| assert_eq!((seen.most_open, seen.connections, seen.messages.len()), (3, 3, 12)));
}

#[tokio::test]
async fn a_send_that_is_given_up_frees_its_connection() {
    let relay = Relay::start(Script::plain()).await;
    let setup = Setup::new(&relay).with_connections(1);
    let sender = setup.sender();
    let never = Door::meeting(Arc::new(Barrier::new(2)));
    let (given_up, kept) = (message(0), message(1));
    {
        let mut first = sender.send(&given_up, &setup.version, &never);
        let reached = never.reached();
        tokio::select! {
            _ = &mut first => panic!("the gate never opens"),
            () = reached => {}
        }
    }
    let second = sender.send(&kept, &setup.version, &setup.door);
    let second = timeout(Duration::from_secs(60), second).await.unwrap();
    assert_eq!(outcome_of(second).verdict, Verdict::Sent);
    relay.seen(|seen| assert_eq!((seen.connections, seen.messages.len()), (2, 1)));
}
