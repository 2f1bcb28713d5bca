//! Taking executions.
//!
//! Twins of a request, on whatever nodes, are kept apart by advisory locks until the end of the transaction: a unique
//! index could not forget after eight days, and a table of its own would double the writing. The numbers are hashes;
//! two requests with the same one wait for each other, and nothing else.

use super::facts::{Facts, Found};
use super::lane::Work;
use super::rows::{corrupt, execution_id};
use super::search::{self, Progress};
use super::session::{Done, Session, col};
use super::statistics::{self, COUNT};
use super::waiting::Waiting;
use crate::shared::accepting::{check_schedule, facts_of, live_version, new_message, remembered_since};
use crate::shared::facts::{KeyFacts, SandboxFacts, StoredExecution, VersionFacts};
use crate::shared::sealing::campaign_status;
use crate::statistics::Counting;
use crate::work::{AcceptError, Accepted, NewExecution};
use crate::{Result, StoreError};
use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use model::campaign::CampaignStatus;
use model::clock::Timestamp;
use model::execution::DueMessage;
use model::ids::{ApiKeyId, CampaignId, ExecutionId, SandboxId};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::Row;
use uuid::Uuid;

const LOCK: &str = "SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) AS k";

/// OFFSET and the sum keep the planner from reading all executions, by either key, where it believes that there are none:
/// so it seems as long as a table was not looked at since it was empty.
const FIND: &str = "SELECT w.i, e.exec, e.body, e.ver, e.created_at, e.k \
     FROM unnest($1::int[], $2::bigint[], $3::text[], $4::bigint[]) AS w (i, sbx, request_id, since) \
     CROSS JOIN LATERAL (SELECT exec, body, ver, created_at, k FROM execution \
     WHERE sbx = w.sbx AND request_id = w.request_id AND exec + 0 >= w.since OFFSET 0) e";

const CAMPAIGNS: &str = "SELECT id, sbx, status, live FROM campaign WHERE id = ANY($1)";

const INSERT_EXECUTIONS: &str = "INSERT INTO execution (sbx, exec, request_id, ver, prio, expires_at, created_at, k, body) \
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::smallint[], $6::bigint[], \
     $7::bigint[], $8::bigint[], $9::bytea[])";

const INSERT_MESSAGES: &str = "INSERT INTO message \
     (sbx, exec, ord, q, prio, first_due, due_at, user_id, namespace, address, personal) \
     SELECT n.sbx, n.exec, n.ord, n.q, n.prio, n.at, n.at, n.user_id, n.namespace, n.address, n.personal \
     FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bigint[], $5::smallint[], $6::bigint[], $7::text[], \
     $8::text[], $9::text[], $10::bytea[]) \
     AS n (sbx, exec, ord, q, prio, at, user_id, namespace, address, personal)";

pub(super) type Answer = std::result::Result<Accepted, AcceptError>;

/// The lane that takes executions.
pub(super) struct Accepting {
    pub facts: Arc<Facts>,
    pub waiting: Arc<Waiting>,
    pub search: Arc<Progress>,
    /// Of the statistics.
    pub part: i16,
}

/// An execution that used a requestId before.
#[derive(Clone)]
struct Former {
    id: ExecutionId,
    body: [u8; 16],
    created_at: Timestamp,
    created_by: String,
}

/// A requestId in its sandbox and campaign.
type Request = (i64, CampaignId, String);

/// What the transaction knows when it decides.
struct Seen<'a> {
    sandboxes: &'a Found<SandboxId, SandboxFacts>,
    key_numbers: &'a Found<ApiKeyId, i64>,
    versions: Found<i64, VersionFacts>,
    campaigns: HashMap<(i64, CampaignId), (CampaignStatus, Option<i64>)>,
    former: HashMap<Request, Former>,
}

/// A message, and what of it is personal as it is stored.
type NewMessage = (DueMessage, Option<Vec<u8>>);

/// An execution to be written.
struct New {
    sbx: i64,
    k: i64,
    ver: i64,
    body: [u8; 16],
    stored: Arc<StoredExecution>,
    messages: Vec<NewMessage>,
}

#[async_trait]
impl Work for Accepting {
    type Unit = NewExecution;
    type Answer = Answer;
    const STATEMENTS: &'static [&'static str] =
        &[LOCK, search::SHARE, search::ANNOUNCED, FIND, CAMPAIGNS, INSERT_EXECUTIONS, INSERT_MESSAGES, COUNT];

    fn bytes(unit: &NewExecution) -> usize {
        let raw = |raw: &Option<Box<serde_json::value::RawValue>>| raw.as_ref().map_or(0, |raw| raw.get().len());
        unit.recipients.iter().map(|one| raw(&one.personalization.context) + raw(&one.personalization.profile)).sum()
    }

    async fn run(&self, session: &Session, units: &[&NewExecution]) -> Done<Vec<Result<Answer>>> {
        let sandboxes = self.facts.sandboxes(session, units.iter().map(|unit| unit.sandbox)).await?;
        let key_numbers = self.facts.key_numbers(session, units.iter().map(|unit| unit.created_by_key)).await?;
        let wanted = Wanted::new(units, &sandboxes);
        let ((), _, _, announced, former, campaigns) = tokio::try_join!(
            biased;
            session.begin(),
            async { session.query(LOCK, &[&wanted.locks]).await },
            async { session.query(search::SHARE, &[&wanted.distinct]).await },
            async { session.query(search::ANNOUNCED, &[&wanted.distinct]).await },
            async { session.query(FIND, &[&wanted.places, &wanted.sandboxes, &wanted.request_ids, &wanted.since]).await },
            async { session.query(CAMPAIGNS, &[&wanted.campaigns]).await }
        )?;
        let seen = self.look(session, units, (&sandboxes, &key_numbers), &former, &campaigns).await?;
        let (answers, new) = self.decide(units, seen);
        let messages: usize = new.iter().map(|new| new.messages.len()).sum();
        let announced = announced.iter().map(|row| Ok((col(row, 0)?, col(row, 1)?))).collect::<Done<_>>()?;
        search::enter_late(session, &late(&new, &announced)).await?;
        write(session, &new, self.part).await?;
        self.waiting.add(i64::try_from(messages).unwrap_or(0));
        for new in new {
            self.search.fresh.add(new.sbx, new.messages.len());
            self.facts.remember_execution(new.sbx, new.stored);
        }
        Ok(answers)
    }
}

/// The values that are looked for with.
struct Wanted<'a> {
    locks: Vec<i64>,
    places: Vec<i32>,
    sandboxes: Vec<i64>,
    /// Each once, in order.
    distinct: Vec<i64>,
    request_ids: Vec<&'a str>,
    since: Vec<i64>,
    campaigns: Vec<Uuid>,
}

impl<'a> Wanted<'a> {
    fn new(units: &[&'a NewExecution], sandboxes: &Found<SandboxId, SandboxFacts>) -> Self {
        let mut wanted = Self {
            locks: Vec::new(),
            places: Vec::new(),
            sandboxes: Vec::new(),
            distinct: Vec::new(),
            request_ids: Vec::new(),
            since: Vec::new(),
            campaigns: Vec::new(),
        };
        for (place, unit) in (0..).zip(units) {
            let Some(sandbox) = sandboxes.get(&unit.sandbox) else { continue };
            wanted.locks.push(lock_number(unit));
            wanted.places.push(place);
            wanted.sandboxes.push(sandbox.sbx);
            wanted.request_ids.push(&unit.request_id);
            wanted.since.push(remembered_since(unit.now).number());
            wanted.campaigns.push(unit.campaign.0);
        }
        // In order, so that two nodes with the same requests do not wait for each other.
        wanted.locks.sort_unstable();
        wanted.locks.dedup();
        wanted.distinct.clone_from(&wanted.sandboxes);
        wanted.distinct.sort_unstable();
        wanted.distinct.dedup();
        wanted
    }
}

fn lock_number(unit: &NewExecution) -> i64 {
    let named = [unit.sandbox.bytes(), unit.campaign.bytes(), unit.request_id.as_bytes()].concat();
    let hash = digest(&SHA256, &named);
    hash.as_ref().iter().take(8).fold(0, |number: i64, byte| number << 8 | i64::from(*byte))
}

impl Accepting {
    async fn look<'a>(
        &self,
        session: &Session,
        units: &[&NewExecution],
        (sandboxes, key_numbers): (&'a Found<SandboxId, SandboxFacts>, &'a Found<ApiKeyId, i64>),
        former: &[Row],
        campaign_rows: &[Row],
    ) -> Done<Seen<'a>> {
        let mut campaigns = HashMap::new();
        let (mut vers, mut ks) = (Vec::new(), Vec::new());
        for row in campaign_rows {
            let live: Option<i64> = col(row, 3)?;
            vers.extend(live);
            campaigns.insert((col(row, 1)?, CampaignId(col(row, 0)?)), (campaign_status(col(row, 2)?)?, live));
        }
        for row in former {
            vers.push(col(row, 3)?);
            ks.push(col(row, 5)?);
        }
        let versions = self.facts.versions(session, vers).await?;
        let keys = self.facts.keys(session, ks).await?;
        let mut seen = Seen { sandboxes, key_numbers, versions, campaigns, former: HashMap::new() };
        for row in former {
            seen.note_former(units, row, &keys)?;
        }
        Ok(seen)
    }

    /// What each unit comes to, and what is to be written.
    fn decide(&self, units: &[&NewExecution], mut seen: Seen<'_>) -> (Vec<Result<Answer>>, Vec<New>) {
        let mut new = Vec::new();
        let mut waiting = self.waiting.now();
        let mut answers = Vec::with_capacity(units.len());
        for unit in units {
            answers.push(match seen.one(unit, waiting, self.waiting.limit) {
                Ok(Ok(made)) => {
                    waiting += made.messages.len() as u64;
                    let accepted = made.accepted();
                    new.push(made);
                    Ok(Ok(accepted))
                }
                Ok(Err(answer)) => Ok(answer),
                Err(error) => Err(error),
            });
        }
        (answers, new)
    }
}

impl Seen<'_> {
    fn note_former(&mut self, units: &[&NewExecution], row: &Row, keys: &Found<i64, KeyFacts>) -> Done<()> {
        let unit = usize::try_from(col::<i32>(row, 0)?).ok().and_then(|place| units.get(place));
        let (Some(unit), Some(version)) = (unit, self.versions.get(&col::<i64>(row, 3)?)) else { return Ok(()) };
        let Some(sandbox) = self.sandboxes.get(&unit.sandbox).filter(|_| version.campaign == unit.campaign) else {
            return Ok(());
        };
        let key = keys.get(&col::<i64>(row, 5)?).ok_or_else(|| corrupt("an execution without its key"))?;
        let body: &[u8] = col(row, 2)?;
        let former = Former {
            id: execution_id(row, 1)?,
            body: body.try_into().map_err(|_| corrupt("not a digest"))?,
            created_at: Timestamp(col(row, 4)?),
            created_by: key.name.clone(),
        };
        let request = (sandbox.sbx, unit.campaign, unit.request_id.clone());
        let first = self.former.entry(request).or_insert_with(|| former.clone());
        if former.id < first.id {
            *first = former;
        }
        Ok(())
    }

    /// What a unit comes to: an execution to be written, or an answer without.
    fn one(&mut self, unit: &NewExecution, waiting: u64, limit: u64) -> Result<std::result::Result<New, Answer>> {
        let sandbox = self.sandboxes.get(&unit.sandbox).ok_or(StoreError::NotFound("sandbox"))?;
        let request = (sandbox.sbx, unit.campaign, unit.request_id.clone());
        if let Some(former) = self.former.get(&request) {
            return Ok(Err(former.answer(unit)));
        }
        let (ver, version) = match self.live_version(sandbox.sbx, unit)? {
            Ok(version) => version,
            Err(refusal) => return Ok(Err(Err(refusal))),
        };
        if waiting + unit.recipients.len() as u64 > limit {
            return Ok(Err(Err(AcceptError::TooMuchWaiting { waiting })));
        }
        let k = **self.key_numbers.get(&unit.created_by_key).ok_or(StoreError::NotFound("API key"))?;
        let former =
            Former { id: unit.id, body: unit.body_digest, created_at: unit.now, created_by: unit.created_by.clone() };
        let new = New::of(unit, sandbox.sbx, k, ver, version)?;
        self.former.insert(request, former);
        Ok(Ok(new))
    }

    /// The campaign's live version, if it takes executions now.
    fn live_version(
        &self,
        sbx: i64,
        unit: &NewExecution,
    ) -> Result<std::result::Result<(i64, Arc<VersionFacts>), AcceptError>> {
        let Some((status, live)) = self.campaigns.get(&(sbx, unit.campaign)) else {
            return Ok(Err(AcceptError::UnknownCampaign(unit.campaign)));
        };
        let ver = match live_version(*status, *live) {
            Ok(ver) => ver,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let version = self.versions.get(&ver).ok_or(StoreError::NotFound("campaign version"))?;
        Ok(check_schedule(version, unit.now).map(|()| (ver, Arc::clone(version))))
    }
}

impl Former {
    fn answer(&self, unit: &NewExecution) -> Answer {
        match self.body == unit.body_digest {
            true => Ok(Accepted {
                id: self.id,
                created_at: self.created_at,
                created_by: self.created_by.clone(),
                work: None,
            }),
            false => Err(AcceptError::RequestIdConflict(self.id)),
        }
    }
}

impl New {
    fn of(unit: &NewExecution, sbx: i64, k: i64, ver: i64, version: Arc<VersionFacts>) -> Result<Self> {
        let mut unit = unit.clone();
        let facts = Arc::new(facts_of(&mut unit, &version));
        let messages = (0_u8..).zip(unit.recipients).map(|(ordinal, new)| new_message(&facts, ordinal, new));
        let messages = messages.collect::<Result<_>>()?;
        let stored = Arc::new(StoredExecution { facts, version });
        Ok(Self { sbx, k, ver, body: unit.body_digest, stored, messages })
    }

    fn accepted(&self) -> Accepted {
        let facts = &self.stored.facts;
        let due = self.messages.iter().map(|(due, _)| due.clone()).collect();
        Accepted {
            id: facts.id,
            created_at: facts.created_at,
            created_by: facts.created_by.clone(),
            work: Some((self.stored.version.settings.channel_configuration_id, due)),
        }
    }
}

/// What of these a run of the index of recipients has gone past.
fn late<'a>(new: &'a [New], announced: &HashMap<i64, i64>) -> Vec<(i64, i64, &'a str)> {
    let is_late = |new: &&New| announced.get(&new.sbx).is_some_and(|last| new.stored.facts.id.number() <= *last);
    let texts = |new: &'a New| {
        let (sbx, exec) = (new.sbx, new.stored.facts.id.number());
        new.messages.iter().flat_map(|(due, _)| due.recipient.texts()).map(move |text| (sbx, exec, text))
    };
    new.iter().filter(is_late).flat_map(texts).collect()
}

/// Writes the executions and their messages, and commits.
async fn write(session: &Session, new: &[New], part: i16) -> Done<()> {
    if new.is_empty() {
        return session.commit().await;
    }
    let mut counted = Counting::default();
    for new in new {
        counted.accepted(new.sbx, new.stored.facts.created_at, new.messages.len());
    }
    let of = |value: fn(&New) -> i64| new.iter().map(value).collect::<Vec<i64>>();
    let (sbx, exec) = (of(|new| new.sbx), of(|new| new.stored.facts.id.number()));
    let request_ids: Vec<&str> = new.iter().map(|new| new.stored.facts.request_id.as_str()).collect();
    let prio: Vec<i16> = new.iter().map(|new| new.stored.facts.priority.code().into()).collect();
    let expires: Vec<Option<i64>> = new.iter().map(|new| new.stored.facts.expires_at.map(Timestamp::millis)).collect();
    let (ver, k, created) = (of(|new| new.ver), of(|new| new.k), of(|new| new.stored.facts.created_at.millis()));
    let bodies: Vec<&[u8]> = new.iter().map(|new| new.body.as_slice()).collect();

    let messages: Vec<(&New, &NewMessage)> =
        new.iter().flat_map(|new| new.messages.iter().map(move |message| (new, message))).collect();
    let of = |value: fn(&New, &DueMessage) -> i64| messages.iter().map(|(new, (due, _))| value(new, due)).collect();
    let small = |value: fn(&DueMessage) -> u8| messages.iter().map(|(_, (due, _))| value(due).into()).collect();
    let (m_sbx, m_exec): (Vec<i64>, Vec<i64>) = (of(|new, _| new.sbx), of(|_, due| due.key.execution.number()));
    let (m_q, m_at): (Vec<i64>, Vec<i64>) = (of(|new, _| new.stored.version.q), of(|_, due| due.due_at.millis()));
    let (m_ord, m_prio): (Vec<i16>, Vec<i16>) =
        (small(|due| due.key.ordinal), small(|due| due.execution.priority.code()));
    let users: Vec<&str> = messages.iter().map(|(_, (due, _))| due.recipient.user_id.as_str()).collect();
    let namespaces: Vec<&str> = messages.iter().map(|(_, (due, _))| due.recipient.namespace.as_str()).collect();
    let addresses: Vec<Option<&str>> = messages.iter().map(|(_, (due, _))| due.recipient.address.as_deref()).collect();
    let personal: Vec<Option<&[u8]>> = messages.iter().map(|(_, (_, personal))| personal.as_deref()).collect();
    tokio::try_join!(
        biased;
        async { session.execute(
           INSERT_EXECUTIONS,
           &[&sbx, &exec, &request_ids, &ver, &prio, &expires, &created, &k, &bodies]
       ).await },
        async { session.execute(
           INSERT_MESSAGES,
           &[&m_sbx, &m_exec, &m_ord, &m_q, &m_prio, &m_at, &users, &namespaces, &addresses, &personal]
       ).await },
        statistics::count(session, part, counted),
        session.commit()
    )?;
    Ok(())
}
