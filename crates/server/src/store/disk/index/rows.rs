//! Rows of the index that are read and written one by one.

use rusqlite::{Connection, OptionalExtension};

use crate::store::{
    CursorId, StreamId,
    disk::index::error::{IndexError, IndexResult},
    settled_page::{PAGE_MESSAGES, SettledPage},
};

/// A stream's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRow {
    /// The first message that is there.
    pub(crate) low: u64,
    /// The place of the next message.
    pub(crate) next: u64,
    /// When the last one entered.
    pub(crate) newest: i64,
    /// How many wait, in a lot.
    pub(crate) delayed: u64,
}

/// A reader's row, less its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CursorRow {
    /// What it reads.
    pub(crate) stream: StreamId,
    /// The first message it was ever to be given.
    pub(crate) start: u64,
    /// Nothing from here on was handed out.
    pub(crate) head: u64,
    /// All pages before this are settled or expired.
    pub(crate) page: u64,
    /// Messages acknowledged.
    pub(crate) consumed: u64,
}

/// Reads a stream's row.
pub(crate) fn stream_row(conn: &Connection, stream: StreamId) -> rusqlite::Result<StreamRow> {
    let mut select = conn.prepare_cached("SELECT low, next, newest, parked FROM streams WHERE number = ?1")?;
    select.query_row([stream.0], |row| {
        Ok(StreamRow { low: row.get(0)?, next: row.get(1)?, newest: row.get(2)?, delayed: row.get(3)? })
    })
}

/// Reads a reader's row.
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

/// Reads a page; one that has no row is that of a reader who settled nothing there.
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
            let before = image.start.saturating_sub(number * PAGE_MESSAGES).min(PAGE_MESSAGES);
            page.settle_range(0..u16::try_from(before).unwrap_or(u16::MAX));
            Ok(page)
        }
    }
}
