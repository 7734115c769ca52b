//! Spans and trace contexts: from a producer through the queue to a handler.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use dms_worker::{
    message::Message,
    producer::ProducerBuilder,
    queue::NewQueue,
    testing::TestServer,
    trace_context::TraceContext,
    worker::{Delivery, HandlerError, SPANS, handler_fn},
};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The fields of every span of the worker with its id, which a later span may have again.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(Id, Fields)>>>);

#[derive(Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().target() == SPANS {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((id.clone(), fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, fields)) = spans.iter_mut().rfind(|(span, _)| span == id) {
            values.record(fields);
        }
    }
}

impl Spans {
    /// The spans of this name, in the order of their beginning.
    fn named(&self, name: &str) -> Vec<BTreeMap<&'static str, String>> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|(_, span)| span.0["otel.name"] == name).map(|(_, span)| span.0.clone()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_handler_links_to_the_trace_of_its_message() {
    let spans = Spans::default();
    // While there is one subscriber only, a call site that another test's thread meets first asks that thread's, which is none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _subscribed = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders").dead_letters_after(1), "billing").await;
    let current = || TraceContext::parse(PARENT, Some("rojo=1")).ok();
    let producer = ProducerBuilder::find(server.client(), "orders").await.unwrap();
    let producer = producer.trace_context(current).build().unwrap();
    producer.send(Message::text("traced")).await.unwrap();
    let own = TraceContext::new(7, 9, false).unwrap();
    producer.send(Message::text("with its own").trace_context(&own)).await.unwrap();
    group.send(["bad"]).await;

    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    let report = group
        .run(handler_fn(move |delivery: Delivery| {
            notes.lock().unwrap().push(delivery.trace_context());
            async move { if delivery.body().as_str() == r#""bad""# { Err(HandlerError::retry("no")) } else { Ok(()) } }
        }))
        .await;
    assert_eq!((report.done, report.failed), (2, 1));
    assert_eq!(*seen.lock().unwrap(), [current(), Some(own.clone()), None]);

    // A span is named by the queue as the worker was given it: here its id.
    let queue = group.queue_id().to_string();
    let processed = spans.named(&format!("process {queue}"));
    let links: Vec<_> = processed.iter().map(|span| span.get("link.traceparent").map(String::as_str)).collect();
    assert_eq!(links, [Some(PARENT), Some(own.traceparent().as_str()), None]);
    assert_eq!(processed[0]["link.tracestate"], "rojo=1");
    for (name, value) in [
        ("otel.kind", "consumer"),
        ("messaging.system", "huawei_dms"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", queue.as_str()),
        ("messaging.consumer.group.name", group.group_id().as_str()),
        ("messaging.message.body.size", "8"),
    ] {
        assert_eq!(processed[0][name], value, "{name}");
    }
    assert!(!processed[0].contains_key("error.type"));
    assert_eq!((processed[2]["error.type"].as_str(), processed[2]["otel.status_code"].as_str()), ("failed", "ERROR"));

    let received = spans.named(&format!("receive {queue}"));
    assert_eq!(received[0]["messaging.batch.message_count"], "3");
    assert_eq!(received[0]["otel.kind"], "client");
    let acks = spans.named(&format!("ack {queue}"));
    assert_eq!((acks.len(), acks[0]["messaging.operation.type"].as_str()), (1, "settle"));
}
