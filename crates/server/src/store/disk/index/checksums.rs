//! Checksums of the index's rows, so that a changed bit in the file is found before a row is used.
//!
//! Every row has a checksum of its columns. For each small table the number of rows and the sum of their checksums are stored too,
//! so that no row can get lost. Opening checks the small tables. The tables that say where messages are may have millions of rows,
//! which are checked when they are read.

use rusqlite::{Connection, Row, functions::FunctionFlags, types::ValueRef};

use crate::store::disk::index::error::{IndexError, IndexResult};

/// The small tables, with the columns that their checksums cover.
const SMALL_TABLES: &[(&str, &str)] = &[
    ("counter", "next_number, log, segment, offset, frame"),
    ("queues", "number, id, project, name, mode, description, max_consume_count, retention_hours, created_ms"),
    ("consumer_groups", "number, queue, id, name, created_ms, start"),
    ("tags", "queue, position, key, value"),
    ("streams", "number, low, next, newest, parked"),
    ("readers", "number, stream, start, head, page, consumed, rule"),
    ("settled", "reader, page, bits, failures"),
    ("segments", "number, live"),
    ("garbage", "number"),
    ("retention", "queue, retention_ms, delete_when_settled"),
    ("schedules", "queue, name, facts, progress"),
];

/// The large tables, with the columns that their checksums cover.
const LARGE_TABLES: &[(&str, &str)] =
    &[("runs", "id, count, segment, offset, bytes"), ("due", "lot, due_ms, place"), ("sent_keys", "until_ms, keys")];

/// Tables that are taken over from an index that is damaged elsewhere. Rows of deleted owners are swept later.
pub(crate) const TAKEN_OVER: &[(&str, &str)] = &[
    SMALL_TABLES[1],
    SMALL_TABLES[2],
    SMALL_TABLES[3],
    SMALL_TABLES[4],
    SMALL_TABLES[5],
    SMALL_TABLES[6],
    SMALL_TABLES[9],
    SMALL_TABLES[10],
    LARGE_TABLES[2],
];

/// An index of at most this many pages is checked completely when it is opened. That takes some milliseconds.
const MAX_CHECKED_PAGES: u64 = 1_024;

/// The remedy for a row that turns out to be damaged while the server runs, as a part of error messages.
const REMEDY: &str = "`dms-worker data rebuild-index` rebuilds it from the log";

/// Registers the SQL function `row_sum(table, column…)`.
pub(crate) fn register(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    conn.create_scalar_function("row_sum", -1, flags, |context| {
        let mut sum = crc32fast::Hasher::new();
        (0..context.len()).for_each(|at| add(&mut sum, context.get_raw(at)));
        Ok(i64::from(sum.finalize()))
    })
}

fn add(sum: &mut crc32fast::Hasher, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => sum.update(&[0]),
        ValueRef::Integer(number) => {
            sum.update(&[1]);
            sum.update(&number.to_le_bytes());
        }
        ValueRef::Real(number) => sum.update(&number.to_le_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            // With the type and the length, so that bytes cannot move from one column to the next unnoticed.
            sum.update(&[2]);
            sum.update(&(bytes.len() as u64).to_le_bytes());
            sum.update(bytes);
        }
    }
}

/// Checks a row: `columns` columns of a table, followed by their checksum.
pub(crate) fn check_row(row: &Row<'_>, table: &str, columns: usize) -> rusqlite::Result<()> {
    let mut sum = crc32fast::Hasher::new();
    // With the name of the table, so that a row of another table of the same shape does not pass.
    add(&mut sum, ValueRef::Text(table.as_bytes()));
    for column in 0..columns {
        add(&mut sum, row.get_ref(column)?);
    }
    let stored: i64 = row.get(columns)?;
    if stored == i64::from(sum.finalize()) {
        return Ok(());
    }
    let what = format!("a row of {table} in the index does not match its checksum: {REMEDY}");
    Err(rusqlite::Error::FromSqlConversionFailure(columns, rusqlite::types::Type::Integer, what.into()))
}

/// Gives every row its checksum, for an index of a version that had none. Tables of later versions do not exist yet.
pub(crate) fn fill(conn: &Connection) -> rusqlite::Result<()> {
    for (table, columns) in SMALL_TABLES.iter().chain(LARGE_TABLES) {
        if conn.table_exists(None, *table)? {
            conn.execute(&format!("UPDATE {table} SET sum = row_sum('{table}', {columns})"), [])?;
        }
    }
    // After the rows, because a total is the sum of their checksums.
    for (table, _) in SMALL_TABLES {
        if conn.table_exists(None, *table)? {
            total_of(conn, table)?;
        }
    }
    Ok(())
}

/// Has this connection keep the totals of the small tables up to date with every row that it changes.
///
/// Triggers change a total by the row alone. Counting the table again would cost its whole length in each transaction, and would take
/// rows that were lost in between for deleted ones.
pub(crate) fn keep_totals(conn: &Connection) -> rusqlite::Result<()> {
    // The triggers belong to this connection, so they are kept in memory. Without `recursive_triggers` a replaced row would not
    // count as deleted.
    conn.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA recursive_triggers = ON;")?;
    for (table, _) in SMALL_TABLES {
        conn.execute_batch(&format!(
            "CREATE TEMP TRIGGER {table}_added AFTER INSERT ON main.{table} BEGIN \
               UPDATE totals SET rows = rows + 1, sum = sum + NEW.sum WHERE name = '{table}'; END; \
             CREATE TEMP TRIGGER {table}_deleted AFTER DELETE ON main.{table} BEGIN \
               UPDATE totals SET rows = rows - 1, sum = sum - OLD.sum WHERE name = '{table}'; END; \
             CREATE TEMP TRIGGER {table}_changed AFTER UPDATE ON main.{table} BEGIN \
               UPDATE totals SET sum = sum + NEW.sum - OLD.sum WHERE name = '{table}'; END;"
        ))?;
    }
    Ok(())
}

fn total_of(conn: &Connection, table: &str) -> rusqlite::Result<()> {
    let sql = format!("INSERT OR REPLACE INTO totals SELECT '{table}', count(*), coalesce(sum(sum), 0) FROM {table}");
    conn.prepare_cached(&sql)?.execute([])?;
    Ok(())
}

/// Checks the small tables, and all tables of a small index.
pub(crate) fn check(conn: &Connection) -> IndexResult<()> {
    let pages = conn.pragma_query_value(None, "page_count", |row| row.get::<_, u64>(0));
    let wrong = pages.and_then(|pages| match wrong_in_small(conn)? {
        None if pages <= MAX_CHECKED_PAGES => wrong_in_large(conn),
        wrong => Ok(wrong),
    });
    refuse(wrong)
}

/// Checks all tables.
pub(crate) fn check_whole(conn: &Connection) -> IndexResult<()> {
    refuse(wrong_in_small(conn).and_then(|wrong| if wrong.is_some() { Ok(wrong) } else { wrong_in_large(conn) }))
}

/// Whether all small tables match their checksums.
pub(crate) fn small_are_whole(conn: &Connection) -> rusqlite::Result<bool> {
    Ok(wrong_in_small(conn)?.is_none())
}

/// Refuses an index that is damaged, also if SQLite cannot read it.
fn refuse(wrong: rusqlite::Result<Option<String>>) -> IndexResult<()> {
    match wrong {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(IndexError::Contradiction(what)),
        Err(error) => Err(IndexError::Contradiction(error.to_string())),
    }
}

fn wrong_in_small(conn: &Connection) -> rusqlite::Result<Option<String>> {
    for (table, columns) in SMALL_TABLES {
        let noted = "SELECT rows, sum FROM totals WHERE name = ?1";
        let noted: (i64, i64) = conn.query_row(noted, [table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (found, bad) = look(conn, table, columns)?;
        if bad > 0 || found != noted {
            return Ok(Some(format!("its table {table} does not match its checksums")));
        }
    }
    Ok(None)
}

fn wrong_in_large(conn: &Connection) -> rusqlite::Result<Option<String>> {
    for (table, columns) in LARGE_TABLES {
        if look(conn, table, columns)?.1 > 0 {
            return Ok(Some(format!("its table {table} does not match its checksums")));
        }
    }
    let said: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    Ok(Some(said).filter(|said| said != "ok"))
}

/// The number of rows of a table, the sum of their checksums, and the number of rows that do not match theirs.
fn look(conn: &Connection, table: &str, columns: &str) -> rusqlite::Result<((i64, i64), i64)> {
    // `IS NOT` and not `<>`: a comparison with a NULL would be NULL, which the sum leaves out, and the damaged row
    // would pass.
    let bad = format!("coalesce(sum(sum IS NOT row_sum('{table}', {columns})), 0)");
    conn.query_row(&format!("SELECT count(*), coalesce(sum(sum), 0), {bad} FROM {table}"), [], |row| {
        Ok(((row.get(0)?, row.get(1)?), row.get(2)?))
    })
}
