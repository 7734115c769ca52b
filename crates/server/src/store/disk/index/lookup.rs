//! Finds runs and due messages. Uses a separate connection to SQLite, so that reads do not wait for commits.

use std::{collections::BTreeSet, ops::Range};

use rusqlite::{Connection, OptionalExtension, Row};

use crate::store::{
    StreamId,
    disk::index::{checksums, schema::PLACE_BITS},
    position::{Position, Run},
};

/// The columns that [`run`] reads.
const COLUMNS: &str = "id, count, segment, offset, bytes, sum";

/// The id of a sequence number of a stream.
pub(crate) fn id(stream: StreamId, place: u64) -> i64 {
    // A client may ask for any sequence number. It must not reach into the ids of the next stream.
    let place = i64::try_from(place).unwrap_or(i64::MAX).min((1 << PLACE_BITS) - 1);
    (i64::from(stream.0) << PLACE_BITS) | place
}

/// The run that contains a message.
pub(crate) fn run_with(conn: &Connection, stream: StreamId, place: u64) -> rusqlite::Result<Option<Run>> {
    // Runs of a stream do not overlap, so only the last one that begins at or before the message can contain it.
    let sql = format!("SELECT {COLUMNS} FROM runs WHERE id >= ?1 AND id <= ?2 ORDER BY id DESC LIMIT 1");
    let mut select = conn.prepare_cached(&sql)?;
    let found = select.query_row((id(stream, 0), id(stream, place)), |row| run(row, stream)).optional()?;
    Ok(found.filter(|run| run.end() > place))
}

/// The runs of a stream that contain the next `messages` messages, beginning at `from`.
pub(crate) fn runs(conn: &Connection, stream: StreamId, from: u64, messages: usize) -> rusqlite::Result<Vec<Run>> {
    // In one statement, which sees all or nothing of a concurrent transaction. So there is no gap between runs.
    let sql = format!(
        "SELECT {COLUMNS} FROM runs \
         WHERE id >= coalesce((SELECT max(id) FROM runs WHERE id BETWEEN ?1 AND ?2), ?2) AND id < ?3 ORDER BY id"
    );
    let mut select = conn.prepare_cached(&sql)?;
    let mut rows = select.query((id(stream, 0), id(stream, from), id(StreamId(stream.0 + 1), 0)))?;
    let (mut found, mut left) = (Vec::new(), messages as u64);
    while left > 0
        && let Some(row) = rows.next()?
    {
        let run = run(row, stream)?;
        if run.end() > from {
            left = left.saturating_sub(run.end() - run.first.max(from));
            found.push(run);
        }
    }
    Ok(found)
}

/// The sequence numbers of a stream that have messages, as far as the index has read the log. `None` for a delay queue, and if there
/// is no such stream.
pub(crate) fn extent(conn: &Connection, stream: StreamId) -> rusqlite::Result<Option<Range<u64>>> {
    // The delay queue of a queue has the number after the queue's.
    let delay_queue = "SELECT 1 FROM queues WHERE number = ?1 - 1";
    if conn.prepare_cached(delay_queue)?.exists([stream.0])? {
        return Ok(None);
    }
    let mut select = conn.prepare_cached("SELECT low, next FROM streams WHERE number = ?1")?;
    select.query_row([stream.0], |row| Ok(row.get(0)?..row.get(1)?)).optional()
}

/// Due times and sequence numbers of the first messages of a delay queue by due time, without those in `skip`.
pub(crate) fn first_due(
    conn: &Connection,
    delay_queue: StreamId,
    count: usize,
    skip: &BTreeSet<u64>,
) -> rusqlite::Result<Vec<(i64, u64)>> {
    let mut select =
        conn.prepare_cached("SELECT lot, due_ms, place, sum FROM due WHERE lot = ?1 ORDER BY due_ms, place")?;
    let rows = select.query_map([delay_queue.0], |row| {
        checksums::check_row(row, "due", 3)?;
        Ok((row.get(1)?, row.get(2)?))
    })?;
    // A row that cannot be read is kept: it is an error for the caller, not a message to skip.
    let kept = rows.filter(|row| row.as_ref().map_or(true, |(_, place)| !skip.contains(place)));
    kept.take(count).collect()
}

fn run(row: &Row<'_>, stream: StreamId) -> rusqlite::Result<Run> {
    checksums::check_row(row, "runs", 5)?;
    let at = Position { segment: row.get(2)?, offset: row.get(3)? };
    let first = row.get::<_, i64>(0)?.abs_diff(id(stream, 0));
    Ok(Run { stream, first, count: row.get(1)?, at, bytes: row.get(4)? })
}
