//! Copies of the file: made while others write, checked before anybody relies on them, and put in its place again.
//!
//! At every moment, whatever is killed, there is either the whole copy or none, and either the former database or the
//! restored one: what is unfinished has another name, and a rename is what makes it count.

use super::migrate;
use super::{Access, beside, connect, folder_of, lock, unavailable};
use crate::envelope::MasterKey;
use crate::{Result, StoreError};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The pages of a step: a few milliseconds.
const STEP_PAGES: i32 = 1_000;
/// The bytes that are copied in one go.
const BLOCK: usize = 1024 * 1024;
/// How long a command that has the database open may go on with it.
const OTHERS_LIMIT: Duration = Duration::from_secs(2);

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Of so many bytes so many are copied.
    Copied(u64, u64),
    /// All are copied, and are being checked.
    Checking,
}

/// Gets the progress; false ends the work, and nothing is left of it.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> bool;

/// A copy that was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its size.
    pub bytes: u64,
    /// The version of its schema.
    pub schema: i64,
    /// How many executions it holds.
    pub executions: u64,
    /// How many feedback events.
    pub events: u64,
}

/// A database that was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The copy.
    pub copy: Checked,
    /// Where the former database is, if there was one.
    pub former: Option<PathBuf>,
}

fn stopped() -> StoreError {
    unavailable("it was stopped")
}

fn sync_folder(file: &Path) -> Result<()> {
    File::open(folder_of(file)).and_then(|folder| folder.sync_all()).map_err(unavailable)
}

/// A file that does not count yet. It goes with this, unless it was given its name.
struct Unfinished {
    path: PathBuf,
    /// Tells another process that somebody is at it.
    file: File,
    /// It has its name.
    counts: bool,
}

impl Unfinished {
    fn beside(target: &Path) -> Result<Self> {
        let path = beside(target, ".unfinished");
        let open = File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let file = open.map_err(|error| unavailable(format!("{}: {error}", path.display())))?;
        let taken = || unavailable(format!("another process is writing {}", path.display()));
        file.try_lock().map_err(|_| taken())?;
        // Between the opening and the lock another process may have given it its name: then it is a whole copy.
        let opened = file.metadata().map_err(unavailable)?;
        if !fs::metadata(&path).is_ok_and(|named| is_same(&named, &opened)) {
            return Err(taken());
        }
        // Whatever a killed process has left.
        file.set_len(0).map_err(unavailable)?;
        Ok(Self { path, file, counts: false })
    }

    fn become_the(mut self, target: &Path) -> Result<()> {
        self.file.sync_all().map_err(unavailable)?;
        fs::rename(&self.path, target).map_err(unavailable)?;
        self.counts = true;
        sync_folder(target)
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether both names lead to one file, or would if it were there.
fn are_one(one: &Path, other: &Path) -> bool {
    if let (Ok(one), Ok(other)) = (fs::metadata(one), fs::metadata(other)) {
        return is_same(&one, &other);
    }
    let folder = |path: &Path| fs::canonicalize(folder_of(path)).ok();
    one.file_name() == other.file_name()
        && folder(one).is_some_and(|folder_of_one| Some(folder_of_one) == folder(other))
}

/// The names beside a database that belong to it.
const ITS_FILES: [&str; 6] = ["", "-wal", "-shm", "-journal", ".lock", ".unfinished"];
/// Those of them that hold what the file does not.
const LOGS: [&str; 2] = ["-wal", "-journal"];

/// The file that a link leads to: beside that one SQLite keeps its log.
fn real(file: &Path) -> PathBuf {
    fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())
}

/// Refuses a path that is the database, by whatever name, or belongs to it.
fn check_is_another(file: &Path, path: &Path) -> Result<()> {
    let belongs_to = |file: &Path| ITS_FILES.iter().any(|its| are_one(&beside(file, its), path));
    if belongs_to(file) || belongs_to(&real(file)) {
        let (path, file) = (path.display(), file.display());
        return Err(unavailable(format!("{path} is the database itself, or belongs to it ({file})")));
    }
    Ok(())
}

/// A copy must not take the place of the database that it is of, nor of one that a process works on; nor get a log beside
/// it that is another one's, which would be read as its own.
fn check_target(file: &Path, target: &Path) -> Result<()> {
    check_is_another(file, target)?;
    check_is_another(file, &beside(target, ".unfinished"))?;
    if let Some(log) = LOGS.map(|log| beside(target, log)).iter().find(|log| log.exists()) {
        let (log, target) = (log.display(), target.display());
        return Err(unavailable(format!(
            "{log} is there: a database {target} is in use, or was not closed; copy to another name"
        )));
    }
    let is_held = |lock: &File| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock));
    if File::open(beside(target, ".lock")).is_ok_and(|lock| is_held(&lock)) {
        return Err(unavailable(format!("another process works on {}", target.display())));
    }
    Ok(())
}

/// Whether there is a log with anything in it.
fn holds_something(log: &Path) -> bool {
    fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What has this name now may be another process's.
        if !self.counts {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_file(beside(&self.path, "-journal"));
        }
    }
}

/// Copies the database to `target`, as it is at one moment, while others go on writing; and checks the copy. The log of
/// what is written meanwhile grows until the copy is made.
pub fn back_up(file: &Path, target: &Path, overwrite: bool, master: &MasterKey, watch: Watch<'_>) -> Result<Checked> {
    check_target(file, target)?;
    if !overwrite && target.exists() {
        return Err(unavailable(format!("{} is there already", target.display())));
    }
    let source = connect(file, Access::Read)?;
    let schema = migrate::schema_of(&source)?;
    let unfinished = Unfinished::beside(target)?;
    copy_database(&source, &unfinished.path, watch)?;
    drop(source);
    if !watch(Progress::Checking) {
        return Err(stopped());
    }
    let checked = check(&unfinished.path, master)?;
    if checked.schema != schema {
        return Err(StoreError::Corrupt(format!("the copy has schema {}, not {schema}", checked.schema)));
    }
    unfinished.become_the(target)?;
    Ok(checked)
}

fn copy_database(source: &Connection, target: &Path, watch: Watch<'_>) -> Result<()> {
    // As long as this reads, it sees the database as it was at the beginning, and the copy need not begin anew.
    source.execute_batch("BEGIN")?;
    let page_bytes: u64 = source.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let _: i64 = source.query_row("SELECT count(*) FROM migration", [], |row| row.get(0))?;
    let mut copy = Connection::open_with_flags(target, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    copy.execute_batch("PRAGMA synchronous = OFF;")?;
    {
        let backup = Backup::new(source, &mut copy)?;
        loop {
            let step = backup.step(STEP_PAGES)?;
            let pages = |pages: i32| u64::try_from(pages).unwrap_or(0) * page_bytes;
            let progress = backup.progress();
            let all = pages(progress.pagecount);
            if !watch(Progress::Copied(all - pages(progress.remaining), all)) {
                return Err(stopped());
            }
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // It reads already, and nobody else knows the copy.
                _ => return Err(unavailable("the database is locked")),
            }
        }
    }
    source.execute_batch("COMMIT")?;
    // One file, without a log beside it.
    let mode: String = copy.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    match mode.as_str() {
        "delete" => Ok(()),
        other => Err(StoreError::Corrupt(format!("the copy stays in journal mode {other}"))),
    }
}

/// Checks a copy: that it is whole, of this program, of a schema that it knows, and that the master key opens its secrets.
pub fn check(copy: &Path, master: &MasterKey) -> Result<Checked> {
    let bytes = fs::metadata(copy).map_err(|error| unavailable(format!("{}: {error}", copy.display())))?.len();
    let wrong = |why: &str| StoreError::Corrupt(format!("{}: {why}", copy.display()));
    let mut head = [0; 16];
    let read = File::open(copy).and_then(|mut file| file.read_exact(&mut head));
    if read.is_err() || &head != b"SQLite format 3\0" {
        return Err(wrong("is no SQLite database"));
    }
    let path = copy.to_str().ok_or_else(|| wrong("its path is not UTF-8"))?;
    // What is checked must not change, and nothing is to be left beside it.
    let uri = format!("file:{}?immutable=1", path.replace('%', "%25").replace('?', "%3f").replace('#', "%23"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags)?;
    let damaged = |error: rusqlite::Error| wrong(&format!("is damaged: {error}"));
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if found != "ok" {
        return Err(wrong(&format!("is damaged: {found}")));
    }
    let is_ours = "SELECT count(*) FROM sqlite_schema WHERE name IN ('migration', 'execution', 'event')";
    if connection.query_row(is_ours, [], |row| row.get::<_, i64>(0)).map_err(damaged)? != 3 {
        return Err(wrong("is no database of Esito"));
    }
    let schema = migrate::schema_of(&connection)?;
    check_secrets(&connection, master).map_err(|error| wrong(&error.to_string()))?;
    let count = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
    Ok(Checked { bytes, schema, executions: count("execution")?, events: count("event")? })
}

/// A copy whose secrets cannot be opened is found out now, and not at night.
fn check_secrets(connection: &Connection, master: &MasterKey) -> Result<()> {
    for table in ["webhook", "channel_configuration"] {
        let mut query =
            connection.prepare(&format!("SELECT id, sealed FROM {table} WHERE sealed IS NOT NULL LIMIT 1"))?;
        let mut rows = query.query([])?;
        if let Some(row) = rows.next()? {
            let (id, sealed): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let opened = master.open(&id, Some(&sealed));
            opened.map_err(|_| StoreError::Corrupt("its secrets were sealed with another master key".to_owned()))?;
        }
    }
    Ok(())
}

/// Puts a copy in the place of the database, which no process may be using, and keeps the former one beside it under a
/// name with `suffix`.
pub fn restore(copy: &Path, file: &Path, suffix: &str, master: &MasterKey, watch: Watch<'_>) -> Result<Restored> {
    fs::create_dir_all(folder_of(file)).map_err(unavailable)?;
    let _lock = lock(file)?;
    let file = &real(file);
    check_copy_stands_alone(copy, file)?;
    if !watch(Progress::Checking) {
        return Err(stopped());
    }
    check(copy, master)?;
    let mut unfinished = Unfinished::beside(file)?;
    copy_bytes(copy, &mut unfinished.file, watch)?;
    // What was copied is checked, and not what it was copied from alone.
    let checked = check(&unfinished.path, master)?;
    let former = set_aside(file, suffix)?;
    unfinished.become_the(file)?;
    Ok(Restored { copy: checked, former })
}

/// A copy has no log of its own: what is in one would be missing from what is restored.
fn check_copy_stands_alone(copy: &Path, file: &Path) -> Result<()> {
    check_is_another(file, copy)?;
    if let Some(log) = LOGS.map(|log| beside(copy, log)).iter().find(|log| holds_something(log)) {
        let (copy, log) = (copy.display(), log.display());
        return Err(unavailable(format!(
            "{copy} has a log beside it, {log}, which would be lost: let `esito backup` make the copy"
        )));
    }
    Ok(())
}

fn copy_bytes(from: &Path, to: &mut File, watch: Watch<'_>) -> Result<()> {
    let mut source = File::open(from).map_err(unavailable)?;
    let all = source.metadata().map_err(unavailable)?.len();
    let (mut block, mut done) = (vec![0; BLOCK], 0);
    loop {
        let read = source.read(&mut block).map_err(unavailable)?;
        if read == 0 {
            return to.sync_all().map_err(unavailable);
        }
        to.write_all(&block[..read]).map_err(unavailable)?;
        done += read as u64;
        if !watch(Progress::Copied(done, all)) {
            return Err(stopped());
        }
    }
}

/// Gives the former database a second name, so that its first one can be taken from it by one rename; that name, if there
/// is a database. No log of its may stay, be it one that a lost database has left: beside the restored database it would
/// be taken for that one's.
fn set_aside(file: &Path, suffix: &str) -> Result<Option<PathBuf>> {
    let is_there = file.exists();
    if is_there && let Err(error) = empty_log(file) {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) {
            return Err(unavailable(format!("another process has {} open; end it first", file.display())));
        }
        // It may be damaged: then the log is kept beside it.
        tracing::warn!(%error, "the former database's log cannot be moved into it");
    }
    let former = free_name(file, suffix);
    if is_there {
        name_also(file, &former)?;
    }
    for log in LOGS {
        let from = beside(file, log);
        if holds_something(&from) {
            fs::rename(&from, beside(&former, log)).map_err(unavailable)?;
        }
    }
    for name in ["-wal", "-journal", "-shm"] {
        match fs::remove_file(beside(file, name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(unavailable(error)),
            _ => {}
        }
    }
    sync_folder(file)?;
    Ok(is_there.then_some(former))
}

/// A name that no former database has yet, nor a log of one.
fn free_name(file: &Path, suffix: &str) -> PathBuf {
    let mut former = beside(file, &format!(".former-{suffix}"));
    while former.exists() || LOGS.iter().any(|log| beside(&former, log).exists()) {
        former = beside(&former, "-again");
    }
    former
}

/// Gives a file a second name, or a copy of it where the file system has no links.
fn name_also(file: &Path, former: &Path) -> Result<()> {
    if fs::hard_link(file, former).is_ok() {
        return Ok(());
    }
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(former).map_err(unavailable)?;
    let copied = copy_bytes(file, &mut copy, &mut |_| true);
    if copied.is_err() {
        // A part of a database is nobody's former one.
        let _ = fs::remove_file(former);
    }
    copied
}

/// Moves all that is in the log into the file, and the file out of the mode that has one, which fails as long as
/// another process has it open.
fn empty_log(file: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(OTHERS_LIMIT)?;
    connection.execute_batch("PRAGMA synchronous = FULL;")?;
    let mode: String = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    if mode != "delete" {
        return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None));
    }
    connection.close().map_err(|(_, error)| error)
}
