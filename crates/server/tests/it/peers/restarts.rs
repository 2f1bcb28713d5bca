//! PostgreSQL stopped and started under load: meanwhile executions are answered 503, and nothing that was answered 202 is
//! lost, without a restart of Esito.

use crate::support::must;
use crate::support::receiver::Got;
use crate::support::world::{World, execution};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use store::postgres::throwaway::{Cluster, Database};

const RESTARTS: usize = 10;
const CALLERS: usize = 6;

/// What the callers have seen.
#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    accepted: AtomicUsize,
    refused: AtomicUsize,
}

/// Posts one execution after the other, each until it is accepted; the addresses of those that were.
async fn call(caller: crate::support::client::Caller, campaign: String, number: usize, seen: Arc<Seen>) -> Vec<String> {
    let mut addresses = Vec::new();
    while !seen.is_over.load(Ordering::Relaxed) {
        let address = format!("delivered+{number}-{}@simulator.esito.test", addresses.len());
        let body = execution(&format!("{number}-{}", addresses.len()), &campaign, &[&address]);
        loop {
            let answer = caller.try_call(hyper::Method::POST, "/ajo/im/executions/unitary", Some(&body)).await;
            let answer = answer.expect("the server answers, whatever its database does");
            if answer.status == 202 {
                seen.accepted.fetch_add(1, Ordering::Relaxed);
                break;
            }
            // 503 too where the key could not be looked up.
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert!(answer.header("retry-after").parse::<u32>().is_ok());
            seen.refused.fetch_add(1, Ordering::Relaxed);
            // Sooner than it asks for, so that each outage is seen.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        addresses.push(address);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    addresses
}

/// The statuses that each recipient's endpoint was told, each event once.
fn told(got: &[Got]) -> HashMap<String, Vec<String>> {
    let mut ids = HashSet::new();
    let mut told: HashMap<String, Vec<String>> = HashMap::new();
    for one in got.iter().filter(|one| ids.insert(one.id().to_owned())) {
        told.entry(one.recipient()).or_default().push(one.event_status());
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restarted_under_load_loses_nothing() {
    let cluster = Cluster::own().await;
    let database = Database::on(Arc::clone(&cluster)).await;
    let world = World::start_with(&[("database.url", &format!("\"{}\"", database.url()))]).await;
    world.webhook(json!({"retry": {"firstDelaySeconds": 1}})).await;
    let campaign = world.simulated_campaign().await;
    let (pid, seen) = (world.server.pid(), Arc::<Seen>::default());
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| tokio::spawn(call(world.caller.clone(), campaign.clone(), number, Arc::clone(&seen))))
        .collect();
    for round in 0..RESTARTS {
        let (accepted, refused) = (seen.accepted.load(Ordering::Relaxed), seen.refused.load(Ordering::Relaxed));
        // The length of an outage is the experiment, not a way to wait for something.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (of, signal) = (Arc::clone(&cluster), if round % 2 == 0 { "INT" } else { "QUIT" });
        tokio::task::spawn_blocking(move || of.stop(signal)).await.unwrap();
        let is_refused = async {
            while seen.refused.load(Ordering::Relaxed) == refused {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        must("executions to be refused", is_refused).await;
        // Some outages are over in no time, some last.
        tokio::time::sleep(Duration::from_millis(round as u64 % 4 * 500)).await;
        let of = Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || of.start()).await.unwrap();
        let during = seen.accepted.load(Ordering::Relaxed);
        let is_back = async {
            while seen.accepted.load(Ordering::Relaxed) < during + CALLERS {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        must("executions to be accepted again", is_back).await;
        assert!(seen.accepted.load(Ordering::Relaxed) > accepted);
    }
    seen.is_over.store(true, Ordering::Relaxed);
    let mut addresses = Vec::new();
    for caller in callers {
        addresses.extend(caller.await.unwrap());
    }
    let wanted = addresses.len() * 2;
    let all = |got: &[Got]| got.len() >= wanted && told(got).values().map(Vec::len).sum::<usize>() == wanted;
    let got = world.receiver.wait_until("every recipient's events", all).await;
    let told = told(&got);
    for address in &addresses {
        assert_eq!(told[address], ["sent", "delivered"], "{address}");
    }
    assert_eq!(world.server.pid(), pid);
    let (repeated, refused) = (got.len() - wanted, seen.refused.load(Ordering::Relaxed));
    println!("{} executions, {refused} times told to come again, {repeated} events repeated", addresses.len());
}
