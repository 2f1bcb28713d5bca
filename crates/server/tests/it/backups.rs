//! Backups as an operator makes them: beside a server under load, and put back after a loss.

use crate::support::server::Server;
use crate::support::world::{World, execution};
use crate::support::{self, Random};
use crate::support::{must, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::process::{Child, Command};

const UNITARY: &str = "/ajo/im/executions/unitary";

fn esito(server: &Server, words: &[&str]) -> Command {
    let mut command = support::esito();
    command.args(words).arg("--config").arg(server.file("esito.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// What a command came to: its exit code, what it printed, what it told.
async fn run(server: &Server, words: &[&str]) -> (i32, String, String) {
    let output = must("the command to end", esito(server, words).output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn good(server: &Server, words: &[&str]) -> Value {
    let (code, printed, told) = run(server, words).await;
    assert!(code == 0 && told.is_empty(), "{code} {told}");
    serde_json::from_str(&printed).unwrap()
}

async fn refused(server: &Server, words: &[&str], why: &str) {
    let (code, printed, told) = run(server, words).await;
    assert!(code == 1 && printed.is_empty() && told.contains(why), "{words:?}: {code} {printed} {told}");
}

/// The files of a folder whose names begin like the database's or the copy's.
fn files(folder: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("esito.db") || name.starts_with("copy")).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Executions one after the other until told to stop; how many were acknowledged.
async fn load(world: &World, campaign: &str, stop: &AtomicBool, done: &AtomicUsize) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let to: Vec<String> = (0..20).map(|i| format!("sent+{n}-{i}@simulator.esito.test")).collect();
        world.caller.post(UNITARY, &execution(&format!("load-{n}"), campaign, &to)).await.expect(202);
        n += 1;
        done.store(n, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_beside_a_busy_server_holds_all_that_was_acknowledged_before() {
    let mut world = World::start().await;
    world.webhook(json!({})).await;
    let campaign = world.simulated_campaign().await;
    let copy = world.server.file("copy.db");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let backup = async {
        let some = || async { (done.load(Ordering::Relaxed) >= 20).then_some(()) };
        until("some executions", some).await;
        let before = done.load(Ordering::Relaxed);
        let made = good(&world.server, &["backup", text(&copy), "--json"]).await;
        stop.store(true, Ordering::Relaxed);
        (before, made)
    };
    let ((before, made), ()) = tokio::join!(backup, load(&world, &campaign, &stop, &done));
    assert!(made["executions"].as_u64().unwrap() >= before as u64, "{made}");
    assert_eq!(made["bytes"], std::fs::metadata(&copy).unwrap().len());
    assert_eq!(files(world.server.folder.path()).iter().filter(|name| name.starts_with("copy")).count(), 1, "one file");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    }
    refused(&world.server, &["backup", text(&copy)], "--force replaces it").await;
    good(&world.server, &["backup", text(&copy), "--json", "--force"]).await;

    // A server runs on it, and its secrets open.
    refused(&world.server, &["restore", text(&copy)], "stop it first").await;
    must("the server to stop", world.server.stop()).await;
    let later = world.server.file("esito.db");
    std::fs::remove_file(&later).unwrap();
    let restored = good(&world.server, &["restore", text(&copy), "--json"]).await;
    assert!(restored["former"].is_null(), "{restored}");
    world.server.up().await;
    let caller = world.server.admin();
    for n in 0..before {
        let found = caller.get(&format!("/v1/executions?requestId=load-{n}")).await.expect(200);
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "load-{n}");
    }
    caller.post(UNITARY, &execution("after", &campaign, &["sent+after@simulator.esito.test"])).await.expect(202);
    let told = |got: &[support::receiver::Got]| got.iter().any(|got| got.recipient().contains("after"));
    world.receiver.wait_until("an event of the restored server", told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_keeps_the_former_database_with_its_log() {
    let mut world = World::start().await;
    world.webhook(json!({})).await;
    let campaign = world.simulated_campaign().await;
    let copy = world.server.file("copy.db");
    good(&world.server, &["backup", text(&copy), "--json"]).await;
    world.caller.post(UNITARY, &execution("later", &campaign, &["sent+1@simulator.esito.test"])).await.expect(202);
    // What is in the log alone must not be lost, nor come up in the restored database.
    world.server.kill().await;
    let restored = good(&world.server, &["restore", text(&copy), "--json"]).await;
    let former = PathBuf::from(restored["former"].as_str().unwrap());
    world.server.up().await;
    let found = async |server: &Server| {
        let list = server.admin().get("/v1/executions?requestId=later").await.expect(200);
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(found(&world.server).await, 0);
    must("the server to stop", world.server.stop()).await;
    std::fs::rename(&former, world.server.file("esito.db")).unwrap();
    world.server.up().await;
    assert_eq!(found(&world.server).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_good_copy_is_refused_and_changes_nothing() {
    let mut world = World::start().await;
    world.webhook(json!({})).await;
    world.simulated_campaign().await;
    let copy = world.server.file("copy.db");
    good(&world.server, &["backup", text(&copy), "--json"]).await;
    must("the server to stop", world.server.stop()).await;
    let before = std::fs::read(world.server.file("esito.db")).unwrap();
    let names = files(world.server.folder.path());
    let good_bytes = std::fs::read(&copy).unwrap();
    let broken = world.server.file("broken");
    let attempt = async |bytes: &[u8], why: &str| {
        std::fs::write(&broken, bytes).unwrap();
        refused(&world.server, &["restore", text(&broken)], why).await;
        assert_eq!(std::fs::read(world.server.file("esito.db")).unwrap(), before);
        assert_eq!(files(world.server.folder.path()), names);
    };
    attempt(b"", "no SQLite database").await;
    attempt(b"hello", "no SQLite database").await;
    attempt(&good_bytes[..good_bytes.len() / 2], "damaged").await;
    let mut random = Random(7);
    for _ in 0..5 {
        // A whole page, so that what is hit matters.
        let page = 1 + random.below(good_bytes.len() / 4096 - 1);
        let mut bytes = good_bytes.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0x5a);
        attempt(&bytes, "").await;
    }
    let other = world.server.file("other.db");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE t (a)").unwrap();
    drop(connection);
    attempt(&std::fs::read(&other).unwrap(), "no database of Esito").await;
    std::fs::write(&other, &good_bytes).unwrap();
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection.execute("INSERT INTO migration (version, name, checksum) VALUES (999, 'future', x'00')", []).unwrap();
    drop(connection);
    attempt(&std::fs::read(&other).unwrap(), "use a newer Esito").await;
    refused(&world.server, &["restore", "/nowhere/copy.db"], "there is no file").await;

    // Another master key does not open it.
    let key = world.server.file("master.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    refused(&world.server, &["restore", text(&copy)], "put the master key back").await;
    std::fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    refused(&world.server, &["restore", text(&copy)], "another master key").await;
    refused(&world.server, &["backup", text(&world.server.file("copy2.db"))], "another master key").await;
    assert!(!world.server.file("copy2.db").exists() && !world.server.file("copy2.db.unfinished").exists());
    std::fs::write(&key, kept).unwrap();
    world.server.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_never_takes_the_place_of_a_database_in_use() {
    let mut world = World::start().await;
    let campaign = world.simulated_campaign().await;
    let other = Server::start(&[]).await;
    let folder = world.server.folder.path();
    let database = world.server.file("esito.db");
    let (link, twin) = (world.server.file("copy.link"), world.server.file("copy.twin"));
    std::os::unix::fs::symlink(&database, &link).unwrap();
    std::fs::hard_link(&database, &twin).unwrap();
    let dotted = folder.join(".").join("esito.db");
    let its_own = "is the database";
    for path in [&database, &link, &twin, &dotted] {
        refused(&world.server, &["backup", text(path), "--force"], its_own).await;
    }
    for name in ["esito.db-wal", "esito.db-shm", "esito.db.lock", "esito.db-journal", "esito.db.unfinished"] {
        refused(&world.server, &["backup", text(&world.server.file(name)), "--force"], its_own).await;
    }
    refused(&world.server, &["backup", text(&other.file("esito.db")), "--force"], "is in use").await;
    // A log that another database has left would be read as the copy's.
    let copy = world.server.file("copy.db");
    std::fs::write(world.server.file("copy.db-wal"), "left").unwrap();
    refused(&world.server, &["backup", text(&copy)], "copy.db-wal is there").await;
    std::fs::remove_file(world.server.file("copy.db-wal")).unwrap();
    // The server never noticed, and what it acknowledges now is there after a restart.
    world.caller.post(UNITARY, &execution("after", &campaign, &["sent+1@simulator.esito.test"])).await.expect(202);
    world.server.kill().await;
    refused(&world.server, &["restore", text(&database)], "is the database itself").await;
    refused(&world.server, &["restore", text(&twin)], "is the database itself").await;
    world.server.up().await;
    let found = world.server.admin().get("/v1/executions?requestId=after").await.expect(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    // Nor is a file taken for a copy while a part of it is in a log beside it.
    let raw = world.server.file("copy.raw");
    std::fs::copy(&database, &raw).unwrap();
    std::fs::copy(world.server.file("esito.db-wal"), world.server.file("copy.raw-wal")).unwrap();
    must("the server to stop", world.server.stop()).await;
    refused(&world.server, &["restore", text(&raw)], "has a log beside it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_takes_no_log_for_its_own_and_no_former_database_for_another() {
    let mut world = World::start().await;
    let campaign = world.simulated_campaign().await;
    let copy = world.server.file("copy.db");
    good(&world.server, &["backup", text(&copy), "--json"]).await;
    world.caller.post(UNITARY, &execution("later", &campaign, &["sent+1@simulator.esito.test"])).await.expect(202);
    // The file is lost and its log is not.
    world.server.kill().await;
    let database = world.server.file("esito.db");
    std::fs::remove_file(&database).unwrap();
    assert!(std::fs::metadata(world.server.file("esito.db-wal")).unwrap().len() > 0);
    let restored = good(&world.server, &["restore", text(&copy), "--json"]).await;
    assert!(restored["former"].is_null(), "{restored}");
    let kept = |name: &String| name.starts_with("esito.db.former-") && name.ends_with("-wal");
    assert_eq!(files(world.server.folder.path()).iter().filter(|name| kept(name)).count(), 1);
    assert!(!world.server.file("esito.db-wal").exists() && !world.server.file("esito.db-shm").exists());

    // As many formers as restores, however fast they follow each other.
    for _ in 0..5 {
        good(&world.server, &["restore", text(&copy), "--json"]).await;
    }
    let is_former = |name: &String| name.starts_with("esito.db.former-") && !name.ends_with("-wal");
    assert_eq!(files(world.server.folder.path()).iter().filter(|name| is_former(name)).count(), 5);

    // A command that has the database open would go on writing to the former one.
    let open = rusqlite::Connection::open(&database).unwrap();
    open.execute_batch("PRAGMA journal_mode = WAL; BEGIN; SELECT count(*) FROM execution;").unwrap();
    refused(&world.server, &["restore", text(&copy)], "another process has").await;
    drop(open);
    good(&world.server, &["restore", text(&copy), "--json"]).await;
    world.server.up().await;
    let found = world.server.admin().get("/v1/executions?requestId=later").await.expect(200);
    assert_eq!(found["items"], json!([]), "it is of before that");
}

async fn killed_after(mut child: Child, millis: usize) -> bool {
    // The moment of the kill is the experiment, not a way to wait for something.
    match tokio::time::timeout(Duration::from_millis(millis as u64), child.wait()).await {
        Ok(status) => {
            assert!(status.unwrap().success());
            false
        }
        Err(_) => {
            child.start_kill().unwrap();
            child.wait().await.unwrap();
            true
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_leaves_the_old_or_the_new() {
    let mut world = World::start().await;
    world.webhook(json!({})).await;
    let campaign = world.simulated_campaign().await;
    for n in 0..40 {
        let to: Vec<String> = (0..20).map(|i| format!("sent+{n}-{i}@simulator.esito.test")).collect();
        world.caller.post(UNITARY, &execution(&format!("r-{n}"), &campaign, &to)).await.expect(202);
    }
    world.receiver.wait_for(800).await;
    let copy = world.server.file("copy.db");
    let (mut random, mut kills) = (Random(20_261_126), 0);
    for _ in 0..12 {
        let child = esito(&world.server, &["backup", text(&copy), "--json", "--force"]).spawn().unwrap();
        kills += usize::from(killed_after(child, random.below(120)).await);
        if copy.exists() {
            let connection = rusqlite::Connection::open(&copy).unwrap();
            let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(found, "ok", "what has the name is whole");
        }
    }
    good(&world.server, &["backup", text(&copy), "--json", "--force"]).await;
    assert!(!world.server.file("copy.db.unfinished").exists(), "what a killed one left is gone");
    world.caller.post(UNITARY, &execution("later", &campaign, &["sent+x@simulator.esito.test"])).await.expect(202);
    must("the server to stop", world.server.stop()).await;
    for _ in 0..12 {
        let child = esito(&world.server, &["restore", text(&copy), "--json"]).spawn().unwrap();
        kills += usize::from(killed_after(child, random.below(120)).await);
        let connection = rusqlite::Connection::open(world.server.file("esito.db")).unwrap();
        let count = "SELECT count(*) FROM execution";
        let executions: i64 = connection.query_row(count, [], |row| row.get(0)).unwrap();
        assert!([40, 41].contains(&executions), "the old or the new, and not {executions}");
    }
    println!("{kills} of 24 were killed");
    good(&world.server, &["restore", text(&copy), "--json"]).await;
    world.server.up().await;
    let list = world.server.admin().get("/v1/executions?limit=200").await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_store_has_its_own_way() {
    let server = Server::start(&[]).await;
    let words = ["--set", "database.url=postgres://nobody@127.0.0.1:1/none"];
    let copy = server.file("copy.db");
    refused(&server, &["backup", text(&copy), words[0], words[1]], "pg_dump").await;
    std::fs::write(&copy, "x").unwrap();
    refused(&server, &["restore", text(&copy), words[0], words[1]], "pg_restore").await;
    let missing = ["--set", "database.url=sqlite:/nowhere/none.db"];
    refused(&server, &["backup", text(&server.file("c")), missing[0], missing[1]], "there is no database").await;
}

/// `esito serve` on this configuration, which must not come up; what it told.
async fn serve_refuses(server: &Server) -> String {
    let output = must("serve to end", esito(server, &["serve"]).output()).await.unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_schema_is_brought_up_to_date_with_a_copy_before_and_a_newer_one_is_refused() {
    let mut server = Server::start(&[]).await;
    must("the server to stop", server.stop()).await;
    let file = server.file("esito.db");
    let present: i64 = {
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.query_row("SELECT max(version) FROM migration", [], |row| row.get(0)).unwrap()
    };
    std::fs::remove_file(&file).unwrap();
    {
        let first = include_str!("../../../store/src/sqlite/migrations/0001_first.sql");
        let checksum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, first.as_bytes());
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch(first).unwrap();
        let table = "CREATE TABLE migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum BLOB NOT NULL)";
        connection.execute_batch(table).unwrap();
        connection.execute("INSERT INTO migration VALUES (1, 'first', ?1)", [checksum.as_ref()]).unwrap();
        let organization = "INSERT INTO organization VALUES ('old@EsitoOrg', 'Old', 1, 'test')";
        connection.execute_batch(organization).unwrap();
    }
    server.up().await;
    let old = server.admin().get("/v1/organizations/old@EsitoOrg").await.expect(200);
    assert_eq!((&old["name"], &old["retention"]["eventsDays"]), (&json!("Old"), &Value::Null));
    must("the server to stop", server.stop()).await;
    let copy = rusqlite::Connection::open(server.file("esito.db.before-schema-2")).unwrap();
    let kept: i64 = copy.query_row("SELECT max(version) FROM migration", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 1, "the copy is of before");
    {
        let connection = rusqlite::Connection::open(&file).unwrap();
        let now: i64 = connection.query_row("SELECT max(version) FROM migration", [], |row| row.get(0)).unwrap();
        assert_eq!(now, present);
        connection.execute("INSERT INTO migration VALUES (?1, 'future', x'00')", [present + 1]).unwrap();
    }
    let told = serve_refuses(&server).await;
    assert!(told.contains("use a newer Esito"), "{told}");
    refused(&server, &["backup", text(&server.file("copy.db"))], "use a newer Esito").await;
}

/// The commands of the README.
#[cfg(feature = "peers")]
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_postgresql_is_restored_into_an_empty_database() {
    use crate::support::backing::Backing;
    use store::postgres::throwaway::Database;

    let backing = Backing::postgres().await;
    let Backing::Postgres(database) = &backing else { unreachable!("it is") };
    let mut world = World::start_on(&backing).await;
    world.webhook(json!({})).await;
    let campaign = world.simulated_campaign().await;
    world.caller.post(UNITARY, &execution("r-1", &campaign, &["sent+1@simulator.esito.test"])).await.expect(202);
    world.receiver.wait_for(1).await;
    let dump = world.server.file("esito.dump");
    let program = async |name: &str, words: &[&str]| {
        let output = must(name, Command::new(name).args(words).output()).await.unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    };
    program("pg_dump", &["--format=custom", &format!("--file={}", text(&dump)), database.url()]).await;
    let empty = Database::new().await;
    let into = format!("--dbname={}", empty.url());
    program("pg_restore", &["--no-owner", "--exit-on-error", &into, text(&dump)]).await;
    must("the server to stop", world.server.stop()).await;
    // The leases of the server that was dumped end by themselves, half a minute later.
    empty.client().await.batch_execute("UPDATE shard SET until = 0").await.unwrap();
    let config = std::fs::read_to_string(world.server.file("esito.toml")).unwrap();
    std::fs::write(world.server.file("esito.toml"), config.replace(database.url(), empty.url())).unwrap();
    world.server.up().await;
    let caller = world.server.admin();
    let found = caller.get("/v1/executions?requestId=r-1").await.expect(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    caller.post(UNITARY, &execution("r-2", &campaign, &["sent+2@simulator.esito.test"])).await.expect(202);
    world.receiver.wait_for(2).await;
}
