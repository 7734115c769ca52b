//! Another configuration for a running sidecar: workers, publishers and what is refused.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{Router, body::Bytes, extract::State};
use dms_server::{Server, ServerConfig};
use dms_worker::{
    message::{Body, Message},
    queue::NewQueue,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{App, Running, TEST_TIMEOUT};

const SERVER: &str = "\
server:
  listen: 127.0.0.1:0
  queues: [{name: orders, groups: [billing], max_consume_count: 3}, {name: mails, groups: [sender]}]
admin: {listen: '127.0.0.1:0'}
";

/// Workers of `orders` and of `mails`, with these settings besides.
fn workers(orders: &str, mails: &str) -> String {
    format!(
        "{SERVER}workers:\n  - {{name: orders, queue: orders, group: billing, {orders}}}\n  - {{name: mails, queue: mails, group: sender, {mails}}}\n"
    )
}

fn http(address: SocketAddr) -> String {
    format!("handler: {{http: {{url: 'http://{address}/'}}}}")
}

/// An application that answers each request when the test says so.
struct Slow {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<(Value, oneshot::Sender<()>)>,
}

impl Slow {
    async fn start() -> Self {
        async fn hold(State(seen): State<mpsc::UnboundedSender<(Value, oneshot::Sender<()>)>>, body: Bytes) {
            let (answer, answered) = oneshot::channel();
            if seen.send((serde_json::from_slice(&body).unwrap_or_default(), answer)).is_ok() {
                let _ = answered.await;
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = mpsc::unbounded_channel();
        let router = Router::new().fallback(hold).with_state(seen);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, requests }
    }

    async fn next(&mut self) -> (Value, oneshot::Sender<()>) {
        timeout(TEST_TIMEOUT, self.requests.recv()).await.expect("no request arrives").unwrap()
    }
}

async fn send(running: &Running, queue: &str, bodies: impl IntoIterator<Item = usize>) {
    let queue = running.client.find_queue(queue).await.unwrap().id;
    let messages: Vec<_> = bodies.into_iter().map(|body| Message::new(Body::json(&body).unwrap())).collect();
    for some in messages.chunks(10) {
        running.client.send(&queue, some).await.unwrap().into_iter().for_each(|sent| drop(sent.unwrap()));
    }
}

async fn ask(running: &Running, path: &str) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(format!("http://{}{path}", running.admin.unwrap())).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn post(running: &Running, path: &str) -> u16 {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    http.post(format!("http://{}{path}", running.admin.unwrap())).send().await.unwrap().status().as_u16()
}

/// The workers in `/status`, by their names.
async fn status(running: &Running) -> BTreeMap<String, Value> {
    let status: Value = serde_json::from_str(&ask(running, "/status").await.1).unwrap();
    let workers = status["workers"].as_array().unwrap().iter();
    workers.map(|worker| (worker["name"].as_str().unwrap().to_owned(), worker.clone())).collect()
}

#[tokio::test]
async fn a_changed_worker_drains_before_its_successor_starts_and_the_others_go_on() {
    let (mut slow, mut fast, mut mails) = (Slow::start().await, App::start().await, App::start().await);
    let mut running = Running::of(&workers(&http(slow.address), &http(mails.address))).await;
    send(&running, "orders", [1]).await;
    let (body, answer) = slow.next().await;
    assert_eq!(body, 1);

    let admin = running.admin;
    let client = running.client.clone();
    let yaml = workers(&http(fast.address), &http(mails.address));
    {
        let reload = running.reload(&yaml);
        tokio::pin!(reload);
        // While the old worker waits for its handler:
        let meanwhile = async {
            let mails_queue = client.find_queue("mails").await.unwrap().id;
            client.send(&mails_queue, &[Message::new(Body::json(&7).unwrap())]).await.unwrap();
            assert_eq!(mails.next().await.body, 7, "the other worker goes on");
            let orders = client.find_queue("orders").await.unwrap().id;
            client.send(&orders, &[Message::new(Body::json(&2).unwrap())]).await.unwrap();
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            let get = async |path: &str| http.get(format!("http://{}{path}", admin.unwrap())).send().await.unwrap();
            let status: Value = serde_json::from_str(&get("/status").await.text().await.unwrap()).unwrap();
            assert_eq!(status["workers"][0]["state"], "draining", "{status}");
            assert_eq!(get("/readyz").await.status(), 200);
            assert_eq!(fast.waiting(), 0);
        };
        tokio::select! {
            done = &mut reload => panic!("the reload does not wait for the handler: {done:?}"),
            () = meanwhile => {}
        }
        answer.send(()).unwrap();
        timeout(TEST_TIMEOUT, reload).await.expect("the reload does not end").unwrap();
    }
    assert_eq!(fast.next().await.body, 2);
    running.until(|group| group.consumed_messages == 2).await;
    let status = status(&running).await;
    assert_eq!(status.keys().collect::<Vec<_>>(), ["mails", "orders"]);
    assert_eq!((&status["mails"]["done"], &status["mails"]["received"]), (&json!(1), &json!(1)));
    let report = running.stop().await;
    let counts: BTreeMap<_, _> = report.workers.iter().map(|end| (end.name.as_str(), end.report)).collect();
    assert_eq!((counts["orders"].done, counts["orders"].acknowledged), (2, 2), "of both runs: {counts:?}");
    assert_eq!((counts["orders"].interrupted, counts["mails"].done, report.drained), (0, 1, true));
}

#[tokio::test]
async fn workers_are_added_and_removed() {
    let (mut orders, mut mails) = (App::start().await, App::start().await);
    let one = |app: &App, queue: &str, group: &str| {
        format!("{SERVER}workers:\n  - {{queue: {queue}, group: {group}, {}}}\n", http(app.address))
    };
    let mut running = Running::of(&one(&orders, "orders", "billing")).await;
    running.reload(&one(&mails, "mails", "sender")).await.unwrap();
    send(&running, "orders", [1]).await;
    send(&running, "mails", [2]).await;
    assert_eq!(mails.next().await.body, 2);
    assert_eq!(orders.waiting(), 0);
    assert_eq!(status(&running).await.keys().collect::<Vec<_>>(), ["mails/sender"]);
    let metrics = ask(&running, "/metrics").await.1;
    assert!(!metrics.contains("concurrency_limit{worker=\"orders/billing\""), "{metrics}");
    let both = workers(&http(orders.address), &http(mails.address));
    running.reload(&both).await.unwrap();
    assert_eq!(orders.next().await.body, 1);
    assert_eq!(status(&running).await.keys().collect::<Vec<_>>(), ["mails", "orders"]);
    let metrics = ask(&running, "/metrics").await.1;
    assert_eq!(metrics.matches("dms_worker_concurrency_limit{worker=\"orders\"").count(), 1, "{metrics}");
    running.stop().await;
}

#[tokio::test]
async fn a_worker_that_keeps_its_name_may_read_another_queue() {
    let (mut orders, mut mails) = (App::start().await, App::start().await);
    let named = |app: &App, queue: &str, group: &str| {
        format!("{SERVER}workers:\n  - {{name: w, queue: {queue}, group: {group}, {}}}\n", http(app.address))
    };
    let mut running = Running::of(&named(&orders, "orders", "billing")).await;
    send(&running, "orders", [1]).await;
    assert_eq!(orders.next().await.body, 1);
    running.reload(&named(&mails, "mails", "sender")).await.unwrap();
    assert_eq!(status(&running).await.keys().collect::<Vec<_>>(), ["w"]);
    send(&running, "mails", [2]).await;
    assert_eq!(mails.next().await.body, 2);
    running.stop().await;
}

/// Reloads that restart a worker a hundred times while messages arrive, next to one that is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_under_load_lose_no_message_and_deliver_none_twice() {
    let (mut orders, mut mails) = (App::start().await, App::start().await);
    let yaml =
        |ack_wait: usize| workers(&format!("ack_wait: {ack_wait}s, {}", http(orders.address)), &http(mails.address));
    let mut running = Running::of(&yaml(30)).await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let sending = {
        let (stop, sent, client) = (stop.clone(), sent.clone(), running.client.clone());
        tokio::spawn(async move {
            let (orders, mails) =
                (client.find_queue("orders").await.unwrap(), client.find_queue("mails").await.unwrap());
            while !stop.load(SeqCst) {
                let first = sent.load(SeqCst);
                let messages: Vec<_> =
                    (first..first + 5).map(|body| Message::new(Body::json(&body).unwrap())).collect();
                for queue in [&orders.id, &mails.id] {
                    client.send(queue, &messages).await.unwrap().into_iter().for_each(|sent| drop(sent.unwrap()));
                }
                sent.fetch_add(5, SeqCst);
            }
        })
    };
    for round in 0..100 {
        let before = sent.load(SeqCst);
        timeout(TEST_TIMEOUT, running.reload(&yaml(31 + round % 2))).await.expect("the reload does not end").unwrap();
        while sent.load(SeqCst) == before {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, SeqCst);
    sending.await.unwrap();
    let all = sent.load(SeqCst);
    running.until(|group| group.consumed_messages == all as u64).await;
    for app in [&mut orders, &mut mails] {
        let mut bodies = Vec::new();
        while bodies.len() < all {
            bodies.push(usize::try_from(app.next().await.body.as_u64().unwrap()).unwrap());
        }
        bodies.sort_unstable();
        assert_eq!(bodies, (0..all).collect::<Vec<_>>());
        assert_eq!(app.waiting(), 0, "nothing is delivered twice");
    }
    let report = running.stop().await;
    for end in &report.workers {
        let counts = end.report;
        assert_eq!((counts.done, counts.acknowledged), (all as u64, all as u64), "{}: {counts:?}", end.name);
        assert_eq!((counts.interrupted, counts.failed, counts.late), (0, 0, 0), "{}: {counts:?}", end.name);
    }
    assert!(report.drained);
}

#[tokio::test]
async fn limits_change_without_a_restart_and_a_pause_outlives_one() {
    let (mut orders, mails) = (App::start().await, App::start().await);
    let mut running = Running::of(&workers(&http(orders.address), &http(mails.address))).await;
    send(&running, "orders", [1]).await;
    orders.next().await;
    running.until(|group| group.consumed_messages == 1).await;
    let limits = "concurrency: 7, rate_limit: 1000/s, max_messages: 2";
    let changed = workers(&format!("{limits}, {}", http(orders.address)), &http(mails.address));
    running.reload(&changed).await.unwrap();
    let worker = status(&running).await.remove("orders").unwrap();
    assert_eq!((&worker["concurrency"], &worker["done"]), (&json!(7), &json!(1)), "the same worker goes on");

    assert_eq!(post(&running, "/concurrency?messages=3&worker=orders").await, 200);
    running.reload(&changed).await.unwrap();
    assert_eq!(status(&running).await["orders"]["concurrency"], 3, "what an operator has set stays");

    assert_eq!(post(&running, "/pause?worker=orders").await, 200);
    let restarted = workers(&format!("{limits}, ack_wait: 40s, {}", http(orders.address)), &http(mails.address));
    running.reload(&restarted).await.unwrap();
    let worker = status(&running).await.remove("orders").unwrap();
    assert_eq!(
        (&worker["state"], &worker["done"]),
        (&json!("paused"), &json!(0)),
        "it was restarted, and stays paused"
    );
    assert_eq!(post(&running, "/drain").await, 200);
    let refused = running.reload(&changed).await.unwrap_err();
    assert!(refused[0].contains("POST /drain"), "{refused:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_work_here_changes_nothing_and_all_mistakes_are_named() {
    let (mut orders, mails) = (App::start().await, App::start().await);
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut running = Running::of(&workers(&http(orders.address), &http(mails.address))).await;
    let wrong = workers("handler: {log: {}}", "handler: {command: [/nonexistent/program]}")
        + &format!("publishers: [{{queue: mails, listen: '{}'}}]\n", taken.local_addr().unwrap());
    let mistakes = running.reload(&wrong).await.unwrap_err();
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(
        mistakes[0].contains("worker mails: handler.command") && mistakes[1].contains("publishers[0].listen"),
        "{mistakes:?}"
    );
    let nothing = running.reload(SERVER).await.unwrap_err();
    assert!(nothing[0].contains("nothing to run"), "{nothing:?}");
    send(&running, "orders", [1]).await;
    assert_eq!(orders.next().await.body, 1);
    assert!(running.stop().await.drained);
}

#[tokio::test]
async fn a_worker_takes_the_place_of_another_one_under_a_limit_with_room_for_one() {
    let limits = |limit: &str| format!("{SERVER}limits: {{in_flight: {limit}}}\n");
    let log = |queue: &str, group: &str| format!("  - {{queue: {queue}, group: {group}, handler: {{log: {{}}}}}}\n");
    let mut running = Running::of(&(limits("1") + "workers:\n" + &log("orders", "billing"))).await;
    // One takes the place of the other.
    running.reload(&(limits("1") + "workers:\n" + &log("mails", "sender"))).await.unwrap();
    assert_eq!(status(&running).await.keys().collect::<Vec<_>>(), ["mails/sender"]);
    running.stop().await;
}

/// The shared limits in `/status`.
async fn limits(running: &Running) -> Value {
    let status: Value = serde_json::from_str(&ask(running, "/status").await.1).unwrap();
    status["limits"].clone()
}

#[tokio::test]
async fn shared_limits_change_while_the_same_workers_go_on() {
    let (mut orders, mails) = (App::start().await, App::start().await);
    let yaml = workers(&http(orders.address), &http(mails.address));
    let mut running = Running::of(&yaml).await;
    send(&running, "orders", [1]).await;
    orders.next().await;
    running.until(|group| group.consumed_messages == 1).await;
    assert_eq!(limits(&running).await, json!({"in_flight": null, "bytes": null}));
    for (section, in_force) in [
        ("limits: {in_flight: 2, bytes: 1048576, sharing: strict}\n", json!({"in_flight": 2, "bytes": 1048576})),
        ("limits: {in_flight: 50}\n", json!({"in_flight": 50, "bytes": null})),
        ("on_worker_failure: stop\n", json!({"in_flight": null, "bytes": null})),
    ] {
        running.reload(&(yaml.clone() + section)).await.unwrap();
        assert_eq!(limits(&running).await, in_force);
        send(&running, "orders", [2]).await;
        assert_eq!(orders.next().await.body, 2, "{section}");
    }
    running.until(|group| group.consumed_messages == 4).await;
    assert_eq!(status(&running).await["orders"]["done"], 4, "the same worker goes on");
    // With fewer workers the limit may be lower than the number of those that drain.
    let one = format!(
        "{SERVER}limits: {{in_flight: 1}}\nworkers: [{{name: other, queue: orders, group: billing, {}}}]\n",
        http(orders.address)
    );
    running.reload(&one).await.unwrap();
    assert_eq!(limits(&running).await, json!({"in_flight": 1, "bytes": null}));
    send(&running, "orders", [3]).await;
    assert_eq!(orders.next().await.body, 3);
    assert!(running.stop().await.drained);
}

/// A server with a queue `orders` and its group `billing`, and a client of it.
async fn service() -> (String, dms_worker::Client) {
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let server = Server::bind(ServerConfig::default().listen(listen)).await.unwrap();
    let endpoint = format!("http://{}", server.local_addr().unwrap());
    tokio::spawn(server.run(std::future::pending()));
    let client = dms_worker::Client::builder(endpoint.as_str(), "local").build().unwrap();
    let queue = client.create_queue(NewQueue::new("orders")).await.unwrap().id;
    client.create_groups(&queue, &["billing"]).await.unwrap();
    (endpoint, client)
}

#[tokio::test]
async fn another_service_is_used_after_what_came_from_the_old_one_is_acknowledged_there() {
    let mut slow = Slow::start().await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let yaml = format!(
        "admin: {{listen: '127.0.0.1:0'}}\nworkers: [{{name: w, queue: orders, group: billing, {}}}]\n\
         publishers: [{{queue: orders, listen: '{port}'}}]\n",
        http(slow.address)
    );
    let mut running = Running::elsewhere(&yaml).await;
    let publish = async |body: usize| {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let sent = http.post(format!("http://{port}/")).body(format!("{{\"body\":{body}}}")).send().await.unwrap();
        assert_eq!(sent.status(), 200);
    };
    publish(1).await;
    let (body, answer) = slow.next().await;
    assert_eq!(body, 1);

    let (endpoint, other) = service().await;
    let yaml = format!("dms: {{endpoint: '{endpoint}', project_id: local}}\n{yaml}");
    {
        let reload = running.reload(&yaml);
        tokio::pin!(reload);
        tokio::select! {
            done = &mut reload => panic!("the reload does not wait for the handler: {done:?}"),
            // The publisher changes at once.
            () = publish(2) => {}
        }
        answer.send(()).unwrap();
        timeout(TEST_TIMEOUT, reload).await.expect("the reload does not end").unwrap();
    }
    let old = running.group().await;
    assert_eq!((old.produced_messages, old.consumed_messages, old.available_messages), (1, 1, 0), "nothing is lost");
    let (body, answer) = slow.next().await;
    answer.send(()).unwrap();
    assert_eq!(body, 2);
    let queue = other.find_queue("orders").await.unwrap().id;
    let acknowledged = async {
        while other.find_group(&queue, "billing").await.unwrap().consumed_messages < 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, acknowledged).await.expect("it is not acknowledged at the other service");
    assert!(running.stop().await.drained);
}

#[tokio::test]
async fn a_process_with_a_server_stays_with_it_until_a_restart() {
    let (mut orders, mails) = (App::start().await, App::start().await);
    let yaml = workers(&http(orders.address), &http(mails.address));
    let mut running = Running::of(&yaml).await;
    running.reload(&format!("dms: {{endpoint: 'http://127.0.0.1:1', project_id: p}}\n{yaml}")).await.unwrap();
    assert!(running.config.dms.is_embedded(), "the change is pending");
    send(&running, "orders", [1]).await;
    assert_eq!(orders.next().await.body, 1);
    running.until(|group| group.consumed_messages == 1).await;
    assert_eq!(status(&running).await["orders"]["done"], 1, "the same worker goes on");
    running.stop().await;
}

/// Every request has a connection of its own, and none is refused, while the publisher gets other settings again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_changes_without_refusing_a_request_or_forgetting_a_key() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let yaml = |linger: usize, token: &str| {
        format!("{SERVER}publishers: [{{queue: orders, listen: '{port}', linger: {linger}ms{token}}}]\n")
    };
    let mut running = Running::of(&yaml(1, "")).await;
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let url = format!("http://{port}/");
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0_u64)));
    let posting = {
        let (http, url, stop, sent) = (http.clone(), url.clone(), stop.clone(), sent.clone());
        tokio::spawn(async move {
            while !stop.load(SeqCst) {
                let answer = http.post(&url).body("{\"body\": 1}").send().await.expect("a connection is refused");
                assert_eq!(answer.status(), 200);
                *sent.lock().unwrap() += 1;
            }
        })
    };
    let keyed = async || http.post(&url).header("Idempotency-Key", "k").body("{\"body\": 2}").send().await.unwrap();
    let first = keyed().await.text().await.unwrap();
    for round in 0..20 {
        let before = *sent.lock().unwrap();
        running.reload(&yaml(2 + round % 2, "")).await.unwrap();
        while *sent.lock().unwrap() < before + 3 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(keyed().await.text().await.unwrap(), first, "the successor knows the key");
    stop.store(true, SeqCst);
    posting.await.unwrap();
    let sent = *sent.lock().unwrap() + 1;
    running.until(|group| group.produced_messages == sent).await;

    // The first token, and then no publisher at all.
    running.reload(&yaml(1, ", token: T")).await.unwrap();
    assert_eq!(http.post(&url).body("{\"body\": 3}").send().await.unwrap().status(), 401);
    running
        .reload(&format!("{SERVER}workers: [{{queue: mails, group: sender, handler: {{log: {{}}}}}}]\n"))
        .await
        .unwrap();
    let refused = async {
        while http.post(&url).body("{\"body\": 4}").send().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, refused).await.expect("the address is not free");
    assert!(running.stop().await.drained);
}
