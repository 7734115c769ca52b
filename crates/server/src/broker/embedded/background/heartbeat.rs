//! Pauses of the process: while batches are leased, a heartbeat notices that the process did not run, and extends their leases.
//!
//! A process that was stopped (SIGSTOP, a debugger, a frozen container) finds every lease expired when it continues, although
//! the acknowledgements that arrived meanwhile wait in its sockets. So a pause does not count: every lease that was open when
//! it began is extended by it.

use std::{mem, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    broker::embedded::{core::Core, state::State},
    clock::Clock,
};

/// The time between two beats.
const INTERVAL: Duration = Duration::from_millis(100);
/// A gap between two beats from which on the process counts as paused.
const MIN_PAUSE: Duration = Duration::from_millis(250);
/// The least time that a lease has left after a pause, because what waits in the sockets has to be read first.
const MIN_REMAINING: Duration = Duration::from_secs(1);
/// A pause that an operator should hear of.
const LONG_PAUSE: Duration = Duration::from_secs(2);

/// Notices pauses until the task is aborted.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        // Registered before looking: a lease that begins between the look and the wait is not missed.
        let leased = core.heartbeat.notified();
        let idle = {
            let mut state = core.lock();
            state.notice_pause();
            state.deadlines.is_empty()
        };
        if idle {
            leased.await;
        } else {
            sleep(INTERVAL).await;
        }
    }
}

/// When the process was last seen running.
#[derive(Debug, Default)]
pub(crate) struct PauseDetector {
    witness: PauseClock,
    last: Option<ClockReading>,
}

/// The clocks that tell a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PauseClock {
    /// None: no pause is noticed.
    #[default]
    Nobody,
    /// Both tokio's clock and the system's. A paused clock of tokio that a test moves by hours is no pause of the process.
    System,
    /// Tokio's clock alone, for tests that move it to stand for a pause.
    #[cfg(test)]
    Tokio,
}

#[derive(Clone, Copy, Debug)]
struct ClockReading {
    tokio: Instant,
    system: std::time::Instant,
}

/// A time in which the process did not run.
#[derive(Debug, PartialEq)]
struct Pause {
    began: Instant,
    length: Duration,
}

impl PauseClock {
    /// The witness for a broker on this clock. Simulated time does not stand still with the process.
    pub(crate) fn of(clock: &Clock) -> Self {
        if clock.is_simulated() { Self::Nobody } else { Self::System }
    }
}

impl PauseDetector {
    pub(crate) fn new(witness: PauseClock) -> Self {
        Self { witness, last: None }
    }

    /// Notes that the process runs, and returns the pause that has just ended.
    fn beat(&mut self) -> Option<Pause> {
        if self.witness == PauseClock::Nobody {
            return None;
        }
        let now = ClockReading { tokio: Instant::now(), system: std::time::Instant::now() };
        let last = self.last.replace(now)?;
        let gap = now.tokio.saturating_duration_since(last.tokio);
        let length = match self.witness {
            PauseClock::System => gap.min(now.system.saturating_duration_since(last.system)),
            _ => gap,
        };
        (length >= MIN_PAUSE).then_some(Pause { began: last.tokio, length })
    }
}

impl State {
    /// Notes that the process runs, and extends the open leases by a pause that has just ended. Whatever judges leases by the
    /// time calls this first, because after a pause it may run before the heartbeat does.
    pub(crate) fn notice_pause(&mut self) {
        let Some(pause) = self.pauses.beat() else { return };
        // Without leases there is no heartbeat.
        if self.deadlines.is_empty() {
            return;
        }
        let (paused, leases) = (pause.length, self.deadlines.len());
        if paused >= LONG_PAUSE {
            tracing::warn!(?paused, leases, "the process did not run for a while; open leases are extended by as much");
        } else {
            tracing::debug!(
                ?paused,
                leases,
                "the process did not run for a moment; open leases are extended by as much"
            );
        }
        self.extend_leases(&pause, Instant::now());
    }

    fn extend_leases(&mut self, pause: &Pause, now: Instant) {
        for (deadline, cursor, number) in mem::take(&mut self.deadlines) {
            let mut extended = deadline;
            // One that had expired before is no longer of interest to its consumer.
            if deadline > pause.began {
                extended = (deadline + pause.length).max(now + MIN_REMAINING);
            }
            let lease = self.cursors.get_mut(&cursor).and_then(|cursor| cursor.leases.get_mut(&number));
            if let Some(lease) = lease {
                lease.deadline = extended;
                self.deadlines.insert((extended, cursor, number));
            }
        }
    }
}
