//! What a long backlog costs: how soon the real server has opened it, how much memory it takes, and how long a consume from it is.
//!
//! A measurement of minutes, so it runs only when asked for; that nothing is read or kept in proportion to the backlog is held
//! by a test beside the broker.
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

use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::AckStatus,
    queue::{NewQueue, ProjectId, SourcePath},
    server::{
        broker::{
            Broker, NewMessage,
            embedded::{EmbeddedBroker, EmbeddedConfig},
        },
        clock::Clock,
    },
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
        let mut server = Command::new(env!("CARGO_BIN_EXE_dms-worker"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split(' ').find(|word| word.starts_with("http://")).unwrap().to_owned();
        (Self(server), url)
    }

    /// The most memory it ever had resident, in bytes.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
    }
}

/// A directory with two queues of so many messages of 200 bytes; the sources to consume them from.
async fn fill(data: &Path, backlogs: [usize; 2]) -> [SourcePath; 2] {
    let broker = EmbeddedBroker::open(data, EmbeddedConfig::default(), Clock::system()).await.unwrap();
    let project = ProjectId::new("local");
    let message = NewMessage {
        json: format!(r#"{{"body":"{}","attributes":{{}}}}"#, "x".repeat(200)).into(),
        body_bytes: 202,
        tags: Vec::new(),
        delay: Duration::ZERO,
    };
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
