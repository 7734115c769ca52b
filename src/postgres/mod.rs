//! PostgreSQL of the application: an [`Inbox`] and an [`Outbox`] that take part in its transactions, and connections for
//! [`PostgresStore`](crate::layers::PostgresStore).
//!
//! | task | type |
//! |---|---|
//! | give a message its effect exactly once, in the database that the handler changes | [`Inbox`] |
//! | send a message if, and only if, a transaction is committed | [`Outbox`] and [`Relay`] |
//! | do the work of each key once, whatever it changes | [`PostgresStore`](crate::layers::PostgresStore) |
//!
//! A [`Postgres`] connects when it is first used and again after a failure, so a program starts while its database is
//! down. It sends unnamed statements only, which connection poolers such as PgBouncer pass on.

mod builder;
mod connection;
mod error;
mod inbox;
pub(crate) mod key;
mod outbox;
pub(crate) mod purge;
mod relay;
pub(crate) mod table;

/// The driver whose transactions the inbox and the outbox take part in.
pub use tokio_postgres;

pub(crate) use self::connection::Value;
pub use self::{
    builder::PostgresBuilder,
    connection::Postgres,
    error::PostgresError,
    inbox::Inbox,
    outbox::Outbox,
    relay::{Relay, RelayReport},
};
