//! `bench`: how fast a server and this client are together.
//!
//! Three runs over a queue of their own, which is deleted afterwards: sending, then handling what was sent, then both at
//! once. The handler does nothing, so the figures are those of the messaging alone.

mod figures;

use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::Args;
use serde_json::json;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use self::figures::{Figures, Meter};
use super::{context::Context, failure::Failure, logging, table::Table};
use crate::{
    client::Client,
    config::load,
    message::{Body, Message},
    producer::Producer,
    queue::{NewQueue, QueueId},
    server::{Project, Server, ServerConfig},
    sidecar::connect,
    worker::{Delivery, Worker, handler_fn},
};

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker bench                              a server in this process, in memory, over sockets
  dms-worker bench --data-dir /tmp/bench        the same on disk: every send is synced
  dms-worker bench --against http://10.0.0.7:9400 --messages 100000 --size 200
  dms-worker bench -o json

CPU time is that of this process: with a server in it, client and server together (Linux only). Measure with a build in
release mode, on a machine that does nothing else.")]
pub(crate) struct BenchArgs {
    /// A server to measure, with the credentials of the configuration
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    against: Option<String>,
    /// Where the server in this process keeps its messages; in memory without
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Messages of each run
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    messages: u32,
    /// Size of each body in bytes
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=524_288))]
    size: u32,
    /// Requests of the producer on their way at a time
    #[arg(long, default_value_t = 8)]
    senders: usize,
    /// Messages in flight in the worker
    #[arg(long, default_value_t = 256)]
    concurrency: usize,
}

const GROUP: &str = "bench";
/// Nothing comes for so long: something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures, and prints the figures.
pub(crate) async fn run(args: BenchArgs, context: &Context) -> Result<ExitCode, Failure> {
    let (client, server) = match &args.against {
        Some(url) => {
            let config = load(&context.request(true).flag("--against", "dms.endpoint", url))?.config;
            (connect::to_service(&config)?, None)
        }
        None => {
            let server = serve(args.data_dir.clone()).await?;
            let url = server.local_addr().map(|address| format!("http://{address}")).unwrap_or_default();
            (Client::builder(url, "bench").build()?, Some(server))
        }
    };
    logging::for_command(&context.global, context.colored(), "warn");
    let stop = CancellationToken::new();
    let serving = server.map(|server| tokio::spawn(server.run(stop.clone().cancelled_owned())));

    let name = format!("bench-{:08x}", fastrand::u32(..));
    let queue = client.create_queue(NewQueue::new(&name)).await?.id;
    let measured = measure(&client, &queue, &name, &args, context).await;
    // The queue is ours: it goes, whatever became of the runs.
    let deleted = client.delete_queue(&queue).await;
    stop.cancel();
    if let Some(serving) = serving {
        // The server has nothing left to say.
        let _ = serving.await;
    }
    print(&measured?, &args, context)?;
    deleted?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(data_dir: Option<PathBuf>) -> Result<Server, Failure> {
    let listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let projects = vec![Project::new("bench")];
    Ok(Server::bind(ServerConfig { listen, data_dir, projects, ..ServerConfig::default() }).await?)
}

async fn measure(
    client: &Client,
    queue: &QueueId,
    name: &str,
    args: &BenchArgs,
    context: &Context,
) -> Result<Vec<Figures>, Failure> {
    client.create_groups(queue, &[GROUP]).await?;
    let bench = Bench { client, queue, name, args };
    let count = usize::try_from(args.messages).unwrap_or(usize::MAX);
    context.say("sending …");
    let meter = Meter::start();
    let latencies = bench.send(count, None).await?;
    let sent = meter.stop("send", count, latencies);
    context.say("handling …");
    let meter = Meter::start();
    bench.handle(count, Arc::default()).await?;
    let handled = meter.stop("handle", count, Vec::new());
    context.say("both at once …");
    let meter = Meter::start();
    let times = Arc::<Times>::default();
    let both = tokio::try_join!(bench.send(count, Some(&times)), bench.handle(count, times.clone()));
    both?;
    let both = meter.stop("both", count, times.take());
    Ok(vec![sent, handled, both])
}

/// When messages were sent, by number, and how long each took until it was handled.
#[derive(Debug, Default)]
struct Times(Mutex<(Vec<Instant>, Vec<Duration>)>);

impl Times {
    fn sent(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(Instant::now());
    }

    fn handled(&self, number: Option<usize>) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sent) = number.and_then(|number| times.0.get(number).copied()) {
            times.1.push(sent.elapsed());
        }
    }

    fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

struct Bench<'a> {
    client: &'a Client,
    queue: &'a QueueId,
    name: &'a str,
    args: &'a BenchArgs,
}

/// Names the number of a message.
const NUMBER: &str = "n";

impl Bench<'_> {
    /// Sends so many messages; gives how long each took until the service had it.
    async fn send(&self, count: usize, times: Option<&Times>) -> Result<Vec<Duration>, Failure> {
        let producer = Producer::builder(self.client.clone(), self.queue.clone()).max_in_flight(self.args.senders);
        let producer = producer.build()?;
        // Two bytes of the size are the quotes.
        let text = "x".repeat(usize::try_from(self.args.size).unwrap_or(2).saturating_sub(2));
        let body = Body::json(&text).map_err(|error| Failure::new(error.to_string()))?;
        // A task for each, so that the time is taken when the answer comes and not when somebody looks.
        let mut answers = JoinSet::new();
        for number in 0..count {
            let message = Message::new(body.clone()).attribute(NUMBER, number);
            if let Some(times) = times {
                times.sent();
            }
            let started = Instant::now();
            let receipt = producer.accept(message).await.map_err(|error| Failure::new(error.to_string()))?;
            answers.spawn(async move { receipt.await.map(|_| started.elapsed()) });
        }
        let mut latencies = Vec::with_capacity(count);
        while let Some(answer) = answers.join_next().await {
            let answer = answer.map_err(|error| Failure::new(error.to_string()))?;
            latencies.push(answer.map_err(|error| Failure::new(error.to_string()))?);
        }
        Ok(latencies)
    }

    /// Handles so many messages.
    async fn handle(&self, count: usize, times: Arc<Times>) -> Result<(), Failure> {
        let (done, handled) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (signal, counter) = (done.clone(), handled.clone());
        let handler = handler_fn(move |delivery: Delivery| {
            let number = delivery.attributes().get(NUMBER).and_then(serde_json::Value::as_u64);
            times.handled(number.and_then(|number| usize::try_from(number).ok()));
            if counter.fetch_add(1, Relaxed) + 1 == count {
                signal.notify_one();
            }
            async { Ok(()) }
        });
        let worker = Worker::builder(self.client.clone(), self.name, GROUP, handler).concurrency(self.args.concurrency);
        let worker = worker.build().map_err(|error| Failure::new(error.to_string()))?;
        let stop = CancellationToken::new();
        let mut working = tokio::spawn(worker.run(stop.clone().cancelled_owned()));
        let stalled = async {
            let seen = || handled.load(Relaxed);
            let mut before = seen();
            loop {
                // Ends by the time passing: nothing is waited for.
                let _ = timeout(PATIENCE, pending::<()>()).await;
                if seen() == before {
                    return;
                }
                before = seen();
            }
        };
        tokio::select! {
            () = done.notified() => {}
            () = stalled => return Err(Failure::new("no message came for a minute")),
            ended = &mut working => {
                let why = match ended {
                    Ok(Err(error)) => error.to_string(),
                    _ => "it ended by itself".to_owned(),
                };
                return Err(Failure::new(format!("the worker: {why}")));
            }
        }
        stop.cancel();
        // Its acknowledgements are part of the run.
        working
            .await
            .map_err(|error| Failure::new(error.to_string()))?
            .map_err(|error| Failure::new(error.to_string()))?;
        Ok(())
    }
}

fn print(runs: &[Figures], args: &BenchArgs, context: &Context) -> Result<(), Failure> {
    let mut table = Table::new(&["RUN", "MESSAGES/S", "MB/S", "P50", "P99", "CPU/MESSAGE"]);
    let millis = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} ms"));
    for run in runs {
        table.row([
            run.name.to_owned(),
            format!("{:.0}", run.per_second),
            format!("{:.1}", run.per_second * f64::from(args.size) / 1e6),
            millis(run.p50_ms),
            millis(run.p99_ms),
            run.cpu_us.map_or_else(|| "-".to_owned(), |micros| format!("{micros:.0} µs")),
        ]);
    }
    let json = json!({
        "target": args.against.as_deref().unwrap_or("embedded"),
        "durable": args.data_dir.is_some(),
        "messages": args.messages,
        "bytes": args.size,
        "runs": runs,
    });
    Ok(context.printer().print(&table.to_string(), &json)?)
}
