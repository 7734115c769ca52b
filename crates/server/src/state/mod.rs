//! [`AppState`]: the parts of a server that all requests share.

pub(crate) mod endable_polls;
pub(crate) mod topic_names;
pub(crate) mod waiting_schedules;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
};

use tokio_util::sync::CancellationToken;

use self::{endable_polls::EndablePolls, topic_names::TopicNames, waiting_schedules::WaitingSchedules};
use crate::{
    auth::authenticator::Authenticator,
    broker::{Broker, embedded::EmbeddedConfig},
    faults::Faults,
    http::{bearer::BearerAuth, body::BodyMemory, host_check::HostCheck},
    metrics::{MoreMetrics, ServerMetrics},
    net::{connection_limit::ConnectionMetrics, limits::HttpLimits},
};

/// The parts of a server that all requests share.
#[derive(Debug)]
pub(crate) struct AppState {
    /// Queues, groups and messages.
    pub(crate) broker: Arc<dyn Broker>,
    /// Gives the broker other settings.
    pub(crate) reconfigure: Reconfigure,
    /// Cancelled when the server stops. Waiting consume calls are then answered at once.
    pub(crate) stopping: CancellationToken,
    /// Keys, users and tokens.
    pub(crate) authenticator: Authenticator,
    /// The names by which connections may call the API, and the protection from web pages.
    pub(crate) host_check: HostCheck,
    /// The same for the admin address.
    pub(crate) admin_host_check: HostCheck,
    /// The token of the admin address.
    pub(crate) admin_auth: BearerAuth,
    /// The read token of the admin address.
    pub(crate) admin_read_auth: BearerAuth,
    /// Whether the read token shows bodies and attributes of messages.
    pub(crate) reader_sees_bodies: bool,
    /// The injected faults.
    pub(crate) faults: Faults,
    /// The region in the catalogue of tokens.
    pub(crate) region: String,
    /// The directory that keeps the messages; `None` in memory.
    pub(crate) data_dir: Option<PathBuf>,
    /// The limits of connections and requests.
    pub(crate) limits: HttpLimits,
    /// The memory that bodies share.
    pub(crate) body_memory: BodyMemory,
    /// Counters and durations of requests.
    pub(crate) metrics: ServerMetrics,
    /// The number of groups that have metrics of their own.
    pub(crate) metrics_max_groups: AtomicUsize,
    /// Metrics of the process around the server.
    pub(crate) more_metrics: MoreMetrics,
    /// The connections of the listeners.
    pub(crate) connections: ConnectionMetrics,
    /// Whether extensions are announced and obeyed.
    pub(crate) extensions: bool,
    /// The waiting consume calls that can be ended by name.
    pub(crate) polls: Arc<EndablePolls>,
    /// The queues and groups that callers of the MQS dialect named.
    pub(crate) topics: TopicNames,
    /// The schedules of the configuration whose queue is missing.
    pub(crate) waiting_schedules: WaitingSchedules,
}

/// Gives a broker other settings. A broker that somebody else opened keeps its own.
#[derive(Default)]
pub(crate) struct Reconfigure(Option<Box<Apply>>);

type Apply = dyn Fn(&EmbeddedConfig) + Send + Sync;

impl Reconfigure {
    pub(crate) fn by(apply: impl Fn(&EmbeddedConfig) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(apply)))
    }

    pub(crate) fn apply(&self, config: &EmbeddedConfig) {
        if let Some(apply) = &self.0 {
            apply(config);
        }
    }
}

impl fmt::Debug for Reconfigure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reconfigure")
    }
}
