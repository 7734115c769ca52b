//! Failures of the store: nothing changes, and the broker works again when the store does.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    broker::{AckStatus, ScheduledMessage, embedded::*},
    histogram::Histogram,
    store::{ReadBatch, ReadLimit, Record, StoreError, StreamId, disk::tests::small_disk},
};
use dms_protocol::queue::TagFilter;

mod stopping;

/// A store in memory that fails on demand.
#[derive(Debug, Default)]
pub(crate) struct FlakyStore {
    store: MemoryStore,
    error: std::sync::Mutex<Option<StoreError>>,
    /// Whether commits fail while reads succeed.
    commits_fail: AtomicBool,
    /// Whether another process may own the store.
    may_be_lost: AtomicBool,
    /// The error of the index, if it has one.
    index: std::sync::Mutex<Option<StoreError>>,
    /// Set until maintenance succeeds.
    maintenance_due: AtomicBool,
    /// The number of messages that were read.
    rows: AtomicUsize,
    /// What the next commit waits for.
    hold: std::sync::Mutex<Option<stopping::Hold>>,
}

impl FlakyStore {
    pub(crate) fn fail(&self, fails: bool) {
        self.fail_with(fails.then(|| StoreError::new("no space left on device")));
    }

    fn fail_commits(&self, fails: bool) {
        self.commits_fail.store(fails, Ordering::Relaxed);
    }

    pub(crate) fn fail_with(&self, error: Option<StoreError>) {
        *self.error.lock().unwrap() = error;
    }

    pub(crate) fn fail_index(&self, error: Option<StoreError>) {
        *self.index.lock().unwrap() = error;
        self.maintenance_due.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), StoreError> {
        self.error.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn count(&self, read: ReadBatch) -> ReadBatch {
        self.rows.fetch_add(read.messages.len(), Ordering::Relaxed);
        read
    }
}

impl Store for FlakyStore {
    fn blocks(&self) -> bool {
        self.hold.lock().unwrap().is_some()
    }

    fn may_serve(&self) -> bool {
        !self.may_be_lost.load(Ordering::Relaxed)
    }

    fn commit(&self, records: &[Record]) -> Result<(), StoreError> {
        let hold = self.hold.lock().unwrap().take();
        if let Some(hold) = hold {
            hold.wait();
        }
        if self.may_be_lost.load(Ordering::Relaxed) {
            return Err(StoreError::fenced("another server owns the store"));
        }
        if self.commits_fail.load(Ordering::Relaxed) {
            return Err(StoreError::new("no space left on device"));
        }
        self.check().and_then(|()| self.store.commit(records))
    }

    fn read(&self, stream: StreamId, from: u64, limit: ReadLimit) -> Result<ReadBatch, StoreError> {
        self.check().and_then(|()| self.store.read(stream, from, limit)).map(|read| self.count(read))
    }

    fn read_these(&self, stream: StreamId, seqs: &[u64], bytes: usize) -> Result<ReadBatch, StoreError> {
        self.check().and_then(|()| self.store.read_these(stream, seqs, bytes)).map(|read| self.count(read))
    }

    fn first_due(
        &self,
        delay_queue: StreamId,
        limit: ReadLimit,
        skip: &BTreeSet<u64>,
    ) -> Result<ReadBatch, StoreError> {
        self.check().and_then(|()| self.store.first_due(delay_queue, limit, skip))
    }

    fn entered(&self, stream: StreamId, from: u64, count: usize, until_ms: i64) -> Result<Vec<(u64, i64)>, StoreError> {
        self.check().and_then(|()| self.store.entered(stream, from, count, until_ms))
    }

    fn syncs(&self) -> Histogram {
        self.store.syncs()
    }

    fn needs_maintenance(&self) -> bool {
        self.maintenance_due.load(Ordering::Relaxed)
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        self.index_error().map_or(Ok(()), Err)?;
        self.maintenance_due.store(false, Ordering::Relaxed);
        Ok(false)
    }

    fn index_error(&self) -> Option<StoreError> {
        self.index.lock().unwrap().clone()
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.check()
    }

    fn probe_reads(&self) -> Result<bool, StoreError> {
        self.check().map(|()| true)
    }

    fn release(&self, _in_order: bool) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A broker on a store, with one queue and one group.
pub(crate) struct Scene {
    pub(crate) broker: EmbeddedBroker,
    path: GroupPath,
}

impl Scene {
    pub(crate) async fn on(store: Arc<dyn Store>) -> Self {
        Self::watched_by(PauseClock::Nobody, store).await
    }

    async fn watched_by(witness: PauseClock, store: Arc<dyn Store>) -> Self {
        let clock = Clock::following_tokio(std::time::UNIX_EPOCH);
        Self::of(EmbeddedBroker::start_with(witness, store, Snapshot::default(), EmbeddedConfig::default(), clock))
            .await
    }

    async fn of(broker: EmbeddedBroker) -> Self {
        let project = ProjectId::new("p");
        let queue = broker.create_queue(&project, NewQueue::new("q").dead_letters_after(2)).await.unwrap().id;
        let group = broker.create_groups(&project, &queue, &["g".into()]).await.unwrap().remove(0);
        Self { broker, path: GroupPath { project, queue, group } }
    }

    pub(crate) async fn send(&self, text: &str, delay: Duration) -> Result<(), BrokerError> {
        let message = NewMessage {
            json: text.to_owned().into(),
            body_bytes: text.len(),
            tags: Vec::new(),
            delay,
            origin: None,
            deduplication: None,
        };
        self.broker.append(&self.path.project, &self.path.queue, vec![message]).await.map(drop)
    }

    pub(crate) async fn take(&self, wait: u64) -> Result<Vec<LeasedMessage>, BrokerError> {
        self.take_up_to(10, wait).await
    }

    /// Leases at most this many messages.
    async fn take_up_to(&self, max_messages: usize, wait: u64) -> Result<Vec<LeasedMessage>, BrokerError> {
        let request = LeaseRequest {
            max_messages,
            max_bytes: 524_288,
            wait: Duration::from_secs(wait),
            ack_wait: Duration::from_secs(30),
            filter: TagFilter::default(),
        };
        self.broker.lease(&self.path, Stream::Messages, request).await
    }

    pub(crate) async fn settle(&self, batch: &[LeasedMessage], success: bool) -> Result<AckCounts, BrokerError> {
        let status = if success { AckStatus::Success } else { AckStatus::Fail(None) };
        let acks =
            batch.iter().map(|message| Ack { receipt: message.receipt.clone(), status: status.clone() }).collect();
        self.broker.ack(&self.path, Stream::Messages, acks).await
    }

    /// Messages that the queue keeps, settled or not.
    async fn kept(&self) -> u64 {
        self.broker.queue(&self.path.project, &self.path.queue).await.unwrap().produced_messages
    }

    pub(crate) async fn available(&self) -> u64 {
        let list = self.broker.groups(&self.path.project, &self.path.queue).await.unwrap();
        list.groups[0].available_messages
    }
}

pub(crate) const NOW: Duration = Duration::ZERO;

/// The process does not run for this time.
async fn pause(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

/// The process runs for this time.
pub(crate) async fn run(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A lease is 30 s long. A pause neither ends it, whenever it begins, nor makes a message fail.
#[tokio::test(start_paused = true)]
async fn a_pause_of_the_process_ends_no_lease() {
    for (before, paused) in [(0, 40), (1, 31), (29, 40), (29, 1), (20, 100_000)] {
        let scene = Scene::watched_by(PauseClock::Tokio, Arc::new(MemoryStore::default())).await;
        for _ in 0..3 {
            scene.send("{}", NOW).await.unwrap();
            let batch = scene.take(0).await.unwrap();
            run(before).await;
            pause(paused).await;
            let settled = scene.settle(&batch, true).await;
            assert_eq!(settled.unwrap(), AckCounts { success: 1, fail: 0 }, "{before} s, paused for {paused} s");
        }
        assert_eq!((scene.broker.stats().redeliveries, scene.available().await), (0, 0));
    }
}

/// The acknowledgement of one batch, the timer or a poll of another consumer runs first after a pause.
#[tokio::test(start_paused = true)]
async fn whoever_looks_first_after_a_pause_notices_it() {
    let scene = Scene::watched_by(PauseClock::Tokio, Arc::new(MemoryStore::default())).await;
    for text in ["1", "2"] {
        scene.send(text, NOW).await.unwrap();
    }
    let batch = scene.take(0).await.unwrap();
    pause(35).await;
    assert_eq!(scene.take(0).await.unwrap().len(), 0, "both messages are still leased");
    run(29).await;
    pause(35).await;
    assert_eq!(scene.settle(&batch, true).await.unwrap().success, 2);
}

/// The time in which the process ran counts as always.
#[tokio::test(start_paused = true)]
async fn a_pause_extends_a_lease_by_its_own_length_alone() {
    let scene = Scene::watched_by(PauseClock::Tokio, Arc::new(MemoryStore::default())).await;
    scene.send("{}", NOW).await.unwrap();
    let batch = scene.take(0).await.unwrap();
    run(10).await;
    pause(40).await;
    run(19).await;
    assert_eq!(scene.available().await, 0, "29 s of the lease have passed");
    run(2).await;
    assert_eq!(scene.available().await, 1, "31 s of the lease have passed");
    assert!(matches!(scene.settle(&batch, true).await, Err(BrokerError::UnknownReceipt(_))));
    // Without leases there is no heartbeat, and that is no pause.
    run(3600).await;
    assert_eq!(scene.take(0).await.unwrap().len(), 1);
    run(31).await;
    assert_eq!(scene.broker.stats().dead_letters, 1, "its second lease has ended too");
}

/// Simulated time may be moved by any amount, and that is no pause of the process.
#[tokio::test(start_paused = true)]
async fn simulated_time_does_not_pause() {
    let scene = Scene::on(Arc::new(MemoryStore::default())).await;
    scene.send("{}", NOW).await.unwrap();
    let batch = scene.take(0).await.unwrap();
    pause(31).await;
    assert!(matches!(scene.settle(&batch, true).await, Err(BrokerError::UnknownReceipt(_))));
    assert_eq!(scene.take(1).await.unwrap().len(), 1);
}

/// A moved clock of tokio is no pause either, also beside the system's wall clock.
#[tokio::test(start_paused = true)]
async fn a_moved_clock_of_tokio_is_no_pause() {
    let scene = Scene::watched_by(PauseClock::of(&Clock::system()), Arc::new(MemoryStore::default())).await;
    scene.send("{}", NOW).await.unwrap();
    let batch = scene.take(0).await.unwrap();
    pause(31).await;
    assert!(matches!(scene.settle(&batch, true).await, Err(BrokerError::UnknownReceipt(_))));
}

/// The number of messages that are read for a consumer, and kept in memory, does not depend on the backlog.
#[tokio::test(start_paused = true)]
async fn what_is_read_does_not_grow_with_the_backlog() {
    let mut costs = Vec::new();
    for backlog in [10_000, 100_000] {
        let store = Arc::new(FlakyStore::default());
        let scene = Scene::on(store.clone()).await;
        let json = format!(r#"{{"body":"{}","attributes":{{}}}}"#, "x".repeat(300));
        let message = NewMessage {
            json: json.into(),
            body_bytes: 302,
            tags: Vec::new(),
            delay: NOW,
            origin: None,
            deduplication: None,
        };
        for _ in 0..backlog / 1_000 {
            let messages = vec![message.clone(); 1_000];
            scene.broker.append(&scene.path.project, &scene.path.queue, messages).await.unwrap();
        }
        for _ in 0..50 {
            let batch = scene.take(0).await.unwrap();
            assert_eq!(scene.settle(&batch, true).await.unwrap().success, 10);
        }
        // Messages are prefetched in a separate task.
        tokio::task::yield_now().await;
        let state = scene.broker.core.lock();
        let kept: usize = state.streams.values().map(|stream| stream.cached_bytes()).sum();
        costs.push((store.rows.load(Ordering::Relaxed), kept));
    }
    assert_eq!(costs[0], costs[1], "rows read, and bytes of the tail in memory");
    let ahead = state::cursor::prefetch_among(1).messages;
    assert!(costs[1].0 < 50 * 10 + 2 * ahead, "{} rows for 500 messages", costs[1].0);
}

/// Consumers that take one large message at a time do not make their group read ahead more and more of them.
#[tokio::test(start_paused = true)]
async fn few_large_messages_are_read_ahead() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    // More than the newest messages that are kept in memory.
    let large = "x".repeat(100_000);
    for _ in 0..150 {
        scene.send(&large, NOW).await.unwrap();
    }
    for _ in 0..40 {
        let batch = scene.take_up_to(1, 0).await.unwrap();
        assert_eq!(scene.settle(&batch, true).await.unwrap().success, 1);
        tokio::task::yield_now().await;
    }
    let ahead = store.rows.load(Ordering::Relaxed) - 40;
    let most = state::cursor::prefetch_among(1).bytes / 100_000 + 2;
    assert!(ahead <= most, "{ahead} messages of 100,000 bytes are kept ahead of the consumers");
}

/// A send that could not be stored is refused as a whole, and leaves no gap.
#[tokio::test(start_paused = true)]
async fn a_failed_send_leaves_no_trace() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    store.fail(true);
    assert!(matches!(scene.send("1", NOW).await, Err(BrokerError::Store(_))));
    assert_eq!(scene.available().await, 0);
    store.fail(false);
    scene.send("2", NOW).await.unwrap();
    assert_eq!(scene.take(0).await.unwrap()[0].json, "2");
}

/// A batch whose acknowledgement could not be stored stays leased, and its receipts stay valid until the lease ends.
#[tokio::test(start_paused = true)]
async fn a_failed_acknowledgement_can_be_repeated() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    scene.send("1", NOW).await.unwrap();
    let batch = scene.take(0).await.unwrap();
    store.fail(true);
    assert!(matches!(scene.settle(&batch, true).await, Err(BrokerError::Store(_))));
    store.fail(false);
    assert!(scene.take(0).await.unwrap().is_empty());
    assert_eq!(scene.settle(&batch, true).await.unwrap().success, 1);
    assert_eq!(scene.available().await, 0);
}

/// The end of a lease that could not be stored is tried again. Until then its messages stay leased, and its receipts are refused.
#[tokio::test(start_paused = true)]
async fn a_failed_lapse_is_tried_again() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    scene.send("1", NOW).await.unwrap();
    let batch = scene.take(0).await.unwrap();
    store.fail(true);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(scene.available().await, 0);
    store.fail(false);
    assert!(matches!(scene.settle(&batch, true).await, Err(BrokerError::UnknownReceipt(_))));
    assert_eq!(scene.take(2).await.unwrap()[0].json, "1");
}

/// A delayed message that could not be moved when it was due is moved as soon as possible.
#[tokio::test(start_paused = true)]
async fn a_failed_move_of_a_due_message_is_tried_again() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    scene.send("1", Duration::from_secs(5)).await.unwrap();
    store.fail(true);
    tokio::time::sleep(Duration::from_secs(10)).await;
    store.fail(false);
    assert_eq!(scene.take(2).await.unwrap()[0].json, "1");
}

/// A failing read is answered with an error, and the next call reads again.
#[tokio::test(start_paused = true)]
async fn a_failed_read_is_reported_and_tried_again() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    let large = "x".repeat(200_000);
    for _ in 0..30 {
        scene.send(&large, NOW).await.unwrap();
    }
    // The first of six megabytes are no longer in memory. The label filter is fixed while the store works.
    let batch = scene.take(0).await.unwrap();
    scene.settle(&batch, true).await.unwrap();
    store.fail(true);
    let mut failed = false;
    for _ in 0..5 {
        failed |= matches!(scene.take(20).await, Err(BrokerError::Store(_)));
    }
    assert!(failed);
    store.fail(false);
    assert!(!scene.take(0).await.unwrap().is_empty());
}

/// A refused command does not affect other commands of the same commit.
#[tokio::test(start_paused = true)]
async fn what_is_refused_does_not_spoil_its_commit() {
    let scene = Scene::on(Arc::new(MemoryStore::default())).await;
    scene.send("1", NOW).await.unwrap();
    let batch = scene.take(0).await.unwrap();
    let (first, second, sent) =
        tokio::join!(scene.settle(&batch, true), scene.settle(&batch, true), scene.send("2", NOW));
    assert_eq!(first.unwrap().success, 1);
    assert!(matches!(second, Err(BrokerError::UnknownReceipt(_))), "it is being settled");
    sent.unwrap();
    assert_eq!(scene.take(0).await.unwrap()[0].json, "2");
}

/// Fills the first segment and leaves no space for a second one. Returns how many messages were sent.
async fn fill(scene: &Scene, dir: &std::path::Path) -> u64 {
    std::fs::create_dir(dir.join("log").join("0000000002.log")).unwrap();
    let large = "x".repeat(500_000);
    for sent in 0..1_000 {
        if let Err(refused) = scene.send(&large, NOW).await {
            assert!(matches!(&refused, BrokerError::Store(reason) if reason.to_string().contains("0000000002.log")));
            return sent;
        }
    }
    panic!("no file is as large");
}

/// On a full disk an acknowledgement succeeds although it shares its commit with a send that fails.
#[tokio::test(start_paused = true)]
async fn what_fits_is_committed_beside_what_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open(dir.path()).unwrap();
    let scene = Scene::on(Arc::new(store)).await;
    scene.send("1", NOW).await.unwrap();
    let batch = scene.take(0).await.unwrap();
    let sent = fill(&scene, dir.path()).await;
    let large = "x".repeat(500_000);
    let (refused, settled) = tokio::join!(scene.send(&large, NOW), scene.settle(&batch, true));
    assert!(matches!(refused, Err(BrokerError::Store(_))));
    assert_eq!(settled.unwrap().success, 1);
    assert_eq!(scene.available().await, sent);
}

/// On a full disk only new messages are refused. When there is space, they are accepted again.
#[tokio::test(start_paused = true)]
async fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open(dir.path()).unwrap();
    let scene = Scene::on(Arc::new(store)).await;
    scene.send("first", NOW).await.unwrap();
    let batch = scene.take(0).await.unwrap();
    let sent = fill(&scene, dir.path()).await;
    assert_eq!(scene.available().await, sent);
    assert_eq!(scene.settle(&batch, true).await.unwrap().success, 1, "changes without messages are still stored");
    std::fs::remove_dir(dir.path().join("log").join("0000000002.log")).unwrap();
    scene.send("last", NOW).await.unwrap();
    scene.broker.abort().await;
    let broker = EmbeddedBroker::open(dir.path(), EmbeddedConfig::default(), Clock::system()).await.unwrap();
    let scene = Scene { broker, path: scene.path };
    assert_eq!(scene.available().await, sent + 1);
}

const HOUR: Duration = Duration::from_secs(3600);

/// A wall clock that shows `now_ms` and can be set.
fn wall(now_ms: i64) -> (&'static std::sync::atomic::AtomicI64, Clock) {
    let wall: &_ = Box::leak(Box::new(std::sync::atomic::AtomicI64::new(now_ms)));
    (wall, Clock::set_by(wall))
}

/// Setting the wall clock affects neither new queues nor delays nor retention.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_moves_nothing() {
    let start = 1_800_000_000_000;
    for jump in [-5_000, 5_000, -400_000_000_000, 400_000_000_000] {
        let (wall, clock) = wall(start);
        let broker = EmbeddedBroker::in_memory(EmbeddedConfig::default(), clock).await;
        let scene = Scene::of(broker).await;
        scene.send("\"now\"", NOW).await.unwrap();
        scene.send("\"later\"", HOUR).await.unwrap();
        wall.store(start + jump, Ordering::Relaxed);
        let batch = scene.take(0).await.unwrap();
        assert_eq!(scene.settle(&batch, true).await.unwrap().success, 1, "{jump}");
        let begun = tokio::time::Instant::now();
        let batch = scene.take(2 * 3600).await.unwrap();
        assert_eq!((batch.len(), begun.elapsed().as_secs()), (1, 3600), "{jump}");
        scene.settle(&batch, true).await.unwrap();
        tokio::time::sleep(HOUR * 73).await;
        assert_eq!(scene.kept().await, 0, "{jump}");
        scene.broker.delete_queue(&scene.path.project, &scene.path.queue).await.unwrap();
    }
}

/// A schedule follows the clock of the system: it is not late when the clock is set ahead, and repeats nothing when it is set back.
#[tokio::test(start_paused = true)]
async fn a_schedule_follows_a_wall_clock_that_is_set() {
    let start = 1_800_000_000_000;
    let (wall, clock) = wall(start);
    let scene = Scene::of(EmbeddedBroker::in_memory(EmbeddedConfig::default(), clock).await).await;
    let (project, queue) = (&scene.path.project, &scene.path.queue);
    let hourly = NewSchedule::new("hourly", "@hourly", ScheduledMessage::parse("1").unwrap());
    scene.broker.set_schedule(project, queue, hourly, ScheduleSource::Command).await.unwrap();
    let set = async |now_ms| {
        wall.store(now_ms, Ordering::Relaxed);
        // The timer looks at a clock that may be set every ten seconds.
        run(11).await;
        scene.broker.schedules().await.unwrap()[0].sent
    };
    let hour = 3_600_000;
    assert_eq!(set(start + hour - 1).await, 0);
    assert_eq!(set(start + hour).await, 1);
    assert_eq!(set(start + hour / 2).await, 1, "the clock is set back");
    assert_eq!(set(start + hour + 5).await, 1, "the same hour once more");
    assert_eq!(set(start + 2 * hour).await, 2);
    assert_eq!(set(start + 1_000 * hour).await, 4, "one for all missed ones, and the present one");
    // Back at the right time, it would be silent for weeks.
    assert_eq!(set(start + 3 * hour).await, 4);
    scene.broker.pause_schedule(project, queue, "hourly", true).await.unwrap();
    scene.broker.pause_schedule(project, queue, "hourly", false).await.unwrap();
    assert_eq!(set(start + 4 * hour).await, 5);
}

/// The tick and its message are one commit: while the store fails neither is there, and afterwards both are, once.
#[tokio::test(start_paused = true)]
async fn a_tick_that_cannot_be_stored_is_tried_again() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    let minutely = NewSchedule::new("minutely", "* * * * *", ScheduledMessage::parse("1").unwrap());
    scene.broker.set_schedule(&scene.path.project, &scene.path.queue, minutely, ScheduleSource::Command).await.unwrap();
    store.fail_commits(true);
    run(75).await;
    assert_eq!((scene.available().await, scene.broker.schedules().await.unwrap()[0].sent), (0, 0));
    store.fail_commits(false);
    run(5).await;
    assert_eq!((scene.available().await, scene.broker.schedules().await.unwrap()[0].sent), (1, 1));
    run(30).await;
    assert_eq!(scene.available().await, 1);
}

/// Operators hear of a schedule whose messages the store does not take.
#[tokio::test(start_paused = true)]
async fn a_schedule_whose_message_is_a_minute_late_is_reported() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    let minutely = NewSchedule::new("minutely", "* * * * *", ScheduledMessage::parse("1").unwrap());
    scene.broker.set_schedule(&scene.path.project, &scene.path.queue, minutely, ScheduleSource::Command).await.unwrap();
    let late = async || {
        let stats = scene.broker.stats().schedules;
        (scene.broker.schedules().await.unwrap()[0].is_late, stats.active, stats.late)
    };
    store.fail_commits(true);
    run(60).await;
    assert_eq!(late().await, (false, 1, 0), "the next try may succeed");
    run(65).await;
    assert_eq!(late().await, (true, 0, 1));
    store.fail_commits(false);
    run(5).await;
    assert_eq!(late().await, (false, 1, 0));
}

/// A configuration that is read again. What exists stays, unless it is too old now.
#[tokio::test(start_paused = true)]
async fn a_running_broker_takes_other_settings() {
    let clock = wall(1_800_000_000_000).1;
    let scene = Scene::of(EmbeddedBroker::in_memory(EmbeddedConfig::default(), clock).await).await;
    scene.send("1", NOW).await.unwrap();
    tokio::time::sleep(HOUR * 2).await;
    assert_eq!(scene.kept().await, 1);
    let create =
        async |name: &str| scene.broker.create_groups(&scene.path.project, &scene.path.queue, &[name.to_owned()]).await;
    let quotas = Quotas { groups_per_queue: 1, ..Quotas::default() };
    let other = EmbeddedConfig { retention: HOUR, quotas, max_polls_per_group: 0, ..EmbeddedConfig::default() };
    scene.broker.reconfigure(other);
    run(5).await;
    assert_eq!(scene.kept().await, 0, "an hour has passed");
    assert!(matches!(create("second").await, Err(BrokerError::GroupQuota(1))));
    assert!(matches!(scene.take(1).await, Err(BrokerError::TooManyPolls(0))));
    scene.broker.reconfigure(EmbeddedConfig::default());
    create("second").await.unwrap();
    scene.send("2", NOW).await.unwrap();
    assert_eq!(scene.take(1).await.unwrap().len(), 1);
}

/// Messages that were stamped by a wall clock in the future are usable when it is right again, and kept for their retention.
#[tokio::test(start_paused = true)]
async fn stamps_in_the_future_are_bounded_when_a_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        async |now_ms| EmbeddedBroker::open(dir.path(), EmbeddedConfig::default(), wall(now_ms).1).await.unwrap();
    let (now, future) = (1_800_000_000_000, 2_150_000_000_000);
    let scene = Scene::of(open(future).await).await;
    for _ in 0..3 {
        scene.send("\"of the future\"", NOW).await.unwrap();
    }
    scene.broker.close().await;
    let scene = Scene { broker: open(now).await, path: scene.path };
    scene.send("\"of today\"", NOW).await.unwrap();
    let batch = scene.take(0).await.unwrap();
    assert_eq!(batch.len(), 4);
    assert!(batch[3].entered_ms < now + 1_000, "{}", batch[3].entered_ms);
    scene.settle(&batch, true).await.unwrap();
    tokio::time::sleep(HOUR * 71).await;
    assert_eq!(scene.kept().await, 4);
    scene.send("\"of another day\"", NOW).await.unwrap();
    tokio::time::sleep(HOUR * 2).await;
    assert_eq!(scene.kept().await, 1);
    tokio::time::sleep(HOUR * 72).await;
    assert_eq!(scene.kept().await, 0);
}

/// On a full disk leases lapse, delays end, and failed messages become dead letters, in the reserved space.
#[tokio::test(start_paused = true)]
async fn what_lapses_and_comes_due_on_a_full_disk_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = DiskStore::open(dir.path()).unwrap();
    let scene = Scene::on(Arc::new(store)).await;
    let large = "x".repeat(500_000);
    for _ in 0..12 {
        scene.send(&large, Duration::from_secs(100)).await.unwrap();
        scene.send(&large, NOW).await.unwrap();
    }
    small_disk::fill(dir.path());
    while scene.send(&large, NOW).await.is_ok() {}
    let sent = scene.available().await;
    // Each message becomes a dead letter at the second lapse.
    for _ in 0..2 {
        while !scene.take(0).await.unwrap().is_empty() {}
        run(40).await;
    }
    run(60).await;
    let list = scene.broker.groups(&scene.path.project, &scene.path.queue).await.unwrap();
    let dead = list.groups[0].available_dead_letters.unwrap();
    assert!(dead > 20 && dead < sent, "{dead} of {sent} in 16 MiB");
    assert!(scene.send("1", NOW).await.is_err());
    small_disk::limit(dir.path(), u64::MAX);
    run(60).await;
    let list = scene.broker.groups(&scene.path.project, &scene.path.queue).await.unwrap();
    let (alive, dead) = (list.groups[0].available_messages, list.groups[0].available_dead_letters.unwrap());
    assert_eq!((alive, dead), (12, sent), "all that lapsed twice is dead, all that was delayed has come");
    scene.send("1", NOW).await.unwrap();
}

/// Once the store belongs to another process, nothing that is in memory is handed out or acknowledged, and nobody waits for it.
#[tokio::test(start_paused = true)]
async fn a_lost_store_answers_nothing() {
    let store = Arc::new(FlakyStore::default());
    let scene = Arc::new(Scene::on(store.clone()).await);
    scene.send("1", NOW).await.unwrap();
    let batch = scene.take(0).await.unwrap();
    let waiting = tokio::spawn({
        let scene = scene.clone();
        async move { scene.take(60).await }
    });
    run(1).await;
    store.fail_with(Some(StoreError::lost("the lock is gone")));
    let (first, second) = tokio::join!(scene.send("2", NOW), scene.send("3", NOW));
    assert!(matches!(first, Err(BrokerError::Store(cause)) if cause.to_string() == "the lock is gone"));
    assert!(second.is_err());
    assert!(waiting.await.unwrap().is_err(), "a waiting call is answered");
    // The store may seem to work again, but another process may have changed it meanwhile.
    store.fail_with(None);
    assert!(scene.settle(&batch, true).await.is_err());
    assert!(scene.send("4", NOW).await.is_err());
    assert!(scene.take(0).await.is_err());
}

/// A record that the store cannot keep is refused alone, and says nothing about the store's health.
#[tokio::test(start_paused = true)]
async fn a_refused_record_is_no_trouble_of_the_store() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    store.fail_with(Some(StoreError::refused("too large")));
    assert!(scene.send("1", NOW).await.is_err());
    assert_eq!(scene.broker.storage_troubles(), []);
    store.fail_with(None);
    scene.send("2", NOW).await.unwrap();
    assert_eq!(scene.take(0).await.unwrap().len(), 1);
}

/// While another process may own the store, calls are refused; they are answered again when it turns out that none does.
#[tokio::test(start_paused = true)]
async fn a_store_that_may_be_lost_is_not_served() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    scene.send("1", NOW).await.unwrap();
    store.may_be_lost.store(true, Ordering::Relaxed);
    assert!(matches!(scene.take(0).await, Err(BrokerError::Unavailable)));
    assert!(matches!(scene.send("2", NOW).await, Err(BrokerError::Unavailable)));
    store.may_be_lost.store(false, Ordering::Relaxed);
    assert_eq!(scene.take(0).await.unwrap().len(), 1);
}

/// After a restart no entry time is known. One call reads some of them, and the next ones the others.
#[cfg(feature = "disk")]
#[tokio::test]
async fn the_ages_of_many_groups_are_read_by_several_calls() {
    let dir = tempfile::tempdir().unwrap();
    let clock = || Clock::following_tokio(std::time::UNIX_EPOCH);
    let config =
        EmbeddedConfig { quotas: Quotas { groups_per_queue: 10, ..Quotas::default() }, ..EmbeddedConfig::default() };
    let open = async || EmbeddedBroker::open(dir.path(), config.clone(), clock()).await.unwrap();
    let scene = Scene::of(open().await).await;
    let names: Vec<_> = (0..4).map(|number| format!("g{number}")).collect();
    scene.broker.create_groups(&scene.path.project, &scene.path.queue, &names).await.unwrap();
    scene.send("{}", NOW).await.unwrap();
    assert_eq!(scene.broker.oldest().await.len(), 5, "the message is in memory");
    scene.broker.close().await;
    let broker = open().await;
    assert_eq!(broker.oldest().await.len(), 3);
    assert_eq!(broker.oldest().await.len(), 5);
    broker.close().await;
}

/// An operator's change that cannot be stored is no failure of the message, also if the store does not work until the lease ends.
#[tokio::test(start_paused = true)]
async fn a_discard_that_cannot_be_stored_counts_no_failure() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    scene.send("{}", NOW).await.unwrap();
    store.fail_commits(true);
    assert!(scene.broker.discard_message(&scene.path, Stream::Messages, 1).await.is_err());
    store.fail_commits(false);
    run(40).await;
    let batch = scene.take(0).await.unwrap();
    assert_eq!(batch.iter().map(|message| message.failures).collect::<Vec<_>>(), [0]);
}

/// A look of the timer visits every stream, so a first message in each of thousands of queues must not cause one.
#[tokio::test(start_paused = true)]
async fn a_message_that_expires_after_the_next_look_of_the_timer_does_not_wake_it() {
    let scene = Scene::on(Arc::new(FlakyStore::default())).await;
    // The timer has looked after the queue was created.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let soon = Instant::now() + Duration::from_secs(60);
    scene.broker.core.lock().timer_target = Some(soon);
    scene.send("1", Duration::ZERO).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.broker.core.lock().timer_target, Some(soon));
}
