//! Traces of a sidecar, as a collector receives them.

use axum::{Router, body::Bytes, extract::State, routing::post};
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message;
use tokio::{net::TcpListener, sync::mpsc};

use super::{Program, Running};

/// The trace in which the message was made.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Batches = mpsc::UnboundedSender<(HeaderMap, Bytes)>;

/// A collector, and the requests it received.
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

/// Runs a worker over one message, with these variables.
fn run(variables: &[(&str, &str)]) -> String {
    let program = Program::new();
    let yaml = "server: {listen: '127.0.0.1:0', queues: [{name: q, groups: [g]}]}\nworkers: [{queue: q, group: g, handler: {log: }}]\nlog: {filter: 'warn,dms_worker_cli::sidecar=info'}\n";
    let file = program.file("config.yaml", yaml);
    let mut command = program.command(&["run", "-c", &file]);
    command.envs(variables.iter().copied()).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut sidecar = Running::start(&mut command);
    let trace = format!("traceparent={TRACE}");
    program.run(&["--endpoint", &sidecar.url("server on "), "send", "q", "1", "--attribute", &trace]).ok();
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
    // Remaining spans are sent before the process ends, so all have arrived.
    let (mut services, mut spans) = (Vec::new(), Vec::new());
    while let Ok((headers, body)) = batches.try_recv() {
        assert_eq!(
            (&headers["content-type"], &headers["x-key"]),
            (&"application/x-protobuf".parse().unwrap(), &"k".parse().unwrap())
        );
        for resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            services.extend(resource.resource.unwrap().attributes);
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    assert!(services.iter().any(|attribute| text(attribute) == ("service.name", "billing")), "{services:?}; {log}");
    let named = |start: &str| spans.iter().filter(|span| span.name.starts_with(start)).collect::<Vec<_>>();
    let [process] = named("process")[..] else { panic!("one run of the handler: {spans:?}") };
    let [link] = &process.links[..] else { panic!("one link: {process:?}") };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(format!("00-{}-{}-01", hex(&link.trace_id), hex(&link.span_id)), TRACE);
    assert_ne!(process.trace_id, link.trace_id, "it is linked to, and not continued");
    assert!(!named("receive").is_empty() && !named("ack").is_empty(), "{spans:?}");
    for attribute in spans.iter().flat_map(|span| &span.attributes) {
        assert!(!attribute.key.starts_with("link."), "it became a link: {attribute:?}");
    }
}

/// An attribute whose value is a text.
fn text(attribute: &KeyValue) -> (&str, &str) {
    let value = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    };
    (&attribute.key, value)
}

#[test]
fn an_unreachable_collector_is_logged_and_delays_nothing() {
    let log = run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "200")]);
    assert!(log.contains("traces cannot be sent and are lost"), "{log}");
}

#[test]
fn malformed_otel_variables_exit_with_78() {
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
