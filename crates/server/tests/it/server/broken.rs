//! The answers of a server whose broker panics or was stopped, or whose store fails.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use dms_protocol::queue::{CreatedQueue, GroupId, NewQueue, ProjectId, ProjectTag, Queue, QueueId, QueueTag};
use dms_server::{
    Server, ServerConfig,
    broker::{
        Ack, AckCounts, Appended, Broker, BrokerError, BrokerStats, FoundIn, FoundMessage, FoundPlace, GroupList,
        GroupPath, GroupStanding, LeaseRequest, LeasedMessage, MessageOrigin, NewMessage, Peeked, QueueOverview,
        Quotas, Standing, Stream, Usage,
    },
};

use super::{Api, admin};

/// Panics on queues, fails on groups, is stopped for messages.
#[derive(Debug, Default)]
pub(super) struct Broken {
    /// Whether it has one message, which waits for two groups. It cannot be discarded for the group `bad`.
    pub(super) has_message: bool,
    /// Whether it cannot be discarded for the other one either.
    pub(super) discards_nothing: AtomicBool,
    /// How often it was asked for an overview.
    pub(super) overviews: AtomicUsize,
}

fn full() -> BrokerError {
    BrokerError::Store(Arc::new(io::Error::from(io::ErrorKind::StorageFull)))
}

impl dms_server::internal::Sealed for Broken {}

#[async_trait]
impl Broker for Broken {
    async fn create_queue(&self, _: &ProjectId, _: NewQueue) -> Result<CreatedQueue, BrokerError> {
        panic!("no queues today")
    }
    async fn queues(&self, _: &ProjectId) -> Result<Vec<Queue>, BrokerError> {
        assert!(self.has_message, "no queues today");
        Ok(Vec::new())
    }
    async fn queue(&self, _: &ProjectId, _: &QueueId) -> Result<Queue, BrokerError> {
        panic!("no queues today")
    }
    async fn delete_queue(&self, _: &ProjectId, _: &QueueId) -> Result<(), BrokerError> {
        Err(full())
    }
    async fn create_groups(&self, _: &ProjectId, _: &QueueId, _: &[String]) -> Result<Vec<GroupId>, BrokerError> {
        Err(full())
    }
    async fn groups(&self, _: &ProjectId, _: &QueueId) -> Result<GroupList, BrokerError> {
        Err(full())
    }
    async fn delete_group(&self, _: &GroupPath) -> Result<(), BrokerError> {
        Err(full())
    }
    async fn append(&self, _: &ProjectId, _: &QueueId, _: Vec<NewMessage>) -> Result<Appended, BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn lease(&self, _: &GroupPath, _: Stream, _: LeaseRequest) -> Result<Vec<LeasedMessage>, BrokerError> {
        Err(BrokerError::TooManyPolls(1000))
    }
    async fn ack(&self, _: &GroupPath, _: Stream, _: Vec<Ack>) -> Result<AckCounts, BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn put_tags(&self, _: &ProjectId, _: &QueueId, _: Vec<QueueTag>) -> Result<(), BrokerError> {
        Err(BrokerError::BeingCreated)
    }
    async fn delete_tags(
        &self,
        _: &ProjectId,
        _: &QueueId,
        _: Vec<(String, Option<String>)>,
    ) -> Result<(), BrokerError> {
        Err(BrokerError::BeingCreated)
    }
    async fn tags(&self, _: &ProjectId, _: &QueueId) -> Result<Vec<QueueTag>, BrokerError> {
        Err(BrokerError::BeingCreated)
    }
    async fn project_tags(&self, _: &ProjectId) -> Result<Vec<ProjectTag>, BrokerError> {
        Ok(Vec::new())
    }
    async fn usage(&self, _: &ProjectId) -> Result<Usage, BrokerError> {
        Err(full())
    }
    fn quotas(&self, _: &ProjectId) -> Quotas {
        Quotas::default()
    }
    fn overview(&self) -> Vec<QueueOverview> {
        self.overviews.fetch_add(1, Ordering::Relaxed);
        Vec::new()
    }
    fn stats(&self) -> BrokerStats {
        BrokerStats::default()
    }
    async fn oldest(&self) -> HashMap<GroupId, i64> {
        HashMap::new()
    }
    async fn peek(&self, _: &GroupPath, _: Stream, _: u64, _: usize) -> Result<Vec<Peeked>, BrokerError> {
        Err(full())
    }
    async fn find_message(&self, _: &ProjectId, _: &[QueueId], _: MessageOrigin) -> Result<FoundMessage, BrokerError> {
        let group = |id: &str, name: &str| GroupStanding {
            group: id.into(),
            name: name.to_owned(),
            standing: Standing::Available,
            failures: 0,
            first_failure_ms: None,
            last_failure: None,
            leased_since_ms: None,
            handed_out: 0,
            attempts: Vec::new(),
        };
        let place = FoundPlace {
            queue: QUEUE_ID.into(),
            queue_name: "orders".to_owned(),
            found_in: FoundIn::Queue,
            sequence: 1,
            entered_ms: 0,
            json: "{}".into(),
            dead_letter: None,
            groups: vec![group("g-1", "good"), group("g-2", "bad")],
        };
        Ok(FoundMessage { complete: true, places: vec![place] })
    }
    async fn discard_message(&self, path: &GroupPath, _: Stream, _: u64) -> Result<(), BrokerError> {
        match path.group.as_str() == "g-2" || self.discards_nothing.load(Ordering::Relaxed) {
            true => Err(full()),
            false => Ok(()),
        }
    }
    async fn close(&self) {}
}

const QUEUE: &str = "/queues/9bf46390-38a2-462d-b392-4d5b2d519c55";
pub(super) const QUEUE_ID: &str = "9bf46390-38a2-462d-b392-4d5b2d519c55";

/// Each failure has its documented answer, with a request id, and tells nothing of files and disks.
#[tokio::test]
async fn failures_are_contained() {
    let api = Api::of(Server::with_broker(ServerConfig::default(), Arc::new(Broken::default())).await.unwrap());
    let group = format!("{QUEUE}/groups/g-02fb1974-9be1-4eee-8448-ed2d3e89884a");
    for _ in 0..2 {
        api.get("/queues").await.refused(500, "DMS.10250002");
    }
    let text = api.get(&format!("{QUEUE}/groups")).await.refused(500, "DMS.10250002");
    assert_eq!(text, "Internal service error. The store failed; try again later.");
    let message = r#"{"messages":[{"body":1}]}"#;
    api.post(&format!("{QUEUE}/messages"), message).await.refused(503, "DMS.10250003");
    api.get(&format!("{group}/messages")).await.refused(404, "DMS.10240407");
    api.get(&format!("{}/tags", QUEUE.replace("queues", "queue"))).await.refused(400, "DMS.10240032");
}

/// An overview visits every group of every queue.
#[tokio::test]
async fn a_scrape_asks_for_one_overview() {
    let broker = Arc::new(Broken::default());
    let config = ServerConfig::default().admin(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let server = Server::with_broker(config, Arc::clone(&broker) as Arc<dyn Broker>).await.unwrap();
    let address = server.admin_addr().unwrap();
    let running = tokio::spawn(server.run(std::future::pending()));
    // The dashboard takes its first sample when the server begins, and the next one a second later.
    assert_eq!(admin::get(address, "/metrics", "").await.0, 200);
    let before = broker.overviews.load(Ordering::Relaxed);
    assert_eq!(admin::get(address, "/metrics", "").await.0, 200);
    assert_eq!(broker.overviews.load(Ordering::Relaxed), before + 1);
    running.abort();
}
