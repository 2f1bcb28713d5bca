//! The driver over a fake store and a fake other side, on tokio's paused clock.

mod fake;

use fake::{Act, DOWN, FAST, HANG, ROW_BYTES, Rig, Try};
use model::circuit::Sign;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn every_row_is_taken_once_within_the_limits() {
    let rig = Rig::new();
    rig.give(1, 0..5_000);
    let took = rig.until("5,000 rows", |fake| fake.taken_of(1) == 5_000).await;
    let tries = rig.fake.tries_of(1);
    assert_eq!(tries.len(), 5_000);
    assert_eq!(tries.iter().map(|one| one.under_way).max(), Some(64));
    // 64 at a time, of which each takes 2 ms, after a start with 4.
    assert!(took < millis(400), "{took:?}");
    let writes = rig.fake.writes.load(Ordering::SeqCst);
    assert!(writes < 500, "rows are written down together: {writes} writes");
    let reads = rig.fake.reads.load(Ordering::SeqCst);
    assert!(reads < 12, "{reads} reads");
    assert_eq!(rig.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn with_one_at_a_time_rows_go_out_in_order() {
    let rig = Rig::new();
    rig.fake.limits.lock().unwrap().concurrency = 1;
    rig.give(1, 0..2_500);
    rig.until("all rows", |fake| fake.taken_of(1) == 2_500).await;
    assert!(rig.fake.taken.lock().unwrap().iter().map(|key| key.1).eq(0..2_500));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_probes_with_other_rows_closes_and_ramps_up() {
    let rig = Rig::new();
    rig.fake.behave(|_, at| if at < secs(40) { DOWN } else { FAST });
    rig.give(1, 0..3_000);
    rig.until("the end", |fake| fake.taken_of(1) == 3_000).await;
    let tries = rig.fake.tries_of(1);
    let (down, up): (Vec<Try>, Vec<Try>) = tries.iter().copied().partition(|one| one.at < secs(40));
    // Five failures open it; beside them only what was under way. Then 1, 2, 4, 8 and 16 seconds apart.
    let probes: Vec<_> = down.iter().filter(|one| one.at > millis(500)).collect();
    assert!(down.len() - probes.len() <= 8, "{}", down.len());
    assert_eq!(probes.len(), 5, "{probes:?}");
    assert!(probes.windows(2).all(|pair| pair[1].at - pair[0].at > pair[0].at.mul_f64(0.9)), "{probes:?}");
    assert_eq!(probes.iter().map(|one| one.key).collect::<HashSet<_>>().len(), 5, "each with another row");
    assert!(probes.iter().all(|one| one.under_way == 1));
    // The first success closes it, and the rest goes out at a rate that doubles.
    assert_eq!(up[0].under_way, 1);
    let most_within = |time| up.iter().filter(|one| one.at < up[0].at + time).map(|one| one.under_way).max().unwrap();
    assert!(most_within(millis(4)) <= 2 && most_within(millis(6)) <= 4 && most_within(millis(9)) <= 8);
    assert_eq!(most_within(secs(1)), 64);
    // What waited used up no tries.
    let tried_once = (0..3_000).filter(|n| tries.iter().filter(|one| one.key.1 == *n).count() == 1).count();
    assert!(tried_once >= 3_000 - 13, "{tried_once}");
}

#[tokio::test(start_paused = true)]
async fn a_poison_row_never_opens_the_circuit() {
    let rig = Rig::new();
    rig.fake.behave(|key, _| if key.1 < 4 { DOWN } else { FAST });
    rig.give(1, 0..4);
    sleep(secs(600)).await;
    let alone = rig.fake.tries_of(1).len();
    assert!(alone > 20, "each is tried on its own schedule: {alone}");
    let before = rig.since_start();
    rig.give(1, 4..2_004);
    let after = rig.until("the others", |fake| fake.taken_of(1) == 2_000).await;
    assert!(after - before < millis(500), "{:?}", after - before);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_single_rows_do_not_open_it() {
    let rig = Rig::new();
    rig.fake.behave(|key, _| if key.1 < 100 { Act::Fail(Sign::Neutral, millis(2)) } else { FAST });
    rig.give(1, 0..300);
    let took = rig.until("the others", |fake| fake.taken_of(1) == 200).await;
    assert!(took < millis(500), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_everything_out_at_once() {
    let rig = Rig::new();
    rig.fake.behave(|_, at| if at < secs(100) { DOWN } else { FAST });
    rig.give(1, 0..1_000);
    sleep(secs(101)).await;
    assert_eq!(rig.fake.taken_of(1), 0, "the next probe is not due yet");
    rig.fake.make_due(1);
    rig.driver.drain(1);
    let before = rig.since_start();
    let after = rig.until("all", |fake| fake.taken_of(1) == 1_000).await;
    assert!(after - before < millis(200), "{:?}", after - before);
    let first = rig.fake.tries_of(1).into_iter().filter(|one| one.at < before + millis(12));
    assert!(first.map(|one| one.under_way).max() > Some(32), "at once");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_asks_for_a_pause_gets_it() {
    let rig = Rig::new();
    rig.fake.behave(|_, at| if at < millis(1) { Act::Busy(secs(30)) } else { FAST });
    rig.give(1, 0..500);
    rig.until("all", |fake| fake.taken_of(1) == 500).await;
    let tries = rig.fake.tries_of(1);
    let later: Vec<_> = tries.iter().filter(|one| one.at > millis(5)).collect();
    assert!(tries.len() - later.len() <= 4);
    assert!(later[0].at >= secs(30) && later[0].at < secs(31), "{:?}", later[0]);
}

#[tokio::test(start_paused = true)]
async fn hanging_queues_take_nothing_from_the_others() {
    let finished = |hanging: u32, places: usize| async move {
        let rig = Rig::with(places, 48 << 20);
        // The bad ones were good before, so that they hang with all the places they may have.
        rig.fake.behave(move |key, at| if key.0 < hanging && at > millis(200) { HANG } else { FAST });
        for queue in 0..100 {
            rig.give(queue, 0..40);
        }
        rig.until("all are known as good", |fake| fake.taken.lock().unwrap().len() == 4_000).await;
        sleep(millis(300)).await;
        let before = rig.since_start();
        for queue in 0..100 {
            rig.give(queue, 40..540);
        }
        let good = 50..100;
        let after = rig.until("the good ones", |fake| good.clone().all(|queue| fake.taken_of(queue) == 540)).await;
        after - before
    };
    let (alone, beside) = (finished(0, 4096).await, finished(50, 4096).await);
    assert!(beside <= alone.mul_f64(1.1), "{beside:?} beside hanging ones, {alone:?} without");
    // Where places are scarce, a part of them stays with those that answer.
    let (alone, beside) = (finished(0, 512).await, finished(50, 512).await);
    assert!(beside <= alone.mul_f64(10.0), "{beside:?} beside hanging ones, {alone:?} without");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_hangs_soon_holds_one_place() {
    let rig = Rig::new();
    rig.fake.behave(|_, at| if at > millis(100) { HANG } else { FAST });
    rig.give(1, 0..2_000);
    sleep(millis(200)).await;
    rig.give(1, 2_000..4_000);
    sleep(secs(600)).await;
    let late = rig.fake.tries_of(1).into_iter().filter(|one| one.at > secs(60));
    assert_eq!(late.map(|one| one.under_way).max(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_over_all_queues() {
    let budget = 64 * ROW_BYTES;
    let rig = Rig::with(4096, budget).polling();
    rig.fake.behave(|_, at| if at < secs(100) { HANG } else { FAST });
    for queue in 0..500 {
        rig.fake.store(queue, 0..100, false);
    }
    for second in 0..100 {
        sleep(secs(1)).await;
        // A queue may have a few rows that wait beside those under way, whatever others have.
        assert!(rig.budget.used() <= budget + 500 * (4 + 4) * ROW_BYTES, "{} after {second} s", rig.budget.used());
    }
    rig.until("all", |fake| fake.taken.lock().unwrap().len() == 50_000).await;
    assert_eq!(rig.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_an_open_circuit_is_left_in_the_store() {
    let rig = Rig::new();
    rig.fake.behave(|_, _| DOWN);
    rig.give(1, 0..50_000);
    sleep(secs(30)).await;
    assert!(rig.budget.used() <= 16 * ROW_BYTES, "{} bytes", rig.budget.used());
    let reads = rig.fake.reads.load(Ordering::SeqCst);
    assert!(reads < 30, "{reads} reads in 30 s");
}

#[tokio::test(start_paused = true)]
async fn a_paused_queue_starts_nothing_and_goes_on_when_resumed() {
    let rig = Rig::new();
    rig.give(1, 0..2_000);
    sleep(millis(20)).await;
    rig.fake.held.lock().unwrap().insert(1);
    rig.driver.changed(1);
    let before = rig.fake.tries_of(1).len();
    assert!(before > 50 && before < 2_000);
    rig.give(1, 2_000..2_100);
    sleep(secs(300)).await;
    assert_eq!(rig.fake.tries_of(1).len(), before);
    rig.fake.held.lock().unwrap().remove(&1);
    rig.driver.changed(1);
    rig.until("the rest", |fake| fake.taken_of(1) == 2_100).await;
    assert_eq!(rig.fake.tries_of(1).len(), 2_100);
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_out_and_has_not_begun_does_not_begin_after_a_pause() {
    let rig = Rig::new();
    let (fake, driver) = (Arc::downgrade(&rig.fake), Arc::downgrade(&rig.driver));
    let begun = AtomicUsize::new(0);
    // Paused in the midst of a bunch of steps.
    rig.fake.behave(move |_, _| {
        if begun.fetch_add(1, Ordering::SeqCst) == 99 {
            fake.upgrade().unwrap().held.lock().unwrap().insert(1);
            driver.upgrade().unwrap().changed(1);
        }
        FAST
    });
    rig.give(1, 0..2_000);
    sleep(secs(300)).await;
    assert_eq!(rig.fake.tries_of(1).len(), 100);
    rig.fake.held.lock().unwrap().remove(&1);
    rig.driver.changed(1);
    rig.until("the rest", |fake| fake.taken_of(1) == 2_000).await;
    assert_eq!(rig.fake.tries_of(1).len(), 2_000);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_after_it_was_cancelled() {
    for at in [0, 1, 3, 7, 12, 20, 33] {
        let rig = Rig::new();
        rig.give(1, 0..2_000);
        sleep(millis(at)).await;
        rig.fake.cancel(1, |number| number % 2 == 1);
        rig.driver.rows_changed(1);
        let before: HashSet<_> = rig.fake.tries_of(1).iter().map(|one| one.key.1).collect();
        let is_left = |number: &u32| number.is_multiple_of(2) || before.contains(number);
        let left = (0..2_000).filter(is_left).count();
        sleep(secs(10)).await;
        let tried: HashSet<_> = rig.fake.tries_of(1).iter().map(|one| one.key.1).collect();
        assert!(tried.iter().all(is_left) && tried.len() == left, "cancelled after {at} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn urgent_rows_go_first() {
    let rig = Rig::new();
    rig.fake.limits.lock().unwrap().concurrency = 4;
    rig.give(1, 0..5_000);
    sleep(millis(50)).await;
    let before = rig.since_start();
    rig.give_so(1, 5_000..5_020, true);
    let is_urgent = |key: &(u32, u32)| key.1 >= 5_000;
    let after = rig
        .until("urgent ones", |fake| fake.taken.lock().unwrap().iter().filter(|key| is_urgent(key)).count() == 20)
        .await;
    assert!(after - before < millis(30), "{:?}", after - before);
    rig.until("all", |fake| fake.taken_of(1) == 5_020).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_a_second_than_the_settings_say() {
    let rig = Rig::new();
    rig.fake.limits.lock().unwrap().per_second = Some(50);
    rig.give(1, 0..300);
    let took = rig.until("all", |fake| fake.taken_of(1) == 300).await;
    assert!((millis(5_700)..millis(6_500)).contains(&took), "{took:?}");
    let tries = rig.fake.tries_of(1);
    for one in &tries {
        let within = tries.iter().filter(|other| other.at >= one.at && other.at < one.at + secs(1)).count();
        assert!(within <= 56, "{within} in a second");
    }
}

#[tokio::test(start_paused = true)]
async fn lost_hints_cost_time_and_no_row() {
    let rig = Rig::new().polling();
    rig.fake.store(7, 0..100, false);
    let took = rig.until("all", |fake| fake.taken_of(7) == 100).await;
    assert!(took < secs(6), "{took:?}");
    // Far more hints than the inbox holds.
    for row in rig.fake.store(1, 0..20_000, false) {
        rig.driver.rows(1, vec![row]);
    }
    rig.until("all", |fake| fake.taken_of(1) == 20_000).await;
    assert_eq!(rig.fake.tries_of(1).len(), 20_000);
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_comes_after_its_row_was_read_and_done_repeats_nothing() {
    let rig = Rig::new();
    let rows = rig.fake.store(1, 0..500, false);
    rig.driver.rows_changed(1);
    rig.until("some", |fake| fake.taken_of(1) > 100).await;
    rig.driver.rows(1, rows);
    rig.until("all", |fake| fake.taken_of(1) == 500).await;
    sleep(secs(10)).await;
    assert_eq!(rig.fake.tries_of(1).len(), 500);
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_made_due_anew_while_under_way_are_not_repeated() {
    for at in [1, 5, 8, 9, 10, 11, 15, 20] {
        let rig = Rig::new();
        rig.give(1, 0..2_000);
        sleep(millis(at)).await;
        rig.fake.make_due(1);
        rig.driver.drain(1);
        rig.until("all", |fake| fake.taken_of(1) >= 2_000).await;
        sleep(secs(10)).await;
        let tries: Vec<_> = rig.fake.tries_of(1).iter().map(|one| one.key).collect();
        let repeated = tries.len() - tries.iter().collect::<HashSet<_>>().len();
        assert_eq!(repeated, 0, "drained after {at} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_panics_is_left_alone_and_the_others_go_on() {
    let rig = Rig::new().polling();
    rig.fake.behave(|key, at| if key.1 == 3 && at < secs(100) { Act::Panic } else { FAST });
    rig.give(1, 0..50);
    rig.until("the others", |fake| fake.taken_of(1) == 49).await;
    sleep(secs(30)).await;
    assert_eq!(rig.fake.tries_of(1).len(), 50);
    rig.until("that one, too", |fake| fake.taken_of(1) == 50).await;
    assert_eq!(rig.fake.tries_of(1).len(), 52, "60 s apart");
}

#[tokio::test(start_paused = true)]
async fn an_idle_queue_ends_and_comes_back() {
    let rig = Rig::new();
    for queue in 0..100 {
        rig.give(queue, 0..10);
    }
    rig.until("all", |fake| fake.taken.lock().unwrap().len() == 1_000).await;
    assert_eq!(rig.queues(), 100);
    sleep(secs(200)).await;
    assert_eq!(rig.queues(), 0);
    rig.give(5, 10..20);
    rig.until("the new ones", |fake| fake.taken_of(5) == 20).await;
}

#[tokio::test(start_paused = true)]
async fn without_the_lease_nothing_starts() {
    let rig = Rig::new().polling();
    rig.fake.own(false);
    rig.give(1, 0..50);
    sleep(secs(20)).await;
    assert_eq!(rig.fake.tries_of(1).len(), 0);
    assert!(rig.fake.reads.load(Ordering::SeqCst) < 10);
    rig.fake.own(true);
    let took = rig.until("all", |fake| fake.taken_of(1) == 50).await;
    assert!(took < secs(26), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn rows_whose_time_is_up_do_not_wait_for_a_side_that_is_left_alone() {
    let rig = Rig::new();
    *rig.fake.longest.lock().unwrap() = Some(secs(60));
    rig.fake.behave(|_, _| DOWN);
    rig.give(1, 0..1_000);
    sleep(secs(100)).await;
    let ended = rig.fake.ended.lock().unwrap().len();
    assert!(ended > 980, "{ended}");
    assert!(rig.fake.tries_of(1).len() < 30);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_under_way_and_writes_it_down() {
    let rig = Rig::new();
    rig.fake.behave(|_, _| Act::Ok(millis(500)));
    rig.give(1, 0..100);
    sleep(millis(100)).await;
    rig.stop().await;
    assert_eq!((rig.fake.tries_of(1).len(), rig.fake.taken_of(1)), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn rows_that_wait_in_a_busy_queue_show_on_its_gauge_until_they_are_through() {
    let rig = Rig::new();
    rig.give(1, 0..5_000);
    rig.until("some", |fake| fake.taken_of(1) > 2_500).await;
    assert!(rig.fake.gauge.is_full());
    rig.until("all", |fake| fake.taken_of(1) == 5_000).await;
    assert!(!rig.fake.gauge.is_full());
}

#[tokio::test(start_paused = true)]
async fn rows_that_wait_for_a_slow_side_do_not_show() {
    let rig = Rig::new();
    rig.fake.limits.lock().unwrap().per_second = Some(1_000);
    rig.give(1, 0..5_000);
    for taken in [500, 1_500, 2_500] {
        rig.until("some", |fake| fake.taken_of(1) > taken).await;
        assert!(!rig.fake.gauge.is_full());
    }
}
