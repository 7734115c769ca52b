//! The tables, and how an older schema is brought up to date.
//!
//! `cluster.version` counts the [`MIGRATIONS`]. Each runs once. A change of the tables is a new migration at the end; a released
//! migration is never edited. A migration runs while servers of the version before serve: it only adds tables, and columns that may be left
//! out.
//!
//! | table | a row for | notes |
//! |---|---|---|
//! | `cluster` | the schema | its version; `importing` is the export that is being imported; `log` begins the checksums; `secret` proves servers to each other |
//! | `member` | a server that runs | `beat` grows each second; `url` is where other servers reach it |
//! | `shard` | a part of the queues with one owner | `epoch` grows with each owner: the fence of its commits; `wanted` is who shall own it next |
//! | `journal` | a commit | everything except messages, see `journal.rs`; deleted once it is in the image |
//! | `chunk_S_N` | messages that follow each other in a stream | S is the shard, N counts periods of six hours since 1970; only inserted into, and dropped |
//! | `parked` | a delayed message | |
//! | `sent_keys` | the deduplication keys of a commit | deleted after their windows |
//! | `schedule` | a schedule of a queue | written with the image |
//! | `job` | a redrive that the dashboard of a server began | `member` is the server that works on it; deleted at its end |
//! | `queue_elsewhere` | an imported queue that is not in the shard of its name | so that its name is not given twice |
//! | `leased` | a shard | the leases that an owner handed over when it stopped in order, good until the next commit |
//! | `image` | a shard | the last commit that the following tables contain |
//! | `queue`, `consumer_group`, `stream`, `reader`, `settled` | what their names say | written every few seconds, never by a commit |

use tokio_postgres::error::SqlState;

use crate::store::postgres::{
    connect::Session,
    error::PostgresError,
    shards::{DEFAULT_SHARDS, MAX_SHARDS},
};
use dms_protocol::{auth::canonical::hex, secret::Secret};

/// The errors of a session that makes a table at the same moment as another one.
const MADE_MEANWHILE: [SqlState; 3] =
    [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_OBJECT, SqlState::DUPLICATE_TABLE];

/// The version that this program writes.
pub(crate) const VERSION: i32 = 7;

/// The statements that migrate a schema from version N to N + 1, in order.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE cluster (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version int NOT NULL,
    shards int NOT NULL,
    log bigint NOT NULL,
    secret bytea NOT NULL
);
CREATE TABLE member (id text PRIMARY KEY, name text NOT NULL, url text NOT NULL, beat bigint NOT NULL) WITH (fillfactor = 20);
CREATE TABLE shard (id int PRIMARY KEY, owner text, epoch bigint NOT NULL) WITH (fillfactor = 20);
CREATE TABLE journal (
    shard int,
    commit_no bigint,
    epoch bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (shard, commit_no)
);
CREATE TABLE parked (
    shard int,
    lot bigint,
    seq bigint,
    due_ms bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (shard, lot, seq)
);
CREATE INDEX parked_due ON parked (shard, lot, due_ms, seq);
CREATE TABLE image (shard int PRIMARY KEY, commit_no bigint NOT NULL, next_number bigint NOT NULL);
CREATE TABLE queue (
    shard int,
    number bigint,
    facts text NOT NULL,
    tags text NOT NULL,
    retention text NOT NULL,
    PRIMARY KEY (shard, number)
);
CREATE TABLE consumer_group (shard int, number bigint, facts text NOT NULL, PRIMARY KEY (shard, number));
CREATE TABLE stream (
    shard int,
    number bigint,
    low bigint NOT NULL,
    next bigint NOT NULL,
    newest_ms bigint NOT NULL,
    PRIMARY KEY (shard, number)
) WITH (fillfactor = 50);
CREATE TABLE reader (
    shard int,
    number bigint,
    stream bigint NOT NULL,
    start bigint NOT NULL,
    head bigint NOT NULL,
    page bigint NOT NULL,
    consumed bigint NOT NULL,
    rule text,
    PRIMARY KEY (shard, number)
) WITH (fillfactor = 50);
CREATE TABLE settled (
    shard int,
    reader bigint,
    page bigint,
    bits bytea NOT NULL,
    failures bytea NOT NULL,
    PRIMARY KEY (shard, reader, page)
) WITH (fillfactor = 50);
INSERT INTO shard VALUES (0, NULL, 0);
INSERT INTO image VALUES (0, 0, 1);
",
    // Changes no table. Messages may have an origin or be for one group, and properties of queues change, which version 1 would
    // read as damage.
    "SELECT 1;",
    // Shards move between servers, and each has its own chunk tables.
    "
ALTER TABLE member ADD draining boolean NOT NULL DEFAULT false;
ALTER TABLE shard ADD wanted text, ADD pinned boolean NOT NULL DEFAULT false;
CREATE TABLE leased (shard int PRIMARY KEY, commit_no bigint NOT NULL, leases text NOT NULL);
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename ~ '^chunk_[0-9]+$' LOOP
        EXECUTE format('ALTER TABLE %I RENAME TO %I', name, replace(name, 'chunk_', 'chunk_0_'));
    END LOOP;
END
$$;
",
    "
CREATE TABLE sent_keys (
    shard int,
    until_ms bigint,
    commit_no bigint,
    keys bytea NOT NULL,
    PRIMARY KEY (shard, until_ms, commit_no)
);
",
    "
CREATE TABLE schedule (
    shard int,
    queue bigint,
    name text,
    facts text NOT NULL,
    progress text NOT NULL,
    PRIMARY KEY (shard, queue, name)
) WITH (fillfactor = 50);
",
    "CREATE TABLE job (id text PRIMARY KEY, member text NOT NULL, facts text NOT NULL);",
    // Queues can be imported. Their ids decide on their shards, whatever their names are.
    "
ALTER TABLE cluster ADD importing text;
CREATE TABLE queue_elsewhere (project text, name text, shard int NOT NULL, id text NOT NULL, PRIMARY KEY (project, name));
",
];

/// Makes the table of a slot, unless it exists.
///
/// # Errors
/// When PostgreSQL refuses.
pub(crate) async fn make_chunk_table(session: &Session, table: &str) -> Result<(), tokio_postgres::Error> {
    let sql = chunk_table(table);
    match session.batch(&sql).await {
        // `IF NOT EXISTS` does not see a table that another session makes at the same moment.
        Err(error) if error.code().is_some_and(|code| MADE_MEANWHILE.contains(code)) => session.batch(&sql).await,
        made => made,
    }
}

/// The table of a slot. Payloads are stored as they are, in the row as far as they fit into its page.
fn chunk_table(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (
    shard int,
    stream bigint,
    first bigint,
    n int NOT NULL,
    oldest_ms bigint NOT NULL,
    newest_ms bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (shard, stream, first)
) WITH (toast_tuple_target = 8160);
ALTER TABLE {table} ALTER payload SET STORAGE EXTERNAL;"
    )
}

/// The settings that are stored in the tables.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// The number that begins their checksums.
    pub(crate) log: u32,
    /// How many shards they have; it never changes.
    pub(crate) shards: u32,
    /// The secret by which servers on these tables recognize each other.
    pub(crate) secret: Secret,
    /// The export whose import has not finished.
    pub(crate) importing: Option<String>,
}

/// Makes or migrates the tables. New ones have as many shards as `shards` says. A session that failed here must be dropped.
///
/// # Errors
/// When the tables are of a later version or have another number of shards, or PostgreSQL refuses.
pub(crate) async fn prepare(session: &Session, schema: &str, shards: Option<u32>) -> Result<Tables, PostgresError> {
    // Looked at without the lock first: nearly every start finds tables that are up to date.
    let tables = match find(session, schema).await? {
        Some((VERSION, tables)) => tables,
        _ => {
            // Servers that start together wait for each other here. This lock ends with the transaction.
            session.batch("BEGIN; SELECT pg_advisory_xact_lock(hashtext('dms-worker schema'))").await?;
            let tables = migrate(session, schema, shards).await?;
            session.batch("COMMIT").await?;
            tables
        }
    };
    match shards.filter(|shards| *shards != tables.shards) {
        None => Ok(tables),
        Some(shards) => Err(PostgresError::Shards { schema: schema.to_owned(), found: tables.shards, wanted: shards }),
    }
}

async fn migrate(session: &Session, schema: &str, shards: Option<u32>) -> Result<Tables, PostgresError> {
    // Looked at again under the lock, because another server may have made or migrated the tables while this one
    // waited for it.
    let found = find(session, schema).await?;
    let from = found.as_ref().map_or(0, |(version, _)| *version);
    if from == 0 && !exists(session, schema).await? {
        session.batch(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"")).await?;
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0)) {
        session.batch(migration).await?;
    }
    if let Some((_, tables)) = found {
        session.batch(&format!("UPDATE cluster SET version = {VERSION}")).await?;
        return Ok(tables);
    }
    let (log, secret) = new_log_and_secret()?;
    let shards = shards.unwrap_or(DEFAULT_SHARDS);
    let count = i32::try_from(shards).unwrap_or(i32::MAX);
    let insert = "INSERT INTO cluster (version, shards, log, secret) VALUES ($1, $2, $3, $4)";
    session.execute(insert, &[&VERSION, &count, &i64::from(log), &secret]).await?;
    for rows in [
        "INSERT INTO shard (id, epoch) SELECT n, 0 FROM generate_series(1, $1 - 1) n",
        "INSERT INTO image (shard, commit_no, next_number) SELECT n, 0, 1 FROM generate_series(1, $1 - 1) n",
    ] {
        session.execute(rows, &[&count]).await?;
    }
    tracing::info!(schema, version = VERSION, shards, "the tables were made in PostgreSQL");
    Ok(Tables { log, shards, secret: Secret::from(hex(&secret)), importing: None })
}

async fn exists(session: &Session, schema: &str) -> Result<bool, PostgresError> {
    Ok(!session.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&schema]).await?.is_empty())
}

/// The version of the tables and their settings. `None` if there are no tables.
async fn find(session: &Session, schema: &str) -> Result<Option<(i32, Tables)>, PostgresError> {
    let asked = "SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'cluster'";
    if session.query(asked, &[&schema]).await?.is_empty() {
        return Ok(None);
    }
    // Older tables do not have the last column.
    let asked = "SELECT version, log, shards, secret, to_jsonb(cluster) ->> 'importing' FROM cluster";
    let rows = session.query(asked, &[]).await?;
    let damaged = |reason: &str| PostgresError::Damaged { schema: schema.to_owned(), reason: reason.to_owned() };
    let row = rows.first().ok_or_else(|| damaged("the table cluster is empty"))?;
    let found: i32 = row.try_get(0)?;
    if found > VERSION {
        return Err(PostgresError::Newer { schema: schema.to_owned(), found, known: VERSION });
    }
    let log = u32::try_from(row.try_get::<_, i64>(1)?).map_err(|_| damaged("cluster.log is out of range"))?;
    let shards = u32::try_from(row.try_get::<_, i32>(2)?).ok().filter(|shards| (1..=MAX_SHARDS).contains(shards));
    let shards = shards.ok_or_else(|| damaged("cluster.shards is out of range"))?;
    let secret = Secret::from(hex(row.try_get::<_, &[u8]>(3)?));
    let importing = row.try_get(4)?;
    Ok(Some((found, Tables { log, shards, secret, importing })))
}

/// Refuses tables that a later version has migrated since this server joined them, and those of an import that is not its own.
///
/// # Errors
/// [`PostgresError::Newer`], [`PostgresError::Importing`], or when PostgreSQL fails.
pub(crate) async fn refuse_unusable(session: &Session, schema: &str, own: Option<&str>) -> Result<(), PostgresError> {
    match find(session, schema).await? {
        Some((_, tables)) => tables.refuse_half_imported(schema, own),
        None => Ok(()),
    }
}

/// Whether there are tables.
///
/// # Errors
/// When they are of a later version, or PostgreSQL fails.
#[cfg(feature = "disk")]
pub(crate) async fn exists_with_tables(session: &Session, schema: &str) -> Result<bool, PostgresError> {
    Ok(find(session, schema).await?.is_some())
}

impl Tables {
    /// # Errors
    /// When the import of another export than `own` has not finished.
    pub(crate) fn refuse_half_imported(&self, schema: &str, own: Option<&str>) -> Result<(), PostgresError> {
        match &self.importing {
            Some(export) if own != Some(export) => {
                Err(PostgresError::Importing { schema: schema.to_owned(), export: export.clone() })
            }
            _ => Ok(()),
        }
    }
}

fn new_log_and_secret() -> Result<(u32, Vec<u8>), PostgresError> {
    let mut bytes = vec![0; 36];
    getrandom::fill(&mut bytes).map_err(|error| PostgresError::Failed(format!("no random numbers: {error}")))?;
    let secret = bytes.split_off(4);
    let log = bytes.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte));
    Ok((log, secret))
}
