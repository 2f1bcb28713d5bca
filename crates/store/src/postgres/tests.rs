//! The contract on PostgreSQL, and what is PostgreSQL's own: several nodes, batches, a database that goes away.

use super::lane::Work as _;
use super::throwaway::Database;
use super::*;
use crate::contract::fixtures::{START, all_shards, at, hard_bounce, page, plain, recipient};
use crate::contract::search::LATER;
use crate::contract::world::World;
use crate::contract::{Bench, Setup};
use crate::lookup::EventFilter;
use crate::work::{RetainStep, RetainWhat, What};
use model::delivery::{AttemptDecision, DeliveryState};
use model::ids::{MessageKey, SHARDS};
use model::outcome::{FailureCategory, FeedbackStatus, Verdict};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

/// A database that goes with the test.
#[derive(Default)]
struct Throwaway(OnceCell<Database>);

impl Throwaway {
    async fn database(&self) -> &Database {
        self.0.get_or_init(Database::new).await
    }

    async fn node(&self, setup: Setup) -> Result<Arc<PostgresStore>> {
        open_at(self.database().await.url(), setup).await
    }
}

async fn open_at(url: &str, setup: Setup) -> Result<Arc<PostgresStore>> {
    let store = PostgresStore::open(Options {
        url: url.into(),
        master_key: MasterKey::new(&setup.master_key),
        usage: Use::Work,
        max_waiting_messages: setup.max_waiting_messages,
    });
    Ok(Arc::new(store.await?))
}

#[async_trait]
impl Bench for Throwaway {
    async fn open(&self, setup: Setup) -> Result<Arc<dyn Store>> {
        Ok(self.node(setup).await? as Arc<dyn Store>)
    }

    async fn contents(&self) -> Vec<u8> {
        self.database().await.contents().await
    }

    async fn count(&self, table: &str) -> u64 {
        let client = self.database().await.client().await;
        let row = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
        row.get::<_, i64>(0).try_into().unwrap()
    }
}

crate::contract_suite!(Throwaway::default());

// ---- several nodes ----

impl Throwaway {
    /// A world as several nodes see it; the first one's owner holds every shard.
    async fn nodes(&self, count: usize) -> Vec<World> {
        let first = World::new(self).await;
        let mut worlds = vec![first];
        while worlds.len() < count {
            let mut other = worlds[0].clone();
            other.store = self.node(Setup::default()).await.unwrap();
            worlds.push(other);
        }
        worlds
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_owners_race_over_four_nodes_and_each_shard_has_one() {
    let bench = Throwaway::default();
    let worlds = bench.nodes(4).await;
    let late = at(60);
    let mut race = JoinSet::new();
    for i in 0..8 {
        let (store, owner) = (worlds[i % 4].store.clone(), worlds[0].new_owner());
        race.spawn(async move {
            let mut shards = all_shards();
            shards.rotate_left(i * 32);
            let mut held = Vec::new();
            for portion in shards.chunks(16) {
                held = store.claim_shards(owner, portion.to_vec(), late, Duration::from_secs(30)).await.unwrap();
            }
            held
        });
    }
    let held: Vec<Lease> = race.join_all().await.into_iter().flatten().collect();
    let shards: HashSet<Shard> = held.iter().map(|lease| lease.shard).collect();
    assert_eq!((held.len(), shards.len()), (usize::from(SHARDS), usize::from(SHARDS)));
    assert!(held.iter().all(|lease| lease.epoch == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_and_a_close_of_one_node_leave_the_others_shards_alone() {
    let bench = Throwaway::default();
    let worlds = bench.nodes(2).await;
    let message = worlds[0].message("r1").await;
    assert!(
        worlds[1]
            .store
            .claim_shards(worlds[0].new_owner(), all_shards(), at(1), Duration::from_secs(30))
            .await
            .unwrap()
            .is_empty()
    );
    worlds[1].store.close().await;
    let of = (worlds[0].sandbox.id, message);
    assert_eq!(worlds[0].store.hand_over(worlds[0].lease, vec![of]).await.unwrap(), [true]);
    let other = bench.node(Setup::default()).await.unwrap();
    assert!(
        other
            .claim_shards(worlds[0].new_owner(), all_shards(), at(1), Duration::from_secs(30))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_frozen_past_its_lease_changes_nothing_whatever_it_was_doing() {
    let bench = Throwaway::default();
    let worlds = bench.nodes(2).await;
    let frozen = &worlds[0];
    let mut messages = Vec::new();
    for i in 0..40 {
        messages.push(frozen.message(&format!("r{i}")).await);
    }
    // The claim comes somewhere between the records.
    let mut records = JoinSet::new();
    for message in messages.clone() {
        let (store, lease) = (frozen.store.clone(), Some(frozen.lease));
        let record = Record { lease, ..frozen.record_of(message, START, plain(Verdict::Sent)) };
        records.spawn(async move { (message, store.record(vec![record]).await.unwrap()[0].done) });
    }
    let taken = worlds[1].store.claim_shards(frozen.new_owner(), all_shards(), at(31), Duration::from_secs(30)).await;
    let seen = worlds[1].store.events(frozen.events(), page(100)).await.unwrap().items.len();
    assert_eq!(taken.unwrap().len(), usize::from(SHARDS));
    let done = records.join_all().await.into_iter().filter(|(_, done)| *done).count();
    assert_eq!(done, seen, "nothing was changed after the claim");
    let record =
        Record { lease: Some(frozen.lease), ..frozen.record_of(messages[0], START, plain(Verdict::Delivered)) };
    assert!(!frozen.store.record(vec![record]).await.unwrap()[0].done);
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_on_several_nodes_are_one_execution() {
    let bench = Throwaway::default();
    let worlds = bench.nodes(4).await;
    for round in 0..10 {
        let mut twins = JoinSet::new();
        for i in 0..40 {
            let (store, twin) = (worlds[i % 4].store.clone(), worlds[0].execution(&format!("r{round}")));
            twins.spawn(async move { store.accept(twin).await.unwrap().unwrap() });
        }
        let answers = twins.join_all().await;
        assert!(answers.iter().all(|answer| answer.id == answers[0].id));
        assert_eq!(answers.iter().filter(|answer| answer.work.is_some()).count(), 1);
    }
    assert_eq!(worlds[0].due_messages(START).await.messages.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_and_a_finish_on_two_nodes_keep_the_order() {
    let bench = Throwaway::default();
    let worlds = bench.nodes(2).await;
    worlds[0].add_webhook(json!({})).await;
    let (mut promoted, mut due_at_once) = (0, 0);
    for i in 0..100 {
        let due = worlds[0].delivery(&format!("r{i}")).await;
        let message = due.event.key.message;
        let finishing = async {
            tokio::time::sleep(Duration::from_micros(i % 20 * 50)).await;
            worlds[0].finish(&due, START, AttemptDecision::Succeeded).await
        };
        let (finished, recorded) =
            tokio::join!(finishing, worlds[1].record(message, hard_bounce(FailureCategory::Async)));
        assert!(finished.done && recorded.done);
        // Whoever was later has found the bounce free to go; never both, never none.
        assert_eq!(usize::from(finished.promoted.is_some()) + recorded.due.len(), 1);
        promoted += usize::from(finished.promoted.is_some());
        due_at_once += recorded.due.len();
        let shown = worlds[1].view(message).await.events.remove(1).delivery.unwrap();
        assert!(!shown.blocked && shown.state == DeliveryState::Pending);
    }
    assert_eq!(promoted + due_at_once, 100);
    println!("{promoted} promoted, {due_at_once} due at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_of_one_message_from_several_nodes_never_contradict() {
    let bench = Throwaway::default();
    let worlds = bench.nodes(3).await;
    worlds[0].add_webhook(json!({})).await;
    for i in 0..30 {
        let message = worlds[0].message(&format!("r{i}")).await;
        let late = hard_bounce(FailureCategory::Async);
        let (a, b, c) = tokio::join!(
            worlds[0].record(message, Verdict::Sent),
            worlds[1].record(message, Verdict::Delivered),
            worlds[2].record(message, late),
        );
        assert!(a.done && b.done && c.done);
        let events = worlds[0].view(message).await.events;
        assert_eq!(events.len(), 2, "sent, and the first of the two that end it");
        let waits: Vec<bool> = events.iter().map(|event| event.delivery.as_ref().unwrap().blocked).collect();
        assert_eq!(waits, [false, true]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_has_no_gaps_under_writers_on_several_nodes() {
    let bench = Throwaway::default();
    let worlds = bench.nodes(3).await;
    let mut writers = JoinSet::new();
    for writer in 0..12 {
        let world = worlds[writer % 3].clone();
        writers.spawn(async move {
            for i in 0..20 {
                let message = world.message(&format!("{writer}-{i}")).await;
                // Clocks differ.
                let now = at(u64::try_from(writer % 3).unwrap());
                world.record_at(message, now, plain(hard_bounce(FailureCategory::Async))).await;
            }
        });
    }
    let reader = worlds[0].clone();
    let reading = tokio::spawn(async move {
        let (mut seen, mut after) = (Vec::new(), 0);
        while seen.len() < 12 * 20 * 2 {
            let filter = EventFilter { after: Some(after), ..reader.events() };
            let part = reader.store.events(filter, page(7)).await.unwrap();
            seen.extend(part.items.iter().map(|view| view.sequence));
            after = part.next.unwrap().parse().unwrap();
        }
        seen
    });
    writers.join_all().await;
    let counts = worlds[1].counts().await;
    let told = [FeedbackStatus::Sent, FeedbackStatus::Bounce].map(|status| counts.outcomes(status));
    assert_eq!((counts.accepted(), told), (12 * 20, [12 * 20; 2]), "the sum over all nodes");
    // One that was passed over would never be seen.
    let seen = tokio::time::timeout(Duration::from_secs(20), reading).await.expect("every event is seen").unwrap();
    assert!(seen.is_sorted_by(|a, b| a < b));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_on_one_node_counts_on_the_others_at_once() {
    let bench = Throwaway::default();
    let worlds = bench.nodes(2).await;
    let [here, there] = &worlds[..] else { unreachable!() };
    here.add_webhook(json!({})).await;
    assert_eq!(there.delivery("r1").await.failures, 0);
    here.edit_webhook(START, |webhook| webhook.settings.channels = vec![model::webhook::Channel::Sms]).await;
    let message = there.message("r2").await;
    assert!(there.record(message, Verdict::Sent).await.due.is_empty());
    here.stop_campaign().await;
    assert!(there.store.accept(there.execution("r3")).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_deleted_under_records_leaves_no_delivery_open() {
    let bench = Throwaway::default();
    let worlds = bench.nodes(2).await;
    for round in 0..5 {
        let webhook = worlds[0].add_webhook(json!({})).await;
        let mut messages = Vec::new();
        for i in 0..30 {
            messages.push(worlds[0].message(&format!("{round}-{i}")).await);
        }
        let mut records = JoinSet::new();
        for message in messages {
            let world = worlds[1].clone();
            records.spawn(async move { world.record(message, hard_bounce(FailureCategory::Async)).await });
        }
        let edit = Edit { sandbox: worlds[0].sandbox.id, id: webhook.id, seen_revision: None };
        worlds[0].store.delete_webhook(edit, at(1), worlds[0].audit("feedback-webhook.delete")).await.unwrap();
        records.join_all().await;
        for state in [DeliveryState::Pending, DeliveryState::Failing] {
            assert!(worlds[0].deliveries(Some(state)).await.is_empty());
        }
    }
}

#[tokio::test]
async fn every_start_has_a_number_of_its_own() {
    let bench = Throwaway::default();
    let mut numbers = HashSet::new();
    for _ in 0..5 {
        numbers.insert(bench.node(Setup::default()).await.unwrap().node());
    }
    assert_eq!(numbers.len(), 5);
}

#[tokio::test]
async fn an_interrupted_deletion_is_finished_at_the_next_start() {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    world.add_webhook(json!({})).await;
    let sent = world.delivery("r1").await;
    world.record(sent.event.key.message, Verdict::Delivered).await;
    let client = bench.database().await.client().await;
    client.batch_execute("UPDATE webhook SET deleting = true").await.unwrap();
    assert!(world.store.webhook_of(world.sandbox.id).await.unwrap().is_none());
    bench.node(Setup::default()).await.unwrap();
    let cancelled = world.deliveries(Some(DeliveryState::Cancelled)).await;
    assert_eq!(cancelled.len(), 2);
    assert!(cancelled.iter().all(|view| view.delivery.as_ref().unwrap().ended_at == Some(START)));
    world.add_webhook(json!({})).await;
}

// ---- batches ----

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_cannot_be_written_fails_alone() {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    let mut all = JoinSet::new();
    for i in 0..50 {
        // No text in PostgreSQL has this character; the API refuses it.
        let name = if i == 25 { "bad\0".to_owned() } else { format!("r{i}") };
        let (store, new) = (world.store.clone(), world.execution(&name));
        all.spawn(async move { store.accept(new).await });
    }
    let (done, failed): (Vec<_>, Vec<_>) = all.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), failed.len()), (49, 1));
    assert_eq!(world.counts().await.accepted(), 49);
    assert!(matches!(failed[0], Err(StoreError::Corrupt(_))), "to come again would not help");
}

#[tokio::test]
async fn what_endpoints_say_is_kept_whatever_it_is() {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    let mut failed = world.finish_of(&due, START, AttemptDecision::RetryAt(at(1)));
    failed.attempt.response_excerpt = Some("a\0b".to_owned());
    failed.attempt.error.as_mut().unwrap().message = "c\0d".to_owned();
    assert!(world.finish_this(failed).await.done);
    let attempts = world.store.attempts(world.sandbox.id, due.event.key.id()).await.unwrap();
    assert_eq!(attempts[0].response_excerpt.as_deref(), Some("a\u{fffd}b"));
    let odd = EventFilter { request_id: Some("\0".to_owned()), ..world.events() };
    assert!(world.store.events(odd, page(9)).await.unwrap().items.is_empty());
    assert!(world.store.organization("\0").await.is_err_and(|error| matches!(error, StoreError::NotFound(_))));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_does_not_hide_the_others() {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    let (bad, good) = (world.message("r1").await, world.message("r2").await);
    let client = bench.database().await.client().await;
    client.execute("UPDATE message SET state = 99 WHERE exec = $1", &[&bad.execution.number()]).await.unwrap();
    let records = [bad, good].map(|message| world.record_of(message, START, plain(Verdict::Sent)));
    let recorded = world.store.record(records.to_vec()).await.unwrap();
    assert_eq!([recorded[0].done, recorded[1].done], [false, true]);
    assert!(!world.record_at(bad, START, What::Planned).await.done);
}

#[tokio::test]
async fn the_feed_goes_on_from_where_it_was() {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    let late = world.message("r1").await;
    world.record_at(late, at(100), plain(Verdict::Sent)).await;
    // The clock has stepped back over a restart.
    let world = world.reopen(&bench).await;
    let message = world.message("r2").await;
    world.record_at(message, START, plain(Verdict::Sent)).await;
    let feed = EventFilter { after: Some(0), ..world.events() };
    let events = world.store.events(feed, page(10)).await.unwrap().items;
    let order: Vec<_> = events.iter().map(|view| view.event.key.message).collect();
    assert_eq!(order, [late, message]);
}

#[tokio::test]
async fn a_request_id_is_forgotten_after_eight_days() {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    let mut ids = Vec::new();
    for day in 0..12 {
        ids.push(world.accept(world.execution_at(at(day * 86_400), "the same")).await.id);
    }
    assert!(ids[..9].iter().all(|id| *id == ids[0]) && ids[9..].iter().all(|id| *id == ids[9]));
    assert_ne!(ids[0], ids[9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_loses_nothing_that_was_accepted() {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    let mut writes = JoinSet::new();
    for i in 0..200 {
        let (store, new) = (world.store.clone(), world.execution(&format!("r{i}")));
        writes.spawn(async move { store.accept(new).await });
    }
    tokio::task::yield_now().await;
    world.store.close().await;
    let answers = writes.join_all().await;
    let accepted = answers.into_iter().flatten().filter(std::result::Result::is_ok).count();
    assert!(matches!(world.store.ping().await, Err(StoreError::Unavailable(_))));
    world.store.close().await;
    let world = world.reopen(&bench).await;
    assert_eq!(world.store.executions(world.messages(), page(1000)).await.unwrap().items.len(), accepted);
}

// ---- a database that goes away ----

fn is_unavailable<T>(result: Result<T>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_every_call_says_so_and_afterwards_all_works() {
    let cluster = throwaway::Cluster::own().await;
    let database = Database::on(Arc::clone(&cluster)).await;
    let bench = Throwaway(OnceCell::new_with(Some(database)));
    let world = World::new(&bench).await;
    world.add_webhook(json!({})).await;
    for (round, signal) in ["INT", "QUIT"].into_iter().enumerate() {
        let due = world.delivery(&format!("before {round}")).await;
        let waits = world.message(&format!("waits {round}")).await;
        cluster.stop(signal);
        let away = tokio::time::Instant::now();
        assert!(is_unavailable(world.store.accept(world.execution(&format!("away {round}"))).await));
        assert!(is_unavailable(
            world.store.finish(vec![world.finish_of(&due, START, AttemptDecision::Succeeded)]).await
        ));
        assert!(is_unavailable(world.store.hand_over(world.lease, vec![(world.sandbox.id, waits)]).await));
        assert!(is_unavailable(world.store.record(vec![world.record_of(waits, START, plain(Verdict::Sent))]).await));
        assert!(is_unavailable(world.store.message(world.sandbox.id, waits).await));
        assert!(is_unavailable(world.store.claim_shards(world.owner, vec![], START, Duration::from_secs(30)).await));
        assert!(is_unavailable(world.store.create_sandbox(world.sandbox.clone(), world.audit("x")).await));
        assert!(is_unavailable(world.store.ping().await));
        assert!(away.elapsed() < Duration::from_secs(5), "{:?}", away.elapsed());
        cluster.start();
        let back = tokio::time::Instant::now();
        while world.store.accept(world.execution(&format!("back {round}"))).await.is_err() {
            assert!(back.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Each lane finds its own way back within its pause.
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.store.ping().await.unwrap();
        assert!(world.finish(&due, START, AttemptDecision::Succeeded).await.done);
        assert!(world.record(waits, Verdict::Sent).await.done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_lose_nothing() {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    let client = bench.database().await.client().await;
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let world = world.clone();
        callers.spawn(async move {
            let mut cut = 0;
            for i in 0..60 {
                let new = model::execution::Priority::Unitary;
                let new = NewExecution {
                    priority: new,
                    recipients: vec![recipient("a"), recipient("b")],
                    ..world.execution(&format!("{caller}-{i}"))
                };
                while world.store.accept(new.clone()).await.is_err() {
                    cut += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            cut
        });
    }
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                  AND pid <> pg_backend_pid()";
    while callers.try_join_next().is_none() {
        client.batch_execute(others).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let cut: i32 = callers.join_all().await.into_iter().sum();
    let found = world.store.executions(world.messages(), page(1000)).await;
    let found = match found {
        Ok(found) => found,
        Err(_) => world.store.executions(world.messages(), page(1000)).await.unwrap(),
    };
    assert_eq!(found.items.len(), 8 * 60, "each once, though {cut} were told to come again");
    assert!(found.items.iter().all(|view| view.messages.len() == 2));
    assert_eq!(world.counts().await.accepted(), 2 * 8 * 60);
}

/// The lines that `EXPLAIN` answers.
async fn plan(client: &tokio_postgres::Client, explain: &str) -> Vec<String> {
    let rows = client.simple_query(explain).await.unwrap();
    let line = |row: &tokio_postgres::SimpleQueryMessage| match row {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    rows.iter().filter_map(line).collect()
}

/// A plan that goes through a whole index for each unit is quick as long as little is stored.
#[tokio::test]
async fn the_lanes_go_to_their_rows_by_key() {
    let bench = Throwaway::default();
    World::new(&bench).await;
    let client = bench.database().await.client().await;
    client.batch_execute(session::SET_UP).await.unwrap();
    for sql in [Recording::STATEMENTS, Finishing::STATEMENTS, Accepting::STATEMENTS].concat() {
        let count = (1..40).rev().find(|n| sql.contains(&format!("${n}"))).unwrap();
        client.batch_execute("DEALLOCATE ALL").await.unwrap();
        client.batch_execute(&format!("PREPARE plan AS {sql}")).await.unwrap();
        let explain = format!("EXPLAIN (COSTS OFF) EXECUTE plan ({})", vec!["NULL"; count].join(","));
        let plan = plan(&client, &explain).await;
        let on_rows = |line: &&String| {
            line.contains(" on event") || line.contains(" on message") || line.contains(" on execution")
        };
        for line in plan.iter().filter(on_rows).filter(|line| line.contains("Scan")) {
            let by_key = ["message_pkey", "event_pkey", "execution_request"].iter().any(|index| line.contains(index));
            assert!(by_key, "{sql}\n{plan:#?}");
        }
        let filters = plan.iter().filter(|line| line.contains("Join Filter"));
        assert!(filters.into_iter().all(|line| line.contains("held.sbx")), "{sql}\n{plan:#?}");
    }
}

/// A page of messages that sorts all that there is takes a second with a million of them; its plan must not depend on the
/// statistics.
#[tokio::test]
async fn messages_are_listed_by_their_index() {
    let bench = Throwaway::default();
    World::new(&bench).await;
    let client = bench.database().await.client().await;
    client.batch_execute(session::SET_UP).await.unwrap();
    let plan_of =
        async |sql: String| plan(&client, &format!("EXPLAIN (COSTS OFF) {}", sql.replace("$1", "1"))).await.join("\n");
    for analyzed in [false, true] {
        let window = find::Window::default();
        let end = plan_of(window.end_of_messages()).await;
        assert!(!end.contains("Sort") && end.contains("message_pkey"), "{end}");
        let messages = plan_of(window.messages()).await;
        assert!(messages.contains("(exec >= COALESCE($0"), "what is sorted is the window alone\n{messages}");
        if !analyzed {
            client.batch_execute("ANALYZE").await.unwrap();
        }
    }
}

// ---- TLS ----

#[tokio::test]
async fn tls_is_spoken_as_the_url_says() {
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let cluster = throwaway::Cluster::with_tls(port, made.cert.pem(), made.signing_key.serialize_pem()).await;
    let database = Database::on(cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, made.cert.pem()).unwrap();
    let url = |rest: &str| format!("postgres://esito@127.0.0.1:{port}/{}{rest}", database.name());
    let known = format!("?sslmode=verify-full&sslrootcert={}", authority.display());
    for (rest, wanted) in [(known.as_str(), true), ("", true), ("?sslmode=prefer", true), ("?sslmode=disable", false)] {
        let session = Target::parse(&url(rest)).unwrap().connect(session::STATEMENT_LIMIT).await.unwrap();
        let row = session.query_opt("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
        assert_eq!(col::<bool>(&row.unwrap(), 0).unwrap(), wanted, "{rest}");
    }
    let stranger = open_at(&url("?sslmode=require"), Setup::default()).await.unwrap_err().to_string();
    assert!(stranger.contains("certificate"), "{stranger}");
}

// ---- the index of recipients ----

impl Throwaway {
    /// Waits until somebody waits for an advisory lock of this number.
    async fn until_wanted(&self, number: i32) {
        let client = self.database().await.client().await;
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid::int = $1 AND NOT granted";
        let waiting = async {
            while client.query_one(sql, &[&number]).await.unwrap().get::<_, i64>(0) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("somebody waits for the lock");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_accepts_for_long_holds_up_the_index_and_the_index_nobody() {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    world.crowd("one").await;
    let mut client = bench.database().await.client().await;
    let accepting = client.transaction().await.unwrap();
    accepting.execute("SELECT pg_advisory_xact_lock_shared(7, sbx::int) FROM sandbox", &[]).await.unwrap();
    let steps = async {
        assert!(!world.store.index_step(at(LATER)).await.unwrap());
        bench.count("search_run").await
    };
    let other = async {
        bench.until_wanted(7).await;
        world.message("beside").await
    };
    let (runs, message) = tokio::join!(steps, other);
    assert_eq!(runs, 0);
    accepting.commit().await.unwrap();
    assert_eq!(world.index().await, 1);
    assert_eq!(world.messages_to("u-jane").await, [message]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_waits_for_the_run_that_is_being_made() {
    whoever_deletes_waits_for_a_run(async |world| {
        world.erase_wholly("rare@example.com").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_waits_for_the_run_that_is_being_made() {
    whoever_deletes_waits_for_a_run(async |world| {
        let (sandbox, what) = (world.sandbox.id, RetainWhat::Executions);
        // The rare message alone is over.
        let step = RetainStep { sandbox, what, before: at(LATER), after: 0, most: 2 };
        assert_eq!(world.store.retain(step).await.unwrap().deleted.messages, 1);
    })
    .await;
}

/// `delete` deletes the message to rare@example.com while a run is made that has read it.
async fn whoever_deletes_waits_for_a_run(delete: impl AsyncFnOnce(&World)) {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    let mut execution = world.execution("rare");
    execution.recipients = vec![recipient("rare")];
    let key = MessageKey { execution: world.accept(execution).await.id, ordinal: 0 };
    world.record(key, Verdict::Sent).await;
    world.crowd("one").await;
    let mut client = bench.database().await.client().await;
    let run = client.transaction().await.unwrap();
    run.execute("SELECT pg_advisory_xact_lock(8, sbx::int) FROM sandbox", &[]).await.unwrap();
    let entered = async {
        bench.until_wanted(8).await;
        // What the run has read before it writes.
        let enter = "INSERT INTO search_entry SELECT sbx, 1, hashtextextended(t, 0), exec FROM message \
                     CROSS JOIN LATERAL unnest(ARRAY[user_id, address]) AS t";
        run.execute(enter, &[]).await.unwrap();
        let complete = "INSERT INTO search_run SELECT sbx, 1, 1, max(exec) FROM message GROUP BY sbx";
        run.execute(complete, &[]).await.unwrap();
        run.commit().await.unwrap();
    };
    tokio::join!(delete(&world), entered);
    assert_eq!(bench.count("search_entry").await, 2 * bench.count("message").await);
    assert!(world.messages_to("u-rare").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_an_index_that_has_begun_anew_is_not_made() {
    let bench = Throwaway::default();
    let world = World::new(&bench).await;
    world.crowd("one").await;
    let store = bench.node(Setup::default()).await.unwrap();
    let client = bench.database().await.client().await;
    let sbx = client.query_one("SELECT sbx FROM message LIMIT 1", &[]).await.unwrap().get(0);
    let Next::Run(run) = store.next_run(sbx, at(LATER)).await.unwrap() else { panic!("a run is due") };
    let announced: Result<bool> =
        async { lookup!(store.writers, |session| super::search::announce(session, sbx, run)) }.await;
    assert!(announced.unwrap());
    world.store.begin_index_anew(world.sandbox.id).await.unwrap();
    let entered: Result<()> = async { unit!(store.writers, |session| super::search::enter(session, sbx, run)) }.await;
    entered.unwrap();
    assert_eq!((bench.count("search_run").await, bench.count("search_entry").await), (0, 0));
    assert_eq!(world.index().await, 1);
}
