//! A message that breaks the connection of the application: only that message fails.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use dms_worker::message::Message;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::{App, Running, worker};

/// What a post does that has `poison` in its body.
#[derive(Clone, Copy, PartialEq)]
enum Poison {
    /// Its connection is closed without an answer.
    Cuts,
    /// The process ends: all connections break, and nothing listens until it is started again.
    Crashes,
    /// All connections break, and a process in front goes on listening.
    BreaksAll,
}

/// An application of raw sockets.
struct Fragile {
    address: SocketAddr,
    seen: Arc<Mutex<BTreeMap<String, usize>>>,
    /// The next posts that break their connection, whatever is in them.
    cuts: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Fragile {
    async fn start(poison: Poison) -> Self {
        let address = App::nowhere().await;
        let (seen, cuts): (Arc<Mutex<BTreeMap<String, usize>>>, Arc<AtomicUsize>) = Default::default();
        let listener = TcpListener::bind(address).await.unwrap();
        let serving = tokio::spawn(serve(listener, poison, seen.clone(), cuts.clone()));
        Self { address, seen, cuts, serving }
    }

    fn handler(&self, more: &str) -> String {
        format!("{{http: {{url: 'http://{}/', health_interval: 20ms{more}}}}}", self.address)
    }

    /// How often each body was posted.
    fn seen(&self) -> BTreeMap<String, usize> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    mut listener: TcpListener,
    poison: Poison,
    seen: Arc<Mutex<BTreeMap<String, usize>>>,
    cuts: Arc<AtomicUsize>,
) {
    let address = listener.local_addr().unwrap();
    let crash = Arc::new(Notify::new());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                connections.spawn(connection(stream, poison, seen.clone(), cuts.clone(), crash.clone()));
            }
            () = crash.notified() => {
                if poison == Poison::Crashes {
                    drop(listener);
                    connections.shutdown().await;
                    sleep(Duration::from_millis(300)).await;
                    listener = TcpListener::bind(address).await.unwrap();
                } else {
                    connections.shutdown().await;
                }
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    poison: Poison,
    seen: Arc<Mutex<BTreeMap<String, usize>>>,
    cuts: Arc<AtomicUsize>,
    crash: Arc<Notify>,
) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.is_ok_and(|bytes| bytes > 0) {
                match line.to_ascii_lowercase().strip_prefix("content-length:") {
                    Some(text) => length = text.trim().parse().unwrap(),
                    None if line == "\r\n" => break,
                    None => {}
                }
            } else {
                return;
            }
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let body = String::from_utf8(body).unwrap();
        *seen.lock().unwrap().entry(body.clone()).or_default() += 1;
        if cuts.fetch_update(Relaxed, Relaxed, |cuts| cuts.checked_sub(1)).is_ok() {
            return;
        }
        if body.contains("poison") {
            match poison {
                Poison::Cuts => return,
                Poison::Crashes | Poison::BreaksAll => {
                    crash.notify_one();
                    std::future::pending::<()>().await;
                }
            }
        }
        sleep(Duration::from_millis(20)).await;
        if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_err() {
            return;
        }
    }
}

/// `poison` first, or in the middle, and 39 others.
fn messages(place: usize) -> Vec<Vec<Message>> {
    let text = |number| if number == place { "poison".to_owned() } else { format!("innocent {number}") };
    let all: Vec<_> = (0..40).map(|number| Message::text(&text(number))).collect();
    all.chunks(10).map(<[Message]>::to_vec).collect()
}

/// Sends the messages and waits until the poison is a dead letter and the others are done: nobody else has failed.
async fn only_poison_dies(app: &Fragile, sidecar: Running, place: usize) {
    for chunk in messages(place) {
        sidecar.send(&chunk).await;
    }
    let group = sidecar.until(|group| group.produced_dead_letters > Some(0) && group.available_messages == 0).await;
    let group =
        if group.consumed_messages < 39 { sidecar.until(|group| group.consumed_messages >= 39).await } else { group };
    assert_eq!((group.consumed_messages, group.produced_dead_letters), (39, Some(1)));
    assert_eq!(app.seen().len(), 40, "every message was posted");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_message_that_closes_its_connection_fails_and_the_others_are_delivered() {
    for place in [0, 20] {
        let app = Fragile::start(Poison::Cuts).await;
        let sidecar = Running::start(3, &worker(&app.handler(""), "")).await;
        only_poison_dies(&app, sidecar, place).await;
        let seen = app.seen();
        assert!((3..=4).contains(&seen["\"poison\""]), "three deliveries: {seen:?}");
        assert!(seen.iter().all(|(body, times)| body.contains("poison") || *times == 1), "{seen:?}");
    }
}

#[tokio::test]
async fn a_message_that_ends_the_application_fails_and_others_in_flight_do_not() {
    for place in [0, 20] {
        let app = Fragile::start(Poison::Crashes).await;
        // One failure makes a dead letter.
        let sidecar = Running::start(1, &worker(&app.handler(""), "")).await;
        only_poison_dies(&app, sidecar, place).await;
    }
}

#[tokio::test]
async fn a_message_that_ends_the_application_is_delivered_max_consume_count_times() {
    let app = Fragile::start(Poison::Crashes).await;
    let sidecar = Running::start(3, &worker(&app.handler(""), "")).await;
    only_poison_dies(&app, sidecar, 5).await;
    let seen = app.seen();
    assert!((3..=5).contains(&seen["\"poison\""]), "{seen:?}");
}

#[tokio::test]
async fn a_message_that_breaks_all_connections_fails_alone_while_the_listener_stays() {
    let app = Fragile::start(Poison::BreaksAll).await;
    let sidecar = Running::start(1, &worker(&app.handler(""), "")).await;
    only_poison_dies(&app, sidecar, 7).await;
}

#[tokio::test]
async fn a_message_that_breaks_its_connection_fails_alone_with_a_concurrency_of_one() {
    for poison in [Poison::Cuts, Poison::Crashes] {
        let app = Fragile::start(poison).await;
        let sidecar = Running::start(1, &worker(&app.handler(""), "concurrency: 1")).await;
        only_poison_dies(&app, sidecar, 0).await;
    }
}

#[tokio::test]
async fn a_message_that_breaks_its_connection_fails_alone_in_a_fifo_queue() {
    for poison in [Poison::Cuts, Poison::Crashes] {
        let app = Fragile::start(poison).await;
        let sidecar = Running::with("mode: FIFO, max_consume_count: 2", &worker(&app.handler(""), "")).await;
        only_poison_dies(&app, sidecar, 3).await;
    }
}

#[tokio::test]
async fn the_only_message_of_a_queue_becomes_a_dead_letter() {
    for poison in [Poison::Cuts, Poison::Crashes] {
        let app = Fragile::start(poison).await;
        let sidecar = Running::start(3, &worker(&app.handler(""), "")).await;
        sidecar.send(&[Message::text("poison")]).await;
        sidecar.until(|group| group.produced_dead_letters == Some(1)).await;
        let seen = app.seen();
        assert!((3..=4).contains(&seen["\"poison\""]), "{seen:?}");
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn only_the_message_that_breaks_a_batch_request_fails() {
    for (poison, queue) in [
        (Poison::Cuts, "max_consume_count: 1"),
        (Poison::Crashes, "max_consume_count: 1"),
        (Poison::Cuts, "mode: FIFO, max_consume_count: 2"),
    ] {
        let app = Fragile::start(poison).await;
        let sidecar = Running::with(queue, &worker(&app.handler(", batch: consumed"), "")).await;
        for chunk in messages(4) {
            sidecar.send(&chunk).await;
        }
        let group = sidecar
            .until(|group| group.consumed_messages == 39 && group.produced_dead_letters.is_some_and(|dead| dead > 0))
            .await;
        assert_eq!(group.produced_dead_letters, Some(1), "{queue}");
        sidecar.stop().await;
    }
}

/// A proxy accepts connections for an application that is down. The first message to meet it may be blamed.
#[tokio::test]
async fn an_application_that_closes_every_connection_for_a_while_costs_one_message_at_most() {
    let app = Fragile::start(Poison::Cuts).await;
    app.cuts.store(10, Relaxed);
    let sidecar = Running::start(2, &worker(&app.handler(""), "")).await;
    let all: Vec<_> = (0..10).map(|number| Message::text(&format!("innocent {number}"))).collect();
    sidecar.send(&all).await;
    // One that is put off is sent again with a delay, and counts twice.
    let group = sidecar.until(|group| group.available_messages == 0 && group.consumed_messages >= 9).await;
    assert!(group.produced_dead_letters <= Some(1), "{group:?}");
    sidecar.stop().await;
}
