//! A queue's steps under way, and who polls them.
//!
//! The queue's own task polls its steps: a task for each cost more than most steps do. Where many are under way that is
//! one processor's work, and the others would wait for it; so a busy queue gets further hands, tasks that poll all but a
//! few of its steps. Steps go to them and come back in bunches, and the queue's task is free to begin others meanwhile.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// So many steps the queue's own task polls itself; only further ones are worth the way to another task.
const FEW: usize = 8;

type Step<T> = BoxFuture<'static, T>;

/// Steps that end with a `T`.
pub(super) struct Steps<T> {
    own: FuturesUnordered<Step<T>>,
    hands: Vec<Hand<T>>,
    /// The most hands, the queue's own task among them.
    most_hands: usize,
    /// What further hands have sent back.
    ended: mpsc::UnboundedReceiver<Bunch<T>>,
    back: mpsc::UnboundedSender<Bunch<T>>,
    /// What came back and was not told yet.
    came: VecDeque<T>,
    len: usize,
}

/// A further hand. Neither of its ways holds more than the steps under way, which are bounded elsewhere.
struct Hand<T> {
    steps: mpsc::UnboundedSender<Vec<Step<T>>>,
    /// Not sent yet.
    outgoing: Vec<Step<T>>,
    /// How many it has, those not sent yet too.
    holds: usize,
}

/// Steps of one hand that have ended.
struct Bunch<T> {
    hand: usize,
    ended: Vec<T>,
}

impl<T: Send + 'static> Steps<T> {
    /// None under way; at most so many hands, 1 or more.
    pub(super) fn new(most_hands: usize) -> Self {
        let (back, ended) = mpsc::unbounded_channel();
        Self { own: FuturesUnordered::new(), hands: Vec::new(), most_hands, ended, back, came: VecDeque::new(), len: 0 }
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a step; it begins once the steps are polled and [`flush`](Self::flush) was called.
    pub(super) fn push(&mut self, step: Step<T>, tasks: &TaskTracker) {
        self.len += 1;
        let are_many = self.own.len() >= FEW;
        if are_many && self.hands.len() + 1 < self.most_hands {
            self.hands.push(Hand::start(self.hands.len(), self.back.clone(), tasks));
        }
        let least = self.hands.iter_mut().filter(|_| are_many).min_by_key(|hand| hand.holds);
        match least {
            Some(hand) => {
                hand.holds += 1;
                hand.outgoing.push(step);
            }
            None => self.own.push(step),
        }
    }

    /// Sends what is for further hands on its way.
    pub(super) fn flush(&mut self) {
        for hand in self.hands.iter_mut().filter(|hand| !hand.outgoing.is_empty()) {
            // A hand ends after this one alone.
            let _ = hand.steps.send(std::mem::take(&mut hand.outgoing));
        }
    }

    /// The next one that ends; none where none is under way.
    pub(super) async fn next(&mut self) -> Option<T> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(ended) = self.came.pop_front() {
            return self.told(ended);
        }
        if let Poll::Ready(Some(ended)) = self.own.poll_next_unpin(context) {
            return self.told(ended);
        }
        while let Poll::Ready(Some(bunch)) = self.ended.poll_recv(context) {
            if let Some(hand) = self.hands.get_mut(bunch.hand) {
                hand.holds -= bunch.ended.len();
            }
            self.came.extend(bunch.ended);
        }
        match self.came.pop_front() {
            Some(ended) => self.told(ended),
            None if self.is_empty() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn told(&mut self, ended: T) -> Poll<Option<T>> {
        self.len -= 1;
        Poll::Ready(Some(ended))
    }
}

impl<T: Send + 'static> Hand<T> {
    fn start(hand: usize, back: mpsc::UnboundedSender<Bunch<T>>, tasks: &TaskTracker) -> Self {
        let (steps, inbox) = mpsc::unbounded_channel();
        tasks.spawn(lend(hand, inbox, back));
        Self { steps, outgoing: Vec::new(), holds: 0 }
    }
}

/// Polls what comes until the queue is gone; what is under way then goes with it.
async fn lend<T>(hand: usize, mut inbox: mpsc::UnboundedReceiver<Vec<Step<T>>>, back: mpsc::UnboundedSender<Bunch<T>>) {
    let mut steps = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            more = inbox.recv() => match more {
                Some(more) => steps.extend(more),
                None => return,
            },
            Some(first) = steps.next() => {
                let mut ended = vec![first];
                // What this leaves unpolled the next select polls.
                while let Some(Some(one)) = steps.next().now_or_never() {
                    ended.push(one);
                }
                if back.send(Bunch { hand, ended }).is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    /// Steps that wait for the gate and then tell their number and the task that polled them.
    fn started(steps: &mut Steps<(usize, tokio::task::Id)>, count: usize, gate: &Arc<Semaphore>, tasks: &TaskTracker) {
        for n in 0..count {
            let gate = Arc::clone(gate);
            let step = async move {
                gate.acquire().await.unwrap().forget();
                (n, tokio::task::id())
            };
            steps.push(Box::pin(step), tasks);
        }
        steps.flush();
    }

    /// Runs so many steps with so many hands, twice; how many each task polled to their end the second time.
    async fn polled_by(count: usize, hands: usize) -> Vec<usize> {
        let run = async move {
            let (gate, tasks) = (Arc::new(Semaphore::new(0)), TaskTracker::new());
            let mut steps = Steps::new(hands);
            let mut by = HashMap::new();
            for _ in 0..2 {
                started(&mut steps, count, &gate, &tasks);
                assert_eq!(steps.len(), count);
                gate.add_permits(count);
                by.clear();
                let mut seen = HashSet::new();
                while let Some((n, task)) = steps.next().await {
                    assert!(seen.insert(n), "{n} ended twice");
                    *by.entry(task).or_insert(0) += 1;
                }
                assert_eq!((seen.len(), steps.len()), (count, 0));
            }
            drop(steps);
            tasks.close();
            tasks.wait().await;
            by.into_values().collect::<Vec<usize>>()
        };
        let mut counts = tokio::spawn(run).await.unwrap();
        counts.sort_unstable();
        counts
    }

    #[tokio::test]
    async fn a_few_steps_stay_with_their_queue() {
        assert_eq!(polled_by(FEW, 4).await, [FEW]);
        assert_eq!(polled_by(64, 1).await, [64]);
    }

    #[tokio::test]
    async fn further_hands_take_all_but_a_few() {
        assert_eq!(polled_by(64, 2).await, [FEW, 64 - FEW]);
        assert_eq!(polled_by(88, 3).await, [FEW, 40, 40]);
    }

    #[tokio::test]
    async fn what_further_hands_hold_goes_with_the_queue() {
        let (gate, tasks) = (Arc::new(Semaphore::new(0)), TaskTracker::new());
        let mut steps = Steps::new(2);
        started(&mut steps, 64, &gate, &tasks);
        tokio::task::yield_now().await;
        drop(steps);
        tasks.close();
        tasks.wait().await;
        assert_eq!(Arc::strong_count(&gate), 1);
    }
}
