//! Reads the snapshot from the index: everything except messages.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, types::Type};

use crate::store::{
    CursorId, CursorSnapshot, DelayQueueSnapshot, GroupRow, GroupSnapshot, QueueRow, QueueSnapshot, RetentionPolicy,
    ScheduleSnapshot, SentKeys, Snapshot, StreamId, StreamSnapshot,
    disk::{
        index::{
            checksums,
            error::{IndexError, IndexResult},
            lookup,
            rows::{StreamRow, cursor_row, page, stream_row},
        },
        log::file_cache::FileCache,
    },
    settled_page::PAGE_MESSAGES,
};
use dms_protocol::queue::{QueueId, QueueMode, QueueTag, TagFilter};

/// Reads the snapshot.
pub(crate) fn snapshot(conn: &Connection, files: &FileCache) -> IndexResult<Snapshot> {
    // Not in one transaction: the store is being opened, so nothing else writes to the index.
    let next_number = conn.query_row("SELECT next_number FROM counter", [], |row| row.get(0))?;
    let rows: Vec<QueueRow> = all(conn, "SELECT * FROM queues ORDER BY number", queue_row)?;
    let mut queues = Vec::with_capacity(rows.len());
    for row in rows {
        let (stream, delay_queue) =
            (stream_snapshot(conn, files, row.stream())?, delay_queue_snapshot(conn, row.delay_queue())?);
        let mut tags = conn.prepare_cached("SELECT key, value FROM tags WHERE queue = ?1 ORDER BY position")?;
        let tag = |row: &Row<'_>| Ok(QueueTag { key: row.get(0)?, value: row.get(1)? });
        let tags = tags.query_map([row.id.as_str()], tag)?.collect::<Result<_, _>>()?;
        let retention = retention(conn, &row.id)?;
        let schedules = schedules(conn, &row.id)?;
        queues.push(QueueSnapshot { row, tags, retention, schedules, stream, delay_queue });
    }
    let rows: Vec<GroupRow> = all(conn, "SELECT * FROM consumer_groups ORDER BY number", group_row)?;
    let mut groups = Vec::with_capacity(rows.len());
    for row in rows {
        let cursor = cursor_snapshot(conn, row.cursor())?;
        let dead_letters = stream_snapshot(conn, files, row.dead_letters())?;
        let dead_letter_cursor = cursor_snapshot(conn, row.dead_letter_cursor())?;
        groups.push(GroupSnapshot { row, cursor, dead_letters, dead_letter_cursor });
    }
    let keys = all(conn, "SELECT until_ms, keys, sum FROM sent_keys ORDER BY id", sent_keys)?;
    // The disk store keeps no leases, so their messages are available again after a restart.
    Ok(Snapshot { next_number, queues, groups, keys, leases: Vec::new() })
}

fn sent_keys(row: &Row<'_>) -> rusqlite::Result<SentKeys> {
    checksums::check_row(row, "sent_keys", 2)?;
    let keys = SentKeys::from_bytes(row.get_ref(1)?.as_blob()?);
    keys.ok_or_else(|| rusqlite::Error::InvalidColumnType(1, "keys".to_owned(), Type::Blob))
}

fn all<T>(conn: &Connection, sql: &str, row: fn(&Row<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<Vec<T>> {
    conn.prepare(sql)?.query_map([], row)?.collect()
}

fn queue_row(row: &Row<'_>) -> rusqlite::Result<QueueRow> {
    let text = |name| row.get::<_, String>(name);
    Ok(QueueRow {
        number: row.get("number")?,
        id: text("id")?.into(),
        project: text("project")?.into(),
        name: text("name")?,
        mode: from_text::<QueueMode>(row, "mode", &format!("\"{}\"", text("mode")?))?,
        description: text("description")?,
        max_consume_count: row.get("max_consume_count")?,
        retention_hours: row.get("retention_hours")?,
        created_ms: row.get("created_ms")?,
    })
}

/// The retention that was set for a queue while a server ran.
fn retention(conn: &Connection, queue: &QueueId) -> rusqlite::Result<RetentionPolicy> {
    let mut select = conn.prepare_cached("SELECT retention_ms, delete_when_settled FROM retention WHERE queue = ?1")?;
    let found = select.query_row([queue.as_str()], |row| {
        let retention: Option<u64> = row.get(0)?;
        Ok(RetentionPolicy { retention: retention.map(Duration::from_millis), delete_when_settled: row.get(1)? })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// The schedules that send to a queue, by name.
fn schedules(conn: &Connection, queue: &QueueId) -> rusqlite::Result<Vec<ScheduleSnapshot>> {
    let sql = "SELECT facts, progress FROM schedules WHERE queue = ?1 ORDER BY name";
    let schedule = |row: &Row<'_>| {
        let text = |name| row.get::<_, String>(name);
        Ok(ScheduleSnapshot {
            row: from_text(row, "facts", &text("facts")?)?,
            progress: from_text(row, "progress", &text("progress")?)?,
        })
    };
    conn.prepare_cached(sql)?.query_map([queue.as_str()], schedule)?.collect()
}

fn group_row(row: &Row<'_>) -> rusqlite::Result<GroupRow> {
    Ok(GroupRow {
        number: row.get("number")?,
        queue: row.get::<_, String>("queue")?.into(),
        id: row.get::<_, String>("id")?.into(),
        name: row.get("name")?,
        created_ms: row.get("created_ms")?,
        start: row.get("start")?,
    })
}

fn from_text<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str, json: &str) -> rusqlite::Result<T> {
    let index = row.as_ref().column_index(column)?;
    serde_json::from_str(json)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}

/// Reads where a stream begins and ends. Its first and last message must be in the index: a log that lost messages is not opened as
/// if it had none.
fn stream_snapshot(conn: &Connection, files: &FileCache, stream: StreamId) -> IndexResult<StreamSnapshot> {
    let StreamRow { low, next, newest, .. } = stream_row(conn, stream)?;
    if low == next {
        return Ok(StreamSnapshot { low, next, oldest: None, newest });
    }
    let ends = (lookup::run_with(conn, stream, low)?, lookup::run_with(conn, stream, next.saturating_sub(1))?);
    // Only the ends are checked. Gaps between them are found when they are read, and their messages reported as damaged.
    let (Some(_), Some(_)) = ends else {
        let last = next.saturating_sub(1);
        return Err(IndexError::Contradiction(format!("messages {low} to {last} of stream {} are missing", stream.0)));
    };
    let oldest = oldest(conn, files, (stream, low, newest))?;
    Ok(StreamSnapshot { low, next, oldest, newest })
}

fn delay_queue_snapshot(conn: &Connection, delay_queue: StreamId) -> IndexResult<DelayQueueSnapshot> {
    let image = stream_row(conn, delay_queue)?;
    let next_due = conn.query_row("SELECT min(due_ms) FROM due WHERE lot = ?1", [delay_queue.0], |row| row.get(0))?;
    Ok(DelayQueueSnapshot { next: image.next, count: image.delayed, next_due })
}

fn cursor_snapshot(conn: &Connection, cursor: CursorId) -> IndexResult<CursorSnapshot> {
    let image = cursor_row(conn, cursor)?;
    let rule: Option<String> =
        conn.query_row("SELECT rule FROM readers WHERE number = ?1", [cursor.0], |row| row.get(0))?;
    let rule = rule.map(|rule| serde_json::from_str::<TagFilter>(&rule)).transpose();
    let rule =
        rule.map_err(|error| IndexError::Contradiction(format!("the label rule of reader {}: {error}", cursor.0)))?;
    // Messages below `first` have expired, or were sent before the group was created.
    let first = image.start.max(stream_row(conn, image.stream)?.low);
    let mut ready = Vec::new();
    // Pages between the oldest kept page and the head only. All earlier messages are settled, however long the stream is.
    for number in image.page.max(first / PAGE_MESSAGES)..image.head.div_ceil(PAGE_MESSAGES) {
        let page = page(conn, cursor, &image, number)?;
        let open = page.open().map(|(place, failures)| (number * PAGE_MESSAGES + u64::from(place), failures));
        ready.extend(open.filter(|(place, _)| (first..image.head).contains(place)));
    }
    Ok(CursorSnapshot { head: image.head, consumed: image.consumed, ready, rule })
}

/// When the first message of a stream entered. If that message is damaged, the next readable one counts, because damage to one
/// message must not prevent opening.
fn oldest(
    conn: &Connection,
    files: &FileCache,
    (stream, low, newest): (StreamId, u64, i64),
) -> Result<Option<i64>, rusqlite::Error> {
    let mut next = low;
    loop {
        let found = lookup::runs(conn, stream, next, 1)?;
        let Some(run) = found.into_iter().find(|run| run.end() > next) else { return Ok(Some(newest)) };
        if let Some(entered_ms) = files.first_time(&run, next) {
            return Ok(Some(entered_ms));
        }
        next = run.end();
    }
}
