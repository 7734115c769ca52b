//! What the spans of producers and workers have in common, as the OpenTelemetry messaging conventions have it (semantic conventions
//! 1.44.0): their target, their level, the fields that each of them has, and how one fails.

use tracing::Span;

/// The target of the spans.
pub const SPANS: &str = "dms_worker::spans";

/// `messaging.system`: the registry has no name for this service.
pub const MESSAGING_SYSTEM: &str = "huawei_dms";

/// A `DEBUG` span of an operation on a queue, with fields of its own behind those that all have. It is a root: what a message belongs
/// to is a link.
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

/// Marks a span as failed, with a short stable name of the reason.
pub(crate) fn failed(span: &Span, error: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", error);
}
