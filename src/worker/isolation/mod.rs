//! [`Isolation`]: keeps one poison message from dead-lettering its neighbours.
//!
//! A failing acknowledgement also fails the messages after the failure, and a service may count that against each of
//! them. So before such an acknowledgement is sent, no other poll for more than one message is in flight. Afterwards
//! messages are fetched one at a time, until all messages that became available again have been seen (see [`quarantine`]). So
//! each neighbour fails at most once, and then succeeds alone. Then batches grow again.
//!
//! The messages are quarantined before the acknowledgement is sent, and stay so whatever its result: a lost reply, an
//! expired lease, a panic. Only a refusal that certainly changed nothing clears them.
//!
//! A poll in flight is waited for and never given up, because messages may already be leased to it, and the service
//! would count their expiry. So batch polls wait only shortly while anything is in flight, and a poller that found the
//! queue empty asks for one message. With ordering by key every poll is waited for, because a single message can arrive
//! behind a failure of its key and be turned away.
//!
//! Failing acknowledgements gather for a moment, so that a series of failures stops batch polls once and not for each.

pub(crate) mod quarantine;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

pub use self::quarantine::Isolated;
use crate::worker::isolation::quarantine::{LeaseEnds, MessageTrace, Quarantine};

/// How long failing acknowledgements gather before batch polls have to be answered.
const GATHER_TIME: Duration = Duration::from_millis(50);

/// Decides whether polls ask for batches or for single messages.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    state: Mutex<IsolationState>,
    changed: Notify,
    mode: FetchMode,
    /// What the status of the worker shows.
    shown: Arc<Mutex<Isolated>>,
}

/// How the worker fetches messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FetchMode {
    /// There is only one poller, which gathering would delay without need.
    pub(crate) single_poller: bool,
    /// The queue is a FIFO queue.
    pub(crate) fifo: bool,
    /// Messages are ordered by key.
    pub(crate) keys: bool,
}

#[derive(Debug, Default)]
struct IsolationState {
    /// Polls in flight that a failing acknowledgement has to wait for.
    batch_polls: usize,
    /// The end of the time in which failing acknowledgements gather.
    gathering_until: Option<Instant>,
    /// Failing acknowledgements that wait for batch polls or for their reply.
    failing: usize,
    /// Messages of failed batches that may be redelivered together.
    quarantine: Quarantine,
}

/// The permission to send one poll.
#[derive(Debug)]
pub(crate) struct IsolationPermit<'a> {
    isolation: &'a Isolation,
    width: Width,
    /// The number of messages that the poll may ask for.
    want: usize,
}

/// How many messages a poll may receive, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// A batch, or a single message that may be turned away.
    Batch,
    /// One message, because only one was wanted.
    Single,
    /// One message, because it may have failed before.
    Suspect,
}

impl Isolation {
    pub(crate) fn new(mode: FetchMode) -> Self {
        let state = IsolationState { quarantine: Quarantine::new(mode.fifo), ..IsolationState::default() };
        Self { state: Mutex::new(state), mode, ..Self::default() }
    }

    /// Shows its messages here from now on.
    pub(crate) fn shown_in(self, shown: &Arc<Mutex<Isolated>>) -> Self {
        Self { shown: Arc::clone(shown), ..self }
    }

    /// Waits until a poll may be sent, for `want` messages, or for one while messages are quarantined. Cancel-safe.
    pub(crate) async fn admit(&self, want: usize) -> IsolationPermit<'_> {
        self.when(|state| {
            // A poll for a batch could receive a quarantined message together with others.
            if !state.quarantine.is_empty() {
                return Some(IsolationPermit { isolation: self, width: Width::Suspect, want: 1 });
            }
            if state.failing > 0 {
                return None;
            }
            let width = if want > 1 || self.mode.keys { Width::Batch } else { Width::Single };
            state.batch_polls += usize::from(width == Width::Batch);
            Some(IsolationPermit { isolation: self, width, want })
        })
        .await
    }

    /// Stops batch polls for a failing acknowledgement, and waits until those in flight are answered.
    ///
    /// # Cancel safety
    /// Dropping the future lets batch polls continue.
    pub(crate) async fn close(&self) -> ClosedPolls<'_> {
        if !self.mode.single_poller {
            sleep_until(self.gather()).await;
        }
        // Closed before waiting: new polls must not begin while the last ones are waited for, or the wait might never
        // end.
        let closed = self.close_at_once();
        self.when(|state| (state.batch_polls == 0).then_some(())).await;
        closed
    }

    /// The same without waiting for the polls in flight, if there is no time for it.
    pub(crate) fn close_at_once(&self) -> ClosedPolls<'_> {
        self.update(|state| state.failing += 1);
        ClosedPolls { isolation: self, quarantined: None }
    }

    /// Whether the next polls are for single messages, so that waiting for more capacity is useless.
    pub(crate) fn has_quarantined(&self) -> bool {
        !self.lock().quarantine.is_empty()
    }

    /// The end of the gathering that is in progress, or of a new one.
    fn gather(&self) -> Instant {
        let (mut state, now) = (self.lock(), Instant::now());
        let until = state.gathering_until.filter(|until| *until > now).unwrap_or(now + GATHER_TIME);
        state.gathering_until = Some(until);
        until
    }

    /// Quarantines messages that are available again, the failure first, although no failure was reported. By `until`,
    /// the lease of a replica that has received them has expired.
    pub(crate) fn suspect(&self, failed: &[MessageTrace], until: Instant) {
        if failed.is_empty() {
            return;
        }
        let leases = LeaseEnds { own: Instant::now(), others: until };
        self.update(|state| state.quarantine.add(failed, leases));
    }

    /// Waits until `decide` has a result. It is called after every change, under the lock.
    async fn when<T>(&self, mut decide: impl FnMut(&mut IsolationState) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that a change between the two is not missed.
            changed.as_mut().enable();
            if let Some(decided) = decide(&mut self.lock()) {
                return decided;
            }
            changed.await;
        }
    }

    /// Makes a change, shows its result to operators, and wakes everything that waits.
    fn update(&self, change: impl FnOnce(&mut IsolationState)) {
        {
            let mut state = self.lock();
            let was_empty = state.quarantine.is_empty();
            change(&mut state);
            // The quarantine is nearly always empty.
            if !was_empty || !state.quarantine.is_empty() {
                *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = state.quarantine.isolated();
            }
        }
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, IsolationState> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IsolationPermit<'_> {
    /// How many messages the poll may ask for.
    pub(crate) fn want(&self) -> usize {
        self.want
    }

    /// Whether the poll is for quarantined messages.
    pub(crate) fn is_for_suspects(&self) -> bool {
        self.width == Width::Suspect
    }

    /// Whether a failing acknowledgement has to wait for the poll.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.width == Width::Batch
    }

    /// Records the messages that the poll has received.
    pub(crate) fn answered(self, messages: &[MessageTrace]) {
        self.isolation.update(|state| state.quarantine.fetched(messages, Instant::now()));
    }
}

impl Drop for IsolationPermit<'_> {
    fn drop(&mut self) {
        if self.is_waited_for() {
            self.isolation.update(|state| state.batch_polls -= 1);
        }
    }
}

/// Guard that stops batch polls. Dropped, it lets them continue, for single messages if messages were quarantined.
#[derive(Debug)]
pub(crate) struct ClosedPolls<'a> {
    isolation: &'a Isolation,
    quarantined: Option<(Vec<MessageTrace>, LeaseEnds)>,
}

impl ClosedPolls<'_> {
    /// Quarantines these messages, the failure first, when polls continue, whatever the result of the acknowledgement.
    pub(crate) fn quarantine(&mut self, failed: Vec<MessageTrace>, leases: LeaseEnds) {
        self.quarantined = Some((failed, leases));
    }

    /// The acknowledgement was answered. The messages are available again at once, or leased to another replica until
    /// `until` at most.
    pub(crate) fn answered(&mut self, until: Instant) {
        if let Some((_, leases)) = &mut self.quarantined {
            *leases = LeaseEnds { own: Instant::now(), others: until };
        }
    }

    /// The acknowledgement was refused and certainly changed nothing.
    pub(crate) fn clear(&mut self) {
        self.quarantined = None;
    }
}

impl Drop for ClosedPolls<'_> {
    fn drop(&mut self) {
        let quarantined = self.quarantined.take();
        self.isolation.update(|state| {
            state.failing -= 1;
            if let Some((failed, leases)) = quarantined {
                state.quarantine.add(&failed, leases);
            }
        });
    }
}

#[cfg(test)]
mod tests;
