//! Work that no request waits for: images that keep the journal short, and the chunk tables that come and go.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tokio_postgres::types::ToSql;

use crate::store::{
    LeaseSnapshot, StoreError,
    postgres::{
        PgStore, big,
        connect::Session,
        duty::Duty,
        error::failure,
        images::{CursorImage, Dirty, Images, StreamImage},
        schema::make_chunk_table,
        slots::{self, Slot},
    },
};

/// The number of commits after which an image is written. A take-over replays the commits that the last image lacks.
const MAX_COMMITS: u64 = 5_000;
/// How old an image may be while there are commits.
const MAX_AGE: Duration = Duration::from_secs(10);
/// How many rows of the journal one statement deletes.
const JOURNAL_ROWS: i64 = 5_000;
/// How long one step may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// When the last image was written.
#[derive(Debug)]
pub(crate) struct Written {
    commit_no: u64,
    at: Instant,
    /// Whether the journal may have rows that the image has.
    has_old_rows: bool,
    /// The journal has no rows up to this one. While another session keeps an old snapshot, deleted rows stay, and a statement that
    /// begins before them has to pass them all.
    deleted: i64,
}

impl Written {
    /// As it is when a shard was opened.
    pub(crate) fn new(commit_no: u64) -> Self {
        Self { commit_no, at: Instant::now(), has_old_rows: true, deleted: 0 }
    }
}

/// The rows of an image, column by column.
struct Rows {
    commit_no: u64,
    next_number: u32,
    queues: (Vec<i64>, [Vec<String>; 3]),
    groups: (Vec<i64>, Vec<String>),
    streams: [Vec<i64>; 4],
    cursors: ([Vec<i64>; 6], Vec<Option<String>>),
    pages: ([Vec<i64>; 2], [Vec<Vec<u8>>; 2]),
    schedules: (Vec<i64>, [Vec<String>; 3]),
    sent_keys: ([Vec<i64>; 2], Vec<Vec<u8>>),
    /// Keys of rows that go.
    gone: Gone,
}

/// The keys of the rows to delete, by table.
#[derive(Default)]
struct Gone {
    queues: Vec<i64>,
    groups: Vec<i64>,
    streams: Vec<i64>,
    cursors: Vec<i64>,
    pages: (Vec<i64>, Vec<i64>),
    schedules: (Vec<i64>, Vec<String>),
    sent_keys: (Vec<i64>, Vec<i64>),
}

impl Rows {
    /// Copies the rows that differ from the last image. A key without a value is one that goes.
    fn of(images: &Images, dirty: &Dirty) -> Result<Self, serde_json::Error> {
        let mut rows = Self {
            commit_no: images.commit_no,
            next_number: images.next_number,
            queues: Default::default(),
            groups: Default::default(),
            streams: Default::default(),
            cursors: Default::default(),
            pages: Default::default(),
            schedules: Default::default(),
            sent_keys: Default::default(),
            gone: Gone::default(),
        };
        for number in &dirty.queues {
            let Some(queue) = images.queues.get(number) else {
                rows.gone.queues.push(i64::from(*number));
                continue;
            };
            rows.queues.0.push(i64::from(*number));
            rows.queues.1[0].push(serde_json::to_string(&queue.row)?);
            rows.queues.1[1].push(serde_json::to_string(&queue.tags)?);
            rows.queues.1[2].push(serde_json::to_string(&queue.retention)?);
        }
        for number in &dirty.groups {
            let Some(row) = images.groups.get(number) else {
                rows.gone.groups.push(i64::from(*number));
                continue;
            };
            rows.groups.0.push(i64::from(*number));
            rows.groups.1.push(serde_json::to_string(row)?);
        }
        for stream in &dirty.streams {
            let number = i64::from(stream.0);
            let Some(StreamImage { low, next, newest_ms }) = images.streams.get(stream) else {
                rows.gone.streams.push(number);
                continue;
            };
            push(&mut rows.streams, [number, big(*low), big(*next), *newest_ms]);
        }
        for cursor in &dirty.cursors {
            let number = i64::from(cursor.0);
            let Some(CursorImage { stream, start, head, page, consumed, rule }) = images.cursors.get(cursor) else {
                rows.gone.cursors.push(number);
                continue;
            };
            let row = [number, i64::from(stream.0), big(*start), big(*head), big(*page), big(*consumed)];
            push(&mut rows.cursors.0, row);
            rows.cursors.1.push(rule.as_ref().map(serde_json::to_string).transpose()?);
        }
        for key in &dirty.pages {
            let row = [i64::from(key.0.0), big(key.1)];
            let Some(page) = images.pages.get(key) else {
                rows.gone.pages.0.push(row[0]);
                rows.gone.pages.1.push(row[1]);
                continue;
            };
            let (bits, failures) = page.encode();
            push(&mut rows.pages.0, row);
            rows.pages.1[0].push(bits);
            rows.pages.1[1].push(failures);
        }
        for key in &dirty.schedules {
            let (queue, name) = (i64::from(key.0), key.1.clone());
            let Some(schedule) = images.schedules.get(key) else {
                rows.gone.schedules.0.push(queue);
                rows.gone.schedules.1.push(name);
                continue;
            };
            rows.schedules.0.push(queue);
            rows.schedules.1[0].push(name);
            rows.schedules.1[1].push(serde_json::to_string(&schedule.row)?);
            rows.schedules.1[2].push(serde_json::to_string(&schedule.progress)?);
        }
        for key in &dirty.keys {
            let row = [key.0, big(key.1)];
            let Some(keys) = images.keys.get(key) else {
                rows.gone.sent_keys.0.push(row[0]);
                rows.gone.sent_keys.1.push(row[1]);
                continue;
            };
            push(&mut rows.sent_keys.0, row);
            rows.sent_keys.1.push(keys.to_bytes());
        }
        Ok(rows)
    }

    /// Writes the rows in one transaction. Returns false if another server owns the shard.
    async fn write(&self, session: &Session, duty: &Duty) -> Result<bool, tokio_postgres::Error> {
        session.batch("BEGIN").await?;
        // Locks the row until the commit, so that no other server takes the shard over in between.
        let fence = "SELECT 1 FROM shard WHERE id = $1 AND epoch = $2 FOR SHARE";
        if session.query(fence, &[&duty.shard, &duty.epoch]).await?.is_empty() {
            session.batch("ROLLBACK").await?;
            return Ok(false);
        }
        let Gone { queues, groups, streams, cursors, pages, schedules, sent_keys } = &self.gone;
        for (table, gone) in [("queue", queues), ("consumer_group", groups), ("stream", streams), ("reader", cursors)] {
            if !gone.is_empty() {
                let sql = format!("DELETE FROM {table} WHERE shard = $1 AND number = ANY ($2)");
                session.execute(&sql, &[&duty.shard, gone]).await?;
            }
        }
        if !pages.0.is_empty() {
            let sql = "DELETE FROM settled USING unnest($2::bigint[], $3::bigint[]) t(reader, page) \
                       WHERE settled.shard = $1 AND settled.reader = t.reader AND settled.page = t.page";
            session.execute(sql, &[&duty.shard, &pages.0, &pages.1]).await?;
        }
        if !schedules.0.is_empty() {
            let sql = "DELETE FROM schedule USING unnest($2::bigint[], $3::text[]) t(queue, name) \
                       WHERE schedule.shard = $1 AND schedule.queue = t.queue AND schedule.name = t.name";
            session.execute(sql, &[&duty.shard, &schedules.0, &schedules.1]).await?;
        }
        if !sent_keys.0.is_empty() {
            let sql = "DELETE FROM sent_keys USING unnest($2::bigint[], $3::bigint[]) t(until_ms, commit_no) \
                       WHERE sent_keys.shard = $1 AND sent_keys.until_ms = t.until_ms AND sent_keys.commit_no = t.commit_no";
            session.execute(sql, &[&duty.shard, &sent_keys.0, &sent_keys.1]).await?;
        }
        self.upsert(session, duty.shard).await?;
        // In the same transaction as the rows. A number that is behind them would have a take-over apply commits
        // twice, one that is ahead would lose them.
        let image = "UPDATE image SET commit_no = $2, next_number = $3 WHERE shard = $1";
        session.execute(image, &[&duty.shard, &big(self.commit_no), &i64::from(self.next_number)]).await?;
        session.batch("COMMIT").await?;
        Ok(true)
    }

    /// Inserts or updates the rows, with one statement for each table, however many rows there are.
    async fn upsert(&self, session: &Session, shard: i32) -> Result<(), tokio_postgres::Error> {
        let (numbers, [facts, tags, retention]) = &self.queues;
        upsert(
            session,
            (shard, "queue"),
            &[
                ("number", "bigint", numbers),
                ("facts", "text", facts),
                ("tags", "text", tags),
                ("retention", "text", retention),
            ],
            1,
        )
        .await?;
        upsert(
            session,
            (shard, "consumer_group"),
            &[("number", "bigint", &self.groups.0), ("facts", "text", &self.groups.1)],
            1,
        )
        .await?;
        let [number, low, next, newest_ms] = &self.streams;
        let columns: [Column<'_>; 4] = [
            ("number", "bigint", number),
            ("low", "bigint", low),
            ("next", "bigint", next),
            ("newest_ms", "bigint", newest_ms),
        ];
        upsert(session, (shard, "stream"), &columns, 1).await?;
        let ([number, stream, start, head, page, consumed], rule) = &self.cursors;
        let columns: [Column<'_>; 7] = [
            ("number", "bigint", number),
            ("stream", "bigint", stream),
            ("start", "bigint", start),
            ("head", "bigint", head),
            ("page", "bigint", page),
            ("consumed", "bigint", consumed),
            ("rule", "text", rule),
        ];
        upsert(session, (shard, "reader"), &columns, 1).await?;
        let ([reader, page], [bits, failures]) = &self.pages;
        let columns: [Column<'_>; 4] = [
            ("reader", "bigint", reader),
            ("page", "bigint", page),
            ("bits", "bytea", bits),
            ("failures", "bytea", failures),
        ];
        upsert(session, (shard, "settled"), &columns, 2).await?;
        let (queue, [name, facts, progress]) = &self.schedules;
        let columns: [Column<'_>; 4] = [
            ("queue", "bigint", queue),
            ("name", "text", name),
            ("facts", "text", facts),
            ("progress", "text", progress),
        ];
        upsert(session, (shard, "schedule"), &columns, 2).await?;
        let ([until_ms, commit_no], keys) = &self.sent_keys;
        let columns: [Column<'_>; 3] =
            [("until_ms", "bigint", until_ms), ("commit_no", "bigint", commit_no), ("keys", "bytea", keys)];
        upsert(session, (shard, "sent_keys"), &columns, 2).await
    }
}

/// A column's name, its type, and its values.
type Column<'a> = (&'a str, &'a str, &'a (dyn ToSql + Sync));

/// Inserts rows, or updates all but the first `keys` columns of existing rows.
async fn upsert(
    session: &Session,
    (shard, table): (i32, &str),
    columns: &[Column<'_>],
    keys: usize,
) -> Result<(), tokio_postgres::Error> {
    let names: Vec<&str> = columns.iter().map(|(name, ..)| *name).collect();
    let values: Vec<String> =
        columns.iter().zip(2..).map(|((_, kind, _), number)| format!("${number}::{kind}[]")).collect();
    let sets: Vec<String> = names[keys..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let sql = format!(
        "INSERT INTO {table} (shard, {}) SELECT $1::int, t.* FROM unnest({}) t ON CONFLICT (shard, {}) DO UPDATE SET {}",
        names.join(", "),
        values.join(", "),
        names[..keys].join(", "),
        sets.join(", ")
    );
    let values: Vec<&(dyn ToSql + Sync)> =
        std::iter::once(&shard as &(dyn ToSql + Sync)).chain(columns.iter().map(|(.., values)| *values)).collect();
    session.execute(&sql, &values).await.map(drop)
}

fn push<const N: usize>(columns: &mut [Vec<i64>; N], row: [i64; N]) {
    columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
}

impl PgStore {
    /// Whether an image is due, or a table has to come or go.
    pub(crate) fn wants_maintenance(&self) -> bool {
        let state = self.lock();
        self.image_is_due(&state.images, &state.written)
            || state.written.has_old_rows
            || !state.slots.missing().is_empty()
            || self.has_unused.load(Ordering::Relaxed)
    }

    /// Whether a take-over would have to replay many commits, or old ones.
    fn image_is_due(&self, images: &Images, written: &Written) -> bool {
        let commits = images.commit_no - written.commit_no;
        commits >= MAX_COMMITS || (commits > 0 && written.at.elapsed() >= MAX_AGE)
    }

    /// Does one step, and returns whether there is more to do.
    pub(crate) fn maintenance_step(&self) -> Result<bool, StoreError> {
        self.check_open()?;
        // A separate statement, because a guard in the condition would be held in the block.
        let missing = self.lock().slots.missing();
        // First, because a commit that finds no table has to make it while its senders wait.
        if let Some(slot) = missing.first().copied() {
            self.make_slot(slot)?;
        } else if self.is_image_due() {
            self.write_image()?;
        } else if self.lock().written.has_old_rows {
            self.delete_journal()?;
        } else {
            self.drop_unused()?;
        }
        Ok(self.wants_maintenance())
    }

    fn is_image_due(&self) -> bool {
        let state = self.lock();
        self.image_is_due(&state.images, &state.written)
    }

    /// Makes a chunk table before the first commit needs it.
    fn make_slot(&self, slot: Slot) -> Result<(), StoreError> {
        self.on_maintenance(async |session| make_chunk_table(session, &slots::table(self.shard(), slot)).await)?;
        self.lock().slots.tables.insert(slot);
        Ok(())
    }

    /// Writes the rows that have changed since the last image.
    pub(crate) fn write_image(&self) -> Result<(), StoreError> {
        // The rows are copied under the lock and written without it, so that commits continue.
        let (rows, dirty) = {
            let mut state = self.lock();
            let dirty = std::mem::take(&mut state.images.dirty);
            let rows = Rows::of(&state.images, &dirty);
            // The rows stay marked, so that the next image has them.
            if rows.is_err() {
                state.images.dirty.merge(dirty.clone());
            }
            (rows.map_err(StoreError::refused)?, dirty)
        };
        match self.on_maintenance(async |session| rows.write(session, &self.duty).await) {
            Ok(true) => {
                let mut state = self.lock();
                let deleted = state.written.deleted;
                state.written = Written { deleted, ..Written::new(rows.commit_no) };
                Ok(())
            }
            Ok(false) => {
                self.duty.lose();
                Err(StoreError::lost("another server owns the messages now"))
            }
            Err(error) => {
                // They may or may not have been written. The next image has them, too.
                self.lock().images.dirty.merge(dirty);
                Err(error)
            }
        }
    }

    /// Writes the open leases for the next owner, unless another server has taken the shard.
    pub(crate) fn write_leases(&self, leases: &[LeaseSnapshot]) -> Result<(), StoreError> {
        let sql = "INSERT INTO leased SELECT $1, $3, $4 WHERE EXISTS (SELECT 1 FROM shard WHERE id = $1 AND epoch = $2 FOR SHARE) \
                   ON CONFLICT (shard) DO UPDATE SET commit_no = excluded.commit_no, leases = excluded.leases";
        let text = serde_json::to_string(leases).map_err(StoreError::refused)?;
        // They count only while no commit has followed; see `Loader::leases`.
        let commit_no = big(*self.last_commit());
        let Duty { shard, epoch, .. } = &*self.duty;
        self.on_maintenance(async |session| session.execute(sql, &[shard, epoch, &commit_no, &text]).await).map(drop)
    }

    /// Deletes rows of the journal that the image has.
    fn delete_journal(&self) -> Result<(), StoreError> {
        // Compared with the image in PostgreSQL, because a take-over continues from that one.
        let sql = "WITH gone AS (DELETE FROM journal WHERE shard = $1 AND commit_no IN (SELECT commit_no FROM journal \
                   WHERE shard = $1 AND commit_no > $3 AND commit_no <= (SELECT commit_no FROM image WHERE shard = $1) \
                   ORDER BY commit_no LIMIT $2) RETURNING commit_no) SELECT max(commit_no) FROM gone";
        let before = self.lock().written.deleted;
        let gone = self.on_maintenance(async |session| {
            let rows = session.query(sql, &[&self.duty.shard, &JOURNAL_ROWS, &before]).await?;
            rows.first().map(|row| row.try_get::<_, Option<i64>>(0)).transpose().map(Option::flatten)
        })?;
        let mut state = self.lock();
        state.written.has_old_rows = gone.is_some();
        state.written.deleted = gone.unwrap_or(before);
        Ok(())
    }

    /// Drops the tables whose messages have all expired. A table that is being read, for example by a backup, is left for the next
    /// time.
    fn drop_unused(&self) -> Result<(), StoreError> {
        // Before looking, so that a table that becomes unused meanwhile is found the next time.
        self.has_unused.store(false, Ordering::Relaxed);
        let unused = self.lock().slots.unused();
        for slot in unused {
            let dropped = self.on_maintenance(async |session| {
                // Checks and locks the ownership first, because a server that is no longer the owner must not drop anything.
                session.batch("BEGIN; SET LOCAL lock_timeout = '1s'").await?;
                let fence = "SELECT 1 FROM shard WHERE id = $1 AND epoch = $2 FOR SHARE";
                if session.query(fence, &[&self.duty.shard, &self.duty.epoch]).await?.is_empty() {
                    session.batch("ROLLBACK").await?;
                    return Ok(());
                }
                session.batch(&format!("DROP TABLE IF EXISTS {}; COMMIT", slots::table(self.shard(), slot))).await
            });
            match dropped {
                Ok(()) => drop(self.lock().slots.tables.remove(&slot)),
                Err(error) => tracing::debug!(%error, slot, "a table without messages could not be dropped yet"),
            }
        }
        Ok(())
    }

    /// Runs something on the connection for maintenance, which is closed after a failure, because that ends an open transaction.
    fn on_maintenance<T>(
        &self,
        run: impl AsyncFnOnce(&Session) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        self.runtime().block_on(async {
            let session = self.upkeep.get().await.map_err(StoreError::new)?;
            let warnings = session.warnings();
            let ran = timeout(TIMEOUT, run(&session)).await;
            match ran {
                Ok(Ok(ran)) if session.warnings() == warnings => Ok(ran),
                // Counts as failed: a failover could undo it, and what is done here again does no harm.
                Ok(Ok(_)) => Err(StoreError::new("PostgreSQL warned that this may not be replicated")),
                Ok(Err(error)) => {
                    self.upkeep.give_up(&session).await;
                    Err(failure(&error))
                }
                Err(_) => {
                    self.upkeep.give_up(&session).await;
                    Err(StoreError::new(format!("PostgreSQL did not answer within {} s", TIMEOUT.as_secs())))
                }
            }
        })
    }
}
