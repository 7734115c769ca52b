//! Plays a scenario under the paused clock, and returns its history and the final state of the messages.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use dms_server::{
    MqsConfig, Server, ServerConfig,
    broker::{
        Broker, GroupPath, Stream,
        embedded::{EmbeddedBroker, EmbeddedConfig},
    },
    clock::Clock,
};
use dms_worker::{
    Client, Dialect,
    message::Message,
    queue::{NewQueue, ProjectId, QueueId, QueueMode},
    transport::InProcess,
    worker::{
        AckWait, Delivery, MaxMessages, Ordering, Worker, WorkerBuilder, WorkerHandle, batch_handler_fn, handler_fn,
    },
};
use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, advance, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    handler::Script,
    history::{Entry, History, LifeEvent, Process, SendOutcome},
    network::{Network, Wire},
    sabotage::Sabotage,
    scenario::{End, HoldKind, Life, Order, Scenario, WorkerPlan},
};

/// How long it may take until all is settled after the last fault.
const QUIET: Duration = Duration::from_secs(2 * 3600);
/// How long the workers may take to stop: the longest grace period, the flush, and a margin.
const STOP: Duration = Duration::from_secs(35);
/// How often to check whether all is settled.
const GLANCE: Duration = Duration::from_secs(5);

/// The result of a run.
#[derive(Debug)]
pub(super) struct HandlerOutcome {
    pub(super) scenario: Scenario,
    pub(super) entries: Vec<(Duration, Entry)>,
    /// The messages that are not settled, and the dead letters.
    pub(super) waiting: Vec<u64>,
    pub(super) dead: Vec<u64>,
    /// The number of messages that the server counts as acknowledged.
    pub(super) consumed: u64,
    /// Whether the last workers stopped in time.
    pub(super) stopped: bool,
}

/// Plays a scenario on a separate runtime; equal scenarios give equal histories.
pub(super) fn play(scenario: &Scenario, sabotage: Option<Sabotage>) -> HandlerOutcome {
    // The product draws its jitter from this thread's generator.
    fastrand::seed(scenario.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { World::new(scenario.clone(), sabotage).await.play().await })
}

/// The world of one run; cheap to clone.
#[derive(Clone)]
struct World(Arc<Inner>);

struct Inner {
    scenario: Scenario,
    sabotage: Option<Sabotage>,
    broker: Arc<EmbeddedBroker>,
    _server: Server,
    path: GroupPath,
    history: Arc<History>,
    network: Arc<Network>,
    script: Arc<Script>,
    begun: Instant,
    /// The run is over: the workers that are left stop.
    over: CancellationToken,
    processes: Mutex<Process>,
}

impl World {
    async fn new(scenario: Scenario, sabotage: Option<Sabotage>) -> Self {
        let clock = Clock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let config = EmbeddedConfig::default().failure_counting(scenario.counting);
        let broker = Arc::new(EmbeddedBroker::in_memory(config, clock).await);
        let mqs = scenario.mqs.then(MqsConfig::new);
        let config = ServerConfig::default().clock(clock).extensions(scenario.extensions).mqs(mqs);
        let server = Server::with_broker(config, broker.clone()).await.unwrap();
        let path = create(&scenario, &broker).await;
        let history = Arc::new(History::new());
        let transport = match server.mqs_service() {
            Some(service) => InProcess::new(service),
            None => InProcess::new(server.service()),
        };
        let network =
            Network::new(transport, history.clone(), scenario.weather, Rng::with_seed(scenario.seed ^ 0x5eed));
        let script = Arc::new(Script::new(scenario.messages.clone(), history.clone()));
        Self(Arc::new(Inner {
            scenario,
            sabotage,
            broker,
            _server: server,
            path,
            history,
            network,
            script,
            begun: Instant::now(),
            over: CancellationToken::new(),
            processes: Mutex::new(0),
        }))
    }

    async fn play(self) -> HandlerOutcome {
        let (mut parts, mut workers) = (JoinSet::new(), JoinSet::new());
        parts.spawn(self.clone().produce());
        parts.spawn(self.clone().restart());
        parts.spawn(self.clone().sleep());
        for plan in &self.0.scenario.workers {
            workers.spawn(self.clone().live(plan.clone()));
        }
        sleep_until(self.0.begun + self.0.scenario.calm_at).await;
        self.0.history.note(Entry::Calm);
        self.0.network.calm();
        parts.join_all().await;
        let until = Instant::now() + QUIET;
        while Instant::now() < until && !self.bodies(Stream::Messages).await.is_empty() {
            sleep(GLANCE).await;
        }
        self.0.over.cancel();
        let stopped = timeout(STOP, workers.join_all()).await.is_ok();
        self.outcome(stopped).await
    }

    async fn outcome(&self, stopped: bool) -> HandlerOutcome {
        let Inner { scenario, broker, path, history, .. } = &*self.0;
        let dead = match scenario.max_consume_count {
            Some(_) => self.bodies(Stream::DeadLetters).await,
            None => Vec::new(),
        };
        let consumed = broker.groups(&path.project, &path.queue).await.unwrap().groups[0].consumed_messages;
        let waiting = self.bodies(Stream::Messages).await;
        HandlerOutcome { scenario: scenario.clone(), entries: history.entries(), waiting, dead, consumed, stopped }
    }

    /// The messages of a stream that are not settled.
    async fn bodies(&self, stream: Stream) -> Vec<u64> {
        let peeked = self.0.broker.peek(&self.0.path, stream, 0, 1_000).await.unwrap();
        let body = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap()["body"].as_u64().unwrap();
        peeked.iter().map(|one| body(&one.json)).collect()
    }

    async fn at(&self, time: Duration) {
        sleep_until(self.0.begun + time).await;
    }

    fn client(&self, process: Option<Process>, dead: CancellationToken) -> Client {
        let wire = Wire { network: self.0.network.clone(), process, dead, sabotage: self.0.sabotage };
        let dialect = if self.0.scenario.mqs { Dialect::Mqs } else { Dialect::Dms };
        Client::builder("http://in.process", "local").dialect(dialect).transport(Arc::new(wire)).build().unwrap()
    }

    async fn produce(self) {
        let client = self.client(None, CancellationToken::new());
        for (at, range) in &self.0.scenario.sends {
            self.at(*at).await;
            let message = |body: usize| {
                let delay = self.0.scenario.messages[body].delay;
                let message = Message::json(&body).unwrap();
                if self.0.scenario.mqs {
                    return message;
                }
                message.attribute("key", format!("{}", body % 3)).delay(delay)
            };
            let messages: Vec<Message> = range.clone().map(message).collect();
            let queue = if self.0.scenario.mqs { QueueId::from("orders") } else { self.0.path.queue.clone() };
            let outcome = match client.send(&queue, &messages).await {
                Ok(sent) => sent.into_iter().try_for_each(|one| one.map(drop)),
                Err(error) => Err(error),
            };
            let outcome = match outcome {
                Ok(()) => SendOutcome::Stored,
                Err(error) if error.is_unsure() => SendOutcome::Unsure,
                Err(_) => SendOutcome::Refused,
            };
            let messages = range.clone().map(|body| body as u64).collect();
            self.0.history.note(Entry::Sent { messages, outcome });
        }
    }

    async fn restart(self) {
        let mut restarts = self.0.scenario.restarts.clone();
        restarts.sort();
        for (at, away) in restarts {
            self.at(at).await;
            self.0.history.note(Entry::ServerDown);
            self.0.network.set_down(true);
            self.0.broker.release_leases().await.unwrap();
            sleep(away).await;
            self.0.network.set_down(false);
            self.0.history.note(Entry::ServerUp);
        }
    }

    /// The machine sleeps now and then: clocks jump, and everything that was due meanwhile is due at once.
    async fn sleep(self) {
        let mut sleeps = self.0.scenario.sleeps.clone();
        sleeps.sort();
        for (at, length) in sleeps {
            self.at(at).await;
            self.0.history.note(Entry::Asleep { length });
            advance(length).await;
            // Somebody runs before it sleeps again.
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// One worker's lives.
    async fn live(self, plan: WorkerPlan) {
        for life in &plan.lives {
            self.at(life.starts).await;
            let process = {
                let mut processes = self.0.processes.lock().unwrap();
                *processes += 1;
                *processes
            };
            self.run_process(process, &plan, *life).await;
        }
    }

    async fn run_process(&self, process: Process, plan: &WorkerPlan, life: Life) {
        let note = |event| self.0.history.note(Entry::Life { process, event });
        let dead = CancellationToken::new();
        let worker = self.builder(process, plan, dead.clone()).build().unwrap();
        let handle = worker.handle();
        note(LifeEvent::Started);
        let running = worker.run(std::future::pending());
        tokio::pin!(running);
        let end = async {
            match life.ends {
                Some((at, end)) => {
                    self.at(at).await;
                    end
                }
                None => {
                    self.0.over.cancelled().await;
                    End::Stop
                }
            }
        };
        let ended = tokio::select! {
            biased;
            ended = &mut running => ended,
            never = self.hold(process, plan, &handle) => match never {},
            end = end => match end {
                End::Stop => {
                    note(LifeEvent::Stopping);
                    handle.stop();
                    running.await
                }
                End::StopNow => {
                    note(LifeEvent::StoppingNow);
                    handle.stop_now();
                    running.await
                }
                End::Drop => return note(LifeEvent::Dropped),
                End::Kill => {
                    dead.cancel();
                    return note(LifeEvent::Killed);
                }
            },
        };
        note(LifeEvent::Ended(ended.err().map(|error| error.to_string())));
    }

    /// Keeps a process from fetching now and then.
    async fn hold(&self, process: Process, plan: &WorkerPlan, worker: &WorkerHandle) -> Infallible {
        for hold in plan.holds.iter().filter(|hold| self.0.begun + hold.at >= Instant::now()) {
            self.at(hold.at).await;
            let note = |on| self.0.history.note(Entry::Held { process, how: hold.kind, on });
            note(true);
            match hold.kind {
                HoldKind::Pause => {
                    worker.pause();
                    sleep(hold.length).await;
                    worker.resume();
                }
                HoldKind::NoConcurrency => {
                    worker.set_concurrency(0);
                    sleep(hold.length).await;
                    worker.set_concurrency(plan.concurrency);
                }
                HoldKind::Brake => {
                    let _brake = worker.cap_concurrency(0);
                    sleep(hold.length).await;
                }
            }
            note(false);
        }
        std::future::pending().await
    }

    fn builder(&self, process: Process, plan: &WorkerPlan, dead: CancellationToken) -> WorkerBuilder {
        let ordering = match plan.ordering {
            Order::None => Ordering::None,
            Order::Batch => Ordering::Batch,
            // A number has no parts, so all messages share the order of those without a key.
            Order::Key if self.0.scenario.mqs => Ordering::by_pointer("/0"),
            Order::Key => Ordering::by_attribute("key"),
        };
        let (client, script) = (self.client(Some(process), dead), self.0.script.clone());
        let builder = match plan.batching {
            None => {
                let handler = handler_fn(move |delivery: Delivery| script.clone().handle(process, delivery));
                Worker::builder(client).queue("orders").group("billing").handler(handler)
            }
            Some(batching) => {
                let handler = batch_handler_fn(move |deliveries| script.clone().handle_batch(process, deliveries));
                Worker::builder(client).queue("orders").group("billing").batch_handler(handler).batching(batching)
            }
        };
        builder
            .name(format!("process-{process}"))
            .concurrency(plan.concurrency)
            .max_messages(plan.max_messages.map_or(MaxMessages::Auto, MaxMessages::Fixed))
            .ack_wait(plan.ack_wait.map_or(AckWait::Auto, AckWait::Fixed))
            .poll_wait(plan.poll_wait)
            .pollers(plan.pollers)
            .handler_timeout(plan.timeout)
            .ordering(ordering)
            .shutdown_grace(plan.grace)
    }
}

async fn create(scenario: &Scenario, broker: &EmbeddedBroker) -> GroupPath {
    let project = ProjectId::new("local");
    let mut queue = NewQueue::new("orders");
    if scenario.fifo {
        queue = queue.mode(QueueMode::Fifo);
    }
    if scenario.kafka {
        queue = queue.mode(QueueMode::KafkaHa);
    }
    if let Some(count) = scenario.max_consume_count {
        queue = queue.dead_letters_after(count);
    }
    let queue: QueueId = broker.create_queue(&project, queue).await.unwrap().id;
    let mut groups = broker.create_groups(&project, &queue, &["billing".to_owned()]).await.unwrap();
    GroupPath { project, queue, group: groups.remove(0) }
}
