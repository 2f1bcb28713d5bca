//! Lookups: executions, messages, feedback events, deliveries.

use super::deliver::find_by_id;
use super::facts::Facts;
use super::rows::{EVENT_COLUMNS, MESSAGE_COLUMNS, find_event, find_message, into_event, read_event, read_message};
use super::search;
use crate::lookup::{
    DeliveryFilter, EventFilter, EventView, ExecutionFilter, ExecutionView, Listed, MessageFilter, MessageView, Page,
};
use crate::shared::change::sequence_at;
use crate::shared::listing::{cut, delivery_view, message_in, number_in, shown_as};
use crate::shared::replaying::{WINDOW, WINDOWS};
use crate::shared::rows::{EventRow, MessageRow, status_code};
use crate::shared::searching::asked_for;
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::delivery::{Attempt, AttemptError, DeliveryState, StoredDelivery};
use model::ids::{EventId, ExecutionId, MessageKey, SandboxId};
use model::replay::ReplayProgress;
use model::webhook::Channel;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

/// A `WHERE` clause with its values.
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn new(sbx: i64, column: &str) -> Self {
        Self { sql: format!("{column} = ?1"), values: vec![Value::Integer(sbx)] }
    }

    /// Adds a condition with `?` for its value, which may stand more than once.
    fn and(&mut self, sql: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.sql.push_str(" AND ");
        self.sql.push_str(&sql.replace('?', &format!("?{}", self.values.len())));
    }

    fn and_some<T: Into<Value>>(&mut self, sql: &str, value: Option<T>) {
        if let Some(value) = value {
            self.and(sql, value);
        }
    }

    fn plain(&mut self, sql: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
    }

    fn of_execution(&mut self, filter: &ExecutionFilter) {
        self.and_some("e.request_id = ?", filter.request_id.clone());
        let of_campaign = "e.ver IN (SELECT ver FROM campaign_version WHERE campaign = ?)";
        self.and_some(of_campaign, filter.campaign.map(|id| id.bytes().to_vec()));
        self.and_some("e.exec >= ?", filter.from.map(|at| ExecutionId::floor_at(at).number()));
        self.and_some("e.exec < ?", filter.to.map(|at| ExecutionId::floor_at(at).number()));
        self.and_some("e.k = (SELECT k FROM api_key WHERE id = ?)", filter.created_by.map(|id| id.bytes().to_vec()));
    }

    fn of_channel(&mut self, channel: Option<Channel>) {
        let sql = "e.ver IN (SELECT ver FROM campaign_version WHERE json_extract(settings, '$.channel') = ?)";
        self.and_some(sql, channel.map(|channel| channel.as_str().to_owned()));
    }
}

/// The rows that one page of a search looks at: few enough for a tenth of a second. Where they are not enough, the page
/// is shorter and says where the next one begins.
const WINDOW_OF_A_PAGE: usize = 20_000;
/// The executions with one requestId that a search of events finds: there is one in each campaign.
const EXECUTIONS: usize = 1_000;
const MESSAGES_ORDER: &str = "exec DESC, ord";
/// What a message to a recipient is like.
const TO_RECIPIENT: &str = "(m.address = ? OR m.user_id = ?)";

/// The rows that a page looks at, from one end of what can hold them.
#[derive(Default)]
struct Window {
    bounds: Vec<String>,
    /// These alone.
    places: Option<Vec<i64>>,
    /// Where the index of recipients has told no further: rows from this execution on are all that it told of.
    end: Option<i64>,
    /// The index that they are found by, where it is not the primary key.
    index: Option<&'static str>,
}

/// Where executions, or messages of executions, such as these can be; `before` an execution's number.
fn execution_window(filter: &ExecutionFilter, id: Option<ExecutionId>, before: Option<i64>) -> Window {
    let number = |at| ExecutionId::floor_at(at).number();
    let bounds = [
        filter.from.map(|from| format!("exec >= {}", number(from))),
        filter.to.map(|to| format!("exec < {}", number(to))),
        id.map(|id| format!("exec = {}", id.number())),
        before.map(|before| format!("exec < {before}")),
        // There are few of them, and an index.
        filter
            .request_id
            .as_ref()
            .map(|_| "exec IN (SELECT x.exec FROM execution x WHERE x.sbx = ?1 AND x.request_id = ?2)".to_owned()),
    ];
    Window { bounds: bounds.into_iter().flatten().collect(), ..Window::default() }
}

impl Conditions {
    /// The rows of a window, in this order.
    fn rows_of(&self, table: &str, window: &Window, order: &str) -> String {
        let by = window.by();
        format!("SELECT * FROM {table}{by} WHERE {} ORDER BY {order} LIMIT {WINDOW_OF_A_PAGE}", window.sql())
    }

    /// The last row of a window that is full.
    fn window_end<T>(
        &self,
        connection: &Connection,
        table: &str,
        window: &Window,
        order: &str,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let sql = format!(
            "SELECT * FROM {table}{} WHERE {} ORDER BY {order} LIMIT 1 OFFSET {}",
            window.by(),
            window.sql(),
            WINDOW_OF_A_PAGE - 1
        );
        let mut query = connection.prepare(&sql)?;
        let values = self.values.iter().take(query.parameter_count());
        let mut rows = query.query(params_from_iter(values))?;
        Ok(rows.next()?.map(read).transpose()?)
    }
}

impl Window {
    fn by(&self) -> String {
        self.index.map(|index| format!(" INDEXED BY {index}")).unwrap_or_default()
    }

    fn sql(&self) -> String {
        let mut sql = "sbx = ?1".to_owned();
        for bound in &self.bounds {
            sql.push_str(" AND ");
            sql.push_str(bound);
        }
        if let Some(places) = &self.places {
            sql.push_str(&format!(" AND seq IN ({})", listed(places)));
        }
        sql
    }
}

/// Numbers as a list.
fn listed<'a>(numbers: impl IntoIterator<Item = &'a i64>) -> String {
    numbers.into_iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// A reader at work.
pub(super) struct Finder<'a> {
    pub connection: &'a Connection,
    pub facts: &'a Facts,
}

impl Finder<'_> {
    fn sbx(&self, sandbox: SandboxId) -> Result<i64> {
        Ok(self.facts.sandbox(self.connection, sandbox)?.sbx)
    }

    pub fn execution(&self, sandbox: SandboxId, id: ExecutionId) -> Result<ExecutionView> {
        let sbx = self.sbx(sandbox)?;
        let facts = self.facts.execution(self.connection, sbx, id)?;
        let mut query = self.connection.prepare_cached(&format!(
            "SELECT {MESSAGE_COLUMNS} FROM message m WHERE m.sbx = ?1 AND m.exec = ?2 ORDER BY m.ord"
        ))?;
        let rows = query.query_map((sbx, id.number()), read_message)?.collect::<rusqlite::Result<Vec<_>>>()?;
        if rows.is_empty() {
            return Err(StoreError::NotFound("execution"));
        }
        let held = self.is_held(sbx)?;
        let messages = rows.into_iter().map(|row| self.message_view(sbx, row, held)).collect::<Result<_>>()?;
        Ok(ExecutionView { facts, messages })
    }

    pub fn executions(&self, filter: &MessageFilter, page: &Page) -> Result<Listed<ExecutionView>> {
        let sandbox = filter.execution.sandbox;
        let sbx = self.sbx(sandbox)?;
        let mut conditions = Conditions::new(sbx, "e.sbx");
        conditions.of_execution(&filter.execution);
        conditions.of_channel(filter.channel);
        conditions.and_some("e.exec = ?", filter.execution_id.map(ExecutionId::number));
        let with = |condition: &str| {
            format!("EXISTS (SELECT 1 FROM message m WHERE m.sbx = e.sbx AND m.exec = e.exec AND {condition})")
        };
        conditions.and_some(&with(TO_RECIPIENT), filter.recipient.clone());
        conditions.and_some(&with("m.state = ?"), filter.state.map(|state| i64::from(state.code())));
        conditions.and_some("e.exec < ?", number_in(page)?);
        let limit = page.limit + 1;
        let window = self.execution_window(sbx, filter, number_in(page)?)?;
        let rows = conditions.rows_of("execution", &window, "exec DESC");
        // The rows come one by one, and no more of them are looked at than it takes.
        let sql = format!("SELECT e.exec FROM ({rows}) e WHERE {} ORDER BY e.exec DESC LIMIT {limit}", conditions.sql);
        let mut query = self.connection.prepare(&sql)?;
        let ids = query
            .query_map(params_from_iter(&conditions.values), |row| super::rows::execution_id(row, 0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let ids = match ids.len() > page.limit {
            true => cut(ids, page.limit, |id| id.number().to_string()),
            false => {
                let end =
                    conditions.window_end(self.connection, "execution", &window, "exec DESC", |row| row.get("exec"))?;
                let end: Option<i64> = end.or(window.end);
                Listed { items: ids, next: end.map(|end| end.to_string()) }
            }
        };
        let items = ids.items.into_iter().map(|id| self.execution(sandbox, id)).collect::<Result<_>>()?;
        Ok(Listed { items, next: ids.next })
    }

    pub fn message(&self, sandbox: SandboxId, key: MessageKey) -> Result<MessageView> {
        let sbx = self.sbx(sandbox)?;
        let row = find_message(self.connection, sbx, key)?.ok_or(StoreError::NotFound("message"))?;
        self.message_view(sbx, row, self.is_held(sbx)?)
    }

    pub fn messages(&self, filter: &MessageFilter, page: &Page) -> Result<Listed<MessageView>> {
        let sbx = self.sbx(filter.execution.sandbox)?;
        let mut conditions = Conditions::new(sbx, "m.sbx");
        conditions.of_execution(&filter.execution);
        conditions.of_channel(filter.channel);
        conditions.and_some("m.exec = ?", filter.execution_id.map(ExecutionId::number));
        conditions.and_some(TO_RECIPIENT, filter.recipient.clone());
        conditions.and_some("m.state = ?", filter.state.map(|state| i64::from(state.code())));
        if let Some((execution, ordinal)) = message_in(page)? {
            conditions.and("m.exec <= ?", execution);
            conditions.plain(&format!("(m.exec < {execution} OR m.ord > {ordinal})"));
        }
        let first = message_in(page)?.map(|(execution, _)| execution + 1);
        let window = self.execution_window(sbx, filter, first)?;
        let rows = conditions.rows_of("message", &window, MESSAGES_ORDER);
        let sql = format!(
            "SELECT {MESSAGE_COLUMNS} FROM ({rows}) m CROSS JOIN execution e ON e.sbx = m.sbx AND e.exec = m.exec \
             WHERE {} ORDER BY m.exec DESC, m.ord LIMIT {}",
            conditions.sql,
            page.limit + 1
        );
        let mut query = self.connection.prepare(&sql)?;
        let rows = query
            .query_map(params_from_iter(&conditions.values), read_message)?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let rows = match rows.len() > page.limit {
            true => cut(rows, page.limit, |row| format!("{}.{}", row.key.execution.number(), row.key.ordinal)),
            false => {
                let end = conditions.window_end(self.connection, "message", &window, MESSAGES_ORDER, |row| {
                    Ok(format!("{}.{}", row.get::<_, i64>("exec")?, row.get::<_, u8>("ord")?))
                })?;
                // After all messages of that execution.
                let told = || window.end.map(|execution| format!("{execution}.{}", u8::MAX));
                Listed { items: rows, next: end.or_else(told) }
            }
        };
        let held = self.is_held(sbx)?;
        let items = rows.items.into_iter().map(|row| self.message_view(sbx, row, held)).collect::<Result<_>>()?;
        Ok(Listed { items, next: rows.next })
    }

    fn message_view(&self, sbx: i64, row: MessageRow, held: bool) -> Result<MessageView> {
        let mut events = Vec::new();
        let mut next = row.last_event;
        while let Some(sequence) = next {
            let Some(event) = find_event(self.connection, sbx, sequence)? else { break };
            next = event.previous;
            events.push(self.event_view(sbx, event, held)?);
        }
        events.reverse();
        let awaits = row.progress.state.awaits_sending();
        Ok(MessageView {
            key: row.key,
            execution: self.facts.execution(self.connection, sbx, row.key.execution)?,
            recipient: row.recipient,
            state: row.progress.state,
            failures: row.failures,
            next_try_at: row.due_at.filter(|_| awaits),
            events,
        })
    }

    fn event_view(&self, sbx: i64, row: EventRow, held: bool) -> Result<EventView> {
        let delivery = delivery_view(&row, held, self.failed_attempts(sbx, &row)?);
        let sequence = row.sequence;
        Ok(EventView { sequence, event: into_event(row, self.connection, self.facts, sbx)?, delivery })
    }

    /// How many attempts have rows of their own.
    fn failed_attempts(&self, sbx: i64, row: &EventRow) -> Result<u32> {
        let mut query = self.connection.prepare_cached("SELECT count(*) FROM attempt WHERE sbx = ?1 AND seq = ?2")?;
        Ok(query.query_row((sbx, row.sequence), |row| row.get(0))?)
    }

    /// Whether the sandbox's webhook is paused or disabled.
    fn is_held(&self, sbx: i64) -> Result<bool> {
        let mut query = self.connection.prepare_cached("SELECT settings, control FROM webhook WHERE sbx = ?1")?;
        let held = query
            .query_row([sbx], |row| {
                let settings: model::webhook::WebhookSettings = super::rows::json_from(row, 0)?;
                let control: model::webhook::WebhookControl = super::rows::json_from(row, 1)?;
                Ok(!settings.enabled || control.paused || control.gone_at.is_some())
            })
            .optional()?;
        Ok(held.unwrap_or(false))
    }

    pub fn event(&self, sandbox: SandboxId, id: EventId) -> Result<EventView> {
        let sbx = self.sbx(sandbox)?;
        let row = find_by_id(self.connection, sbx, id)?;
        self.event_view(sbx, row, self.is_held(sbx)?)
    }

    pub fn events(&self, filter: &EventFilter, page: &Page) -> Result<Listed<EventView>> {
        let sbx = self.sbx(filter.sandbox)?;
        let conditions = self.event_conditions(sbx, filter);
        let Some(after) = filter.after else { return self.newest_events(sbx, filter, conditions, page, None) };
        let after = number_in(page)?.unwrap_or(after);
        let mut window = self.event_window(sbx, filter)?;
        window.bounds.push(format!("seq > {after}"));
        let (items, end) = self.event_rows(sbx, &conditions, &window, "seq ASC", page.limit)?;
        let last = items.last().map_or(after, |event| event.sequence);
        let next = end.filter(|_| items.len() < page.limit).unwrap_or(last);
        Ok(Listed { items, next: Some(next.to_string()) })
    }

    fn newest_events(
        &self,
        sbx: i64,
        filter: &EventFilter,
        conditions: Conditions,
        page: &Page,
        state: Option<StoredDelivery>,
    ) -> Result<Listed<EventView>> {
        let mut window = self.event_window(sbx, filter)?;
        window.bounds.extend(number_in(page)?.map(|before| format!("seq < {before}")));
        // Those that were given up or cancelled have an index of their own.
        if let Some(state) = state {
            window.bounds.push(format!("delivery = {}", state.code()));
            window.index = Some("event_ended");
        }
        let (items, end) = self.event_rows(sbx, &conditions, &window, "seq DESC", page.limit + 1)?;
        match items.len() > page.limit {
            true => Ok(cut(items, page.limit, |event| event.sequence.to_string())),
            false => Ok(Listed { items, next: end.map(|end| end.to_string()) }),
        }
    }

    /// Where events such as these can be.
    fn event_window(&self, sbx: i64, filter: &EventFilter) -> Result<Window> {
        let mut window = Window::default();
        // A place is never before the time of its recording, and hardly ever long after it: only where a clock was set
        // back, for which there is a day.
        let place = |at: Timestamp| sequence_at(Timestamp(at.millis().clamp(0, 1 << 48)));
        window.bounds.extend(filter.from.map(|from| format!("seq >= {}", place(from))));
        let day = std::time::Duration::from_secs(86_400);
        window
            .bounds
            .extend(filter.to.map(|to| format!("seq < {}", place(Timestamp(to.millis().clamp(0, 1 << 48)) + day))));
        if filter.execution_id.is_some() || filter.request_id.is_some() {
            let mut conditions = Conditions::new(sbx, "e.sbx");
            conditions.and_some("e.exec = ?", filter.execution_id.map(ExecutionId::number));
            conditions.and_some("e.request_id = ?", filter.request_id.clone());
            let of = format!(
                "(SELECT exec FROM execution e WHERE {} ORDER BY exec DESC LIMIT {EXECUTIONS}) e \
                 CROSS JOIN message m ON m.sbx = ?1 AND m.exec = e.exec WHERE true",
                conditions.sql
            );
            window.places = Some(self.places_of(&conditions, &of)?);
        } else if let Some(recipient) = &filter.recipient {
            // One with very many of them is found among the events as well.
            if let Some(executions) = search::all_places(self.connection, sbx, recipient, WINDOW_OF_A_PAGE)? {
                let mut conditions = Conditions::new(sbx, "m.sbx");
                conditions.and(TO_RECIPIENT, recipient.clone());
                conditions.plain(&format!("m.exec IN ({})", listed(&executions)));
                let of = format!("message m WHERE {}", conditions.sql);
                window.places = Some(self.places_of(&conditions, &of)?);
            }
        }
        Ok(window)
    }

    /// Where executions such as these, or their messages, can be; `before` an execution's number.
    fn execution_window(&self, sbx: i64, filter: &MessageFilter, before: Option<i64>) -> Result<Window> {
        let mut window = execution_window(&filter.execution, filter.execution_id, before);
        if let Some((recipient, range)) = asked_for(filter, before) {
            let places = search::places(self.connection, sbx, recipient, range, WINDOW_OF_A_PAGE)?;
            window.bounds.push(format!("exec IN ({})", listed(&places.executions)));
            window.end = places.end;
        }
        Ok(window)
    }

    /// The events of messages: of the `m` that are `of` these.
    fn places_of(&self, conditions: &Conditions, of: &str) -> Result<Vec<i64>> {
        let sql = format!(
            "WITH RECURSIVE chain (seq) AS (SELECT m.last_event FROM {of} AND m.last_event IS NOT NULL \
             UNION ALL SELECT v.prev FROM chain c CROSS JOIN event v ON v.sbx = ?1 AND v.seq = c.seq \
             WHERE v.prev IS NOT NULL) SELECT seq FROM chain"
        );
        let mut query = self.connection.prepare(&sql)?;
        let places = query.query_map(params_from_iter(&conditions.values), |row| row.get(0))?;
        Ok(places.collect::<rusqlite::Result<_>>()?)
    }

    fn event_conditions(&self, sbx: i64, filter: &EventFilter) -> Conditions {
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
        conditions.and_some("v.exec = ?", filter.execution_id.map(ExecutionId::number));
        conditions.and_some("v.status = ?", filter.status.map(|status| i64::from(status_code(status))));
        conditions.and_some("v.recorded_at >= ?", filter.from.map(Timestamp::millis));
        conditions.and_some("v.recorded_at < ?", filter.to.map(Timestamp::millis));
        if let Some(recipient) = &filter.recipient {
            let of_message = "SELECT 1 FROM message m WHERE m.sbx = v.sbx AND m.exec = v.exec AND m.ord = v.ord";
            conditions.and(&format!("EXISTS ({of_message} AND {TO_RECIPIENT})"), recipient.clone());
        }
        conditions
    }

    /// Events in this order, and where the window ended, if it was full.
    fn event_rows(
        &self,
        sbx: i64,
        conditions: &Conditions,
        window: &Window,
        order: &str,
        limit: usize,
    ) -> Result<(Vec<EventView>, Option<i64>)> {
        let rows = conditions.rows_of("event", window, order);
        let sql = format!(
            "SELECT {EVENT_COLUMNS} FROM ({rows}) v CROSS JOIN execution e ON e.sbx = v.sbx AND e.exec = v.exec \
             WHERE {} ORDER BY v.{order} LIMIT {limit}",
            conditions.sql
        );
        let mut query = self.connection.prepare(&sql)?;
        let rows =
            query.query_map(params_from_iter(&conditions.values), read_event)?.collect::<rusqlite::Result<Vec<_>>>()?;
        let end = match rows.len() < limit {
            true => conditions.window_end(self.connection, "event", window, order, |row| row.get("seq"))?,
            false => None,
        };
        let held = self.is_held(sbx)?;
        Ok((rows.into_iter().map(|row| self.event_view(sbx, row, held)).collect::<Result<_>>()?, end))
    }

    pub fn deliveries(&self, filter: &DeliveryFilter, page: &Page) -> Result<Listed<EventView>> {
        let sbx = self.sbx(filter.event.sandbox)?;
        let held = self.is_held(sbx)?;
        let mut conditions = self.event_conditions(sbx, &filter.event);
        conditions.plain(shown_as(filter.state, held));
        let indexed = match filter.state {
            Some(DeliveryState::Exhausted) => Some(StoredDelivery::Exhausted),
            Some(DeliveryState::Cancelled) => Some(StoredDelivery::Cancelled),
            _ => None,
        };
        self.newest_events(sbx, &filter.event, conditions, page, indexed)
    }

    /// Up to `limit` events for a replay, in the order of the feed from its position on, and how far was looked.
    pub fn chosen(&self, filter: &DeliveryFilter, progress: &ReplayProgress, limit: usize) -> Result<(Vec<i64>, i64)> {
        let sbx = self.sbx(filter.event.sandbox)?;
        let held = self.is_held(sbx)?;
        let mut end = self.connection.prepare_cached(
            "SELECT seq FROM event WHERE sbx = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT 1 OFFSET ?4",
        )?;
        let mut conditions = self.event_conditions(sbx, &filter.event);
        if filter.state.is_some() {
            conditions.plain(shown_as(filter.state, held));
        }
        // The rows come one by one, and no more of them are looked at than it takes.
        let first = conditions.values.len();
        let sql = format!(
            "SELECT v.seq FROM (SELECT * FROM event WHERE sbx = ?1 AND seq > ?{} AND seq <= ?{} ORDER BY seq LIMIT {WINDOW}) v \
             CROSS JOIN execution e ON e.sbx = v.sbx AND e.exec = v.exec WHERE {} LIMIT ?{}",
            first + 1,
            first + 2,
            conditions.sql,
            first + 3
        );
        let mut query = self.connection.prepare_cached(&sql)?;
        let mut position = progress.position;
        for _ in 0..WINDOWS {
            let mut values = conditions.values.clone();
            let limit_value = i64::try_from(limit).unwrap_or(i64::MAX);
            values.extend([position, progress.until, limit_value].map(Value::Integer));
            let chosen =
                query.query_map(params_from_iter(values), |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
            if chosen.len() == limit {
                let last = chosen.last().copied().unwrap_or(position);
                return Ok((chosen, last));
            }
            let window = (sbx, position, progress.until, WINDOW - 1);
            position = end.query_row(window, |row| row.get(0)).optional()?.unwrap_or(progress.until);
            if !chosen.is_empty() || position >= progress.until {
                return Ok((chosen, position));
            }
        }
        Ok((Vec::new(), position))
    }

    pub fn attempts(&self, sandbox: SandboxId, id: EventId) -> Result<Vec<Attempt>> {
        let sbx = self.sbx(sandbox)?;
        let row = find_by_id(self.connection, sbx, id)?;
        let mut query = self.connection.prepare_cached(
            "SELECT at, ms, status, excerpt, error_kind, error FROM attempt WHERE sbx = ?1 AND seq = ?2 ORDER BY n",
        )?;
        let mut attempts = query.query_map((sbx, row.sequence), read_attempt)?.collect::<rusqlite::Result<Vec<_>>>()?;
        if row.delivery == StoredDelivery::Succeeded {
            let mut last = self.connection.prepare_cached(
                "SELECT attempt_at, attempt_ms, attempt_status, attempt_excerpt, NULL, NULL FROM event \
                 WHERE sbx = ?1 AND seq = ?2",
            )?;
            attempts.push(last.query_row((sbx, row.sequence), read_attempt)?);
        }
        Ok(attempts)
    }
}

fn read_attempt(row: &rusqlite::Row<'_>) -> rusqlite::Result<Attempt> {
    let message: Option<String> = row.get(5)?;
    let error = match message {
        Some(message) => Some(AttemptError { kind: super::rows::json_from(row, 4)?, message }),
        None => None,
    };
    Ok(Attempt {
        at: Timestamp(row.get(0)?),
        duration_ms: row.get(1)?,
        status: row.get(2)?,
        response_excerpt: row.get(3)?,
        error,
    })
}
