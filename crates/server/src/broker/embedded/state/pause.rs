//! Detects pauses of the process by comparing clocks. Pure, but for reading the clocks.
//!
//! A process that was stopped (SIGSTOP, a debugger, a frozen container) finds every lease expired when it continues, although the
//! acknowledgements that arrived meanwhile wait in its sockets. So a pause does not count: leases that were open when it began are
//! extended by it.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;

/// A gap between two beats from which on the process counts as paused.
const MIN_PAUSE: Duration = Duration::from_millis(250);

/// Remembers when the process was last seen running.
#[derive(Debug, Default)]
pub(crate) struct PauseDetector {
    clock: PauseClock,
    last: Option<ClockReading>,
}

/// The clocks that show a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PauseClock {
    /// None: no pause is detected.
    #[default]
    Nobody,
    /// Both tokio's clock and the system's. A paused clock of tokio that a test moves by hours is no pause of the process.
    System,
    /// Tokio's clock alone, for tests that move it to simulate a pause.
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
pub(crate) struct Pause {
    /// When the process was last seen running before it.
    pub(crate) began: Instant,
    pub(crate) length: Duration,
}

impl PauseClock {
    /// The clocks for a broker on this clock. Simulated time does not stand still with the process.
    pub(crate) fn of(clock: &Clock) -> Self {
        if clock.is_simulated() { Self::Nobody } else { Self::System }
    }
}

impl PauseDetector {
    pub(crate) fn new(clock: PauseClock) -> Self {
        Self { clock, last: None }
    }

    /// Records that the process runs, and returns the pause that has just ended.
    pub(crate) fn beat(&mut self) -> Option<Pause> {
        if self.clock == PauseClock::Nobody {
            return None;
        }
        let now = ClockReading { tokio: Instant::now(), system: std::time::Instant::now() };
        let last = self.last.replace(now)?;
        let gap = now.tokio.saturating_duration_since(last.tokio);
        let length = match self.clock {
            PauseClock::System => gap.min(now.system.saturating_duration_since(last.system)),
            _ => gap,
        };
        (length >= MIN_PAUSE).then_some(Pause { began: last.tokio, length })
    }
}
