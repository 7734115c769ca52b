//! The polls in flight, by their ids, so that they can be ended.
//!
//! A poll that is given up may already have messages leased to it, and their lapse is a failure of each. So a poll is never given up
//! while there is time: the service is asked to answer it at once, and its answer is waited for. A request that ends polls can be
//! lost, so it is repeated until they are in.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use crate::{client::PollId, wire::extensions::MAX_ENDED_POLLS, worker::fetch::source::Source};

/// How long one try to end polls may take.
const END_POLLS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long their answers may take before the service is asked once more; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Which polls are to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollScope {
    All,
    /// Those that a failing acknowledgement waits for.
    WaitedFor,
}

/// The polls in flight of one worker.
#[derive(Debug, Default)]
pub(crate) struct InFlightPolls {
    state: Mutex<PollTable>,
    /// One has come in.
    answered: Notify,
}

#[derive(Debug, Default)]
struct PollTable {
    next: u64,
    out: BTreeMap<u64, (PollId, bool)>,
}

impl InFlightPolls {
    /// A poll is about to be sent. It counts until the guard is dropped.
    pub(crate) fn begin(&self, is_waited_for: bool) -> InFlightPoll<'_> {
        let id = PollId::unique();
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.out.insert(number, (id.clone(), is_waited_for));
        InFlightPoll { polls: self, number, id }
    }

    /// How many are in flight.
    pub(crate) fn count(&self) -> usize {
        self.lock().out.len()
    }

    /// Has the service end polls, again and again until they are in. Returns at once where it cannot do that. Cancel-safe.
    pub(crate) async fn end(&self, source: &dyn Source, which: PollScope) {
        let mut pause = FIRST_PAUSE;
        loop {
            let ids = self.ids(which);
            if ids.is_empty() || !source.extensions().end_poll() {
                return;
            }
            for ids in ids.chunks(MAX_ENDED_POLLS) {
                match timeout(END_POLLS_TIMEOUT, source.end_polls(ids)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "polls could not be ended: it is tried again"),
                    Err(_) => tracing::debug!("polls were not ended in time: it is tried again"),
                }
            }
            if timeout(pause, self.until_in(which)).await.is_ok() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn until_in(&self, which: PollScope) {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if self.ids(which).is_empty() {
                return;
            }
            answered.await;
        }
    }

    fn ids(&self, which: PollScope) -> Vec<PollId> {
        let state = self.lock();
        let chosen = state.out.values().filter(|(_, is_waited_for)| which == PollScope::All || *is_waited_for);
        chosen.map(|(id, _)| id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, PollTable> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A poll in flight.
#[derive(Debug)]
pub(crate) struct InFlightPoll<'a> {
    polls: &'a InFlightPolls,
    number: u64,
    pub(crate) id: PollId,
}

impl Drop for InFlightPoll<'_> {
    fn drop(&mut self) {
        self.polls.lock().out.remove(&self.number);
        self.polls.answered.notify_waiters();
    }
}
