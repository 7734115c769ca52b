//! Drives one queueing system through one phase, and prints the result as a line of JSON.
//!
//! `harness` has the loops and clocks, the same for all systems; each other file is one system, in the best set-up that was
//! found for it. `run.py` starts the servers and puts the lines together.

mod bound;
mod dms;
mod harness;
mod nats;
mod process;
mod producer;
mod rabbitmq;
mod raw;
mod redis_streams;
mod stub;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

use harness::{Phase, Plan, System};

/// The allocator that dms-worker has, for all clients.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What goes wrong is printed, and ends the program.
type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures
    Measure(Measure),
    /// Stores messages and hands them out, without any feature: the bound of the machine
    Bound {
        #[arg(long)]
        listen: SocketAddr,
        /// Where its log is to be created
        #[arg(long)]
        data: PathBuf,
    },
    /// Serves canned answers: the bound of the wire
    Stub {
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(clap::Args)]
struct Measure {
    /// What to drive
    #[arg(value_enum)]
    system: Name,
    /// What to do with it
    #[arg(value_enum)]
    phase: Phase,
    /// Where its server is
    #[arg(long)]
    url: String,
    /// The server's processes, whose CPU time and disk writes are counted
    #[arg(long = "pid", value_delimiter = ',')]
    pids: Vec<u32>,
    /// The queue; created if it is missing
    #[arg(long)]
    queue: String,
    /// Connections, or requests under way at a time
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests under way of the producer, whose connections are the tasks that send
    #[arg(long, default_value_t = 64)]
    requests: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1024)]
    size: usize,
    #[arg(long, default_value_t = 10)]
    batch: usize,
    /// The number of messages to send or consume
    #[arg(long)]
    expect: Option<u64>,
    /// Messages per second when latency is measured
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Milliseconds that a handler takes
    #[arg(long, default_value_t = 0)]
    work_ms: u64,
    /// The certificate authority of an https server, for the worker
    #[arg(long)]
    ca: Option<PathBuf>,
    /// An application to which a loop by hand posts each message before it acknowledges
    #[arg(long)]
    app: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// This project's client and worker
    Worker,
    /// This project's batching producer
    Producer,
    /// A loop by hand over reqwest, against the same server
    Loop,
    /// Client and server without any feature
    Bound,
    Redis,
    Nats,
    Rabbitmq,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    match Args::parse().command {
        Command::Stub { listen } => stub::serve(listen).await,
        Command::Bound { listen, data } => bound::server::serve(listen, &data).await,
        Command::Measure(args) => {
            let plan = Plan {
                connections: args.connections,
                time: Duration::from_secs_f64(args.seconds),
                size: args.size,
                batch: args.batch,
                expect: args.expect,
                rate: args.rate,
                pids: args.pids,
            };
            let (url, queue) = (args.url.as_str(), args.queue.as_str());
            let dms = || dms::Dms::new(url, queue, Duration::from_millis(args.work_ms), args.ca);
            let system: Box<dyn System> = match args.system {
                Name::Worker => Box::new(dms()?),
                Name::Producer => Box::new(producer::Batching::new(dms()?, args.requests)),
                Name::Bound => Box::new(bound::client::Bound::new(url)),
                Name::Loop => Box::new(raw::Raw::new(url, queue, args.app)),
                Name::Redis => Box::new(redis_streams::RedisStreams::new(url, queue)?),
                Name::Nats => Box::new(nats::Nats::new(url, queue).await?),
                Name::Rabbitmq => Box::new(rabbitmq::Rabbitmq::new(url, queue).await?),
            };
            let figures = harness::run(system.as_ref(), args.phase, &plan).await?;
            println!("{}", serde_json::to_string(&figures)?);
            Ok(())
        }
    }
}
