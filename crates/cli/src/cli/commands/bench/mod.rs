//! `bench`: how fast a server and this client are together, and what each of them spends on it.
//!
//! Each run has a queue of its own, which is deleted afterwards. Handlers do nothing, so the figures are those of the messaging
//! alone. The server is a child process, so that the system counts its CPU time, memory and disk apart from the client's.

mod figures;
mod load;
mod progress;
mod target;
mod usage;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::json;

use self::{
    figures::{Figures, Meter, Spent},
    load::{GROUP, Load},
    progress::Progress,
    target::Target,
};
use crate::{
    cli::support::{context::Context, failure::Failure, logging, table::Table},
    config::Span,
};
use dms_protocol::secret_url::without_secrets;
use dms_protocol::{
    limits::{MAX_BYTES, MAX_MESSAGES},
    queue::NewQueue,
};

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker bench                          a server in a child process, in memory
  dms-worker bench --data-dir /tmp/bench    the same on disk: every send is synced
  dms-worker bench --against http://10.0.0.7:9400 --run produce,consume
  dms-worker bench -o json --duration 10s

The runs: `produce` sends, `consume` receives and acknowledges what was sent, `both` does both at once, `latency` sends single \
messages at a steady rate and takes the time until their handlers are called. CPU time, memory and disk writes are told by Linux \
alone. Measure with a build in release mode, on a machine that does nothing else.")]
pub(crate) struct BenchArgs {
    /// A server to measure, with the credentials of the configuration
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    against: Option<String>,
    /// The process of that server, where it runs on this machine: what it spends is shown too
    #[arg(long, value_name = "PID", requires = "against")]
    server_pid: Option<u32>,
    /// Where the server that is started keeps its messages; in memory without
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// What to measure: any of produce, consume, both and latency
    #[arg(
        long,
        value_name = "RUNS",
        value_delimiter = ',',
        default_value = "produce,consume,both,latency",
        hide_possible_values = true
    )]
    run: Vec<Run>,
    /// How long each run lasts
    #[arg(long, default_value = "5s")]
    duration: Span,
    /// After how many messages a run ends before that
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    messages: Option<u32>,
    /// Size of each body in bytes
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(2..=524_288))]
    size: u32,
    /// Messages of each request [default: 10, or as many bodies as a request may have]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=10))]
    batch: Option<u8>,
    /// Requests under way at a time; `both` gives half of them to each side
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Messages in a second of the run `latency`
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

/// Messages of each request: those that were asked for, or as many bodies of this size as may be in one.
fn batch(asked: Option<u8>, size: u32) -> usize {
    let most = MAX_BYTES / usize::try_from(size).unwrap_or(MAX_BYTES).max(1);
    asked.map_or(most, usize::from).clamp(1, MAX_MESSAGES)
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Run {
    /// Sending
    Produce,
    /// Receiving and acknowledging
    Consume,
    /// Both at once
    Both,
    /// From sending to the handler
    Latency,
}

/// Measures, and prints the figures.
pub(crate) async fn run(args: BenchArgs, context: &Context) -> Result<ExitCode, Failure> {
    let target = Target::open(&args, context).await?;
    logging::for_command(&context.global, context.colored(), "warn");
    let mut figures = Vec::with_capacity(args.run.len());
    let measured = async {
        for run in runs(&args.run) {
            figures.extend(on_a_queue(&target, run, &args, context).await?);
        }
        Ok::<_, Failure>(())
    }
    .await;
    target.close().await;
    measured?;
    print(&figures, &args, context)?;
    Ok(ExitCode::SUCCESS)
}

/// The runs in their order, each once; producing and consuming share a queue, so they go together.
fn runs(asked: &[Run]) -> Vec<Vec<Run>> {
    let wants = |run: &Run| asked.contains(run);
    let shared: Vec<Run> = [Run::Produce, Run::Consume].into_iter().filter(wants).collect();
    let alone = [Run::Both, Run::Latency].into_iter().filter(wants).map(|run| vec![run]);
    (!shared.is_empty()).then_some(shared).into_iter().chain(alone).collect()
}

/// Creates a queue for some runs, and deletes it whatever became of them.
async fn on_a_queue(
    target: &Target,
    runs: Vec<Run>,
    args: &BenchArgs,
    context: &Context,
) -> Result<Vec<Figures>, Failure> {
    let queue = target.client.create_queue(NewQueue::new(format!("bench-{:08x}", fastrand::u32(..)))).await?.id;
    let measured = async {
        target.client.create_groups(&queue, &[GROUP]).await?;
        let load = Load {
            client: target.client.clone(),
            queue: queue.clone(),
            size: args.size,
            batch: batch(args.batch, args.size),
            connections: args.connections.into(),
            duration: args.duration.get(),
            messages: args.messages.map_or(usize::MAX, |messages| usize::try_from(messages).unwrap_or(usize::MAX)),
        };
        measure(&load, target, &runs, args, context).await
    }
    .await;
    let deleted = target.client.delete_queue(&queue).await;
    let figures = measured?;
    deleted?;
    Ok(figures)
}

async fn measure(
    load: &Load,
    target: &Target,
    runs: &[Run],
    args: &BenchArgs,
    context: &Context,
) -> Result<Vec<Figures>, Failure> {
    let mut figures = Vec::with_capacity(runs.len());
    let mut waiting = None;
    for run in runs {
        if *run == Run::Consume && waiting.is_none() {
            // There has to be something to consume, and it is not part of the run.
            waiting = Some(load.produce().await?.produced);
        }
        let progress = Progress::new(context, run.name(), load.duration);
        let meter = Meter::start(target.process);
        let tally = progress
            .of(async {
                match run {
                    Run::Produce => load.produce().await,
                    Run::Consume => load.consume(waiting.unwrap_or_default()).await,
                    Run::Both => load.both().await,
                    Run::Latency => load.latency(args.rate).await,
                }
            })
            .await?;
        if *run == Run::Produce {
            waiting = Some(tally.produced);
        }
        figures.push(meter.stop(run.name(), tally, args.size));
    }
    Ok(figures)
}

impl Run {
    fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Both => "both",
            Self::Latency => "latency",
        }
    }
}

fn print(runs: &[Figures], args: &BenchArgs, context: &Context) -> Result<(), Failure> {
    let mut table =
        Table::new(&["RUN", "SENT/S", "ACKED/S", "P50", "P90", "P99", "MAX", "CLIENT", "SERVER", "MEMORY", "DISK"]);
    for run in runs {
        let latency = |pick: fn(&figures::Latencies) -> f64| {
            run.latency_ms.as_ref().map_or_else(|| "-".to_owned(), |latencies| format!("{:.1} ms", pick(latencies)))
        };
        let cpu = |spent: Option<Spent>| {
            spent.map_or_else(|| "-".to_owned(), |spent| format!("{:.1} µs", spent.cpu_us_per_message))
        };
        let server = |show: fn(Spent) -> String| run.server.map_or_else(|| "-".to_owned(), show);
        table.row([
            run.name.to_owned(),
            format!("{:.0}", run.produced_per_second),
            format!("{:.0}", run.acknowledged_per_second),
            latency(|latencies| latencies.p50),
            latency(|latencies| latencies.p90),
            latency(|latencies| latencies.p99),
            latency(|latencies| latencies.max),
            cpu(run.client),
            cpu(run.server),
            server(|spent| format!("{:.0} MB", spent.peak_bytes as f64 / 1e6)),
            server(|spent| format!("{:.2} B/B", spent.written_per_payload_byte)),
        ]);
    }
    let json = json!({
        "target": args.against.as_deref().map_or("child process".to_owned(), without_secrets),
        "durable": args.data_dir.is_some(),
        "bytes": args.size,
        "batch": batch(args.batch, args.size),
        "connections": args.connections,
        "runs": runs,
    });
    let legend = "CLIENT, SERVER: CPU time for each message. MEMORY: the server's most so far. DISK: bytes written for each byte of bodies.";
    Ok(context.printer().print(&format!("{table}\n{legend}"), &json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_make_small_batches_unless_a_size_is_asked_for() {
        assert_eq!([2, 1_024, 52_428, 52_429, 524_288].map(|size| batch(None, size)), [10, 10, 10, 9, 1]);
        assert_eq!(batch(Some(10), 524_288), 10, "what is asked for is refused by its own name");
    }

    #[test]
    fn runs_that_share_a_queue_go_together_whatever_their_order() {
        assert_eq!(
            runs(&[Run::Latency, Run::Consume, Run::Produce, Run::Latency]),
            [vec![Run::Produce, Run::Consume], vec![Run::Latency]]
        );
        assert_eq!(runs(&[Run::Both]), [vec![Run::Both]]);
    }
}
