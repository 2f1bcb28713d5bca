//! Tools that others made, to check the bare client against: wrk, else h2load.

use super::ledger::Sample;
use serde_json::Value;
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::process::Command;

/// Headers that the tools set themselves.
const THEIR_OWN: [&str; 2] = ["host", "content-length"];

/// Posts the sample for some seconds; the tool's name and the requests a second that it tells. None: no tool is there.
pub async fn measure(
    folder: &Path,
    url: &str,
    sample: &Sample,
    connections: u32,
    seconds: u32,
) -> Result<Option<(&'static str, f64)>, String> {
    let script = folder.join("post.lua");
    std::fs::write(&script, lua(sample)).map_err(|error| error.to_string())?;
    let mut wrk = Command::new("wrk");
    wrk.args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "-s"]).arg(&script).arg(url);
    if let Some(output) = run(wrk).await? {
        let found = number_after(&output, "Requests/sec:").ok_or_else(|| format!("wrk told no rate: {output}"))?;
        return Ok(Some(("wrk", found)));
    }
    let body = folder.join("body");
    std::fs::write(&body, &sample.body).map_err(|error| error.to_string())?;
    let mut h2load = Command::new("h2load");
    h2load.args(["--h1", "-t", "1", "-c", &connections.to_string(), "-D", &seconds.to_string(), "-d"]).arg(&body);
    for (name, value) in theirs(sample) {
        h2load.args(["-H", &format!("{name}: {value}")]);
    }
    h2load.arg(url);
    let Some(output) = run(h2load).await? else { return Ok(None) };
    let found = number_before(&output, " req/s").ok_or_else(|| format!("h2load told no rate: {output}"))?;
    Ok(Some(("h2load", found)))
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
