//! No collateral: one poison message must not push its innocent neighbours into the dead letters.
//!
//! A failing acknowledgement fails everything behind the failure too, and a service may count that against every one of those
//! messages. So before such an acknowledgement is sent, no other poll for more than one message is out, and afterwards messages
//! are fetched one at a time until those that became available again are past ([`suspects`](crate::worker::isolation::quarantine)): each neighbour is
//! hit once at most, and succeeds alone. Then batches grow again.
//!
//! They are under suspicion before the acknowledgement goes out, and stay so whatever comes of it: an answer that is lost, a lease that is
//! over, a panic. Only a refusal that surely changed nothing clears them.
//!
//! A poll that is out is waited for and never given up: the service may already have leased messages to it, and would count their
//! lapse. So wide polls wait shortly while anything is in flight, and a poller that found the queue empty asks for one message only.
//! Where there are lanes every poll is waited for: a single message can fall behind a failure too, and be turned away.
//!
//! Failing acknowledgements gather for a moment, so that a stream of failures closes the wide polls once and not for each.

pub(crate) mod quarantine;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::worker::isolation::quarantine::{Absence, MessageTrace, Quarantine};

/// How long failing acknowledgements gather before the wide polls have to be in.
const GATHER_TIME: Duration = Duration::from_millis(50);

/// The width of the fetch path of one worker: wide polls for whole batches, or narrow ones for single messages.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    state: Mutex<IsolationState>,
    changed: Notify,
    paths: Paths,
}

/// How messages come in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paths {
    /// There is only one poller, so gathering would only make it wait.
    pub(crate) alone: bool,
    /// Strictly in order.
    pub(crate) fifo: bool,
    /// In lanes.
    pub(crate) lanes: bool,
}

#[derive(Debug, Default)]
struct IsolationState {
    /// Polls out that a failing acknowledgement has to wait for.
    batch_polls: usize,
    /// Until when failing acknowledgements gather.
    gathering_until: Option<Instant>,
    /// Failing acknowledgements that wait for the wide polls or for their answer.
    failing: usize,
    /// Messages of failed batches that may still come back together.
    suspects: Quarantine,
}

/// What a poll may ask for.
#[derive(Debug)]
pub(crate) struct IsolationPermit<'a> {
    isolation: &'a Isolation,
    width: Width,
    want: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// A whole batch, or a message that may be turned away.
    Batch,
    /// One message because only one was wanted.
    Single,
    /// One message because it may be the one that failed.
    Suspect,
}

impl Isolation {
    pub(crate) fn new(paths: Paths) -> Self {
        let state = IsolationState { suspects: Quarantine::new(paths.fifo), ..IsolationState::default() };
        Self { state: Mutex::new(state), paths, ..Self::default() }
    }

    /// Waits until a poll may go out, and says for how many messages: `want`, or one while messages are under suspicion.
    ///
    /// Cancel-safe.
    pub(crate) async fn admit(&self, want: usize) -> IsolationPermit<'_> {
        self.when(|state| {
            // A wide poll could catch a suspect together with others.
            if !state.suspects.is_empty() {
                return Some(IsolationPermit { isolation: self, width: Width::Suspect, want: 1 });
            }
            if state.failing > 0 {
                return None;
            }
            let width = if want > 1 || self.paths.lanes { Width::Batch } else { Width::Single };
            state.batch_polls += usize::from(width == Width::Batch);
            Some(IsolationPermit { isolation: self, width, want })
        })
        .await
    }

    /// Closes the wide polls for a failing acknowledgement, and waits until the last of them is in.
    ///
    /// Cancel-safe: dropped, it lets them go on.
    pub(crate) async fn close(&self) -> ClosedPolls<'_> {
        if !self.paths.alone {
            sleep_until(self.gather()).await;
        }
        let closed = self.close_at_once();
        self.when(|state| (state.batch_polls == 0).then_some(())).await;
        closed
    }

    /// The same without waiting for the polls that are out: there is no more time for it.
    pub(crate) fn close_at_once(&self) -> ClosedPolls<'_> {
        self.update(|state| state.failing += 1);
        ClosedPolls { isolation: self, quarantined: None }
    }

    /// Whether the next polls are for single messages: room for more would be waited for in vain.
    pub(crate) fn has_suspects(&self) -> bool {
        !self.lock().suspects.is_empty()
    }

    /// The end of the gathering that is under way, or of a new one.
    fn gather(&self) -> Instant {
        let (mut state, now) = (self.lock(), Instant::now());
        let until = state.gathering_until.filter(|until| *until > now).unwrap_or(now + GATHER_TIME);
        state.gathering_until = Some(until);
        until
    }

    /// These messages are available again, the failure first, though no failure was reported. A replica that takes them has let go of them by
    /// `until`.
    pub(crate) fn suspect(&self, failed: &[MessageTrace], until: Instant) {
        if failed.is_empty() {
            return;
        }
        let absence = Absence { held_until: Instant::now(), until };
        self.update(|state| state.suspects.add(failed, absence));
    }

    async fn when<T>(&self, mut decide: impl FnMut(&mut IsolationState) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(decided) = decide(&mut self.lock()) {
                return decided;
            }
            changed.await;
        }
    }

    fn update(&self, change: impl FnOnce(&mut IsolationState)) {
        change(&mut self.lock());
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

    /// Whether the poll is after messages under suspicion.
    pub(crate) fn is_for_suspects(&self) -> bool {
        self.width == Width::Suspect
    }

    /// Whether a failing acknowledgement has to wait for the poll.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.width == Width::Batch
    }

    /// Takes in what the poll brought.
    pub(crate) fn answered(self, messages: &[MessageTrace]) {
        self.isolation.update(|state| state.suspects.fetched(messages, Instant::now()));
    }
}

impl Drop for IsolationPermit<'_> {
    fn drop(&mut self) {
        if self.is_waited_for() {
            self.isolation.update(|state| state.batch_polls -= 1);
        }
    }
}

/// The wide polls are in; dropping this lets them out again, narrow where messages are accused.
#[derive(Debug)]
pub(crate) struct ClosedPolls<'a> {
    isolation: &'a Isolation,
    quarantined: Option<(Vec<MessageTrace>, Absence)>,
}

impl ClosedPolls<'_> {
    /// From the moment when polls go out again these messages are under suspicion, the failure first; however the acknowledgement ends.
    pub(crate) fn quarantine(&mut self, failed: Vec<MessageTrace>, absence: Absence) {
        self.quarantined = Some((failed, absence));
    }

    /// The acknowledgement was answered: they are available again at once, and with another replica until then at most.
    pub(crate) fn answered(&mut self, until: Instant) {
        if let Some((_, absence)) = &mut self.quarantined {
            *absence = Absence { held_until: Instant::now(), until };
        }
    }

    /// The acknowledgement was refused, and surely changed nothing.
    pub(crate) fn clear(&mut self) {
        self.quarantined = None;
    }
}

impl Drop for ClosedPolls<'_> {
    fn drop(&mut self) {
        let quarantined = self.quarantined.take();
        self.isolation.update(|state| {
            state.failing -= 1;
            if let Some((failed, absence)) = quarantined {
                state.suspects.add(&failed, absence);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;

    fn messages(count: usize) -> Vec<MessageTrace> {
        vec![MessageTrace { sequence: None, attempt: None }; count]
    }

    fn suspect(isolation: &Isolation, count: usize) {
        isolation.suspect(&messages(count), Instant::now() + Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_acknowledgement_waits_for_the_wide_polls() {
        let isolation = Isolation::default();
        let batch_polls = isolation.admit(10).await;
        let close = isolation.close();
        tokio::pin!(close);
        tokio::select! {
            biased;
            _ = &mut close => panic!("a wide poll is out"),
            () = tokio::time::sleep(GATHER_TIME * 10) => {}
        }
        batch_polls.answered(&messages(3));
        close.await;
    }

    #[tokio::test(start_paused = true)]
    async fn failed_messages_come_one_at_a_time_and_then_batches_again() {
        let isolation = Isolation::default();
        drop(isolation.close().await);
        suspect(&isolation, 2);
        for _ in 0..2 {
            let pass = isolation.admit(10).await;
            assert_eq!(pass.want(), 1);
            pass.answered(&messages(1));
        }
        assert_eq!(isolation.admit(10).await.want(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn no_poll_goes_out_wide_while_a_failing_acknowledgement_is_under_way() {
        let isolation = Isolation::default();
        let closed = isolation.close().await;
        let admit = isolation.admit(10);
        tokio::pin!(admit);
        assert!(poll!(&mut admit).is_pending());
        drop(closed);
        assert_eq!(admit.await.want(), 10, "nothing failed after all");
    }

    /// Its answer is lost, its lease is over, its transport panics: whatever it is, they may come back together.
    #[tokio::test(start_paused = true)]
    async fn suspects_stay_suspects_however_their_acknowledgement_ends_and_a_refusal_clears_them() {
        let lease = Duration::from_secs(30);
        for refused in [false, true] {
            let isolation = Isolation::default();
            let mut closed = isolation.close().await;
            let absence = Absence { held_until: Instant::now() + lease, until: Instant::now() + lease * 3 };
            closed.quarantine(messages(3), absence);
            if refused {
                closed.clear();
            }
            drop(closed);
            assert_eq!(isolation.admit(10).await.want(), if refused { 10 } else { 1 });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_for_a_single_message_is_not_waited_for() {
        let isolation = Isolation::default();
        let _single = isolation.admit(1).await;
        drop(isolation.close().await);
    }

    /// It may be turned away behind a failure in its lane, and count as failed.
    #[tokio::test(start_paused = true)]
    async fn where_there_are_lanes_every_poll_is_waited_for() {
        let isolation = Isolation::new(Paths { alone: true, lanes: true, ..Paths::default() });
        let single = isolation.admit(1).await;
        let close = isolation.close();
        tokio::pin!(close);
        assert!(poll!(&mut close).is_pending());
        drop(single);
        close.await;
    }

    #[tokio::test(start_paused = true)]
    async fn suspects_that_somebody_else_has_are_waited_for() {
        let isolation = Isolation::default();
        drop(isolation.close().await);
        suspect(&isolation, 5);
        isolation.admit(10).await.answered(&[]);
        assert_eq!(isolation.admit(10).await.want(), 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        isolation.admit(10).await.answered(&[]);
        assert_eq!(isolation.admit(10).await.want(), 10);
    }
}
