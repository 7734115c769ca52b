//! [`Relay`]: sends the messages of an outbox.

use std::{collections::BTreeMap, future::Future, pin::pin, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client as Database, Transaction, types::Type};

use super::{
    builder::{KEEPALIVE, PROBES},
    connection::{STATEMENT_TIMEOUT, Value, in_time},
    error::PostgresError,
    outbox::{Outbox, Pending},
};
use crate::{
    client::{Client, Error, SendOptions, check_message},
    later::after,
    limits::{MAX_BYTES, MAX_DEDUPLICATION_WINDOW, MAX_MESSAGES, MIN_DEDUPLICATION_WINDOW},
    queue::QueueId,
    retry::{RetryPolicy, Schedule},
    text::brief,
};

/// How many messages a transaction takes at a time.
const BATCH: i64 = 100;
/// How long the relay waits when the outbox is empty.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long the deduplication keys of sent messages count by default.
const WINDOW: Duration = Duration::from_secs(3600);
/// How long a batch may take after the shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How long the messages of one queue may take within a batch, and after how long no further queue of the batch is begun.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The time after which PostgreSQL ends the transaction of a relay that has stopped without closing its connection, so that
/// another relay can take over. Longer than a batch takes to be sent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Sends committed messages of an [`Outbox`] to their queues; made by [`Outbox::relay`].
///
/// Run one in each replica: one of them is active at a time, and another takes over when its database connection ends. If
/// the host of the active one dies, PostgreSQL notices that after 25 s; if its process hangs, after 90 s.
///
/// Of two messages for one queue, the one whose transaction was committed before the other message was added is sent
/// first. So the messages about one row arrive in the order of its changes, if each transaction changes or locks the row
/// before it adds its message. Between transactions that run at the same time there is no order: a message is sent as soon
/// as the relay sees it, although messages with smaller ids may be committed later, and those it sees together are sent in
/// the order of their ids.
///
/// This project's server stores each message once, whatever is killed in between, because they are sent with their
/// deduplication keys. A message that the service refuses for good stays in the table with the reason in its column `refused`; everything else
/// is sent again until it succeeds.
///
/// ```no_run
/// use std::time::Duration;
///
/// use dms_worker::{
///     Client,
///     postgres::{Outbox, Postgres},
/// };
///
/// async fn relay(client: Client, postgres: Postgres) {
///     let report = Outbox::new(postgres)
///         .relay(client)
///         .poll_interval(Duration::from_millis(50)) // a message waits at most this long for its send
///         .deduplication_window(Duration::from_secs(24 * 3600)) // a relay may be down for a day
///         .run(async { drop(tokio::signal::ctrl_c().await) })
///         .await;
///     println!("{} messages sent, {} refused", report.sent, report.refused);
/// }
/// ```
#[derive(Debug)]
#[must_use = "a relay sends nothing before `run` is called"]
pub struct Relay {
    outbox: Outbox,
    client: Client,
    poll_interval: Duration,
    window: Duration,
    queues: BTreeMap<String, QueueId>,
    /// The queues whose last send failed.
    paused: BTreeMap<String, Paused>,
}

/// A queue to which nothing is sent for a while.
#[derive(Debug)]
struct Paused {
    until: Instant,
    pauses: Schedule,
}

/// What a [`Relay`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayReport {
    /// The number of messages that were sent and deleted from the outbox.
    pub sent: u64,
    /// The number of messages that the service refused for good.
    pub refused: u64,
}

/// The results of the messages of a batch.
#[derive(Default)]
struct Results {
    sent: Vec<i64>,
    refused: Vec<(i64, String)>,
}

impl Outbox {
    /// A relay that sends the messages of this outbox with `client`.
    pub fn relay(&self, client: Client) -> Relay {
        Relay {
            outbox: self.clone(),
            client,
            poll_interval: POLL_INTERVAL,
            window: WINDOW,
            queues: BTreeMap::new(),
            paused: BTreeMap::new(),
        }
    }
}

impl Relay {
    /// How long the relay waits when the outbox is empty. Default: 200 ms.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// How long the server recognizes a message that is sent again; 1 h by default, at least 1 s and at most 7 days.
    ///
    /// A relay that was killed after a send and before it deleted the message sends it again when it, or another one, runs
    /// again. If that takes longer than the window, the message is stored twice. The server keeps at most a million keys of
    /// a project, so a long window limits the number of messages per second.
    pub fn deduplication_window(mut self, window: Duration) -> Self {
        self.window = window.clamp(MIN_DEDUPLICATION_WINDOW, MAX_DEDUPLICATION_WINDOW);
        self
    }

    /// Sends messages until `shutdown` resolves, and then finishes the batch in progress, for at most 5 s.
    ///
    /// Failures of the database and of the service are logged, and everything is tried again after a growing pause of at
    /// most 10 s, for each queue on its own.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message. Those whose send was under way may be sent again, with the same
    /// deduplication key.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> RelayReport {
        let mut shutdown = pin!(shutdown);
        let mut report = RelayReport::default();
        let mut pauses = pauses();
        let (mut database, mut stopping) = (None, false);
        loop {
            let stop = async {
                shutdown.as_mut().await;
                stopping = true;
                sleep(SHUTDOWN_GRACE).await;
            };
            let ended = tokio::select! {
                biased;
                ended = self.next_batch(&mut database, &mut report) => ended,
                () = stop => return report,
            };
            if stopping {
                return report;
            }
            let pause = self.pause(ended, &mut pauses, &mut database);
            tokio::select! {
                biased;
                () = &mut shutdown => return report,
                () = sleep(pause) => {}
            }
        }
    }

    /// How long to wait after a batch.
    fn pause(
        &self,
        ended: Result<usize, PostgresError>,
        pauses: &mut Schedule,
        database: &mut Option<Database>,
    ) -> Duration {
        match ended {
            Ok(count) => {
                pauses.reset();
                if count == 0 { self.poll_interval } else { Duration::ZERO }
            }
            Err(error) => {
                // Its transaction is lost, and perhaps the connection.
                *database = None;
                let pause = pauses.next_delay().unwrap_or(POLL_INTERVAL);
                tracing::warn!(%error, pause = %brief(pause), "the outbox cannot be read or changed: the relay tries again");
                pause
            }
        }
    }

    /// Sends the next messages, and returns how many there were.
    async fn next_batch(
        &mut self,
        database: &mut Option<Database>,
        report: &mut RelayReport,
    ) -> Result<usize, PostgresError> {
        self.outbox.set_up().await?;
        let database = match database {
            Some(database) => database,
            // A separate connection, because nothing else may run in its transactions.
            none => none.insert(self.outbox.table().postgres().dedicated().await?),
        };
        let transaction = in_time(database.transaction()).await?;
        limit_times(&transaction, IDLE_TIMEOUT).await?;
        if !self.become_active(&transaction).await? {
            return Ok(0);
        }
        let sql = format!(
            "SELECT {} FROM {} WHERE refused IS NULL AND queue <> ALL ($1) ORDER BY id LIMIT {BATCH}",
            Pending::COLUMNS,
            self.outbox.table().sql_name()
        );
        let rows = in_time(transaction.query_typed(&sql, &[(&self.paused_queues(), Type::TEXT_ARRAY)])).await?;
        let pending = rows.iter().map(Pending::read).collect::<Result<Vec<_>, _>>()?;
        let count = pending.len();
        let results = self.send(pending).await;
        self.finish(&transaction, &results).await?;
        // If the commit fails, the messages are sent again: better twice than never.
        in_time(transaction.commit()).await?;
        report.sent += results.sent.len() as u64;
        report.refused += results.refused.len() as u64;
        Ok(count)
    }

    /// The queues that are paused now. They are left out when messages are read, so that many messages of theirs do not
    /// keep messages of other queues out.
    fn paused_queues(&self) -> Vec<&str> {
        let now = Instant::now();
        self.paused.iter().filter(|(_, paused)| paused.until > now).map(|(queue, _)| queue.as_str()).collect()
    }

    /// Pauses a queue after a failure, longer each time.
    fn pause_queue(&mut self, queue: &str, error: &SendFailure, messages: usize) {
        let paused = self.paused.entry(queue.to_owned());
        let paused = paused.or_insert_with(|| Paused { until: Instant::now(), pauses: pauses() });
        let pause = paused.pauses.next_delay().unwrap_or(POLL_INTERVAL).max(error.retry_after().unwrap_or_default());
        paused.until = after(Instant::now(), pause);
        // The queue may have been deleted and created again.
        self.queues.remove(queue);
        tracing::warn!(queue, messages, %error, pause = %brief(pause), "messages of the outbox could not be sent: the relay tries again");
    }

    /// Whether no other relay is active. The lock is held until the transaction ends, with its connection at the latest.
    async fn become_active(&self, transaction: &Transaction<'_>) -> Result<bool, PostgresError> {
        let sql = "SELECT pg_try_advisory_xact_lock(hashtext($1))";
        let rows = in_time(transaction.query_typed(sql, &[(&self.outbox.table().sql_name(), Type::TEXT)])).await?;
        Ok(rows.first().map_or(Ok(false), |row| row.try_get(0))?)
    }

    /// Sends messages, in order within each queue.
    async fn send(&mut self, pending: Vec<Pending>) -> Results {
        let mut results = Results::default();
        let mut queues: BTreeMap<String, Vec<Pending>> = BTreeMap::new();
        for message in pending {
            match check_message(&message.message) {
                Ok(()) => queues.entry(message.queue.clone()).or_default().push(message),
                Err(error) => results.refused.push((message.id, error.to_string())),
            }
        }
        let until = after(Instant::now(), SEND_TIMEOUT);
        for (queue, messages) in queues {
            // The rest is sent in the next batch: a long transaction keeps PostgreSQL from cleaning up.
            if Instant::now() >= until {
                break;
            }
            let before = results.sent.len() + results.refused.len();
            let sent = timeout(SEND_TIMEOUT, self.send_to(&queue, &messages, &mut results)).await;
            match sent.map_err(|_| SendFailure::TookTooLong).and_then(|sent| sent.map_err(SendFailure::Call)) {
                Ok(()) => drop(self.paused.remove(&queue)),
                // Messages after a failed one wait, so that they arrive in order.
                Err(error) => {
                    let settled = results.sent.len() + results.refused.len() - before;
                    self.pause_queue(&queue, &error, messages.len().saturating_sub(settled));
                }
            }
        }
        results
    }

    /// Sends messages to one queue, in order, up to the first failure.
    async fn send_to(&mut self, queue: &str, messages: &[Pending], results: &mut Results) -> Result<(), Error> {
        let id = match self.queues.get(queue) {
            Some(id) => id.clone(),
            None => {
                let id = self.client.find_queue(queue).await?.id;
                self.queues.insert(queue.to_owned(), id.clone());
                id
            }
        };
        let mut rest = messages;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(chunk_len(rest));
            self.send_chunk(&id, chunk, results).await?;
            rest = after;
        }
        Ok(())
    }

    /// Sends one request. A message that is refused for good is noted; any other failure is returned.
    async fn send_chunk(&self, queue: &QueueId, chunk: &[Pending], results: &mut Results) -> Result<(), Error> {
        // A repeated message has the same deduplication key. This project's server stores it once; of another service the consumer
        // recognizes it by the attribute.
        let options = SendOptions::new().allow_duplicates(true);
        let keeps_keys = self.client.extensions().deduplication();
        let message = |pending: &Pending| {
            let message = pending.message.clone();
            // A row of another program may have an empty key, which the server refuses.
            match keeps_keys && !pending.key.is_empty() {
                true => message.deduplication_key(&*pending.key).deduplication_window(self.window),
                false => message,
            }
        };
        let messages: Vec<_> = chunk.iter().map(message).collect();
        match self.client.send_with(queue, &messages, options).await {
            Ok(outcomes) => {
                let mut failure = None;
                for (pending, outcome) in chunk.iter().zip(outcomes) {
                    match outcome {
                        Ok(_) => results.sent.push(pending.id),
                        Err(error) if is_final(&error) => results.refused.push((pending.id, error.to_string())),
                        // Later messages of the request may be stored all the same.
                        Err(error) => failure = Some(error),
                    }
                }
                failure.map_or(Ok(()), Err)
            }
            Err(error) if is_final(&error) && chunk.len() == 1 => {
                results.refused.push((chunk[0].id, error.to_string()));
                Ok(())
            }
            Err(error) if is_final(&error) => {
                // One of them is at fault, so each is sent alone.
                for pending in chunk {
                    Box::pin(self.send_chunk(queue, std::slice::from_ref(pending), results)).await?;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes the rows that were sent, and notes why others were refused.
    async fn finish(&self, transaction: &Transaction<'_>, results: &Results) -> Result<(), PostgresError> {
        let table = self.outbox.table().sql_name();
        if !results.sent.is_empty() {
            let sql = format!("DELETE FROM {table} WHERE id = ANY($1)");
            in_time(transaction.execute_typed(&sql, &[(&results.sent, Type::INT8_ARRAY)])).await?;
        }
        for (id, reason) in &results.refused {
            tracing::warn!(id, reason, "a message of the outbox was refused: it stays in the table with the reason");
            let sql = format!("UPDATE {table} SET refused = $2 WHERE id = $1");
            let values: [Value<'_>; 2] = [(id, Type::INT8), (&reason.replace('\0', ""), Type::TEXT)];
            in_time(transaction.execute_typed(&sql, &values)).await?;
        }
        Ok(())
    }
}

/// Why messages of a queue could not be sent.
#[derive(Debug, thiserror::Error)]
enum SendFailure {
    #[error("{0}")]
    Call(Error),
    #[error("the service did not answer within {}", brief(SEND_TIMEOUT))]
    TookTooLong,
}

impl SendFailure {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Call(error) => error.retry_after(),
            Self::TookTooLong => None,
        }
    }
}

/// Lets PostgreSQL end a transaction that is idle for `idle`, its statements that hang, and its connection if the host of the
/// relay dies. The lock of the relay would otherwise be held until then, which is hours with the usual settings of TCP.
///
/// The settings are local to the transaction, because a connection pooler may share the connection with others.
async fn limit_times(transaction: &Transaction<'_>, idle: Duration) -> Result<(), PostgresError> {
    let sql = format!(
        "SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL statement_timeout = {}; \
         SET LOCAL tcp_keepalives_idle = {}; SET LOCAL tcp_keepalives_interval = {}; SET LOCAL tcp_keepalives_count = {}",
        idle.as_millis(),
        STATEMENT_TIMEOUT.as_millis(),
        KEEPALIVE.as_secs(),
        PROBES.0.as_secs(),
        PROBES.1
    );
    in_time(transaction.batch_execute(&sql)).await
}

/// Pauses of 0.2 s to 10 s, without end.
fn pauses() -> Schedule {
    RetryPolicy::default().max_attempts(None).schedule()
}

/// The number of messages that fit into the next request; at least one.
fn chunk_len(messages: &[Pending]) -> usize {
    let mut bytes = 0;
    let fits = |pending: &&Pending| {
        bytes += pending.message.body.len();
        bytes <= MAX_BYTES
    };
    messages.iter().take(MAX_MESSAGES).take_while(fits).count().max(1)
}

/// Whether the message itself is refused, so that the same send can never succeed.
fn is_final(error: &Error) -> bool {
    let other = error.is_retryable() || error.is_unsure() || error.is_auth() || error.is_forbidden();
    !other
        && !error.is_not_found()
        && error.status().is_none_or(|status| status == 400)
        && (error.is_limit() || error.status().is_some())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use dms_worker_postgres_fixture::PgServer;

    use super::*;
    use crate::postgres::Postgres;

    /// The lock of a relay that hangs, while its host and its connection are well, is free after the time for idle transactions.
    #[tokio::test]
    async fn a_relay_that_hangs_loses_its_lock() {
        let Some(server) = PgServer::start("") else { return };
        let postgres = Postgres::builder(server.url()).build().unwrap();
        let (mut hangs, mut other) = (postgres.dedicated().await.unwrap(), postgres.dedicated().await.unwrap());
        let hanging = hangs.transaction().await.unwrap();
        limit_times(&hanging, Duration::from_millis(200)).await.unwrap();
        hanging.batch_execute("SELECT pg_advisory_xact_lock(7)").await.unwrap();

        let waiting = other.transaction().await.unwrap();
        waiting.batch_execute("SET LOCAL lock_timeout = '20s'; SELECT pg_advisory_xact_lock(7)").await.unwrap();
        assert!(hanging.commit().await.is_err(), "its transaction was ended");
    }
}
