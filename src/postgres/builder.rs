//! [`PostgresBuilder`]: where the database is, how connections to it are encrypted, and the schema of the tables.

use std::{path::PathBuf, time::Duration};

use tokio_postgres::{
    Config,
    config::{SslMode, TargetSessionAttrs},
};

use super::{connection::Postgres, error::PostgresError};
use crate::{
    postgres_settings::{check_schema, connection_string},
    postgres_tls::Tls,
    secret::Secret,
};

/// The time that the TCP connection to one address may take.
const TCP_TIMEOUT: Duration = Duration::from_secs(2);
/// The idle time after which a connection is probed.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(10);
/// The time between probes, and how many in a row stay without an answer before the connection counts as dead.
pub(super) const PROBES: (Duration, u32) = (Duration::from_secs(5), 3);
/// How long a host may leave data without an answer before the connection counts as dead.
const UNANSWERED: Duration = Duration::from_secs(25);

/// Sets up a [`Postgres`]; made by [`Postgres::builder`].
///
/// ```
/// use dms_worker::postgres::{Postgres, PostgresError};
///
/// fn database(url: &str) -> Result<Postgres, PostgresError> {
///     Postgres::builder(url)
///         .ca_file("/etc/ssl/db-ca.pem") // encrypts every connection, and checks the name of the server
///         .schema("shop_messages") // instead of dms_worker
///         .build() // reads the file, and connects to nothing yet
/// }
///
/// let error = database("postgres://shop:secret@db1,db2/shop").unwrap_err();
/// assert!(error.to_string().contains("/etc/ssl/db-ca.pem"), "this machine has no such file");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct PostgresBuilder {
    url: Secret,
    ca_file: Option<PathBuf>,
    schema: String,
}

impl Postgres {
    /// Sets up a database. `url` has one of the forms `postgres://user:password@host1,host2/database` and
    /// `host=host1,host2 user=… dbname=…`. Of several hosts, the first that accepts writes is used.
    pub fn builder(url: impl AsRef<str>) -> PostgresBuilder {
        PostgresBuilder::new(Secret::from(url.as_ref()))
    }
}

impl PostgresBuilder {
    pub(super) fn new(url: Secret) -> Self {
        Self { url, ca_file: None, schema: "dms_worker".to_owned() }
    }

    /// A PEM file with the certificates of the authorities that may have issued the server's certificate. With it, every
    /// connection is encrypted and the server's name is checked. Default: none, and nothing is encrypted.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// The schema of the tables, which is created if it is missing. Default: `dms_worker`.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Checks the settings and reads the certificates. Nothing is connected yet.
    ///
    /// # Errors
    /// If a setting or the file is unusable.
    pub fn build(self) -> Result<Postgres, PostgresError> {
        check_schema(&self.schema).map_err(|reason| PostgresError::Setting { setting: "schema", reason })?;
        let config = self.config()?;
        let tls = Tls::load(self.ca_file.as_deref())
            .map_err(|reason| PostgresError::Authorities { file: self.ca_file.clone().unwrap_or_default(), reason })?;
        Ok(Postgres::new(config, tls, self.schema))
    }

    fn config(&self) -> Result<Config, PostgresError> {
        let unusable = |reason| PostgresError::Setting { setting: "url", reason };
        let mut config = connection_string(&self.url, self.ca_file.is_some()).map_err(unusable)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(unusable("it names no host".to_owned()));
        }
        config
            .ssl_mode(if self.ca_file.is_some() { SslMode::Require } else { SslMode::Disable })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(PROBES.0)
            .keepalives_retries(PROBES.1)
            .tcp_user_timeout(UNANSWERED);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(TCP_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("dms-worker");
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_error_shows_the_connection_string() {
        for url in ["postgres://shop:geheim@pg1:port/x", "host=pg1 sslmode=geheim", "geheim", "user=geheim", ""] {
            let error = Postgres::builder(url).build().unwrap_err().to_string();
            assert!(!error.contains("geheim") && error.contains("url"), "{error}");
        }
        assert!(!format!("{:?}", Postgres::builder("postgres://shop:geheim@pg1/x").build()).contains("geheim"));
    }

    #[test]
    fn a_connection_that_must_be_encrypted_needs_authorities() {
        let error = Postgres::builder("postgres://pg1/x?sslmode=verify-full").build().unwrap_err();
        assert!(error.to_string().contains("ca_file"), "{error}");
        let missing = Postgres::builder("postgres://pg1/x").ca_file("/missing.pem").build().unwrap_err();
        assert!(missing.to_string().contains("/missing.pem"), "{missing}");
    }

    #[test]
    fn a_schema_is_a_plain_name() {
        for schema in ["", "Shop", "1shop", "pg_shop", "a-b", "a\"b", &"x".repeat(64)] {
            let error = Postgres::builder("host=pg1").schema(schema).build().unwrap_err().to_string();
            assert!(error.contains("schema"), "{schema}: {error}");
        }
        Postgres::builder("host=pg1").schema("shop_2").build().unwrap();
    }
}
