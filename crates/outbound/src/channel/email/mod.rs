//! Email through an SMTP relay (RFC 5321).
//!
//! | module | what it knows |
//! |---|---|
//! | `dialogue` | commands and replies on a stream |
//! | `relay` | how to reach the relay: connection, TLS, EHLO, AUTH |
//! | `transaction` | one message: MAIL, RCPT, DATA |
//! | `pool` | which connections are open |
//! | this one | what a reply or a trouble means for the message |
//!
//! Trouble with the relay (no connection, no TLS, wrong credentials) says nothing about a recipient: the message waits,
//! and ends as an `error` when its time is up. What the relay says about the message bounces it or delays it.

mod dialogue;
mod pool;
mod relay;
mod transaction;

use super::compose::{Letter, compose};
use super::prepare::{Templates, prepare};
use super::{Gate, Sender, Sent};
use async_trait::async_trait;
use dialogue::{Reply, Trouble};
use model::channel::{ChannelSettings, Mailbox};
use model::clock::Clock;
use model::execution::DueMessage;
use model::outcome::{Failure, FailureCategory, Outcome, Verdict};
use pool::{Lease, Pool};
use relay::{Connection, Relay};
use rustls::ClientConfig;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use store::work::LiveVersion;
use transaction::{Begun, Envelope, Handed, Stage};
use wire::smtp_reply::{Classified, classify};

/// The sender of a channel configuration of type `smtp`.
pub struct SmtpSender {
    relay: Relay,
    pool: Pool,
    from: Mailbox,
    reply_to: Option<Mailbox>,
    templates: Arc<Templates>,
    clock: Arc<dyn Clock>,
    /// The last trouble with the relay, so that the log tells of each kind once and not once a message.
    told: Mutex<Option<String>>,
}

impl fmt::Debug for SmtpSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SmtpSender({})", self.relay)
    }
}

impl SmtpSender {
    /// A sender through the relay of `settings`, which hold their secrets. Nothing is connected yet.
    ///
    /// # Errors
    /// Says which setting is missing.
    pub fn new(
        settings: &ChannelSettings,
        templates: Arc<Templates>,
        clock: Arc<dyn Clock>,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, String> {
        let smtp = settings.smtp.as_ref().ok_or("the channel configuration has no smtp settings")?;
        let from = settings.from.clone().ok_or("the channel configuration has no sender (from)")?;
        // Relays for several domains look at this name, and the sender's domain is the one they know.
        let name = from.address.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
        let relay = Relay::new(smtp, name, tls);
        let pool = Pool::new(smtp.max_connections);
        let reply_to = settings.reply_to.clone();
        Ok(Self { relay, pool, from, reply_to, templates, clock, told: Mutex::default() })
    }

    /// Connects, introduces itself and authenticates, as before a message, and leaves again.
    ///
    /// # Errors
    /// Says what is wrong with the relay or the settings for it.
    pub async fn check(&self) -> Result<(), String> {
        let _lease = self.pool.lease().await;
        let connection = self.relay.connect().await.map_err(|trouble| trouble.to_string())?;
        connection.quit().await;
        Ok(())
    }

    async fn hand_over(&self, envelope: &Envelope<'_>, message: &[u8], gate: &dyn Gate) -> Result<Handed, Trouble> {
        let lease = self.pool.lease().await;
        if let Some(mut idle) = lease.idle() {
            let begun = transaction::begin(&mut idle, envelope, message.len()).await;
            // The relay may have closed the connection while it was idle. The gate is shut still, so nothing is lost
            // by another try.
            if let Ok(begun) = begun
                && !begun.is_closing()
            {
                return self.go_on(lease, idle, begun, message, gate).await;
            }
        }
        let mut fresh = self.relay.connect().await?;
        let begun = transaction::begin(&mut fresh, envelope, message.len()).await?;
        self.go_on(lease, fresh, begun, message, gate).await
    }

    async fn go_on(
        &self,
        lease: Lease<'_>,
        mut connection: Connection,
        begun: Begun,
        message: &[u8],
        gate: &dyn Gate,
    ) -> Result<Handed, Trouble> {
        let handed = match begun {
            Begun::Answered(stage, reply) => Handed::Answered(stage, reply),
            Begun::Ready if gate.open().await => {
                transaction::transfer(&mut connection, message, self.clock.as_ref()).await?
            }
            Begun::Ready => {
                // What the relay says to that is of no interest: a connection that fails here is not kept.
                if transaction::abandon(&mut connection).await.is_err() {
                    return Ok(Handed::Withheld);
                }
                Handed::Withheld
            }
        };
        if !handed.is_closing() {
            lease.give_back(connection);
        }
        Ok(handed)
    }

    fn outcome_of(&self, handed: Handed) -> Sent {
        self.forget_trouble();
        let mut outcome = Outcome::new(Verdict::Sent, self.clock.now());
        match handed {
            Handed::Withheld => Sent::Withheld,
            Handed::Accepted { code, duration_ms } => {
                outcome.response_code = Some(code);
                outcome.response_duration_ms = Some(duration_ms);
                Sent::Decided { outcome, planned: None }
            }
            Handed::Answered(stage, reply) => {
                let class = classify(reply.code, reply.enhanced(), &reply.text());
                if stage == Stage::Mail && class == Classified::ADMIN_FAILURE {
                    return self.later(&Trouble::Refused { stage: "MAIL", reply });
                }
                outcome.response_code = Some(reply.code);
                let bounce = Verdict::Bounce(failure_of(class, &reply));
                if reply.is_permanent() {
                    outcome.verdict = bounce;
                    return Sent::Decided { outcome, planned: None };
                }
                outcome.verdict = Verdict::Delay;
                Sent::Later { delay: outcome, at_the_end: bounce }
            }
        }
    }

    fn later(&self, trouble: &Trouble) -> Sent {
        let text = trouble.to_string();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref() != Some(&text) {
            tracing::warn!(relay = %self.relay, trouble = text, "email waits: the relay cannot be used");
            *told = Some(text);
        }
        let mut delay = Outcome::new(Verdict::Delay, self.clock.now());
        delay.response_code = trouble.response_code();
        Sent::Later { delay, at_the_end: Verdict::Error(trouble.failure()) }
    }

    fn forget_trouble(&self) {
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!(relay = %self.relay, "the relay can be used again");
        }
    }
}

fn failure_of(class: Classified, reply: &Reply) -> Failure {
    Failure {
        category: FailureCategory::Sync,
        failure_type: class.failure_type,
        code: class.code.to_owned(),
        reason: reply.to_string(),
    }
}

#[async_trait]
impl Sender for SmtpSender {
    async fn send(&self, message: &DueMessage, version: &LiveVersion, gate: &dyn Gate) -> Sent {
        let now = self.clock.now();
        let prepared = match prepare(message, version, &self.templates, now) {
            Ok(prepared) => prepared,
            Err(sent) => return *sent,
        };
        let id = message.key.id();
        let Some(envelope) = Envelope::new(&self.from.address, prepared.address, id) else {
            let reason = "the sender's or the recipient's address cannot be written in an SMTP command";
            return Sent::decided(Verdict::Error(Failure::admin(reason)), now);
        };
        let reply_to = self.reply_to.as_ref();
        let letter = Letter { id, from: &self.from, reply_to, to: prepared.address, date: now };
        let mail = compose(&letter, &prepared.rendered);
        match self.hand_over(&envelope, &mail, gate).await {
            Ok(handed) => self.outcome_of(handed),
            Err(trouble) => self.later(&trouble),
        }
    }
}
