//! [`Postgres`]: one connection that several tasks share, opened again after a failure.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_postgres::{
    Client, Config, Row,
    error::SqlState,
    types::{ToSql, Type},
};

use super::error::{PostgresError, describe};
use crate::postgres_tls::Tls;

/// The time that connecting may take in all. tokio-postgres bounds the TCP handshake only, and a stopped server accepts
/// connections without an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that a statement may take.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The advisory lock under which tables are created. `CREATE … IF NOT EXISTS` of two sessions at once fails in one.
const CREATION_LOCK: i64 = 0x646d_735f_776b_7231;

/// A statement's value and its type.
pub(crate) type Value<'a> = (&'a (dyn ToSql + Sync), Type);

/// A PostgreSQL database. Clones share one connection, which is opened when it is first needed.
///
/// ```no_run
/// use dms_worker::postgres::Postgres;
///
/// let postgres = Postgres::builder("postgres://shop:secret@db1,db2/shop").ca_file("/etc/ssl/db-ca.pem").build()?;
/// # Ok::<(), dms_worker::postgres::PostgresError>(())
/// ```
#[derive(Clone)]
pub struct Postgres(Arc<Shared>);

struct Shared {
    config: Config,
    tls: Tls,
    schema: String,
    link: Mutex<Link>,
}

/// The connection, or why there is none.
#[derive(Default)]
struct Link {
    client: Option<Arc<Client>>,
    /// When the last attempt to connect failed, and why.
    failed: Option<(Instant, String)>,
}

impl Postgres {
    pub(super) fn new(config: Config, tls: Tls, schema: String) -> Self {
        Self(Arc::new(Shared { config, tls, schema, link: Mutex::default() }))
    }

    /// The schema of the tables.
    pub fn schema(&self) -> &str {
        &self.0.schema
    }

    /// Runs one statement and returns its rows. Statements of several tasks are pipelined on the connection.
    ///
    /// A statement whose connection broke is run once more on a new one, so it must have the same effect twice.
    pub(crate) async fn query(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, PostgresError> {
        let first = self.client().await?;
        match Self::run(&first, sql, values).await {
            Err(error) if is_broken(&first, &error) => {
                self.give_up(&first).await;
                let second = self.client().await?;
                let answer = Self::run(&second, sql, values).await;
                if answer.as_ref().is_err_and(|error| is_broken(&second, error)) {
                    self.give_up(&second).await;
                }
                answer
            }
            answer => answer,
        }
    }

    async fn run(client: &Client, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, PostgresError> {
        in_time(client.query_typed(sql, values)).await
    }

    /// Creates the table with this name in SQL unless it exists. `definition` is run as one transaction, after the schema is created.
    ///
    /// Roles without the right to create tables can use tables that exist.
    pub(crate) async fn create(&self, name: &str, definition: &str) -> Result<(), PostgresError> {
        let exists = "SELECT to_regclass($1) IS NOT NULL";
        let rows = self.query(exists, &[(&name, Type::TEXT)]).await?;
        if rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
            return Ok(());
        }
        // Several statements in one message are one transaction.
        let schema = self.schema();
        let sql = format!(
            "SELECT pg_advisory_xact_lock({CREATION_LOCK}); CREATE SCHEMA IF NOT EXISTS \"{schema}\"; {definition}"
        );
        let client = self.client().await?;
        in_time(client.batch_execute(&sql)).await
    }

    /// The connection, opened if there is none.
    async fn client(&self) -> Result<Arc<Client>, PostgresError> {
        let asked = Instant::now();
        // Held while connecting, so that tasks that arrive together open one connection.
        let mut link = self.0.link.lock().await;
        if let Some(client) = link.client.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        // Each task that has waited for a failed attempt would otherwise wait for another one, one after the other.
        if let Some((_, reason)) = link.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(PostgresError::Unreachable(reason.clone()));
        }
        match self.dedicated().await {
            Ok(client) => Ok(link.client.insert(Arc::new(client)).clone()),
            Err(error) => {
                let reason = match &error {
                    PostgresError::Unreachable(reason) => reason.clone(),
                    other => other.to_string(),
                };
                link.failed = Some((Instant::now(), reason));
                Err(error)
            }
        }
    }

    /// Opens a connection of the caller's own, for transactions.
    pub(super) async fn dedicated(&self) -> Result<Client, PostgresError> {
        match timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(connected) => connected.map_err(|error| PostgresError::Unreachable(describe(&error))),
            Err(_) => Err(PostgresError::Timeout(CONNECT_TIMEOUT)),
        }
    }

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.0.config.connect(self.0.tls.clone()).await?;
        // The task ends with the last clone of the client. Errors of the connection reach its statements.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Forgets a connection that failed, so that the next statement opens another.
    async fn give_up(&self, failed: &Arc<Client>) {
        let mut link = self.0.link.lock().await;
        if link.client.as_ref().is_some_and(|client| Arc::ptr_eq(client, failed)) {
            link.client = None;
        }
    }
}

/// Whether another connection may succeed: this one is closed or silent, or its server has become a standby.
fn is_broken(client: &Client, error: &PostgresError) -> bool {
    match error {
        PostgresError::Timeout(_) => true,
        PostgresError::Statement(error) => {
            // The last words of a server that ends arrive before the connection counts as closed.
            let parting = [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::READ_ONLY_SQL_TRANSACTION,
            ];
            client.is_closed() || error.code().is_some_and(|code| parting.contains(code))
        }
        _ => false,
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration contains the password.
        f.debug_struct("Postgres").field("schema", &self.0.schema).finish_non_exhaustive()
    }
}

/// A call of PostgreSQL. Its own limits do not help if it does not answer any more.
pub(super) async fn in_time<T>(
    call: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, PostgresError> {
    let answer = timeout(STATEMENT_TIMEOUT, call).await;
    Ok(answer.map_err(|_| PostgresError::Timeout(STATEMENT_TIMEOUT))??)
}
