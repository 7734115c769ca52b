//! [`Purge`]: deletes expired rows now and then.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::connection::Postgres;

/// How often expired rows are deleted.
const INTERVAL: Duration = Duration::from_secs(60);
/// The maximum number of rows that one statement deletes, so that it holds no lock for long.
const BATCH: i64 = 5_000;

/// Deletes the rows of a table whose time `until` has passed, once a minute at most. Clones share the time of the last
/// deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct Purge(Arc<Mutex<Option<Instant>>>);

impl Purge {
    /// Deletes expired rows in the background, unless that was done a short time ago. `table` has the columns `scope`,
    /// `key` and `until`.
    pub(crate) fn start_if_due(&self, postgres: &Postgres, table: &str) {
        if !self.is_due() {
            return;
        }
        // Rows that another replica is deleting are skipped: replicas do not wait for each other.
        let sql = format!(
            "WITH gone AS (DELETE FROM {table} WHERE (scope, key) IN (SELECT scope, key FROM {table} \
             WHERE until <= clock_timestamp() LIMIT {BATCH} FOR UPDATE SKIP LOCKED) RETURNING 1) \
             SELECT count(*) FROM gone"
        );
        let postgres = postgres.clone();
        tokio::spawn(async move {
            loop {
                match postgres.query(&sql, &[]).await {
                    Ok(rows) if rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0) >= BATCH => {}
                    Ok(_) => return,
                    Err(error) => return tracing::warn!(%error, "expired keys could not be deleted"),
                }
            }
        });
    }

    fn is_due(&self) -> bool {
        // No code that can panic runs under this lock.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|at| at.elapsed() >= INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}
