//! [`Shared`]: what all parts of a sidecar have in common.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::sidecar::running::parts::Parts;
use dms_protocol::internal::current::Current;
use dms_server::internal::connection_limit::ConnectionMetrics;
use dms_worker::{client::Client, producer::ProducerMetrics, transport::InProcess, worker::WorkerMetrics};

/// What all parts of a sidecar have in common. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// The client of the service; a reload that changes `dms` replaces it for parts that start later.
    pub(crate) client: Current<Client>,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) producers: ProducerMetrics,
    pub(crate) connections: ConnectionMetrics,
    /// Cancelled when the process begins to end.
    pub(crate) stopping: CancellationToken,
    /// What ends after the workers.
    pub(crate) tasks: TaskTracker,
    pub(crate) parts: Parts,
    /// The way to the server in this process, if there is one.
    pub(crate) embedded: Option<Arc<InProcess>>,
}

impl Shared {
    /// The same for parts that talk to another service, or to the same in another way.
    pub(crate) fn with_client(&self, client: Client) -> Self {
        Self { client: Current::new(client), ..self.clone() }
    }
}
