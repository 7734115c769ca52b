//! [`InFlightPolls`]: the polls in flight, by their ids, so that the service can be asked to end them.
//!
//! Messages may already be leased to a poll in flight. If the worker gave the poll up, their leases would expire, and
//! each would count a failure. So the worker does not give up a poll while there is time. It asks the service to reply
//! at once, and waits for the reply. The request to end polls may be lost, so it is repeated until the replies have
//! arrived.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use crate::{client::PollId, wire::extensions::MAX_ENDED_POLLS, worker::fetch::source::Source};

/// The timeout of one request to end polls.
const END_POLLS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the replies may take before the request is repeated; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between two requests.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Which polls to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollScope {
    All,
    /// The polls that a failing acknowledgement waits for.
    WaitedFor,
}

/// The polls in flight of one worker.
#[derive(Debug, Default)]
pub(crate) struct InFlightPolls {
    state: Mutex<PollTable>,
    /// Notified when a poll is answered.
    answered: Notify,
}

#[derive(Debug, Default)]
struct PollTable {
    next: u64,
    /// Each poll by its number, and whether a failing acknowledgement has to wait for it.
    in_flight: BTreeMap<u64, (PollId, bool)>,
}

impl InFlightPolls {
    /// Registers a poll that is about to be sent, until the guard is dropped.
    pub(crate) fn begin(&self, is_waited_for: bool) -> InFlightPoll<'_> {
        let id = PollId::unique();
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.in_flight.insert(number, (id.clone(), is_waited_for));
        InFlightPoll { polls: self, number, id }
    }

    /// The number of polls in flight.
    pub(crate) fn count(&self) -> usize {
        self.lock().in_flight.len()
    }

    /// Asks the service to end polls, repeatedly until all are answered. Returns at once if the service does not
    /// support that. Cancel-safe.
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
                    Ok(Err(error)) => tracing::debug!(%error, "polls could not be ended; retrying"),
                    Err(_) => tracing::debug!("polls were not ended in time; retrying"),
                }
            }
            if timeout(pause, self.until_in(which)).await.is_ok() {
                return;
            }
            pause = (pause * 2).min(MAX_PAUSE);
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
        let chosen = state.in_flight.values().filter(|(_, is_waited_for)| which == PollScope::All || *is_waited_for);
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
        self.polls.lock().in_flight.remove(&self.number);
        self.polls.answered.notify_waiters();
    }
}
