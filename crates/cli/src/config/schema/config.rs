//! [`Config`]: a whole configuration.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::schema::{
    admin::Admin, dms::Dms, limits::Limits, log::Log, outbox::Outbox, publisher::Publisher, reload::Reload,
    server::Server, shutdown::Shutdown, worker::Worker, worker_failure::OnWorkerFailure,
};

/// A whole configuration. Every section may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The service that workers and publishers talk to.
    pub dms: Dms,
    /// The embedded server, for `serve` and for `dms.endpoint: embedded`.
    pub server: Server,
    /// The workers that `run` starts.
    pub workers: Vec<Worker>,
    /// What the others do when one worker cannot go on; `continue` by default.
    pub on_worker_failure: OnWorkerFailure,
    /// What the workers share.
    pub limits: Limits,
    /// The endpoints that take messages over HTTP and send them on.
    pub publishers: Vec<Publisher>,
    /// Tables in PostgreSQL whose rows are sent as messages.
    pub outboxes: Vec<Outbox>,
    /// Health, metrics and control.
    pub admin: Admin,
    /// When the configuration is read again.
    pub reload: Reload,
    /// How a process ends.
    pub shutdown: Shutdown,
    /// The log.
    pub log: Log,
    /// The variables of the environment that the file takes secrets from with `${NAME}`. Programs do not inherit them.
    #[serde(skip)]
    pub secret_variables: BTreeSet<String>,
}

impl Config {
    /// Whether there is anything to run besides a server: a worker, a publisher or an outbox.
    pub(crate) fn has_work(&self) -> bool {
        !self.workers.is_empty() || !self.publishers.is_empty() || !self.outboxes.is_empty()
    }
}
