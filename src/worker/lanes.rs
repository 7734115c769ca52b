//! Lanes: one message of a key at a time, in the order of arrival, other keys beside it.
//!
//! A message takes its place in the lane the moment it arrives. When one fails, those waiting behind it are turned away, and
//! so are later ones until the failure has been reported to the service: then they come again behind it. They are told only
//! then: reported before, they would come again at once, be turned away again, and end as dead letters of another's failure.
//! Nobody waits for each other that way, because a lane holds the messages in the order in which their batches arrived.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

/// What a waiting message is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Go,
    Away,
}

impl Lane {
    fn stop(&mut self) {
        self.stops += 1;
        for waiting in self.waiting.drain(..) {
            // It may have gone away by itself.
            let _ = waiting.send(Turn::Away);
        }
    }
}

/// All lanes of a worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lanes: Mutex<HashMap<String, Lane>>,
    /// A failure has been reported.
    reported: Notify,
}

#[derive(Debug, Default)]
struct Lane {
    busy: bool,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// Failures that have not been reported yet.
    stops: usize,
}

impl Lanes {
    /// Takes a place at the end of the lane of `key`.
    pub(crate) fn enter(&self, key: String) -> Place {
        let mut lanes = self.lock();
        let lane = lanes.entry(key.clone()).or_default();
        let (tell, turn) = oneshot::channel();
        if lane.stops > 0 {
            // Refused at once: the receiver finds the sender's word.
            let _ = tell.send(Turn::Away);
        } else if lane.busy {
            lane.waiting.push_back(tell);
        } else {
            lane.busy = true;
            let _ = tell.send(Turn::Go);
        }
        drop(lanes);
        Place { lanes: self.clone(), key, turn: Some(turn) }
    }

    /// Opens the lane of `key` again, after one failure in it has been reported.
    pub(crate) fn reopen(&self, key: &str) {
        let mut lanes = self.lock();
        if let Some(lane) = lanes.get_mut(key) {
            lane.stops = lane.stops.saturating_sub(1);
            if lane.stops == 0 && !lane.busy {
                lanes.remove(key);
            }
        }
        drop(lanes);
        self.0.reported.notify_waiters();
    }

    /// Waits until no failure of the lane is left to be reported. Cancel-safe.
    async fn until_open(&self, key: &str) {
        loop {
            let reported = self.0.reported.notified();
            tokio::pin!(reported);
            reported.as_mut().enable();
            if self.lock().get(key).is_none_or(|lane| lane.stops == 0) {
                return;
            }
            reported.await;
        }
    }

    /// Turns away those that wait, and those that come, until the lane is reopened once more.
    fn stop(&self, key: &str) {
        if let Some(lane) = self.lock().get_mut(key) {
            lane.stop();
        }
    }

    fn leave(&self, key: &str, failed: bool) {
        let mut lanes = self.lock();
        let Some(lane) = lanes.get_mut(key) else { return };
        lane.busy = false;
        if failed {
            lane.stop();
        }
        // One that has gone away by itself (its batch ended) is passed over.
        while let Some(next) = lane.waiting.pop_front() {
            if next.send(Turn::Go).is_ok() {
                lane.busy = true;
                return;
            }
        }
        if lane.stops == 0 {
            lanes.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Lane>> {
        // No code that can panic runs under this lock.
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a lane, not at its head yet.
#[derive(Debug)]
pub(crate) struct Place {
    lanes: Lanes,
    key: String,
    turn: Option<oneshot::Receiver<Turn>>,
}

impl Place {
    /// Waits for the head of the lane; `None` when one in front failed, and that has been reported.
    pub(crate) async fn turn(mut self) -> Option<Head> {
        let turn = self.turn.as_mut()?.await;
        if turn != Ok(Turn::Go) {
            self.lanes.until_open(&self.key).await;
        }
        self.turn = None;
        match turn {
            Ok(Turn::Go) => Some(Head { lanes: self.lanes.clone(), key: std::mem::take(&mut self.key), failed: true }),
            Ok(Turn::Away) | Err(_) => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(mut turn) = self.turn.take() else { return };
        // Given up while waiting: it comes again, and those behind it must not overtake it.
        turn.close();
        match turn.try_recv() {
            // Its turn came in this very moment.
            Ok(Turn::Go) => self.lanes.leave(&self.key, true),
            Ok(Turn::Away) | Err(_) => self.lanes.stop(&self.key),
        }
    }
}

/// The head of a lane: its message may be handled. Dropped without [`done`](Self::done), it counts as failed.
#[derive(Debug)]
pub(crate) struct Head {
    lanes: Lanes,
    key: String,
    failed: bool,
}

impl Head {
    /// The message was handled: the next one's turn.
    pub(crate) fn done(mut self) {
        self.failed = false;
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.lanes.leave(&self.key, self.failed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_key_runs_in_order_and_others_beside_it() {
        let lanes = Lanes::default();
        let (first, second) = (lanes.enter("a".into()), lanes.enter("a".into()));
        let other = lanes.enter("b".into());
        let head = first.turn().await.unwrap();
        assert!(other.turn().now_or_never().flatten().is_some());
        let mut second = Box::pin(second.turn());
        assert!(futures_util::poll!(&mut second).is_pending());
        head.done();
        second.await.unwrap().done();
    }

    #[tokio::test]
    async fn a_failure_turns_away_those_behind_it_until_it_is_reported() {
        let lanes = Lanes::default();
        let (first, second) = (lanes.enter("a".into()), lanes.enter("a".into()));
        drop(first.turn().await.unwrap());
        let (mut second, mut third) = (Box::pin(second.turn()), Box::pin(lanes.enter("a".into()).turn()));
        assert!(futures_util::poll!(&mut second).is_pending(), "the failure is not reported yet");
        assert!(futures_util::poll!(&mut third).is_pending(), "the failure is not reported yet");
        lanes.reopen("a");
        assert!(second.await.is_none(), "it waited behind the failure");
        assert!(third.await.is_none(), "it came before the failure was reported");
        lanes.enter("a".into()).turn().await.unwrap().done();
        assert!(lanes.lock().is_empty(), "an idle lane costs nothing");
    }

    #[tokio::test]
    async fn one_that_gives_up_waiting_is_not_overtaken() {
        let lanes = Lanes::default();
        let (first, second, third) = (lanes.enter("a".into()), lanes.enter("a".into()), lanes.enter("a".into()));
        let head = first.turn().await.unwrap();
        drop(second);
        head.done();
        let mut third = Box::pin(third.turn());
        assert!(futures_util::poll!(&mut third).is_pending(), "the second is not reported yet");
        lanes.reopen("a");
        assert!(third.await.is_none(), "the second comes again before the third");
        lanes.enter("a".into()).turn().await.unwrap().done();
        assert!(lanes.lock().is_empty());
    }
}
