//! Lookups: executions, messages, feedback events, deliveries. Each list takes a fixed number of statements, however long
//! it is.

use super::facts::Facts;
use super::hooks::is_held;
use super::rows::{
    EVENT_COLUMNS, event_columns, execution_id, message_columns, read_attempt, read_event, read_message, recipient,
};
use super::search;
use super::session::{Done, Session, col};
use crate::StoreError;
use crate::lookup::{
    DeliveryFilter, EventFilter, EventView, ExecutionFilter, ExecutionView, Listed, MessageFilter, MessageView, Page,
};
use crate::shared::change::sequence_at;
use crate::shared::listing::{cut, delivery_view, message_in, number_in, shown_as};
use crate::shared::replaying::{WINDOW, WINDOWS};
use crate::shared::rows::{EventRow, MessageRow, status_code};
use crate::shared::searching::asked_for;
use model::clock::Timestamp;
use model::delivery::{Attempt, DeliveryState, StoredDelivery};
use model::execution::Recipient;
use model::ids::{EventId, ExecutionId, MessageKey, SandboxId};
use model::replay::ReplayProgress;
use model::webhook::Channel;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// A `WHERE` clause with its values.
struct Conditions {
    sql: String,
    values: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

impl Conditions {
    fn new(sbx: i64, column: &str) -> Self {
        Self { sql: format!("{column} = $1"), values: vec![(Box::new(sbx), Type::INT8)] }
    }

    /// Adds a condition with `?` for its value, which may stand more than once.
    fn and(&mut self, sql: &str, value: impl ToSql + Sync + Send + 'static, of: Type) {
        self.values.push((Box::new(value), of));
        self.plain(&sql.replace('?', &format!("${}", self.values.len())));
    }

    fn and_number(&mut self, sql: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.and(sql, value, Type::INT8);
        }
    }

    fn and_id(&mut self, sql: &str, value: Option<uuid::Uuid>) {
        if let Some(value) = value {
            self.and(sql, value, Type::UUID);
        }
    }

    fn and_text(&mut self, sql: &str, value: Option<String>) {
        match value {
            // No text in the database has this character, and none can be asked for.
            Some(value) if value.contains('\0') => self.plain("false"),
            Some(value) => self.and(sql, value, Type::TEXT),
            None => {}
        }
    }

    fn plain(&mut self, sql: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
    }

    fn of_execution(&mut self, filter: &ExecutionFilter) {
        self.and_text("e.request_id = ?", filter.request_id.clone());
        let of_campaign = "e.ver IN (SELECT ver FROM campaign_version WHERE campaign = ?)";
        self.and_id(of_campaign, filter.campaign.map(|id| id.0));
        self.and_number("e.exec >= ?", filter.from.map(|at| ExecutionId::floor_at(at).number()));
        self.and_number("e.exec < ?", filter.to.map(|at| ExecutionId::floor_at(at).number()));
        self.and_id("e.k = (SELECT k FROM api_key WHERE id = ?)", filter.created_by.map(|id| id.0));
    }

    fn of_channel(&mut self, channel: Option<Channel>) {
        let sql = "e.ver IN (SELECT ver FROM campaign_version WHERE channel = ?)";
        self.and_text(sql, channel.map(|channel| channel.as_str().to_owned()));
    }

    /// What a message `m` must be like, if anything.
    fn of_messages(&mut self, filter: &MessageFilter) -> Option<String> {
        let mut such = Self { sql: String::new(), values: std::mem::take(&mut self.values) };
        such.and_text(TO_RECIPIENT, filter.recipient.clone());
        such.and_number("m.state = ?", filter.state.map(|state| i64::from(state.code())));
        self.values = such.values;
        such.sql.strip_prefix(" AND ").map(str::to_owned)
    }

    async fn rows(&self, session: &Session, sql: &str) -> Done<Vec<Row>> {
        let values: Vec<(&(dyn ToSql + Sync), Type)> =
            self.values.iter().map(|(value, of)| (&**value as &(dyn ToSql + Sync), of.clone())).collect();
        session.query_once(sql, &values).await
    }
}

/// The rows that one page of a search looks at: few enough for a tenth of a second. Where they are not enough, the page
/// is shorter and says where the next one begins.
const WINDOW_OF_A_PAGE: usize = 10_000;
/// The executions with one requestId that a search of events finds: there is one in each campaign.
const EXECUTIONS: usize = 1_000;
/// The order of an index, backwards. Messages are listed in another one, "exec DESC, ord", for which the database may decide
/// to sort them all.
const MESSAGES_INDEX: &str = "exec DESC, ord DESC";

/// What a message to a recipient is like.
const TO_RECIPIENT: &str = "(m.address = ? OR m.user_id = ?)";

/// The rows that a page looks at, from one end of what can hold them.
#[derive(Default)]
pub(super) struct Window {
    bounds: Vec<String>,
    /// These alone.
    places: Option<Vec<i64>>,
    /// Where the index of recipients has told no further: rows from this execution on are all that it told of.
    end: Option<i64>,
    /// They are all of one state, which has an index.
    of_state: bool,
}

/// Where executions, or messages of executions, such as these can be; `before` an execution's number.
fn execution_window(filter: &ExecutionFilter, id: Option<ExecutionId>, before: Option<i64>) -> Window {
    let number = |at| ExecutionId::floor_at(at).number();
    let bounds = [
        filter.from.map(|from| format!("exec >= {}", number(from))),
        filter.to.map(|to| format!("exec < {}", number(to))),
        id.map(|id| format!("exec = {}", id.number())),
        before.map(|before| format!("exec < {before}")),
        // There are few of them, and an index. A text that cannot be in the database has no value.
        filter
            .request_id
            .as_ref()
            .filter(|id| !id.contains('\0'))
            .map(|_| "exec IN (SELECT x.exec FROM execution x WHERE x.sbx = $1 AND x.request_id = $2)".to_owned()),
    ];
    Window { bounds: bounds.into_iter().flatten().collect(), ..Window::default() }
}

impl Window {
    /// The rows, in this order.
    fn rows(&self, table: &str, order: &str) -> String {
        format!("SELECT * FROM {table} WHERE {} ORDER BY {order} LIMIT {WINDOW_OF_A_PAGE}", self.sql())
    }

    /// Messages, whole executions of them, in no order. Of a window that is not full, all: no execution has a number below
    /// zero.
    pub(super) fn messages(&self) -> String {
        let (end, window) = (self.end_of_messages(), self.sql());
        format!("SELECT * FROM message WHERE {window} AND exec >= COALESCE(({end}), 0)")
    }

    /// The last execution of these, if the window is full.
    pub(super) fn end_of_messages(&self) -> String {
        self.end("exec", "message", MESSAGES_INDEX)
    }

    /// The last row, if the window is full.
    fn end(&self, columns: &str, table: &str, order: &str) -> String {
        let offset = WINDOW_OF_A_PAGE - 1;
        format!("SELECT {columns} FROM {table} WHERE {} ORDER BY {order} LIMIT 1 OFFSET {offset}", self.sql())
    }

    fn sql(&self) -> String {
        let mut sql = "sbx = $1".to_owned();
        for bound in &self.bounds {
            sql.push_str(" AND ");
            sql.push_str(bound);
        }
        if let Some(places) = &self.places {
            sql.push_str(&format!(" AND seq = ANY({})", listed(places)));
        }
        sql
    }
}

/// Numbers as an array.
fn listed<'a>(numbers: impl IntoIterator<Item = &'a i64>) -> String {
    let numbers: Vec<String> = numbers.into_iter().map(i64::to_string).collect();
    format!("'{{{}}}'::bigint[]", numbers.join(","))
}

/// A lookup at work.
pub(super) struct Finder<'a> {
    pub session: &'a Session,
    pub facts: &'a Facts,
}

const OF_EXECUTION: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message m WHERE m.sbx = $1 AND m.exec = ANY($2) ORDER BY m.exec, m.ord"
);

const ONE_MESSAGE: &str =
    concat!("SELECT ", message_columns!(), " FROM message m WHERE m.sbx = $1 AND m.exec = $2 AND m.ord = $3");

/// The events of messages, from the latest one of each on.
const CHAINS: &str = concat!(
    "WITH RECURSIVE v AS (SELECT v.* FROM unnest($2::bigint[]) AS w (seq) JOIN event v ON v.sbx = $1 AND v.seq = w.seq \
     UNION ALL SELECT v.* FROM v c JOIN event v ON v.sbx = c.sbx AND v.seq = c.prev) SELECT ",
    event_columns!(),
    " FROM v ORDER BY v.seq"
);

/// One by one: a join may begin with all attempts of the sandbox, if its plan was made while there were none.
const COUNT_ATTEMPTS: &str = "SELECT w.seq, a.n FROM unnest($2::bigint[]) AS w (seq) CROSS JOIN LATERAL \
     (SELECT count(*) AS n FROM attempt a WHERE a.sbx = $1 AND a.seq = w.seq) a WHERE a.n > 0";

const ATTEMPTS: &str =
    "SELECT at, ms, status, excerpt, error_kind, error FROM attempt WHERE sbx = $1 AND seq = $2 ORDER BY n";

const LAST_ATTEMPT: &str = "SELECT attempt_at, attempt_ms, attempt_status, attempt_excerpt, NULL::text, NULL::text \
     FROM event WHERE sbx = $1 AND seq = $2";

/// The row of a message.
pub(super) async fn find_message(session: &Session, sbx: i64, key: MessageKey) -> Done<Option<MessageRow>> {
    let values: [&(dyn ToSql + Sync); 3] = [&sbx, &key.execution.number(), &i16::from(key.ordinal)];
    let row = session.query_opt(ONE_MESSAGE, &values).await?;
    row.as_ref().map(|row| read_message(row, 0)).transpose()
}

/// A message's events in the order recorded, from the latest one's place on.
pub(super) async fn events_from(session: &Session, sbx: i64, latest: &[i64]) -> Done<Vec<EventRow>> {
    if latest.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session.query(CHAINS, &[&sbx, &latest]).await?;
    rows.iter().map(|row| read_event(row, 0)).collect()
}

const WINDOW_END: &str =
    "SELECT seq FROM event WHERE sbx = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT 1 OFFSET $4";
const WINDOW_OFFSET: i64 = WINDOW as i64 - 1;

type Found = (EventRow, Arc<Recipient>);

impl Finder<'_> {
    async fn sbx(&self, sandbox: SandboxId) -> Done<i64> {
        Ok(self.facts.sandbox(self.session, sandbox).await?.sbx)
    }

    pub async fn execution(&self, sandbox: SandboxId, id: ExecutionId) -> Done<ExecutionView> {
        let sbx = self.sbx(sandbox).await?;
        let found = self.execution_views(sbx, &[id]).await?.pop();
        Ok(found.ok_or(StoreError::NotFound("execution"))?)
    }

    /// Executions in the order of these ids, without those that are missing.
    async fn execution_views(&self, sbx: i64, ids: &[ExecutionId]) -> Done<Vec<ExecutionView>> {
        let numbers: Vec<i64> = ids.iter().map(|id| id.number()).collect();
        let rows = self.session.query(OF_EXECUTION, &[&sbx, &numbers]).await?;
        let rows = rows.iter().map(|row| read_message(row, 0)).collect::<Done<Vec<_>>>()?;
        let mut views: HashMap<ExecutionId, Vec<MessageView>> = HashMap::new();
        for view in self.message_views(sbx, rows).await? {
            views.entry(view.key.execution).or_default().push(view);
        }
        let whole = |id| {
            let messages = views.remove(id)?;
            Some(ExecutionView { facts: Arc::clone(&messages.first()?.execution), messages })
        };
        Ok(ids.iter().filter_map(whole).collect())
    }

    pub async fn executions(&self, filter: &MessageFilter, page: &Page) -> Done<Listed<ExecutionView>> {
        let sbx = self.sbx(filter.execution.sandbox).await?;
        let mut conditions = Conditions::new(sbx, "e.sbx");
        conditions.of_execution(&filter.execution);
        conditions.of_channel(filter.channel);
        conditions.and_number("e.exec = ?", filter.execution_id.map(ExecutionId::number));
        conditions.and_number("e.exec < ?", number_in(page)?);
        let limit = page.limit + 1;
        let window = self.execution_window(sbx, filter, number_in(page)?).await?;
        // By their messages they are found among the messages of a window: a look for each of so many executions would
        // take ten times as long.
        let (rows, end) = match conditions.of_messages(filter) {
            Some(such) => {
                let rows = format!("SELECT DISTINCT m.sbx, m.exec FROM ({}) m WHERE {such}", window.messages());
                (
                    format!("SELECT e.* FROM ({rows}) m JOIN execution e ON e.sbx = m.sbx AND e.exec = m.exec"),
                    window.end_of_messages(),
                )
            }
            None => (window.rows("execution", "exec DESC"), window.end("exec", "execution", "exec DESC")),
        };
        // The rows come one by one, and no more of them are looked at than it takes.
        let sql = format!("SELECT e.exec FROM ({rows}) e WHERE {} ORDER BY e.exec DESC LIMIT {limit}", conditions.sql);
        let rows = conditions.rows(self.session, &sql).await?;
        let ids = rows.iter().map(|row| execution_id(row, 0)).collect::<Done<Vec<_>>>()?;
        let ids = match ids.len() > page.limit {
            true => cut(ids, page.limit, |id| id.number().to_string()),
            false => {
                let end = conditions.rows(self.session, &end).await?;
                let end = end.first().map(|row| col::<i64>(row, 0)).transpose()?.or(window.end);
                Listed { items: ids, next: end.map(|end| end.to_string()) }
            }
        };
        Ok(Listed { items: self.execution_views(sbx, &ids.items).await?, next: ids.next })
    }

    pub async fn message(&self, sandbox: SandboxId, key: MessageKey) -> Done<MessageView> {
        let sbx = self.sbx(sandbox).await?;
        let row = find_message(self.session, sbx, key).await?.ok_or(StoreError::NotFound("message"))?;
        let view = self.message_views(sbx, vec![row]).await?.pop();
        Ok(view.ok_or(StoreError::NotFound("message"))?)
    }

    pub async fn messages(&self, filter: &MessageFilter, page: &Page) -> Done<Listed<MessageView>> {
        let sbx = self.sbx(filter.execution.sandbox).await?;
        let mut conditions = Conditions::new(sbx, "m.sbx");
        conditions.of_execution(&filter.execution);
        conditions.of_channel(filter.channel);
        conditions.and_number("m.exec = ?", filter.execution_id.map(ExecutionId::number));
        let such = conditions.of_messages(filter);
        conditions.sql.extend(such.map(|such| format!(" AND {such}")));
        if let Some((execution, ordinal)) = message_in(page)? {
            conditions.and("m.exec <= ?", execution, Type::INT8);
            conditions.plain(&format!("(m.exec < {execution} OR m.ord > {ordinal})"));
        }
        let first = message_in(page)?.map(|(execution, _)| execution + 1);
        let window = self.execution_window(sbx, filter, first).await?;
        let rows = window.messages();
        let sql = format!(
            "SELECT {} FROM ({rows}) m JOIN execution e ON e.sbx = m.sbx AND e.exec = m.exec \
             WHERE {} ORDER BY m.exec DESC, m.ord LIMIT {}",
            message_columns!(),
            conditions.sql,
            page.limit + 1
        );
        let rows = conditions.rows(self.session, &sql).await?;
        let rows = rows.iter().map(|row| read_message(row, 0)).collect::<Done<Vec<_>>>()?;
        let rows = match rows.len() > page.limit {
            true => cut(rows, page.limit, |row| format!("{}.{}", row.key.execution.number(), row.key.ordinal)),
            false => {
                let end = conditions.rows(self.session, &window.end_of_messages()).await?;
                let end = end.first().map(|row| col::<i64>(row, 0)).transpose()?.or(window.end);
                // After all messages of that execution.
                Listed { items: rows, next: end.map(|execution| format!("{execution}.{}", u8::MAX)) }
            }
        };
        Ok(Listed { items: self.message_views(sbx, rows.items).await?, next: rows.next })
    }

    async fn message_views(&self, sbx: i64, rows: Vec<MessageRow>) -> Done<Vec<MessageView>> {
        let latest: Vec<i64> = rows.iter().filter_map(|row| row.last_event).collect();
        let recipients: HashMap<MessageKey, Arc<Recipient>> =
            rows.iter().map(|row| (row.key, Arc::clone(&row.recipient))).collect();
        let of_messages = events_from(self.session, sbx, &latest).await?.into_iter().filter_map(|event| {
            let recipient = Arc::clone(recipients.get(&event.key.message)?);
            Some((event, recipient))
        });
        let held = is_held(self.session, sbx).await?;
        let mut events: HashMap<MessageKey, Vec<EventView>> = HashMap::new();
        for view in self.event_views(sbx, of_messages.collect(), held).await? {
            events.entry(view.event.key.message).or_default().push(view);
        }
        let executions = self.facts.executions(self.session, rows.iter().map(|row| (sbx, row.key.execution))).await?;
        let view = |row: MessageRow| {
            let awaits = row.progress.state.awaits_sending();
            Some(MessageView {
                key: row.key,
                execution: Arc::clone(&executions.get(&(sbx, row.key.execution))?.facts),
                recipient: row.recipient,
                state: row.progress.state,
                failures: row.failures,
                next_try_at: row.due_at.filter(|_| awaits),
                events: events.remove(&row.key).unwrap_or_default(),
            })
        };
        Ok(rows.into_iter().filter_map(view).collect())
    }

    async fn event_views(&self, sbx: i64, rows: Vec<Found>, held: bool) -> Done<Vec<EventView>> {
        let sequences: Vec<i64> = rows.iter().map(|(row, _)| row.sequence).collect();
        let mut failed: HashMap<i64, u32> = HashMap::new();
        if !sequences.is_empty() {
            for row in self.session.query(COUNT_ATTEMPTS, &[&sbx, &sequences]).await? {
                failed.insert(col(&row, 0)?, u32::try_from(col::<i64>(&row, 1)?).unwrap_or(u32::MAX));
            }
        }
        let wanted = rows.iter().map(|(row, _)| (sbx, row.key.message.execution));
        let executions = self.facts.executions(self.session, wanted).await?;
        let sandbox = self.facts.sandboxes_of(self.session, [sbx]).await?.remove(&sbx);
        let sandbox = sandbox.ok_or(StoreError::NotFound("sandbox"))?;
        let view = |(row, recipient): Found| {
            let stored = executions.get(&(sbx, row.key.message.execution))?;
            let sequence = row.sequence;
            let delivery = delivery_view(&row, held, failed.get(&sequence).copied().unwrap_or(0));
            let event = row.into_event(recipient, Arc::clone(&sandbox.tenant), Arc::clone(&stored.facts));
            Some(EventView { sequence, event, delivery })
        };
        Ok(rows.into_iter().filter_map(view).collect())
    }

    /// The row of the event with this id.
    async fn by_id(&self, sbx: i64, id: EventId) -> Done<Found> {
        let missing = || StoreError::NotFound("feedback event");
        let key = id.key().ok_or_else(missing)?;
        let message = find_message(self.session, sbx, key.message).await?.ok_or_else(missing)?;
        let latest: Vec<i64> = message.last_event.into_iter().collect();
        let events = events_from(self.session, sbx, &latest).await?;
        let event = events.into_iter().find(|event| event.key == key).ok_or_else(missing)?;
        Ok((event, message.recipient))
    }

    pub async fn event(&self, sandbox: SandboxId, id: EventId) -> Done<EventView> {
        let sbx = self.sbx(sandbox).await?;
        let found = self.by_id(sbx, id).await?;
        let held = is_held(self.session, sbx).await?;
        let view = self.event_views(sbx, vec![found], held).await?.pop();
        Ok(view.ok_or(StoreError::NotFound("feedback event"))?)
    }

    pub async fn events(&self, filter: &EventFilter, page: &Page) -> Done<Listed<EventView>> {
        let sbx = self.sbx(filter.sandbox).await?;
        let held = is_held(self.session, sbx).await?;
        let conditions = event_conditions(sbx, filter);
        let mut window = self.event_window(sbx, filter).await?;
        let Some(after) = filter.after else {
            return self.newest_events(sbx, conditions, window, page, held).await;
        };
        let after = number_in(page)?.unwrap_or(after);
        window.bounds.push(format!("seq > {after}"));
        let (items, end) = self.event_rows(sbx, &conditions, &window, "seq ASC", page.limit, held).await?;
        let last = items.last().map_or(after, |event| event.sequence);
        let next = end.filter(|_| items.len() < page.limit).unwrap_or(last);
        Ok(Listed { items, next: Some(next.to_string()) })
    }

    async fn newest_events(
        &self,
        sbx: i64,
        conditions: Conditions,
        mut window: Window,
        page: &Page,
        held: bool,
    ) -> Done<Listed<EventView>> {
        window.bounds.extend(number_in(page)?.map(|before| format!("seq < {before}")));
        let (items, end) = self.event_rows(sbx, &conditions, &window, "seq DESC", page.limit + 1, held).await?;
        match items.len() > page.limit {
            true => Ok(cut(items, page.limit, |event| event.sequence.to_string())),
            false => Ok(Listed { items, next: end.map(|end| end.to_string()) }),
        }
    }

    /// Where events such as these can be.
    async fn event_window(&self, sbx: i64, filter: &EventFilter) -> Done<Window> {
        let mut window = Window::default();
        // A place is never before the time of its recording, and hardly ever long after it: only where a clock was set
        // back, for which there is a day.
        let near = |at: Timestamp| Timestamp(at.millis().clamp(0, 1 << 48));
        window.bounds.extend(filter.from.map(|from| format!("seq >= {}", sequence_at(near(from)))));
        let day = std::time::Duration::from_secs(86_400);
        window.bounds.extend(filter.to.map(|to| format!("seq < {}", sequence_at(near(to) + day))));
        if filter.execution_id.is_some() || filter.request_id.is_some() {
            let mut conditions = Conditions::new(sbx, "e.sbx");
            conditions.and_number("e.exec = ?", filter.execution_id.map(ExecutionId::number));
            conditions.and_text("e.request_id = ?", filter.request_id.clone());
            let of = format!(
                "(SELECT exec FROM execution e WHERE {} ORDER BY exec DESC LIMIT {EXECUTIONS}) e \
                 JOIN message m ON m.sbx = $1 AND m.exec = e.exec WHERE true",
                conditions.sql
            );
            window.places = Some(self.places_of(&conditions, &of).await?);
        } else if let Some(recipient) = &filter.recipient {
            // One with very many of them is found among the events as well.
            if let Some(executions) = search::all_places(self.session, sbx, recipient, WINDOW_OF_A_PAGE).await? {
                let mut conditions = Conditions::new(sbx, "m.sbx");
                conditions.and_text(TO_RECIPIENT, Some(recipient.clone()));
                conditions.plain(&format!("m.exec = ANY({})", listed(&executions)));
                let of = format!("message m WHERE {}", conditions.sql);
                window.places = Some(self.places_of(&conditions, &of).await?);
            }
        }
        Ok(window)
    }

    /// The events of messages: of the `m` that are `of` these.
    async fn places_of(&self, conditions: &Conditions, of: &str) -> Done<Vec<i64>> {
        let sql = format!(
            "WITH RECURSIVE chain (seq) AS (SELECT m.last_event FROM {of} AND m.last_event IS NOT NULL \
             UNION ALL SELECT v.prev FROM chain c JOIN event v ON v.sbx = $1 AND v.seq = c.seq \
             WHERE v.prev IS NOT NULL) SELECT seq FROM chain"
        );
        conditions.rows(self.session, &sql).await?.iter().map(|row| col(row, 0)).collect()
    }

    /// Where executions such as these, or their messages, can be; `before` an execution's number.
    async fn execution_window(&self, sbx: i64, filter: &MessageFilter, before: Option<i64>) -> Done<Window> {
        let mut window = execution_window(&filter.execution, filter.execution_id, before);
        if let Some((recipient, range)) = asked_for(filter, before) {
            let places = search::places(self.session, sbx, recipient, range, WINDOW_OF_A_PAGE).await?;
            window.bounds.push(format!("exec = ANY({})", listed(&places.executions)));
            window.end = places.end;
        }
        Ok(window)
    }

    /// Events in this order, and where the window ended, if it was full.
    async fn event_rows(
        &self,
        sbx: i64,
        conditions: &Conditions,
        window: &Window,
        order: &str,
        limit: usize,
        held: bool,
    ) -> Done<(Vec<EventView>, Option<i64>)> {
        // The index of a state has that first.
        let inner = if window.of_state { &format!("delivery DESC, {order}") } else { order };
        let rows = window.rows("event", inner);
        let sql = format!(
            "SELECT {}, m.user_id, m.namespace, m.address FROM ({rows}) v \
             JOIN execution e ON e.sbx = v.sbx AND e.exec = v.exec \
             JOIN message m ON m.sbx = v.sbx AND m.exec = v.exec AND m.ord = v.ord \
             WHERE {} ORDER BY v.{order} LIMIT {limit}",
            event_columns!(),
            conditions.sql
        );
        let rows = conditions.rows(self.session, &sql).await?;
        let end = match rows.len() < limit {
            true => conditions.rows(self.session, &window.end("seq", "event", inner)).await?,
            false => Vec::new(),
        };
        let end = end.first().map(|row| col(row, 0)).transpose()?;
        let found = rows.iter().map(|row| Ok((read_event(row, 0)?, recipient(row, EVENT_COLUMNS)?)));
        Ok((self.event_views(sbx, found.collect::<Done<_>>()?, held).await?, end))
    }

    pub async fn deliveries(&self, filter: &DeliveryFilter, page: &Page) -> Done<Listed<EventView>> {
        let sbx = self.sbx(filter.event.sandbox).await?;
        let held = is_held(self.session, sbx).await?;
        let mut conditions = event_conditions(sbx, &filter.event);
        conditions.plain(shown_as(filter.state, held));
        let mut window = self.event_window(sbx, &filter.event).await?;
        // Those that were given up or cancelled have an index of their own.
        let ended = match filter.state {
            Some(DeliveryState::Exhausted) => Some(StoredDelivery::Exhausted),
            Some(DeliveryState::Cancelled) => Some(StoredDelivery::Cancelled),
            _ => None,
        };
        window.of_state = ended.is_some();
        window.bounds.extend(ended.map(|state| format!("delivery = {}", state.code())));
        self.newest_events(sbx, conditions, window, page, held).await
    }

    /// Up to `limit` events for a replay, in the order of the feed from its position on, and how far was looked.
    pub async fn chosen(
        &self,
        filter: &DeliveryFilter,
        progress: &ReplayProgress,
        limit: usize,
    ) -> Done<(Vec<i64>, i64)> {
        let sbx = self.sbx(filter.event.sandbox).await?;
        let held = is_held(self.session, sbx).await?;
        let mut conditions = event_conditions(sbx, &filter.event);
        if filter.state.is_some() {
            conditions.plain(shown_as(filter.state, held));
        }
        let (mut position, until) = (progress.position, progress.until);
        for _ in 0..WINDOWS {
            // The rows come one by one, and no more of them are looked at than it takes.
            let sql = format!(
                "SELECT v.seq FROM (SELECT * FROM event WHERE sbx = $1 AND seq > {position} AND seq <= {until} \
                 ORDER BY seq LIMIT {WINDOW}) v JOIN execution e ON e.sbx = v.sbx AND e.exec = v.exec \
                 JOIN message m ON m.sbx = v.sbx AND m.exec = v.exec AND m.ord = v.ord \
                 WHERE {} ORDER BY v.seq LIMIT {limit}",
                conditions.sql
            );
            let rows = conditions.rows(self.session, &sql).await?;
            let chosen = rows.iter().map(|row| col(row, 0)).collect::<Done<Vec<i64>>>()?;
            if chosen.len() == limit {
                let last = chosen.last().copied().unwrap_or(position);
                return Ok((chosen, last));
            }
            let end = self.session.query_opt(WINDOW_END, &[&sbx, &position, &until, &WINDOW_OFFSET]).await?;
            position = end.as_ref().map_or(Ok(until), |row| col(row, 0))?;
            if !chosen.is_empty() || position >= until {
                return Ok((chosen, position));
            }
        }
        Ok((Vec::new(), position))
    }

    pub async fn attempts(&self, sandbox: SandboxId, id: EventId) -> Done<Vec<Attempt>> {
        let sbx = self.sbx(sandbox).await?;
        let (event, _) = self.by_id(sbx, id).await?;
        let mut rows = self.session.query(ATTEMPTS, &[&sbx, &event.sequence]).await?;
        if event.delivery == StoredDelivery::Succeeded {
            rows.extend(self.session.query(LAST_ATTEMPT, &[&sbx, &event.sequence]).await?);
        }
        rows.iter().map(read_attempt).collect()
    }
}

fn event_conditions(sbx: i64, filter: &EventFilter) -> Conditions {
    let mut conditions = Conditions::new(sbx, "v.sbx");
    conditions.of_execution(&ExecutionFilter {
        sandbox: filter.sandbox,
        request_id: filter.request_id.clone(),
        campaign: filter.campaign,
        from: None,
        to: None,
        created_by: filter.created_by,
    });
    conditions.of_channel(filter.channel);
    conditions.and_number("v.exec = ?", filter.execution_id.map(ExecutionId::number));
    conditions.and_number("v.status = ?", filter.status.map(|status| i64::from(status_code(status))));
    conditions.and_number("v.recorded_at >= ?", filter.from.map(Timestamp::millis));
    conditions.and_number("v.recorded_at < ?", filter.to.map(Timestamp::millis));
    conditions.and_text(TO_RECIPIENT, filter.recipient.clone());
    conditions
}
