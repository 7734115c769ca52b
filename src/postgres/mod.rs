//! PostgreSQL of the application: connections for [`PostgresStore`](crate::layers::PostgresStore).
//!
//! A [`Postgres`] connects when it is first used and again after a failure, so a program starts while its database is
//! down. It sends unnamed statements only, which connection poolers such as PgBouncer pass on.

mod builder;
mod connection;
mod error;

pub use self::{builder::PostgresBuilder, connection::Postgres, error::PostgresError};
