//! Work that is finished but not acknowledged: it comes again, and is not run again.
//!
//! When a message fails, those behind it in its batch come again although their handlers may have succeeded; so do messages
//! whose acknowledgement was lost. For a while the worker remembers them, and acknowledges them when they come.
//!
//! Safe only by a key that is one message's own: the place in its queue that our server sends beside a message, or an attribute
//! that the user vouches for. Two messages with equal bodies are two messages, so without such a key nothing is remembered
//! and the handler runs again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::message::ReceivedMessage;

/// How many messages are remembered.
const CAPACITY: usize = 10_000;

/// What tells one message from all others of its stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// Its place in the stream and when it entered it, as the server gave them: after a restore from a backup the places of the
    /// lost messages are given to others.
    Place(u64, Option<i64>),
    /// The value of the attribute that the user named.
    Unique(String),
}

impl Identity {
    /// The identity of a message, if it has one. A named attribute goes before the place.
    pub(crate) fn of(message: &ReceivedMessage, unique_attribute: Option<&str>) -> Option<Self> {
        match unique_attribute {
            Some(name) => message.attributes.get(name).map(|value| Self::Unique(value.to_string())),
            None => message.sequence.map(|sequence| Self::Place(sequence, message.entered_ms)),
        }
    }
}

/// The memory of one worker.
#[derive(Debug)]
pub(crate) struct Finished {
    table: Mutex<Table>,
    keep: Duration,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Identity, (Instant, State)>,
    /// In the order of their noting; an entry that was noted again has an old line here.
    order: VecDeque<(Instant, Identity)>,
}

#[derive(Clone, Debug)]
enum State {
    Done,
    /// Still running; tells when it ends whether it succeeded.
    Running(watch::Receiver<Option<bool>>),
}

impl State {
    /// Whether the run has succeeded, or may yet.
    fn is_hopeful(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Running(end) => end.borrow().unwrap_or_else(|| end.has_changed().is_ok()),
        }
    }
}

impl Finished {
    /// Remembers each message for so long: past the longest time until it comes again.
    pub(crate) fn new(keep: Duration) -> Self {
        Self { table: Mutex::default(), keep }
    }

    /// The handler has succeeded, and the message comes again.
    pub(crate) fn done(&self, identity: Identity) {
        self.note(identity, State::Done);
    }

    /// The handler is still running while the message comes again. `None` when an earlier run goes on or has succeeded: then this
    /// delivery has not begun, and what it waits for stays known.
    pub(crate) fn running(&self, identity: Identity) -> Option<StillRunning> {
        let hopeful = |(noted, state): &(Instant, State)| noted.elapsed() < self.keep && state.is_hopeful();
        if self.lock().entries.get(&identity).is_some_and(hopeful) {
            return None;
        }
        let (ended, end) = watch::channel(None);
        self.note(identity, State::Running(end));
        Some(StillRunning(ended))
    }

    /// Whether the message was handled before. Waits for the end of a run that is still going on.
    pub(crate) async fn recall(&self, identity: &Identity) -> bool {
        let known = self.lock().entries.get(identity).filter(|(noted, _)| noted.elapsed() < self.keep).cloned();
        match known {
            None => false,
            Some((_, State::Done)) => true,
            Some((_, State::Running(mut end))) => {
                let done = end.wait_for(Option::is_some).await.is_ok_and(|done| *done == Some(true));
                if done {
                    self.done(identity.clone());
                }
                done
            }
        }
    }

    fn note(&self, identity: Identity, state: State) {
        let now = Instant::now();
        let mut table = self.lock();
        table.order.push_back((now, identity.clone()));
        table.entries.insert(identity, (now, state));
        while let Some((noted, oldest)) = table.order.front().cloned() {
            if table.order.len() <= CAPACITY && now - noted < self.keep {
                break;
            }
            table.order.pop_front();
            if table.entries.get(&oldest).is_some_and(|(latest, _)| *latest == noted) {
                table.entries.remove(&oldest);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that can panic runs under this lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that goes on although its message comes again. Dropped without an end, it counts as failed.
#[derive(Debug)]
pub(crate) struct StillRunning(watch::Sender<Option<bool>>);

impl StillRunning {
    /// The run has ended, in success or not.
    pub(crate) fn ended(self, done: bool) {
        self.0.send_replace(Some(done));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const KEEP: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_was_done_is_known_for_a_while() {
        let finished = Finished::new(KEEP);
        let identity = Identity::Place(7, Some(5));
        assert!(!finished.recall(&identity).await);
        finished.done(identity.clone());
        assert!(finished.recall(&identity).await);
        assert!(!finished.recall(&Identity::Place(8, Some(5))).await);
        assert!(!finished.recall(&Identity::Place(7, Some(6))).await, "another message at the same place");
        tokio::time::advance(KEEP).await;
        assert!(!finished.recall(&identity).await);
        finished.done(Identity::Place(9, Some(5)));
        assert_eq!(finished.lock().entries.len(), 1, "what is too old is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_goes_on_is_waited_for() {
        for succeeds in [true, false] {
            let finished = Finished::new(KEEP);
            let identity = Identity::Place(7, Some(5));
            let running = finished.running(identity.clone()).unwrap();
            let recall = finished.recall(&identity);
            tokio::pin!(recall);
            assert!(futures_util::poll!(&mut recall).is_pending());
            running.ended(succeeds);
            assert_eq!(recall.await, succeeds);
        }
        let finished = Finished::new(KEEP);
        drop(finished.running(Identity::Place(1, Some(5))));
        assert!(!finished.recall(&Identity::Place(1, Some(5))).await);
    }

    /// A message that waits for its earlier run may lose its batch meanwhile: what it waits for is still the earlier run.
    #[tokio::test(start_paused = true)]
    async fn an_earlier_run_is_not_mistaken_for_a_later_one() {
        let finished = Finished::new(KEEP);
        let identity = Identity::Place(7, Some(5));
        let earlier = finished.running(identity.clone()).unwrap();
        assert!(finished.running(identity.clone()).is_none());
        earlier.ended(true);
        assert!(finished.running(identity.clone()).is_none(), "it has succeeded");
        assert!(finished.recall(&identity).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_failed_or_was_given_up_is_followed_by_another() {
        let finished = Finished::new(KEEP);
        let identity = Identity::Place(7, Some(5));
        finished.running(identity.clone()).unwrap().ended(false);
        drop(finished.running(identity.clone()).unwrap());
        assert!(finished.running(identity).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let finished = Finished::new(KEEP);
        for sequence in 0..=CAPACITY as u64 {
            finished.done(Identity::Place(sequence, Some(5)));
        }
        assert!(!finished.recall(&Identity::Place(0, Some(5))).await);
        assert!(finished.recall(&Identity::Place(1, Some(5))).await);
        assert_eq!(finished.lock().entries.len(), CAPACITY);
    }
}
