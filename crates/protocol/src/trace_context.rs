//! [`TraceContext`]: the trace of a message, in the format of W3C Trace Context
//! (<https://www.w3.org/TR/trace-context/>).
//!
//! The attributes `traceparent` and `tracestate` of a message carry it. This module has the format; it creates and
//! exports no spans.

use std::fmt;

use crate::attributes::Attributes;

/// The attribute and HTTP header with the trace, the span and the flags.
pub const TRACEPARENT: &str = "traceparent";
/// The attribute and HTTP header with additions of tracing systems.
pub const TRACESTATE: &str = "tracestate";

/// The most entries of a `tracestate` (section 3.3.1.1).
const MAX_ENTRIES: usize = 32;
/// The longest `tracestate` that is kept, in bytes, which is the required minimum (section 3.3.1.5).
const MAX_STATE: usize = 512;
/// The flag of recorded traces (section 3.2.2.5.1).
const SAMPLED: u8 = 1;

/// A position in a trace: the trace, one of its spans, the flags and the state.
///
/// # Examples
/// ```
/// use dms_protocol::{message::Message, trace_context::TraceContext};
///
/// let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None)?;
/// let message = Message::text("hello").trace_context(&context);
/// assert_eq!(TraceContext::of(&message.attributes), Some(context));
/// # Ok::<(), dms_protocol::trace_context::InvalidTraceContext>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
    state: Option<Box<str>>,
}

/// The error for a text that is not a `traceparent`. It shows at most 80 characters of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no traceparent: it is like 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, in lower case, without an id of zeros"
)]
pub struct InvalidTraceContext {
    text: String,
}

impl TraceContext {
    /// Makes a context; `None` if an id is zero, which means "no id".
    pub fn new(trace_id: u128, span_id: u64, sampled: bool) -> Option<Self> {
        let flags = if sampled { SAMPLED } else { 0 };
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags, state: None })
    }

    /// Reads the values of `traceparent` and `tracestate`. A malformed `tracestate`, or one longer than 512 bytes, is
    /// dropped, and the trace continues (section 3.3).
    ///
    /// # Errors
    /// When `traceparent` is malformed. Of later versions the first four fields are read.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Result<Self, InvalidTraceContext> {
        let mut context = parse_parent(traceparent)
            .ok_or_else(|| InvalidTraceContext { text: traceparent.chars().take(80).collect() })?;
        context.state = tracestate.map(str::trim).filter(|state| is_state(state)).map(Into::into);
        Ok(context)
    }

    /// The context in a message's attributes. `None` if there is none, or `traceparent` is malformed.
    pub fn of(attributes: &Attributes) -> Option<Self> {
        let (parent, state) = (attributes.get_str(TRACEPARENT)?, attributes.get_str(TRACESTATE));
        Self::parse(&parent, state.as_deref()).ok()
    }

    /// Adds the context to a message's attributes, unless they have one, because a message keeps its first trace.
    pub fn put(&self, attributes: &mut Attributes) {
        if attributes.contains(TRACEPARENT) {
            return;
        }
        attributes.insert(TRACEPARENT, self.traceparent());
        match self.tracestate() {
            Some(state) => attributes.insert(TRACESTATE, state),
            // A `tracestate` without a `traceparent` belongs to another trace.
            None => drop(attributes.remove(TRACESTATE)),
        }
    }

    /// The id of the trace, never zero.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The id of the span, never zero.
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// Returns whether the origin records the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The value of `traceparent`, in version 00.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }

    /// The value of `tracestate`, if there is one.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent())
    }
}

/// Version, trace, span and flags (section 3.2).
fn parse_parent(text: &str) -> Option<TraceContext> {
    let mut fields = text.trim().splitn(5, '-');
    let mut field = |digits: usize| fields.next().filter(|field| is_hex(field, digits));
    let version = field(2)?;
    let trace_id = u128::from_str_radix(field(32)?, 16).ok()?;
    let span_id = u64::from_str_radix(field(16)?, 16).ok()?;
    let flags = u8::from_str_radix(field(2)?, 16).ok()?;
    let has_more = fields.next().is_some();
    if version == "ff" || (version == "00" && has_more) {
        return None;
    }
    // Only this flag is known, and unknown flags of later versions may not be passed on.
    let context = TraceContext::new(trace_id, span_id, false)?;
    Some(TraceContext { flags: flags & SAMPLED, ..context })
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns whether a text is a list of entries `key=value` (section 3.3.1).
fn is_state(state: &str) -> bool {
    let entries: Vec<&str> = state.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    (1..=MAX_STATE).contains(&state.len())
        && (1..=MAX_ENTRIES).contains(&entries.len())
        && entries.iter().all(|entry| entry.split_once('=').is_some_and(|(key, value)| is_key(key) && is_value(value)))
}

fn is_key(key: &str) -> bool {
    let begins = key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    begins && key.len() <= 256 && key.bytes().all(allowed)
}

fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len()) && value.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'=')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// The example of the specification (section 3.2.3).
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let context = TraceContext::parse(PARENT, Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")).unwrap();
        assert_eq!(context.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.span_id(), 0x00f0_67aa_0ba9_02b7);
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), PARENT);
        assert_eq!(context.tracestate(), Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"));
    }

    #[test]
    fn what_the_specification_calls_invalid_is_refused_by_name() {
        let bad = [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473+-00f067aa0ba902b7-01",
        ];
        for text in bad {
            let error = TraceContext::parse(text, None).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?} is no traceparent")), "{error}");
        }
    }

    #[test]
    fn a_version_to_come_is_read_by_its_first_fields_and_passed_on_as_ours() {
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-what-the-future-brings";
        assert_eq!(TraceContext::parse(later, None).unwrap().traceparent(), PARENT);
    }

    #[test]
    fn a_spoilt_tracestate_is_left_out_and_the_trace_goes_on() {
        let state = |text: &str| TraceContext::parse(PARENT, Some(text)).unwrap().tracestate().map(str::to_owned);
        assert_eq!(state("a=1, b@c=2").as_deref(), Some("a=1, b@c=2"));
        let long = format!("a={}", "x".repeat(257));
        let many = vec!["a=1"; 33].join(",");
        for bad in ["", "a", "A=1", "=1", "a=", "a=b=c", "a=\u{e9}", &long, &many] {
            assert_eq!(state(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_context_that_is_there_is_kept() {
        let theirs = TraceContext::parse(PARENT, None).unwrap();
        let ours = TraceContext::new(1, 2, false).unwrap();
        let mut attributes = Attributes::from_iter([(TRACESTATE, "left=over")]);
        theirs.put(&mut attributes);
        ours.put(&mut attributes);
        assert_eq!(TraceContext::of(&attributes), Some(theirs));
        assert!(!attributes.contains(TRACESTATE), "it belonged to another trace");
        assert_eq!(TraceContext::of(&Attributes::new()), None);
    }

    proptest! {
        #[test]
        fn every_context_is_read_back_as_it_was_written(trace in 1u128.., span in 1u64.., sampled: bool) {
            let context = TraceContext::new(trace, span, sampled).unwrap();
            prop_assert_eq!(TraceContext::parse(&context.traceparent(), None), Ok(context));
        }

        #[test]
        fn no_text_upsets_it(parent in ".{0,80}", state in ".{0,80}") {
            let _ = TraceContext::parse(&parent, Some(&state));
        }
    }
}
