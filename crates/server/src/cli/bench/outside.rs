//! Tools that others made, to check the bare client against: wrk, else h2load.

use super::ledger::Sample;
use serde_json::Value;
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::process::Command;

const SCRIPT: &str = "post.lua";
const BODY: &str = "post.body";

/// Headers that the tools set themselves.
const THEIR_OWN: [&str; 2] = ["host", "content-length"];

/// How many threads a tool is run with: it depends on the machine which is quicker.
pub const THREADS: [u32; 2] = [1, 2];

/// Posts the sample for some seconds; the tool's name and the requests a second that it tells. None: no tool is there.
pub async fn measure(
    folder: &Path,
    url: &str,
    sample: &Sample,
    (threads, connections): (u32, u32),
    seconds: u32,
) -> Result<Option<(&'static str, f64)>, String> {
    std::fs::write(folder.join(SCRIPT), lua(sample)).map_err(|error| error.to_string())?;
    std::fs::write(folder.join(BODY), &sample.body).map_err(|error| error.to_string())?;
    let [threads, connections, seconds] = [threads, connections, seconds].map(|number| number.to_string());
    let options = ["-t", &threads, "-c", &connections];
    match wrk(folder, url, &options, &seconds).await? {
        Some(found) => Ok(Some(("wrk", found))),
        None => Ok(h2load(folder, url, &options, &seconds, sample).await?.map(|found| ("h2load", found))),
    }
}

async fn wrk(folder: &Path, url: &str, options: &[&str], seconds: &str) -> Result<Option<f64>, String> {
    let mut command = Command::new("wrk");
    command.args(options).args(["-d", &format!("{seconds}s"), "-s"]).arg(folder.join(SCRIPT)).arg(url);
    let Some(output) = run(command).await? else { return Ok(None) };
    let found = number_after(&output, "Requests/sec:").ok_or_else(|| format!("wrk told no rate: {output}"))?;
    Ok(Some(found))
}

async fn h2load(
    folder: &Path,
    url: &str,
    options: &[&str],
    seconds: &str,
    sample: &Sample,
) -> Result<Option<f64>, String> {
    let mut command = Command::new("h2load");
    command.arg("--h1").args(options).args(["-D", seconds, "-d"]).arg(folder.join(BODY));
    for (name, value) in theirs(sample) {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    command.arg(url);
    let Some(output) = run(command).await? else { return Ok(None) };
    let found = number_before(&output, " req/s").ok_or_else(|| format!("h2load told no rate: {output}"))?;
    Ok(Some(found))
}

fn theirs(sample: &Sample) -> impl Iterator<Item = &(String, String)> {
    sample.headers.iter().filter(|(name, _)| !THEIR_OWN.contains(&name.as_str()))
}

/// A script for wrk. Lua's texts are JSON's as long as neither has escapes beyond quotes and backslashes.
fn lua(sample: &Sample) -> String {
    let text = |text: &str| Value::from(text).to_string();
    let mut script = format!("wrk.method = \"POST\"\nwrk.body = {}\n", text(&sample.body));
    for (name, value) in theirs(sample) {
        script.push_str(&format!("wrk.headers[{}] = {}\n", text(name), text(value)));
    }
    script
}

/// What a tool printed; none where it is not there.
async fn run(mut command: Command) -> Result<Option<String>, String> {
    let output: Output = match command.stdin(Stdio::null()).kill_on_drop(true).output().await {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(Some(printed)) } else { Err(format!("the outside tool failed: {printed}")) }
}

fn number_after(text: &str, name: &str) -> Option<f64> {
    text.split_once(name)?.1.split_whitespace().next()?.parse().ok()
}

fn number_before(text: &str, name: &str) -> Option<f64> {
    text.split_once(name)?.0.rsplit([' ', ',']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_from_what_the_tools_print() {
        assert_eq!(
            number_after("  Latency\nRequests/sec:  51234.56\nTransfer/sec: 1MB", "Requests/sec:"),
            Some(51234.56)
        );
        assert_eq!(number_before("finished in 2.00s, 45678.50 req/s, 1.2MB/s\n", " req/s"), Some(45678.5));
    }

    #[test]
    fn the_script_quotes() {
        let sample =
            Sample { headers: vec![("host".into(), "x".into()), ("a".into(), "b".into())], body: "{\"c\":1}".into() };
        assert_eq!(lua(&sample), "wrk.method = \"POST\"\nwrk.body = \"{\\\"c\\\":1}\"\nwrk.headers[\"a\"] = \"b\"\n");
    }
}
