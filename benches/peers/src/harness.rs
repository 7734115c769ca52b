//! The loops and clocks, the same for every system.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{Error, process::Used};

/// The phase to run.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Phase {
    /// Send as fast as it goes.
    Produce,
    /// Receive and acknowledge the existing messages.
    Consume,
    /// Both at once.
    Both,
    /// Send at a steady rate, one message at a time, and see how long each takes to its receiver.
    Latency,
    /// Delete the queue.
    Drop,
}

/// How much of it.
pub struct Plan {
    pub connections: usize,
    pub time: Duration,
    pub size: usize,
    pub batch: usize,
    pub expect: Option<u64>,
    pub rate: u32,
    pub pids: Vec<u32>,
}

/// The result. CPU times are microseconds per message, sent or received.
#[derive(Default, Serialize)]
pub struct Figures {
    seconds: f64,
    produced: u64,
    acked: u64,
    client_cpu_us: f64,
    server_cpu_us: f64,
    /// Of requests that send; of messages from sending to the receiver, where latency is measured.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    written_bytes: u64,
    /// How long handlers worked on average, where they were to take time.
    work_ms: Option<f64>,
}

/// A queueing system.
#[async_trait]
pub trait System: Send + Sync {
    /// Creates the queue if it is missing.
    async fn prepare(&self) -> Result<(), Error>;

    /// A sender with a separate connection, or the equivalent.
    async fn sender(&self) -> Result<Box<dyn Sender>, Error>;

    /// Receives and acknowledges with this number of connections until the progress is complete.
    async fn consume(&self, connections: usize, progress: Arc<Progress>) -> Result<(), Error>;

    /// Deletes the queue.
    async fn drop_queue(&self) -> Result<(), Error>;
}

/// Sends messages.
#[async_trait]
pub trait Sender: Send {
    /// Sends a batch; returns when the server has it, in the system's own sense.
    async fn send(&mut self, bodies: &[Bytes]) -> Result<(), Error>;
}

/// Receives messages.
#[async_trait]
pub trait Receiver: Send {
    /// Receives some messages, shows each to the progress, acknowledges them, and says how many they were.
    async fn cycle(&mut self, progress: &Progress) -> Result<u64, Error>;
}

/// How far receiving has got.
pub struct Progress {
    started: Instant,
    acked: AtomicU64,
    expect: u64,
    complete: Notify,
    finished: Mutex<Option<Instant>>,
    /// How long messages took, where their bodies say when they were sent.
    latencies: Option<Mutex<Vec<Duration>>>,
    /// Runs of handlers that took time, and nanoseconds of all of them.
    worked: (AtomicU64, AtomicU64),
}

impl Progress {
    fn new(expect: u64, latencies: bool) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            acked: AtomicU64::new(0),
            expect,
            complete: Notify::new(),
            finished: Mutex::default(),
            latencies: latencies.then(Mutex::default),
            worked: Default::default(),
        })
    }

    /// A message has come.
    pub fn saw(&self, body: &[u8]) {
        if let Some(latencies) = &self.latencies {
            let digits = body.iter().copied().skip_while(|byte| *byte == b'"').take_while(u8::is_ascii_digit);
            let sent = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            let took = self.started.elapsed().saturating_sub(Duration::from_nanos(sent));
            latencies.lock().expect("no panics").push(took);
        }
    }

    /// The duration of a handler.
    pub fn worked(&self, took: Duration) {
        self.worked.0.fetch_add(1, Relaxed);
        self.worked.1.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    fn work_ms(&self) -> Option<f64> {
        let (runs, nanos) = (self.worked.0.load(Relaxed), self.worked.1.load(Relaxed));
        (runs > 0).then(|| nanos as f64 / runs as f64 / 1e6)
    }

    /// Messages were acknowledged.
    pub fn acked(&self, count: u64) {
        if self.acked.fetch_add(count, Relaxed) + count >= self.expect {
            self.finish();
        }
    }

    fn finish(&self) {
        self.finished.lock().expect("no panics").get_or_insert_with(Instant::now);
        self.complete.notify_waiters();
    }

    fn is_complete(&self) -> bool {
        self.finished.lock().expect("no panics").is_some()
    }

    /// Waits for the end.
    pub async fn completed(&self) {
        loop {
            let complete = self.complete.notified();
            if self.is_complete() {
                return;
            }
            complete.await;
        }
    }
}

/// Runs receivers until the progress is complete.
pub async fn receive_with(receivers: Vec<Box<dyn Receiver>>, progress: &Arc<Progress>) -> Result<(), Error> {
    let mut running = JoinSet::new();
    for mut receiver in receivers {
        let progress = progress.clone();
        running.spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = progress.completed() => return Ok::<(), Error>(()),
                    got = receiver.cycle(&progress) => progress.acked(got?),
                }
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

/// Runs a phase.
pub async fn run(system: &dyn System, phase: Phase, plan: &Plan) -> Result<Figures, Error> {
    if let Phase::Drop = phase {
        system.drop_queue().await?;
        return Ok(Figures::default());
    }
    system.prepare().await?;
    match phase {
        Phase::Produce => {
            let senders = senders(system, plan.connections).await?;
            let meter = Meter::start(plan);
            let (produced, latencies) = send_for(senders, plan).await?;
            Ok(meter.stop(produced, 0, latencies))
        }
        Phase::Consume => {
            let meter = Meter::start(plan);
            let progress = Progress::new(plan.expect.unwrap_or(u64::MAX), false);
            let consuming = system.consume(plan.connections, progress.clone());
            until_over(consuming, &progress, plan.time).await?;
            let figures = meter.stop(0, progress.acked.load(Relaxed), Vec::new());
            Ok(Figures { work_ms: progress.work_ms(), ..figures })
        }
        Phase::Both => {
            let senders = senders(system, plan.connections / 2).await?;
            let meter = Meter::start(plan);
            let progress = Progress::new(u64::MAX, false);
            let consuming = system.consume(plan.connections / 2, progress.clone());
            let (sent, ()) = tokio::try_join!(send_for(senders, plan), until_over(consuming, &progress, plan.time))?;
            Ok(meter.stop(sent.0, progress.acked.load(Relaxed), sent.1))
        }
        Phase::Latency => {
            let senders = senders(system, 4).await?;
            let meter = Meter::start(plan);
            let progress = Progress::new(u64::MAX, true);
            let consuming = system.consume(4, progress.clone());
            let (sent, ()) = tokio::try_join!(
                send_steadily(senders, plan, progress.started),
                // The last ones are on their way when sending ends.
                until_over(consuming, &progress, plan.time + Duration::from_millis(500))
            )?;
            let latencies =
                progress.latencies.as_ref().map(|seen| std::mem::take(&mut *seen.lock().expect("no panics")));
            Ok(meter.stop(sent, progress.acked.load(Relaxed), latencies.unwrap_or_default()))
        }
        Phase::Drop => unreachable!("handled above"),
    }
}

async fn senders(system: &dyn System, count: usize) -> Result<Vec<Box<dyn Sender>>, Error> {
    let mut senders = Vec::with_capacity(count);
    for _ in 0..count {
        senders.push(system.sender().await?);
    }
    Ok(senders)
}

async fn until_over(
    consuming: impl Future<Output = Result<(), Error>>,
    progress: &Progress,
    time: Duration,
) -> Result<(), Error> {
    tokio::pin!(consuming);
    tokio::select! {
        ended = &mut consuming => return ended,
        () = sleep(time) => progress.finish(),
    }
    // Requests in progress may finish: some clients need a signal, and a moment.
    timeout(Duration::from_secs(10), consuming).await?
}

async fn send_for(senders: Vec<Box<dyn Sender>>, plan: &Plan) -> Result<(u64, Vec<Duration>), Error> {
    let text = format!("\"{}\"", "x".repeat(plan.size.saturating_sub(2)));
    let bodies: Arc<[Bytes]> = vec![Bytes::from(text); plan.batch].into();
    let (until, most) = (Instant::now() + plan.time, plan.expect.unwrap_or(u64::MAX));
    let (begun, batch) = (Arc::new(AtomicU64::new(0)), plan.batch as u64);
    let mut running = JoinSet::new();
    for mut sender in senders {
        let (bodies, begun) = (bodies.clone(), begun.clone());
        running.spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < until && begun.fetch_add(batch, Relaxed) < most {
                let started = Instant::now();
                sender.send(&bodies).await?;
                took.push(started.elapsed());
            }
            Ok::<_, Error>(took)
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = running.join_next().await {
        latencies.extend(ended??);
    }
    Ok((latencies.len() as u64 * plan.batch as u64, latencies))
}

/// Sends single messages by the clock: a slow answer delays no other message.
async fn send_steadily(senders: Vec<Box<dyn Sender>>, plan: &Plan, started: Instant) -> Result<u64, Error> {
    let count = senders.len() as u32;
    let mut running = JoinSet::new();
    for (index, mut sender) in (0..).zip(senders) {
        let (size, until, period) = (plan.size, started + plan.time, Duration::from_secs(1) * count / plan.rate);
        running.spawn(async move {
            sleep(period / count * index).await;
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut sent = 0;
            while Instant::now() < until {
                ticks.tick().await;
                let text = format!("\"{:020}{}\"", started.elapsed().as_nanos(), "x".repeat(size.saturating_sub(22)));
                sender.send(&[Bytes::from(text)]).await?;
                sent += 1;
            }
            Ok::<u64, Error>(sent)
        });
    }
    let mut sent = 0;
    while let Some(ended) = running.join_next().await {
        sent += ended??;
    }
    Ok(sent)
}

struct Meter<'a> {
    pids: &'a [u32],
    started: Instant,
    client: Used,
    server: Used,
}

impl<'a> Meter<'a> {
    fn start(plan: &'a Plan) -> Self {
        Self { pids: &plan.pids, client: Used::here(), server: Used::by(&plan.pids), started: Instant::now() }
    }

    fn stop(self, produced: u64, acked: u64, mut latencies: Vec<Duration>) -> Figures {
        let seconds = self.started.elapsed().as_secs_f64();
        let client = Used::here().since(self.client);
        let server = Used::by(self.pids).since(self.server);
        let count = (produced + acked).max(1) as f64;
        latencies.sort_unstable();
        let quantile = |percent: usize| {
            let at = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(at).map(|took| took.as_secs_f64() * 1e3)
        };
        Figures {
            seconds,
            produced,
            acked,
            client_cpu_us: client.cpu.as_secs_f64() * 1e6 / count,
            server_cpu_us: server.cpu.as_secs_f64() * 1e6 / count,
            p50_ms: quantile(50),
            p99_ms: quantile(99),
            written_bytes: server.written,
            work_ms: None,
        }
    }
}
