//! [`Outbox`]: messages that are sent if, and only if, a transaction is committed.

use std::time::Duration;

use tokio_postgres::{Row, Transaction, types::Type};

use super::{
    connection::{Postgres, Value},
    error::PostgresError,
    key::{milliseconds, stored},
    table::Table,
};
use crate::{
    client::check_message,
    message::{Attributes, Body, Message},
    worker::attributes::DEDUPLICATION_KEY,
};

/// Messages in a table of the application's database. [`send`](Self::send) adds one in the application's own transaction,
/// and a [`Relay`](super::Relay) sends committed messages to their queues.
///
/// If the relay is killed after a send and before it has deleted the message, the message is sent again with the same
/// [deduplication key](Message::deduplication_key). This project's server stores it once, if that happens within the
/// relay's [window](super::Relay::deduplication_window). Other services store it twice, with the same text in the attribute
/// [`dms-deduplication-key`](crate::worker::attributes::DEDUPLICATION_KEY). A consumer with an [`Inbox`](super::Inbox) or
/// [`Deduplicate`](crate::layers::Deduplicate) handles it once.
///
/// ```no_run
/// use dms_worker::{
///     Client, Message,
///     postgres::{Outbox, tokio_postgres},
/// };
///
/// async fn order(outbox: &Outbox, db: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
///     let transaction = db.transaction().await?;
///     transaction.execute("INSERT INTO orders (id) VALUES (7)", &[]).await?;
///     outbox.send(&transaction, "orders", &Message::json(&7)?).await?;
///     transaction.commit().await?; // the order and its message, or neither
///     Ok(())
/// }
///
/// async fn relay(outbox: &Outbox, client: Client) {
///     outbox.relay(client).run(async { drop(tokio::signal::ctrl_c().await) }).await;
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Outbox {
    table: Table,
}

/// A message that the relay has read.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: i64,
    pub(super) queue: String,
    /// The deduplication key for the server.
    pub(super) key: String,
    pub(super) message: Message,
}

impl Outbox {
    /// An outbox in the table `outbox` of the schema of `postgres`, which must be the database of the transactions.
    pub fn new(postgres: Postgres) -> Self {
        Self { table: Table::new(postgres, "outbox", definition) }
    }

    /// Creates the table if it is missing, on a separate connection. The first send and the relay do the same.
    ///
    /// # Errors
    /// If PostgreSQL cannot be reached, or refuses to create the table.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the table created.
    pub async fn set_up(&self) -> Result<(), PostgresError> {
        self.table.set_up().await
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Adds a message for the queue with this name or id in a transaction. Returns its deduplication key: the attribute
    /// `dms-deduplication-key` of the message, or a random one.
    ///
    /// # Errors
    /// If the message is outside the limits of the service, in which case the transaction can go on, or PostgreSQL refuses
    /// the statement.
    ///
    /// # Cancel safety
    /// A transaction in which the future was dropped should be rolled back, because the row may be in it.
    pub async fn send(
        &self,
        transaction: &Transaction<'_>,
        queue: &str,
        message: &Message,
    ) -> Result<String, PostgresError> {
        check_message(message)
            .map_err(|error| PostgresError::Setting { setting: "message", reason: error.to_string() })?;
        self.set_up().await?;
        let given = message.attributes.text(DEDUPLICATION_KEY);
        let key = given.map_or_else(|| format!("{:032x}", fastrand::u128(..)), std::borrow::Cow::into_owned);
        let sql = format!(
            "INSERT INTO {} (queue, key, body, attributes, tags, available) \
             VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6 * interval '1 millisecond')",
            self.table.sql_name()
        );
        let values: [Value<'_>; 6] = [
            (&queue, Type::TEXT),
            (&key, Type::TEXT),
            (&message.body.as_str(), Type::TEXT),
            (&message.attributes.to_json(), Type::TEXT),
            (&message.tags, Type::TEXT_ARRAY),
            (&milliseconds(message.delay), Type::INT8),
        ];
        transaction.execute_typed(&sql, &values).await?;
        Ok(key)
    }
}

fn definition(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
         queue text NOT NULL, key text NOT NULL DEFAULT gen_random_uuid()::text, body text NOT NULL, \
         attributes text NOT NULL DEFAULT '{{}}', \
         tags text[] NOT NULL DEFAULT '{{}}' CHECK (array_position(tags, NULL) IS NULL), \
         available timestamptz NOT NULL DEFAULT clock_timestamp() CHECK (isfinite(available)), refused text); \
         CREATE INDEX IF NOT EXISTS outbox_pending ON {table} (id) WHERE refused IS NULL"
    )
}

impl Pending {
    /// The columns that [`Pending::read`] needs.
    pub(super) const COLUMNS: &'static str = "id, queue, key, body, attributes, tags, \
        greatest(0, extract(epoch FROM available - clock_timestamp()) * 1000)::bigint";

    /// Reads a row. The message gets the rest of its delay, and its deduplication key.
    pub(super) fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let (key, attributes, body): (String, String, String) = (row.try_get(2)?, row.try_get(4)?, row.try_get(3)?);
        // `send` writes both as JSON. Other programs may not: such a message is refused with the reason.
        let (attributes, malformed) = match Attributes::raw(attributes) {
            Ok(mut attributes) => {
                attributes.insert(DEDUPLICATION_KEY, key.as_str());
                (attributes, None)
            }
            Err(error) => (Attributes::new(), Some(format!("its attributes are no JSON object: {error}"))),
        };
        let body = match (malformed, Body::raw(body.clone())) {
            (None, Ok(body)) => body,
            (None, Err(error)) => Body::undecodable(body.into(), &error.to_string()),
            (Some(reason), _) => Body::undecodable(body.into(), &reason),
        };
        let mut message = Message::new(body);
        message.attributes = attributes;
        message.tags = row.try_get(5)?;
        message.delay = Duration::from_millis(u64::try_from(row.try_get::<_, i64>(6)?).unwrap_or(0));
        Ok(Self { id: row.try_get(0)?, queue: row.try_get(1)?, key: stored(&key).into_owned(), message })
    }
}
