//! Rows of the index that are read and written one by one.

use rusqlite::{Connection, OptionalExtension};

use crate::store::{
    CursorId, StreamId,
    disk::index::error::{IndexError, IndexResult},
    settled_page::{PAGE_MESSAGES, SettledPage},
};

/// The row of a stream or delay queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRow {
    /// The first message.
    pub(crate) low: u64,
    /// The sequence number of the next message.
    pub(crate) next: u64,
    /// When the last message entered.
    pub(crate) newest: i64,
    /// The number of messages, for a delay queue.
    pub(crate) delayed: u64,
}

/// The row of a cursor, without its label filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CursorRow {
    /// The stream.
    pub(crate) stream: StreamId,
    /// The first message that the cursor got.
    pub(crate) start: u64,
    /// No message from here on was leased.
    pub(crate) head: u64,
    /// All pages before this one are settled or expired.
    pub(crate) page: u64,
    /// The number of messages acknowledged.
    pub(crate) consumed: u64,
}

/// Reads the row of a stream.
pub(crate) fn stream_row(conn: &Connection, stream: StreamId) -> rusqlite::Result<StreamRow> {
    let mut select = conn.prepare_cached("SELECT low, next, newest, parked FROM streams WHERE number = ?1")?;
    select.query_row([stream.0], |row| {
        Ok(StreamRow { low: row.get(0)?, next: row.get(1)?, newest: row.get(2)?, delayed: row.get(3)? })
    })
}

/// Reads the row of a cursor.
pub(crate) fn cursor_row(conn: &Connection, cursor: CursorId) -> rusqlite::Result<CursorRow> {
    let mut select =
        conn.prepare_cached("SELECT stream, start, head, page, consumed FROM readers WHERE number = ?1")?;
    select.query_row([cursor.0], |row| {
        Ok(CursorRow {
            stream: StreamId(row.get(0)?),
            start: row.get(1)?,
            head: row.get(2)?,
            page: row.get(3)?,
            consumed: row.get(4)?,
        })
    })
}

/// Reads a page. If it has no row, nothing of it was settled.
pub(crate) fn page(conn: &Connection, cursor: CursorId, image: &CursorRow, number: u64) -> IndexResult<SettledPage> {
    let mut select = conn.prepare_cached("SELECT bits, failures FROM settled WHERE reader = ?1 AND page = ?2")?;
    let found = select
        .query_row((cursor.0, number), |row| {
            Ok(SettledPage::decode(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?))
        })
        .optional()?;
    match found {
        Some(page) => {
            page.map_err(|bad| IndexError::Contradiction(format!("{bad}: page {number} of reader {}", cursor.0)))
        }
        None => {
            let mut page = SettledPage::default();
            // The group does not get messages before its start. Unsettled, they would hold the page back.
            let before = image.start.saturating_sub(number * PAGE_MESSAGES).min(PAGE_MESSAGES);
            page.settle_range(0..u16::try_from(before).unwrap_or(u16::MAX));
            Ok(page)
        }
    }
}
