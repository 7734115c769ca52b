//! The figures of a run: what it took, and what the process spent on it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::cli::quantile::quantile;

/// A run that is measured.
#[derive(Debug)]
pub(super) struct Meter {
    started: Instant,
    cpu: Option<Duration>,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// `send`, `handle` or `both`.
    pub(super) name: &'static str,
    /// How long it took.
    pub(super) seconds: f64,
    /// Messages in a second.
    pub(super) per_second: f64,
    /// Half of the messages took at most so long: to be stored for `send`, from send to handled for `both`.
    pub(super) p50_ms: Option<f64>,
    /// 99 of 100 did.
    pub(super) p99_ms: Option<f64>,
    /// CPU time of this process for each message, where the system tells it.
    pub(super) cpu_us: Option<f64>,
}

impl Meter {
    /// Begins a run.
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), cpu: cpu_time() }
    }

    /// Ends a run of so many messages.
    pub(super) fn stop(self, name: &'static str, messages: usize, mut latencies: Vec<Duration>) -> Figures {
        let seconds = self.started.elapsed().as_secs_f64();
        let count = messages as f64;
        latencies.sort_unstable();
        let measured = |percent| (!latencies.is_empty()).then(|| quantile(&latencies, percent));
        let cpu = self.cpu.zip(cpu_time()).map(|(before, after)| after.saturating_sub(before));
        Figures {
            name,
            seconds,
            per_second: if seconds > 0.0 { count / seconds } else { 0.0 },
            p50_ms: measured(50),
            p99_ms: measured(99),
            cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / count),
        }
    }
}

/// The CPU time that this process has used, as Linux tells it in hundredths of a second.
fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    ticks(&stat).map(|ticks| Duration::from_millis(ticks * 10))
}

/// User and system time of a line of `/proc/PID/stat`. The name in parentheses may have blanks and parentheses in it.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_whatever_the_program_is_called() {
        let line = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 250 75 0 0 20 0 4 0 1000 0 0";
        assert_eq!(ticks(line), Some(325));
        assert_eq!(ticks("garbage"), None);
    }
}
