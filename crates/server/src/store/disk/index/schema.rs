//! The tables of the index, and how an older file is migrated.
//!
//! `user_version` is the version of the file: [`OLDEST_VERSION`], plus one for each of the [`MIGRATIONS`] after the first. Each of
//! them runs once, in its own transaction, when the file is opened. To change a table, add a migration at the end. Released
//! migrations are never edited.
//!
//! | table | one row for each | notes |
//! |---|---|---|
//! | `counter` | file | the number of the next queue or group; the number of the log, and the position up to which it is in the index |
//! | `queues`, `consumer_groups`, `tags` | queue, group, tag | the stream of a queue has its number, its delay queue the next one; the cursor of a group has its number, its dead-letter stream and the cursor on it the next one |
//! | `retention` | queue whose retention was set | without a row the server's settings apply |
//! | `schedules` | schedule of a queue | `facts` and `progress` are JSON; a tick changes `progress` alone |
//! | `streams` | stream or delay queue | `low..next` are its messages; `parked` is the number of messages of a delay queue |
//! | `runs` | run | `id` = stream << 40 \\| first sequence number: read by range, without another index |
//! | `segments` | segment of the log | `live`: the bytes of runs in it that are in use |
//! | `due` | delayed message, which is a run with one message | in the order of due times; `lot` is the delay queue |
//! | `readers` | cursor | `head`: no message from there on was leased; every page below `page` is settled |
//! | `settled` | 1,024 messages of a cursor | `bits`: which are settled; `failures`: pairs of position and count, 16 bits each, little-endian |
//! | `totals` | small table | its number of rows, and the sum of their checksums (see `checksums`) |
//! | `garbage` | deleted stream or cursor | its messages and pages are deleted in the background |

use rusqlite::{Connection, TransactionBehavior};

use crate::store::disk::index::checksums;

/// Marks a file as one of dms-worker: "DMSW".
pub(crate) const APPLICATION_ID: i32 = 0x444D_5357;

/// The bits of an id that are the sequence number.
pub(crate) const PLACE_BITS: u32 = 40;

/// The statements that bring a file from one version to the next, in order.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE counter (
    next_number INTEGER NOT NULL,
    log INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    frame INTEGER NOT NULL
);
INSERT INTO counter VALUES (1, random() & 0xffffffff, 1, 24, 1);
CREATE TABLE queues (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    mode TEXT NOT NULL,
    description TEXT NOT NULL,
    max_consume_count INTEGER,
    retention_hours INTEGER,
    created_ms INTEGER NOT NULL,
    UNIQUE (project, name)
);
CREATE TABLE consumer_groups (
    number INTEGER PRIMARY KEY,
    queue TEXT NOT NULL REFERENCES queues (id),
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    start INTEGER NOT NULL,
    UNIQUE (queue, name)
);
CREATE TABLE tags (
    queue TEXT NOT NULL REFERENCES queues (id),
    position INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (queue, position)
) WITHOUT ROWID;
CREATE TABLE streams (
    number INTEGER PRIMARY KEY,
    low INTEGER NOT NULL,
    next INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    parked INTEGER NOT NULL
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE segments (number INTEGER PRIMARY KEY, live INTEGER NOT NULL);
CREATE TABLE due (
    lot INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (lot, due_ms, place)
) WITHOUT ROWID;
CREATE TABLE readers (
    number INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    start INTEGER NOT NULL,
    head INTEGER NOT NULL,
    page INTEGER NOT NULL,
    consumed INTEGER NOT NULL,
    rule TEXT
);
CREATE TABLE settled (
    reader INTEGER NOT NULL,
    page INTEGER NOT NULL,
    bits BLOB NOT NULL,
    failures BLOB NOT NULL,
    PRIMARY KEY (reader, page)
) WITHOUT ROWID;
CREATE TABLE garbage (number INTEGER PRIMARY KEY);
",
    // Changes no table. Dead letters in the log may have a reason, which version 0.1.0 would read as damage.
    "SELECT 1;",
    // Changes no table. Messages in the log have their own checksums, which earlier versions would read as damage.
    "SELECT 1;",
    "
ALTER TABLE counter ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE consumer_groups ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tags ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE segments ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE due ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE readers ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE settled ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE garbage ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
CREATE TABLE totals (name TEXT PRIMARY KEY, rows INTEGER NOT NULL, sum INTEGER NOT NULL);
",
    "
CREATE TABLE retention (
    queue TEXT PRIMARY KEY,
    retention_ms INTEGER,
    delete_when_settled INTEGER,
    sum INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO totals VALUES ('retention', 0, 0);
",
    // Changes no table. Messages in the log may have an origin or be for one group, and properties of queues change, which earlier
    // versions would read as damage.
    "SELECT 1;",
    "
CREATE TABLE sent_keys (id INTEGER PRIMARY KEY, until_ms INTEGER NOT NULL, keys BLOB NOT NULL, sum INTEGER NOT NULL);
CREATE INDEX sent_keys_until ON sent_keys (until_ms);
",
    "
CREATE TABLE schedules (
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    facts TEXT NOT NULL,
    progress TEXT NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (queue, name)
) WITHOUT ROWID;
INSERT INTO totals VALUES ('schedules', 0, 0);
",
];

/// The first version whose rows have checksums.
const CHECKSUM_VERSION: usize = 5;

/// The version that the first migration makes. Version 1 kept messages in a table, and no release wrote it.
pub(crate) const OLDEST_VERSION: usize = 2;

/// The version that this program writes.
pub(crate) const VERSION: usize = OLDEST_VERSION + MIGRATIONS.len() - 1;

/// Applies the migrations that a file of this version lacks; 0 is a file without tables.
pub(crate) fn migrate(conn: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (makes, migration) in (OLDEST_VERSION..).zip(MIGRATIONS).filter(|(makes, _)| *makes > version) {
        // The version changes in the same transaction, so that after a crash a migration runs again only if nothing of it remained.
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(migration)?;
        if makes == CHECKSUM_VERSION {
            checksums::fill(&transaction)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", makes)?;
        transaction.commit()?;
    }
    Ok(())
}
