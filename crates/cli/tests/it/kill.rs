//! kill -9 of the real server, again and again, under producers and consumers over HTTP: no answered message is lost, and
//! no acknowledged message is redelivered.

use std::{
    collections::HashSet,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::{AckStatus, Message, ReceivedMessage},
    queue::{NewQueue, QueueId, SourcePath},
    retry::RetryPolicy,
};
use tokio::{sync::watch, task::JoinSet};

const KILLS: usize = 20;
/// Answered messages between two kills.
const PER_ROUND: usize = 120;

/// The answers that clients received.
#[derive(Debug, Default)]
struct Books {
    /// Numbers whose send was answered.
    sent: Mutex<HashSet<u64>>,
    /// Numbers whose acknowledgement was answered.
    settled: Mutex<HashSet<u64>>,
    /// Numbers whose acknowledgement went unanswered: it may have counted.
    unsure: Mutex<HashSet<u64>>,
    /// Numbers that came although they were settled.
    came_back: Mutex<HashSet<u64>>,
    answered: watch::Sender<usize>,
}

fn serve(address: &str, data: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dms-worker"))
        .args(["serve", "--listen", address, "--data-dir"])
        .arg(data)
        .current_dir(data.parent().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn client(address: &str) -> Client {
    Client::builder(format!("http://{address}"), "local").retry(RetryPolicy::never()).build().unwrap()
}

/// The client of a server that has just been started: ready as soon as it answers.
async fn ready(address: &str) -> Client {
    let client = client(address);
    while client.queues().await.is_err() {
        tokio::task::yield_now().await;
    }
    client
}

fn numbers(messages: &[ReceivedMessage]) -> Vec<u64> {
    messages.iter().map(|message| message.body.parse().unwrap()).collect()
}

async fn produce(client: Client, queue: QueueId, books: Arc<Books>, first: u64) {
    for start in (first..).step_by(5) {
        let batch: Vec<_> = (start..start + 5).map(|number| Message::json(&number).unwrap()).collect();
        let Ok(outcomes) = client.send(&queue, &batch).await else { return };
        let answered: Vec<u64> =
            (start..).zip(outcomes).filter_map(|(number, sent)| sent.is_ok().then_some(number)).collect();
        books.sent.lock().unwrap().extend(&answered);
        books.answered.send_modify(|count| *count += answered.len());
    }
}

async fn consume(client: Client, source: SourcePath, books: Arc<Books>) {
    let options = ConsumeOptions::new().poll_wait(Duration::from_secs(1));
    while let Ok(messages) = client.consume(&source, &options).await {
        settle(&client, &source, &books, &messages).await;
    }
}

async fn settle(client: &Client, source: &SourcePath, books: &Books, messages: &[ReceivedMessage]) {
    if messages.is_empty() {
        return;
    }
    let numbers = numbers(messages);
    {
        let settled = books.settled.lock().unwrap();
        books.came_back.lock().unwrap().extend(numbers.iter().filter(|number| settled.contains(number)));
    }
    books.unsure.lock().unwrap().extend(&numbers);
    let acks: Vec<_> = messages.iter().map(|message| (message.handle.clone(), AckStatus::Success)).collect();
    let answer = client.acknowledge(source, &acks).await;
    if answer.as_ref().is_ok_and(|answer| answer.success == acks.len()) {
        books.settled.lock().unwrap().extend(&numbers);
    } else if !answer.is_err_and(|error| error.is_unsure()) {
        books.unsure.lock().unwrap().retain(|number| !numbers.contains(number));
    }
}

/// Traffic until enough was answered, then kill -9.
async fn round(address: &str, data: &Path, source: &SourcePath, books: &Arc<Books>, round: u64) {
    let mut server = serve(address, data);
    let client = ready(address).await;
    let mut traffic = JoinSet::new();
    for task in 0..3u64 {
        let first = (round * 3 + task) * 1_000_000;
        traffic.spawn(produce(client.clone(), source.queue.clone(), books.clone(), first));
        traffic.spawn(consume(client.clone(), source.clone(), books.clone()));
    }
    let enough = *books.answered.borrow() + PER_ROUND;
    books.answered.subscribe().wait_for(|answered| *answered >= enough).await.unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    while traffic.join_next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_lost_through_twenty_kills() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut server = serve(&address, &data);
    let first = ready(&address).await;
    let queue = first.create_queue(NewQueue::new("orders")).await.unwrap().id;
    let group = first.create_groups(&queue, &["billing"]).await.unwrap().remove(0);
    let source = SourcePath::messages(queue, group.0);
    server.kill().unwrap();
    server.wait().unwrap();

    let books = Arc::new(Books::default());
    for number in 0..KILLS as u64 {
        round(&address, &data, &source, &books, number).await;
    }

    let mut server = serve(&address, &data);
    let last = ready(&address).await;
    let options = ConsumeOptions::new().poll_wait(Duration::from_secs(1));
    let mut left = HashSet::new();
    loop {
        let messages = last.consume(&source, &options).await.unwrap();
        if messages.is_empty() {
            break;
        }
        left.extend(numbers(&messages));
        settle(&last, &source, &books, &messages).await;
    }
    server.kill().unwrap();
    server.wait().unwrap();

    let (sent, unsure) = (books.sent.lock().unwrap(), books.unsure.lock().unwrap());
    let settled = books.settled.lock().unwrap();
    let there = |number: &u64| settled.contains(number) || unsure.contains(number) || left.contains(number);
    let lost: Vec<_> = sent.iter().filter(|number| !there(number)).collect();
    assert!(sent.len() >= KILLS * PER_ROUND && lost.is_empty(), "{} sent, lost: {lost:?}", sent.len());
    assert_eq!(*books.came_back.lock().unwrap(), HashSet::new(), "settled messages that came back");
}
