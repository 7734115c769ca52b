//! What every request handler shares.

pub(crate) mod endable_polls;

use std::{path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;

use self::endable_polls::EndablePolls;
use crate::{
    auth::authenticator::Authenticator,
    broker::Broker,
    faults::Faults,
    http::{bearer::BearerAuth, body::BodyMemory, host_check::HostCheck},
    metrics::ServerMetrics,
    net::{connection_limit::ConnectionMetrics, limits::HttpLimits},
};

/// The state behind the router.
#[derive(Debug)]
pub(crate) struct AppState {
    /// What the server does.
    pub(crate) broker: Arc<dyn Broker>,
    /// Set off when the server stops: long polls answer at once.
    pub(crate) stopping: CancellationToken,
    /// Who may call.
    pub(crate) authenticator: Authenticator,
    /// By which names connections may call the API, and whether web pages may.
    pub(crate) host_check: HostCheck,
    /// The same for the admin address.
    pub(crate) admin_host_check: HostCheck,
    /// The token of the admin address.
    pub(crate) admin_auth: BearerAuth,
    /// What goes wrong on purpose.
    pub(crate) faults: Faults,
    /// The region in the catalogue of tokens.
    pub(crate) region: String,
    /// Where messages are kept; none: in memory.
    pub(crate) data_dir: Option<PathBuf>,
    /// The limits of a single request.
    pub(crate) limits: HttpLimits,
    /// The room for bodies in memory.
    pub(crate) body_memory: BodyMemory,
    /// Counters and durations.
    pub(crate) metrics: ServerMetrics,
    /// The same of connections.
    pub(crate) connections: ConnectionMetrics,
    /// Whether the extensions are announced and obeyed.
    pub(crate) extensions: bool,
    /// Consume calls that can be ended.
    pub(crate) polls: EndablePolls,
}
