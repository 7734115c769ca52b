//! Checks that the PostgreSQL server of a connection has every commit that was answered.
//!
//! After a failover the old primary may go on until Patroni stops it, for example when it was paused and continues. It accepts
//! connections, says that it takes writes, and lacks the latest commits. It never confirms a write, because its standby has left it,
//! but it answers reads. A message that is missing there is not damaged, and a shard that it gives to another server is not lost.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Row, types::ToSql};

use crate::store::{
    StoreError,
    postgres::{
        PgStore, big,
        connect::{LOOK_AROUND, OVERTAKEN, RETRY, Session},
        error::{PostgresError, describe, failure},
        member,
    },
};

/// How long a query may take.
const TIMEOUT: Duration = Duration::from_secs(15);
pub(super) const COMMITS_ARE_GONE: &str = "PostgreSQL has lost commits that were answered";

/// The result of comparing a server of PostgreSQL with the commits that this owner of a shard was answered.
pub(super) enum Standing {
    /// It has every commit that was answered.
    Current,
    /// It lacks some and confirms no writes, or does not answer: look for another one.
    Stale(String),
    /// It lacks some and confirms writes, so no other server has them either.
    Gone,
    /// Another server owns the shard there.
    Fenced,
}

/// When the server of a read has to have been found current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// When the connection was first used.
    Connection,
    /// After the last commit that was answered.
    Latest,
}

impl PgStore {
    /// Compares a server with the commits that were answered, of which `known` is the last.
    pub(super) async fn standing(&self, session: &Session, known: u64) -> Standing {
        // Both, because rows of the journal are deleted once the image has them.
        let asked = "SELECT (SELECT epoch FROM shard WHERE id = $1), GREATEST((SELECT commit_no FROM image WHERE shard = $1), \
                     (SELECT max(commit_no) FROM journal WHERE shard = $1))";
        let found = async {
            let row = session.query(asked, &[&self.duty.shard]).await?.pop();
            row.map(|row| {
                Ok::<_, tokio_postgres::Error>((row.try_get::<_, Option<i64>>(0)?, row.try_get::<_, Option<i64>>(1)?))
            })
            .transpose()
        };
        let (epoch, last) = match timeout(self.try_timeout, found).await {
            Ok(Ok(found)) => found.unwrap_or_default(),
            Ok(Err(error)) => return Standing::Stale(describe(&error)),
            Err(_) => return Standing::Stale(self.no_answer()),
        };
        let (epoch, last) = (epoch.unwrap_or(-1), last.unwrap_or(-1));
        // Epochs only grow: a server with a smaller one lacks the take-over.
        if epoch > self.duty.epoch {
            return Standing::Fenced;
        }
        if epoch == self.duty.epoch && last >= big(known) {
            session.seen.fetch_max(last, Ordering::Relaxed);
            return Standing::Current;
        }
        match self.confirm(session).await {
            Ok(()) => {
                tracing::error!(
                    shard = self.duty.shard,
                    last,
                    answered = known,
                    "PostgreSQL has lost commits that were answered, by an asynchronous failover or a restore; this server gives \
                     the shard up and opens it as PostgreSQL has it now"
                );
                Standing::Gone
            }
            Err(reason) => {
                tracing::debug!(shard = self.duty.shard, last, answered = known, reason, "an old primary answered");
                Standing::Stale(reason)
            }
        }
    }

    /// Waits until all visible commits are replicated. PostgreSQL's log is one sequence: once a later write is answered, every earlier
    /// one is replicated, too.
    pub(super) async fn confirm(&self, session: &Session) -> Result<(), String> {
        let warnings = session.warnings();
        let written = tokio::select! {
            written = timeout(self.try_timeout, member::beat(session, &self.member.id)) => written,
            () = self.member.connector.overtaken(session, LOOK_AROUND) => return Err(OVERTAKEN.to_owned()),
        };
        match written {
            _ if session.warnings() != warnings => Err("PostgreSQL warned of a missing standby".to_owned()),
            Ok(Ok(true)) => Ok(()),
            // A row that is not there is no write.
            Ok(Ok(false)) => Err("this server is not registered any more".to_owned()),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(self.no_answer()),
        }
    }

    pub(super) fn no_answer(&self) -> String {
        format!("PostgreSQL did not answer within {:?}", self.try_timeout)
    }

    /// Asks for rows on the connection for reads.
    pub(super) fn query(
        &self,
        proof: Proof,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.check_open()?;
        self.runtime().block_on(async {
            let session = self.reader(proof).await?;
            match timeout(TIMEOUT, session.query(sql, values)).await {
                Ok(Ok(rows)) => Ok(rows),
                Ok(Err(error)) => {
                    self.reads.give_up(&session).await;
                    Err(failure(&error))
                }
                Err(_) => {
                    // It is still busy with the query.
                    self.reads.give_up(&session).await;
                    Err(StoreError::new(format!("PostgreSQL did not answer a read within {} s", TIMEOUT.as_secs())))
                }
            }
        })
    }

    /// The connection for reads, to the very server that commits go to.
    async fn reader(&self, proof: Proof) -> Result<Arc<Session>, StoreError> {
        let (began, mut wait) = (Instant::now(), RETRY.0);
        loop {
            // The servers are compared in each round: a failover may move either connection between two of them.
            let writer = self.commits.get().await.map_err(StoreError::new)?;
            let reader = self.reads.get().await.map_err(StoreError::new)?;
            let known = self.lock().images.commit_no;
            let needed = match proof {
                Proof::Connection => 0,
                Proof::Latest => big(known),
            };
            let standing = match reader.server == writer.server {
                false => Standing::Stale("commits go to another server".to_owned()),
                true if reader.seen.load(Ordering::Relaxed) >= needed => return Ok(reader),
                true => self.standing(&reader, known).await,
            };
            let reason = match standing {
                Standing::Current => return Ok(reader),
                Standing::Gone => return Err(self.lose(COMMITS_ARE_GONE)),
                Standing::Fenced => return Err(self.lose(PostgresError::NotOwner)),
                Standing::Stale(reason) => reason,
            };
            self.reads.give_up(&reader).await;
            // A commit that is under way keeps its connection.
            if reader.server == writer.server {
                self.commits.give_up(&writer).await;
            }
            if began.elapsed() >= self.try_timeout {
                return Err(StoreError::new(format!("PostgreSQL's primary is changing: {reason}")));
            }
            sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }

    /// Notes that another server owns the shard, or has to open it.
    pub(super) fn lose(&self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        self.duty.lose();
        StoreError::lost(why)
    }
}
