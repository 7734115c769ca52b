//! Spans of what a worker does, named as the OpenTelemetry messaging conventions have it (semantic conventions 1.44.0):
//! `receive` for a poll, `process` for a handler's run, `ack` for the acknowledgement of a batch.
//!
//! They are `DEBUG` spans of the target [`SPANS`], so that a subscriber can take them without the rest (`info,dms_worker::spans=debug`);
//! when none does, a span is one comparison. `process` is a root: the message's own trace is named by `link.traceparent` and
//! `link.tracestate`, for an exporter to make the link of, because a message may be handled many times, long after it was made.

use tracing::{Span, debug_span, field::Empty};

use super::{
    delivery::{Delivery, Origin},
    event::{AckResult, Outcome},
};
use crate::{
    client::Error,
    trace_context::{TRACEPARENT, TRACESTATE},
};

/// The target of the spans.
pub const SPANS: &str = "dms_worker::spans";

/// `messaging.system`: the registry has no name for this service.
pub const MESSAGING_SYSTEM: &str = "huawei_dms";

/// The span of a poll.
pub(crate) fn receive(origin: &Origin) -> Span {
    debug_span!(
        target: SPANS,
        parent: None,
        "receive",
        otel.name = format_args!("receive {}", origin.queue),
        otel.kind = "client",
        otel.status_code = Empty,
        error.type = Empty,
        messaging.system = MESSAGING_SYSTEM,
        messaging.operation.name = "receive",
        messaging.operation.type = "receive",
        messaging.destination.name = origin.queue,
        messaging.consumer.group.name = origin.group,
        messaging.batch.message_count = Empty,
    )
}

/// A poll was answered with so many messages.
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
    debug_span!(
        target: SPANS,
        parent: None,
        "process",
        otel.name = format_args!("process {}", origin.queue),
        otel.kind = "consumer",
        otel.status_code = Empty,
        error.type = Empty,
        messaging.system = MESSAGING_SYSTEM,
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = origin.queue,
        messaging.consumer.group.name = origin.group,
        messaging.message.body.size = delivery.body().len(),
        messaging.huawei_dms.message.sequence = delivery.sequence(),
        messaging.huawei_dms.message.attempt = delivery.attempt(),
        link.traceparent = delivery.attribute(TRACEPARENT),
        link.tracestate = delivery.attribute(TRACESTATE),
    )
}

/// The span of a call for several messages, which have no span of their own.
pub(crate) fn process_batch(origin: &Origin, messages: usize) -> Span {
    debug_span!(
        target: SPANS,
        parent: None,
        "process",
        otel.name = format_args!("process {}", origin.queue),
        otel.kind = "consumer",
        messaging.system = MESSAGING_SYSTEM,
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = origin.queue,
        messaging.consumer.group.name = origin.group,
        messaging.batch.message_count = messages,
    )
}

/// A handler's run has ended.
pub(crate) fn processed(span: &Span, outcome: &Outcome<'_>) {
    if !matches!(outcome, Outcome::Done) {
        failed(span, outcome.name());
    }
}

/// The span of an acknowledgement of so many messages.
pub(crate) fn ack(origin: &Origin, messages: usize) -> Span {
    debug_span!(
        target: SPANS,
        parent: None,
        "ack",
        otel.name = format_args!("ack {}", origin.queue),
        otel.kind = "client",
        otel.status_code = Empty,
        error.type = Empty,
        messaging.system = MESSAGING_SYSTEM,
        messaging.operation.name = "ack",
        messaging.operation.type = "settle",
        messaging.destination.name = origin.queue,
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

/// Marks a span as failed, with a short stable name of the reason.
pub(crate) fn failed(span: &Span, error: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", error);
}
