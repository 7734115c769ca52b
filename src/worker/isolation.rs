//! No collateral: one poison message must not push its innocent neighbours into the dead letters.
//!
//! A failing acknowledgement fails everything behind the failure too, and a service may count that against every one of those
//! messages. So before such an acknowledgement is sent, no other poll for more than one message is out, and afterwards the
//! messages that became available again are fetched one at a time: each neighbour is hit once at most, and succeeds alone.
//! Then batches grow again.
//!
//! A poll that is out is waited for and never given up: the service may already have leased messages to it, and would count their
//! lapse. So wide polls wait shortly while anything is in flight, and a poller that found the queue empty asks for one message only.
//!
//! Failing acknowledgements gather for a moment, so that a stream of failures closes the wide polls once and not for each.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long failing acknowledgements gather before the wide polls have to be in.
const GATHER: Duration = Duration::from_millis(50);

/// The width of the fetch path of one worker: wide polls for whole batches, or narrow ones for single messages.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    state: Mutex<State>,
    changed: Notify,
    /// There is only one poller, so gathering would only make it wait.
    alone: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Polls for more than one message that are out.
    wide: usize,
    /// Polls for a single suspect that are out.
    narrow: usize,
    /// Until when failing acknowledgements gather.
    gathering: Option<Instant>,
    /// Failing acknowledgements that wait for the wide polls or for their answer.
    failing: usize,
    /// Messages of failed batches that have not been fetched again yet.
    suspects: usize,
}

/// What a poll may ask for.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    isolation: &'a Isolation,
    width: Width,
    want: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// A whole batch.
    Wide,
    /// One message because only one was wanted.
    Single,
    /// One message because it may be the one that failed.
    Narrow,
}

impl Isolation {
    /// For the polls of one poller (`alone`) or of several.
    pub(crate) fn new(alone: bool) -> Self {
        Self { alone, ..Self::default() }
    }

    /// Waits until a poll may go out, and says for how many messages: `want`, or one while messages are under suspicion.
    ///
    /// Cancel-safe.
    pub(crate) async fn admit(&self, want: usize) -> Pass<'_> {
        self.when(|state| {
            if state.suspects > state.narrow {
                state.narrow += 1;
                return Some(Pass { isolation: self, width: Width::Narrow, want: 1 });
            }
            // A wide poll beside the narrow ones could catch a suspect together with others.
            if state.suspects > 0 || state.failing > 0 {
                return None;
            }
            let width = if want > 1 { Width::Wide } else { Width::Single };
            state.wide += usize::from(width == Width::Wide);
            Some(Pass { isolation: self, width, want })
        })
        .await
    }

    /// Closes the wide polls for a failing acknowledgement, and waits until the last of them is in.
    ///
    /// Cancel-safe: dropped, it lets them go on.
    pub(crate) async fn close(&self) -> Closed<'_> {
        if !self.alone {
            sleep_until(self.gather()).await;
        }
        self.update(|state| state.failing += 1);
        let closed = Closed { isolation: self };
        self.when(|state| (state.wide == 0).then_some(())).await;
        closed
    }

    /// Whether the next polls are for single messages: room for more would be waited for in vain.
    pub(crate) fn has_suspects(&self) -> bool {
        self.lock().suspects > 0
    }

    /// The end of the gathering that is under way, or of a new one.
    fn gather(&self) -> Instant {
        let (mut state, now) = (self.lock(), Instant::now());
        let until = state.gathering.filter(|until| *until > now).unwrap_or(now + GATHER);
        state.gathering = Some(until);
        until
    }

    /// A failing acknowledgement was answered: `failed` messages are available again, to be fetched one at a time.
    pub(crate) fn suspect(&self, failed: usize) {
        self.update(|state| state.suspects += failed);
    }

    async fn when<T>(&self, mut decide: impl FnMut(&mut State) -> Option<T>) -> T {
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

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// How many messages the poll may ask for.
    pub(crate) fn want(&self) -> usize {
        self.want
    }

    /// Whether the poll is after a message under suspicion: the whole fetch path waits for it.
    pub(crate) fn is_narrow(&self) -> bool {
        self.width == Width::Narrow
    }

    /// Takes in what the poll brought.
    pub(crate) fn answered(self, got: usize) {
        if self.width == Width::Narrow {
            // Nothing came although failed messages are there to be had: somebody else has them.
            self.isolation
                .update(|state| state.suspects = if got == 0 { 0 } else { state.suspects.saturating_sub(got) });
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.isolation.update(|state| match self.width {
            Width::Wide => state.wide -= 1,
            Width::Narrow => state.narrow -= 1,
            Width::Single => {}
        });
    }
}

/// The wide polls are in; dropping this lets them out again.
#[derive(Debug)]
pub(crate) struct Closed<'a> {
    isolation: &'a Isolation,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.isolation.update(|state| state.failing -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;

    #[tokio::test(start_paused = true)]
    async fn a_failing_acknowledgement_waits_for_the_wide_polls() {
        let isolation = Isolation::default();
        let wide = isolation.admit(10).await;
        let close = isolation.close();
        tokio::pin!(close);
        tokio::select! {
            biased;
            _ = &mut close => panic!("a wide poll is out"),
            () = tokio::time::sleep(GATHER * 10) => {}
        }
        wide.answered(3);
        close.await;
    }

    #[tokio::test(start_paused = true)]
    async fn failed_messages_come_one_at_a_time_and_then_batches_again() {
        let isolation = Isolation::default();
        drop(isolation.close().await);
        isolation.suspect(2);
        for _ in 0..2 {
            let pass = isolation.admit(10).await;
            assert_eq!(pass.want(), 1);
            pass.answered(1);
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

    #[tokio::test(start_paused = true)]
    async fn a_poll_for_a_single_message_is_not_waited_for() {
        let isolation = Isolation::default();
        let _single = isolation.admit(1).await;
        drop(isolation.close().await);
    }

    #[tokio::test(start_paused = true)]
    async fn suspects_that_somebody_else_took_are_forgotten() {
        let isolation = Isolation::default();
        drop(isolation.close().await);
        isolation.suspect(5);
        isolation.admit(10).await.answered(0);
        assert_eq!(isolation.admit(10).await.want(), 10);
    }
}
