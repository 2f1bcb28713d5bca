//! `/v1/replays`: feedback events delivered once more, chosen by a filter, at a rate.

use super::Api;
use super::auth::{Edits, InSandbox, Reads, SandboxHeaders};
use super::body::{Input, Json, read_only};
use super::problem::{Problem, ProblemDocument};
use super::query::{Id, List, Paging, Query};
use axum::extract::State;
use http::StatusCode;
use model::clock::Timestamp;
use model::fault::Faults;
use model::ids::ReplayId;
use model::replay::{Replay, ReplayFilter, ReplayProgress, ReplaySettings, ReplayState};
use model::webhook::{SandboxRef, Stamps};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use store::admin::Edit;
use store::wake::Hint;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read)).routes(routes!(cancel))
}

/// A replay as it is read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayRead {
    /// Its id: what every attempt that it causes carries as `esito-replay`.
    id: ReplayId,
    /// Its organization.
    ims_org: String,
    /// Its sandbox.
    sandbox: SandboxRef,
    #[serde(flatten)]
    settings: ReplaySettings,
    /// Where it stands.
    state: ReplayState,
    /// Why it was cancelled, where not by hand.
    reason: Option<String>,
    /// The part of the events that was looked at, from 0 to 1, by the time of their recording.
    #[schema(minimum = 0, maximum = 1)]
    progress: f64,
    /// How many events were made due.
    replayed: u64,
    /// How many events fit the filter but were left as they are: under way already, or wanted by no webhook.
    skipped: u64,
    /// How many of those made due have not ended yet. While too many have not, no more are made due.
    outstanding: usize,
    /// When it was completed or cancelled.
    ended_at: Option<Timestamp>,
    #[serde(flatten)]
    stamps: Stamps,
}

impl ReplayRead {
    fn of<R>(replay: Replay, scope: &InSandbox<R>) -> Self {
        let progress = replay.progress;
        Self {
            id: replay.id,
            ims_org: scope.sandbox.ims_org.clone(),
            sandbox: SandboxRef { id: replay.sandbox, name: scope.sandbox.name.clone() },
            settings: replay.settings,
            state: replay.state,
            reason: replay.reason,
            progress: progress.part(),
            replayed: progress.replayed,
            skipped: progress.skipped,
            outstanding: progress.open.len(),
            ended_at: replay.ended_at,
            stamps: replay.stamps,
        }
    }
}

impl Input for ReplaySettings {
    const READ_ONLY: &'static [&'static str] = read_only!(
        "id",
        "imsOrg",
        "sandbox",
        "state",
        "reason",
        "progress",
        "replayed",
        "skipped",
        "outstanding",
        "endedAt"
    );
}

/// What the audit log keeps: whom a replay is about is nobody's business for years.
fn detail(settings: &ReplaySettings) -> Value {
    let about_one = settings.filter.recipient.is_some();
    let filter = ReplayFilter { recipient: None, ..settings.filter.clone() };
    json!({"filter": filter, "perSecond": settings.per_second, "aboutOneRecipient": about_one})
}

/// Makes a replay, which begins at once. Events whose deliveries have ended, or that never had one, become due again for
/// the sandbox's webhook as it is now: with the same `webhook-id` as before, and marked `esito-replay`. Events recorded
/// after this are not part of it. One replay runs at a time.
#[utoipa::path(post, path = "/v1/replays", operation_id = "createReplay", tag = "replays",
    params(SandboxHeaders),
    request_body(content = ReplaySettings, example = json!({
        "filter": {"state": "exhausted", "from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"}, "perSecond": 200})),
    responses((status = 201, body = ReplayRead, description = "The replay."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "There is no webhook, or another replay is running.")))]
async fn create(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Json(settings): Json<ReplaySettings>,
) -> Result<(StatusCode, axum::Json<ReplayRead>), Problem> {
    let mut faults = Faults::default();
    settings.check(&mut faults);
    faults.into_result()?;
    let now = api.clock.now();
    let replay = Replay {
        id: ReplayId::new(now, &*api.entropy),
        sandbox: scope.sandbox.id,
        state: ReplayState::Running,
        reason: None,
        progress: ReplayProgress::default(),
        ended_at: None,
        stamps: Stamps::new(now, scope.by()),
        settings,
    };
    let audit = scope.audit(&api, now, "replay.create", replay.id, &detail(&replay.settings));
    let replay = api.store.create_replay(replay, audit).await?;
    api.wake.hint(Hint::Replay);
    Ok((StatusCode::CREATED, axum::Json(ReplayRead::of(replay, &scope))))
}

/// Lists the sandbox's replays, the newest first.
#[utoipa::path(get, path = "/v1/replays", operation_id = "listReplays", tag = "replays",
    params(SandboxHeaders, Paging),
    responses((status = 200, body = List<ReplayRead>, description = "A page of replays.")))]
async fn list(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<List<ReplayRead>>, Problem> {
    let listed = api.store.replays(scope.sandbox.id, paging.page()?).await?;
    Ok(List::of(listed, |replay| ReplayRead::of(replay, &scope)))
}

/// Reads a replay: how far it has come.
#[utoipa::path(get, path = "/v1/replays/{id}", operation_id = "getReplay", tag = "replays",
    params(SandboxHeaders, ("id" = ReplayId, Path, description = "The replay's id.")),
    responses((status = 200, body = ReplayRead, description = "The replay.")))]
async fn read(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Id(id): Id<ReplayId>,
) -> Result<axum::Json<ReplayRead>, Problem> {
    let replay = api.store.replay(scope.sandbox.id, id).await?;
    Ok(axum::Json(ReplayRead::of(replay, &scope)))
}

/// Cancels a replay: it makes no further event due. What is due already goes out.
#[utoipa::path(post, path = "/v1/replays/{id}/cancel", operation_id = "cancelReplay", tag = "replays",
    params(SandboxHeaders, ("id" = ReplayId, Path, description = "The replay's id.")),
    responses((status = 200, body = ReplayRead, description = "The replay, cancelled."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It has ended already.")))]
async fn cancel(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<ReplayId>,
) -> Result<axum::Json<ReplayRead>, Problem> {
    let now = api.clock.now();
    let audit = scope.audit(&api, now, "replay.cancel", id, &json!({}));
    let edit = Edit { sandbox: scope.sandbox.id, id, seen_revision: None };
    let replay = api.store.cancel_replay(edit, (now, scope.by().to_owned()), audit).await?;
    Ok(axum::Json(ReplayRead::of(replay, &scope)))
}
