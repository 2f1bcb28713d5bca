//! The console as a browser without scripts sees it: pages, forms, cookies, and what must not work.

mod receivers;
mod settings;

use crate::support::client::{Answer, Caller};
use crate::support::receiver::Reply;
use crate::support::relay::{MARK, Relay};
use crate::support::server::Server;
use crate::support::world::{World, attempts, execution, simulate};
use crate::support::{must, until};
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// A browser: it keeps cookies and sends forms as they are.
pub struct Browser {
    caller: Caller,
    cookies: Vec<(String, String)>,
    language: &'static str,
}

impl Browser {
    fn new(world: &World) -> Self {
        Self::at(world.caller.clone())
    }

    fn at(caller: Caller) -> Self {
        Self { caller, cookies: Vec::new(), language: "en" }
    }

    /// One that has signed in with the world's key.
    pub async fn signed_in(world: &World) -> Self {
        Self::signed_in_with(world, world.caller.key.as_deref().unwrap()).await
    }

    async fn signed_in_with(world: &World, key: &str) -> Self {
        let mut browser = Self::new(world);
        let answer = browser.post("/sign-in", &[("key", key)]).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{}", answer.text());
        browser
    }

    async fn request(&mut self, method: Method, path: &str, extra: &[(&str, &str)], body: String) -> Answer {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut headers = vec![("accept-language", self.language), ("cookie", cookies.as_str())];
        headers.extend_from_slice(extra);
        let answer = self.caller.raw(method, path, &headers, body).await.unwrap();
        for set in answer.headers.get_all("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.retain(|cookie| cookie.0 != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], String::new()).await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let form = encoded(fields);
        self.request(Method::POST, path, &[("content-type", "application/x-www-form-urlencoded")], form).await
    }

    /// Sends a form of a page, with what the page put into it and `fields` over that.
    async fn submit(&mut self, page: &str, action: &str, fields: &[(&str, &str)]) -> Answer {
        let token = between(page, "name=\"token\" value=\"", "\"").to_owned();
        let mut all = vec![("token", token.as_str())];
        all.extend_from_slice(fields);
        self.post(action, &all).await
    }
}

fn encoded(fields: &[(&str, &str)]) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let text = |text: &str| text.bytes().map(byte).collect::<String>();
    fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect::<Vec<_>>().join("&")
}

#[track_caller]
fn between<'a>(page: &'a str, start: &str, end: &str) -> &'a str {
    let rest = page.split_once(start).unwrap_or_else(|| panic!("no {start} in {page}")).1;
    rest.split_once(end).unwrap().0
}

const WEBHOOKS: &str = "/o/default@EsitoOrg/prod/webhooks";

/// What a visitor fills in for a webhook at `url`.
fn filled_in(url: &str) -> Vec<(&str, &str)> {
    vec![
        ("name", "orders"),
        ("channel", "email"),
        ("url", url),
        ("auth", "jwt"),
        ("algorithm", "ES256"),
        ("issuer", "esito"),
        ("audience", "hooks"),
        ("expires", "120"),
        ("prefix", "Bearer"),
        ("header-name-0", "x-env"),
        ("header-value-0", "test"),
        ("header-name-1", "x-code"),
        ("header-value-1", "hidden-value"),
        ("header-secret-1", "on"),
        ("event", "sent"),
        ("event", "bounce"),
        ("payload", "standard"),
        ("signing", "v1"),
        ("timeout", "5"),
        ("concurrency", "8"),
        ("first-delay", "5"),
        ("max-delay", "60"),
        ("give-up", "3600"),
        ("enabled", "on"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_made_tried_changed_and_deleted() {
    let world = World::start().await;
    let mut browser = Browser::signed_in(&world).await;
    let home = browser.get("/").await;
    assert_eq!(home.header("location"), "/o/default@EsitoOrg/prod/overview");
    let empty = browser.get(WEBHOOKS).await.text();
    assert!(empty.contains("No webhook yet") && empty.contains(&format!("{WEBHOOKS}/new")));
    let form = browser.get(&format!("{WEBHOOKS}/new")).await.text();

    let mut wrong = filled_in("http://localhost/hook");
    wrong.extend([("header-name-2", "host"), ("header-value-2", "x")]);
    wrong[12] = ("timeout", "soon");
    let again = browser.submit(&form, WEBHOOKS, &wrong).await;
    assert_eq!(again.status, 400);
    let again = again.text();
    assert!(
        again.contains("value=\"http://localhost/hook\"") && again.contains("value=\"orders\""),
        "what was typed stays"
    );
    assert!(again.contains("class=\"err\"") && again.contains("aria-invalid"), "{again}");

    let made = browser.submit(&form, WEBHOOKS, &filled_in(&world.receiver.url)).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let page = made.text();
    let secret = between(&page, "id=\"signing-secret\">", "<");
    assert!(secret.starts_with("whsec_"));
    let stored = world.caller.get("/v1/feedback-webhooks").await.expect(200)["items"][0].clone();
    assert_eq!((stored["name"].as_str(), stored["timeoutSeconds"].as_u64()), (Some("orders"), Some(5)));
    assert_eq!(stored["events"], json!(["sent", "bounce"]));
    let headers = json!([{"name": "x-env", "value": "test", "secret": false},
        {"name": "x-code", "value": {"set": true}, "secret": true}]);
    assert_eq!(stored["headers"], headers);
    assert_eq!(stored["authentication"]["expiresInSeconds"], 120);

    let edit = format!("{WEBHOOKS}/{}", stored["id"].as_str().unwrap());
    let shown = browser.get(&edit).await.text();
    assert!(!shown.contains("hidden-value") && !shown.contains(secret), "secrets are written, never read back");
    let tested = browser.submit(&shown, &format!("{edit}/test"), &[]).await.text();
    assert!(tested.contains("The endpoint took the test event"), "{tested}");
    let got = world.receiver.wait_for(1).await;
    assert_eq!(got[0].headers["x-code"], "hidden-value");
    world.receiver.behave(|_, _| Reply::status(503));
    let tested = browser.submit(&shown, &format!("{edit}/test"), &[]).await.text();
    assert!(tested.contains("The endpoint did not take the test event") && tested.contains("503"), "{tested}");

    // A change keeps the secret of the header that nobody typed anew.
    let mut changed = filled_in(&world.receiver.url);
    changed.retain(|field| field.0 != "header-value-1");
    changed.extend([("header-kept-1", "yes"), ("header-value-1", "")]);
    changed[0] = ("name", "orders, renamed");
    let saved = browser.submit(&shown, &edit, &changed).await.text();
    assert!(saved.contains("The changes are stored") && saved.contains("orders, renamed"), "{saved}");
    for (action, state) in [("pause", "Paused"), ("resume", "Active"), ("disable", "Disabled"), ("enable", "Active")] {
        let page = browser.submit(&shown, &format!("{edit}/{action}"), &[]).await.text();
        assert!(page.contains(&format!(">{state}</span>")), "{action}: {page}");
    }
    let second = browser.get(&format!("{WEBHOOKS}/new")).await;
    assert_eq!(second.header("location"), edit, "one webhook for each sandbox");
    let deleted = browser.submit(&shown, &format!("{edit}/delete"), &[]).await;
    assert_eq!((deleted.status, deleted.header("location")), (303, WEBHOOKS));
    assert_eq!(world.caller.get("/v1/feedback-webhooks").await.expect(200)["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_headers_come_and_go_without_scripts() {
    let world = World::start().await;
    let mut browser = Browser::signed_in(&world).await;
    let form = browser.get(&format!("{WEBHOOKS}/new")).await.text();
    let mut fields = filled_in("https://hooks.example.com");
    fields.push(("add", "yes"));
    let page = browser.submit(&form, WEBHOOKS, &fields).await.text();
    assert!(page.contains("name=\"header-name-3\""), "two rows more");
    assert!(page.contains("value=\"x-env\""));
    *fields.last_mut().unwrap() = ("remove", "0");
    let page = browser.submit(&form, WEBHOOKS, &fields).await.text();
    assert!(!page.contains("value=\"x-env\"") && page.contains("value=\"x-code\""));
    assert_eq!(world.caller.get("/v1/feedback-webhooks").await.expect(200)["items"], json!([]), "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_or_changes_more_than_his_key_may() {
    let world = World::start().await;
    world.webhook(json!({})).await;
    let key = async |role: &str| {
        let body = json!({"role": role, "name": role, "imsOrg": "default@EsitoOrg"});
        world.caller.post("/v1/api-keys", &body).await.expect(201)["key"].as_str().unwrap().to_owned()
    };
    let stored = world.caller.get("/v1/feedback-webhooks").await.expect(200)["items"][0].clone();
    let edit = format!("{WEBHOOKS}/{}", stored["id"].as_str().unwrap());

    let mut viewer = Browser::signed_in_with(&world, &key("viewer").await).await;
    let page = viewer.get(&edit).await.text();
    assert!(page.contains("feedback") && !page.contains(">Submit<") && !page.contains("Delete webhook"));
    let refused = viewer.submit(&page, &format!("{edit}/pause"), &[]).await;
    assert_eq!(refused.status, 403);
    let mut sender = Browser::signed_in_with(&world, &key("sender").await).await;
    assert_eq!(sender.get(WEBHOOKS).await.status, 403);
    let mut stranger = Browser::new(&world);
    let sent = stranger.get(WEBHOOKS).await;
    assert_eq!(
        (sent.status, sent.header("location")),
        (303, "/sign-in?next=%2Fo%2Fdefault%40EsitoOrg%2Fprod%2Fwebhooks")
    );
    assert_eq!(stranger.post("/sign-in", &[("key", "esito_wrong")]).await.status, 401);

    // A session ends with its key.
    let operator = world.caller.post("/v1/api-keys", &json!({"role": "operator", "name": "o"})).await.expect(201);
    let mut browser = Browser::signed_in_with(&world, operator["key"].as_str().unwrap()).await;
    assert_eq!(browser.get(WEBHOOKS).await.status, 200);
    let path = format!("/v1/api-keys/{}", operator["id"].as_str().unwrap());
    world.caller.delete(&path).await;
    assert_eq!(browser.get(WEBHOOKS).await.status, 303);
    assert_eq!(unchanged(&world).await, stored);
}

async fn unchanged(world: &World) -> Value {
    world.caller.get("/v1/feedback-webhooks").await.expect(200)["items"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_other_sites_and_frames_do_not_work() {
    let world = World::start().await;
    world.webhook(json!({})).await;
    let stored = unchanged(&world).await;
    let edit = format!("{WEBHOOKS}/{}", stored["id"].as_str().unwrap());
    let mut browser = Browser::signed_in(&world).await;
    let mut other = Browser::signed_in(&world).await;
    let page = browser.get(&edit).await;
    let policy = page.header("content-security-policy").to_owned();
    assert!(
        policy.contains("frame-ancestors 'none'")
            && policy.contains("default-src 'none'")
            && !policy.contains("unsafe")
    );
    assert_eq!(page.header("x-frame-options"), "DENY");
    let page = page.text();
    assert!(!page.contains("style=\"") && !page.contains("<script>") && !page.contains("onclick"));
    for fields in [vec![], vec![("token", "AAAA")]] {
        assert_eq!(browser.post(&format!("{edit}/delete"), &fields).await.status, 403);
    }
    assert_eq!(other.submit(&page, &format!("{edit}/delete"), &[]).await.status, 403, "another session's token");
    let token = between(&page, "name=\"token\" value=\"", "\"");
    let form = encoded(&[("token", token)]);
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "cross-site")];
    let crossed = browser.request(Method::POST, &format!("{edit}/delete"), &headers, form).await;
    assert_eq!(crossed.status, 403);
    assert_eq!(unchanged(&world).await, stored);
    let form = encoded(&[("key", world.caller.key.as_deref().unwrap())]);
    let signed_in = Browser::new(&world).request(Method::POST, "/sign-in", &headers, form).await;
    assert_eq!(signed_in.status, 401, "nobody is signed in by another site");
    let led = browser.post("/preferences", &[("back", "//evil.example"), ("theme", "dark")]).await;
    assert_eq!(led.header("location"), "/");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_stays_text_on_every_page() {
    let world = World::start().await;
    let caller = &world.caller;
    world.receiver.behave(|_, _| Reply { body: MARK.to_owned(), ..Reply::status(500) });
    world
        .webhook(json!({"name": MARK, "headers": [{"name": "x-mark", "value": MARK}],
            "authentication": {"type": "jwt", "algorithm": "HS256", "secret": "0123456789abcdef0123456789abcdef", "issuer": MARK,
                "audience": MARK, "claims": {MARK: MARK}}}))
        .await;
    let relay = Relay::start().await;
    let channel = json!({"name": MARK, "channel": "email", "type": "smtp",
        "smtp": {"host": "127.0.0.1", "port": relay.port, "tls": "none"}, "from": {"name": MARK, "address": "a@acme.example"}});
    let channel = caller.post("/v1/channel-configurations", &channel).await.expect(201)["id"].clone();
    let campaign = json!({"name": MARK, "channel": "email", "channelConfigurationId": channel,
        "content": {"subject": MARK, "html": MARK, "text": MARK}, "audience": {"enableWebhooks": true, "identityNamespace": MARK}});
    let campaign = caller.post("/v1/campaigns", &campaign).await.expect(201)["id"].as_str().unwrap().to_owned();
    caller.act(&format!("/v1/campaigns/{campaign}/activate")).await.expect(200);
    caller.post("/v1/api-keys", &json!({"role": "viewer", "name": MARK})).await.expect(201);
    let mut hostile = execution(MARK, &campaign, &["mark-1@example.com"]);
    hostile["recipients"][0]["userId"] = json!(MARK);
    hostile["recipients"][0]["namespace"] = json!(MARK);
    hostile["recipients"][0]["context"] = json!({MARK: MARK});
    caller.post("/ajo/im/executions/unitary", &hostile).await.expect(202);
    attempts(caller, "failing", |count| count == 1).await;

    let mut browser = Browser::signed_in(&world).await;
    let (mut pages, mut shown) = (vec!["/".to_owned(), "/o/default@EsitoOrg/prod/overview".to_owned()], 0);
    let mut at = 0;
    while let Some(path) = pages.get(at).cloned() {
        at += 1;
        let answer = browser.get(&path).await;
        // Files are no pages.
        if !answer.header("content-type").starts_with("text/html") {
            continue;
        }
        let page = answer.text();
        assert!([200, 303].contains(&answer.status), "{path}: {} {page}", answer.status);
        for part in ["<img src=x", "<script>alert", "\" autofocus", "' x=y"] {
            assert!(!page.contains(part), "{path}: {part}");
        }
        shown += page.matches("onerror=alert(1)").count();
        // Wherever a link leads.
        for link in page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().replace("&#38;", "&")) {
            let link = if link.starts_with('?') { format!("{}{link}", path.split('?').next().unwrap()) } else { link };
            if link.starts_with("/o/") && !link.contains("/live/stream") && !pages.contains(&link) {
                pages.push(link);
            }
        }
        assert!(at < 300, "the pages have an end: {pages:?}");
    }
    for page in ["webhooks/", "campaigns/", "channels/", "messages/", "executions/", "audit-log", "keys", "replays/new"]
    {
        assert!(pages.iter().any(|path| path.contains(page)), "{page} was not looked at: {pages:?}");
    }
    assert!(shown > 30, "it is shown, as text: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_speak_the_visitors_language_and_keep_his_choice() {
    let world = World::start().await;
    let mut browser = Browser::signed_in(&world).await;
    browser.language = "it-IT,it;q=0.9";
    let page = browser.get(&format!("{WEBHOOKS}/new")).await.text();
    for text in [
        "lang=\"it\"",
        "Crea webhook feedback",
        "Configurazione di base",
        "Nome webhook",
        "Canali",
        "URL webhook",
        "Nessuna autenticazione",
        "Autenticazione JWT",
        "Parametri intestazione",
        ">Invia<",
        "Impostazioni webhook di feedback",
    ] {
        assert!(page.contains(text), "{text}");
    }
    browser.post("/preferences", &[("language", "en"), ("theme", "dark"), ("back", "/")]).await;
    let page = browser.get(WEBHOOKS).await.text();
    assert!(page.contains("lang=\"en\"") && page.contains("data-theme=\"dark\""));
}

/// The fields that a page says are at fault, and why.
fn faults_of(page: &str) -> Vec<(String, String)> {
    let lines = page.split("<li><code>").skip(1).map(|line| line.split_once("</li>").unwrap().0);
    lines
        .map(|line| line.split_once("</code>: ").unwrap())
        .map(|(path, why)| (path.to_owned(), why.to_owned()))
        .collect()
}

/// Sends a form in both languages: the same fields are at fault, and no Italian is told why in English.
async fn faults_in_italian(browser: &mut Browser, path: &str, fields: &[(&str, &str)], expected: &[(&str, &str)]) {
    browser.language = "en";
    let form = browser.get(&format!("{path}/new")).await.text();
    let english = faults_of(&browser.submit(&form, path, fields).await.text());
    browser.language = "it";
    let page = browser.submit(&form, path, fields).await;
    assert_eq!(page.status, 400);
    let page = page.text();
    let italian = faults_of(&page);
    let paths = |faults: &[(String, String)]| faults.iter().map(|fault| fault.0.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&english), paths(&italian));
    for (english, italian) in english.iter().zip(&italian) {
        assert!(english.1 != italian.1 && !page.contains(&format!(">{}<", english.1)), "{english:?}");
    }
    for (path, why) in expected {
        let found = italian.iter().find(|fault| fault.0 == *path).unwrap_or_else(|| panic!("no {path} in {italian:?}"));
        assert_eq!(found.1.replace("&#39;", "'").replace("&#62;", ">"), *why);
    }
    assert!(page.contains("class=\"err\""), "it is said at the field, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_italian_is_told_in_italian_what_is_wrong_with_a_form() {
    let world = World::start().await;
    let mut browser = Browser::signed_in(&world).await;
    let mut webhook = filled_in("ftp://hooks.example.com/");
    webhook
        .retain(|field| !matches!(field.0, "name" | "channel" | "algorithm" | "expires" | "timeout" | "concurrency"));
    webhook.extend([("name", ""), ("timeout", "99"), ("concurrency", "0"), ("rate", "0"), ("first-delay", "0")]);
    webhook.extend([
        ("header-name-2", "host"),
        ("header-value-2", "x"),
        ("header-name-3", "x y"),
        ("algorithm", "HS256"),
    ]);
    webhook.extend([("expires", "5"), ("issuer", "esito"), ("header", "host"), ("claims", "{\"iss\": 1}")]);
    let expected = [
        ("$.name", "deve avere da 1 a 200 caratteri, senza caratteri di controllo"),
        ("$.channels", "ne è obbligatorio almeno uno"),
        ("$.url", "lo schema dell'URL è `ftp`; usare https"),
        ("$.timeoutSeconds", "deve essere da 1 a 30"),
        ("$.headers[2].name", "host è impostata da Esito o da HTTP stesso; scegliere un altro nome"),
        ("$.authentication.secret", "è obbligatorio per un algoritmo HMAC"),
        ("$.authentication.expiresInSeconds", "deve essere da 10 a 86400"),
    ];
    faults_in_italian(&mut browser, WEBHOOKS, &webhook, &expected).await;

    let mut slow = filled_in(&world.receiver.url);
    slow.retain(|field| field.0 != "timeout");
    slow.push(("timeout", "soon"));
    let why = "deve essere un numero intero non negativo, entro i limiti, non un testo";
    faults_in_italian(&mut browser, WEBHOOKS, &slow, &[("$.timeoutSeconds", why)]).await;
    let of_json = [("$.authentication.claims", "fine inattesa in un oggetto alla riga 1, colonna 1")];
    faults_in_italian(&mut browser, WEBHOOKS, &[("auth", "jwt"), ("claims", "{")], &of_json).await;
    let mut keyed = filled_in(&world.receiver.url);
    keyed.push(("private-key", "hunter2"));
    let why = "la chiave privata non è in formato PEM; incollarla intera, da `-----BEGIN … PRIVATE KEY-----` alla riga finale";
    faults_in_italian(&mut browser, WEBHOOKS, &keyed, &[("$.authentication.privateKey", why)]).await;
    let mut asking = filled_in(&world.receiver.url);
    asking.retain(|field| !matches!(field.0, "auth" | "algorithm" | "issuer" | "audience"));
    asking.extend([("auth", "oauth2"), ("method", "jwt_bearer")]);
    let expected = [
        ("$.authentication.tokenUrl", "è obbligatorio: dove si richiedono i token"),
        ("$.authentication.clientId", "è obbligatorio: da 1 a 1024 byte, senza caratteri di controllo"),
    ];
    faults_in_italian(&mut browser, WEBHOOKS, &asking, &expected).await;

    let channel = [
        ("name", ""),
        ("channel", "sms"),
        ("type", "smtp"),
        ("host", "a b"),
        ("port", "0"),
        ("tls", "none"),
        ("from-address", "nobody"),
        ("username", "u"),
        ("rate", "0"),
        ("retry-hours", "99"),
        ("connections", "0"),
    ];
    let expected = [
        ("$.channel", "il tipo smtp invia solo e-mail"),
        ("$.smtp.host", "deve essere il nome di un host o un indirizzo IP"),
        ("$.smtp.password", "nome utente e password vanno insieme: impostarli entrambi o nessuno dei due"),
        ("$.from.address", "deve essere un indirizzo e-mail, come ordini@example.com"),
    ];
    faults_in_italian(&mut browser, &format!("{PROD}/channels"), &channel, &expected).await;

    let channels = format!("{PROD}/channels");
    let form = browser.get(&format!("{channels}/new")).await.text();
    let made = [("name", "c"), ("channel", "email"), ("type", "simulator")];
    assert_eq!(browser.submit(&form, &channels, &made).await.status, 303);
    let id = world.caller.get("/v1/channel-configurations").await.expect(200)["items"][0]["id"].clone();
    let campaigns = format!("{PROD}/campaigns");
    let campaign = [
        ("name", ""),
        ("channel", id.as_str().unwrap()),
        ("start", "2026-02-01T00:00:00Z"),
        ("end", "2026-01-01T00:00:00Z"),
        ("namespace", "email"),
    ];
    let expected = [
        ("$.content.subject", "è obbligatorio per l'e-mail"),
        ("$.content.html", "per l'e-mail è obbligatorio html o text"),
        ("$.schedule.endAt", "deve essere successivo a startAt"),
    ];
    faults_in_italian(&mut browser, &campaigns, &campaign, &expected).await;
    let when = [("name", "c"), ("channel", id.as_str().unwrap()), ("start", "soon")];
    let why = "deve essere una data con ora RFC 3339, come 2026-01-31T12:00:00Z";
    faults_in_italian(&mut browser, &campaigns, &when, &[("$.schedule.startAt", why)]).await;
    let template = [
        ("name", "c"),
        ("channel", id.as_str().unwrap()),
        ("subject", "s"),
        ("html", "{{#each}}{{/each}}"),
        ("text", "{{> x}}"),
        ("preview", "yes"),
    ];
    let expected = [
        ("$.content.html", "riga 1, colonna 1: #each richiede un argomento, qui ce ne sono 0"),
        (
            "$.content.text",
            "riga 1, colonna 1: i modelli parziali ({{> …}}) non sono supportati; scrivere qui il contenuto",
        ),
    ];
    faults_in_italian(&mut browser, &campaigns, &template, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_italian_is_told_in_italian_what_the_api_refuses_and_why_an_endpoint_fails() {
    let world = World::start().await;
    let webhook = world.webhook(json!({})).await;
    world.receiver.behave(|_, _| Reply::status(503));
    simulate(&world.caller, &["sent+1@simulator.esito.test".to_owned()]).await;
    let mut browser = Browser::signed_in(&world).await;
    browser.language = "it";
    let says = |page: Answer, text: &str| {
        let page = page.text().replace("&#39;", "'").replace("&#34;", "\"");
        assert!(page.contains(text), "no {text} in {page}");
    };
    says(browser.get(&format!("{WEBHOOKS}/x")).await, "deve essere un UUID");
    let none = "00000000-0000-7000-8000-000000000000";
    says(browser.get(&format!("{WEBHOOKS}/{none}")).await, "qui non c'è un webhook di feedback con questo id");
    says(
        browser.get(&format!("{PROD}/messages?from=soon")).await,
        "$query.from: deve essere una data con ora RFC 3339",
    );
    let channels = world.caller.get("/v1/channel-configurations").await.expect(200);
    let channel = format!("{PROD}/channels/{}", channels["items"][0]["id"].as_str().unwrap());
    let page = browser.get(&channel).await.text();
    says(browser.submit(&page, &format!("{channel}/delete"), &[]).await, "una campagna usa la configurazione canale");

    let edit = format!("{WEBHOOKS}/{}", webhook["id"].as_str().unwrap());
    let tested = browser.submit(&page, &format!("{edit}/test"), &[]).await.text();
    assert!(tested.contains("l&#39;endpoint ha risposto 503 Service Unavailable"), "{tested}");
    let fails = async || {
        let listed = world.caller.get("/v1/feedback-webhooks").await.expect(200);
        (listed["items"][0]["state"] == "failing").then_some(())
    };
    until("the webhook to fail", fails).await;
    for path in [WEBHOOKS, &edit, &format!("{PROD}/overview")] {
        says(browser.get(path).await, "l'endpoint ha risposto 503 Service Unavailable");
    }
    let list = browser.get(&format!("{PROD}/messages")).await.text();
    let message = format!("{PROD}/messages/{}", between(&list, &format!("href=\"{PROD}/messages/"), "\""));
    says(
        browser.get(&message).await,
        "<span class=\"c-bad\">Stato</span><span class=\"sub\">l'endpoint ha risposto 503",
    );
    says(browser.submit(&page, &format!("{edit}/pause"), &[]).await, "messo in pausa a mano");
    says(browser.submit(&page, &format!("{edit}/disable"), &[]).await, "disattivato dall'impostazione enabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_that_serve_prints_signs_in_once() {
    let server = Server::start_by_hand().await;
    let link = server.console_link();
    let path = link.strip_prefix(&server.base).unwrap();
    let mut browser = Browser::at(server.admin());
    for _ in 0..2 {
        assert_eq!(browser.get(path).await.status, 200, "looking at it uses nothing up");
    }
    let once = path.split_once("once=").unwrap().1;
    assert_eq!(browser.post("/sign-in", &[("once", once)]).await.status, 303);
    assert_eq!(browser.get(WEBHOOKS).await.status, 200);
    assert_eq!(Browser::at(server.admin()).post("/sign-in", &[("once", once)]).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_visit_is_small_and_its_parts_are_kept() {
    let world = World::start().await;
    let mut browser = Browser::signed_in(&world).await;
    let page = browser.get(WEBHOOKS).await.text();
    let mut total = page.len();
    let assets: Vec<&str> = page.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert!(assets.len() >= 3);
    for asset in assets {
        let answer = browser.get(asset).await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("cache-control").contains("immutable"));
        total += answer.body.len();
    }
    assert!(total <= 150_000, "{total} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_reached_however_many_there_are() {
    let world = World::start().await;
    for n in 0..201 {
        world.caller.post("/v1/sandboxes", &json!({"name": format!("s-{n:03}")})).await.expect(201);
    }
    let mut browser = Browser::signed_in(&world).await;
    for name in ["prod", "s-000", "s-200"] {
        let page = browser.get(&format!("/o/default@EsitoOrg/{name}/webhooks")).await;
        assert_eq!(page.status, 200, "{name}");
    }
    assert_eq!(browser.get("/o/default@EsitoOrg/s-201/webhooks").await.status, 404);
    assert_eq!(browser.get("/o/other@EsitoOrg/prod/webhooks").await.status, 404);
}

const PROD: &str = "/o/default@EsitoOrg/prod";

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_act_in_other_organizations_is_led_there() {
    let world = World::start().await;
    world.caller.post("/v1/organizations", &json!({"id": "acme@EsitoOrg", "name": "Acme"})).await.expect(201);
    world.caller.post("/v1/sandboxes", &json!({"imsOrg": "acme@EsitoOrg", "name": "stage"})).await.expect(201);
    let mut browser = Browser::signed_in(&world).await;
    let page = browser.get(WEBHOOKS).await.text();
    assert!(page.contains("href=\"/o/acme@EsitoOrg\"") && !page.contains("href=\"/o/default@EsitoOrg\""), "{page}");
    let led = browser.get("/o/acme@EsitoOrg").await;
    assert_eq!(led.header("location"), "/o/acme@EsitoOrg/stage/overview");
    assert_eq!(browser.get(led.header("location")).await.status, 200);
    let key = json!({"imsOrg": "acme@EsitoOrg", "role": "admin", "name": "a"});
    let key = world.caller.post("/v1/api-keys", &key).await.expect(201)["key"].as_str().unwrap().to_owned();
    let mut other = Browser::signed_in_with(&world, &key).await;
    let page = other.get("/o/acme@EsitoOrg/stage/webhooks").await.text();
    assert!(!page.contains("default@EsitoOrg"), "{page}");
    assert_eq!(other.get("/o/default@EsitoOrg").await.status, 403);
}

/// The events of a sandbox, once there are so many.
async fn events(caller: &Caller, count: usize) -> Vec<Value> {
    let ask = || async {
        let list = caller.get("/v1/feedback-events?limit=200").await.expect(200);
        let items = list["items"].as_array().unwrap().clone();
        (items.len() >= count).then_some(items)
    };
    until("the events to be recorded", ask).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_is_found_and_shows_what_became_of_each_recipient() {
    let world = World::start().await;
    world.webhook(json!({})).await;
    let mut browser = Browser::signed_in(&world).await;
    let empty = browser.get(&format!("{PROD}/executions")).await.text();
    assert!(empty.contains("No executions yet"), "{empty}");
    let campaign = world.simulated_campaign().await;
    let to = ["sent+1@simulator.esito.test", "bounce+2@simulator.esito.test"];
    for id in ["r-1", "r-2"] {
        world.caller.post("/ajo/im/executions/unitary", &execution(id, &campaign, &to)).await.expect(202);
    }
    events(&world.caller, 4).await;

    let all = browser.get(&format!("{PROD}/executions")).await.text();
    assert!(all.contains(">r-1<") && all.contains(">r-2<") && all.contains(">orders<"), "{all}");
    let found =
        browser.get(&format!("{PROD}/executions?requestId=r-2&campaignId={campaign}&status=bounce")).await.text();
    assert!(!found.contains(">r-1<") && found.contains(">r-2<"), "{found}");
    let none = browser.get(&format!("{PROD}/executions?recipient=nobody@example.com")).await.text();
    assert!(none.contains("Nothing found"));
    let wrong = browser.get(&format!("{PROD}/executions?campaignId=x")).await.text();
    assert!(wrong.contains("role=\"alert\"") && wrong.contains("$query.campaignId"), "{wrong}");

    let link = format!("{PROD}/executions/{}", between(&found, &format!("href=\"{PROD}/executions/"), "\""));
    let page = browser.get(&link).await.text();
    for text in [">r-2<", "orders", "with the key", to[0], to[1], ">Bounced</span>", "To the webhook", "Hard 10 (sync)"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    let message = format!("{PROD}/messages/{}", between(&page, &format!("href=\"{PROD}/messages/"), "\""));
    let story = browser.get(&message).await.text();
    assert!(story.contains(to[0]) && story.contains(&link), "{story}");
    world.caller.in_new_sandbox("other").await;
    assert_eq!(browser.get(&link.replace("/prod/", "/other/")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_events_are_found_with_their_bodies_and_deliveries() {
    let world = World::start().await;
    let mut browser = Browser::signed_in(&world).await;
    let empty = browser.get(&format!("{PROD}/feedback-events")).await.text();
    assert!(empty.contains("No feedback events yet"));
    simulate(&world.caller, &["sent+1@simulator.esito.test".to_owned()]).await;
    events(&world.caller, 1).await;
    let page = browser.get(&format!("{PROD}/feedback-events")).await.text();
    assert!(
        page.contains(">sent+1@simulator.esito.test<") && page.contains("No webhook asked for this event"),
        "{page}"
    );

    world.webhook(json!({})).await;
    simulate(&world.caller, &["bounce+1@simulator.esito.test".to_owned()]).await;
    events(&world.caller, 2).await;
    let page = browser.get(&format!("{PROD}/feedback-events?status=bounce")).await.text();
    assert!(!page.contains(">sent+1@") && page.contains("messageDeliveryFeedback"), "{page}");
    assert!(page.contains(&format!("{PROD}/replays/new?status=bounce")), "what is shown can be replayed");
    let message = format!("{PROD}/messages/{}", between(&page, &format!("href=\"{PROD}/messages/"), "\""));
    assert!(browser.get(&message).await.text().contains("bounce+1@simulator.esito.test"));
}

/// The lines of a CSV file in which no cell has a line break, without the columns' names.
fn rows(file: &str) -> Vec<&str> {
    file.strip_suffix("\r\n").unwrap().split("\r\n").skip(1).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_had_as_files_whole_and_harmless() {
    let world = World::start().await;
    world.webhook(json!({})).await;
    let mut addresses: Vec<String> = (0..239).map(|i| format!("sent+{i}@simulator.esito.test")).collect();
    addresses.push("=cmd()".to_owned());
    simulate(&world.caller, &addresses).await;
    let other = world.caller.in_new_sandbox("other").await;
    simulate(&other, &["sent+elsewhere@simulator.esito.test".to_owned()]).await;
    // The malformed address too has its event: it is excluded.
    let all_told = || async {
        let excluded = world.caller.get("/v1/feedback-events?status=exclude").await.expect(200);
        let queued = world.caller.get("/v1/messages?status=queued&limit=1").await.expect(200);
        let empty = queued["items"] == json!([]) && queued["nextCursor"].is_null();
        (empty && excluded["items"].as_array().unwrap().len() == 1).then_some(())
    };
    until("all to be told", all_told).await;
    events(&other, 1).await;

    let viewer = world.caller.post("/v1/api-keys", &json!({"role": "viewer", "name": "v"})).await.expect(201);
    let mut browser = Browser::signed_in_with(&world, viewer["key"].as_str().unwrap()).await;
    for (list, count) in [("messages", 240), ("feedback-events", 240), ("deliveries", 240), ("executions", 12)] {
        let page = browser.get(&format!("{PROD}/{list}")).await.text();
        assert!(page.contains(&format!("href=\"{PROD}/{list}/export?format=csv\"")), "{page}");
        let csv = browser.get(&format!("{PROD}/{list}/export?format=csv")).await;
        assert_eq!((csv.status, csv.header("content-type")), (200, "text/csv; charset=utf-8; header=present"));
        let disposition = csv.header("content-disposition").to_owned();
        assert!(disposition.starts_with(&format!("attachment; filename=\"esito-{list}-prod-2")), "{disposition}");
        let csv = csv.text();
        assert_eq!(rows(&csv).len(), count, "{list}");
        assert!(!csv.contains("elsewhere") && !csv.contains(",=cmd()"), "{list}");
        assert_eq!(csv.contains(",'=cmd()"), list != "executions", "{list}");

        let ndjson = browser.get(&format!("{PROD}/{list}/export?format=ndjson")).await;
        assert!(ndjson.header("content-disposition").ends_with(".ndjson\""));
        let ndjson = ndjson.text();
        let items: Vec<Value> = ndjson.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let first = &world.caller.get(&format!("/v1/{list}?limit=1")).await.expect(200)["items"][0];
        assert_eq!((items.len(), &items[0]), (count, first), "{list}: the API's items");
    }

    let one = browser.get(&format!("{PROD}/messages/export?format=csv&recipient=%3Dcmd%28%29&status=")).await.text();
    assert_eq!(rows(&one).len(), 1, "the filter holds: {one}");
    let none = browser.get(&format!("{PROD}/messages/export?format=ndjson&from=2099-01-01T00:00")).await;
    assert_eq!((none.status, none.text().as_str()), (200, ""));
    assert_eq!(browser.get(&format!("{PROD}/messages/export?format=csv&campaignId=x")).await.status, 400);
    assert_eq!(browser.get(&format!("{PROD}/messages/export?format=xml")).await.status, 404);
    assert_eq!(Browser::new(&world).get(&format!("{PROD}/messages/export?format=csv")).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_whole_does_not_look_whole() {
    let world = World::start().await;
    many_messages(&world).await;
    let viewer = world.caller.post("/v1/api-keys", &json!({"role": "viewer", "name": "v"})).await.expect(201);
    let browser = Browser::signed_in_with(&world, viewer["key"].as_str().unwrap()).await;
    let mut stream = half_taken(&world, &browser).await;
    // What its key may no longer read does not come.
    world.caller.delete(&format!("/v1/api-keys/{}", viewer["id"].as_str().unwrap())).await;
    let mut rest = Vec::new();
    let ended = must("the file to break off", stream.read_to_end(&mut rest)).await;
    let items = rest.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{")).count();
    assert!((200..MANY).contains(&items), "{items}");
    assert!(ended.is_err() || !rest.ends_with(b"0\r\n\r\n"), "the last chunk is missing (RFC 9112 section 7.1)");
}

const MANY: usize = 2_400;

/// So many messages that a file of them, of some 6 MB, does not fit into sockets (which Linux lets grow to 4 MB).
async fn many_messages(world: &World) {
    let campaign = world.simulated_campaign().await;
    let to = ["sent@simulator.esito.test"; 20];
    for request in 0..MANY / to.len() {
        let mut execution = execution(&format!("r-{request}"), &campaign, &to);
        for (n, recipient) in execution["recipients"].as_array_mut().unwrap().iter_mut().enumerate() {
            // As JSON it is twice as long.
            recipient["userId"] = json!(format!("{}{n}", "\"".repeat(1_000)));
        }
        world.caller.post("/ajo/im/executions/unitary", &execution).await.expect(202);
    }
}

/// An export of all messages, by a client that takes little at a time and has begun.
async fn half_taken(world: &World, browser: &Browser) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let host = world.server.base.strip_prefix("http://").unwrap();
    let mut stream = socket.connect(host.parse().unwrap()).await.unwrap();
    let (name, value) = &browser.cookies[0];
    let asked = format!(
        "GET {PROD}/messages/export?format=ndjson HTTP/1.1\r\nhost: {host}\r\ncookie: {name}={value}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut begun = [0; 15];
    stream.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200 OK");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_few_at_a_time() {
    let world = World::start().await;
    many_messages(&world).await;
    let mut browser = Browser::signed_in(&world).await;
    let mut under_way = Vec::new();
    for _ in 0..4 {
        under_way.push(half_taken(&world, &browser).await);
    }
    let export = format!("{PROD}/deliveries/export?format=csv");
    let refused = browser.get(&export).await;
    assert!(refused.status == 429 && refused.text().contains("Try again in a moment"), "{}", refused.text());
    // One that is given up makes room.
    drop(under_way.pop());
    let room = async {
        while browser.get(&export).await.status == 429 {
            tokio::task::yield_now().await;
        }
    };
    must("room for another", room).await;
    let mut rest = Vec::new();
    must("a file to come whole", under_way[0].read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_made_from_a_list_watched_and_cancelled() {
    let world = World::start().await;
    world.webhook(json!({})).await;
    let mut browser = Browser::signed_in(&world).await;
    assert!(browser.get(&format!("{PROD}/replays")).await.text().contains("No replays yet"));
    let addresses: Vec<String> = (0..5).map(|i| format!("sent+{i}@simulator.esito.test")).collect();
    simulate(&world.caller, &addresses).await;
    let delivered = || async {
        let list = world.caller.get("/v1/deliveries?state=succeeded").await.expect(200);
        (list["items"].as_array().unwrap().len() == 5).then_some(())
    };
    until("all to be delivered", delivered).await;

    let list = browser.get(&format!("{PROD}/deliveries?state=succeeded&from=2026-01-01T00:00")).await.text();
    let query = between(&list, &format!("href=\"{PROD}/replays/new"), "\"").replace("&#38;", "&");
    let waiting = browser.get(&format!("{PROD}/deliveries?state=held")).await.text();
    assert!(!waiting.contains("/replays/new"), "what has not ended is delivered anyway");
    let form = browser.get(&format!("{PROD}/replays/new{query}")).await.text();
    assert!(form.contains("value=\"succeeded\" selected") && form.contains("value=\"2026-01-01T00:00\""), "{form}");

    let new = format!("{PROD}/replays");
    let unfiltered = browser.submit(&form, &new, &[("rate", "1"), ("state", "")]).await;
    assert!(unfiltered.status == 400 && unfiltered.text().contains("tick the box"), "{}", unfiltered.text());
    let wrong = browser.submit(&form, &new, &[("rate", "soon"), ("state", "succeeded"), ("campaignId", "x")]).await;
    assert!(wrong.status == 400 && wrong.text().contains("value=\"soon\""), "what was typed stays");
    let filled_in = [("rate", "1"), ("state", "succeeded"), ("from", "2026-01-01T00:00"), ("recipient", "")];
    let made = browser.submit(&form, &new, &filled_in).await;
    assert_eq!(made.status, 303, "{}", made.text());
    let path = made.header("location").to_owned();
    let stored = world.caller.get("/v1/replays").await.expect(200)["items"][0].clone();
    assert_eq!((&stored["perSecond"], &stored["filter"]["state"]), (&json!(1), &json!("succeeded")));

    world.receiver.behave(|_, _| Reply::status(500));
    let refresh = "http-equiv=\"refresh\"";
    let page = browser.get(&path).await.text();
    assert!(page.contains(refresh) && page.contains("hx-trigger=\"every 2s\""), "{page}");
    assert!(page.contains("<progress") && page.contains(">Running</span>") && page.contains("Cancel the replay"));
    assert!(!browser.get(&format!("{path}?refresh=no")).await.text().contains(refresh));
    let second = browser.submit(&form, &new, &filled_in).await;
    assert!(second.status == 409 && second.text().contains("role=\"alert\""), "one at a time");
    let cancelled = browser.submit(&page, &format!("{path}/cancel"), &[]).await;
    assert_eq!(cancelled.header("location"), path);
    let page = browser.get(&path).await.text();
    assert!(!page.contains(refresh) && !page.contains("hx-trigger"), "it has ended: {page}");
    assert!(page.contains(">Cancelled</span>") && !page.contains("Cancel the replay"), "{page}");
    let all = browser.get(&new).await.text();
    assert!(all.contains(&path) && all.contains("state = succeeded") && all.contains("<progress"), "{all}");

    let viewer = world.caller.post("/v1/api-keys", &json!({"role": "viewer", "name": "v"})).await.expect(201);
    let mut viewer = Browser::signed_in_with(&world, viewer["key"].as_str().unwrap()).await;
    let page = viewer.get(&format!("{PROD}/replays/new")).await.text();
    assert!(!page.contains("Start replay") && !viewer.get(&new).await.text().contains("New replay"));
    assert_eq!(viewer.submit(&page, &new, &filled_in).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_may_be_sent_through_any_channel_configuration() {
    let world = World::start().await;
    let mut last = Value::Null;
    for n in 0..201 {
        let channel = json!({"name": format!("c-{n:03}"), "channel": "sms", "type": "simulator"});
        last = world.caller.post("/v1/channel-configurations", &channel).await.expect(201);
    }
    let mut browser = Browser::signed_in(&world).await;
    let path = format!("{PROD}/campaigns");
    let form = browser.get(&format!("{path}/new")).await.text();
    assert!(form.contains(">c-000 (SMS)<") && form.contains(">c-200 (SMS)<"));
    let id = last["id"].as_str().unwrap();
    let fields = [("name", "codes"), ("channel", id), ("text", "{{context.code}}"), ("namespace", "phone")];
    let made = browser.submit(&form, &path, &fields).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let stored = world.caller.get("/v1/campaigns").await.expect(200)["items"][0].clone();
    assert_eq!((&stored["channel"], &stored["channelConfigurationId"]), (&json!("sms"), &json!(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_leads_the_newcomer_and_tells_figures_that_are_so() {
    let world = World::start().await;
    let mut browser = Browser::signed_in(&world).await;
    let overview = format!("{PROD}/overview");
    let done = |page: &str| page.matches("<li class=\"done\">").count();
    let page = browser.get(&overview).await.text();
    assert!(page.contains("First steps") && done(&page) == 0 && page.contains("Quiet so far"), "{page}");
    let channel = json!({"name": "sim", "channel": "email", "type": "simulator"});
    let channel = world.caller.post("/v1/channel-configurations", &channel).await.expect(201)["id"].clone();
    let draft = json!({"name": "draft", "channel": "email", "channelConfigurationId": channel,
        "content": {"subject": "s", "text": "t"}, "audience": {"enableWebhooks": true}});
    world.caller.post("/v1/campaigns", &draft).await.expect(201);
    assert_eq!(done(&browser.get(&overview).await.text()), 1, "a draft is not enough");
    world.webhook(json!({"retry": {"firstDelaySeconds": 600}})).await;
    world.receiver.behave(|got, _| Reply::status(if got.event_status() == "error" { 500 } else { 200 }));
    let campaign = world.simulated_campaign().await;
    assert_eq!(done(&browser.get(&overview).await.text()), 3);
    // Four are sent, of which one comes back; one bounces at once, one fails, one is left out.
    let to = ["sent+1", "sent+2", "delivered", "late-bounce", "bounce", "error", "exclude"];
    let to = to.map(|name| format!("{name}@simulator.esito.test"));
    world.caller.post("/ajo/im/executions/unitary", &execution("r-1", &campaign, &to)).await.expect(202);
    let settled = || async {
        let told = world.caller.get("/v1/statistics?window=1h").await.expect(200);
        (told["totals"]["attempts"] == json!({"succeeded": 8, "failed": 1})).then_some(())
    };
    until("all attempts", settled).await;
    let page = browser.get(&format!("{overview}?window=1h")).await.text();
    let figure = |name: &str| {
        let rest = between(&page, &format!("<div class=\"figure\"><span>{name}</span>"), "</div>")
            .replace("</b><span>", " | ");
        rest.replace("<b>", "").replace("</span>", "")
    };
    assert_eq!(figure("Messages accepted"), "7 | 1 excluded");
    assert_eq!(figure("Sent without bounce or error"), "50.00 % | 3 bounced or failed");
    assert!(figure("Waiting for the webhook").starts_with("1 | the first one due in "), "{page}");
    assert!(!page.contains("First steps") && !page.contains("Quiet so far") && page.contains("data-chart="));
    world
        .caller
        .act(&format!("/v1/feedback-webhooks/{}/pause", unchanged(&world).await["id"].as_str().unwrap()))
        .await
        .expect(200);
    let page = browser.get(&overview).await.text();
    assert!(page.contains("Needs you") && page.contains(">Paused</span>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_live_before_is_still_shown() {
    let world = World::start().await;
    let campaign = world.simulated_campaign().await;
    let path = format!("/v1/campaigns/{campaign}");
    let first = world.caller.get(&path).await.expect(200);
    let mut second = first.clone();
    second["content"]["subject"] = json!("The second subject");
    second
        .as_object_mut()
        .unwrap()
        .retain(|key, _| ["name", "channel", "channelConfigurationId", "content", "audience"].contains(&key.as_str()));
    world.caller.put(&path, &second).await.expect(200);
    let versions = world.caller.get(&format!("{path}/versions")).await.expect(200);
    assert_eq!(versions["items"].as_array().unwrap().len(), 1, "a draft is none yet");
    world.caller.act(&format!("{path}/activate")).await.expect(200);
    let versions = world.caller.get(&format!("{path}/versions")).await.expect(200);
    let told: Vec<_> = versions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["live"].clone(), one["content"]["subject"].clone()))
        .collect();
    assert_eq!(told, [(json!(true), json!("The second subject")), (json!(false), first["content"]["subject"].clone())]);
    assert_eq!(versions["items"][1]["versionId"], first["versionId"]);
    let mut browser = Browser::signed_in(&world).await;
    let page = browser.get(&format!("{PROD}/campaigns/{campaign}")).await.text();
    let link = format!("{PROD}/campaigns/{campaign}/versions");
    assert!(page.contains(&format!("href=\"{link}\"")), "{page}");
    let page = browser.get(&link).await.text();
    let places = ["The second subject", first["versionId"].as_str().unwrap()].map(|part| page.find(part).expect(part));
    assert!(places[0] < places[1], "the newest first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_previewed_with_a_sample_before_it_is_stored() {
    let world = World::start().await;
    let channel = json!({"name": "sim", "channel": "email", "type": "simulator"});
    let channel = world.caller.post("/v1/channel-configurations", &channel).await.expect(201);
    let mut browser = Browser::signed_in(&world).await;
    let path = format!("{PROD}/campaigns");
    let form = browser.get(&format!("{path}/new")).await.text();
    assert!(form.contains("name=\"sample\"") && form.contains("&#34;context&#34;"), "a sample is there");
    let fields = |html: &'static str, sample: &'static str, strict: bool| {
        let mut fields = vec![("name", "orders"), ("channel", channel["id"].as_str().unwrap())];
        fields.extend([("subject", "Order {{context.order}}"), ("html", html), ("sample", sample), ("preview", "yes")]);
        fields.extend(strict.then_some(("strict", "on")));
        fields
    };
    let html = "<b onclick='x()'>{{context.name}}</b><script>x()</script>{{context.gone}}";
    let sample = r#"{"context": {"order": "A-7", "name": "\"></iframe><script>y()"}}"#;
    let shown = browser.submit(&form, &path, &fields(html, sample, false)).await;
    assert_eq!(shown.status, 200, "{}", shown.text());
    assert!(!shown.header("content-security-policy").contains("unsafe"));
    let page = shown.text();
    assert!(page.contains("<b>Order A-7</b>") && page.contains("value=\"orders\""), "{page}");
    let framed = between(&page, "<iframe class=\"mail\" sandbox title=\"HTML\" srcdoc=\"", "\"></iframe>");
    assert!(framed.contains("&#60;b onclick=") && !framed.contains('<'), "{framed}");
    assert!(!page.contains("<script>x") && !page.contains("<script>y"), "nothing of it is the page's own");

    let strict = browser.submit(&form, &path, &fields(html, sample, true)).await.text();
    assert!(strict.contains("would be excluded") && strict.contains("context.gone") && !strict.contains("<iframe"));
    for (html, sample) in [("{{#if}}", "{}"), ("x", "{"), ("x", r#"{"order": 1}"#)] {
        let wrong = browser.submit(&form, &path, &fields(html, sample, false)).await;
        assert!(wrong.status == 400 && wrong.text().contains("class=\"err\""), "{}", wrong.text());
    }
    assert_eq!(world.caller.get("/v1/campaigns").await.expect(200)["items"], json!([]), "nothing was stored");

    // A campaign that is there is previewed as it is typed, and stays as it is.
    let campaign = world.simulated_campaign().await;
    let edit = format!("{path}/{campaign}");
    let before = world.caller.get(&format!("/v1/campaigns/{campaign}")).await.expect(200);
    let form = browser.get(&edit).await.text();
    let page = browser.submit(&form, &edit, &fields("<i>new</i>", "", false)).await.text();
    assert!(page.contains("srcdoc=\"&#60;i&#62;new&#60;/i&#62;\""), "{page}");
    assert_eq!(world.caller.get(&format!("/v1/campaigns/{campaign}")).await.expect(200), before);
}
