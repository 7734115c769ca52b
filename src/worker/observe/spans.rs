//! Spans of what a worker does, named as the OpenTelemetry messaging conventions have it (semantic conventions 1.44.0):
//! `receive` for a poll, `process` for a handler's run, `ack` for the acknowledgement of a batch.
//!
//! A subscriber can take them without the rest: they are `DEBUG` spans of the target [`SPANS`](crate::worker::SPANS)
//! (`info,dms_worker::spans=debug`); when none does, a span is one comparison. In `process` the message's own trace is named by
//! `link.traceparent` and `link.tracestate`, for an exporter to make the link of, because a message may be handled many times,
//! long after it was made.

use tracing::{Span, field::Empty};

use crate::{
    client::Error,
    message::MessageId,
    spans::{failed, messaging_span},
    trace_context::{TRACEPARENT, TRACESTATE},
    worker::{
        handler::{
            delivery::{Delivery, Origin},
            outcome::HandlerOutcome,
        },
        observe::event::AckResult,
    },
};

/// The span of a poll.
pub(crate) fn receive(origin: &Origin) -> Span {
    messaging_span!(
        "receive", kind: "client", operation: "receive", queue: origin.queue,
        messaging.consumer.group.name = origin.group,
        messaging.batch.message_count = Empty,
    )
}

/// Records on a poll's span that it was answered with `messages` messages.
pub(crate) fn received(span: &Span, messages: usize) {
    span.record("messaging.batch.message_count", messages);
}

/// A poll failed. Its type is the service's code, else the status, else what the network did.
pub(crate) fn refused(span: &Span, error: &Error) {
    match (error.code(), error.status()) {
        (Some(code), _) => failed(span, &code.to_string()),
        (None, Some(status)) => failed(span, status.as_str()),
        (None, None) if error.is_timeout() => failed(span, "timeout"),
        (None, None) if error.is_connect() => failed(span, "connect"),
        (None, None) => failed(span, "_OTHER"),
    }
}

/// The span of a handler's run.
pub(crate) fn process(delivery: &Delivery) -> Span {
    let origin = delivery.origin();
    messaging_span!(
        "process", kind: "consumer", operation: "process", queue: origin.queue,
        messaging.consumer.group.name = origin.group,
        messaging.message.body.size = delivery.body().len(),
        messaging.message.id = delivery.id().as_ref().map(MessageId::as_str),
        messaging.huawei_dms.message.sequence = delivery.sequence(),
        messaging.huawei_dms.message.attempt = delivery.attempt(),
        link.traceparent = delivery.attribute(TRACEPARENT).as_deref(),
        link.tracestate = delivery.attribute(TRACESTATE).as_deref(),
    )
}

/// The span of a call for several messages, which have no span of their own.
pub(crate) fn process_batch(origin: &Origin, messages: usize) -> Span {
    messaging_span!(
        "process", kind: "consumer", operation: "process", queue: origin.queue,
        messaging.consumer.group.name = origin.group,
        messaging.batch.message_count = messages,
        link.traceparent = Empty,
        link.tracestate = Empty,
    )
}

/// One of several messages of a call: a span can have many links, so these fields are recorded again for each.
pub(crate) fn link(span: &Span, delivery: &Delivery) {
    for (field, attribute) in [("link.traceparent", TRACEPARENT), ("link.tracestate", TRACESTATE)] {
        if let Some(value) = delivery.attribute(attribute) {
            span.record(field, &*value);
        }
    }
}

/// A handler's run has ended, for one message or for several as a whole.
pub(crate) fn processed(span: &Span, outcome: &HandlerOutcome<'_>) {
    if !matches!(outcome, HandlerOutcome::Done) {
        failed(span, outcome.name());
    }
}

/// The span of an acknowledgement of `messages` messages.
pub(crate) fn ack(origin: &Origin, messages: usize) -> Span {
    messaging_span!(
        "ack", kind: "client", operation: "settle", queue: origin.queue,
        messaging.consumer.group.name = origin.group,
        messaging.batch.message_count = messages,
    )
}

/// An acknowledgement has ended.
pub(crate) fn acked(span: &Span, result: &AckResult<'_>) {
    if !matches!(result, AckResult::Answered { .. }) {
        failed(span, result.name());
    }
}
