//! The cost of a long backlog: how soon the real server has opened it, how much memory it takes, and how long a consume from it is.
//!
//! With messages of 200 bytes it is a measurement of minutes, so it runs only when asked for; that nothing is read or kept in proportion
//! to the backlog is held by a test beside the broker. With large messages a short backlog tells: they need more memory than the
//! server may take.
//!
//! ```sh
//! cargo test --release --test it -- --ignored --nocapture backlog                          # 5 million messages
//! DMS_BACKLOG=200000 cargo test --release --test it -- --ignored --nocapture backlog
//! ```

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dms_server::{
    broker::{
        Broker, NewMessage,
        embedded::{EmbeddedBroker, EmbeddedConfig},
    },
    clock::Clock,
};
use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::AckStatus,
    queue::{NewQueue, ProjectId, SourcePath},
};

/// Messages in the short backlog.
const SHORT: usize = 1_000;
/// Batches that are consumed and acknowledged from each backlog.
const BATCHES: u32 = 100;
const MEBIBYTE: u64 = 1 << 20;

/// A server that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Running {
    /// Starts the real server; gives it with its URL, once it says that it serves.
    fn start(data: &Path) -> (Self, String) {
        Self::start_with(data, "72h")
    }

    /// The same, with this retention.
    fn start_with(data: &Path, retention: &str) -> (Self, String) {
        let mut server = Command::new(env!("CARGO_BIN_EXE_dms-worker"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .env("DMS_WORKER_SERVER__RETENTION", retention)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(server.stderr.take().unwrap());
        let running = Self(server);
        // It may have warned of messages that expired meanwhile.
        let url_in = |line: String| Some(line.split(' ').find(|word| word.starts_with("http://"))?.to_owned());
        let url = stderr.lines().map_while(Result::ok).find_map(url_in).unwrap();
        (running, url)
    }

    /// The most memory it ever had resident, in bytes.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
    }
}

/// A directory with two queues, each with this number of messages of 200 bytes; returns the sources to consume them from.
async fn fill(data: &Path, backlogs: [usize; 2]) -> [SourcePath; 2] {
    let broker = EmbeddedBroker::open(data, EmbeddedConfig::default(), Clock::system()).await.unwrap();
    let project = ProjectId::new("local");
    let message = message(200);
    let mut sources = Vec::new();
    for (name, backlog) in ["long", "short"].into_iter().zip(backlogs) {
        let queue = broker.create_queue(&project, NewQueue::new(name)).await.unwrap().id;
        let group = broker.create_groups(&project, &queue, &["g".to_owned()]).await.unwrap().remove(0);
        for _ in 0..backlog / SHORT {
            broker.append(&project, &queue, vec![message.clone(); SHORT]).await.unwrap();
        }
        sources.push(SourcePath::messages(queue, group));
    }
    broker.close().await;
    sources.try_into().unwrap()
}

/// A message with a body of this size.
fn message(bytes: usize) -> NewMessage {
    NewMessage {
        json: format!(r#"{{"body":"{}","attributes":{{}}}}"#, "x".repeat(bytes)).into(),
        body_bytes: bytes + 2,
        tags: Vec::new(),
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    }
}

/// Consumes and acknowledges batches; gives how long one takes.
async fn consume(client: &Client, source: &SourcePath) -> Duration {
    let begun = Instant::now();
    for _ in 0..BATCHES {
        let batch = client.consume(source, &ConsumeOptions::default()).await.unwrap();
        let acks: Vec<_> = batch.iter().map(|message| (message.handle.clone(), AckStatus::Success)).collect();
        assert_eq!(client.acknowledge(source, &acks).await.unwrap().success, 10);
    }
    begun.elapsed() / BATCHES
}

#[tokio::test]
#[ignore = "fills a disk with gigabytes: see the head of the file"]
async fn a_long_backlog_costs_no_more_than_a_short_one() {
    let long = std::env::var("DMS_BACKLOG").map_or(5_000_000, |count| count.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let [of_long, of_short] = fill(directory.path(), [long, SHORT]).await;

    let begun = Instant::now();
    let (server, url) = Running::start(directory.path());
    let (opened, empty) = (begun.elapsed(), server.peak());
    let client = Client::builder(url, "local").build().unwrap();
    let [short, long_cost] = [consume(&client, &of_short).await, consume(&client, &of_long).await];
    let peak = server.peak();
    println!(
        "{long} messages: open after {opened:.1?}, {} MiB resident, {} after use",
        empty / MEBIBYTE,
        peak / MEBIBYTE
    );
    println!("a batch of 10 consumed and acknowledged: {short:.1?} from {SHORT} messages, {long_cost:.1?} from {long}");
    assert!(opened < Duration::from_secs(2), "open after {opened:?}");
    assert!(peak < 200 * MEBIBYTE, "{} MiB resident", peak / MEBIBYTE);
    assert!(long_cost < 2 * short, "{long_cost:?} from the long backlog, {short:?} from the short one");
}

/// A thousand large messages are opened, consumed, and expire all at once, in a third of the memory that they would take.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_does_not_grow_with_a_backlog_of_large_messages() {
    const LARGE: usize = 250_000;
    const LIMIT: u64 = 80 * MEBIBYTE;
    let directory = tempfile::tempdir().unwrap();
    let source = fill_with_large(directory.path(), LARGE).await;

    let (server, url) = Running::start(directory.path());
    let client = Client::builder(url, "local").build().unwrap();
    for _ in 0..20 {
        let batch = client.consume(&source, &ConsumeOptions::default()).await.unwrap();
        let acks: Vec<_> = batch.iter().map(|message| (message.handle.clone(), AckStatus::Success)).collect();
        assert_eq!(client.acknowledge(&source, &acks).await.unwrap().success, 2);
    }
    let peak = server.peak();
    assert!(peak < LIMIT, "{} MiB resident for consuming from the backlog", peak / MEBIBYTE);
    drop(server);

    // Nearly all of them are older: they expire together.
    let (server, url) = Running::start_with(directory.path(), "1s");
    let client = Client::builder(url, "local").build().unwrap();
    while client.queue(&source.queue).await.unwrap().produced_messages > 0 || log_bytes(directory.path()) > 4 * FILE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let peak = server.peak();
    assert!(peak < LIMIT, "{} MiB resident for the expiry of the backlog", peak / MEBIBYTE);
}

/// How large a file of the log is.
const FILE: u64 = 32 * MEBIBYTE;

/// The bytes of the files of the log.
fn log_bytes(data: &Path) -> u64 {
    let files = std::fs::read_dir(data.join("log")).unwrap();
    // One that goes meanwhile has none.
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

/// A directory with a queue of a thousand messages of this size; returns the source to consume them from.
async fn fill_with_large(data: &Path, bytes: usize) -> SourcePath {
    let broker = EmbeddedBroker::open(data, EmbeddedConfig::default(), Clock::system()).await.unwrap();
    let project = ProjectId::new("local");
    let queue = broker.create_queue(&project, NewQueue::new("large")).await.unwrap().id;
    let group = broker.create_groups(&project, &queue, &["g".to_owned()]).await.unwrap().remove(0);
    let message = message(bytes);
    for _ in 0..100 {
        broker.append(&project, &queue, vec![message.clone(); 10]).await.unwrap();
    }
    assert!(log_bytes(data) > 7 * FILE);
    broker.close().await;
    SourcePath::messages(queue, group)
}
