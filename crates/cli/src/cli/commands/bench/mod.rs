//! `bench`: how fast a server and this client are together, and what each of them spends on it.
//!
//! Each run creates a queue and deletes it afterwards. Handlers do nothing, so the figures measure the messaging
//! alone. The server is a child process, so that the system counts its CPU time, memory and disk apart from the client's.

mod args;
mod curves;
mod figures;
mod load;
mod server;
mod sweep;
mod time_bar;
mod usage;

use std::process::ExitCode;

use serde_json::json;

pub(crate) use self::args::BenchArgs;
use self::{
    args::Scenario,
    figures::{Cost, Figures, Meter},
    load::{Load, group},
    server::BenchServer,
    time_bar::TimeBar,
};
use crate::cli::support::{
    context::Context,
    failure::{ExitKind, Failure},
    logging,
    table::Table,
};
use dms_protocol::internal::secret_url::without_secrets;
use dms_protocol::{
    limits::{MAX_BYTES, MAX_MESSAGES},
    queue::{NewQueue, QueueId},
};
use dms_worker::Dialect;

/// The number of messages per request: the number given, or as many bodies of this size as fit.
fn batch(asked: Option<u8>, size: u32) -> usize {
    let most = MAX_BYTES / usize::try_from(size).unwrap_or(MAX_BYTES).max(1);
    asked.map_or(most, usize::from).clamp(1, MAX_MESSAGES)
}

/// Measures, and prints the figures.
pub(crate) async fn run(args: BenchArgs, context: &Context) -> Result<ExitCode, Failure> {
    let target = BenchServer::open(&args, context).await?;
    logging::for_command(&context.global, context.colored(), "error");
    if let Some(curves) = &args.sweep {
        if target.client.dialect() == Dialect::Mqs {
            target.close().await;
            let text = "--sweep creates and deletes queues, which ROMA Connect MQS cannot: leave out --sweep, or measure over the DMS API";
            return Err(Failure::of(ExitKind::Usage, text));
        }
        let swept = sweep::measure(curves, &target, &args, context).await;
        target.close().await;
        sweep::report(&swept?, &args, context)?;
        return Ok(ExitCode::SUCCESS);
    }
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
fn runs(asked: &[Scenario]) -> Vec<Vec<Scenario>> {
    let wants = |run: &Scenario| asked.contains(run);
    let shared: Vec<Scenario> = [Scenario::Produce, Scenario::Consume].into_iter().filter(wants).collect();
    let alone = [Scenario::Both, Scenario::Latency].into_iter().filter(wants).map(|run| vec![run]);
    (!shared.is_empty()).then_some(shared).into_iter().chain(alone).collect()
}

/// Creates a queue for some runs, unless one was named, and deletes it whatever became of them.
async fn on_a_queue(
    target: &BenchServer,
    runs: Vec<Scenario>,
    args: &BenchArgs,
    context: &Context,
) -> Result<Vec<Figures>, Failure> {
    with_queue(target, args, 1, async |load| measure(&load, target, &runs, args, context).await).await
}

/// Creates a queue with this many groups, unless one was named, and deletes it whatever became of the work.
async fn with_queue<T>(
    target: &BenchServer,
    args: &BenchArgs,
    groups: usize,
    work: impl AsyncFnOnce(Load) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let client = &target.client;
    let (queue, is_own) = match &args.queue {
        Some(name) => (client.find_queue(name).await?.id, false),
        // The server that was started for this creates the topic on request.
        None if client.dialect() == Dialect::Mqs => (QueueId::from(new_name()), false),
        None => (client.create_queue(NewQueue::new(new_name())).await?.id, true),
    };
    let done = async {
        let names: Vec<_> = (0..groups).map(group).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        if client.dialect() == Dialect::Dms {
            client.create_groups(&queue, &names).await?;
        }
        let load = Load {
            client: client.clone(),
            queue: queue.clone(),
            size: args.size,
            batch: batch(args.batch, args.size),
            connections: args.connections.into(),
            duration: args.duration.get(),
            messages: args.messages.map_or(usize::MAX, |messages| usize::try_from(messages).unwrap_or(usize::MAX)),
            groups,
            workers: 1,
        };
        work(load).await
    }
    .await;
    let deleted = if is_own { client.delete_queue(&queue).await } else { Ok(()) };
    let done = done?;
    deleted?;
    Ok(done)
}

/// A name of a queue that no other benchmark has.
fn new_name() -> String {
    format!("bench-{:016x}", fastrand::u64(..))
}

async fn measure(
    load: &Load,
    target: &BenchServer,
    runs: &[Scenario],
    args: &BenchArgs,
    context: &Context,
) -> Result<Vec<Figures>, Failure> {
    let mut figures = Vec::with_capacity(runs.len());
    let mut waiting = None;
    for run in runs {
        if *run == Scenario::Consume && waiting.is_none() {
            // There has to be something to consume, and it is not part of the run.
            waiting = Some(load.produce().await?.produced);
        }
        let progress = TimeBar::new(context, run.name(), load.duration);
        let meter = Meter::start(target.process);
        let tally = progress
            .of(async {
                match run {
                    Scenario::Produce => load.produce().await,
                    Scenario::Consume => load.consume(waiting.unwrap_or_default()).await,
                    Scenario::Both => load.both().await,
                    Scenario::Latency => load.latency(args.rate).await,
                }
            })
            .await?;
        if *run == Scenario::Produce {
            waiting = Some(tally.produced);
        }
        figures.push(meter.stop(run.name(), tally, args.size));
    }
    Ok(figures)
}

fn print(runs: &[Figures], args: &BenchArgs, context: &Context) -> Result<(), Failure> {
    let mut table =
        Table::new(&["RUN", "SENT/S", "ACKED/S", "P50", "P90", "P99", "MAX", "CLIENT", "SERVER", "MEMORY", "DISK"]);
    for run in runs {
        let latency = |pick: fn(&figures::Latencies) -> f64| {
            run.latency_ms.as_ref().map_or_else(|| "-".to_owned(), |latencies| format!("{:.1} ms", pick(latencies)))
        };
        let cpu = |spent: Option<Cost>| {
            spent.map_or_else(|| "-".to_owned(), |spent| format!("{:.1} µs", spent.cpu_us_per_message))
        };
        let server = |show: fn(Cost) -> String| run.server.map_or_else(|| "-".to_owned(), show);
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
        assert_eq!(batch(Some(10), 524_288), 10, "an explicit batch size is kept, and the service refuses it");
    }

    #[test]
    fn runs_that_share_a_queue_go_together_whatever_their_order() {
        assert_eq!(
            runs(&[Scenario::Latency, Scenario::Consume, Scenario::Produce, Scenario::Latency]),
            [vec![Scenario::Produce, Scenario::Consume], vec![Scenario::Latency]]
        );
        assert_eq!(runs(&[Scenario::Both]), [vec![Scenario::Both]]);
    }
}
