//! [`PostgresError`]: why a server cannot keep its messages in PostgreSQL.

use std::{path::PathBuf, time::Duration};

use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::{net::tls_files::TlsError, store::StoreError};

/// Why a server cannot keep its messages in PostgreSQL. No text contains a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The connection string or another setting is unusable.
    #[error("the PostgreSQL setting {setting} cannot be used: {reason}")]
    Setting {
        /// The key below `server.postgres`.
        setting: &'static str,
        /// The reason.
        reason: String,
    },
    /// The certificate for the other servers of the cluster cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file with the certificates of authorities cannot be used.
    #[error("the certificates of {file} cannot be used: {reason}")]
    Authorities {
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: String,
    },
    /// No server that takes writes answered.
    #[error("no PostgreSQL server that takes writes was reached at {hosts}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        hosts: String,
        /// The error of each of them.
        reason: String,
    },
    /// The server does not make commits durable.
    #[error(
        "PostgreSQL runs with fsync = off, so that a power cut loses answered messages and may destroy the database; \
         set fsync = on there"
    )]
    NoFsync,
    /// The server is too old.
    #[error("PostgreSQL has version {found}; version 14 or later is needed")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// The tables were made by a later version of this program.
    #[error(
        "the schema {schema} has version {found}, and this program knows versions up to {known}; use a newer dms-worker"
    )]
    Newer {
        /// The schema.
        schema: String,
        /// Its version.
        found: i32,
        /// The last version known.
        known: i32,
    },
    /// The number of shards is fixed when the tables are made.
    #[error(
        "the tables in the schema {schema} were made with {found} shards, and the configuration says {wanted}: set \
         server.cluster.shards to {found}, or leave it out"
    )]
    Shards {
        /// The schema.
        schema: String,
        /// How many there are.
        found: u32,
        /// How many are configured.
        wanted: u32,
    },
    /// The tables contradict each other or cannot be read.
    #[error("the tables in the schema {schema} are damaged: {reason}; restore them from a backup")]
    Damaged {
        /// The schema.
        schema: String,
        /// The reason.
        reason: String,
    },
    /// An import into the tables has not finished.
    #[error(
        "an import of the export {export} into the schema {schema} has not finished; run the same `dms-worker data import` again, or \
         drop the schema and begin anew"
    )]
    Importing {
        /// The schema.
        schema: String,
        /// The id of the export.
        export: String,
    },
    /// There are no tables.
    #[error(
        "the schema {schema} has no tables of dms-worker; check server.postgres.schema and the database of the connection string"
    )]
    NoTables {
        /// The schema.
        schema: String,
    },
    /// Servers own shards.
    #[error("servers on these tables are running ({owners}): stop all of them first")]
    Served {
        /// Their names.
        owners: String,
    },
    /// Another server owns the messages.
    #[error("another server owns the messages now")]
    NotOwner,
    /// PostgreSQL refused or did not answer.
    #[error("PostgreSQL failed: {0}")]
    Failed(String),
}

/// The result of a call, unless PostgreSQL does not answer at all: then another server may be the primary by now. The limit is one of
/// the current runtime's clock.
pub(crate) async fn within<T, E: Into<PostgresError>>(
    limit: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, PostgresError> {
    match timeout(limit, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(PostgresError::Failed(format!("no answer within {limit:?}"))),
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(describe(&error))
    }
}

/// The text of an error of PostgreSQL or of the connection. tokio-postgres has the server's own text only as the source of its error.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

/// An error of PostgreSQL after which nothing was changed. A full disk there is a full disk here.
pub(crate) fn failure(error: &tokio_postgres::Error) -> StoreError {
    let text = describe(error);
    match error.code() {
        Some(code) if *code == SqlState::DISK_FULL => {
            StoreError::new(std::io::Error::new(std::io::ErrorKind::StorageFull, text))
        }
        _ => StoreError::new(PostgresError::Failed(text)),
    }
}
