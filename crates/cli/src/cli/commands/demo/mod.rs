//! `demo`: the whole life of a queue in a few seconds, with every message accounted for at the end.

#[cfg(feature = "dashboard")]
mod keep;
mod ledger;
mod story;

use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use self::{ledger::Ledger, story::Story};
use crate::cli::{
    service::signals::until_signal,
    support::{
        context::Context,
        failure::{ExitKind, Failure},
        logging,
    },
};
use dms_protocol::{
    auth::canonical::hex,
    message::{AckStatus, Message},
    queue::{GroupId, NewQueue, QueueId, SourcePath, Stream},
    secret::Secret,
};
use dms_server::{MqsConfig, Project, Server, ServerConfig};
use dms_worker::{
    Dialect,
    client::{Client, ConsumeOptions},
    producer::Producer,
    redrive::Redrive,
    worker::{Delivery, HandlerError, OnReject, Worker, WorkerError, WorkerReport, handler_fn},
};

/// The random bytes of the token of the dashboard.
const TOKEN_BYTES: usize = 12;

/// Options of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dms-worker demo              2,000 orders, 1 % of them poison
  dms-worker demo -o json      only the summary, for programs
  dms-worker demo --dialect mqs    over the API of ROMA Connect MQS: poison orders are parked in a topic
  dms-worker demo --keep       the server, a worker and the dashboard go on until Ctrl-C

Exit code 0 means that every message was accounted for.")]
pub(crate) struct DemoArgs {
    /// Number of orders to send
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    orders: u32,
    /// Keep the server, a worker and the dashboard running after the tour, and print the link
    #[cfg(feature = "dashboard")]
    #[arg(long)]
    keep: bool,
}

impl DemoArgs {
    fn keep(&self) -> bool {
        #[cfg(feature = "dashboard")]
        return self.keep;
        #[cfg(not(feature = "dashboard"))]
        false
    }
}

const QUEUE: &str = "orders";
const GROUP: &str = "billing";
/// The topic of orders that keep failing, where there are no dead letters.
const PARKED: &str = "orders-parked";
/// Tries before an order becomes a dead letter.
const TRIES: u32 = 3;
/// Each part of the tour ends within this time, or the tour has failed.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// The messages of the demo.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: usize,
    customer: String,
    amount: u32,
}

impl Order {
    fn new(id: usize) -> Self {
        Self { id, customer: format!("customer-{}", id % 97), amount: 100 }
    }

    /// One order in a hundred breaks the handler until the handler is mended.
    fn is_poison(id: usize) -> bool {
        id % 100 == 37
    }
}

/// What the parts of the tour share.
#[derive(Clone)]
struct Tour {
    /// Sends, consumes and redrives, in the dialect of the tour.
    client: Client,
    /// Counts messages.
    counts: Client,
    queue: QueueId,
    group: GroupId,
    ledger: Arc<Ledger>,
    /// Whether the handler can cope with poison orders by now.
    mended: Arc<AtomicBool>,
}

/// Runs the tour.
pub(crate) async fn run(args: DemoArgs, context: &Context) -> Result<ExitCode, Failure> {
    // The failures of poison orders are part of the tour, and not worth a line each.
    logging::for_command(&context.global, context.colored(), "error");
    let orders = usize::try_from(args.orders).unwrap_or(usize::MAX);
    let (keep, complete) = (args.keep(), AtomicBool::new(false));
    until_signal(async |stop| {
        tokio::select! {
            () = stop.cancelled() => match complete.load(Relaxed) {
                true => Ok(ExitCode::SUCCESS),
                false => Err(Failure::new("interrupted: the tour is incomplete")),
            },
            ended = tour(orders, keep, &complete, context) => ended,
        }
    })
    .await
}

async fn tour(orders: usize, keep: bool, complete: &AtomicBool, context: &Context) -> Result<ExitCode, Failure> {
    let story = Story::new(context, context.dialect_flag()?);
    let dialect = context.dialect_flag()?;
    if keep && dialect == Dialect::Mqs {
        let text = "--keep goes on with the DMS API, which the dashboard shows: leave out --dialect mqs";
        return Err(Failure::of(ExitKind::Usage, text));
    }
    let token = keep.then(token).transpose()?;
    let server = start_server(token.clone(), dialect).await?;
    #[cfg(feature = "dashboard")]
    let dashboard = server.dashboard_url().zip(server.dashboard_login_link()).zip(token);
    let url = server.local_addr().map(|address| format!("http://{address}")).unwrap_or_default();
    let mqs = server.mqs_url();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.run(stop.clone().cancelled_owned()));

    let tour = set_up(&url, mqs.as_deref(), orders).await?;
    story.server(mqs.as_deref().unwrap_or(&url));
    let poison = (0..orders).filter(|id| Order::is_poison(*id)).count();
    let first = tour.consume(&story, orders, poison).await?;
    story.dead_letters(&tour.show_dead_letters().await?);
    tour.mended.store(true, Relaxed);
    let redriven = tour.redrive(&story, poison).await?;

    let summary = tour.ledger.summary(first.failed, redriven, first.received);
    story.summary(&summary)?;
    complete.store(summary.is_complete(), Relaxed);
    #[cfg(feature = "dashboard")]
    if let Some(((url, link), token)) = dashboard {
        story.dashboard(&link, &url, token.expose());
        keep::go_on(&tour).await?;
    }
    stop.cancel();
    // The server has nothing left to say.
    let _ = serving.await;
    Ok(ExitCode::from(u8::from(!summary.is_complete())))
}

async fn start_server(token: Option<Secret>, dialect: Dialect) -> Result<Server, Failure> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mqs = (dialect == Dialect::Mqs).then(|| MqsConfig::new().listen(any_port));
    let config = ServerConfig::default().listen(any_port).projects(vec![Project::new("demo")]).mqs(mqs);
    let config = match token {
        Some(token) => config.admin(any_port).admin_token(token),
        None => config,
    };
    Ok(Server::bind(config).await?)
}

/// A token for the dashboard of this server alone, so that no web page and no other user of the machine changes anything.
fn token() -> Result<Secret, Failure> {
    let mut random = [0; TOKEN_BYTES];
    dms_server::internal::random(&mut random)
        .map_err(|error| Failure::new(format!("the system gives no random numbers: {error}")))?;
    Ok(Secret::from(hex(&random)))
}

async fn set_up(url: &str, mqs: Option<&str>, orders: usize) -> Result<Tour, Failure> {
    let counts = Client::builder(url, "demo").build()?;
    let (ledger, mended) = (Arc::new(Ledger::new(orders)), Arc::default());
    if let Some(url) = mqs {
        let client = Client::builder(url, "").dialect(Dialect::Mqs).build()?;
        // Topics and groups are created by their first use. The group of parked messages is needed to count them.
        let parking = counts.create_queue(NewQueue::new(PARKED)).await?.id;
        counts.create_groups(&parking, &[GROUP]).await?;
        return Ok(Tour { client, counts, queue: QueueId::from(QUEUE), group: GroupId::from(GROUP), ledger, mended });
    }
    let queue = counts.create_queue(NewQueue::new(QUEUE).dead_letters_after(TRIES)).await?.id;
    let created = counts.create_groups(&queue, &[GROUP]).await?;
    let group = created.into_iter().next().map(|(id, _)| id).ok_or_else(|| Failure::new("no group was created"))?;
    Ok(Tour { client: counts.clone(), counts, queue, group, ledger, mended })
}

impl Tour {
    /// Sends every order while a worker handles them; over when all but the poison ones are handled, and those are dead
    /// letters.
    async fn consume(&self, story: &Story<'_>, orders: usize, poison: usize) -> Result<WorkerReport, Failure> {
        let bar = story.bar("handled", orders - poison);
        let stop = CancellationToken::new();
        let worker = tokio::spawn(self.worker()?.run(stop.clone().cancelled_owned()));
        let send = async {
            self.send(orders).await?;
            story.sent(orders);
            self.until(|dead| dead == poison as u64 && self.ledger.handled() >= orders - poison).await
        };
        let watch = async {
            let mut tick = interval(Duration::from_millis(50));
            loop {
                tick.tick().await;
                bar.set_position(self.ledger.handled() as u64);
            }
        };
        tokio::select! {
            done = send => done?,
            () = watch => {}
        }
        self.ledger.first_pass_over();
        bar.finish_and_clear();
        stop.cancel();
        let report = ended(worker).await?;
        story.handled(self.ledger.handled(), poison);
        Ok(report)
    }

    /// The worker that a user would write: its handler fails on poison orders until it is mended.
    fn worker(&self) -> Result<Worker, Failure> {
        let (ledger, mended) = (self.ledger.clone(), self.mended.clone());
        let handler = handler_fn(move |delivery: Delivery| {
            let (ledger, mended) = (ledger.clone(), mended.clone());
            async move {
                let order: Order = delivery.json()?;
                if Order::is_poison(order.id) && !mended.load(Relaxed) {
                    return Err(HandlerError::retry(format!("order {} has no price", order.id)));
                }
                ledger.record_handled(order.id);
                Ok(())
            }
        });
        let worker = Worker::builder(self.client.clone()).queue(QUEUE).group(GROUP).handler(handler);
        let worker = match self.parks() {
            true => worker.on_reject(OnReject::Park(PARKED.to_owned())).max_attempts(TRIES),
            false => worker,
        };
        worker.concurrency(64).build().map_err(|error| Failure::new(error.to_string()))
    }

    async fn send(&self, orders: usize) -> Result<(), Failure> {
        let producer = Producer::builder(self.client.clone(), self.queue.clone()).build()?;
        let mut receipts = Vec::with_capacity(orders);
        for id in 0..orders {
            let message = Message::json(&Order::new(id)).map_err(|error| Failure::new(error.to_string()))?;
            self.ledger.record_sent(id);
            let receipt = producer.enqueue(message).await;
            receipts.push(receipt.map_err(|error| Failure::new(error.to_string()))?);
        }
        for receipt in receipts {
            receipt.await.map_err(|error| Failure::new(error.to_string()))?;
        }
        Ok(())
    }

    /// Waits until `reached` says so of the number of dead letters.
    async fn until(&self, reached: impl Fn(u64) -> bool) -> Result<(), Failure> {
        let mut tick = interval(Duration::from_millis(25));
        let wait = async {
            loop {
                tick.tick().await;
                if reached(self.dead().await?) {
                    return Ok(());
                }
            }
        };
        let late = |_| Failure::of(ExitKind::Failed, "the tour did not get to its end in time: a message is missing");
        timeout(STEP_TIMEOUT, wait).await.map_err(late)?
    }

    /// Whether messages that keep failing are parked, because the dialect has no dead letters.
    fn parks(&self) -> bool {
        self.client.dialect() == Dialect::Mqs
    }

    /// The number of dead letters, or of parked messages.
    async fn dead(&self) -> Result<u64, Failure> {
        if self.parks() {
            let queue = self.counts.find_queue(PARKED).await?;
            return Ok(self.counts.find_group(&queue.id, GROUP).await?.available_messages);
        }
        let groups = self.counts.groups(&self.queue).await?;
        let group = groups.iter().find(|group| group.id == self.group);
        Ok(group.and_then(|group| group.available_dead_letters).unwrap_or(0))
    }

    /// A few of the dead letters, as they are looked at without being taken.
    async fn show_dead_letters(&self) -> Result<Vec<String>, Failure> {
        let source = self.dead_letters();
        let options = ConsumeOptions::new().max_messages(3);
        let batch = self.client.consume(&source, &options).await?;
        let back: Vec<_> = batch.iter().map(|message| (message.handle.clone(), AckStatus::Fail)).collect();
        if !back.is_empty() {
            self.client.acknowledge(&source, &back).await?;
        }
        Ok(batch.into_iter().map(|message| message.body.as_str().to_owned()).collect())
    }

    /// Sends every dead letter to the queue again, and lets the mended worker handle them. Says how many it sent.
    async fn redrive(&self, story: &Story<'_>, poison: usize) -> Result<u64, Failure> {
        let stop = CancellationToken::new();
        let handling = tokio::spawn(self.worker()?.run(stop.clone().cancelled_owned()));
        let redriven = Redrive::new(self.client.clone(), self.dead_letters()).run(pending()).await?.redriven;
        let total = self.ledger.sent();
        self.until(|dead| dead == 0 && self.ledger.handled() == total).await?;
        stop.cancel();
        ended(handling).await?;
        story.redriven(redriven, poison);
        Ok(redriven)
    }

    fn dead_letters(&self) -> SourcePath {
        if self.parks() {
            return SourcePath::messages(PARKED, GROUP);
        }
        SourcePath { queue: self.queue.clone(), group: self.group.clone(), stream: Stream::DeadLetters }
    }
}

async fn ended(worker: tokio::task::JoinHandle<Result<WorkerReport, WorkerError>>) -> Result<WorkerReport, Failure> {
    let ended = worker.await.map_err(|error| Failure::new(format!("a worker died: {error}")))?;
    ended.map_err(|error| Failure::new(error.to_string()))
}
