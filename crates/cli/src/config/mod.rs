//! The configuration of a `dms-worker` process: what a `config.yaml` may say, read from file, environment and flags.
//!
//! [`Config`] is plain data with defaults: one type per section, each in its own file. [`load`](load()) merges the layers
//! (defaults < file < environment < flags), and answers with every mistake at once: unknown keys, values of the wrong
//! shape, values outside the service's limits, and settings that cannot work together.
//!
//! Only this module names figment. What the settings mean at run time is the business of the modules that take them.

mod admin;
mod check;
mod dms;
mod environment;
mod extract;
mod follow;
mod handler;
mod interpolate;
mod layer;
mod limits;
mod load;
mod locate;
mod log;
mod path;
mod problem;
mod publisher;
mod rights;
mod schema;
mod secret_variables;
mod secrets;
mod server;
mod show;
mod shutdown;
mod suggest;
mod tls;
mod tree;
mod values;
mod worker;
mod worker_failure;
mod yaml;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::secret_variables::is_secret_variable;
pub use self::{
    admin::Admin,
    dms::{ApiVersion, Auth, Dms, Iam},
    handler::{Batch, BodyFormat, Collect, CommandHandler, CommandMode, Handler, HttpHandler, LogHandler},
    limits::{Limits, Sharing},
    load::{Loaded, Request, load, search},
    log::{Log, LogFormat},
    problem::{ConfigError, Origin, Problem},
    publisher::Publisher,
    rights::Rights,
    schema::schema,
    server::{
        AccessKey, FailureCounting, GroupStart, Project, QueueSpec, Quotas, Server, ServerAuth, ServerLimits, User,
    },
    show::Setting,
    shutdown::Shutdown,
    tls::Tls,
    values::{Auto, Choosable, InvalidRate, InvalidSpan, Rate, Secret, Span},
    worker::{OnFailure, OnReject, Ordering, Republish, Retry, Source, Then, Worker},
    worker_failure::OnWorkerFailure,
};

pub use dms_protocol::secret_url::SecretUrl;

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
    /// Health, metrics and control.
    pub admin: Admin,
    /// How a process ends.
    pub shutdown: Shutdown,
    /// What is logged, and how.
    pub log: Log,
    /// The variables of the environment that the file takes secrets from with `${NAME}`. Programs do not inherit them.
    #[serde(skip)]
    pub secret_variables: BTreeSet<String>,
}
