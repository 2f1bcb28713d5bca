//! `kill -9` at random moments under load: nothing accepted is lost, order holds, nobody is mailed twice but those
//! whose message was being handed over at that very moment.
//!
//! `ESITO_KILL_SEED`, `ESITO_KILLS` and `ESITO_KILL_RECIPIENTS` change the run; the seed is printed.

use crate::support::backing::{Backing, on_every_store};
use crate::support::client::Caller;
use crate::support::receiver::Got;
use crate::support::relay::Relay;
use crate::support::world::{World, execution};
use crate::support::{HANG, must};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

const RECIPIENTS_EACH: usize = 10;
/// The posts of a webhook at a time, unless it says otherwise, and the most that have ended and are not written down.
const AT_A_TIME: usize = 64;
const UNWRITTEN: usize = 1024;

/// splitmix64: the moments of the kills follow from the seed.
struct Moments(u64);

impl Moments {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// The executions of the run: every other one goes by SMTP, the rest through the simulator.
struct Plan {
    simulated: String,
    relayed: String,
    executions: usize,
}

impl Plan {
    fn addresses(&self, n: usize) -> Vec<String> {
        let kinds = ["sent", "delivered", "bounce", "late-bounce", "error"];
        (0..RECIPIENTS_EACH)
            .map(|i| match n % 2 {
                0 => format!("p{n}-{i}@example.com"),
                _ => format!("{}+{n}-{i}@simulator.esito.test", kinds[i % kinds.len()]),
            })
            .collect()
    }

    fn body(&self, n: usize) -> Value {
        let campaign = if n.is_multiple_of(2) { &self.relayed } else { &self.simulated };
        execution(&format!("request-{n}"), campaign, &self.addresses(n))
    }
}

fn expected(address: &str) -> &'static [&'static str] {
    match address.split('+').next().unwrap_or("") {
        "delivered" => &["sent", "delivered"],
        "late-bounce" => &["sent", "bounce"],
        "bounce" => &["bounce"],
        "error" => &["error"],
        _ => &["sent"],
    }
}

/// What the callers share: the server moves to another port at each start.
struct Shared {
    plan: Plan,
    caller: watch::Receiver<Caller>,
    next: AtomicUsize,
    /// How many executions may be begun so far: the load lasts as long as the kills do.
    budget: watch::Receiver<usize>,
    accepted: Mutex<HashMap<usize, String>>,
}

/// Posts until the 202 came, through whatever happens to the server.
async fn post_until_accepted(shared: &Shared, n: usize) {
    let body = shared.plan.body(n);
    loop {
        let mut callers = shared.caller.clone();
        let caller = callers.borrow_and_update().clone();
        match caller.try_call(hyper::Method::POST, "/ajo/im/executions/unitary", Some(&body)).await {
            Ok(answer) if answer.status == 202 => {
                let id = answer.json()["executionId"].as_str().unwrap().to_owned();
                let former = shared.accepted.lock().unwrap().insert(n, id.clone());
                assert!(former.is_none_or(|former| former == id), "request-{n} became two executions");
                return;
            }
            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
            // Killed under way: the same request goes to the next start.
            Err(_) => {
                let _ = tokio::time::timeout(HANG, callers.changed()).await;
            }
        }
    }
}

async fn call(shared: Arc<Shared>) {
    loop {
        let n = shared.next.fetch_add(1, Ordering::Relaxed);
        if n >= shared.plan.executions {
            return;
        }
        let mut budget = shared.budget.clone();
        must("leave to begin the next execution", budget.wait_for(|budget| n < *budget)).await.unwrap();
        must("an execution to be accepted", post_until_accepted(&shared, n)).await;
    }
}

/// What was under way when the process was killed.
struct UnderWay {
    /// Whose message was marked `handing-over`.
    handing_over: Vec<String>,
    /// The deliveries that were due: only these may have been posted and not written down.
    due: usize,
}

const HANDING_OVER: &str = "SELECT address FROM message WHERE state = 1";
const DUE: &str = "SELECT count(*) FROM event WHERE delivery = 1";

impl UnderWay {
    /// As the killed process left it.
    async fn find(backing: &Backing, folder: &Path) -> Self {
        backing.settle().await;
        match backing {
            Backing::Sqlite => Self::in_copy_of(folder),
            #[cfg(feature = "peers")]
            Backing::Postgres(database) => Self::in_database(database).await,
        }
    }

    fn in_copy_of(folder: &Path) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for name in ["esito.db", "esito.db-wal"] {
            if folder.join(name).exists() {
                std::fs::copy(folder.join(name), copy.path().join(name)).unwrap();
            }
        }
        let connection = rusqlite::Connection::open(copy.path().join("esito.db")).unwrap();
        let mut query = connection.prepare(HANDING_OVER).unwrap();
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        let due = connection.query_row(DUE, [], |row| row.get(0)).unwrap();
        Self { handing_over: rows.collect::<Result<_, _>>().unwrap(), due }
    }

    #[cfg(feature = "peers")]
    async fn in_database(database: &store::postgres::throwaway::Database) -> Self {
        let client = database.client().await;
        let rows = client.query(HANDING_OVER, &[]).await.unwrap();
        let due: i64 = client.query_one(DUE, &[]).await.unwrap().get(0);
        Self { handing_over: rows.iter().map(|row| row.get(0)).collect(), due: usize::try_from(due).unwrap() }
    }
}

fn by_recipient(got: &[Got]) -> HashMap<String, Vec<Got>> {
    let mut map: HashMap<String, Vec<Got>> = HashMap::new();
    for one in got {
        map.entry(one.recipient()).or_default().push(one.clone());
    }
    map
}

/// A recipient's events without the repetitions of one that was just there.
fn without_repeats(got: &[Got]) -> Vec<String> {
    let mut ids = Vec::new();
    let mut statuses = Vec::new();
    for one in got {
        if ids.last().is_none_or(|last| *last != one.id()) {
            ids.push(one.id());
            statuses.push(one.event_status());
        }
    }
    statuses
}

fn all_told(plan: &Plan, got: &[Got]) -> bool {
    if got.len() < plan.executions * RECIPIENTS_EACH {
        return false;
    }
    let map = by_recipient(got);
    (0..plan.executions).flat_map(|n| plan.addresses(n)).all(|address| {
        let wanted = expected(&address).len();
        map.get(&address).is_some_and(|got| got.iter().map(Got::id).collect::<HashSet<_>>().len() >= wanted)
    })
}

on_every_store! { kills_lose_nothing_and_mail_nobody_twice }

async fn kills_lose_nothing_and_mail_nobody_twice(backing: &Backing) {
    let (seed, kills) = (setting("ESITO_KILL_SEED", 20_261_124), setting("ESITO_KILLS", 20));
    let executions = usize::try_from(setting("ESITO_KILL_RECIPIENTS", 2_000)).unwrap() / RECIPIENTS_EACH;
    println!("seed {seed}, {kills} kills, {executions} executions of {RECIPIENTS_EACH}");
    let mut world = World::start_on(backing).await;
    world.webhook(json!({"retry": {"firstDelaySeconds": 1}})).await;
    let relay = Relay::start().await;
    let plan = Plan {
        simulated: world.simulated_campaign().await,
        relayed: world.relayed_campaign(relay.port).await,
        executions,
    };
    let (tell_caller, caller) = watch::channel(world.caller.clone());
    let (tell_budget, budget) = watch::channel(0);
    let shared = Arc::new(Shared { plan, caller, next: AtomicUsize::new(0), budget, accepted: Mutex::default() });
    let callers: Vec<_> = (0..8).map(|_| tokio::spawn(call(Arc::clone(&shared)))).collect();

    let mut moments = Moments(seed);
    let (mut unsure, mut unwritten) = (HashSet::new(), 0);
    let each = executions.div_ceil(usize::try_from(kills).unwrap());
    for round in 0..usize::try_from(kills).unwrap() {
        tell_budget.send_replace((round + 1) * each);
        // The moment of the kill is the experiment, not a way to wait for something.
        tokio::time::sleep(Duration::from_millis(moments.below(400))).await;
        world.server.kill().await;
        let under_way = UnderWay::find(backing, world.server.folder.path()).await;
        unsure.extend(under_way.handing_over);
        unwritten += under_way.due.min(AT_A_TIME + UNWRITTEN);
        world.server.up().await;
        tell_caller.send_replace(world.server.admin());
        let known = shared.accepted.lock().unwrap().keys().copied().collect::<Vec<_>>();
        if !known.is_empty() {
            let again = known[usize::try_from(moments.below(known.len() as u64)).unwrap()];
            post_until_accepted(&shared, again).await;
        }
    }
    tell_budget.send_replace(executions);
    for caller in callers {
        caller.await.unwrap();
    }

    let got = world.receiver.wait_until("every recipient's events", |got| all_told(&shared.plan, got)).await;
    let told = by_recipient(&got);
    let mut repeats = 0;
    for address in (0..executions).flat_map(|n| shared.plan.addresses(n)) {
        let of_recipient = &told[&address];
        assert_eq!(without_repeats(of_recipient), expected(&address), "{address}");
        repeats += of_recipient.len() - expected(&address).len();
    }
    assert!(repeats <= unwritten, "{repeats} repeated events, and {unwritten} under way at the kills");
    let mut mails: HashMap<String, Vec<String>> = HashMap::new();
    for mail in relay.mails() {
        mails.entry(mail.to.clone()).or_default().push(mail.message_id());
    }
    let twice: Vec<_> = mails.iter().filter(|(_, ids)| ids.len() > 1).collect();
    for (address, ids) in &twice {
        assert!(unsure.contains(*address), "{address} was mailed {} times without having been handed over", ids.len());
        assert!(ids.iter().all(|id| id == &ids[0]), "a repeated mail has its first Message-ID");
    }
    assert_eq!(mails.len(), executions.div_ceil(2) * RECIPIENTS_EACH, "everybody was mailed");
    println!(
        "{} recipients, {} requests at the endpoint, {repeats} repeated events of at most {unwritten} under way; found handing over {}, of these mailed twice {}",
        told.len(),
        got.len(),
        unsure.len(),
        twice.len()
    );
}
