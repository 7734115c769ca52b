//! [`Shared`]: what all parts of a sidecar have in common.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::sidecar::reload::parts::Parts;
use dms_server::internal::connection_limit::ConnectionMetrics;
use dms_worker::{client::Client, producer::ProducerMetrics, worker::WorkerMetrics};

/// What all parts of a sidecar have in common. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) producers: ProducerMetrics,
    pub(crate) connections: ConnectionMetrics,
    /// Cancelled when the process begins to end.
    pub(crate) stopping: CancellationToken,
    /// What ends after the workers.
    pub(crate) tasks: TaskTracker,
    pub(crate) parts: Parts,
}
