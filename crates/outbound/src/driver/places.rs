//! Places for steps under way, over all queues of a driver: what bounds sockets and memory however many queues there are.
//!
//! A queue may hold half of what is free and no more (dynamic thresholds, as switches share their buffers): the more
//! queues hold places, the fewer each may have. A quarter is kept in reserve for queues whose other side answers at
//! present, and each of them gets but a few of it: not even hundreds that begin to hang at once leave the others none.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most places of the reserve that one queue may hold.
const MOST_OF_RESERVE: usize = 4;

/// A place; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    pub(super) is_of_reserve: bool,
}

/// What a queue holds already, and whether its other side answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holder {
    pub(super) held: usize,
    /// So many of them are of the reserve.
    pub(super) of_reserve: usize,
    pub(super) answers: bool,
}

/// All places.
#[derive(Debug)]
pub struct Places {
    common: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
}

impl Places {
    /// So many in all.
    pub fn new(all: usize) -> Arc<Self> {
        let reserve = all / 4;
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Arc::new(Self { common: semaphore(all - reserve), reserve: semaphore(reserve) })
    }

    /// One more place, if the queue may have it.
    pub(super) fn take(&self, holder: Holder) -> Option<Place> {
        let of_common = holder.held - holder.of_reserve;
        if of_common == 0 || of_common < self.common.available_permits() / 2 {
            let permit = Arc::clone(&self.common).try_acquire_owned().ok();
            if let Some(permit) = permit {
                return Some(Place { _permit: permit, is_of_reserve: false });
            }
        }
        let share = MOST_OF_RESERVE.min(self.reserve.available_permits() / (32 * MOST_OF_RESERVE)).max(1);
        if !holder.answers || holder.of_reserve >= share {
            return None;
        }
        let permit = Arc::clone(&self.reserve).try_acquire_owned().ok()?;
        Some(Place { _permit: permit, is_of_reserve: true })
    }

    /// Waits for a place: queues that have none get them in the order in which they asked.
    pub(super) async fn wait(&self, answers: bool) -> Option<Place> {
        tokio::select! {
            biased;
            permit = Arc::clone(&self.common).acquire_owned() => Some(Place { _permit: permit.ok()?, is_of_reserve: false }),
            permit = Arc::clone(&self.reserve).acquire_owned(), if answers => {
                Some(Place { _permit: permit.ok()?, is_of_reserve: true })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holder(held: &[Place], answers: bool) -> Holder {
        Holder { held: held.len(), of_reserve: held.iter().filter(|place| place.is_of_reserve).count(), answers }
    }

    /// Each of `queues` takes all it can get, one after the other.
    fn grab(places: &Places, queues: usize, most: usize, answers: bool) -> Vec<Vec<Place>> {
        let mut all: Vec<Vec<Place>> = Vec::new();
        for _ in 0..queues {
            let mut held = Vec::new();
            while held.len() < most
                && let Some(place) = places.take(holder(&held, answers))
            {
                held.push(place);
            }
            all.push(held);
        }
        all
    }

    #[test]
    fn a_queue_alone_gets_a_thousand() {
        let places = Places::new(4096);
        assert_eq!(grab(&places, 1, 1000, false)[0].len(), 1000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn however_many_hang_another_that_answers_gets_a_place(queues in 1_usize..6000, most in 1_usize..1000) {
            let places = Places::new(4096);
            let held = grab(&places, queues, most, false);
            prop_assert!(held.iter().map(Vec::len).sum::<usize>() <= 3072);
            let one_more = places.take(holder(&[], true));
            prop_assert!(one_more.is_some());
        }

        #[test]
        fn hundreds_that_answered_until_now_leave_some_too(queues in 1_usize..400, most in 1_usize..1000) {
            let places = Places::new(4096);
            let _held = grab(&places, queues, most, true);
            let others = grab(&places, 50, 64, true);
            prop_assert!(others.iter().all(|held| !held.is_empty()));
        }
    }

    #[tokio::test]
    async fn who_waits_longest_is_first() {
        let places = Places::new(1);
        let held = places.take(Holder::default());
        assert!(held.is_some() && places.take(Holder::default()).is_none());
        let (mut first, mut second) = (Box::pin(places.wait(false)), Box::pin(places.wait(true)));
        assert!(futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut second).is_pending());
        drop(held);
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(first.await.is_some());
        assert!(second.await.is_some());
    }
}
