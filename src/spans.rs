//! The common part of the spans of producers and workers, by the OpenTelemetry messaging conventions (semantic
//! conventions 1.44.0): target, level, fields and failure.

use tracing::Span;

/// The target of the spans.
pub const SPANS: &str = "dms_worker::spans";

/// The value of `messaging.system`. The OpenTelemetry registry has no name for this service.
pub const MESSAGING_SYSTEM: &str = "huawei_dms";

/// A `DEBUG` span of an operation on a queue, with the common fields first. It is a root span, because the traces of
/// its messages are links.
macro_rules! messaging_span {
    ($operation:literal, kind: $kind:literal, operation: $category:literal, queue: $queue:expr, $($field:tt)*) => {
        tracing::debug_span!(
            target: $crate::spans::SPANS,
            parent: None,
            $operation,
            otel.name = format_args!(concat!($operation, " {}"), $queue),
            otel.kind = $kind,
            otel.status_code = tracing::field::Empty,
            error.type = tracing::field::Empty,
            messaging.system = $crate::spans::MESSAGING_SYSTEM,
            messaging.operation.name = $operation,
            messaging.operation.type = $category,
            messaging.destination.name = $queue,
            $($field)*
        )
    };
}

pub(crate) use messaging_span;

/// Marks a span as failed. `error` is a short stable name of the reason.
pub(crate) fn failed(span: &Span, error: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", error);
}
