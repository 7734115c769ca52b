//! The redrives that dashboards began: each belongs to one server, and another one takes it over when that server is gone.

use std::sync::Arc;

use crate::store::postgres::{
    connect::Session,
    error::{PostgresError, within},
    member::{LEAVE_TIMEOUT, Member},
};

/// A row of the table `job`.
#[derive(Debug)]
pub(crate) struct JobRow {
    pub(crate) id: String,
    /// What a server needs to continue the job.
    pub(crate) facts: String,
    /// The name of the server that works on the job, with the beginning of its id; `None` for this one.
    pub(crate) server: Option<String>,
}

impl Member {
    /// Stores a job as one of this server until it is forgotten, and replaces its stored state. Returns false if the job is another
    /// server's by now: others take over the jobs of a server that seems to be gone.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) async fn keep_job(self: &Arc<Self>, id: &str, facts: &str) -> Result<bool, PostgresError> {
        let (this, id, facts) = (Arc::clone(self), id.to_owned(), facts.to_owned());
        let insert = "INSERT INTO job (id, member, facts) VALUES ($1, $2, $3) \
                      ON CONFLICT (id) DO UPDATE SET facts = excluded.facts WHERE job.member = excluded.member";
        let kept = async move {
            let session = this.beats.get().await?;
            session.execute(insert, &[&id, &this.id, &facts]).await.map_err(PostgresError::from)
        };
        self.runtime.run(async move { within(LEAVE_TIMEOUT, kept).await }).await.map(|rows| rows > 0)
    }

    /// Forgets a job of this server. One that another server has taken over stays.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) async fn forget_job(self: &Arc<Self>, id: &str) -> Result<(), PostgresError> {
        let (this, id) = (Arc::clone(self), id.to_owned());
        let forgotten = async move {
            let session = this.beats.get().await?;
            let delete = "DELETE FROM job WHERE id = $1 AND member = $2";
            session.execute(delete, &[&id, &this.id]).await.map_err(PostgresError::from)
        };
        self.runtime.run(async move { within(LEAVE_TIMEOUT, forgotten).await }).await.map(drop)
    }

    /// The jobs of all servers, after this one has taken over the jobs of servers that are registered no more.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) async fn kept_jobs(self: &Arc<Self>) -> Result<Vec<JobRow>, PostgresError> {
        let this = Arc::clone(self);
        let read = async move { read(&*this.beats.get().await?, &this.id).await };
        self.runtime.run(async move { within(LEAVE_TIMEOUT, read).await }).await
    }
}

/// Reads all jobs, and takes over those whose server is gone.
async fn read(session: &Session, me: &str) -> Result<Vec<JobRow>, PostgresError> {
    let all = "SELECT job.id, job.facts, job.member, member.name FROM job LEFT JOIN member ON member.id = job.member";
    let mut jobs = Vec::new();
    for row in session.query(all, &[]).await? {
        let (id, facts, owner): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let server: Option<String> = row.try_get(3)?;
        // Servers may have the same name. The beginning of the id names one on the command line, too.
        let named = |name: String| format!("{name} ({})", owner.get(..4).unwrap_or(&owner));
        if server.is_none() {
            // Of the servers that see this at the same time, one finds the row as it was. A server that was declared dead takes nothing.
            let take = "UPDATE job SET member = $3 WHERE id = $1 AND member = $2 AND EXISTS (SELECT 1 FROM member WHERE id = $3)";
            if session.execute(take, &[&id, &owner, &me]).await? == 0 {
                continue;
            }
        }
        jobs.push(JobRow { id, facts, server: server.filter(|_| owner != me).map(named) });
    }
    Ok(jobs)
}
