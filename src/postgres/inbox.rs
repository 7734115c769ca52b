//! [`Inbox`]: the keys of handled messages, claimed in the handler's own transaction.

use std::time::Duration;

use tokio_postgres::{Transaction, types::Type};

use super::{
    connection::{Postgres, Value},
    error::PostgresError,
    key::{milliseconds, stored},
    purge::Purge,
    table::Table,
};

/// How long a key is remembered by default.
const KEEP: Duration = Duration::from_secs(7 * 86_400);

/// The keys of handled messages, in the database that the handler changes. A message has its effect exactly once there,
/// however often it is delivered, because its key and its effect are committed together.
///
/// Claims of one key wait for each other: a second transaction goes on when the first has ended, and then either finds
/// the key or takes it.
///
/// ```no_run
/// use dms_worker::{
///     Delivery, HandlerError,
///     postgres::{Inbox, tokio_postgres::Client},
/// };
///
/// async fn charge(inbox: &Inbox, db: &mut Client, delivery: Delivery) -> Result<(), HandlerError> {
///     let order = delivery.attribute("order_id").ok_or_else(|| HandlerError::reject("no order_id"))?.into_owned();
///     let transaction = db.transaction().await?;
///     if !inbox.claim(&transaction, &order).await? {
///         return Ok(()); // handled before: the message is acknowledged
///     }
///     transaction.execute("UPDATE accounts SET cents = cents - 100 WHERE order_id = $1", &[&order]).await?;
///     transaction.commit().await?; // the charge and the key, or neither
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Inbox {
    table: Table,
    scope: String,
    keep: Duration,
    purge: Purge,
}

impl Inbox {
    /// An inbox in the table `inbox` of the schema of `postgres`, which must be the database of the transactions.
    pub fn new(postgres: Postgres) -> Self {
        let table = Table::new(postgres, "inbox", definition);
        Self { table, scope: String::new(), keep: KEEP, purge: Purge::default() }
    }

    /// Separates the keys of this inbox from the keys of other handlers in the same schema. Default: empty.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// How long a key is remembered. Default: 7 days. It must be longer than a message can be redelivered.
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// Creates the table if it is missing, on a separate connection. The first claim does the same.
    ///
    /// # Errors
    /// If PostgreSQL cannot be reached, or refuses to create the table.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the table created.
    pub async fn set_up(&self) -> Result<(), PostgresError> {
        self.table.set_up().await
    }

    /// Claims a key in a transaction. Returns `false` if a committed transaction has claimed it before: the message was
    /// handled, so roll back and return `Ok(())`. If the transaction is rolled back, the key stays free.
    ///
    /// # Errors
    /// If PostgreSQL refuses the statement. In a transaction that is `REPEATABLE READ` or `SERIALIZABLE`, this can be a
    /// serialization failure, after which the message is redelivered.
    ///
    /// # Cancel safety
    /// A transaction in which the future was dropped should be rolled back, because the key may be claimed in it.
    pub async fn claim(&self, transaction: &Transaction<'_>, key: &str) -> Result<bool, PostgresError> {
        self.set_up().await?;
        let table = self.table.sql_name();
        self.purge.start_if_due(self.table.postgres(), &table);
        let sql = format!(
            "INSERT INTO {table} AS i (scope, key, until) \
             VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond') \
             ON CONFLICT (scope, key) DO UPDATE SET until = excluded.until WHERE i.until <= clock_timestamp()"
        );
        let values: [Value<'_>; 3] =
            [(&self.scope, Type::TEXT), (&stored(key), Type::TEXT), (&milliseconds(self.keep), Type::INT8)];
        Ok(transaction.execute_typed(&sql, &values).await? == 1)
    }
}

fn definition(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (scope text NOT NULL, key text NOT NULL, until timestamptz NOT NULL, \
         PRIMARY KEY (scope, key)); CREATE INDEX IF NOT EXISTS inbox_until ON {table} (until)"
    )
}
