//! [`Claim`]: all shards at once, for a program that exports or imports them while no server runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use crate::store::{
    QueueRow, Snapshot,
    postgres::{
        PgStore,
        config::PostgresConfig,
        connect::Connector,
        duty::OwnerStatus,
        error::{PostgresError, within},
        member::Member,
        runtime::Runtime,
        schema,
    },
};

/// How much longer than twice the time for which an owner may be silent it is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one statement may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The shards of a schema, until the value is dropped. Dropping it is like a crash; [`leave`](Self::leave) comes after the stores were
/// released.
#[derive(Debug)]
pub(crate) struct Claim {
    /// In the order of their numbers.
    pub(crate) shards: Vec<(PgStore, Snapshot)>,
    /// Which commits they have, as text.
    pub(crate) state: String,
    member: Arc<Member>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.member.stop();
    }
}

impl Claim {
    /// Claims the shards of tables that exist.
    ///
    /// # Errors
    /// When there are none, a server owns one of them, or PostgreSQL fails.
    pub(crate) fn existing(config: &PostgresConfig) -> Result<Self, PostgresError> {
        let runtime = Arc::new(Runtime::start()?);
        runtime.block_on(within(TIMEOUT, async {
            // Looked at before joining, because joining makes tables that are missing: a mistyped schema would be
            // exported as an empty one.
            let session = Connector::new(config, "dms/export")?.connect().await?;
            match schema::exists_with_tables(&session, &config.schema).await? {
                true => Ok(()),
                false => Err(PostgresError::NoTables { schema: config.schema.clone() }),
            }
        }))?;
        Self::all(config, &runtime)
    }

    /// Claims the shards to import an export. The tables are made if they are missing.
    ///
    /// # Errors
    /// When another import has not finished, a server owns a shard, or PostgreSQL fails.
    pub(crate) fn for_import(config: &PostgresConfig, export: &str) -> Result<Self, PostgresError> {
        let config = PostgresConfig { importing: Some(export.to_owned()), ..config.clone() };
        Self::all(&config, &Arc::new(Runtime::start()?))
    }

    fn all(config: &PostgresConfig, runtime: &Arc<Runtime>) -> Result<Self, PostgresError> {
        config.check()?;
        let member = runtime.block_on(Member::join(config, runtime.clone()))?;
        // Dropped after an error, which ends the registration.
        let mut claim = Self { shards: Vec::new(), state: String::new(), member };
        let found = match runtime.block_on(claim.take_all(config.takeover_after * 2 + PATIENCE)) {
            Ok(found) => found,
            Err(error) => {
                claim.leave();
                return Err(error);
            }
        };
        let commits: Vec<_> = found.values().map(|(store, _)| store.last_commit().to_string()).collect();
        claim.state = format!("postgres {:08x} {}", claim.member.tables.log, commits.join(" "));
        claim.shards = found.into_values().collect();
        Ok(claim)
    }

    async fn take_all(&self, limit: Duration) -> Result<BTreeMap<i32, (PgStore, Snapshot)>, PostgresError> {
        let (mut views, mut taken, began) = (self.member.views(), BTreeMap::new(), Instant::now());
        loop {
            let view = views.borrow_and_update().clone();
            let mut owners = Vec::new();
            for shard in view.shards.iter().filter(|shard| !taken.contains_key(&shard.shard)).collect::<Vec<_>>() {
                if shard.status == OwnerStatus::Alive {
                    let owner = shard.owner.id.as_deref().and_then(|id| view.member(id));
                    owners.push(owner.map_or_else(String::new, |owner| owner.name.clone()));
                // A shard whose server has just crashed is still alive by its row. It is looked at again with each
                // view until the limit.
                } else if let Some(duty) = self.member.take_away(shard).await? {
                    taken.insert(shard.shard, PgStore::open(&self.member, &duty).await?);
                }
            }
            if taken.len() == self.member.tables.shards as usize {
                return Ok(taken);
            }
            if self.member.is_dead() || began.elapsed() >= limit {
                for (store, _) in taken.values() {
                    // Others take them sooner.
                    let _ = self.member.release(store.duty()).await;
                }
                owners.sort();
                owners.dedup();
                return Err(PostgresError::Served { owners: owners.join(", ") });
            }
            let _ = timeout(Duration::from_secs(1), views.changed()).await;
        }
    }

    /// Whether an import has begun.
    pub(crate) fn is_marked(&self) -> bool {
        self.member.tables.importing.is_some()
    }

    /// Sets or removes the mark of an import.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) fn mark(&self, export: Option<&str>) -> Result<(), PostgresError> {
        self.member.runtime.block_on(within(TIMEOUT, async {
            let session = self.member.connector.connect().await?;
            session.execute("UPDATE cluster SET importing = $1", &[&export]).await?;
            Ok::<_, PostgresError>(())
        }))
    }

    /// Notes that a queue is in another shard than the one of its name.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) fn note_place(&self, row: &QueueRow, shard: i32) -> Result<(), PostgresError> {
        self.member.runtime.block_on(within(TIMEOUT, async {
            let session = self.member.connector.connect().await?;
            let insert = "INSERT INTO queue_elsewhere (project, name, shard, id) VALUES ($1, $2, $3, $4) \
                          ON CONFLICT (project, name) DO UPDATE SET shard = excluded.shard, id = excluded.id";
            session.execute(insert, &[&row.project.as_str(), &row.name, &shard, &row.id.as_str()]).await?;
            Ok::<_, PostgresError>(())
        }))
    }

    /// Ends the registration, after the stores were released.
    pub(crate) fn leave(&self) {
        self.member.runtime.block_on(self.member.leave());
    }
}
