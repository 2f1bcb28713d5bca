//! Feedback events as they are recorded: the stream of the API, followed by `esito tail`.

use crate::support::world::{World, execution, simulate};
use crate::support::{esito, must};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout};
use tokio::sync::oneshot;

/// `esito tail` at work.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(world: &World, base: &str, words: &[&str]) -> Self {
        Self::start_with(base, &world.server.key, words)
    }

    fn start_with(base: &str, key: &str, words: &[&str]) -> Self {
        let mut command = esito();
        command.args(["tail", "--url", base, "--org", "default@EsitoOrg"]).args(words).env("ESITO_API_KEY", key);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn next(&mut self) -> String {
        must("a line of esito tail", self.lines.next_line()).await.unwrap().expect("esito tail goes on")
    }

    /// Its exit code, and what it told.
    async fn end(mut self) -> (i32, String) {
        let status = must("esito tail to end", self.child.wait()).await.unwrap();
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).await.unwrap();
        (status.code().unwrap(), told)
    }
}

/// Where each connection is led on to the server, the first one until so many lines have come from one with this text on;
/// and when that one has ended.
async fn unreliable(world: &World, text: &'static str, lines: usize) -> (String, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = world.server.base.strip_prefix("http://").unwrap().to_owned();
    let (broken, is_broken) = oneshot::channel();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        lead(client, &server, Some((text, lines))).await;
        broken.send(()).ok();
        while let Ok((client, _)) = listener.accept().await {
            lead(client, &server, None).await;
        }
    });
    (base, is_broken)
}

async fn lead(client: TcpStream, server: &str, bound: Option<(&str, usize)>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = TcpStream::connect(server).await.unwrap().into_split();
    let mut from_server = BufReader::new(from_server);
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let (mut line, mut seen) = (Vec::new(), 0);
    while from_server.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        if to_client.write_all(&line).await.is_err() {
            break;
        }
        if let Some((text, lines)) = bound {
            seen += usize::from(seen > 0 || String::from_utf8_lossy(&line).contains(text));
            if seen == lines {
                break;
            }
        }
        line.clear();
    }
    up.abort();
}

fn addresses(from: usize, count: usize) -> Vec<String> {
    (from..from + count).map(|n| format!("sent+{n}@simulator.esito.test")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_goes_on_where_it_was() {
    let world = World::start().await;
    // Broken within an event.
    let (base, _) = unreliable(&world, "event: feedback", 22).await;
    let mut tail = Tail::start(&world, &base, &["--after", "0", "--json", "--count", "60"]);
    simulate(&world.caller, &addresses(0, 40)).await;
    let mut seen = Vec::new();
    for _ in 0..40 {
        seen.push(tail.next().await);
    }
    simulate(&world.caller, &addresses(40, 20)).await;
    for _ in 0..20 {
        seen.push(tail.next().await);
    }
    let (code, told) = tail.end().await;
    assert_eq!(code, 0, "{told}");
    assert_eq!(told.matches("trying again").count(), 1, "{told}");
    let places: Vec<i64> =
        seen.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_i64().unwrap()).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "none twice, in order: {places:?}");
    let feed = world.caller.get("/v1/feedback-events?after=0&limit=200").await.expect(200);
    let expected: Vec<i64> =
        feed["items"].as_array().unwrap().iter().map(|event| event["sequence"].as_i64().unwrap()).collect();
    assert_eq!(places, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_before_anything_came_misses_nothing() {
    let world = World::start().await;
    simulate(&world.caller, &addresses(0, 1)).await;
    let newest = || async {
        let list = world.caller.get("/v1/feedback-events?limit=1").await.expect(200);
        list["items"][0]["sequence"].as_i64()
    };
    crate::support::until("the event before", newest).await;
    let (base, broken) = unreliable(&world, "the feed follows", 2).await;
    let mut tail = Tail::start(&world, &base, &["--count", "2"]);
    must("the connection to break", broken).await.unwrap();
    simulate(&world.caller, &addresses(1, 2)).await;
    // Between messages no order is promised. What came before is not told.
    let mut told = [tail.next().await, tail.next().await];
    told.sort_by_key(|line| line.contains("sent+2@"));
    assert!(told[0].contains("sent+1@") && told[1].contains("sent+2@"), "{told:?}");
    assert_eq!(tail.end().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_from_now_on_is_told_in_a_line_each() {
    let world = World::start().await;
    simulate(&world.caller, &addresses(0, 1)).await;
    let newest = || async {
        let list = world.caller.get("/v1/feedback-events?limit=1").await.expect(200);
        list["items"][0]["sequence"].as_i64()
    };
    let place = crate::support::until("the event before", newest).await.to_string();
    let mut tail = Tail::start(&world, &world.server.base, &["--after", &place, "--status", "bounce", "--count", "1"]);
    let campaign = world.simulated_campaign().await;
    let to = ["sent+1@simulator.esito.test", "bounce@simulator.esito.test"];
    world.caller.post("/ajo/im/executions/unitary", &execution("r-77", &campaign, &to)).await.expect(202);
    let line = tail.next().await;
    assert!(line.contains("bounce     bounce@simulator.esito.test  r-77  "), "{line}");
    assert_eq!(tail.end().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_nobody_elses_and_ends_with_its_key() {
    let world = World::start().await;
    let key = async |body: Value| {
        let made = world.caller.post("/v1/api-keys", &body).await.expect(201);
        (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
    };
    let (id, sender) = key(json!({"imsOrg": "default@EsitoOrg", "role": "sender", "name": "shop"})).await;
    let mut tail = Tail::start_with(&world.server.base, &sender, &["--after", "0"]);
    let campaign = world.simulated_campaign().await;
    let unitary = "/ajo/im/executions/unitary";
    let others = execution("r-other", &campaign, &["sent+1@simulator.esito.test"]);
    world.caller.post(unitary, &others).await.expect(202);
    let own = execution("r-own", &campaign, &["sent+2@simulator.esito.test"]);
    world.caller.with_key(&sender).post(unitary, &own).await.expect(202);
    assert!(tail.next().await.contains("  r-own"));
    assert_eq!(world.caller.delete(&format!("/v1/api-keys/{id}")).await.status, 204);
    let (code, told) = tail.end().await;
    assert!(code == 1 && told.contains("the API key was revoked"), "{told}");
}

/// A stream of the API, line by line.
struct Stream(Lines<BufReader<TcpStream>>);

impl Stream {
    async fn open(world: &World, query: &str) -> Self {
        Self::open_with(world, &world.server.key, query).await
    }

    async fn open_with(world: &World, key: &str, query: &str) -> Self {
        let base = world.server.base.strip_prefix("http://").unwrap();
        let mut socket = TcpStream::connect(base).await.unwrap();
        let request = format!(
            "GET /v1/feedback-events/stream{query} HTTP/1.1\r\nhost: {base}\r\nauthorization: Bearer {key}\r\n\
             x-gw-ims-org-id: default@EsitoOrg\r\nx-sandbox-name: prod\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(socket).lines())
    }

    /// The next line that begins so, without its beginning.
    async fn next(&mut self, start: &str) -> String {
        loop {
            let line = must("a line of the stream", self.0.next_line()).await.unwrap().expect("the stream goes on");
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_read_it_all_is_shown_the_newest() {
    let world = World::start().await;
    simulate(&world.caller, &addresses(0, 300)).await;
    let places = async || {
        let feed = world.caller.get("/v1/feedback-events?after=0&limit=200").await.expect(200);
        let next = feed["nextCursor"].as_str().unwrap();
        let rest = world.caller.get(&format!("/v1/feedback-events?after={next}&limit=200")).await.expect(200);
        let items = [&feed, &rest].into_iter().flat_map(|page| page["items"].as_array().unwrap().clone());
        let places: Vec<String> = items.map(|event| event["sequence"].to_string()).collect();
        (places.len() == 300).then_some(places)
    };
    let places = crate::support::until("all events", places).await;
    // From now on, unless it is asked otherwise.
    assert_eq!(Stream::open(&world, "").await.next("id: ").await, *places.last().unwrap());
    let mut stream = Stream::open(&world, "?after=0&latest=true&status=sent").await;
    assert_eq!(stream.next("id: ").await, "0");
    assert_eq!(stream.next("event: ").await, "skipped");
    assert_eq!(serde_json::from_str::<Value>(&stream.next("data: ").await).unwrap()["after"], 0);
    for place in &places[250..] {
        assert_eq!(stream.next("id: ").await, *place);
    }
    // And then what comes.
    simulate(&world.caller, &addresses(300, 1)).await;
    assert_eq!(stream.next("event: ").await, "feedback");
    assert!(stream.next("data: ").await.contains("sent+300@simulator.esito.test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_and_end_with_the_server() {
    let mut world = World::start().await;
    let mut streams = Vec::new();
    let mut keys = Vec::new();
    for n in 0..6 {
        let key =
            world.caller.post("/v1/api-keys", &json!({"role": "viewer", "name": format!("{n}")})).await.expect(201);
        keys.push(key["key"].as_str().unwrap().to_owned());
    }
    let status = async |stream: &mut Stream| stream.next("HTTP/1.1 ").await[..3].to_owned();
    for key in &keys[..5] {
        for _ in 0..20 {
            let mut stream = Stream::open_with(&world, key, "").await;
            assert_eq!(status(&mut stream).await, "200");
            streams.push(stream);
        }
        assert_eq!(status(&mut Stream::open_with(&world, key, "").await).await, "429", "20 for each key");
    }
    assert_eq!(status(&mut Stream::open_with(&world, &keys[5], "").await).await, "429", "100 for all");
    // A place is free once the server has noticed that its reader is gone, at the next event at the latest.
    streams.truncate(50);
    simulate(&world.caller, &addresses(0, 2)).await;
    let again = || async {
        let status = Stream::open_with(&world, &keys[5], "").await.next("HTTP/1.1 ").await;
        status.starts_with("200").then_some(())
    };
    crate::support::until("a free place", again).await;
    assert!(world.server.stop().await.success(), "open streams do not keep the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_told_at_once() {
    let world = World::start().await;
    for (words, why) in [
        (vec!["--status", "gone"], "$query.status"),
        (vec!["--sandbox", "none"], "no sandbox of the name"),
        (vec!["--channel", "fax"], "$query.channel"),
    ] {
        let (code, told) = Tail::start(&world, &world.server.base, &words).end().await;
        assert!(code == 1 && told.contains(why), "{told}");
    }
    for body in
        [json!({"imsOrg": "other@EsitoOrg", "role": "admin"}), json!({"role": "viewer", "sandboxes": ["stage"]})]
    {
        let name = json!({"id": "other@EsitoOrg", "name": "other"});
        world.caller.post("/v1/organizations", &name).await;
        world.caller.post("/v1/sandboxes", &json!({"name": "stage"})).await;
        let mut body = body;
        body["name"] = json!("other");
        let key = world.caller.post("/v1/api-keys", &body).await.expect(201)["key"].as_str().unwrap().to_owned();
        let (code, told) = Tail::start_with(&world.server.base, &key, &["--after", "0"]).end().await;
        assert!(code == 1 && told.contains("403"), "{told}");
    }
    let answer = world.caller.get("/v1/feedback-events/stream?after=x").await.expect(400);
    assert_eq!(answer["report"]["additionalContext"]["faults"][0]["path"], "$query.after");
}
