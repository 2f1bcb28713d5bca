//! How often the server waits for the disk: counted by strace, in a run of its own, as tracing costs time.

use super::deliver::HOOK;
use super::progress;
use super::report::{Report, count};
use super::server::Sandbox;
use super::stage::{Stage, words};
use std::path::Path;
use tokio::process::Command;

/// The traced run takes no longer.
const LONGEST_SECONDS: f64 = 15.0;

/// Counts, or says why not.
pub async fn report(recipients: u64, events: u64, tls: bool, report: &mut Report) {
    match per_event(recipients, events, tls).await {
        Ok(found) => report.fsyncs_per_event = Some(found),
        Err(why) => {
            progress(&format!("fsyncs were not counted: {why}"));
            report.fsyncs_note = Some(format!("not counted: {why}"));
        }
    }
}

async fn per_event(recipients: u64, events: u64, tls: bool) -> Result<f64, String> {
    let there = Command::new("strace").arg("-V").output().await.is_ok_and(|output| output.status.success());
    if !there {
        return Err("strace is not installed".to_owned());
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let trace = folder.path().join("trace");
    // As a grandchild (-D), so that the server stays the bench's own child; with a filter in the kernel, so that only
    // the calls that count are stopped at.
    let mut tracer = words("strace -D -f --seccomp-bpf -qq -e signal=none -e trace=fsync,fdatasync,sync_file_range -o");
    tracer.push(trace.display().to_string());
    let stage = Stage::set_under(&tracer, tls).await?;
    let target = stage.server.make_one(Sandbox::new(HOOK, HOOK, stage.endpoint.url("hook/0"))).await?;
    let before = calls(&trace)?;
    let run = stage.at_full_speed(&[target], recipients, events, LONGEST_SECONDS).await?;
    run.check(HOOK)?;
    Ok(count(calls(&trace)?.saturating_sub(before)) / count(run.seen.group(HOOK).events))
}

/// The calls so far: a line each, two where another thread's came between.
fn calls(trace: &Path) -> Result<u64, String> {
    let text = std::fs::read_to_string(trace).map_err(|_| "strace may not trace here".to_owned())?;
    let begun = |line: &&str| line.contains("sync") && line.contains('(') && !line.contains("resumed>");
    Ok(text.lines().filter(begun).count() as u64)
}
