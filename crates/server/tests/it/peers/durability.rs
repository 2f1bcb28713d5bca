//! The 202 comes after the disk: the system calls of a running server, as strace sees them.
//!
//! For each of many executions, posted one after another, the trace must show in this order: the request is read; the
//! execution is written to SQLite's write-ahead log; an fsync of the log begins and ends well; the 202 is written. The
//! writes are told apart by the execution's own requestId in their bytes, so the fsync of another one does not count.
//!
//! strace writes its lines in the order in which it lets the threads go on, so what one line needs to have happened
//! stands above it.

use super::strace::Tracer;
use crate::support::server::Server;
use crate::support::world::{campaign_through, execution};
use serde_json::json;
use std::collections::HashMap;

const EXECUTIONS: usize = 24;
const TRACED: &str = "trace=read,readv,recvfrom,recvmsg,pwrite64,pwritev,write,writev,sendto,sendmsg,fsync,fdatasync";

/// A system call, with the numbers of the lines at which it began and ended.
#[derive(Debug)]
struct Call {
    thread: String,
    name: String,
    text: String,
    began: usize,
    ended: usize,
}

impl Call {
    /// Whether it reads from, or writes to, a socket or pipe: any but a file of the store.
    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }

    fn on_log(&self) -> bool {
        // `-y` writes the file's name behind its number: fdatasync(9</tmp/x/esito.db-wal>)
        self.text.split(',').next().is_some_and(|first| first.contains("/esito.db-wal>"))
    }

    fn is_sync_of_log(&self) -> bool {
        self.is(&["fsync", "fdatasync"]) && self.on_log() && self.text.ends_with("= 0")
    }
}

/// The calls of a trace by `strace -f -tt`, whose lines are `PID TIME CALL`; calls that another thread's interrupted are
/// put together again.
fn calls(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: HashMap<&str, usize> = HashMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        // The numbers of threads are padded.
        let Some((_, text)) = rest.trim_start().split_once(' ') else { continue };
        if let Some((_, rest)) = text.strip_prefix("<... ").and_then(|resumed| resumed.split_once(" resumed>")) {
            let begun = open.remove(thread).expect("what is resumed has begun");
            calls[begun].text.push_str(rest);
            calls[begun].ended = number;
        } else if let Some((name, arguments)) = text.split_once('(') {
            let (arguments, is_open) = match arguments.strip_suffix(" <unfinished ...>") {
                Some(arguments) => (arguments, true),
                None => (arguments, false),
            };
            if is_open {
                open.insert(thread, calls.len());
            }
            let ended = if is_open { usize::MAX } else { number };
            calls.push(Call {
                thread: thread.to_owned(),
                name: name.to_owned(),
                text: arguments.to_owned(),
                began: number,
                ended,
            });
        }
    }
    calls
}

/// Why the trace does not show that this execution was on disk before it was answered.
fn check(calls: &[Call], request_id: &str) -> Result<(), String> {
    let about = |call: &&Call| call.text.contains(request_id);
    let read = calls.iter().find(|call| about(call) && call.is(&["read", "readv", "recvfrom", "recvmsg"]));
    let read = read.ok_or("the request is never read")?;
    let answers =
        |call: &&Call| call.is(&["write", "writev", "sendto", "sendmsg"]) && call.text.contains("HTTP/1.1 202");
    let answer = calls.iter().find(|call| answers(call) && about(call)).ok_or("no 202 is written")?;
    let logged = |call: &&Call| call.is(&["pwrite64", "pwritev", "write"]) && call.on_log() && call.began > read.ended;
    let write = calls.iter().find(|call| logged(call) && about(call)).ok_or("the log gets nothing of it")?;
    let synced = calls.iter().find(|call| {
        call.is_sync_of_log() && call.thread == write.thread && call.began > write.ended && call.ended < answer.began
    });
    synced
        .map(|_| ())
        .ok_or_else(|| format!("no fsync of the log between lines {} and {}:\n{answer:?}", write.ended, answer.began))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_202_is_written_after_the_fsync_of_the_log() {
    let tracer = Tracer::new(&["-tt", "-y", "-s", "16384", "-e", TRACED]);
    let mut server = Server::start_under(&tracer.prefix(), &[]).await;
    let caller = server.admin();
    let channel = json!({"name": "simulator", "channel": "email", "type": "simulator"});
    let campaign = campaign_through(&caller, &channel).await;
    let ids: Vec<String> = (0..EXECUTIONS).map(|i| format!("durable-{i:04}-execution")).collect();
    for (i, id) in ids.iter().enumerate() {
        let path = ["/ajo/im/executions/unitary", "/ajo/im/executions/highthroughput"][i % 2];
        caller.post(path, &execution(id, &campaign, &["sent@simulator.esito.test"])).await.expect(202);
    }
    assert!(server.stop().await.success());
    let trace = tracer.trace().await;

    let all = calls(&trace);
    for id in &ids {
        if let Err(why) = check(&all, id) {
            panic!("{id}: {why}");
        }
    }
    let syncs = all.iter().filter(|call| call.is_sync_of_log()).count();
    println!(
        "{EXECUTIONS} executions: each 202 after an fsync of its log write; {} calls, {syncs} fsyncs of the log",
        all.len()
    );
    let unsynced: Vec<Call> = calls(&trace).into_iter().filter(|call| !call.is_sync_of_log()).collect();
    let caught = ids.iter().filter(|id| check(&unsynced, id).is_err()).count();
    assert_eq!(caught, EXECUTIONS, "without its fsyncs the same trace must fail");
}

#[test]
fn a_trace_in_the_wrong_order_is_found_out() {
    let read = r#"7     10:00:00.000001 recvfrom(12<socket:[1]>, "POST /ajo {\"requestId\":\"r-1\"}", 8192, 0, NULL, NULL) = 30"#;
    let write = r#"8 10:00:00.000002 pwrite64(9</x/esito.db-wal>, "\1r-1\2", 4096, 56) = 4096"#;
    let begin = "8 10:00:00.000003 fdatasync(9</x/esito.db-wal> <unfinished ...>";
    let end = "8 10:00:00.000004 <... fdatasync resumed>) = 0";
    let answer = r#"7 10:00:00.000005 sendto(12<socket:[1]>, "HTTP/1.1 202 Accepted\r\n\r\n{\"requestId\":\"r-1\"}", 30, 0, NULL, 0) = 30"#;
    let holds = |lines: &[&str]| check(&calls(&lines.join("\n")), "r-1").is_ok();
    assert!(holds(&[read, write, begin, end, answer]));
    assert!(!holds(&[read, write, begin, answer, end]), "answered while the fsync ran");
    assert!(!holds(&[read, begin, end, write, answer]), "the fsync before the write");
    assert!(!holds(&[write, begin, end, read, answer]), "all before the request");
    assert!(
        !holds(&[read, write, begin, &end.replace("= 0", "= -1 EIO (Input/output error)"), answer]),
        "a failed fsync"
    );
    assert!(!holds(&[read, write, &begin.replace("esito.db-wal", "esito.db"), end, answer]), "of another file");
    assert!(!holds(&[read, write, &begin.replace('8', "7"), &end.replace('8', "7"), answer]), "by another thread");
}
