//! The results of a run: throughput, latencies, and the resources that client and server used.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::cli::{
    commands::bench::usage::{Process, Usage},
    support::quantiles::quantile,
};

/// A run that is measured.
#[derive(Debug)]
pub(super) struct Meter {
    started: Instant,
    client: Option<Usage>,
    server: Option<(Process, Usage)>,
}

/// The counts of a run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Messages that the service took.
    pub(super) produced: usize,
    /// Messages that were handled and acknowledged.
    pub(super) acknowledged: usize,
    /// The latency of each request, or of each message, depending on the run.
    pub(super) latencies: Vec<Duration>,
}

/// The results of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// `produce`, `consume`, `both` or `latency`.
    pub(super) name: &'static str,
    /// How long it took.
    pub(super) seconds: f64,
    /// Messages that the service took in a second.
    pub(super) produced_per_second: f64,
    /// Messages that were acknowledged in a second.
    pub(super) acknowledged_per_second: f64,
    /// `produce` and `both`: of send requests. `consume`: of polls that brought something. `latency`: from before the send until
    /// the handler was called.
    pub(super) latency_ms: Option<Latencies>,
    /// The resources that this process used.
    pub(super) client: Option<Cost>,
    /// The resources that the server used, if it runs on this machine.
    pub(super) server: Option<Cost>,
}

/// How long things took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Latencies {
    /// The median.
    pub(super) p50: f64,
    /// The 90th percentile.
    pub(super) p90: f64,
    /// The 99th percentile.
    pub(super) p99: f64,
    /// The maximum.
    pub(super) max: f64,
}

/// The resources that a process used in a run. A message that was both produced and acknowledged counts twice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Cost {
    /// Microseconds of CPU time for each message.
    pub(super) cpu_us_per_message: f64,
    /// The most memory the process had so far, in bytes.
    pub(super) peak_bytes: u64,
    /// Bytes that went to the disk for each byte of the bodies.
    pub(super) written_per_payload_byte: f64,
}

impl Meter {
    /// Begins a run against a server that is this process, or none that can be looked at.
    pub(super) fn start(server: Option<Process>) -> Self {
        let server = server.and_then(|process| Some((process, process.usage()?)));
        Self { client: Process::Own.usage(), server, started: Instant::now() }
    }

    /// Ends a run of messages with bodies of `size` bytes.
    pub(super) fn stop(self, name: &'static str, tally: Tally, size: u32) -> Figures {
        let seconds = self.started.elapsed().as_secs_f64();
        let Tally { produced, acknowledged, mut latencies } = tally;
        let count = produced + acknowledged;
        let spent = |before: Usage, process: Process| Some(spent(before, process.usage()?, count, size));
        latencies.sort_unstable();
        let rate = |messages: usize| if seconds > 0.0 { messages as f64 / seconds } else { 0.0 };
        Figures {
            name,
            seconds,
            produced_per_second: rate(produced),
            acknowledged_per_second: rate(acknowledged),
            latency_ms: Latencies::of(&latencies),
            client: self.client.and_then(|before| spent(before, Process::Own)),
            server: self.server.and_then(|(process, before)| spent(before, process)),
        }
    }
}

fn spent(before: Usage, after: Usage, messages: usize, size: u32) -> Cost {
    let messages = messages.max(1) as f64;
    let written = after.written_bytes.saturating_sub(before.written_bytes);
    Cost {
        cpu_us_per_message: after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / messages,
        peak_bytes: after.peak_bytes,
        written_per_payload_byte: written as f64 / (messages * f64::from(size)),
    }
}

impl Latencies {
    fn of(sorted: &[Duration]) -> Option<Self> {
        let max = sorted.last()?.as_secs_f64() * 1e3;
        Some(Self { p50: quantile(sorted, 50), p90: quantile(sorted, 90), p99: quantile(sorted, 99), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_is_counted_from_the_start_of_the_run() {
        let before = Usage { cpu: Duration::from_millis(10), peak_bytes: 1, written_bytes: 1_000 };
        let after = Usage { cpu: Duration::from_millis(30), peak_bytes: 7, written_bytes: 31_000 };
        let expected = Cost { cpu_us_per_message: 2_000.0, peak_bytes: 7, written_per_payload_byte: 3.0 };
        assert_eq!(spent(before, after, 10, 1_000), expected);
    }

    #[test]
    fn without_latencies_there_are_no_quantiles() {
        assert_eq!(Latencies::of(&[]), None);
        let values: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(Latencies::of(&values), Some(Latencies { p50: 100.0, p90: 180.0, p99: 198.0, max: 200.0 }));
    }
}
