//! The tables of the index, and how an older file is brought up to date.
//!
//! `user_version` is that of the file: [`OLDEST_VERSION`] and one for each of the [`MIGRATIONS`] behind the first. Each runs once, in
//! a transaction of its own, when the file is opened. A change of the tables is a new migration at the end; those that were
//! released are never edited.
//!
//! | table | one row for | notes |
//! |---|---|---|
//! | `counter` | the file | the number of the next queue or group; the log's own number, and up to where it is in here |
//! | `queues`, `consumer_groups`, `tags` | what their names say | a queue's stream has its number, its lot the next one; a group's reader its number, its dead-letter stream and reader the next one |
//! | `retention` | a queue of which it was said how long it keeps messages | without a row the server's settings count |
//! | `streams` | a stream or lot | `low..next` are its messages; a lot counts them in `delayed` |
//! | `runs` | messages that follow each other in the log | `id` = stream << 40 \| place of the first: read by range, no other index |
//! | `segments` | a file of the log | `live`: bytes of the runs that are there |
//! | `due` | a message in a lot, a run of its own | by due time |
//! | `cursors` | a reader | `head`: nothing from there on was handed out; every page below `page` is settled |
//! | `settled` | 1,024 places of a reader | `bits`: what is settled; `failures`: pairs of place and count, 16 bits each, little-endian |
//! | `totals` | a small table | how many rows it has, and the sum of their checksums: see `sums` |
//! | `garbage` | a stream or reader whose owner was deleted | emptied in the background |

use rusqlite::{Connection, TransactionBehavior};

use crate::store::disk::index::checksums;

/// Marks a file as ours: "DMSW".
pub(crate) const APPLICATION_ID: i32 = 0x444D_5357;

/// Bits of an id that are the place in the stream.
pub(crate) const PLACE_BITS: u32 = 40;

/// What brings a file from version N to N + 1, in order.
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
    // Changes no table. Dead letters in the log may say why they are ones, which version 0.1.0 would take for damage.
    "SELECT 1;",
    // Changes no table. Messages in the log have checksums of their own, which earlier versions would take for damage.
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
];

/// The version whose rows have checksums.
const CHECKSUM_VERSION: usize = 5;

/// The version that the first migration makes. Version 1 kept messages in a table; no release wrote it.
pub(crate) const OLDEST_VERSION: usize = 2;

/// The version that this program writes.
pub(crate) const VERSION: usize = OLDEST_VERSION + MIGRATIONS.len() - 1;

/// Applies the migrations that a file of this version lacks; 0 is a file without tables.
pub(crate) fn migrate(conn: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (makes, migration) in (OLDEST_VERSION..).zip(MIGRATIONS).filter(|(makes, _)| *makes > version) {
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
