//! [`Guard`]: a name that one server holds at a time, for a check and a change that belong together.

use std::{fmt, sync::Arc, time::Duration};

use crate::store::postgres::{
    connect::Session,
    error::{PostgresError, within},
    member::{Member, QueueElsewhere, TAKE_TIMEOUT, read_elsewhere},
};

/// How long the end of a transaction may take before the session is closed instead.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Holds a name until it is dropped.
pub(crate) struct Guard {
    member: Arc<Member>,
    session: Arc<Session>,
}

impl Guard {
    /// Waits until no other server, and nobody else on this one, holds the name.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) async fn take(member: &Arc<Member>, name: &str) -> Result<Self, PostgresError> {
        let (this, name) = (Arc::clone(member), name.to_owned());
        let guarded = async move {
            // A separate session, because the lock ends with its transaction.
            let session = match this.spare.swap(None).filter(|session| !session.is_closed()) {
                Some(session) if lock(&session, &name).await.unwrap_or(false) => session,
                _ => {
                    let session = this.connector.connect().await?;
                    lock(&session, &name).await?;
                    Arc::new(session)
                }
            };
            Ok::<_, PostgresError>(Self { member: this, session })
        };
        member.runtime.run(async move { within(TAKE_TIMEOUT, guarded).await }).await
    }

    /// As [`Member::queues_elsewhere`], on the connection of the guard.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) async fn queues_elsewhere(&self) -> Result<Vec<QueueElsewhere>, PostgresError> {
        let session = Arc::clone(&self.session);
        let read = async move { read_elsewhere(&session).await };
        self.member.runtime.run(async move { within(TAKE_TIMEOUT, read).await }).await
    }
}

/// Takes the lock. Returns whether the server takes writes: another one has its own locks.
async fn lock(session: &Session, name: &str) -> Result<bool, tokio_postgres::Error> {
    session.batch("BEGIN").await?;
    let taken = "SELECT pg_advisory_xact_lock(hashtext('dms-worker ' || $1)), NOT pg_is_in_recovery()";
    let rows = session.query(taken, &[&name]).await?;
    rows.first().map_or(Ok(false), |row| row.try_get(1))
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (member, session) = (Arc::clone(&self.member), Arc::clone(&self.session));
        self.member.runtime.spawn(async move {
            // A session that cannot end its transaction is closed, which ends it too.
            if within(END_TIMEOUT, session.batch("ROLLBACK")).await.is_ok() {
                member.spare.swap(Some(session));
            }
        });
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}
