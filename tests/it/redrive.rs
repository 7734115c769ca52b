//! Redriving dead letters against the embedded server: everything at least once, in order, and with an end.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use dms_server::{
    Project, Server, ServerConfig,
    broker::{GroupPath, NewMessage, Stream},
    clock::Clock,
};
use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::{AckStatus, Message, ReceivedMessage},
    queue::{NewQueue, QueueMode, SourcePath},
    redrive::{REDRIVEN, Redrive, RedriveReport, Sweep},
    transport::{InProcess, Transport, TransportError},
    worker::attributes::{ATTEMPTS, ERROR, ORIGIN},
};
use http::{Method, Request, Response};
use tokio::time::{Instant, timeout};

/// A server with a queue of dead letters, and a client whose requests can be lost.
struct House {
    _server: Server,
    client: Client,
    faults: Arc<Faults>,
    messages: SourcePath,
    dead: SourcePath,
}

/// With a seed, loses a third of the requests and answers of calls that change something.
#[derive(Debug)]
struct Faults {
    inner: InProcess,
    dice: Mutex<Option<fastrand::Rng>>,
}

#[async_trait]
impl Transport for Faults {
    async fn send(&self, request: Request<Bytes>, wait: Duration) -> Result<Response<Bytes>, TransportError> {
        let harmful = request.method() == Method::POST || request.uri().path().ends_with("/deadletters");
        let turn = self.dice.lock().unwrap().as_mut().filter(|_| harmful).map_or(u8::MAX, |dice| dice.u8(0..6));
        if turn == 1 {
            return Err(TransportError::unsure("the request was lost"));
        }
        let answer = self.inner.send(request, wait).await;
        if turn == 0 { Err(TransportError::unsure("the answer was lost")) } else { answer }
    }
}

impl House {
    /// `count` dead letters with the numbers from 0 on, and an attribute that tells odd from even.
    async fn new(mode: QueueMode, count: u64) -> Self {
        let clock = Clock::following_tokio(SystemTime::now());
        let config = ServerConfig::default().projects(vec![Project::new("p1")]).clock(clock);
        let server = Server::bind(config).await.unwrap();
        let faults = Arc::new(Faults { inner: InProcess::new(server.service()), dice: Mutex::default() });
        let client = Client::builder("http://dms.test", "p1").transport(faults.clone()).build().unwrap();
        let queue = client.create_queue(NewQueue::new("orders").mode(mode).dead_letters_after(1)).await.unwrap().id;
        let group = client.create_groups(&queue, &["billing"]).await.unwrap().remove(0).0;
        let messages = SourcePath::messages(queue.clone(), group.clone());
        let dead = SourcePath::dead_letters(queue, group);
        let house = Self { _server: server, client, faults, messages, dead };
        for n in 0..count {
            let parity = if n % 2 == 0 { "even" } else { "odd" };
            let message =
                Message::json(&n).unwrap().attribute("parity", parity).attribute(ERROR, "boom").attribute(ATTEMPTS, 5);
            house.client.send(&house.messages.queue, &[message]).await.unwrap()[0].as_ref().unwrap();
            house.bury().await;
        }
        assert_eq!(house.left().await, count);
        house
    }

    /// Fails the next message once, which makes it a dead letter.
    async fn bury(&self) {
        let received = self.consume(&self.messages, 1).await;
        let ack = (received[0].handle.clone(), AckStatus::Fail);
        self.client.acknowledge(&self.messages, &[ack]).await.unwrap();
    }

    async fn consume(&self, source: &SourcePath, max_messages: usize) -> Vec<ReceivedMessage> {
        let options = ConsumeOptions::new().max_messages(max_messages).poll_wait(Duration::from_secs(1));
        self.client.consume(source, &options).await.unwrap()
    }

    /// The number of dead letters.
    async fn left(&self) -> u64 {
        let groups = self.client.groups(&self.messages.queue).await.unwrap();
        groups[0].available_dead_letters.unwrap()
    }

    /// Consumes and acknowledges everything of a stream.
    async fn drain(&self, source: &SourcePath) -> Vec<ReceivedMessage> {
        let mut all = Vec::new();
        loop {
            let received = self.consume(source, 10).await;
            if received.is_empty() {
                return all;
            }
            let acks: Vec<_> = received.iter().map(|message| (message.handle.clone(), AckStatus::Success)).collect();
            self.client.acknowledge(source, &acks).await.unwrap();
            all.extend(received);
        }
    }

    /// The numbers of the redriven messages.
    async fn numbers(&self, source: &SourcePath) -> Vec<u64> {
        self.drain(source).await.iter().map(|message| message.body.parse().unwrap()).collect()
    }

    fn redrive(&self) -> Redrive {
        Redrive::new(self.client.clone(), self.dead.clone())
    }
}

async fn run(redrive: Redrive) -> RedriveReport {
    redrive.run(pending()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn everything_is_sent_again_in_order_and_without_its_history() {
    for mode in [QueueMode::Normal, QueueMode::Fifo] {
        let house = House::new(mode, 25).await;
        let report = run(house.redrive()).await;
        assert_eq!((report.redriven, report.doubled, house.left().await), (25, 0, 0));
        let messages = house.drain(&house.messages).await;
        let numbers: Vec<u64> = messages.iter().map(|message| message.body.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 25);
        assert!(mode == QueueMode::Normal || numbers.is_sorted(), "{numbers:?}");
        for message in messages {
            assert_eq!(message.attributes.get_u64(REDRIVEN), Some(1));
            assert!(message.attributes.contains("parity"));
            assert!(!message.attributes.contains(ERROR) && !message.attributes.contains(ATTEMPTS));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_do_not_match_stay_and_block_nothing() {
    let house = House::new(QueueMode::Normal, 30).await;
    let report = run(house.redrive().attribute("parity", "odd")).await;
    assert_eq!((report.redriven, report.filtered), (15, 15));
    let mut numbers = house.numbers(&house.messages).await;
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq((1..30).step_by(2)));
    // Given back, and so there at once.
    let mut numbers = house.numbers(&house.dead).await;
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq((0..30).step_by(2)));
}

#[tokio::test(start_paused = true)]
async fn a_fifo_queue_is_not_overtaken() {
    let house = House::new(QueueMode::Fifo, 20).await;
    let report = run(house.redrive().only(|message| message.body.as_str() != "13")).await;
    assert_eq!((report.redriven, report.filtered, house.left().await), (13, 1, 7));
    assert!(house.numbers(&house.messages).await.into_iter().eq(0..13));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_redriven_at_most_max_redrives_times() {
    let house = House::new(QueueMode::Normal, 1).await;
    for _ in 0..2 {
        assert_eq!(run(house.redrive().max_redrives(2)).await.redriven, 1);
        house.bury().await;
    }
    let report = run(house.redrive().max_redrives(2)).await;
    assert_eq!((report.redriven, report.exhausted, house.left().await), (0, 1, 1));
}

/// It is refused before any request.
#[tokio::test(start_paused = true)]
async fn a_lease_with_a_fraction_beyond_its_limits_is_refused() {
    let house = House::new(QueueMode::Normal, 1).await;
    for millis in [14_900, 300_900] {
        let sweep = Sweep::new(house.client.clone(), house.dead.clone()).ack_wait(Duration::from_millis(millis));
        let error = sweep.run(&mut Nothing, pending()).await.unwrap_err();
        assert!(
            error.to_string().contains(&format!("ack_wait is {:?}: 15 to 300 s", Duration::from_millis(millis))),
            "{error}"
        );
    }
}

/// A visitor that takes no message.
struct Nothing;

#[async_trait::async_trait]
impl dms_worker::redrive::Visitor for Nothing {
    fn wants(&self, _: &ReceivedMessage) -> bool {
        false
    }

    async fn take(&mut self, _: &[ReceivedMessage]) -> Result<usize, dms_worker::Error> {
        Ok(0)
    }

    fn passed_over(&mut self, _: &ReceivedMessage) {}
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing() {
    let house = House::new(QueueMode::Normal, 25).await;
    let report = run(house.redrive().attribute("parity", "even").dry_run(true)).await;
    assert_eq!((report.redriven, report.filtered), (13, 12));
    assert_eq!(house.drain(&house.messages).await, []);
    assert_eq!(house.numbers(&house.dead).await.len(), 25);
}

/// Its copy was sent already: sending it, too, would handle the message twice.
#[tokio::test(start_paused = true)]
async fn the_original_of_an_edited_dead_letter_stays_unless_asked_for() {
    let house = House::new(QueueMode::Normal, 2).await;
    let broker = house._server.broker();
    let SourcePath { queue, group, .. } = house.dead.clone();
    let path = GroupPath { project: "p1".into(), queue, group };
    let first = broker.peek(&path, Stream::DeadLetters, 1, 1).await.unwrap().remove(0);
    let copy = NewMessage {
        json: r#"{"body":100,"attributes":{}}"#.into(),
        body_bytes: 3,
        tags: vec![],
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    };
    broker.edit_dead_letter(&path, first.sequence, first.id, copy).await.unwrap();
    assert_eq!(house.numbers(&house.messages).await, [100]);
    for dry_run in [true, false] {
        let report = run(house.redrive().dry_run(dry_run)).await;
        assert_eq!((report.redriven, report.edited), (1, 1), "{dry_run}");
    }
    assert_eq!((house.numbers(&house.messages).await, house.left().await), (vec![1], 1));
    let report = run(house.redrive().edited_originals(true)).await;
    assert_eq!((report.redriven, report.edited), (1, 0));
    assert_eq!((house.numbers(&house.messages).await, house.left().await), (vec![0], 0));
}

#[tokio::test(start_paused = true)]
async fn copies_can_be_changed_and_sent_to_another_queue() {
    let house = House::new(QueueMode::Normal, 12).await;
    let other = house.client.create_queue(NewQueue::new("other")).await.unwrap().id;
    let group = house.client.create_groups(&other, &["g"]).await.unwrap().remove(0).0;
    let mend = |message: Message| {
        let n: u64 = message.body.parse().unwrap();
        let text = if n == 5 { "x".repeat(600_000) } else { format!("mended {n}") };
        Message { body: Message::text(&text).body, ..message }
    };
    let report = run(house.redrive().to(other.clone()).map(mend)).await;
    assert_eq!((report.redriven, report.refused, house.left().await), (11, 1, 1));
    let copies = house.drain(&SourcePath::messages(other, group)).await;
    assert!(copies.iter().all(|copy| copy.body.as_str().contains("mended")));
    assert_eq!(house.numbers(&house.dead).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_target_queue_ends_a_redrive_and_loses_nothing() {
    let house = House::new(QueueMode::Normal, 12).await;
    let error = house.redrive().to("075ae7da-6ce5-4966-940c-17c19fb5175e").run(pending()).await.unwrap_err();
    assert!(error.source.is_not_found(), "{error}");
    assert_eq!(error.report.redriven, 0);
    assert_eq!(house.numbers(&house.dead).await.len(), 12);
}

#[tokio::test(start_paused = true)]
async fn limits_of_count_and_rate_are_obeyed() {
    let house = House::new(QueueMode::Normal, 50).await;
    let started = Instant::now();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let progress = Arc::clone(&seen);
    let redrive = house.redrive().sweep(|sweep| {
        sweep
            .max(35)
            .rate(5.0)
            .on_progress(move |report| progress.lock().unwrap().push((report.taken, report.expected)))
    });
    assert_eq!(run(redrive).await.redriven, 35);
    assert!((6..8).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!(*seen.lock().unwrap(), [(10, 50), (20, 50), (30, 50), (35, 50)]);
    assert_eq!(house.left().await, 15);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_redrive_between_two_batches() {
    let house = House::new(QueueMode::Normal, 50).await;
    let shutdown = timeout(Duration::from_secs(5), pending::<()>());
    let redrive = house.redrive().sweep(|sweep| sweep.rate(5.0));
    let report = redrive.run(async { drop(shutdown.await) }).await.unwrap();
    assert_eq!((report.redriven, report.doubled), (30, 0));
    assert_eq!(house.left().await, 20);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_was_killed_twice_continues() {
    let house = House::new(QueueMode::Normal, 200).await;
    let mut done = 0;
    for _ in 0..2 {
        // Dropping it in the middle is being killed.
        let redrive = house.redrive().sweep(|sweep| sweep.rate(20.0)).run(pending());
        assert!(timeout(Duration::from_millis(1_750), redrive).await.is_err());
        done = 200 - house.left().await;
    }
    assert!(done > 0);
    // What the killed ones had leased comes when the lease is over.
    run(house.redrive().sweep(|sweep| sweep.linger(Duration::from_secs(60)))).await;
    assert_eq!(house.numbers(&house.dead).await, [0; 0]);
    let mut numbers = house.numbers(&house.messages).await;
    numbers.sort_unstable();
    numbers.dedup();
    assert!(numbers.into_iter().eq(0..200));
}

#[tokio::test(start_paused = true)]
async fn a_journal_counts_the_possible_duplicates_of_killed_runs() {
    let house = House::new(QueueMode::Normal, 200).await;
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("redrive.journal");
    for _ in 0..2 {
        let redrive = house.redrive().journal(&journal).sweep(|sweep| sweep.rate(20.0)).run(pending());
        assert!(timeout(Duration::from_millis(1_750), redrive).await.is_err());
    }
    assert!(journal.exists());
    // Killed once more, with copies stored that are not acknowledged: their answers do not come.
    *house.faults.dice.lock().unwrap() = Some(fastrand::Rng::with_seed(1));
    assert!(timeout(Duration::from_secs(2), house.redrive().journal(&journal).run(pending())).await.is_err());
    *house.faults.dice.lock().unwrap() = None;

    let report = run(house.redrive().journal(&journal)).await;
    assert!(report.earlier > 0 && !journal.exists());
    assert_eq!(house.left().await, 0);
    let mut numbers = house.numbers(&house.messages).await;
    let extra = numbers.len() as u64 - 200;
    numbers.sort_unstable();
    numbers.dedup();
    assert!(numbers.into_iter().eq(0..200));
    assert!(extra <= report.doubled && report.doubled <= 60, "{extra} are there twice: {report:?}");
}

#[tokio::test(start_paused = true)]
async fn parked_messages_go_back_to_where_they_came_from() {
    let house = House::new(QueueMode::Normal, 0).await;
    let parked = house.client.create_queue(NewQueue::new("parked")).await.unwrap().id;
    let group = house.client.create_groups(&parked, &["ops"]).await.unwrap().remove(0).0;
    let message = |n: u64| Message::json(&n).unwrap().attribute(ERROR, "boom").attribute("parity", "odd");
    let origin = |n: u64, queue: &str| message(n).attribute(ORIGIN, queue);
    let messages = [origin(1, "orders"), message(2), origin(3, "gone"), origin(4, "orders"), origin(5, "orders")];
    for outcome in house.client.send(&parked, &messages).await.unwrap() {
        outcome.unwrap();
    }
    let source = SourcePath::messages(parked, group);
    let report = run(Redrive::new(house.client.clone(), source.clone())).await;
    assert_eq!((report.redriven, report.refused, report.doubled), (3, 2, 0));
    let back = house.drain(&house.messages).await;
    assert_eq!(back.iter().map(|message| message.body.as_str()).collect::<Vec<_>>(), ["1", "4", "5"]);
    assert!(
        back.iter()
            .all(|message| !message.attributes.contains(ORIGIN) && message.attributes.get_u64(REDRIVEN) == Some(1))
    );
    let mut left = house.numbers(&source).await;
    left.sort_unstable();
    assert_eq!(left, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn lost_answers_lose_nothing_and_duplicates_are_reported() {
    for seed in 0..8 {
        let house = House::new(QueueMode::Normal, 60).await;
        *house.faults.dice.lock().unwrap() = Some(fastrand::Rng::with_seed(seed));
        let mut doubled = 0;
        loop {
            // Messages leased by a lost answer are redelivered, so an empty run means that none is left.
            tokio::time::sleep(Duration::from_secs(300)).await;
            let (end, report) = match house.redrive().run(pending()).await {
                Ok(report) => (report.redriven + report.doubled == 0, report),
                Err(error) if error.source.is_retryable() => (false, error.report),
                Err(error) => panic!("{error}"),
            };
            doubled += report.doubled;
            if end {
                break;
            }
        }
        *house.faults.dice.lock().unwrap() = None;
        let mut copies: HashMap<u64, u64> = HashMap::new();
        for n in house.numbers(&house.messages).await {
            *copies.entry(n).or_default() += 1;
        }
        assert_eq!((copies.len(), house.left().await), (60, 0), "seed {seed}");
        let extra = copies.values().sum::<u64>() - 60;
        assert!(extra <= doubled, "{extra} were doubled, and {doubled} reported, seed {seed}");
    }
}
