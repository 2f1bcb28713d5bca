//! The contract on SQLite, and what is SQLite's own: files, locks, threads, commits that fail.

use super::*;
use crate::contract::fixtures::{ACME, START, at, is_not_found, page, plain, recipient};
use crate::contract::search::LATER;
use crate::contract::world::World;
use crate::contract::{Bench, Setup, contains};
use crate::work::{NewExecution, What};
use model::outcome::Verdict;
use serde_json::json;
use tokio::task::JoinSet;

/// A folder that goes with the test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("data").join("esito.db")
    }

    fn open_for(&self, usage: Use, setup: Setup) -> Result<Arc<SqliteStore>> {
        let master_key = MasterKey::new(&setup.master_key);
        let max_waiting_messages = setup.max_waiting_messages;
        SqliteStore::open(Options {
            file: self.file(),
            master_key,
            usage,
            max_waiting_messages,
            min_free_disk_bytes: 0,
        })
        .map(Arc::new)
    }

    /// The same store twice: as the trait's and as itself.
    async fn world(&self) -> (World, Arc<SqliteStore>) {
        let mut world = World::new(self).await;
        world.store.close().await;
        let store = self.open_for(Use::Work, Setup::default()).unwrap();
        world.store = Arc::clone(&store) as Arc<dyn Store>;
        world.lease = world.claim_all(world.owner).await;
        (world, store)
    }

    fn raw(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }

    fn tables(&self) -> Vec<String> {
        let connection = self.raw();
        let mut query = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }
}

#[async_trait]
impl Bench for Folder {
    async fn open(&self, setup: Setup) -> Result<Arc<dyn Store>> {
        Ok(self.open_for(Use::Work, setup)? as Arc<dyn Store>)
    }

    async fn contents(&self) -> Vec<u8> {
        use rusqlite::types::ValueRef;
        let connection = self.raw();
        let mut bytes = Vec::new();
        for table in self.tables() {
            let mut query = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = query.column_count();
            let mut rows = query.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                for column in 0..columns {
                    match row.get_ref(column).unwrap() {
                        ValueRef::Text(value) | ValueRef::Blob(value) => bytes.extend_from_slice(value),
                        _ => {}
                    }
                    bytes.push(0);
                }
            }
        }
        bytes
    }

    async fn count(&self, table: &str) -> u64 {
        self.raw().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }
}

crate::contract_suite!(Folder::new());

// ---- files, locks and processes ----

#[tokio::test]
async fn one_process_works_and_others_administer_beside_it() {
    let folder = Folder::new();
    let (mut world, _) = folder.world().await;
    let second = folder.open_for(Use::Work, Setup::default()).unwrap_err();
    assert!(second.to_string().contains("another process works on"), "{second}");

    let beside = folder.open_for(Use::Administration, Setup::default()).unwrap();
    let key = ApiKey { id: ApiKeyId(world.campaign.0), name: "new".to_owned(), ..world.key.clone() };
    beside.create_api_key(key.clone(), [9; 32], world.audit("api-key.create")).await.unwrap();
    beside.close().await;
    assert_eq!(world.store.find_api_key([9; 32]).await.unwrap(), Some(key.clone()));
    world.key = key;
    assert!(world.accept(world.execution("r1")).await.work.is_some());
    // It took no shard from the one at work.
    let message = world.message("r2").await;
    assert_eq!(world.store.hand_over(world.lease, vec![(world.sandbox.id, message)]).await.unwrap(), [true]);
}

#[tokio::test]
async fn a_deletion_under_way_is_gone_for_everybody_and_left_alone_by_administrators() {
    let folder = Folder::new();
    let (world, _) = folder.world().await;
    let mut webhook = world.add_webhook(json!({})).await;
    folder.raw().execute("UPDATE webhook SET deleting = 1", []).unwrap();
    folder.open_for(Use::Administration, Setup::default()).unwrap().close().await;
    let left: i64 = folder.raw().query_row("SELECT count(*) FROM webhook", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
    let edit = Edit { sandbox: world.sandbox.id, id: webhook.id, seen_revision: None };
    assert!(is_not_found(world.store.delete_webhook(edit, START, world.audit("feedback-webhook.delete")).await));
    webhook.stamps.touch(START, "ops");
    assert!(is_not_found(world.store.update_webhook(webhook, world.audit("feedback-webhook.update")).await));
}

#[tokio::test]
async fn a_close_ends_the_threads_and_loses_nothing() {
    let folder = Folder::new();
    let (world, store) = folder.world().await;
    let mut writes = JoinSet::new();
    for i in 0..200 {
        let (store, new) = (Arc::clone(&store), world.execution(&format!("r{i}")));
        writes.spawn(async move { store.accept(new).await });
    }
    tokio::task::yield_now().await;
    store.close().await;
    let answers = writes.join_all().await;
    let accepted: Vec<_> = answers.into_iter().flatten().map(|answer| answer.unwrap().id).collect();
    assert!(!accepted.is_empty());
    // The last connection takes the log along: none is left open.
    assert!(!beside(&folder.file(), "-wal").exists());
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.execution(world.sandbox.id, accepted[0]).await, Err(StoreError::Unavailable(_))));
    store.close().await;

    let world = world.reopen(&folder).await;
    let found = world.store.executions(world.messages(), page(1000)).await.unwrap().items;
    assert_eq!(found.len(), accepted.len());
    assert!(accepted.iter().all(|id| found.iter().any(|view| view.facts.id == *id)));
    world.store.ping().await.unwrap();
}

#[tokio::test]
async fn secrets_are_in_no_file() {
    let folder = Folder::new();
    let (world, _) = folder.world().await;
    let secret =
        json!({"authentication": {"type": "jwt", "algorithm": "HS256", "secret": "planted-hmac"}, "name": "findable"});
    world.add_webhook(secret).await;
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder.file().parent().unwrap()).unwrap() {
        bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    assert!(contains(&bytes, "findable"), "the log is read as well");
    assert!(!contains(&bytes, "planted-hmac"));
    assert_eq!(world.webhook().await.settings.authentication.secret.unwrap().expose(), "planted-hmac");
}

#[tokio::test]
async fn a_request_id_is_forgotten_after_eight_days() {
    let folder = Folder::new();
    let (world, _) = folder.world().await;
    let mut ids = Vec::new();
    for day in 0..12 {
        ids.push(world.accept(world.execution_at(at(day * 86_400), "the same")).await.id);
    }
    // On the ninth day the same request is new, and is remembered anew.
    assert!(ids[..9].iter().all(|id| *id == ids[0]) && ids[9..].iter().all(|id| *id == ids[9]));
    assert_ne!(ids[0], ids[9]);
}

// ---- deletions ----

#[tokio::test]
async fn an_interrupted_deletion_is_finished_at_the_next_start() {
    let folder = Folder::new();
    let (world, _) = folder.world().await;
    world.add_webhook(json!({})).await;
    let sent = world.delivery("r1").await;
    world.record(sent.event.key.message, Verdict::Delivered).await;
    world.store.close().await;
    folder.raw().execute("UPDATE webhook SET deleting = 1", []).unwrap();
    let world = world.reopen(&folder).await;
    assert!(world.store.webhook_of(world.sandbox.id).await.unwrap().is_none());
    let cancelled = world.deliveries(Some(model::delivery::DeliveryState::Cancelled)).await;
    assert_eq!(cancelled.len(), 2);
    assert!(cancelled.iter().all(|view| view.delivery.as_ref().unwrap().ended_at == Some(START)));
    world.add_webhook(json!({})).await;
}

#[tokio::test]
async fn a_deletion_goes_on_when_its_caller_goes_away() {
    let folder = Folder::new();
    let (world, store) = folder.world().await;
    let webhook = world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    let edit = Edit { sandbox: world.sandbox.id, id: webhook.id, seen_revision: None };
    tokio::select! {
        biased;
        _ = store.delete_webhook(edit, at(1), world.audit("feedback-webhook.delete")) => panic!("it takes a commit"),
        () = std::future::ready(()) => {}
    }
    // A close waits for it.
    while store.webhook_of(world.sandbox.id).await.unwrap().is_some() {
        store.ping().await.unwrap();
    }
    let world = world.reopen(&folder).await;
    assert_eq!(world.state(&due).await, model::delivery::DeliveryState::Cancelled);
    world.add_webhook(json!({})).await;
}

// ---- readers ----

const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

fn endless(connection: &Connection) -> Result<i64> {
    Ok(connection.query_row(ENDLESS, [], |row| row.get(0))?)
}

#[tokio::test(start_paused = true)]
async fn a_long_lookup_is_interrupted() {
    let folder = Folder::new();
    let store = folder.open_for(Use::Work, Setup::default()).unwrap();
    let lookup = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.read(endless).await }
    });
    tokio::task::yield_now().await;
    tokio::time::advance(readers::LONGEST_LOOKUP + Duration::from_millis(1)).await;
    assert!(matches!(lookup.await.unwrap(), Err(StoreError::Unavailable(_))));
    store.ping().await.unwrap();
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_lookup_ends_when_nobody_waits_for_it() {
    let folder = Folder::new();
    let store = folder.open_for(Use::Work, Setup::default()).unwrap();
    for _ in 0..9 {
        tokio::select! {
            biased;
            _ = store.read(endless) => panic!("it has no end"),
            () = tokio::task::yield_now() => {}
        }
    }
    // Each of them had taken one of the few turns.
    store.ping().await.unwrap();
    store.close().await;
}

// ---- commits ----

/// Holds the writer up, so that what is begun meanwhile goes into one commit.
async fn hold_up(store: &Arc<SqliteStore>) -> std::sync::mpsc::Sender<()> {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let writer = store.writer().unwrap();
    tokio::spawn(async move {
        let hold = move |_: &mut Tx<'_>| {
            let _ = started.send(());
            let _ = wait.recv();
            Ok(())
        };
        writer.once(hold).await
    });
    has_started.await.unwrap();
    go
}

/// Polls a write once, so that it is on its way, and goes on with it as a task.
async fn begin<T: Send + 'static>(write: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    let task = tokio::spawn(write);
    tokio::task::yield_now().await;
    task
}

#[tokio::test]
async fn a_unit_that_fails_is_undone_alone() {
    let folder = Folder::new();
    let (world, store) = folder.world().await;
    let sql = "UPDATE organization SET name = 'changed'";
    let failed = store.write(move |tx| {
        tx.state.waiting += 5;
        tx.state.counted.accepted(1, START, 5);
        tx.connection.execute(sql, [])?;
        Err::<(), _>(StoreError::Changed)
    });
    let (failed, accepted) = tokio::join!(failed, store.accept(world.execution("r1")));
    assert!(matches!(failed, Err(StoreError::Changed)) && accepted.is_ok());
    assert_eq!(store.write(|tx| Ok(tx.state.waiting)).await.unwrap(), 1);
    assert_eq!(world.counts().await.accepted(), 1);
    assert_eq!(world.store.organization(ACME).await.unwrap().name, ACME);
}

#[tokio::test]
async fn a_failed_commit_undoes_what_is_remembered_too() {
    let folder = Folder::new();
    let (world, store) = folder.world().await;
    let (late, owner) = (at(60), world.new_owner());
    let message = world.message("r0").await;
    let go = hold_up(&store).await;
    let claim = begin({
        let store = Arc::clone(&store);
        async move { store.claim_shards(owner, vec![Shard(0), world.lease.shard], late, Duration::from_secs(30)).await }
    })
    .await;
    let new = world.execution("r1");
    let accept = begin({
        let (store, new) = (Arc::clone(&store), new.clone());
        async move { store.accept(new).await }
    })
    .await;
    let poison = begin({
        let store = Arc::clone(&store);
        async move {
            // A foreign key that is checked at the commit, and fails it.
            let sql = "PRAGMA defer_foreign_keys = ON; INSERT INTO sandbox (id, org, name, created_at, created_by) \
                       VALUES (x'00', 'nobody', 'x', 0, 'x')";
            store.write(move |tx| Ok(tx.connection.execute_batch(sql)?)).await
        }
    })
    .await;
    go.send(()).unwrap();
    assert!(matches!(claim.await.unwrap(), Err(StoreError::Unavailable(_))));
    assert!(matches!(accept.await.unwrap(), Err(StoreError::Unavailable(_))));
    assert!(matches!(poison.await.unwrap(), Err(StoreError::Unavailable(_))));

    // The former owner's lease holds, the execution is not there, and the same request is new.
    assert_eq!(world.store.hand_over(world.lease, vec![(world.sandbox.id, message)]).await.unwrap(), [true]);
    assert!(matches!(world.store.execution(world.sandbox.id, new.id).await, Err(StoreError::NotFound(_))));
    assert!(world.accept(NewExecution { id: world.execution("").id, ..new }).await.work.is_some());
    let waiting = store.write(|tx| Ok(tx.state.waiting)).await.unwrap();
    assert_eq!(waiting, 2);
    assert_eq!(world.counts().await.accepted(), 2);
}

#[tokio::test]
async fn a_transaction_undone_by_sqlite_itself_takes_nothing_in() {
    let folder = Folder::new();
    let (world, store) = folder.world().await;
    let go = hold_up(&store).await;
    let mut tasks = Vec::new();
    for request in ["before", "", "after"] {
        let (store, new) = (Arc::clone(&store), world.execution(request));
        tasks.push(
            begin(async move {
                if request.is_empty() {
                    // What a full disk does.
                    return store.write(|tx| Ok(tx.connection.execute_batch("ROLLBACK")?)).await;
                }
                store.accept(new).await.map(|_| ())
            })
            .await,
        );
    }
    go.send(()).unwrap();
    for task in tasks {
        assert!(matches!(task.await.unwrap(), Err(StoreError::Unavailable(_))));
    }
    assert!(world.store.executions(world.messages(), page(10)).await.unwrap().items.is_empty());
    assert_eq!(folder.count("statistic").await, 0);
    assert!(world.accept(world.execution("before")).await.work.is_some());
    assert_eq!(world.counts().await.accepted(), 1);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_does_not_hide_the_others() {
    let folder = Folder::new();
    let (world, _) = folder.world().await;
    let (bad, good) = (world.message("r1").await, world.message("r2").await);
    folder.raw().execute("UPDATE message SET state = 99 WHERE exec = ?1", [bad.execution.number()]).unwrap();
    let records = [bad, good].map(|message| world.record_of(message, START, plain(Verdict::Sent)));
    let recorded = world.store.record(records.to_vec()).await.unwrap();
    assert_eq!([recorded[0].done, recorded[1].done], [false, true]);
    assert!(!world.record_at(bad, START, What::Planned).await.done);
}

#[tokio::test]
async fn the_feed_goes_on_from_where_it_was() {
    let folder = Folder::new();
    let (world, _) = folder.world().await;
    let late = world.message("r1").await;
    world.record_at(late, at(100), plain(Verdict::Sent)).await;
    // The clock has stepped back over a restart.
    let world = world.reopen(&folder).await;
    let message = world.message("r2").await;
    world.record_at(message, START, plain(Verdict::Sent)).await;
    let feed = EventFilter { after: Some(0), ..world.events() };
    let events = world.store.events(feed, page(10)).await.unwrap().items;
    let order: Vec<_> = events.iter().map(|view| view.event.key.message).collect();
    assert_eq!(order, [late, message]);
    assert_eq!(world.store.organization(ACME).await.unwrap().id, ACME);
}

/// A disk that refuses the commits whose numbers are in here.
#[derive(Debug)]
struct FullDisk(std::ops::Range<u32>, std::sync::atomic::AtomicU32);

#[async_trait]
impl CommitSeam for FullDisk {
    async fn before(&self) -> std::result::Result<(), String> {
        let number = self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if self.0.contains(&number) { Err("the disk is full".to_owned()) } else { Ok(()) }
    }

    async fn after(&self) {}
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_has_begun_ends_though_the_disk_is_full_for_a_while() {
    let folder = Folder::new();
    let (mut world, store) = folder.world().await;
    let webhook = world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    store.close().await;
    let options = Options {
        file: folder.file(),
        master_key: MasterKey::new(&Setup::default().master_key),
        usage: Use::Work,
        max_waiting_messages: 100,
        min_free_disk_bytes: 0,
    };
    // The first commit marks it.
    let disk = FullDisk(1..6, Default::default());
    world.store = Arc::new(SqliteStore::open_inline(options, Arc::new(disk)).unwrap());
    let edit = Edit { sandbox: world.sandbox.id, id: webhook.id, seen_revision: None };
    world.store.delete_webhook(edit, at(1), world.audit("feedback-webhook.delete")).await.unwrap();
    assert_eq!(world.state(&due).await, model::delivery::DeliveryState::Cancelled);
    world.add_webhook(json!({})).await;
}

// ---- runs of the index that are not made in one go ----

impl Folder {
    /// A store with messages enough for a run, one of them to rare@example.com; the first entries of the run are written.
    async fn half_a_run(&self) -> (World, Arc<SqliteStore>, i64, Run, Vec<(i64, i64)>) {
        let (world, store) = self.world().await;
        let mut execution = world.execution("rare");
        execution.recipients = vec![recipient("rare")];
        world.accept(execution).await;
        world.crowd("one").await;
        let sbx = self.raw().query_row("SELECT sbx FROM message LIMIT 1", [], |row| row.get(0)).unwrap();
        let Next::Run(run) = store.next_run(sbx, at(LATER)).await.unwrap() else { panic!("a run is due") };
        store.write(move |tx| super::search::announce(tx, sbx, run)).await.unwrap();
        let entries = store.read(move |connection| super::search::entries(connection, sbx, run)).await.unwrap();
        let half = entries[..entries.len() / 2].to_vec();
        store.write(move |tx| super::search::enter(tx, sbx, run, &half)).await.unwrap();
        (world, store, sbx, run, entries)
    }
}

#[tokio::test]
async fn a_message_that_is_erased_while_its_run_is_made_is_in_no_index() {
    let folder = Folder::new();
    let (world, store, sbx, run, entries) = folder.half_a_run().await;
    world.erase_wholly("rare@example.com").await;
    let of_rare = |text: &str| {
        let count = "SELECT count(*) FROM search_entry WHERE hash = ?1";
        folder.raw().query_row(count, [super::search::hash(text)], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(of_rare("u-rare") + of_rare("rare@example.com"), 0, "what was entered is gone at once");
    let rest = entries[entries.len() / 2..].to_vec();
    store.write(move |tx| super::search::enter(tx, sbx, run, &rest)).await.unwrap();
    store.write(move |tx| super::search::complete(tx, sbx, run)).await.unwrap();
    assert_eq!((folder.count("search_run").await, folder.count("search_entry").await), (0, 0));
    assert_eq!(world.index().await, 1);
    assert_eq!(folder.count("search_entry").await, entries.len() as u64 - 2);
    assert_eq!(of_rare("u-rare") + of_rare("rare@example.com"), 0);
}

#[tokio::test]
async fn a_run_that_a_process_has_broken_off_is_gone_with_the_next_start() {
    let folder = Folder::new();
    let (world, store, _, _, entries) = folder.half_a_run().await;
    assert!(folder.count("search_entry").await > 0);
    drop(store);
    let world = world.reopen(&folder).await;
    assert_eq!(folder.count("search_entry").await, 0);
    assert_eq!(world.index().await, 1);
    assert_eq!(folder.count("search_entry").await, entries.len() as u64);
}
