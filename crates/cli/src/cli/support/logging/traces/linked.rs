//! Links from the spans of a message to the trace that sent it.

use std::collections::HashMap;

use opentelemetry::{
    Value,
    propagation::TextMapPropagator,
    trace::{Link, TraceContextExt},
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SpanData};

use dms_protocol::trace_context::TRACEPARENT;

/// What a span's field is called that names another trace, before the name of the W3C header.
const PREFIX: &str = "link.";

/// Turns the attributes `link.traceparent` and `link.tracestate` of a span into links. A `link.traceparent` begins a link, and
/// a `link.tracestate` after it belongs to the same link.
pub(crate) fn link(span: &mut SpanData) {
    let mut contexts: Vec<HashMap<String, String>> = Vec::new();
    span.attributes.retain(|attribute| {
        let Some(name) = attribute.key.as_str().strip_prefix(PREFIX) else { return true };
        if let Value::String(text) = &attribute.value {
            if name == TRACEPARENT {
                contexts.push(HashMap::new());
            }
            if let Some(context) = contexts.last_mut() {
                context.insert(name.to_owned(), text.as_str().to_owned());
            }
        }
        false
    });
    for context in contexts {
        let made = TraceContextPropagator::new().extract(&context);
        let made = made.span().span_context().clone();
        if made.is_valid() {
            span.links.links.push(Link::with_context(made));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::{
        KeyValue,
        trace::{SpanContext, SpanId, SpanKind, Status},
    };
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    fn span(attributes: &[(&'static str, &'static str)]) -> SpanData {
        SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Consumer,
            name: "process orders".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: attributes.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: opentelemetry::InstrumentationScope::default(),
        }
    }

    #[test]
    fn the_trace_of_a_message_becomes_a_link() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut span =
            span(&[("messaging.system", "huawei_dms"), ("link.traceparent", parent), ("link.tracestate", "a=1")]);
        link(&mut span);
        let context = &span.links[0].span_context;
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert_eq!(context.trace_state().get("a"), Some("1"));
        let left: Vec<_> = span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(left, ["messaging.system"]);
    }

    /// A call for several messages has such attributes.
    #[test]
    fn each_trace_becomes_a_link_of_its_own() {
        let parent = |id: u8| format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b{id}-01");
        let mut span = span(&[]);
        for (id, state) in [(1, None), (2, Some("b=2")), (3, None)] {
            span.attributes.push(KeyValue::new("link.traceparent", parent(id)));
            span.attributes.extend(state.map(|state| KeyValue::new("link.tracestate", state)));
        }
        link(&mut span);
        let states: Vec<_> = span.links.iter().map(|link| link.span_context.trace_state().header()).collect();
        assert_eq!(states, ["", "b=2", ""]);
    }

    #[test]
    fn a_malformed_context_is_no_link() {
        let mut span = span(&[("link.traceparent", "00-0-0-0")]);
        link(&mut span);
        assert!(span.links.is_empty() && span.attributes.is_empty());
    }
}
