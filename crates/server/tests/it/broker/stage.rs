//! A broker with one queue and its groups, and short names for the operations of tests.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dms_protocol::queue::{ConsumerGroup, GroupId, NewQueue, ProjectId, QueueId, TagFilter, TagMode};
#[cfg(feature = "postgres")]
use dms_server::broker::embedded::PostgresConfig;
use dms_server::{
    broker::{
        Ack, AckCounts, AckStatus, Broker, BrokerError, GroupPath, LeaseRequest, LeasedMessage, NewMessage, Stream,
        embedded::{EmbeddedBroker, EmbeddedConfig, OpenError},
    },
    clock::Clock,
};

/// A broker under test.
pub(crate) struct Stage {
    pub(crate) broker: EmbeddedBroker,
    pub(crate) project: ProjectId,
    pub(crate) queue: QueueId,
    pub(crate) groups: Vec<GroupId>,
}

/// The wall-clock time at which tests start.
pub(crate) fn epoch() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// Plays a scene on each store: a queue as described, with groups `a` and `b`.
pub(crate) async fn on_each_store(queue: NewQueue, scene: impl AsyncFn(Stage)) {
    on_each_store_with(EmbeddedConfig::default(), queue, scene).await;
}

/// The same with options.
pub(crate) async fn on_each_store_with(config: EmbeddedConfig, queue: NewQueue, scene: impl AsyncFn(Stage)) {
    for home in Home::all() {
        let clock = Clock::following_tokio(epoch());
        scene(Stage::set(home.open(&config, clock).await, queue.clone()).await).await;
    }
}

/// Plays a scene on each store that outlives the broker, which the scene may end and open again.
pub(crate) async fn on_each_durable_store(queue: NewQueue, scene: impl AsyncFn(Stage, Reopen)) {
    for home in Home::durable() {
        let reopen = Reopen { home, config: EmbeddedConfig::default(), clock: Clock::following_tokio(epoch()) };
        scene(Stage::set(reopen.open().await, queue.clone()).await, reopen).await;
    }
}

/// Where a broker keeps its messages.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    Memory,
    Dir(Arc<tempfile::TempDir>),
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresConfig>),
}

impl Home {
    /// Whether a broker that is closed in order leaves its leases to the next one.
    pub(crate) fn hands_leases_over(&self) -> bool {
        match self {
            Self::Memory | Self::Dir(_) => false,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => true,
        }
    }

    /// One of each kind.
    pub(crate) fn all() -> Vec<Self> {
        std::iter::once(Self::Memory).chain(Self::durable()).collect()
    }

    /// One of each kind that outlives a broker.
    pub(crate) fn durable() -> Vec<Self> {
        let dir = Self::Dir(Arc::new(tempfile::tempdir().unwrap()));
        std::iter::once(dir).chain(Self::postgres()).collect()
    }

    /// A new schema in PostgreSQL. `None` if PostgreSQL is not installed, or its store not compiled in.
    pub(crate) fn postgres() -> Option<Self> {
        #[cfg(feature = "postgres")]
        if let Some(server) = dms_worker_postgres_fixture::PgServer::shared() {
            let mut config = PostgresConfig::new(server.url().into());
            config.schema = format!("dms_{}", uuid::Uuid::new_v4().simple());
            // A broker that crashed is taken over from after this time.
            config.takeover_after = Duration::from_millis(300);
            return Some(Self::Postgres(Box::new(config)));
        }
        None
    }

    /// Opens a broker, with what an earlier one has left there.
    pub(crate) async fn open(&self, config: &EmbeddedConfig, clock: Clock) -> EmbeddedBroker {
        match self {
            Self::Memory => EmbeddedBroker::in_memory(config.clone(), clock).await,
            Self::Dir(dir) => EmbeddedBroker::open(dir.path(), config.clone(), clock).await.unwrap(),
            #[cfg(feature = "postgres")]
            Self::Postgres(at) => EmbeddedBroker::on_postgres(at, config.clone(), clock).await.unwrap(),
        }
    }
}

/// Ends a broker and opens another one over the same messages.
#[derive(Clone, Debug)]
pub(crate) struct Reopen {
    home: Home,
    config: EmbeddedConfig,
    clock: Clock,
}

impl Reopen {
    pub(crate) async fn open(&self) -> EmbeddedBroker {
        self.home.open(&self.config, self.clock).await
    }

    /// Ends a broker as a crash would, and opens the next one.
    pub(crate) async fn crash(&self, stage: Stage) -> Stage {
        stage.broker.abort().await;
        Stage { broker: self.open().await, ..stage }
    }

    /// Ends a broker in order, and opens the next one.
    pub(crate) async fn restart(&self, stage: Stage) -> Stage {
        stage.broker.close().await;
        Stage { broker: self.open().await, ..stage }
    }
}

/// Plays a scene on disk alone, with the directory to open again.
pub(crate) async fn on_disk(queue: NewQueue, scene: impl AsyncFn(Stage, DataDir)) {
    let config = EmbeddedConfig::default();
    let dir = DataDir { dir: Arc::new(tempfile::tempdir().unwrap()), config, clock: Clock::following_tokio(epoch()) };
    let stage = Stage::set(dir.open().await.unwrap(), queue).await;
    scene(stage, dir).await;
}

/// A data directory, gone at the end of the test.
#[derive(Clone)]
pub(crate) struct DataDir {
    pub(crate) dir: Arc<tempfile::TempDir>,
    pub(crate) config: EmbeddedConfig,
    pub(crate) clock: Clock,
}

impl DataDir {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A copy of the directory as it is.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self { dir: Arc::new(tempfile::tempdir().unwrap()), ..self.clone() };
        std::fs::create_dir(copy.file("log")).unwrap();
        for folder in ["", "log"] {
            for entry in std::fs::read_dir(self.file(folder)).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_file() {
                    std::fs::copy(entry.path(), copy.file(folder).join(entry.file_name())).unwrap();
                }
            }
        }
        copy
    }

    pub(crate) async fn open(&self) -> Result<EmbeddedBroker, OpenError> {
        EmbeddedBroker::open(self.dir.path(), self.config.clone(), self.clock).await
    }

    /// Ends a broker as a crash would, and opens the directory again.
    pub(crate) async fn crash(&self, stage: Stage) -> Stage {
        stage.broker.abort().await;
        Stage { broker: self.open().await.unwrap(), ..stage }
    }

    /// Ends a broker in order, and opens the directory again.
    pub(crate) async fn restart(&self, stage: Stage) -> Stage {
        stage.broker.close().await;
        Stage { broker: self.open().await.unwrap(), ..stage }
    }
}

impl Stage {
    async fn set(broker: EmbeddedBroker, queue: NewQueue) -> Self {
        let project = ProjectId::new("p");
        let queue = broker.create_queue(&project, queue).await.unwrap().id;
        let names = ["a".to_owned(), "b".to_owned()];
        let groups = broker.create_groups(&project, &queue, &names).await.unwrap();
        Self { broker, project, queue, groups }
    }

    pub(crate) fn group(&self, number: usize) -> GroupPath {
        GroupPath { project: self.project.clone(), queue: self.queue.clone(), group: self.groups[number].clone() }
    }

    /// Sends one message for each text, whose body is the text as a JSON string.
    pub(crate) async fn send(&self, texts: &[&str]) {
        self.send_all(texts.iter().map(|text| message(text, &[], Duration::ZERO)).collect()).await;
    }

    pub(crate) async fn send_all(&self, messages: Vec<NewMessage>) {
        self.broker.append(&self.project, &self.queue, messages).await.unwrap();
    }

    /// Consumes up to `max` for the first group without waiting.
    pub(crate) async fn take(&self, max: usize) -> Vec<LeasedMessage> {
        self.lease(0, Stream::Messages, take(max)).await.unwrap()
    }

    pub(crate) async fn take_dead(&self, max: usize) -> Vec<LeasedMessage> {
        self.lease(0, Stream::DeadLetters, take(max)).await.unwrap()
    }

    pub(crate) async fn lease(
        &self,
        group: usize,
        stream: Stream,
        request: LeaseRequest,
    ) -> Result<Vec<LeasedMessage>, BrokerError> {
        self.broker.lease(&self.group(group), stream, request).await
    }

    pub(crate) async fn settle(&self, acks: Vec<Ack>) -> Result<AckCounts, BrokerError> {
        self.broker.ack(&self.group(0), Stream::Messages, acks).await
    }

    /// Consumes a batch, fails its first message, and gives its texts.
    pub(crate) async fn fail_first(&self, max: usize) -> Vec<String> {
        let batch = self.take(max).await;
        self.settle(acks(&batch, &[false])).await.unwrap();
        texts(&batch)
    }

    pub(crate) async fn counters(&self, group: usize) -> ConsumerGroup {
        self.broker.groups(&self.project, &self.queue).await.unwrap().groups.remove(group)
    }
}

pub(crate) fn message(text: &str, tags: &[&str], delay: Duration) -> NewMessage {
    let body = serde_json::to_string(text).unwrap();
    let labels =
        if tags.is_empty() { String::new() } else { format!(",\"tags\":{}", serde_json::to_string(tags).unwrap()) };
    NewMessage {
        json: format!("{{\"body\":{body},\"attributes\":{{}}{labels}}}").into(),
        body_bytes: body.len(),
        tags: tags.iter().map(|&tag| tag.into()).collect(),
        delay,
        origin: None,
        deduplication: None,
    }
}

/// A consume call that does not wait, with a lease of 30 s.
pub(crate) fn take(max: usize) -> LeaseRequest {
    LeaseRequest {
        max_messages: max,
        max_bytes: 524_288,
        wait: Duration::ZERO,
        ack_wait: Duration::from_secs(30),
        filter: TagFilter::default(),
    }
}

/// The same, waiting.
pub(crate) fn wait(max: usize, seconds: u64) -> LeaseRequest {
    LeaseRequest { wait: Duration::from_secs(seconds), ..take(max) }
}

/// The same, by labels.
pub(crate) fn take_by(tags: &[&str], mode: TagMode) -> LeaseRequest {
    LeaseRequest { filter: TagFilter { tags: tags.iter().map(|&tag| tag.into()).collect(), mode }, ..take(10) }
}

/// The texts of a batch.
pub(crate) fn texts(batch: &[LeasedMessage]) -> Vec<String> {
    let text = |message: &LeasedMessage| {
        let value: serde_json::Value = serde_json::from_slice(&message.json).unwrap();
        value["body"].as_str().unwrap().to_owned()
    };
    batch.iter().map(text).collect()
}

/// Acknowledges the first messages of a batch, as success or not.
pub(crate) fn acks(batch: &[LeasedMessage], success: &[bool]) -> Vec<Ack> {
    let status = |&success: &bool| if success { AckStatus::Success } else { AckStatus::Fail(None) };
    say(batch, success.iter().map(status))
}

/// Acknowledges the first messages of a batch with these statuses.
pub(crate) fn say(batch: &[LeasedMessage], statuses: impl IntoIterator<Item = AckStatus>) -> Vec<Ack> {
    let lines = batch.iter().zip(statuses);
    lines.map(|(message, status)| Ack { receipt: message.receipt.clone(), status }).collect()
}

/// Acknowledges a whole batch.
pub(crate) fn all_done(batch: &[LeasedMessage]) -> Vec<Ack> {
    acks(batch, &vec![true; batch.len()])
}
