//! A server without sockets, on a store of its own.

use crate::api::{Api, ApiSettings, Outside, auth, router};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use model::clock::{Clock, Entropy, Timestamp};
use model::delivery::Attempt;
use model::ids::{ApiKeyId, AuditId, ExecutionIds, SandboxId};
use model::tenancy::{ApiKey, AuditEntry, DEFAULT_ORGANIZATION, Organization, Role, Sandbox};
use model::webhook::Webhook;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use store::Store;
use store::Use;
use store::admin::NewOrganization;
use store::envelope::MasterKey;
use store::sqlite::{Options, SqliteStore};
use store::wake::{Hint, Wake};
use tokio::sync::RwLock;

#[derive(Debug)]
pub struct At(pub AtomicI64);
impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Random;
impl Entropy for Random {
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).unwrap();
    }
}

#[derive(Debug, Default)]
pub struct Hints(pub Mutex<Vec<Hint>>);
impl Wake for Hints {
    fn hint(&self, hint: Hint) {
        self.0.lock().unwrap().push(hint);
    }
}

#[derive(Debug, Default)]
pub struct Nowhere {
    pub is_stopping: AtomicBool,
    /// The recipients of each execution that asked to be admitted.
    pub asked: Mutex<Vec<usize>>,
    /// Who holds it for writing lets none in.
    pub door: RwLock<()>,
}
#[async_trait]
impl Outside for Nowhere {
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }
    async fn admit(&self, _: SandboxId, recipients: usize) {
        self.asked.lock().unwrap().push(recipients);
        drop(self.door.read().await);
    }
    async fn check_url(&self, url: &str) -> Result<(), String> {
        if url.starts_with("https://") { Ok(()) } else { Err("must be https".to_owned()) }
    }
    async fn test_webhook(&self, _: &Webhook) -> Attempt {
        Attempt { at: Timestamp(0), duration_ms: 7, status: Some(204), response_excerpt: None, error: None }
    }
}

/// A server without sockets, with an organization `default@EsitoOrg` and its admin key.
pub struct House {
    pub router: Router,
    pub store: Arc<SqliteStore>,
    pub clock: Arc<At>,
    pub hints: Arc<Hints>,
    pub outside: Arc<Nowhere>,
    pub admin: String,
    _folder: tempfile::TempDir,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn detail(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["detail"].as_str().unwrap_or(""))
    }
    pub fn problem(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["type"].as_str().unwrap_or("").trim_start_matches("urn:esito:problem:"))
    }
    pub fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("{field} in {}", self.body)).to_owned()
    }
}

impl House {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            file: folder.path().join("esito.db"),
            master_key: MasterKey::new(&[7; 32]),
            usage: Use::Work,
            max_waiting_messages: 1000,
            min_free_disk_bytes: 0,
        };
        let store = Arc::new(SqliteStore::open(options).unwrap());
        let clock = Arc::new(At(1_800_000_000_000.into()));
        let hints = Arc::new(Hints::default());
        let ids = Arc::new(ExecutionIds::new(1));
        let (wake, outside) = (hints.clone(), Arc::new(Nowhere::default()));
        let api = Api::new(
            store.clone(),
            wake,
            clock.clone(),
            Arc::new(Random),
            ids,
            outside.clone(),
            ApiSettings::default(),
        );
        let admin = found(&*store, clock.now()).await;
        Self { router: router(Arc::new(api)), store, clock, hints, outside, admin, _folder: folder }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = TowerToHyperService::new(self.router.clone()).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn with(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
        more: &[(&str, &str)],
    ) -> Answer {
        let mut request =
            Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }

    pub async fn in_prod(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.with(key, method, path, body, &PROD).await
    }

    pub async fn get(&self, key: &str, path: &str) -> Answer {
        self.in_prod(key, Method::GET, path, None).await
    }

    pub async fn post(&self, key: &str, path: &str, body: Value) -> Answer {
        self.in_prod(key, Method::POST, path, Some(body)).await
    }

    pub async fn new_key(&self, body: Value) -> String {
        let made = self.with(&self.admin, Method::POST, "/v1/api-keys", Some(body), &[]).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.text("key")
    }

    /// A live campaign over the simulator.
    pub async fn campaign(&self) -> String {
        let channel = self
            .post(
                &self.admin,
                "/v1/channel-configurations",
                json!({"name": "sim", "channel": "email", "type": "simulator"}),
            )
            .await;
        let settings = json!({"name": "c", "channel": "email", "channelConfigurationId": channel.text("id"),
            "content": {"subject": "s", "text": "t"}, "audience": {"enableWebhooks": true}});
        let campaign = self.post(&self.admin, "/v1/campaigns", settings).await;
        assert_eq!((campaign.status.as_u16(), &campaign.body["status"]), (201, &json!("DRAFT")), "{}", campaign.body);
        let id = campaign.text("id");
        let live = self.in_prod(&self.admin, Method::POST, &format!("/v1/campaigns/{id}/activate"), None).await;
        assert_eq!((live.status.as_u16(), &live.body["status"]), (200, &json!("LIVE")), "{}", live.body);
        id
    }
}

pub const PROD: [(&str, &str); 2] = [("x-gw-ims-org-id", DEFAULT_ORGANIZATION), ("x-sandbox-name", "prod")];

async fn found(store: &dyn Store, now: Timestamp) -> String {
    let by = "esito".to_owned();
    let ims_org = DEFAULT_ORGANIZATION.to_owned();
    let audit = || AuditEntry {
        id: AuditId::new(now, &Random),
        ims_org: ims_org.clone(),
        sandbox: None,
        at: now,
        actor: by.clone(),
        action: "found".to_owned(),
        resource: String::new(),
        detail: Value::Null,
    };
    let organization = Organization {
        id: ims_org.clone(),
        name: "Default".to_owned(),
        retention: Default::default(),
        created_at: now,
        created_by: by.clone(),
    };
    let sandbox = Sandbox {
        id: SandboxId::new(now, &Random),
        ims_org: ims_org.clone(),
        name: "prod".to_owned(),
        created_at: now,
        created_by: by.clone(),
    };
    store.create_organization(NewOrganization { organization, sandbox: Some(sandbox) }, audit()).await.unwrap();
    let text = auth::new_key(&Random);
    let key = ApiKey {
        id: ApiKeyId::new(now, &Random),
        ims_org: ims_org.clone(),
        role: Role::Admin,
        name: "founder".to_owned(),
        sandboxes: None,
        expires_at: None,
        revoked_at: None,
        created_at: now,
        created_by: by.clone(),
    };
    store.create_api_key(key, auth::hash_key(&text), audit()).await.unwrap();
    text
}
