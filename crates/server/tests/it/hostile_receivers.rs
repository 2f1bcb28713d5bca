//! Hostile receivers against a whole server: each keeps to its own webhook, and neither the memory nor the time that
//! they take from it grows with what they do.

mod endpoint;

use crate::support::client::Caller;
use crate::support::world::{World, attempts, simulate};
use endpoint::{Does, Endpoint};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How each endpoint's attempts end: the kind of error (`none`: a success, since the status line came), the status, and
/// the timeout in seconds. The ones that never end of themselves have a short one, the others one that is never up.
const HOSTILE: &[(Does, &str, Option<u16>, u64)] = &[
    (Does::HangInHandshake, "timeout", None, SHORT),
    (Does::SpeakPlainHttp, "tls", None, LONG),
    (Does::CloseAtOnce, "tls", None, LONG),
    (Does::ShowExpired, "tls", None, LONG),
    (Does::ShowNotYetValid, "tls", None, LONG),
    (Does::ShowWrongName, "tls", None, LONG),
    (Does::ShowUnknownAuthority, "tls", None, LONG),
    (Does::ShowSelfSigned, "tls", None, LONG),
    (Does::SayNothing, "timeout", None, SHORT),
    (Does::DripHead, "timeout", None, SHORT),
    (Does::EndlessHead, "protocol", None, LONG),
    (Does::EndlessHints, "timeout", None, SHORT),
    (Does::Garbage, "protocol", None, LONG),
    (Does::HalfClose, "protocol", None, LONG),
    (Does::Reset, "protocol", None, LONG),
    (Does::RedirectInCircles, "status", Some(308), LONG),
    (Does::EndlessBody(200), "none", Some(200), LONG),
    (Does::EndlessBody(500), "status", Some(500), LONG),
    (Does::HugeBody(200), "none", Some(200), LONG),
    (Does::HugeBody(503), "status", Some(503), LONG),
    (Does::DripBody(200), "none", Some(200), SHORT),
    (Does::DripBody(500), "status", Some(500), SHORT),
    (Does::HalfBody(200), "none", Some(200), LONG),
    (Does::HalfBody(500), "status", Some(500), LONG),
];

const SHORT: u64 = 1;
const LONG: u64 = 30;

/// What an attempt may take beyond its timeout on a machine that is busy with other things.
const SLACK_MS: u64 = 4_000;

/// The events of each hostile webhook, and the most that are under way to it at a time.
const EVENTS: usize = 30;
const CONCURRENCY: usize = 8;

/// The messages of the healthy webhook, each with two events.
const HEALTHY: usize = 100;

/// What the server's memory may grow by: less than a single one of the 100 MB bodies, let alone a second of one that
/// never ends. 24 webhooks × 8 connections × (32 KiB of an answer's head, 16 KiB of its body, two TLS buffers of at most
/// 20 KiB) are 17 MiB; the rest is for the store, the caches and what the allocator keeps for each thread, of which a
/// machine with many cores has many.
const MEMORY_KIB: u64 = 90 * 1024;

struct Hostile {
    endpoint: Endpoint,
    caller: Caller,
    kind: &'static str,
    status: Option<u16>,
    timeout_secs: u64,
}

/// A webhook, and messages to these addresses that it gets the events of.
async fn send(caller: &Caller, webhook: &Value, addresses: &[String]) {
    caller.post("/v1/feedback-webhooks", webhook).await.expect(201);
    simulate(caller, addresses).await;
}

/// Retries at once and without end, so that it is at it as long as the test.
async fn set_loose(world: &World, number: usize) -> Hostile {
    let (does, kind, status, timeout_secs) = HOSTILE[number];
    let endpoint = Endpoint::start(does, &world.authority).await;
    let caller = world.caller.in_new_sandbox(&format!("hostile-{number}")).await;
    let webhook = json!({"name": "hostile", "channels": ["email"], "url": endpoint.url, "timeoutSeconds": timeout_secs,
        "maxConcurrency": CONCURRENCY, "retry": {"firstDelaySeconds": 1, "maxDelaySeconds": 1}});
    let to: Vec<String> = (0..EVENTS).map(|i| format!("sent+{i}@simulator.esito.test")).collect();
    send(&caller, &webhook, &to).await;
    Hostile { endpoint, caller, kind, status, timeout_secs }
}

impl Hostile {
    /// Its attempts have failed as they should, and in time.
    async fn check(&self) -> String {
        // Once one has failed, or all have succeeded.
        let (state, least) = if self.kind == "none" { ("succeeded", EVENTS) } else { ("failing", 1) };
        let found = attempts(&self.caller, state, |deliveries| deliveries >= least).await.concat();
        let does = self.endpoint.does;
        for attempt in &found {
            let kind = attempt["error"]["kind"].as_str().unwrap_or("none");
            assert_eq!((kind, &attempt["status"]), (self.kind, &json!(self.status)), "{does:?}: {attempt}");
            let took = attempt["durationMs"].as_u64().unwrap();
            assert!(took <= self.timeout_secs * 1000 + SLACK_MS, "{does:?}: {attempt}");
            let excerpt = attempt["responseExcerpt"].as_str().unwrap_or_default();
            assert!(excerpt.len() <= 1024, "{does:?}: an excerpt of {} bytes", excerpt.len());
        }
        let requests = self.endpoint.requests();
        let followed = requests.iter().find(|line| !line.starts_with("POST /hook HTTP/1.1"));
        assert_eq!(followed, None, "{does:?}");
        let longest = found.iter().map(|attempt| attempt["durationMs"].as_u64().unwrap()).max();
        format!("{does:?}: {} attempts, each {}, the longest {} ms", found.len(), self.kind, longest.unwrap_or(0))
    }
}

/// A line of the kernel's account of a process, in KiB.
#[cfg(target_os = "linux")]
fn memory_kib(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    found.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok()).expect("the kernel tells it")
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_receivers_take_nothing_from_others() {
    let world = World::start().await;
    #[cfg(target_os = "linux")]
    let idle = memory_kib(world.server.pid(), "VmRSS");
    let mut all = Vec::new();
    for number in 0..HOSTILE.len() {
        all.push(set_loose(&world, number).await);
    }
    for hostile in &all {
        hostile.endpoint.wait_for(1).await;
    }

    let healthy = world.caller.in_new_sandbox("healthy").await;
    let webhook = json!({"name": "healthy", "channels": ["email"], "url": world.receiver.url});
    let to: Vec<String> = (0..HEALTHY).map(|i| format!("delivered+{i}@simulator.esito.test")).collect();
    send(&healthy, &webhook, &to).await;
    let got = world.receiver.wait_for(2 * HEALTHY).await;
    let mut by_recipient: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in &got {
        by_recipient.entry(one.recipient()).or_default().push(one.event_status());
    }
    assert_eq!((got.len(), by_recipient.len()), (2 * HEALTHY, HEALTHY), "each event once");
    assert!(by_recipient.values().all(|events| events == &["sent", "delivered"]), "{by_recipient:?}");
    // Those that fail are still at it: all of that happened in the midst of them.
    for hostile in all.iter().filter(|hostile| hostile.kind != "none") {
        hostile.endpoint.wait_for(hostile.endpoint.visits() + 1).await;
    }

    for hostile in &all {
        println!("{}", hostile.check().await);
    }
    #[cfg(target_os = "linux")]
    {
        let peak = memory_kib(world.server.pid(), "VmHWM");
        println!("memory: {idle} KiB idle, {peak} KiB at most");
        assert!(peak < idle + MEMORY_KIB, "{idle} KiB grew to {peak} KiB");
    }
}
