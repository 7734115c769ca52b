//! [`Table`]: a table in the application's database, created when it is first used.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::{connection::Postgres, error::PostgresError};

/// A table in the schema of a [`Postgres`]. Clones share whether it was created.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    postgres: Postgres,
    name: &'static str,
    /// The statements that create the table with this name in SQL, and its indexes.
    definition: fn(&str) -> String,
    created: Arc<OnceCell<()>>,
}

impl Table {
    pub(crate) fn new(postgres: Postgres, name: &'static str, definition: fn(&str) -> String) -> Self {
        Self { postgres, name, definition, created: Arc::default() }
    }

    /// Creates the table if it is missing, on the shared connection. Only the first success asks the database.
    pub(crate) async fn set_up(&self) -> Result<(), PostgresError> {
        let create = || async {
            let name = self.sql_name();
            self.postgres.create(&name, &(self.definition)(&name)).await
        };
        self.created.get_or_try_init(create).await.copied()
    }

    /// The quoted name with its schema.
    pub(crate) fn sql_name(&self) -> String {
        format!("\"{}\".{}", self.postgres.schema(), self.name)
    }

    pub(crate) fn postgres(&self) -> &Postgres {
        &self.postgres
    }
}
