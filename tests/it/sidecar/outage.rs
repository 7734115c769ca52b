//! An application that goes away and comes back, and a process that ends in the middle.

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

/// A FIFO queue has no delays: what waits in vain for the application is handed back, and no failure is counted.
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
async fn at_the_end_what_waits_for_the_application_is_handed_back() {
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
async fn an_application_is_asked_for_its_health_where_it_has_a_url_for_it() {
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
async fn the_end_waits_for_what_has_begun() {
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
async fn a_worker_whose_queue_is_gone_ends_everything_with_an_error() {
    use dms_worker::{
        config::{Config, Worker},
        server::{Server, ServerConfig},
        sidecar::Sidecar,
    };
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let server = Server::bind(ServerConfig { listen, ..ServerConfig::default() }).await.unwrap();
    let mut config = Config::default();
    config.dms.endpoint = format!("http://{}", server.local_addr().unwrap()).into();
    let serving = tokio::spawn(server.run(std::future::pending()));
    config.workers = vec![Worker { queue: "nothing".into(), group: "g".into(), ..Worker::default() }];
    let error = Sidecar::start(config).await.unwrap().run(Default::default()).await.unwrap_err().to_string();
    assert!(error.contains("worker nothing/g") && error.contains("there is no queue \"nothing\""), "{error}");
    serving.abort();
}
