//! [`PostgresError`]: why PostgreSQL could not be used.

use std::{error::Error as StdError, path::PathBuf, time::Duration};

use crate::text::brief;

/// Why PostgreSQL could not be used. No message contains the connection string.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// A setting is unusable.
    #[error("the setting {setting} of PostgreSQL is unusable: {reason}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Why it is unusable.
        reason: String,
    },
    /// The file with the authorities' certificates is unusable.
    #[error("the certificates of {} cannot be used: {reason}", file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// Why it is unusable.
        reason: String,
    },
    /// PostgreSQL cannot be reached, or refused the connection.
    #[error("PostgreSQL cannot be reached: {0}")]
    Unreachable(String),
    /// PostgreSQL did not answer in time.
    #[error("PostgreSQL did not answer within {}", brief(*.0))]
    Timeout(Duration),
    /// PostgreSQL refused a statement.
    #[error("PostgreSQL refused a statement: {}", describe(.0))]
    Statement(#[source] tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Statement(error)
    }
}

/// What PostgreSQL said, or why the connection ended. tokio-postgres itself prints the kind of the error only.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{} ({})", said.message(), said.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}
