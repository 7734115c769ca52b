//! Traces of a sidecar, as a collector gets them.

use axum::{Router, body::Bytes, extract::State, routing::post};
use http::{HeaderMap, StatusCode};
use tokio::{net::TcpListener, sync::mpsc};

use super::{Program, Running};

type Batches = mpsc::UnboundedSender<(HeaderMap, Bytes)>;

/// A collector, and what it gets.
async fn collector() -> (String, mpsc::UnboundedReceiver<(HeaderMap, Bytes)>) {
    let (sender, batches) = mpsc::unbounded_channel();
    let take = async |State(sender): State<Batches>, headers: HeaderMap, body: Bytes| {
        drop(sender.send((headers, body)));
        StatusCode::OK
    };
    let router = Router::new().route("/v1/traces", post(take)).with_state(sender);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, batches)
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

/// Runs a worker over one message, with these variables.
fn run(variables: &[(&str, &str)]) -> String {
    let program = Program::new();
    let yaml = "server: {listen: '127.0.0.1:0', queues: [{name: q, groups: [g]}]}\nworkers: [{queue: q, group: g, handler: {log: }}]\nlog: {filter: 'warn,dms_worker::sidecar=info'}\n";
    let file = program.file("config.yaml", yaml);
    let mut command = program.command(&["run", "-c", &file]);
    command.envs(variables.iter().copied()).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut sidecar = Running::start(&mut command);
    program.run(&["--endpoint", &sidecar.url("server on "), "send", "q", "1"]).ok();
    sidecar.until("\"queue\":\"q\"");
    sidecar.signal("TERM");
    let (status, log) = sidecar.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_every_span_before_the_process_ends() {
    let (url, mut batches) = collector().await;
    let log = tokio::task::spawn_blocking(move || {
        run(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_SERVICE_NAME", "billing"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k"),
        ])
    });
    let log = log.await.unwrap();
    // What was left is sent before the process ends: everything is here by now.
    let mut all = Vec::new();
    while let Ok((headers, body)) = batches.try_recv() {
        assert_eq!(
            (&headers["content-type"], &headers["x-key"]),
            (&"application/x-protobuf".parse().unwrap(), &"k".parse().unwrap())
        );
        all.extend_from_slice(&body);
    }
    for part in ["billing", "dms"] {
        assert!(contains(&all, part.as_bytes()), "no {part:?} in {} bytes; log: {log}", all.len());
    }
}

#[test]
fn a_collector_that_is_not_there_is_named_and_holds_nothing_up() {
    let log = run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "200")]);
    assert!(log.contains("traces cannot be sent and are lost"), "{log}");
}

#[test]
fn malformed_variables_are_78() {
    let program = Program::new();
    let mut command = program.command(&["serve", "--listen", "127.0.0.1:0"]);
    let output = command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("error: traces: OTEL_EXPORTER_OTLP_PROTOCOL is `grpc`: only http/protobuf is spoken"),
        "{output:?}"
    );
}
