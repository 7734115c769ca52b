//! Metrics of the connections of listeners.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClosedLabels {
    listener: &'static str,
    reason: &'static str,
}

/// The connections of several listeners. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    open: Family<ListenerLabels, Gauge>,
    closed: Family<ClosedLabels, Counter>,
}

impl ConnectionMetrics {
    /// Registers them under their public names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("dms_connections", "Connections that a listener has now", self.open.clone());
        let help = "Connections that were closed to make room for a new one, by reason";
        registry.register("dms_connections_closed", help, self.closed.clone());
    }

    /// The number of open connections of a listener.
    pub(super) fn open(&self, listener: &'static str) -> Gauge {
        self.open.get_or_create_owned(&ListenerLabels { listener })
    }

    /// Counts a connection that was closed to make room.
    pub(super) fn closed(&self, listener: &'static str, reason: &'static str) {
        self.closed.get_or_create(&ClosedLabels { listener, reason }).inc();
    }
}
