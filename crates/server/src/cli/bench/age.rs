//! A store that fills as days go by, with no server and no network: what a year leaves behind, in minutes. Events go the
//! same ways through the store as in a server: accepted, recorded, their deliveries finished.

use super::super::store::Opened;
use super::super::{ConfigArgs, Failure, Outcome, print_line};
use super::caller::ORGANIZATION;
use crate::clock::{SystemClock, SystemEntropy};
use clap::Args;
use futures_util::future::join_all;
use model::clock::{Clock as _, Timestamp};
use model::delivery::{Attempt, AttemptDecision, DueDelivery};
use model::execution::{DueMessage, Personalization, Priority};
use model::ids::{ApiKeyId, CampaignId, ExecutionIds, OwnerId, SHARDS, SandboxId, Shard};
use model::outcome::{Failure as Bounced, FailureCategory, FailureType, Outcome as Told, Verdict};
use model::retention::{Retention, before};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use store::lookup::Page;
use store::work::{Finish, Lease, NewExecution, NewRecipient, Record, RetainStep, RetainWhat, Untouched, What};
use store::{Store, Use};
use tokio::time::Instant;

/// Executions at a time.
const AT_A_TIME: u64 = 64;
/// Recipients of each.
const RECIPIENTS: u64 = 20;
/// Of so many messages one bounces.
const BOUNCES: u64 = 50;
/// Of so many deliveries one fails first.
const FAILS: u64 = 50;

/// The arguments of the process.
#[derive(Debug, Args)]
pub struct Age {
    #[command(flatten)]
    config: ConfigArgs,
    /// The sandbox, with a live campaign
    #[arg(long)]
    sandbox: String,
    /// How many events
    #[arg(long)]
    events: u64,
    /// Over how many days, the last of which is today
    #[arg(long)]
    days: u32,
    /// What is older than this many days goes at the end of each day
    #[arg(long)]
    keep_days: Option<u32>,
}

/// Who and what.
struct World {
    store: Arc<dyn Store>,
    sandbox: SandboxId,
    campaign: CampaignId,
    key: ApiKeyId,
    lease: Lease,
    ids: ExecutionIds,
}

impl Age {
    /// Fills day after day, and tells of each.
    pub async fn run(self) -> Outcome {
        let config = self.config.load()?.config;
        let opened = super::super::store::open(&config, Use::Work, &SystemEntropy).await?;
        let today = SystemClock.now();
        let world = World::find(opened, &self.sandbox, today).await?;
        // What comes is older than what may be there.
        world.store.begin_index_anew(world.sandbox).await?;
        let executions = self.events.div_ceil(RECIPIENTS);
        let (mut done, mut deleted) = (0, 0);
        for day in 0..self.days {
            let until = executions * u64::from(day + 1) / u64::from(self.days);
            let morning = before(today, self.days - day);
            let began = Instant::now();
            while done < until {
                let some = AT_A_TIME.min(until - done);
                let part = f64::from(u32::try_from(until - done).unwrap_or(u32::MAX))
                    / f64::from(u32::try_from(executions / u64::from(self.days) + 1).unwrap_or(u32::MAX));
                let now = morning + Duration::from_secs_f64(86_400.0 * (1.0 - part).clamp(0.0, 1.0));
                world.executions(done, some, now).await?;
                done += some;
            }
            let filled = began.elapsed();
            let began = Instant::now();
            while world.store.index_step(morning + Duration::from_secs(86_400)).await? {}
            let indexed = began.elapsed();
            let began = Instant::now();
            if let Some(days) = self.keep_days {
                deleted += world.retain(days, morning + Duration::from_secs(86_400)).await?;
            }
            let told = json!({"day": day + 1, "events": done * RECIPIENTS, "deleted": deleted,
                "fillSeconds": filled.as_secs_f64(), "indexSeconds": indexed.as_secs_f64(),
                "retentionSeconds": began.elapsed().as_secs_f64()});
            print_line(&told.to_string())?;
        }
        world.store.close().await;
        Ok(())
    }
}

impl World {
    async fn find(Opened { store, node, .. }: Opened, sandbox: &str, now: Timestamp) -> Result<Self, Failure> {
        let page = || Page { limit: 200, cursor: None };
        let missing = |what: &str| Failure::new(format!("the sandbox has no {what}"));
        let found = store.sandbox(ORGANIZATION, sandbox).await?;
        let campaigns = store.campaigns(found.id, page()).await?.items;
        let campaign = campaigns.first().ok_or_else(|| missing("campaign"))?.id;
        let key = store.api_keys(ORGANIZATION, page()).await?.items.first().ok_or_else(|| missing("key"))?.id;
        let owner = OwnerId::new(now, &SystemEntropy);
        let all = (0..SHARDS).map(Shard).collect();
        // For as long as it takes; a server that comes after it on PostgreSQL gets the shards when the store is closed.
        let leases = store.claim_shards(owner, all, now, Duration::from_secs(86_400)).await?;
        let shard = Shard::of(ORGANIZATION, found.id);
        let lease = leases.into_iter().find(|lease| lease.shard == shard).ok_or_else(|| missing("owner"))?;
        Ok(Self { store, sandbox: found.id, campaign, key, lease, ids: ExecutionIds::new(node) })
    }

    /// So many executions, from the first to their last delivery.
    async fn executions(&self, first: u64, count: u64, now: Timestamp) -> Result<(), Failure> {
        let accepting = (first..first + count).map(|n| self.store.accept(self.execution(n, now)));
        let mut messages = Vec::new();
        for accepted in join_all(accepting).await {
            let accepted = accepted?.map_err(|error| Failure::new(error.to_string()))?;
            messages.extend(accepted.work.into_iter().flat_map(|(_, due)| due));
        }
        let records = messages.into_iter().map(|message| self.record(message, now)).collect();
        let recorded = self.store.record(records).await?;
        let due: Vec<DueDelivery> = recorded.into_iter().flat_map(|recorded| recorded.due).collect();
        let failing = |due: &DueDelivery| {
            due.event.key.message.execution.number() % 7 == 0 && u64::from(due.event.key.message.ordinal) % FAILS == 3
        };
        let failed: Vec<_> = due.iter().filter(|due| failing(due)).map(|due| self.finish(due, now, false)).collect();
        let succeeded: Vec<_> = due
            .iter()
            .map(|due| {
                let mut finish = self.finish(due, now, true);
                finish.failures += u32::from(failing(due));
                finish
            })
            .collect();
        self.store.finish(failed).await?;
        self.store.finish(succeeded).await?;
        Ok(())
    }

    fn execution(&self, n: u64, now: Timestamp) -> NewExecution {
        let recipients = (0..RECIPIENTS).map(|i| {
            let address = format!("person{}@example.com", n * RECIPIENTS + i);
            NewRecipient {
                user_id: address.clone(),
                namespace: "email".to_owned(),
                email: Some(address),
                phone: None,
                personalization: Personalization::default(),
            }
        });
        NewExecution {
            id: self.ids.next(now),
            sandbox: self.sandbox,
            request_id: format!("{}-{}-{n}", super::sink::REQUEST_ID_PREFIX, now.millis()),
            campaign: self.campaign,
            body_digest: [7; 16],
            priority: Priority::Unitary,
            expires_at: None,
            now,
            created_by: "bench".to_owned(),
            created_by_key: self.key,
            recipients: recipients.collect(),
        }
    }

    fn record(&self, message: DueMessage, now: Timestamp) -> Record {
        let number = message.key.execution.number().unsigned_abs() / 4096 + u64::from(message.key.ordinal);
        let verdict = match number % BOUNCES {
            0 => Verdict::Bounce(Bounced {
                category: FailureCategory::Sync,
                failure_type: FailureType::Hard,
                code: "10".to_owned(),
                reason: "550 5.1.1 no such user".to_owned(),
            }),
            _ => Verdict::Sent,
        };
        Record {
            sandbox: self.sandbox,
            message: message.key,
            lease: Some(self.lease),
            now,
            untouched: Some(Untouched { recipient: message.recipient, due_at: message.due_at }),
            what: What::Outcome { outcome: Told::new(verdict, now), planned: None },
        }
    }

    fn finish(&self, due: &DueDelivery, now: Timestamp, succeeds: bool) -> Finish {
        let error = model::delivery::AttemptError {
            kind: model::delivery::AttemptErrorKind::Status,
            message: "the endpoint answered 503".to_owned(),
        };
        Finish {
            sandbox: self.sandbox,
            sequence: due.sequence,
            failures: due.failures,
            lease: self.lease,
            attempt: Attempt {
                at: now,
                duration_ms: 12,
                status: Some(if succeeds { 204 } else { 503 }),
                response_excerpt: (!succeeds).then(|| "busy".to_owned()),
                error: (!succeeds).then_some(error),
            },
            decision: if succeeds { AttemptDecision::Succeeded } else { AttemptDecision::RetryAt(now) },
            now,
        }
    }

    /// Rounds as a server makes them, without rest; how many events have gone.
    async fn retain(&self, days: u32, now: Timestamp) -> Result<u64, Failure> {
        let ages = Retention { events_days: days, ..Retention::default() };
        let step = RetainStep {
            sandbox: self.sandbox,
            what: RetainWhat::Executions,
            before: before(now, ages.events_days),
            after: 0,
            most: 2_000,
        };
        let (mut next, mut events) = (Some(0), 0);
        while let Some(after) = next {
            let retained = self.store.retain(RetainStep { after, ..step }).await?;
            events += retained.deleted.events;
            next = retained.next;
        }
        Ok(events)
    }
}
