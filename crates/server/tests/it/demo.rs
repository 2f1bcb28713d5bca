//! `esito demo`, run as a process with nothing configured.

use crate::support::must;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The demo, with a folder of its own for the temporary ones.
struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    temporary: TempDir,
}

impl Demo {
    /// Runs it among settings that are no business of its own.
    fn start(arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_esito"));
        command.arg("demo").args(arguments).current_dir(temporary.path()).env("TMPDIR", temporary.path());
        command.env("ESITO_LISTEN", "nowhere").env("ESITO_DATABASE__URL", "nothing");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines, temporary }
    }

    /// The lines up to the first that `last` accepts, that one included.
    async fn lines_to(&mut self, last: impl Fn(&str) -> bool) -> Vec<String> {
        let mut seen = Vec::new();
        must("the demo's lines", async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                seen.push(line);
                if last(seen.last().unwrap()) {
                    return seen;
                }
            }
            panic!("it ended after {seen:#?}")
        })
        .await
    }

    async fn terminate(&self) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    }

    /// What it still printed, its standard error and its exit code.
    async fn end(mut self) -> End {
        let mut stdout = String::new();
        must("the demo to end", async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                stdout.push_str(&line);
                stdout.push('\n');
            }
        })
        .await;
        let output = must("the demo to end", self.child.wait_with_output()).await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        End { stdout, stderr, code: output.status.code(), temporary: self.temporary }
    }
}

struct End {
    stdout: String,
    stderr: String,
    code: Option<i32>,
    temporary: TempDir,
}

impl End {
    /// The lines of the events that came, without times and ids.
    fn events(&self) -> Vec<String> {
        let of_event = |line: &str| {
            let (what, checked) = line.split_once("  signature ")?;
            let mut words: Vec<&str> = what.split_whitespace().skip(2).collect();
            words.pop();
            Some(format!("{}: {checked}", words.join(" ")))
        };
        self.stdout.lines().filter_map(of_event).collect()
    }

    /// Whether nothing is left behind.
    fn left(&self) -> Vec<PathBuf> {
        files(self.temporary.path())
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn once_shows_every_event_verified_and_exits_0() {
    let end = Demo::start(&["--once"]).end().await;
    assert_eq!(end.code, Some(0), "{}{}", end.stdout, end.stderr);
    for part in ["server    http://127.0.0.1:", "receiver  https://127.0.0.1:", "/.well-known/jwks.json", "campaign  "]
    {
        assert!(end.stdout.contains(part), "{part}");
    }
    let accepted: Vec<&str> =
        end.stdout.lines().filter(|line| line.contains("  accepted  demo-") && line.contains("HUMA-")).collect();
    assert_eq!(accepted.len(), 4, "{}", end.stdout);
    let mut events = end.events();
    events.sort_unstable();
    let first = |what: &str, outcome: &str| format!("{outcome} {what}@simulator.esito.test: ✓ jwt ✓  attempt 1");
    let mut expected = vec![
        first("sent", "sent"),
        first("delivered", "sent") + "  answered 503",
        "sent delivered@simulator.esito.test: ✓ jwt ✓  attempt 2".to_owned(),
        first("delivered", "delivered"),
        first("bounce", "bounce sync Hard/10"),
        first("softbounce", "bounce sync Soft/22"),
        first("late-bounce", "sent"),
        first("late-bounce", "bounce async Hard/10"),
        first("error", "error sync Ignored/25"),
        first("exclude", "exclude 050024"),
        first("delay", "delay"),
        first("delay", "sent"),
    ];
    expected.sort_unstable();
    assert_eq!(events, expected, "{}", end.stdout);
    assert!(end.stdout.contains("\n11 of 11 events came, all verified"), "{}", end.stdout);
    assert!(!end.stdout.contains("esito_"), "no key is shown where nobody can use it");
    assert_eq!(end.left(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_forgets_an_event_is_found_out() {
    let end = Demo::start(&["--once", "--drop-one"]).end().await;
    assert_eq!(end.code, Some(1), "{}{}", end.stdout, end.stderr);
    let told = "esito: 10 of 11 events came; not as they had to:\n  missing: error sync Ignored/25 of error@simulator.esito.test, demo-3\n";
    assert!(end.stderr.contains(told), "{}", end.stderr);
    assert_eq!(end.events().len(), 11);
    assert_eq!(end.left(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stays_up_for_whoever_tries_it_until_sigterm() {
    let mut demo = Demo::start(&[]);
    let shown = demo.lines_to(|line| line.starts_with("Further events follow")).await;
    assert!(shown.iter().any(|line| line.starts_with("11 of 11 events came")), "{shown:#?}");
    let folder =
        shown.iter().find_map(|line| line.strip_prefix("folder    ")?.strip_suffix(", removed at the end")).unwrap();
    assert!(Path::new(folder).starts_with(demo.temporary.path()) && Path::new(folder).join("esito.db").exists());
    assert!(shown.iter().any(|line| line.starts_with("curl http://127.0.0.1:")));
    let link = |line: &String| {
        line.split_once("within 15 minutes: http://127.0.0.1:").is_some_and(|end| end.1.contains("/sign-in?once="))
    };
    assert!(shown.iter().any(link), "{shown:#?}");

    let line = shown.iter().find(|line| line.contains(" send --url ")).unwrap();
    let sent = Command::new("sh").arg("-c").arg(line).output().await.unwrap();
    assert!(sent.status.success(), "{line}: {}", String::from_utf8_lossy(&sent.stderr));
    demo.lines_to(|line| line.contains("bounce sync Hard/10") && line.contains("signature ✓ jwt ✓  attempt 1")).await;

    demo.terminate().await;
    let folder = PathBuf::from(folder);
    let end = demo.end().await;
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(!folder.exists());
    assert_eq!(end.left(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_between_ends_it_too() {
    let mut demo = Demo::start(&[]);
    demo.lines_to(|line| line.contains("accepted  demo-1")).await;
    demo.terminate().await;
    let end = demo.end().await;
    assert_eq!(end.code, Some(0), "{}{}", end.stdout, end.stderr);
    assert_eq!(end.left(), Vec::<PathBuf>::new());
}
