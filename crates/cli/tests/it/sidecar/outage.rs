//! An application that goes down and comes back, and a sidecar that shuts down meanwhile.

use dms_worker::message::Message;
use serde_json::json;

use super::{App, Running, worker};

#[tokio::test]
async fn an_application_that_is_down_costs_no_attempt() {
    let address = App::nowhere().await;
    let handler = format!("{{http: {{url: 'http://{address}/', health_interval: 20ms}}}}");
    // One failure makes a dead letter.
    let sidecar = Running::start(1, &worker(&handler, "")).await;
    sidecar.send(&[Message::text("before it is up")]).await;
    let mut app = App::on(address).await;
    assert_eq!(app.next().await.body, json!("before it is up"));
    sidecar.until(|group| group.consumed_messages == 1).await;

    app.end().await;
    sidecar.send(&[Message::text("while it is down")]).await;
    // It is fetched, cannot be delivered, and waits.
    sidecar.until(|group| group.available_messages == 0).await;
    let mut app = App::on(address).await;
    assert_eq!(app.next().await.body, json!("while it is down"));
    let group = sidecar.until(|group| group.consumed_messages == 2).await;
    assert_eq!(group.produced_dead_letters, Some(0));
    assert!(sidecar.stop().await.drained);
}

/// A FIFO queue has no delays, so messages that wait in vain for the application are handed back, and no failure is counted.
#[tokio::test]
async fn a_message_that_waits_in_vain_is_handed_back_without_a_failure() {
    let mut app = App::start().await;
    // A connection may take nearly the whole lease, so nothing is left for waiting.
    let http = format!("url: 'http://{}/', timeout: 1s, connect_timeout: 14s, health_interval: 20ms", app.address);
    let sidecar =
        Running::with("mode: FIFO, max_consume_count: 2", &worker(&format!("{{http: {{{http}}}}}"), "")).await;
    sidecar.send(&[Message::text("first")]).await;
    app.next().await;
    sidecar.until(|group| group.consumed_messages == 1).await;
    let address = app.address;
    app.end().await;
    sidecar.send(&[Message::text("second")]).await;
    sidecar.until(|group| group.available_messages == 0).await;
    sidecar.until(|group| group.available_messages == 1).await;
    let mut app = App::on(address).await;
    let again = app.next().await;
    assert_eq!((again.body.clone(), again.header("dms-attempt")), (json!("second"), Some("1")));
    sidecar.until(|group| group.consumed_messages == 2).await;
    let report = sidecar.stop().await.workers[0].report;
    assert_eq!((report.released, report.failed, report.timed_out, report.redelivered), (1, 0, 0, 0));
}

#[tokio::test]
async fn messages_that_wait_for_the_application_are_handed_back_at_shutdown() {
    let mut app = App::start().await;
    let handler = format!("{{http: {{url: 'http://{}/', health_interval: 20ms}}}}", app.address);
    let sidecar = Running::with("mode: FIFO, max_consume_count: 2", &worker(&handler, "")).await;
    sidecar.send(&[Message::text("first")]).await;
    app.next().await;
    sidecar.until(|group| group.consumed_messages == 1).await;
    app.end().await;
    sidecar.send(&[Message::text("second")]).await;
    sidecar.until(|group| group.available_messages == 0).await;
    let report = sidecar.stop().await.workers[0].report;
    assert_eq!((report.released, report.failed, report.redelivered), (1, 0, 0));
}

#[tokio::test]
async fn the_health_url_of_an_application_is_requested() {
    let mut app = App::start().await;
    let health = App::nowhere().await;
    let handler = format!(
        "{{http: {{url: 'http://{}/', health_url: 'http://{health}/healthz', health_interval: 20ms}}}}",
        app.address
    );
    let sidecar = Running::start(1, &worker(&handler, "")).await;
    sidecar.send(&[Message::text("x")]).await;
    assert_eq!(app.waiting(), 0);
    let healthy = App::on(health).await;
    assert_eq!(app.next().await.body, json!("x"));
    sidecar.stop().await;
    healthy.end().await;
}

#[tokio::test]
async fn a_shutdown_waits_for_running_requests() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (started, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let go_on = std::sync::Arc::new(tokio::sync::Notify::new());
    let waiting = go_on.clone();
    let router = axum::Router::new().fallback(async move || {
        started.send(()).unwrap();
        waiting.notified().await;
        "done"
    });
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });

    let sidecar = Running::start(3, &worker(&format!("{{http: {{url: 'http://{address}/'}}}}"), "")).await;
    sidecar.send(&[Message::text("x")]).await;
    begun.recv().await.unwrap();
    sidecar.begin_to_stop();
    go_on.notify_one();
    let ended = sidecar.stop().await;
    assert!(ended.drained);
    let report = ended.workers[0].report;
    assert_eq!((report.done, report.acknowledged, report.redelivered), (1, 1, 0));
    serving.abort();
}

#[tokio::test]
async fn a_missing_queue_ends_all_workers_if_configured() {
    use dms_server::{Server, ServerConfig};
    use dms_worker_cli::{
        config::{Config, OnWorkerFailure, Worker},
        sidecar::Sidecar,
    };
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let server = Server::bind(ServerConfig::default().listen(listen)).await.unwrap();
    let mut config = Config::default();
    config.dms.endpoint = format!("http://{}", server.local_addr().unwrap()).into();
    let serving = tokio::spawn(server.run(std::future::pending()));
    config.workers = vec![Worker { queue: "nothing".into(), group: "g".into(), ..Worker::default() }];
    config.on_worker_failure = OnWorkerFailure::Stop;
    let error = Sidecar::start(config).await.unwrap().run(Default::default()).await.unwrap_err().to_string();
    assert!(error.contains("worker nothing/g") && error.contains("there is no queue \"nothing\""), "{error}");
    serving.abort();
}

/// The queue of one worker and the parking queue of another are missing; the third goes on.
#[tokio::test]
async fn a_worker_that_cannot_continue_does_not_stop_the_others_and_resumes() {
    use dms_worker::queue::NewQueue;
    let mut app = App::start().await;
    let handler = format!("{{http: {{url: 'http://{}/'}}}}", app.address);
    let more = format!(
        "  - {{queue: later, group: g, poll_wait: 1s, handler: {handler}}}\n  - {{queue: orders, group: billing, name: parks, on_reject: {{park: lot}}, handler: {handler}}}\nadmin: {{listen: '127.0.0.1:0'}}"
    );
    let sidecar = Running::elsewhere(&format!("{}{more}\n", worker(&handler, ""))).await;
    sidecar.send(&[Message::text("first")]).await;
    assert_eq!(app.next().await.body, json!("first"));
    let get = async |path: &str| {
        let answer = reqwest::get(format!("http://{}{path}", sidecar.admin.unwrap())).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let until = async |path: &str, wanted: &dyn Fn(&(u16, String)) -> bool| {
        let wait = async {
            loop {
                let answer = get(path).await;
                if wanted(&answer) {
                    return answer;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(super::TEST_TIMEOUT, wait).await.unwrap_or_else(|_| panic!("{path} does not come to that"))
    };
    let red = |(status, text): &(u16, String)| {
        *status == 503 && text.contains("no queue \"later\"") && text.contains("no queue \"lot\"")
    };
    let (_, text) = until("/readyz", &red).await;
    assert!(text.contains("orders/billing: ok") || text.contains("has not answered yet"), "{text}");
    until("/startupz", &|(status, _)| *status == 200).await;
    assert!(
        get("/metrics").await.1.contains("dms_worker_failed{worker=\"parks\",queue=\"orders\",group=\"billing\"} 1")
    );
    assert!(get("/status").await.1.contains("\"failure\":\"find queue: there is no queue"));

    let later = sidecar.client.create_queue(NewQueue::new("later")).await.unwrap().id;
    sidecar.client.create_groups(&later, &["g"]).await.unwrap();
    sidecar.client.create_queue(NewQueue::new("lot")).await.unwrap();
    sidecar.client.send(&later, &[Message::text("second")]).await.unwrap();
    assert_eq!(app.next().await.body, json!("second"));
    until("/readyz", &|(status, _)| *status == 200).await;
    assert!(sidecar.stop().await.drained);
}
