//! Channel configurations: through what messages are sent.

use crate::execution::is_email_address;
use crate::fault::Faults;
use crate::ids::{ChannelConfigurationId, SandboxId};
use crate::retry::RetrySchedule;
use crate::secret::{HasSecrets, Secret};
use crate::webhook::{Channel, Stamps};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What stands behind a channel configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelType {
    /// Yields the outcome that the address asks for; sends nothing.
    Simulator,
    /// Email through an SMTP relay.
    Smtp,
}

/// How the connection to a relay is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Not at all.
    None,
    /// By STARTTLS (RFC 3207); a relay that does not offer it gets nothing.
    #[default]
    Starttls,
    /// From the first byte on (RFC 8314).
    Implicit,
}

/// The relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SmtpSettings {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: SmtpTls,
    /// The name for AUTH; null: none.
    #[serde(default)]
    pub username: Option<String>,
    /// The password for AUTH.
    #[serde(default)]
    pub password: Option<Secret>,
    /// The most connections at a time, 1 to 100.
    #[serde(default = "default_connections")]
    pub max_connections: u32,
}

fn default_connections() -> u32 {
    8
}

/// A mailbox with an optional name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mailbox {
    /// The name shown.
    #[serde(default)]
    pub name: Option<String>,
    /// The address.
    pub address: String,
}

/// What a caller sets on a channel configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelSettings {
    /// A name for people.
    pub name: String,
    /// The channel.
    pub channel: Channel,
    /// What stands behind it.
    #[serde(rename = "type")]
    pub kind: ChannelType,
    /// The relay; for type `smtp`.
    #[serde(default)]
    pub smtp: Option<SmtpSettings>,
    /// The sender; required for type `smtp`.
    #[serde(default)]
    pub from: Option<Mailbox>,
    /// Where answers go; null: to the sender.
    #[serde(default)]
    pub reply_to: Option<Mailbox>,
    /// For how many hours a message that is refused for now is tried again, up to 84; at least 10 minutes.
    #[serde(default = "default_retry_hours")]
    pub retry_hours: f64,
    /// The most messages a second; null: no limit.
    #[serde(default)]
    pub max_per_second: Option<u32>,
}

fn default_retry_hours() -> f64 {
    84.0
}

impl HasSecrets for ChannelSettings {
    fn secret_fields(&mut self) -> Vec<(String, &mut Option<Secret>)> {
        self.smtp.iter_mut().map(|smtp| ("smtp.password".to_owned(), &mut smtp.password)).collect()
    }
}

impl ChannelSettings {
    /// Checks every field.
    pub fn check(&self, faults: &mut Faults) {
        faults.check_name("$.name", &self.name);
        let hours = (1.0 / 6.0 - 1e-9..=84.0).contains(&self.retry_hours);
        faults.require(hours, "$.retryHours", "must be from 10 minutes (0.17) to 84 hours");
        let rate = (1..=100_000).contains(&self.max_per_second.unwrap_or(1));
        faults.require(rate, "$.maxPerSecond", "must be from 1 to 100000");
        if let Some(mailbox) = &self.from {
            check_mailbox(faults, "$.from", mailbox);
        }
        if let Some(mailbox) = &self.reply_to {
            check_mailbox(faults, "$.replyTo", mailbox);
        }
        match self.kind {
            ChannelType::Simulator => {
                faults.require(self.smtp.is_none(), "$.smtp", "belongs to type smtp; remove it");
            }
            ChannelType::Smtp => self.check_smtp(faults),
        }
    }

    fn check_smtp(&self, faults: &mut Faults) {
        faults.require(self.channel == Channel::Email, "$.channel", "type smtp sends email only");
        faults.require(self.from.is_some(), "$.from", "is required for type smtp");
        let Some(smtp) = &self.smtp else {
            faults.add("$.smtp", "is required for type smtp");
            return;
        };
        let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        let host = (1..=253).contains(&smtp.host.len()) && smtp.host.bytes().all(host_byte);
        faults.require(host, "$.smtp.host", "must be a host name or an IP address");
        faults.require(smtp.port != 0, "$.smtp.port", "must be from 1 to 65535");
        let connections = (1..=100).contains(&smtp.max_connections);
        faults.require(connections, "$.smtp.maxConnections", "must be from 1 to 100");
        let controls = |text: &str| text.chars().any(char::is_control);
        let clean = !smtp.username.as_deref().is_some_and(controls);
        faults.require(clean, "$.smtp.username", "must have no control characters");
        let password = smtp.password.as_ref().map_or("", Secret::expose);
        faults.require(!controls(password), "$.smtp.password", "must have no control characters");
        let paired = smtp.username.is_some() == smtp.password.is_some();
        faults.require(paired, "$.smtp.password", "username and password go together: set both or neither");
    }

    /// When a message that could not be sent is tried again.
    pub fn retry_schedule(&self) -> RetrySchedule {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within 84 hours")]
        let give_up_after_seconds = (self.retry_hours * 3600.0).round() as u32;
        RetrySchedule { first_delay_seconds: 5, max_delay_seconds: 900, give_up_after_seconds }
    }
}

fn check_mailbox(faults: &mut Faults, path: &str, mailbox: &Mailbox) {
    let address = is_email_address(&mailbox.address);
    faults.require(address, &format!("{path}.address"), "must be an email address such as orders@example.com");
    let name = mailbox.name.as_deref().unwrap_or("");
    let clean = name.chars().count() <= 200 && !name.chars().any(char::is_control);
    faults.require(clean, &format!("{path}.name"), "must have at most 200 characters and no line breaks");
}

/// A channel configuration.
#[derive(Clone, Debug)]
pub struct ChannelConfiguration {
    /// Its id.
    pub id: ChannelConfigurationId,
    /// Its organization.
    pub ims_org: String,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// What a caller set.
    pub settings: ChannelSettings,
    /// Whether sending is paused by hand.
    pub paused: bool,
    /// Who made and changed it, and when.
    pub stamps: Stamps,
}
