//! [`WaitingPoll`]: a consume call that waits for a message, and that can be asked to give up its connection.
//!
//! A waiting call does no work. So when a listener has no slot left for a new connection, it asks one of them to end: the
//! caller gets an empty answer, as at the end of its wait, and its connection is closed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::Notify,
    time::{Duration, Instant},
};

/// The minimum wait of a call before it is asked to end.
pub(super) const MIN_WAIT: Duration = Duration::from_secs(2);
/// How long the answer of an ended call may take to be written before the connection is cut.
const ENDED_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The consume call that waits on a connection, if any. HTTP/1.1 has one request at a time.
#[derive(Debug, Default)]
pub(crate) struct WaitingPoll {
    state: Mutex<PollState>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct PollState {
    call: Option<Call>,
    /// When a call was asked to end.
    ended_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    owner: Owner,
    since: Instant,
}

/// The owner of a waiting call, as hashes. Calls of the owners with the most calls are ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    /// The project.
    pub(crate) project: u64,
    /// The group.
    pub(crate) group: u64,
}

impl WaitingPoll {
    /// Notes that a call begins to wait. The call ends when the guard is dropped.
    pub(crate) fn begin(&self, owner: Owner) -> PollGuard<'_> {
        self.lock().call = Some(Call { owner, since: Instant::now() });
        PollGuard(self)
    }

    /// The owner of the call and when it began to wait, if it may be asked to end.
    pub(super) fn endable(&self, now: Instant) -> Option<(Owner, Instant)> {
        let state = self.lock();
        let call = state.call.filter(|call| now.duration_since(call.since) >= MIN_WAIT)?;
        state.ended_at.is_none().then_some((call.owner, call.since))
    }

    /// Asks the call to end. The connection is closed after its answer, so it has no further call.
    pub(super) fn end(&self, now: Instant) {
        self.lock().ended_at = Some(now);
        self.ended.notify_waiters();
    }

    /// Whether the answer of a call that was asked to end is still being written.
    pub(super) fn is_leaving(&self, now: Instant) -> bool {
        self.lock().ended_at.is_some_and(|at| now.duration_since(at) < ENDED_ANSWER_TIMEOUT)
    }

    fn lock(&self) -> MutexGuard<'_, PollState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiting call; dropping it ends the wait.
#[derive(Debug)]
pub(crate) struct PollGuard<'a>(&'a WaitingPoll);

impl PollGuard<'_> {
    /// Ready when the call is asked to end.
    pub(crate) async fn ended(&self) {
        let ended = self.0.ended.notified();
        tokio::pin!(ended);
        // Registered before the flag is read, so that no request to end is missed.
        ended.as_mut().enable();
        let is_ended = self.0.lock().ended_at.is_some();
        if !is_ended {
            ended.await;
        }
    }
}

impl Drop for PollGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().call = None;
    }
}
