//! [`PostgresStore`]: a store of keys in PostgreSQL, for [`Deduplicate`](super::Deduplicate).

use std::{error::Error as StdError, time::Duration};

use async_trait::async_trait;
use tokio_postgres::types::Type;

use super::deduplicate::{Claim, KeyStore, Token};
use crate::postgres::{
    Postgres, PostgresError, Value,
    key::{milliseconds, stored},
    purge::Purge,
    table::Table,
};

/// A store of keys in PostgreSQL, which all replicas of a worker share.
///
/// All times come from the database's clock, so the clocks of the replicas do not matter. Expired keys are deleted once a minute.
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
    table: Table,
    scope: String,
    purge: Purge,
}

impl PostgresStore {
    /// A store in this database. Nothing is connected until the first claim.
    pub fn new(postgres: Postgres) -> Self {
        Self { table: Table::new(postgres, "keys", definition), scope: String::new(), purge: Purge::default() }
    }

    /// Separates the keys of this store from the keys of others in the same schema. Default: empty.
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
        self.table.set_up().await
    }
}

fn definition(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (scope text NOT NULL, key text NOT NULL, owner text NOT NULL, \
         done boolean NOT NULL, until timestamptz NOT NULL, PRIMARY KEY (scope, key)); \
         CREATE INDEX IF NOT EXISTS keys_until ON {table} (until)"
    )
}

#[async_trait]
impl KeyStore for PostgresStore {
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn StdError + Send + Sync>> {
        self.set_up().await?;
        let (token, table) = (Token::random(key), self.table.sql_name());
        self.purge.start_if_due(self.table.postgres(), &table);
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
        let values: [Value<'_>; 4] = [
            (&self.scope, Type::TEXT),
            (&stored(key), Type::TEXT),
            (&token.owner(), Type::TEXT),
            (&milliseconds(lease), Type::INT8),
        ];
        let rows = self.table.postgres().query(&sql, &values).await?;
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
            self.table.sql_name()
        );
        let values: [Value<'_>; 4] = [
            (&self.scope, Type::TEXT),
            (&stored(token.key()), Type::TEXT),
            (&token.owner(), Type::TEXT),
            (&milliseconds(keep), Type::INT8),
        ];
        self.table.postgres().query(&sql, &values).await?;
        Ok(())
    }

    async fn release(&self, token: &Token) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let sql =
            format!("DELETE FROM {} WHERE scope = $1 AND key = $2 AND owner = $3 AND NOT done", self.table.sql_name());
        let values: [Value<'_>; 3] =
            [(&self.scope, Type::TEXT), (&stored(token.key()), Type::TEXT), (&token.owner(), Type::TEXT)];
        self.table.postgres().query(&sql, &values).await?;
        Ok(())
    }
}
