//! The contract of a [`Store`]: cases that every store passes, each in a database of its own.
//!
//! A store says where its databases come from ([`Bench`]) and writes `contract_suite!(MyBench::new())`; that makes one
//! test of each case. Time and ids are given, so a case that fails fails again.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(missing_docs, reason = "a case's name is the sentence that it holds")]

pub mod accept;
pub mod admin;
pub mod control;
pub mod deliver;
pub mod erasure;
pub mod feed;
pub mod fixtures;
pub mod order;
pub mod ownership;
pub mod record;
pub mod replay;
pub mod resources;
pub mod retention;
pub mod search;
pub mod secrets;
pub mod statistics;
pub mod world;

use crate::{Result, Store};
use async_trait::async_trait;
use std::sync::Arc;

/// How a case opens its store.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The master key.
    pub master_key: [u8; 32],
    /// Past this many messages that wait to be sent executions are refused.
    pub max_waiting_messages: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { master_key: [7; 32], max_waiting_messages: 100_000 }
    }
}

/// An empty database of one case's own. It goes when this is dropped.
#[async_trait]
pub trait Bench: Send + Sync {
    /// Opens the database, as a process does that is to do its work. The one before has been closed.
    async fn open(&self, setup: Setup) -> Result<Arc<dyn Store>>;

    /// The bytes of every value in every row, one after the other.
    async fn contents(&self) -> Vec<u8>;

    /// How many rows a table has.
    async fn count(&self, table: &str) -> u64;
}

/// Whether `bytes` contain `text`.
pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Makes a test of every case, each with a [`Bench`] of its own from the expression given.
#[macro_export]
macro_rules! contract_suite {
    ($bench:expr) => {
        $crate::contract_tests! { $bench;
            accept:
                a_new_execution_is_durable_and_its_messages_are_due,
                a_recipient_has_the_address_of_the_campaigns_channel,
                unitary_messages_are_due_before_high_throughput_ones,
                the_same_body_again_gets_the_first_id_and_sends_nothing,
                another_body_under_the_same_request_id_conflicts,
                fifty_concurrent_twins_are_one_execution,
                a_request_id_is_new_in_another_campaign_and_in_another_sandbox,
                an_unknown_campaign_and_one_of_another_sandbox_are_refused,
                an_unknown_sandbox_or_key_is_not_found_and_leaves_nothing,
                a_draft_and_a_stopped_campaign_are_refused,
                a_campaign_is_refused_outside_its_schedule,
                a_repetition_is_answered_though_the_campaign_has_stopped,
                a_request_id_is_remembered_for_seven_days_and_across_a_reopen,
                past_the_limit_executions_are_refused_until_messages_are_sent;
            record:
                every_verdict_moves_the_message_and_becomes_an_event,
                an_event_has_the_facts_of_its_execution_and_its_outcome,
                what_is_personal_goes_once_no_try_can_need_it,
                a_retry_keeps_what_is_personal_and_tells_one_delay,
                the_retry_count_is_that_of_the_failed_tries_before,
                a_planned_outcome_becomes_due_and_is_recorded_once,
                an_outcome_planned_with_a_delay_ends_the_message,
                an_outcome_that_comes_first_cancels_a_planned_one,
                a_delay_alone_leaves_the_next_try_due,
                outcomes_late_twice_or_out_of_order_change_nothing,
                an_asynchronous_outcome_implies_sent,
                a_message_is_handed_over_only_while_it_waits,
                a_message_handed_over_before_a_crash_may_have_been_sent,
                a_refusal_makes_nobody_wiser_about_an_earlier_hand_over,
                one_bad_record_does_not_hide_the_others,
                a_batch_may_be_about_one_message,
                what_the_caller_knows_of_an_untouched_message_holds_only_while_it_is_so;
            deliver:
                a_webhook_gets_the_channels_and_statuses_that_it_selects,
                a_campaign_without_webhooks_makes_no_deliveries,
                an_attempt_counts_once,
                a_failed_attempt_is_tried_again_at_its_time,
                an_exhausted_delivery_stays_visible,
                the_attempts_tell_failures_and_the_success,
                an_endpoint_that_is_gone_disables_the_webhook_and_uses_up_nothing,
                what_was_gone_before_a_change_disables_nothing_after_it,
                a_stale_copy_does_not_undo_that_the_endpoint_is_gone,
                a_webhook_is_failing_from_the_first_failure_to_the_next_success;
            control:
                an_ended_delivery_can_be_retried_by_hand,
                what_has_no_delivery_cannot_be_retried_or_cancelled,
                a_cancelled_delivery_takes_no_attempt,
                held_time_does_not_count,
                draining_makes_waiting_deliveries_due,
                deleting_the_webhook_cancels_its_deliveries_and_makes_room,
                deliveries_are_found_by_state;
            order:
                a_later_event_waits_until_the_one_before_has_ended,
                what_is_recorded_together_waits_each_for_its_own,
                an_event_nobody_wants_holds_up_nothing,
                a_retry_by_hand_waits_for_the_event_under_way,
                a_cancelled_event_lets_only_what_is_free_go,
                any_interleaving_keeps_the_order;
            feed:
                the_feed_has_no_gaps_under_concurrent_writers,
                the_newest_come_first_and_cursors_are_stable_under_writes,
                executions_and_messages_page_from_the_newest_on,
                events_are_filtered,
                executions_and_messages_are_filtered,
                a_foreign_sandbox_sees_nothing;
            ownership:
                eight_owners_race_and_each_shard_has_one,
                a_lease_that_ends_is_taken_over_with_a_higher_epoch,
                a_renewed_lease_is_not_taken_over,
                an_owner_frozen_past_its_lease_changes_nothing,
                a_lease_holds_for_its_own_shard_only,
                released_shards_are_free,
                a_reopen_frees_the_shards_and_raises_their_epochs;
            replay:
                what_has_ended_becomes_due_again_in_the_order_of_the_feed,
                a_replay_keeps_to_its_filter,
                a_replay_keeps_the_order_in_a_message,
                a_replay_broken_off_goes_on_and_replays_each_event_once,
                steps_at_the_same_time_replay_each_event_once,
                with_many_open_a_replay_waits,
                an_owner_that_lost_its_lease_replays_nothing,
                a_cancelled_replay_makes_nothing_due,
                a_sandbox_replays_once_at_a_time_and_to_a_webhook,
                what_no_webhook_wants_is_left_alone,
                a_rare_event_is_found_among_many;
            retention:
                what_is_old_goes_as_a_whole,
                what_is_still_due_stays,
                a_step_touches_few_rows_and_says_where_it_ended,
                attempts_have_an_age_of_their_own,
                the_audit_log_has_an_age_of_its_own,
                an_organizations_retention_is_its_own,
                retention_and_replays_go_side_by_side,
                steps_and_writers_do_not_disturb_each_other;
            erasure:
                all_of_an_address_goes_and_nothing_else,
                what_was_under_way_changes_nothing_any_more,
                an_erasure_is_of_one_organization_and_of_the_time_before,
                an_erasure_broken_off_goes_on,
                a_receipt_tells_who_it_was_about_to_those_who_know;
            search:
                a_rare_recipient_is_found_whatever_is_indexed,
                a_frequent_recipient_is_listed_to_the_end,
                what_is_accepted_while_a_run_is_made_is_found,
                what_was_erased_or_is_old_is_not_found;
            statistics:
                what_is_done_counts_once,
                counts_are_a_sandboxs_own_and_lie_in_their_minute,
                a_latency_is_that_of_a_first_delivery,
                what_fails_or_is_taken_back_counts_nothing,
                concurrent_writers_count_all,
                old_minutes_move_to_their_hours_and_old_hours_go,
                a_backlog_is_all_that_has_not_ended;
            admin:
                organizations_and_sandboxes_are_unique_and_listed,
                a_key_is_found_by_its_hash_until_it_is_revoked_or_ends,
                every_change_is_audited_and_a_failed_one_is_not,
                lists_have_pages;
            resources:
                a_sandbox_has_one_webhook,
                twenty_concurrent_creates_make_one_webhook,
                an_edit_of_an_older_revision_is_refused,
                a_foreign_sandbox_finds_no_resource,
                a_channel_configuration_in_use_stays,
                a_campaigns_versions_are_kept,
                a_campaign_that_was_live_cannot_be_deleted;
            secrets:
                secrets_come_back_and_are_not_in_the_rows,
                another_master_key_opens_nothing;
        }
    };
}

/// Makes the tests of [`contract_suite`].
#[doc(hidden)]
#[macro_export]
macro_rules! contract_tests {
    ($bench:expr; $($group:ident: $($case:ident),+;)+) => {$(
        mod $group {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    $crate::contract::$group::$case(&$bench).await;
                }
            )+
        }
    )+};
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_in_the_suite() {
        let suite = include_str!("mod.rs");
        let groups = [
            include_str!("accept.rs"),
            include_str!("admin.rs"),
            include_str!("control.rs"),
            include_str!("deliver.rs"),
            include_str!("erasure.rs"),
            include_str!("feed.rs"),
            include_str!("order.rs"),
            include_str!("ownership.rs"),
            include_str!("record.rs"),
            include_str!("replay.rs"),
            include_str!("retention.rs"),
            include_str!("resources.rs"),
            include_str!("search.rs"),
            include_str!("secrets.rs"),
            include_str!("statistics.rs"),
        ];
        for line in groups.iter().flat_map(|group| group.lines()) {
            if let Some((name, _)) = line.strip_prefix("pub async fn ").and_then(|rest| rest.split_once('(')) {
                let listed = [',', ';'].map(|end| format!("                {name}{end}"));
                let is_listed = listed.iter().any(|line| suite.contains(line));
                assert!(is_listed, "{name} is not in the suite");
            }
        }
    }
}
