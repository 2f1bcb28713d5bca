//! The console in Debian's Chromium: in both languages, light and dark, wide and narrow, by the rules of accessibility.

use super::{program, project_folder};
use crate::support::receiver::Reply;
use crate::support::relay::MARK;
use crate::support::world::{World, execution};
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The walk has some forty pages, each judged and drawn: longer than this it is stuck.
const LIMIT: Duration = Duration::from_secs(480);

/// A newcomer walks through the console; what the browser saw. `ESITO_SHOTS=<folder>` keeps the pictures.
async fn walk(language: &str, theme: &str, width: u32) {
    let world = World::start().await;
    let from_now_on = Arc::new(AtomicU16::new(200));
    world.receiver.behave(move |got, _| {
        let named = |name: &str| got.headers.get(name).and_then(|status| status.parse::<u16>().ok());
        if let Some(status) = named("x-from-now-on") {
            from_now_on.store(status, Ordering::Relaxed);
            return Reply::status(200);
        }
        match named("x-answer").unwrap_or(from_now_on.load(Ordering::Relaxed)) {
            200 => Reply::status(200),
            status => Reply { body: "maintenance until noon".to_owned(), ..Reply::status(status) },
        }
    });
    // What the lists show beside the webhook that is made.
    let campaign = world.simulated_campaign().await;
    let addresses = ["jane@example.com", "bounce+1@simulator.esito.test", "late-bounce+2@simulator.esito.test"];
    world.caller.post("/ajo/im/executions/unitary", &execution("order-88121", &campaign, &addresses)).await.expect(202);
    let modules = project_folder().join("target/peers-browser");
    assert!(modules.join("node_modules/playwright-core").is_dir(), "playwright-core is missing: run scripts/peers");
    let shots = std::env::var("ESITO_SHOTS").ok();
    // Not in pictures, which are for people.
    if shots.is_none() {
        let mut hostile = execution(MARK, &campaign, &["sent@simulator.esito.test"]);
        hostile["recipients"][0]["userId"] = json!(MARK);
        hostile["recipients"][0]["namespace"] = json!("crm");
        world.caller.post("/ajo/im/executions/unitary", &hostile).await.expect(202);
    }
    let settings = json!({"base": world.server.base, "key": world.server.key, "receiver": world.receiver.url,
        "language": language, "theme": theme, "width": width, "shots": shots});
    let mut command = tokio::process::Command::new(program("node"));
    command.arg(project_folder().join("tests/peers/browser/console.mjs")).arg(modules).arg(program("chromium"));
    command.arg(settings.to_string()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("the browser came to an end").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let told: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stderr));
    let wrong: Vec<&Value> = told
        .iter()
        .filter(|one| ["violation", "consoleError", "pageError"].iter().any(|key| !one[*key].is_null()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(told.iter().any(|one| one["done"] == true), "{said}");
    let first = told.iter().find(|one| one["transferred"].is_u64()).expect("the first load was measured");
    assert!(first["transferred"].as_u64().unwrap() <= 150_000, "{first}");
    assert!(!world.receiver.got().is_empty(), "the test events arrived over TLS");
}

macro_rules! walks {
    ($($name:ident: $language:literal $theme:literal $width:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            walk($language, $theme, $width).await;
        }
    )*};
}

walks! {
    english_on_a_wide_light_screen: "en" "light" 1440;
    english_on_a_wide_dark_screen: "en" "dark" 1440;
    english_on_a_light_phone: "en" "light" 390;
    english_on_a_dark_phone: "en" "dark" 390;
    italian_on_a_wide_light_screen: "it" "light" 1440;
    italian_on_a_wide_dark_screen: "it" "dark" 1440;
    italian_on_a_light_phone: "it" "light" 390;
    italian_on_a_dark_phone: "it" "dark" 390;
}
