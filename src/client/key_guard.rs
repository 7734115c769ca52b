//! [`KeyGuard`]: stops or pauses a client whose key or token was refused.
//!
//! A key that never worked is wrong, and further tries can lock it: the gateway of the hosted service refused good
//! signatures as well after five bad ones. A key that has worked, or is refused because of a lock or a clock, may work
//! again. The client then pauses, and tries with a single request.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::error::Error;
use crate::retry::{RetryPolicy, Schedule};

/// The most requests in flight before the first one was accepted.
const MAX_UNPROVEN_REQUESTS: usize = 3;
/// The first pause. A fifth of it is jitter, so it is at least 30 s.
const FIRST_PAUSE: Duration = Duration::from_millis(37_500);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(5 * 60);
/// The pause of other requests while the trial is in flight.
const TRIAL_PAUSE: Duration = Duration::from_secs(1);

/// Whether a client may use its key.
///
/// Until the service has accepted the key once, only a few requests are in flight, so that many callers that start
/// together do not all send a wrong signature.
#[derive(Debug)]
pub(super) struct KeyGuard {
    /// Whether the refusal of a key that never worked stops the client permanently.
    stops: bool,
    worked: AtomicBool,
    /// Counts the changes between open and closed; odd is open. Requests remember the value, because the answer to a
    /// request from before a change says nothing about the time after it.
    epoch: AtomicU64,
    state: Mutex<GuardState>,
    unproven: Semaphore,
}

#[derive(Debug)]
struct GuardState {
    closed: Option<Closed>,
    pauses: Schedule,
}

/// Why the client sends nothing.
#[derive(Debug)]
enum Closed {
    /// The key never worked.
    Stopped(Error),
    /// The key may work again after `until`. `trying` is set while the trial request is in flight.
    Until { error: Error, until: Instant, trying: bool },
}

/// Why a request may not be sent.
pub(super) enum Blocked {
    /// The client has stopped.
    Stopped(Error),
    /// The client pauses for this time.
    Paused(Duration, Error),
}

/// The permission to send one request, held until its answer was judged.
pub(super) struct SendPermit<'a> {
    guard: &'a KeyGuard,
    /// The epoch in which it was given. The answer to a request from an earlier epoch decides nothing.
    epoch: u64,
    /// Whether it is the one request that tries the key again.
    trial: bool,
    _permit: Option<SemaphorePermit<'a>>,
}

/// The consequence of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalEffect {
    /// The client stops.
    Stop,
    /// The client pauses for this time.
    Pause(Duration),
    /// The refusal of another request has started a pause, of which this time is left.
    AlreadyPaused(Duration),
    /// Nothing changes: the next request is sent.
    Nothing,
}

impl KeyGuard {
    /// A guard. `stops` says whether the refusal of a key that never worked stops the client.
    pub(super) fn new(stops: bool) -> Self {
        let pauses = RetryPolicy::try_new(FIRST_PAUSE, MAX_PAUSE, 2.0, 0.2).unwrap_or_default();
        Self {
            stops,
            worked: AtomicBool::new(false),
            epoch: AtomicU64::new(u64::from(!stops)),
            state: Mutex::new(GuardState { closed: None, pauses: pauses.max_attempts(None).schedule() }),
            unproven: Semaphore::new(MAX_UNPROVEN_REQUESTS),
        }
    }

    /// Whether the service has accepted the key.
    pub(super) fn has_worked(&self) -> bool {
        self.worked.load(Ordering::Acquire)
    }

    /// Treats a new key as one that has worked, so that its refusal does not stop the client.
    pub(super) fn trust(&self) {
        self.worked.store(true, Ordering::Release);
    }

    /// Waits until the key may be used.
    ///
    /// # Errors
    /// When the client has stopped or pauses.
    pub(super) async fn enter(&self) -> Result<SendPermit<'_>, Blocked> {
        let epoch = self.epoch.load(Ordering::Acquire);
        if is_open(epoch) {
            return Ok(self.pass(epoch, false, None));
        }
        if let Some(decided) = self.decide() {
            return decided;
        }
        // Closed, because the key was accepted meanwhile.
        let permit = self.unproven.acquire().await.ok();
        self.decide().unwrap_or_else(|| Ok(self.pass(self.epoch.load(Ordering::Acquire), false, permit)))
    }

    /// Admits a request or holds it back; `None` while the key is unproven.
    fn decide(&self) -> Option<Result<SendPermit<'_>, Blocked>> {
        let mut state = self.state();
        let epoch = self.epoch.load(Ordering::Acquire);
        match &mut state.closed {
            Some(Closed::Stopped(error)) => Some(Err(Blocked::Stopped(error.clone()))),
            Some(Closed::Until { error, until, trying }) => {
                let left = until.saturating_duration_since(Instant::now());
                if *trying || !left.is_zero() {
                    return Some(Err(Blocked::Paused(left.max(TRIAL_PAUSE), error.clone())));
                }
                *trying = true;
                Some(Ok(self.pass(epoch, true, None)))
            }
            None if is_open(epoch) => Some(Ok(self.pass(epoch, false, None))),
            None => None,
        }
    }

    fn pass<'a>(&'a self, epoch: u64, trial: bool, permit: Option<SemaphorePermit<'a>>) -> SendPermit<'a> {
        SendPermit { guard: self, epoch, trial, _permit: permit }
    }

    /// Records that the service accepted the key. Returns whether the key had been refused before.
    pub(super) fn accepted(&self, pass: &SendPermit<'_>) -> bool {
        // Read before written, because a write to shared state slows all calls.
        let epoch = self.epoch.load(Ordering::Acquire);
        if is_open(epoch) && self.worked.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state();
        self.worked.store(true, Ordering::Release);
        self.unproven.close();
        if matches!(state.closed, Some(Closed::Until { .. })) && !pass.trial {
            // The request was sent before the refusal.
            return false;
        }
        let was_refused = state.closed.take().is_some();
        state.pauses.reset();
        self.turn(true);
        was_refused
    }

    /// Records a refusal. `passing` says whether its cause is temporary.
    pub(super) fn refused(&self, pass: &SendPermit<'_>, error: &Error, passing: bool) -> RefusalEffect {
        let mut state = self.state();
        let left = |until: &Instant| until.saturating_duration_since(Instant::now()).max(TRIAL_PAUSE);
        if pass.epoch != self.epoch.load(Ordering::Acquire) {
            return match &state.closed {
                Some(Closed::Stopped(_)) => RefusalEffect::Nothing,
                Some(Closed::Until { until, .. }) => RefusalEffect::AlreadyPaused(left(until)),
                None => RefusalEffect::AlreadyPaused(TRIAL_PAUSE),
            };
        }
        if passing || self.worked.load(Ordering::Acquire) {
            let pause = state.pauses.next_delay().unwrap_or(MAX_PAUSE);
            let until = Instant::now() + pause;
            state.closed = Some(Closed::Until { error: error.clone(), until, trying: false });
            self.turn(false);
            return RefusalEffect::Pause(pause);
        }
        if self.stops {
            state.closed = Some(Closed::Stopped(error.clone()));
            self.turn(false);
            self.unproven.close();
            return RefusalEffect::Stop;
        }
        RefusalEffect::Nothing
    }

    /// Starts a new epoch, open or closed.
    fn turn(&self, open: bool) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let next = epoch + if is_open(epoch) == open { 2 } else { 1 };
        self.epoch.store(next, Ordering::Release);
    }

    fn state(&self) -> MutexGuard<'_, GuardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SendPermit<'_> {
    /// A trial without a verdict gives its place to the next request.
    fn drop(&mut self) {
        if !self.trial {
            return;
        }
        let mut state = self.guard.state();
        if self.guard.epoch.load(Ordering::Acquire) == self.epoch
            && let Some(Closed::Until { trying, .. }) = &mut state.closed
        {
            *trying = false;
        }
    }
}

fn is_open(epoch: u64) -> bool {
    epoch % 2 == 1
}
