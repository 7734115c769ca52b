//! What every request handler shares.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{broker::Broker, config::HttpLimits, faults::Faults, gate::Gate, metrics::Metrics};

/// The state behind the router.
#[derive(Debug)]
pub(crate) struct App {
    /// What the server does.
    pub(crate) broker: Arc<dyn Broker>,
    /// Set off when the server stops: long polls answer at once.
    pub(crate) stopping: CancellationToken,
    /// Who may call.
    pub(crate) gate: Gate,
    /// What goes wrong on purpose.
    pub(crate) faults: Faults,
    /// The region in the catalogue of tokens.
    pub(crate) region: String,
    /// The limits of a single request.
    pub(crate) limits: HttpLimits,
    /// Counters and durations.
    pub(crate) metrics: Metrics,
}
