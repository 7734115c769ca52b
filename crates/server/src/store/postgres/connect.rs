//! Connections to PostgreSQL that commits can rely on: to a server that takes writes and makes them durable, watched for warnings.

use std::{
    collections::HashMap,
    fmt,
    future::{pending, poll_fn},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Row, Statement, types::ToSql};

use crate::store::postgres::{
    config::{PostgresConfig, address},
    error::{PostgresError, describe},
};
use dms_protocol::internal::postgres_tls::Tls;

/// The time limit for connecting. tokio-postgres limits only the TCP handshake, and a server that is stopped accepts connections
/// without answering.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time between two tries with another connection, doubled each time up to the second value.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The head start that other hosts get over one that has just failed.
const AVOIDED: Duration = Duration::from_millis(500);
/// How long a write may go unanswered until it is looked whether another host takes writes, and between two such looks.
pub(super) const LOOK_AROUND: Duration = Duration::from_secs(1);
/// The reason of a call that ended because of that.
pub(super) const OVERTAKEN: &str = "PostgreSQL did not answer, and another server of it takes writes";
/// The first version of PostgreSQL that is known to work.
const OLDEST_VERSION: i32 = 140_000;

/// The settings of every session. `synchronous_commit = on` waits for the synchronous standby. Warnings must arrive, because one of them
/// says that a commit may not have reached the standby. A transaction that its client forgot ends, because it holds locks. Rows are read in
/// the order of an index: of a new table, which has no statistics yet, a bitmap scan would read a whole backlog to sort it.
const SETTINGS: &str = "SET synchronous_commit = on; SET client_min_messages = warning; SET statement_timeout = 0; \
                        SET lock_timeout = 0; SET idle_in_transaction_session_timeout = '10s'; SET standard_conforming_strings = on; \
                        SET enable_bitmapscan = off";

/// Ends statements whose client closed its connection. A commit that waits for the standby is repeated on a new connection; without
/// this, each of these tries would keep its place among `max_connections` until the standby is back.
const NOTICE_GONE_CLIENTS: &str = "SET client_connection_check_interval = '2s'";

/// Connects to whichever of the hosts takes writes.
#[derive(Debug)]
pub(crate) struct Connector {
    hosts: Vec<Config>,
    tls: Tls,
    pub(crate) schema: String,
    /// The host that failed last: another one may be the primary by now.
    avoid: AtomicUsize,
    /// Whether the log has said that there is no synchronous standby.
    warned: AtomicBool,
}

impl Connector {
    /// # Errors
    /// When the configuration cannot be used.
    pub(crate) fn new(config: &PostgresConfig, application: &str) -> Result<Self, PostgresError> {
        let mut hosts = config.hosts()?;
        for host in &mut hosts {
            host.application_name(application);
        }
        let tls = Tls::load(config.ca_file.as_deref()).map_err(|reason| {
            let file = config.ca_file.clone().unwrap_or_default();
            PostgresError::Authorities { file, reason }
        })?;
        // No host has this number: none has failed yet.
        let avoid = AtomicUsize::new(usize::MAX);
        Ok(Self { hosts, tls, schema: config.schema.clone(), avoid, warned: AtomicBool::new(false) })
    }

    /// Where PostgreSQL is looked for.
    pub(crate) fn addresses(&self) -> String {
        self.hosts.iter().map(address).collect::<Vec<_>>().join(", ")
    }

    /// Connects to all hosts at once and takes the first that takes writes.
    ///
    /// # Errors
    /// When no host answered in time, or the server does not make commits durable.
    pub(crate) async fn connect(&self) -> Result<Session, PostgresError> {
        let mut reasons = Vec::new();
        // All hosts at once, because a host that is down may take the whole time-out to say so.
        let race = async {
            let mut tries: FuturesUnordered<_> = (0..self.hosts.len()).map(|number| self.connect_to(number)).collect();
            while let Some(tried) = tries.next().await {
                match tried {
                    Ok(session) => return Some(session),
                    Err(reason) => reasons.push(reason),
                }
            }
            None
        };
        let mut session = match timeout(CONNECT_TIMEOUT, race).await {
            // The other tries end here: dropping them closes their sockets.
            Ok(Some(session)) => session,
            Ok(None) => return Err(self.unreachable(&reasons)),
            Err(_) => {
                reasons.push(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
                return Err(self.unreachable(&reasons));
            }
        };
        // A second limit, because a frozen server may accept the connection and then answer nothing.
        match timeout(CONNECT_TIMEOUT, self.set_up(&session)).await {
            Ok(server) => {
                session.server = server?;
                Ok(session)
            }
            Err(_) => Err(self.unreachable(&["no answer to the settings of the session".to_owned()])),
        }
    }

    /// Waits until a server other than the session's, which has left a write unanswered, takes writes. The session's server is then an
    /// old primary whose standby has left it, so it will never answer. Looks again after each `every`.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn overtaken(&self, session: &Session, every: Duration) {
        let others: Vec<_> = (0..self.hosts.len()).filter(|number| *number != session.host).collect();
        if others.is_empty() {
            return pending().await;
        }
        loop {
            sleep(every).await;
            let mut tries: FuturesUnordered<_> =
                others.iter().map(|number| timeout(CONNECT_TIMEOUT, self.server_at(*number))).collect();
            while let Some(tried) = tries.next().await {
                // Two hosts may be names of one server, whose address is not the same then.
                if tried.ok().flatten().is_some_and(|server| started(&server) != started(&session.server)) {
                    return;
                }
            }
        }
    }

    /// Which server takes writes at a host.
    async fn server_at(&self, number: usize) -> Option<String> {
        let session = self.connect_to(number).await.ok()?;
        self.set_up(&session).await.ok()
    }

    fn unreachable(&self, reasons: &[String]) -> PostgresError {
        PostgresError::Unreachable { hosts: self.addresses(), reason: reasons.join("; ") }
    }

    async fn connect_to(&self, number: usize) -> Result<Session, String> {
        if self.hosts.len() > 1 && self.avoid.load(Ordering::Relaxed) == number {
            // A head start for the others only: after a failover and back, this host may be the primary again.
            sleep(AVOIDED).await;
        }
        let host = &self.hosts[number];
        match host.connect(self.tls.clone()).await {
            Ok((client, connection)) => Ok(Session::drive(client, connection, number)),
            Err(error) => Err(format!("{}: {}", address(host), describe(&error))),
        }
    }

    /// Makes the settings, and returns which server this is.
    async fn set_up(&self, session: &Session) -> Result<String, PostgresError> {
        // The schema's name was checked: nothing in it needs escaping.
        session.client.batch_execute(&format!("{SETTINGS}; SET search_path = \"{}\"", self.schema)).await?;
        // PostgreSQL refuses it on systems that cannot tell whether a client is gone.
        if let Err(error) = session.client.batch_execute(NOTICE_GONE_CLIENTS).await {
            tracing::debug!(%error, "PostgreSQL does not notice clients that are gone");
        }
        let asked = "SELECT current_setting('fsync'), current_setting('synchronous_standby_names'), \
                     current_setting('server_version_num')::int, current_setting('server_version'), \
                     concat(inet_server_addr(), ' ', pg_postmaster_start_time())";
        let row = session.client.query_one(asked, &[]).await?;
        // Checked on each connection, because a failover leads to a server with its own settings.
        if row.try_get::<_, &str>(0)? == "off" {
            return Err(PostgresError::NoFsync);
        }
        if row.try_get::<_, i32>(2)? < OLDEST_VERSION {
            return Err(PostgresError::TooOld { found: row.try_get(3)? });
        }
        if row.try_get::<_, &str>(1)?.is_empty() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                hosts = self.addresses(),
                "PostgreSQL has no synchronous standby (synchronous_standby_names is empty): a failover may lose confirmed messages"
            );
        }
        Ok(row.try_get(4)?)
    }

    /// The host of this session failed: others go first the next time.
    pub(crate) fn avoid(&self, session: &Session) {
        self.avoid.store(session.host, Ordering::Relaxed);
    }
}

/// One connection. Dropping it closes the socket at once; nothing is cancelled, because a cancelled commit may be answered before it
/// is replicated.
pub(crate) struct Session {
    client: Client,
    /// How many warnings PostgreSQL has sent.
    warnings: Arc<AtomicU64>,
    driver: AbortHandle,
    statements: Mutex<HashMap<String, Statement>>,
    host: usize,
    /// Which server it is: its address and when it was started.
    pub(crate) server: String,
    /// The last commit of the shard that the server was seen to have; -1 before it was asked.
    pub(crate) seen: AtomicI64,
}

impl Session {
    fn drive<S, T>(client: Client, mut connection: Connection<S, T>, host: usize) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let warnings = Arc::new(AtomicU64::new(0));
        let counted = warnings.clone();
        let driver = tokio::spawn(async move {
            // Errors are not handled here: pending queries fail with them.
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message {
                    // Counted before the answer that follows it is passed on.
                    if is_warning(&notice) {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                    tracing::warn!(code = notice.code().code(), "PostgreSQL warns: {}", notice.message());
                }
            }
        });
        Self {
            client,
            warnings,
            driver: driver.abort_handle(),
            statements: Mutex::default(),
            host,
            server: String::new(),
            seen: AtomicI64::new(-1),
        }
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// How many warnings PostgreSQL has sent so far. A commit during which there were some may not be replicated.
    pub(crate) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::SeqCst)
    }

    /// Runs statements without values.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(sql).await
    }

    /// Runs a statement that is prepared once for each session.
    pub(crate) async fn query(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.prepared(sql).await?;
        self.client.query(&statement, values).await
    }

    /// The same for a statement whose number of rows alone is of interest.
    pub(crate) async fn execute(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, tokio_postgres::Error> {
        let statement = self.prepared(sql).await?;
        self.client.execute(&statement, values).await
    }

    /// The statement of this text. Its preparation is a round trip of its own, so it is kept for as long as the connection.
    async fn prepared(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        // The lock is not held while PostgreSQL prepares: two callers may prepare the same statement, which is harmless.
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("host", &self.host).finish_non_exhaustive()
    }
}

/// When a server was started, of [`Session::server`].
fn started(server: &str) -> &str {
    server.split_once(' ').map_or("", |(_, started)| started)
}

/// Whether a notice is a warning of the class that says a commit may not be replicated.
fn is_warning(notice: &tokio_postgres::error::DbError) -> bool {
    notice.code().code() == "01000"
}

/// The session for one purpose, reconnected after a failure.
#[derive(Debug)]
pub(crate) struct Link {
    connector: Arc<Connector>,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

impl Link {
    pub(crate) fn new(connector: Arc<Connector>) -> Self {
        Self { connector, session: tokio::sync::Mutex::default() }
    }

    /// The session, connected if there is none.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub(crate) async fn get(&self) -> Result<Arc<Session>, PostgresError> {
        // Held while connecting, so that callers who come meanwhile wait for this connection and open no further ones.
        let mut held = self.session.lock().await;
        if let Some(session) = held.as_ref().filter(|session| !session.is_closed()) {
            return Ok(session.clone());
        }
        let session = Arc::new(self.connector.connect().await?);
        *held = Some(session.clone());
        Ok(session)
    }

    /// Gives up a session that failed: the next call connects again, to another host first.
    pub(crate) async fn give_up(&self, session: &Arc<Session>) {
        let mut held = self.session.lock().await;
        self.connector.avoid(session);
        // Another caller may have given it up before, and the session that took its place is not to blame.
        if held.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *held = None;
        }
    }

    /// Gives up the session that is in use, whichever it is; see [`Link::give_up`].
    pub(crate) async fn abandon(&self) {
        if let Some(session) = self.session.lock().await.take() {
            self.connector.avoid(&session);
        }
    }

    /// Closes the session.
    pub(crate) async fn close(&self) {
        *self.session.lock().await = None;
    }
}
