//! What a worker reports: events, counts, spans, durations.

pub(crate) mod event;
pub(crate) mod latency;
pub(crate) mod log;
pub(crate) mod occasionally;
pub(crate) mod report;
pub(crate) mod spans;
