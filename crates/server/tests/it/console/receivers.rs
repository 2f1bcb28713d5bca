//! The code of a receiver: it fits the webhook's settings, has no secrets, and whatever the settings say stays text.
//! That it works is shown in `peers/receiver_code.rs`.

use super::{Browser, PROD, between};
use crate::support::world::World;
use serde_json::json;

const LANGUAGES: [&str; 5] = ["python", "node", "go", "rust", "curl"];

/// What a page shows as a program.
fn program(page: &str) -> String {
    let shown = between(page, "id=\"receiver\" tabindex=\"0\"", "</pre>");
    let shown = shown.split_once('>').unwrap().1;
    let signs = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    signs.iter().fold(shown.to_owned(), |text, (from, to)| text.replace(from, to))
}

impl Browser {
    /// The program in a language, as a visitor copies it from the webhook's page.
    pub async fn receiver(&mut self, webhook: &str, language: &str) -> String {
        let path = format!("{PROD}/webhooks/{webhook}");
        let page = self.get(&path).await.text();
        let link = format!("{path}/receiver");
        assert!(page.contains(&format!("href=\"{link}\"")), "the webhook's page leads to it");
        let page = self.get(&link).await.text();
        let choice = format!("?language={language}");
        assert!(page.contains(&format!("href=\"{choice}\"")), "{page}");
        program(&self.get(&format!("{link}{choice}")).await.text())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_fits_the_settings_and_has_no_secret() {
    let world = World::start().await;
    let secret = "planted-secret-of-the-token-0123456789abcdef";
    let authentication = json!({"type": "jwt", "algorithm": "HS256", "secret": secret, "issuer": "esito", "header": "X-Token", "prefix": ""});
    let headers = json!([{"name": "X-Env", "value": "planted-value", "secret": false}]);
    let webhook = world.webhook(json!({"authentication": authentication, "headers": headers})).await;
    let id = webhook["id"].as_str().unwrap();
    let viewer = world.caller.post("/v1/api-keys", &json!({"role": "viewer", "name": "v"})).await.expect(201);
    let mut browser = Browser::signed_in_with(&world, viewer["key"].as_str().unwrap()).await;
    let signing = webhook["signingSecret"].as_str().unwrap();
    for language in LANGUAGES {
        let code = browser.receiver(id, language).await;
        assert!(!code.contains(secret) && !code.contains(signing) && !code.contains("planted"), "{code}");
        let file = browser.get(&format!("{PROD}/webhooks/{id}/receiver?language={language}&file=yes")).await;
        assert_eq!(file.header("content-type"), "text/plain; charset=utf-8");
        assert!(file.header("content-disposition").starts_with("attachment; filename=\""));
        assert_eq!(file.text(), code, "the file is what is shown");
        if language != "curl" {
            for text in ["ESITO_WEBHOOK_SECRET", "ESITO_JWT_SECRET", "HS256", "\"esito\"", "X-Env", "whsec_"] {
                assert!(code.contains(text), "{language}: {text}");
            }
            assert!(code.to_lowercase().contains("\"x-token\"") && !code.contains("jwks") && !code.contains("Bearer"));
        }
    }
    let path = format!("{PROD}/webhooks/{id}/receiver");
    assert!(browser.get(&path).await.text().contains("<code>receiver.py</code>"));
    assert!(browser.get(&format!("{path}?language=cobol")).await.text().contains("<code>receiver.py</code>"));
    browser.language = "it";
    assert!(browser.get(&path).await.text().contains("Codice del ricevitore"));

    // Another signature and no token: other code, and what proves nothing says so.
    let changed = json!({"name": "w", "channels": ["email"], "url": world.receiver.url, "signing": "v1a"});
    let key = world.caller.put(&format!("/v1/feedback-webhooks/{id}"), &changed).await.expect(200);
    for language in &LANGUAGES[..4] {
        let code = browser.receiver(id, language).await;
        assert!(code.contains(key["signingPublicKey"].as_str().unwrap()), "{code}");
        assert!(!code.contains("ESITO_"), "{code}");
    }
    browser.language = "en";
    let warning = "anybody who knows the URL can post";
    assert!(!browser.get(&path).await.text().contains(warning));
    let changed = json!({"name": "w", "channels": ["email"], "url": world.receiver.url, "signing": "none"});
    world.caller.put(&format!("/v1/feedback-webhooks/{id}"), &changed).await.expect(200);
    assert!(browser.get(&path).await.text().contains(warning));
    assert!(browser.receiver(id, "go").await.contains("THIS WEBHOOK PROVES NOTHING"));

    let unknown = browser.get(&format!("{PROD}/webhooks/01900000-0000-7000-8000-000000000000/receiver")).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(Browser::new(&world).get(&path).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_set_stays_text_in_every_language() {
    let world = World::start().await;
    let issuer = "a\"; import os #\\\n`${x}` '{}\u{202e}</pre><script>";
    let authentication = json!({"type": "jwt", "algorithm": "ES256", "issuer": issuer, "audience": "\\", "subject": "\"",
        "header": "X-`$'!#&*|~", "prefix": "\"\\${`'"});
    let webhook = world.webhook(json!({"authentication": authentication})).await;
    let id = webhook["id"].as_str().unwrap();
    let mut browser = Browser::signed_in(&world).await;
    for language in &LANGUAGES[..4] {
        let code = browser.receiver(id, language).await;
        let (line, turn) = if *language == "rust" { (r"\u{a}", r"\u{202e}") } else { (r"\u000a", r"\u202e") };
        let issuer = format!(r##""a\"; import os #\\{line}`${{x}}` '{{}}{turn}</pre><script>""##);
        for literal in [issuer.as_str(), r#""\\""#, r#""\"""#, r#""\"\\${`' ""#] {
            assert!(code.contains(literal), "{language}: {literal}\n{code}");
        }
        assert!(code.to_lowercase().contains("\"x-`$'!#&*|~\""), "{code}");
        assert!(code.contains(&format!("{}/.well-known/jwks.json?webhookId={id}", world.server.base)), "{code}");
    }
    let page = browser.get(&format!("{PROD}/webhooks/{id}/receiver")).await.text();
    assert!(!page.contains("<script>\"") && page.contains("&#60;/pre&#62;&#60;script&#62;"), "{page}");
}
