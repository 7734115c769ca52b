//! The configuration of a `dms-worker` process: what a `config.yaml` may say, read from file, environment and flags.
//!
//! [`Config`] is plain data with defaults. [`load`](load()) merges the layers (defaults < file < environment < flags), and
//! answers with every mistake at once: unknown keys, values of the wrong shape, values outside the service's limits, and
//! settings that cannot work together.
//!
//! | folder | content |
//! |---|---|
//! | `schema` | one type per section: keys, defaults, docs |
//! | `source` | the layers: YAML, environment, flags, with the origin of each value |
//! | `check` | rules between keys, and limits |
//! | `load` | all of it in order |
//! | `changes` | which keys differ between two configurations, and what a change of each takes |
//! | `worker_settings`, `server_settings` | the keys of a worker or the server as settings of the library, which checks them |
//!
//! Only this module names figment. What the settings mean at run time is the business of the modules that take them.

mod changes;
mod check;
mod load;
mod schema;
pub(crate) mod server_settings;
mod source;
pub(crate) mod worker_settings;

#[cfg(feature = "postgres")]
pub(crate) use self::check::key_store::database as open_database;
pub use self::{
    changes::{CHANGE_EFFECTS, ChangeEffect, change_effect},
    load::{
        load,
        loaded::{Loaded, Setting},
        request::{Request, search},
    },
    schema::{
        admin::Admin,
        config::Config,
        dashboard::Dashboard,
        deduplicate::{Deduplicate, KeyStore, PostgresKeys, RedisKeys},
        dms::{ApiVersion, Auth, Content, ContentDecoding, ContentEncoding, Dialect, Dms, Iam},
        handler::{
            Batch, BodyFormat, Collect, CommandHandler, CommandMode, Handler, HttpHandler, LogHandler, TextBodies,
        },
        json_schema::schema,
        limits::{Limits, Sharing},
        log::{Log, LogFormat},
        outbox::Outbox,
        publisher::Publisher,
        reload::Reload,
        rights::Rights,
        schedule::{MissedTicks, Schedule},
        server::{
            AccessKey, Cluster, ClusterTls, FailureCounting, GroupStart, Mqs, Postgres, Project, QueueSpec, Quotas,
            Server, ServerAuth, ServerLimits, User,
        },
        server_admin::{AdminSection, ServerAdmin},
        shutdown::Shutdown,
        tls::Tls,
        values::{Auto, Choosable, InvalidRate, InvalidSpan, Rate, Secret, Span},
        worker::{OnFailure, OnReject, Ordering, Republish, Retry, Source, Then, Worker},
        worker_failure::OnWorkerFailure,
    },
    source::problem::{ConfigError, Origin, Problem},
};
pub(crate) use self::{
    check::key_store::{UnusableStore, open as open_key_store},
    load::keys_file::{KeysFile, StoredKey},
    source::secret_variables::is_secret_variable,
};

pub use dms_protocol::internal::secret_url::SecretUrl;
