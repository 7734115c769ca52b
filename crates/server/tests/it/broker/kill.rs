//! kill -9 of a process that sends, consumes and acknowledges: answered messages are kept, settled ones stay settled. In the second
//! test leases end in between and at the kill, and messages become dead letters.
//!
//! The process is this test binary again, running [`victim`] or [`victim_of_lapsing_leases`] alone.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use dms_protocol::queue::{NewQueue, ProjectId};
use dms_server::{
    broker::{
        Broker, GroupPath, LeaseRequest, Stream,
        embedded::{EmbeddedBroker, EmbeddedConfig},
    },
    clock::Clock,
};

use super::stage::{all_done, message, take, texts, wait};

const DIR: &str = "DMS_WORKER_TEST_KILL_DIR";
const ROUNDS: usize = 20;

async fn open(dir: &Path, dead_letters: bool) -> (EmbeddedBroker, GroupPath) {
    let broker = EmbeddedBroker::open(dir, EmbeddedConfig::default(), Clock::system()).await.unwrap();
    let project = ProjectId::new("p");
    if broker.queues(&project).await.unwrap().is_empty() {
        let queue = NewQueue::new("q");
        let queue = if dead_letters { queue.dead_letters_after(2) } else { queue };
        broker.create_queue(&project, queue).await.unwrap();
    }
    let queue = broker.queues(&project).await.unwrap().remove(0).id;
    if broker.groups(&project, &queue).await.unwrap().groups.is_empty() {
        broker.create_groups(&project, &queue, &["g".into()]).await.unwrap();
    }
    let group = broker.groups(&project, &queue).await.unwrap().groups.remove(0).id;
    (broker, GroupPath { project, queue, group })
}

/// Sends messages until the process is killed.
async fn produce(broker: &EmbeddedBroker, path: &GroupPath) {
    let run = std::process::id();
    for number in 0u64.. {
        let text = format!("{run}-{number}");
        let sent = vec![message(&text, &[], Duration::ZERO)];
        broker.append(&path.project, &path.queue, sent).await.unwrap();
        println!("sent {text}");
    }
}

/// The process that is killed. It prints each sent and each settled message as soon as the broker has confirmed it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below, in a separate process"]
async fn victim() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (broker, path) = open(Path::new(&dir), false).await;
    let consume = async {
        loop {
            let batch = broker.lease(&path, Stream::Messages, take(3)).await.unwrap();
            if batch.is_empty() {
                tokio::task::yield_now().await;
                continue;
            }
            broker.ack(&path, Stream::Messages, all_done(&batch)).await.unwrap();
            texts(&batch).iter().for_each(|text| println!("settled {text}"));
        }
    };
    tokio::join!(produce(&broker, &path), consume);
}

/// The same with leases of which half end before anybody acknowledges them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below, in a separate process"]
async fn victim_of_lapsing_leases() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (broker, path) = open(Path::new(&dir), true).await;
    let consume = async {
        for number in 0u64.. {
            let request = LeaseRequest { ack_wait: Duration::from_millis(20), ..wait(3, 1) };
            let batch = broker.lease(&path, Stream::Messages, request).await.unwrap();
            // Every other batch is forgotten: its lease ends while others are worked on, or the process is killed before that.
            if number % 2 == 0 && broker.ack(&path, Stream::Messages, all_done(&batch)).await.is_ok() {
                texts(&batch).iter().for_each(|text| println!("settled {text}"));
            }
        }
    };
    tokio::join!(produce(&broker, &path), consume);
}

/// Lets a process work until it has printed this number of lines, and kills it.
fn kill_after(victim: &str, dir: &Path, lines: usize, sent: &mut BTreeSet<String>, settled: &mut BTreeSet<String>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", &format!("broker::kill::{victim}")])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut hear = |line: String| match line.split_once(' ') {
        Some(("sent", text)) => drop(sent.insert(text.to_owned())),
        Some(("settled", text)) => {
            assert!(settled.insert(text.to_owned()), "{text} was settled before");
        }
        _ => {}
    };
    said.by_ref().take(lines).for_each(|line| hear(line.unwrap()));
    child.kill().unwrap();
    // Lines it printed before it died count too; a line is written completely or not at all.
    said.map_while(Result::ok).for_each(hear);
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sent, mut settled) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        kill_after("victim", dir.path(), 20 + round * 7, &mut sent, &mut settled);
    }
    let (broker, path) = open(dir.path(), false).await;
    let mut left = BTreeSet::new();
    loop {
        let batch = broker.lease(&path, Stream::Messages, take(10)).await.unwrap();
        if batch.is_empty() {
            break;
        }
        left.extend(texts(&batch));
    }
    assert!(sent.len() > ROUNDS * 10 && settled.len() > ROUNDS * 5, "{} sent, {} settled", sent.len(), settled.len());
    assert!(left.is_disjoint(&settled), "settled and back: {:?}", left.intersection(&settled).next());
    let consumed = broker.groups(&path.project, &path.queue).await.unwrap().groups[0].consumed_messages;
    let lost = sent.iter().filter(|text| !left.contains(*text) && !settled.contains(*text)).count() as u64;
    // The broker counts messages that were settled and not printed, because the process died in between.
    assert!(lost <= consumed - settled.len() as u64, "{lost} messages are missing");
}

/// All messages of a stream.
async fn drain(broker: &EmbeddedBroker, path: &GroupPath, stream: Stream) -> BTreeSet<String> {
    let mut left = BTreeSet::new();
    loop {
        let batch = broker.lease(path, stream, take(10)).await.unwrap();
        if batch.is_empty() {
            return left;
        }
        for text in texts(&batch) {
            assert!(left.insert(text.clone()), "{text} is there twice");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_kill_9_while_leases_end() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sent, mut settled) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        kill_after("victim_of_lapsing_leases", dir.path(), 40 + round * 20, &mut sent, &mut settled);
    }
    let (broker, path) = open(dir.path(), true).await;
    let left = drain(&broker, &path, Stream::Messages).await;
    let dead = drain(&broker, &path, Stream::DeadLetters).await;
    assert!(!settled.is_empty() && !dead.is_empty(), "{} settled, {} dead letters", settled.len(), dead.len());
    assert!(left.is_disjoint(&settled), "settled and back: {:?}", left.intersection(&settled).next());
    assert!(dead.is_disjoint(&settled), "settled and dead: {:?}", dead.intersection(&settled).next());
    assert!(left.is_disjoint(&dead), "alive and dead: {:?}", left.intersection(&dead).next());
    let consumed = broker.groups(&path.project, &path.queue).await.unwrap().groups[0].consumed_messages;
    let there = |text: &String| left.contains(text) || settled.contains(text) || dead.contains(text);
    let lost = sent.iter().filter(|text| !there(text)).count() as u64;
    // Messages that were settled but not printed, because the process died in between, are counted by the broker.
    assert!(lost <= consumed - settled.len() as u64, "{lost} messages are missing");
}
