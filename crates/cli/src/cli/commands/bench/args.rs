//! Options of `bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::curves::Curve;
use crate::config::Span;

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker bench                          a server in a child process, in memory
  dms-worker bench --data-dir /tmp/bench    the same on disk: every send is synced
  dms-worker bench --against http://10.0.0.7:9400 --run produce,consume
  dms-worker bench -o json --duration 10s
  dms-worker bench --dialect mqs            over the API of ROMA Connect MQS
  dms-worker bench --sweep                  how the cost of a message changes with the load
  dms-worker bench --sweep size,backlog --up-to 10000000 --data-dir /tmp/bench

The runs: `produce` sends, `consume` receives and acknowledges these messages, `both` does both at once, `latency` sends single \
messages at a steady rate and measures the time until their handlers are called. A sweep sends, then receives and acknowledges at \
each of its points: numbers of connections, queues, groups, messages waiting before, workers, and bytes in a body. CPU time, memory and disk writes are available on \
Linux only. Measure with a release build, on an otherwise idle machine.")]
pub(crate) struct BenchArgs {
    /// A server to measure, with the credentials of the configuration
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    pub(super) against: Option<String>,
    /// Use this queue instead of new ones, which are deleted afterwards; its messages are consumed. Required with --against and
    /// --dialect mqs
    #[arg(long, value_name = "QUEUE", requires = "against")]
    pub(super) queue: Option<String>,
    /// The server's process on this machine; its CPU time, memory and disk writes are shown too
    #[arg(long, value_name = "PID", requires = "against")]
    pub(super) server_pid: Option<u32>,
    /// Data directory of the server that is started; without it, in memory
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) data_dir: Option<PathBuf>,
    /// The runs: any of produce, consume, both and latency
    #[arg(
        long,
        value_name = "RUNS",
        value_delimiter = ',',
        default_value = "produce,consume,both,latency",
        hide_possible_values = true
    )]
    pub(super) run: Vec<Scenario>,
    /// Change one thing at a time instead: all of connections, queues, groups, backlog, size and workers, or some of them
    #[arg(
        long,
        value_name = "CURVES",
        num_args = 0..=1,
        value_delimiter = ',',
        default_missing_value = "connections,queues,groups,backlog,size,workers",
        conflicts_with_all = ["run", "rate", "queue"],
        hide_possible_values = true
    )]
    pub(super) sweep: Option<Vec<Curve>>,
    /// Leave out the points of a sweep above this number
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000, requires = "sweep")]
    pub(super) up_to: u32,
    /// Where a sweep writes its table, figures and plot: sweep.md, sweep.json and sweep.svg
    #[arg(long, value_name = "DIRECTORY", default_value = "bench-sweep", requires = "sweep")]
    pub(super) report: PathBuf,
    /// How long each run lasts
    #[arg(long, default_value = "5s")]
    pub(super) duration: Span,
    /// Messages after which a run ends, even before its duration is over
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) messages: Option<u32>,
    /// Size of each body in bytes
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(2..=524_288))]
    pub(super) size: u32,
    /// Messages per request [default: 10, fewer if the bodies are large]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub(super) batch: Option<u8>,
    /// Concurrent requests; `both` gives half of them to each side
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) connections: u16,
    /// Messages per second in the run `latency`
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) rate: u32,
}

/// A run of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// Sending
    Produce,
    /// Receiving and acknowledging
    Consume,
    /// Both at once
    Both,
    /// From sending to the handler
    Latency,
}

impl Scenario {
    /// The word for it in options and results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Both => "both",
            Self::Latency => "latency",
        }
    }
}
