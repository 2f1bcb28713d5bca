//! How lists are cut into pages, and what they show.

use super::rows::EventRow;
use crate::lookup::{DeliveryView, Listed, Page};
use crate::{Result, StoreError};
use model::delivery::{DeliveryState, StoredDelivery};

pub fn bad_cursor() -> StoreError {
    StoreError::NotFound("cursor")
}

/// The number in a cursor.
pub fn number_in(page: &Page) -> Result<Option<i64>> {
    page.cursor.as_deref().map(str::parse).transpose().map_err(|_| bad_cursor())
}

/// The message in a cursor: its execution and the recipient's place.
pub fn message_in(page: &Page) -> Result<Option<(i64, u8)>> {
    let Some(cursor) = &page.cursor else { return Ok(None) };
    let (execution, ordinal) = cursor.split_once('.').ok_or_else(bad_cursor)?;
    let parsed = (execution.parse(), ordinal.parse());
    if let (Ok(execution), Ok(ordinal)) = parsed { Ok(Some((execution, ordinal))) } else { Err(bad_cursor()) }
}

/// Cuts the row beyond the page off and makes the cursor from the last one that stays.
pub fn cut<T>(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Listed<T> {
    let next = if items.len() > limit {
        items.truncate(limit);
        items.last().map(cursor)
    } else {
        None
    };
    Listed { items, next }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A cursor that is none of ours finds nothing, but breaks nothing.
pub fn cursor_bytes(text: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or_else(bad_cursor)?;
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The condition of an event `v` whose delivery is shown in this state, where the webhook is held or not.
pub fn shown_as(state: Option<DeliveryState>, held: bool) -> &'static str {
    match state {
        None => "v.delivery <> 0",
        Some(DeliveryState::Pending) if !held => "(v.delivery = 2 OR (v.delivery = 1 AND v.failures = 0))",
        Some(DeliveryState::Failing) if !held => "v.delivery = 1 AND v.failures > 0",
        Some(DeliveryState::Held) if held => "v.delivery IN (1, 2)",
        Some(DeliveryState::Pending | DeliveryState::Failing | DeliveryState::Held) => "false",
        Some(DeliveryState::Succeeded) => "v.delivery = 3",
        Some(DeliveryState::Exhausted) => "v.delivery = 4",
        Some(DeliveryState::Cancelled) => "v.delivery = 5",
    }
}

/// A delivery as shown; `failed` are its attempts with rows of their own.
pub fn delivery_view(row: &EventRow, held: bool, failed: u32) -> Option<DeliveryView> {
    let state = row.delivery.shown(held, row.failures)?;
    Some(DeliveryView {
        state,
        blocked: row.delivery == StoredDelivery::Blocked,
        // The one that succeeded is in the event's row.
        attempts: failed + u32::from(row.delivery == StoredDelivery::Succeeded),
        next_attempt_at: row.due_at.filter(|_| state != DeliveryState::Held),
        ended_at: row.ended_at,
    })
}
