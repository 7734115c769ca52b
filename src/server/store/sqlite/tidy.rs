//! What nobody waits for: emptying what was deleted, and copying the log into the database.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::load::id;
use crate::server::store::StreamNo;

/// Rows that one step deletes.
const STEP: usize = 1_000;

/// Deletes a bounded piece of what belonged to deleted queues and groups; whether there may be more.
pub(super) fn sweep(conn: &mut Connection) -> rusqlite::Result<bool> {
    let first =
        conn.prepare_cached("SELECT number FROM garbage LIMIT 1")?.query_row([], |row| row.get(0)).optional()?;
    let Some(number): Option<u32> = first else { return Ok(false) };
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let range = params![id(StreamNo(number), 0), id(StreamNo(number + 1), 0), STEP];
    let mut deleted = 0;
    {
        let step = |sql| transaction.prepare_cached(sql);
        deleted +=
            step("DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE id >= ?1 AND id < ?2 LIMIT ?3)")?
                .execute(range)?;
        deleted += step(
            "DELETE FROM due WHERE lot = ?1 AND (due_ms, place) IN \
             (SELECT due_ms, place FROM due WHERE lot = ?1 LIMIT ?2)",
        )?
        .execute(params![number, STEP])?;
        deleted += step(
            "DELETE FROM settled WHERE reader = ?1 AND page IN (SELECT page FROM settled WHERE reader = ?1 LIMIT ?2)",
        )?
        .execute(params![number, STEP])?;
        if deleted == 0 {
            step("DELETE FROM garbage WHERE number = ?1")?.execute([number])?;
        }
    }
    transaction.commit()?;
    Ok(true)
}

/// Copies what it can of the log without waiting for anybody; whether all of it is copied, so that the log begins anew.
pub(super) fn copy_log(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok(row.get::<_, i64>(1)? == row.get::<_, i64>(2)?))
}

/// Copies all of the log and cuts it off.
pub(super) fn end_log(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
