//! [`KeyedQueues`]: one message of a key at a time, in the order of arrival, with other keys in parallel.
//!
//! A message enters the queue of its key when it arrives. If a message fails, the messages after it are turned away,
//! and so are later arrivals, until the failure has been reported to the service; the service then redelivers them after
//! the failed message. They learn of it only once the failure is reported. Otherwise they would be redelivered before
//! it, be turned away again, and become dead letters because of another message's failure.
//!
//! This cannot deadlock, because each queue keeps the messages in the order in which their batches arrived.
//!
//! Entering a queue also returns a [`StopGuard`], which is dropped when the message has been reported. It reopens the
//! queue if, and only if, this message has stopped it. So no end of a run, however sudden, leaves a queue closed, or
//! opens a queue that another message's failure has closed.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::sync::{Notify, oneshot};

/// The signal to a waiting message: start, or give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Go,
    Away,
}

/// The queues of all keys of a worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyedQueues(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    queues: Mutex<HashMap<String, KeyQueue>>,
    /// Notified when a failure has been reported.
    reported: Notify,
}

#[derive(Debug, Default)]
struct KeyQueue {
    /// Whether a message of the key is being handled.
    busy: bool,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// The number of failures that have not been reported yet.
    stops: usize,
}

/// One message in its queue. The flags change only under the lock of the queues.
#[derive(Debug)]
struct QueueEntry {
    queues: KeyedQueues,
    key: String,
    /// The message has stopped its queue, and has not been reported.
    stops: AtomicBool,
    /// The message has been reported, or never will be.
    reported: AtomicBool,
}

impl KeyQueue {
    /// Turns away waiting and arriving messages until the queue is reopened.
    fn stop(&mut self, entry: &QueueEntry) {
        for waiting in self.waiting.drain(..) {
            // The receiver may be gone, because its batch has ended.
            let _ = waiting.send(Turn::Away);
        }
        // A message that has been reported is redelivered anyway.
        if !entry.reported.load(Relaxed) {
            entry.stops.store(true, Relaxed);
            self.stops += 1;
        }
    }
}

impl KeyedQueues {
    /// Enters the queue of `key`. The guard is dropped when the message has been reported.
    pub(crate) fn enter(&self, key: String) -> (Ticket, StopGuard) {
        let mut queues = self.lock();
        let queue = queues.entry(key.clone()).or_default();
        let (sender, turn) = oneshot::channel();
        if queue.stops > 0 {
            // The receiver finds this signal at once.
            let _ = sender.send(Turn::Away);
        } else if queue.busy {
            queue.waiting.push_back(sender);
        } else {
            queue.busy = true;
            let _ = sender.send(Turn::Go);
        }
        drop(queues);
        let (stops, reported) = (AtomicBool::new(false), AtomicBool::new(false));
        let entry = Arc::new(QueueEntry { queues: self.clone(), key, stops, reported });
        (Ticket { entry: entry.clone(), turn: Some(turn) }, StopGuard(entry))
    }

    /// Waits until no failure of the key is left to be reported. Cancel-safe.
    async fn until_open(&self, key: &str) {
        loop {
            let reported = self.0.reported.notified();
            tokio::pin!(reported);
            // Registered before looking, so that a report between the two is not missed.
            reported.as_mut().enable();
            if self.lock().get(key).is_none_or(|queue| queue.stops == 0) {
                return;
            }
            reported.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, KeyQueue>> {
        // No code that can panic runs under this lock.
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueEntry {
    /// Stops the queue without having been at its head.
    fn stop(&self) {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get_mut(&self.key) {
            queue.stop(self);
            if queue.stops == 0 && !queue.busy {
                queues.remove(&self.key);
            }
        }
    }

    /// Passes the head of the queue to the next message, or stops the queue.
    fn leave(&self, failed: bool) {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(&self.key) else { return };
        queue.busy = false;
        if failed {
            queue.stop(self);
        }
        // A message whose batch has ended is skipped.
        while let Some(next) = queue.waiting.pop_front() {
            if next.send(Turn::Go).is_ok() {
                queue.busy = true;
                return;
            }
        }
        // An idle queue is removed, because keys that are never seen again would collect.
        if queue.stops == 0 {
            queues.remove(&self.key);
        }
    }

    /// Reopens the queue if this message has stopped it.
    fn report(&self) {
        let mut queues = self.queues.lock();
        self.reported.store(true, Relaxed);
        if !self.stops.swap(false, Relaxed) {
            return;
        }
        if let Some(queue) = queues.get_mut(&self.key) {
            queue.stops = queue.stops.saturating_sub(1);
            if queue.stops == 0 && !queue.busy {
                queues.remove(&self.key);
            }
        }
        drop(queues);
        self.queues.0.reported.notify_waiters();
    }
}

/// Guard of a message that has not been reported. Dropped, it reopens the queue if the message has stopped it.
#[derive(Debug)]
pub(crate) struct StopGuard(Arc<QueueEntry>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.report();
    }
}

/// A place in a queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    entry: Arc<QueueEntry>,
    turn: Option<oneshot::Receiver<Turn>>,
}

impl Ticket {
    /// Waits for the head of the queue. `None` if a message before it failed; that failure has then been reported.
    pub(crate) async fn turn(mut self) -> Option<KeyGuard> {
        let turn = self.turn.as_mut()?.await;
        if turn != Ok(Turn::Go) {
            self.entry.queues.until_open(&self.entry.key).await;
        }
        self.turn = None;
        match turn {
            // Failed until it says otherwise, so that a run that panics or is dropped stops its queue too.
            Ok(Turn::Go) => Some(KeyGuard { entry: self.entry.clone(), failed: true }),
            Ok(Turn::Away) | Err(_) => None,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(mut turn) = self.turn.take() else { return };
        // The run gave up waiting. Its message is redelivered, and those after it must not overtake it.
        turn.close();
        match turn.try_recv() {
            // Its turn came at this very moment.
            Ok(Turn::Go) => self.entry.leave(true),
            Ok(Turn::Away) | Err(_) => self.entry.stop(),
        }
    }
}

/// The head of a queue: its message may be handled. Dropped without [`done`](Self::done), it counts as failed.
#[derive(Debug)]
pub(crate) struct KeyGuard {
    entry: Arc<QueueEntry>,
    failed: bool,
}

impl KeyGuard {
    /// The message was handled; the next one may start.
    pub(crate) fn done(mut self) {
        self.failed = false;
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        self.entry.leave(self.failed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;

    use super::*;

    fn enter(queues: &KeyedQueues) -> (Ticket, StopGuard) {
        queues.enter("a".into())
    }

    /// An idle queue is removed.
    async fn continues_to_work(queues: &KeyedQueues) {
        let (place, stop_guard) = enter(queues);
        place.turn().await.unwrap().done();
        drop(stop_guard);
        assert!(queues.lock().is_empty());
    }

    #[tokio::test]
    async fn a_key_runs_in_order_and_other_keys_concurrently() {
        let queues = KeyedQueues::default();
        let ((first, _one), (second, _two)) = (enter(&queues), enter(&queues));
        let (other, _three) = queues.enter("b".into());
        let head = first.turn().await.unwrap();
        assert!(other.turn().now_or_never().flatten().is_some());
        let mut second = Box::pin(second.turn());
        assert!(futures_util::poll!(&mut second).is_pending());
        head.done();
        second.await.unwrap().done();
    }

    #[tokio::test]
    async fn a_failure_turns_away_the_messages_after_it_until_it_is_reported() {
        let queues = KeyedQueues::default();
        let ((first, one), (second, two)) = (enter(&queues), enter(&queues));
        drop(first.turn().await.unwrap());
        let (third, three) = enter(&queues);
        let (mut second, mut third) = (Box::pin(second.turn()), Box::pin(third.turn()));
        assert!(futures_util::poll!(&mut second).is_pending(), "the failure is not reported yet");
        assert!(futures_util::poll!(&mut third).is_pending(), "the failure is not reported yet");
        drop(two);
        assert!(futures_util::poll!(&mut second).is_pending(), "another's report opens nothing");
        drop(one);
        assert!(second.await.is_none(), "it waited behind the failure");
        assert!(third.await.is_none(), "it came before the failure was reported");
        drop(three);
        continues_to_work(&queues).await;
    }

    #[tokio::test]
    async fn a_message_that_gives_up_waiting_is_not_overtaken() {
        let queues = KeyedQueues::default();
        let ((first, one), (second, two), (third, three)) = (enter(&queues), enter(&queues), enter(&queues));
        let head = first.turn().await.unwrap();
        drop(second);
        head.done();
        let mut third = Box::pin(third.turn());
        assert!(futures_util::poll!(&mut third).is_pending(), "the second is not reported yet");
        drop(two);
        assert!(third.await.is_none(), "the second is redelivered before the third");
        drop((one, three));
        continues_to_work(&queues).await;
    }

    /// A run that continued after a failure, or that did not stop; its batch was reported long ago.
    #[tokio::test]
    async fn a_failure_after_its_report_turns_away_only_messages_that_wait() {
        let queues = KeyedQueues::default();
        let ((first, one), (second, two)) = (enter(&queues), enter(&queues));
        let head = first.turn().await.unwrap();
        drop(one);
        drop(head);
        assert!(second.turn().await.is_none(), "it came behind the failure");
        drop(two);
        continues_to_work(&queues).await;
    }
}
