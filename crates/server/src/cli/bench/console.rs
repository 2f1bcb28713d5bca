//! `console`: how long the console's pages take with many events in the store, and when a browser first shows something.

use super::super::client::HttpClient;
use super::caller::ORGANIZATION;
use super::deliver::HOOK;
use super::growth::{DAYS, Sought, timed};
use super::open_loop::MOST_RECIPIENTS;
use super::report::{Percentiles, Report};
use super::server::{Sandbox, Server};
use super::stage::{Stage, words};
use super::{Settings, progress};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A page may take this long.
const LIMIT: Duration = Duration::from_secs(30);
/// The browser may take this long for all that it is asked.
const BROWSER_LIMIT: Duration = Duration::from_secs(120);
/// What the browser does.
const SCRIPT: &str = include_str!("paint.mjs");

/// The arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Console {
    /// An empty PostgreSQL database, in place of SQLite
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Measures the first paint too, by Node.js with playwright-core from node_modules in this folder
    #[arg(long, value_name = "FOLDER")]
    browser: Option<PathBuf>,
    /// The browser of --browser
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/chromium")]
    chromium: PathBuf,
    #[command(flatten)]
    pub(super) settings: Settings,
}

impl Console {
    /// Fills a store and visits every page.
    pub async fn measure(&self) -> Result<Report, String> {
        let settings = &self.settings;
        let mut report = Report::new("console", settings.tls);
        let mut stage = Stage::set_on(self.postgres.as_deref(), settings.tls).await?;
        let hook = [stage.server.make_one(Sandbox::new(HOOK, HOOK, stage.endpoint.url("hook/0"))).await?];
        let events = settings.events(1_000, 1_000_000, 1_000_000);
        progress(&format!("filling up to {events} events"));
        let fill = format!("bench age --sandbox {HOOK} --events {events} --days {DAYS}");
        stage.server = stage.server.beside(words(&fill), Duration::from_secs(600)).await?;
        let run = stage
            .at_full_speed(&hook, MOST_RECIPIENTS, settings.size(400, 20_000, 100_000), settings.size(5.0, 10.0, 30.0))
            .await?;
        run.check(HOOK)?;
        progress("visiting every page");
        let visitor = Visitor::sign_in(&stage.server).await?;
        let pages = visitor.visit_all(&stage.server).await?;
        let slowest = pages.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0)).ok_or("no pages")?;
        report.add_quietly("present", events);
        report.add_quietly("pages", pages.iter().map(|(path, (_, all))| (path, all)).collect::<BTreeMap<_, _>>());
        report.add_number("slowestPageMs", "slowest page, p95 in ms", slowest.1.0, 1);
        report.add("slowestPage", "which", slowest.0, slowest.0.clone());
        report.add("pagesVisited", "pages", pages.len(), format!("{} with {events} events present", pages.len()));
        if let Some(modules) = &self.browser {
            progress("asking a browser");
            let painted = self.paint(modules, &stage.server).await?;
            for (page, label) in [("signIn", "first paint, sign-in"), ("overview", "first paint, overview")] {
                let ms = |quantile: &str| painted[page][quantile].as_f64().unwrap_or_default();
                let bytes = &painted[page]["bytes"];
                let text = format!("p50 {:.0} p95 {:.0} ms, {bytes} bytes transferred", ms("p50"), ms("p95"));
                report.add(page, label, &painted[page], text);
            }
        }
        stage.end(&mut report).await?;
        Ok(report)
    }

    /// When a browser that has nothing in its cache first shows something.
    async fn paint(&self, modules: &Path, server: &Server) -> Result<Value, String> {
        let modules = std::path::absolute(modules).map_err(|error| error.to_string())?;
        let told = json!({"base": server.base(), "key": server.key, "times": self.settings.size(1, 5, 10),
            "overview": place("overview")});
        let mut command = Command::new("node");
        command.args(["--input-type=module", "-"]).arg(modules).arg(&self.chromium);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("node: {error}"))?;
        let mut input = child.stdin.take().ok_or("node has no input")?;
        // Not as an argument, which other users of the machine may read: the key is in it.
        let script = format!("const told = {told};\n{SCRIPT}");
        input.write_all(script.as_bytes()).await.map_err(|error| error.to_string())?;
        drop(input);
        let output = tokio::time::timeout(BROWSER_LIMIT, child.wait_with_output()).await;
        let output = output.map_err(|_| "the browser takes too long")?.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("the browser: {}", String::from_utf8_lossy(&output.stderr)));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("what the browser told: {error}"))
    }
}

/// The path of a page of the bench's sandbox.
fn place(page: &str) -> String {
    format!("/o/{ORGANIZATION}/{HOOK}/{page}")
}

/// Somebody who is signed in.
struct Visitor {
    client: HttpClient,
    base: String,
    cookie: String,
}

impl Visitor {
    async fn sign_in(server: &Server) -> Result<Self, String> {
        let client = HttpClient::new(None)?;
        let form: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("key", &server.key).finish();
        let request = Request::post(format!("{}/sign-in", server.base()))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)));
        let answer = client.open(request.map_err(|error| error.to_string())?, LIMIT).await?;
        let cookie = answer.headers().get(SET_COOKIE).and_then(|value| value.to_str().ok());
        let cookie = cookie.and_then(|value| value.split(';').next()).ok_or("nobody was signed in")?.to_owned();
        Ok(Self { client, base: server.base().to_owned(), cookie })
    }

    async fn visit(&self, path: &str) -> Result<(), String> {
        let request = Request::builder().method(Method::GET).uri(format!("{}{path}", self.base));
        let request = request.header(COOKIE, &self.cookie).body(Full::default());
        let answer = self.client.call(request.map_err(|error| error.to_string())?, LIMIT).await?;
        let is_page = answer.status.is_success() && answer.body.trim_ascii_end().ends_with(b"</html>");
        if is_page { Ok(()) } else { Err(format!("{path}: {}", answer.status)) }
    }

    /// The 95th percentile and all of each page, asked one after the other while nothing else goes on.
    async fn visit_all(&self, server: &Server) -> Result<BTreeMap<String, (f64, Percentiles)>, String> {
        let sought = Sought::of(server).await?;
        let pages = ["live", "campaigns", "webhooks", "channels", "replays", "keys", "audit-log"].map(str::to_owned);
        let windows = ["1h", "24h", "7d"].map(|window| format!("overview?window={window}"));
        let single = [format!("messages/{}", sought.message), format!("executions/{}", sought.execution)];
        let mut paths: Vec<String> = pages.into_iter().chain(windows).chain(single).collect();
        for list in ["executions", "messages", "feedback-events", "deliveries"] {
            let filters = sought.filters(list).into_iter().filter(|filter| !filter.starts_with("after="));
            paths.extend(filters.map(|filter| format!("{list}?{filter}")));
        }
        let mut found = BTreeMap::new();
        for path in paths {
            let timed = timed(async || self.visit(&place(&path)).await).await?;
            found.insert(path, timed);
        }
        Ok(found)
    }
}
