//! [`PostgresStore`]: a store of keys in PostgreSQL, for [`Deduplicate`](super::Deduplicate).

use std::{
    borrow::Cow,
    error::Error as StdError,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::{sync::OnceCell, time::Instant};
use tokio_postgres::types::Type;

use super::deduplicate::{Claim, KeyStore, Token};
use crate::postgres::{Postgres, PostgresError};

/// The longest key that is stored as it is. PostgreSQL's indexes take 2,704 bytes at most.
const MAX_KEY: usize = 512;
/// The longest time that is stored: a hundred years, as 'infinity' cannot be added to a time.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
/// How often expired keys are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
/// The maximum number of keys that one statement deletes, so that it holds no lock for long.
const PURGE_BATCH: i64 = 5_000;

/// A store of keys in PostgreSQL, which all replicas of a worker share.
///
/// Times are those of the database, so the clocks of the replicas do not matter. Expired keys are deleted once a minute.
/// The table `keys` is created in the schema of the [`Postgres`] when the store is first used.
///
/// ```no_run
/// use std::time::Duration;
/// use dms_worker::{layers::{Deduplicate, PostgresStore}, postgres::Postgres};
///
/// let postgres = Postgres::builder("postgres://shop:secret@db/shop").build()?;
/// let store = PostgresStore::new(postgres).scope("billing");
/// let layer = Deduplicate::by_attribute("order_id", store, Duration::from_secs(86_400)); // for WorkerBuilder::layer
/// # let _ = layer;
/// # Ok::<(), dms_worker::postgres::PostgresError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PostgresStore {
    postgres: Postgres,
    scope: String,
    created: Arc<OnceCell<()>>,
    purged: Arc<Mutex<Option<Instant>>>,
}

impl PostgresStore {
    /// A store in this database. Nothing is connected until the first claim.
    pub fn new(postgres: Postgres) -> Self {
        Self { postgres, scope: String::new(), created: Arc::default(), purged: Arc::default() }
    }

    /// Separates the keys of this store from those of others in the same schema. Default: empty.
    ///
    /// Give the workers of different queues or groups different scopes, unless the work of a key is the same for all.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Connects and creates the table if it is missing, to find mistakes when the program starts. Claims do the same.
    ///
    /// # Errors
    /// If PostgreSQL cannot be reached, or refuses to create the table.
    pub async fn set_up(&self) -> Result<(), PostgresError> {
        self.created.get_or_try_init(|| self.create()).await.copied()
    }

    async fn create(&self) -> Result<(), PostgresError> {
        let table = self.table();
        let definition = format!(
            "CREATE TABLE IF NOT EXISTS {table} (scope text NOT NULL, key text NOT NULL, owner text NOT NULL, \
             done boolean NOT NULL, until timestamptz NOT NULL, PRIMARY KEY (scope, key)); \
             CREATE INDEX IF NOT EXISTS keys_until ON {table} (until)"
        );
        self.postgres.create("keys", &definition).await
    }

    fn table(&self) -> String {
        format!("\"{}\".keys", self.postgres.schema())
    }

    /// Deletes expired keys, unless that was done a short time ago.
    fn purge(&self) {
        {
            let mut purged = self.purged.lock().unwrap_or_else(PoisonError::into_inner);
            if purged.is_some_and(|at| at.elapsed() < PURGE_INTERVAL) {
                return;
            }
            *purged = Some(Instant::now());
        }
        let (postgres, table) = (self.postgres.clone(), self.table());
        // Rows that another replica is deleting are skipped: replicas do not wait for each other.
        let sql = format!(
            "WITH gone AS (DELETE FROM {table} WHERE (scope, key) IN (SELECT scope, key FROM {table} \
             WHERE until <= clock_timestamp() LIMIT {PURGE_BATCH} FOR UPDATE SKIP LOCKED) RETURNING 1) \
             SELECT count(*) FROM gone"
        );
        tokio::spawn(async move {
            loop {
                match postgres.query(&sql, &[]).await {
                    Ok(rows) if count(&rows) >= PURGE_BATCH => {}
                    Ok(_) => return,
                    Err(error) => return tracing::warn!(%error, "expired keys could not be deleted"),
                }
            }
        });
    }
}

fn count(rows: &[tokio_postgres::Row]) -> i64 {
    rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0)
}

/// The key as a text that PostgreSQL can index: long ones, and those with a NUL, are replaced by their hash.
fn stored(key: &str) -> Cow<'_, str> {
    if key.len() <= MAX_KEY && !key.contains('\0') {
        return key.into();
    }
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(key.as_bytes()) {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.min(LONGEST).as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl KeyStore for PostgresStore {
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn StdError + Send + Sync>> {
        self.set_up().await?;
        self.purge();
        let token = Token::random(key);
        let table = self.table();
        // One statement decides: of two inserts of a key, the second waits for the first and then sees its row. A claim
        // of the same owner is this one, sent again because the connection broke before the answer.
        let sql = format!(
            "WITH claimed AS (INSERT INTO {table} AS k (scope, key, owner, done, until) \
             VALUES ($1, $2, $3, false, clock_timestamp() + $4 * interval '1 millisecond') \
             ON CONFLICT (scope, key) DO UPDATE SET owner = excluded.owner, done = false, until = excluded.until \
             WHERE k.until <= clock_timestamp() OR k.owner = excluded.owner RETURNING 1) \
             SELECT EXISTS (SELECT 1 FROM claimed), \
             EXISTS (SELECT 1 FROM {table} WHERE scope = $1 AND key = $2 AND done)"
        );
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
            (&self.scope, Type::TEXT),
            (&stored(key), Type::TEXT),
            (&token.owner(), Type::TEXT),
            (&milliseconds(lease), Type::INT8),
        ];
        let rows = self.postgres.query(&sql, &values).await?;
        let row = rows.first().ok_or("PostgreSQL returned no row")?;
        Ok(match (row.try_get(0)?, row.try_get(1)?) {
            (true, _) => Claim::New(token),
            (false, true) => Claim::Done,
            // The row can be younger than the statement, which then cannot see whether its work is done. The caller asks
            // again.
            (false, false) => Claim::InProgress,
        })
    }

    async fn done(&self, token: &Token, keep: Duration) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.set_up().await?;
        let sql = format!(
            "INSERT INTO {} (scope, key, owner, done, until) \
             VALUES ($1, $2, $3, true, clock_timestamp() + $4 * interval '1 millisecond') \
             ON CONFLICT (scope, key) DO UPDATE SET owner = excluded.owner, done = true, until = excluded.until",
            self.table()
        );
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
            (&self.scope, Type::TEXT),
            (&stored(token.key()), Type::TEXT),
            (&token.owner(), Type::TEXT),
            (&milliseconds(keep), Type::INT8),
        ];
        self.postgres.query(&sql, &values).await?;
        Ok(())
    }

    async fn release(&self, token: &Token) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let sql = format!("DELETE FROM {} WHERE scope = $1 AND key = $2 AND owner = $3 AND NOT done", self.table());
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&self.scope, Type::TEXT), (&stored(token.key()), Type::TEXT), (&token.owner(), Type::TEXT)];
        self.postgres.query(&sql, &values).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_cannot_be_indexed_are_hashed() {
        assert_eq!(stored("order-7"), "order-7");
        assert_eq!(stored(&"x".repeat(MAX_KEY)).len(), MAX_KEY);
        let long = "x".repeat(MAX_KEY + 1);
        assert!(stored(&long).starts_with("sha256:") && stored(&long).len() == 71);
        assert_ne!(stored("a\0b"), stored("a\0c"));
    }

    #[test]
    fn a_time_without_end_fits_into_the_database() {
        assert_eq!(milliseconds(Duration::from_millis(1500)), 1500);
        assert_eq!(milliseconds(Duration::MAX), 3_153_600_000_000);
    }
}
