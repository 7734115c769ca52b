//! Reads messages, on a connection of their own: reading waits for no commit.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use super::load::id;
use crate::server::store::{ReadLimit, Stored, StreamNo};

/// The columns that [`stored`] reads.
const COLUMNS: &str = "id, entered_ms, body_bytes, labels, json";

/// Messages of a stream from a place on.
pub(super) fn range(
    conn: &Connection,
    stream: StreamNo,
    from: u64,
    limit: ReadLimit,
) -> rusqlite::Result<Vec<Arc<Stored>>> {
    let sql = format!("SELECT {COLUMNS} FROM messages WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3");
    let mut select = conn.prepare_cached(&sql)?;
    let mut rows = select.query((id(stream, from), id(StreamNo(stream.0 + 1), 0), limit.messages))?;
    let mut pile = Pile::new(limit.bytes);
    while let Some(row) = rows.next()? {
        if !pile.add(stored(row, stream)?) {
            break;
        }
    }
    Ok(pile.messages)
}

/// These messages of a stream.
pub(super) fn these(
    conn: &Connection,
    stream: StreamNo,
    places: &[u64],
    bytes: usize,
) -> rusqlite::Result<Vec<Arc<Stored>>> {
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM messages WHERE id = ?1"))?;
    let mut pile = Pile::new(bytes);
    for place in places {
        let found = select.query_row([id(stream, *place)], |row| stored(row, stream)).optional()?;
        if found.is_some_and(|message| !pile.add(message)) {
            break;
        }
    }
    Ok(pile.messages)
}

/// The first messages of a lot by due time.
pub(super) fn first_due(conn: &Connection, lot: StreamNo, limit: ReadLimit) -> rusqlite::Result<Vec<Arc<Stored>>> {
    let mut select = conn.prepare_cached("SELECT place FROM due WHERE lot = ?1 ORDER BY due_ms, place LIMIT ?2")?;
    let places: Vec<u64> =
        select.query_map((lot.0, limit.messages), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    these(conn, lot, &places, limit.bytes)
}

/// When messages of a stream from a place on entered.
pub(super) fn entered(
    conn: &Connection,
    stream: StreamNo,
    from: u64,
    count: usize,
) -> rusqlite::Result<Vec<(u64, i64)>> {
    let mut select =
        conn.prepare_cached("SELECT id, entered_ms FROM messages WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3")?;
    let range = (id(stream, from), id(StreamNo(stream.0 + 1), 0), count);
    select.query_map(range, |row| Ok((place(row, stream)?, row.get(1)?)))?.collect()
}

/// Messages up to so many bytes, the first whatever its size.
struct Pile {
    messages: Vec<Arc<Stored>>,
    left: usize,
}

impl Pile {
    fn new(bytes: usize) -> Self {
        Self { messages: Vec::new(), left: bytes }
    }

    fn add(&mut self, message: Stored) -> bool {
        let footprint = message.footprint();
        if !self.messages.is_empty() && footprint > self.left {
            return false;
        }
        self.left = self.left.saturating_sub(footprint);
        self.messages.push(Arc::new(message));
        true
    }
}

fn place(row: &Row<'_>, stream: StreamNo) -> rusqlite::Result<u64> {
    let id: i64 = row.get(0)?;
    Ok(id.abs_diff(self::id(stream, 0)))
}

fn stored(row: &Row<'_>, stream: StreamNo) -> rusqlite::Result<Stored> {
    let labels = row.get_ref(3)?.as_str_or_null()?;
    Ok(Stored {
        seq: place(row, stream)?,
        entered_ms: row.get(1)?,
        body_bytes: row.get(2)?,
        tags: labels.map(|labels| labels.split(',').map(str::to_owned).collect()).unwrap_or_else(|| Arc::from([])),
        json: bytes::Bytes::copy_from_slice(row.get_ref(4)?.as_blob()?),
    })
}
