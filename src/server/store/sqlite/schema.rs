//! The tables of the database file, and how an older file is brought up to date.
//!
//! `user_version` counts the [`MIGRATIONS`] that were applied; each runs once, in a transaction of its own, when the file
//! is opened. A change of the tables is a new migration at the end; those that were released are never edited.
//!
//! | table | one row for | notes |
//! |---|---|---|
//! | `counter` | the file | the number of the next queue or group |
//! | `queues`, `consumer_groups`, `tags` | what their names say | a queue's stream has its number, its lot the next one; a group's reader its number, its dead-letter stream and reader the next one |
//! | `streams` | a stream or lot | `low..next` are its messages; a lot counts them in `parked` |
//! | `messages` | a message | `id` = stream << 40 \| place: appended at the end of each stream, read by range, no other index |
//! | `due` | a message in a lot | by due time |
//! | `readers` | a reader | `head`: nothing from there on was handed out; every page below `page` is settled |
//! | `settled` | 1,024 places of a reader | `bits`: what is settled; `failures`: pairs of place and count, 16 bits each, little-endian |
//! | `garbage` | a stream or reader whose owner was deleted | emptied in the background |

use rusqlite::{Connection, TransactionBehavior};

/// Marks a file as ours: "DMSW".
pub(super) const APPLICATION_ID: i32 = 0x444D_5357;

/// Bits of an id that are the place in the stream.
pub(super) const PLACE_BITS: u32 = 40;

/// What brings a file from version N to N + 1, in order.
const MIGRATIONS: &[&str] = &["
CREATE TABLE counter (next_number INTEGER NOT NULL);
INSERT INTO counter VALUES (1);
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
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    entered_ms INTEGER NOT NULL,
    body_bytes INTEGER NOT NULL,
    labels TEXT,
    json BLOB NOT NULL
);
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
"];

/// The version that this program writes.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// Applies the migrations that a file of this version lacks.
pub(super) fn migrate(conn: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (done, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", done + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
