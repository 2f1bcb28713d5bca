//! The demo's lines.

use super::super::receiver::Received;
use super::script::{Execution, outcome};
use super::stage::Stage;
use model::clock::Timestamp;
use model::tenancy::{DEFAULT_ORGANIZATION, DEFAULT_SANDBOX};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::time::Duration;

/// How much of a webhook-id is shown: its end, which is random.
const SHORT_ID_CHARS: usize = 8;

/// What is there, before anything happens.
pub fn introduction(stage: &Stage) -> String {
    format!(
        "Esito, all on this machine. Nothing leaves it, and nothing stays.\n\
         \n\
         server    {}\n\
         receiver  {}, TLS with a certificate of this run\n\
         webhook   each event with a JWT (ES256, {}/.well-known/jwks.json)\n          \
         and a signature (Standard Webhooks v1)\n\
         campaign  Order confirmation, by email through the simulator\n\
         folder    {}, removed at the end\n",
        stage.api.base,
        stage.receiver_url,
        stage.api.base,
        stage.folder().display()
    )
}

/// An execution that was accepted.
pub fn execution_line(execution: &Execution, accepted: &Value, after: Duration) -> String {
    let names: Vec<&str> = execution.recipients.iter().map(|recipient| local_part(recipient.address)).collect();
    let id = accepted["executionId"].as_str().unwrap_or("?");
    format!("{}  accepted  {}  {id}  to {}", seconds(after), execution.request_id, names.join(", "))
}

/// An event that came.
pub fn event_line(event: &Received, started: Timestamp) -> String {
    let id = event.webhook_id.as_deref().unwrap_or("-");
    let short = id.char_indices().rev().nth(SHORT_ID_CHARS - 1).map_or(id, |(start, _)| &id[start..]);
    let mut line = format!(
        "{}  {:21}  {:32}  {short:8}  signature {} jwt {}  attempt {}",
        seconds(event.at.since(started)),
        outcome(event),
        event.recipient().unwrap_or("?"),
        mark(event.verified.signature),
        mark(event.verified.jwt),
        event.attempt,
    );
    if !(200..300).contains(&event.status) {
        line.push_str(&format!("  answered {}", event.status));
    }
    for fault in &event.faults {
        line.push_str(&format!("; {fault}"));
    }
    line
}

/// How to go on.
pub fn invitation(stage: &Stage, console: Option<&str>) -> String {
    let (base, key, campaign) = (&stage.api.base, stage.api.key.expose_secret(), &stage.campaign);
    let recipient = json!({"type": "external", "userId": "late-bounce@simulator.esito.test", "namespace": "email"});
    let body = json!({"requestId": "my-1", "campaignId": campaign, "recipients": [recipient]});
    let console = console
        .map(|link| format!("The console, signed in once and within 15 minutes: {link}\n\n"))
        .unwrap_or_default();
    format!(
        "\nThe server stays up at {base}, admin key {key}. Try it:\n\
         \n\
         {console}\
         {} send --url {base} --key {key} --org {DEFAULT_ORGANIZATION} --campaign {campaign} --to bounce@simulator.esito.test\n\
         \n\
         curl {base}/ajo/im/executions/unitary -H 'Authorization: Bearer {key}' \
         -H 'x-gw-ims-org-id: {DEFAULT_ORGANIZATION}' -H 'x-sandbox-name: {DEFAULT_SANDBOX}' \
         -H 'Content-Type: application/json' -d '{body}'\n\
         \n\
         Further events follow. Ctrl-C ends it.\n",
        program()
    )
}

/// How this program was called, for a shell.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_else(|| "esito".to_owned());
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
    if called.chars().all(plain) { called } else { format!("'{}'", called.replace('\'', r"'\''")) }
}

fn local_part(address: &str) -> &str {
    address.split('@').next().unwrap_or(address)
}

fn seconds(duration: Duration) -> String {
    format!("{:7.3} s", duration.as_secs_f64())
}

fn mark(verified: Option<bool>) -> char {
    match verified {
        Some(true) => '✓',
        Some(false) => '✗',
        None => '-',
    }
}
