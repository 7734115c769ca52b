//! Opening a shard: everything except messages, as of the take-over.
//!
//! All of it is read in one snapshot, which begins after the take-over was answered: then no commit of an earlier owner is missing,
//! and none can follow.

use std::{collections::BTreeMap, time::Duration};

use tokio_postgres::{
    Row,
    types::{FromSql, ToSql},
};

use crate::store::{
    CursorId, DelayQueueSnapshot, GroupSnapshot, LeaseSnapshot, QueueSnapshot, ScheduleSnapshot, SentKeys, Snapshot,
    StreamId, StreamSnapshot,
    postgres::{
        big,
        connect::Session,
        duty::Duty,
        error::{PostgresError, within},
        images::{CursorImage, Images, QueueImage, StreamImage},
        journal, slots,
        slots::{Slot, Slots},
    },
    settled_page::SettledPage,
};

/// How many rows of the journal are read at a time.
const JOURNAL_ROWS: i64 = 2_000;
/// How long PostgreSQL may take for one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// An opened shard.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) images: Images,
    pub(crate) slots: Slots,
    pub(crate) snapshot: Snapshot,
}

/// Reads a shard. The session must be dropped after an error.
///
/// # Errors
/// When another server has taken the shard meanwhile, the tables contradict each other, or PostgreSQL fails.
pub(crate) async fn open(session: &Session, log: u32, duty: &Duty, schema: &str) -> Result<Opened, PostgresError> {
    let loader = Loader { session, log, shard: duty.shard, schema };
    within(STATEMENT_TIMEOUT, session.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")).await?;
    // Also the proof that this is the server on which the take-over was answered.
    let owned = loader.query("SELECT 1 FROM shard WHERE id = $1 AND epoch = $2", &[&duty.shard, &duty.epoch]).await?;
    if owned.is_empty() {
        return Err(PostgresError::NotOwner);
    }
    let mut images = loader.images().await?;
    loader.replay(&mut images).await?;
    let slots = loader.slots(&images).await?;
    let snapshot = loader.snapshot(&images, &slots).await?;
    within(STATEMENT_TIMEOUT, session.batch("COMMIT")).await?;
    // After the transaction, which only reads.
    if !snapshot.leases.is_empty() {
        loader.forget_leases(duty).await?;
    }
    Ok(Opened { images, slots, snapshot })
}

/// The first and last place of a stream in a table.
type Extent = (u64, u64);

/// Reads one shard, in the transaction that [`open`] has begun.
struct Loader<'a> {
    session: &'a Session,
    log: u32,
    shard: i32,
    schema: &'a str,
}

impl Loader<'_> {
    fn damaged(&self, reason: impl Into<String>) -> PostgresError {
        PostgresError::Damaged { schema: self.schema.to_owned(), reason: reason.into() }
    }

    /// A number of a column. PostgreSQL has signed ones only, so a damaged row may hold one that is out of range.
    fn number<T: TryFrom<i64>>(&self, row: &Row, column: usize) -> Result<T, PostgresError> {
        T::try_from(row.try_get(column)?).map_err(|_| self.damaged(format!("column {column} of a row is out of range")))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, text: &str) -> Result<T, PostgresError> {
        serde_json::from_str(text).map_err(|error| self.damaged(error.to_string()))
    }

    fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, PostgresError> {
        Ok(row.try_get(column)?)
    }

    async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PostgresError> {
        within(STATEMENT_TIMEOUT, self.session.query(sql, values)).await
    }

    async fn rows(&self, sql: &str) -> Result<Vec<Row>, PostgresError> {
        self.query(sql, &[&self.shard]).await
    }

    /// The last image that maintenance wrote.
    async fn images(&self) -> Result<Images, PostgresError> {
        let mut images = Images::default();
        let rows = self.rows("SELECT commit_no, next_number FROM image WHERE shard = $1").await?;
        let row = rows.first().ok_or_else(|| self.damaged("the table image has no row for the shard"))?;
        (images.commit_no, images.next_number) = (self.number(row, 0)?, self.number(row, 1)?);
        for row in &self.rows("SELECT number, facts, tags, retention FROM queue WHERE shard = $1").await? {
            let (facts, tags, retention) =
                (self.json(Self::get(row, 1)?)?, self.json(Self::get(row, 2)?)?, self.json(Self::get(row, 3)?)?);
            images.add_queue(self.number(row, 0)?, QueueImage { row: facts, tags, retention });
        }
        for row in &self.rows("SELECT number, facts FROM consumer_group WHERE shard = $1").await? {
            images.groups.insert(self.number(row, 0)?, self.json(Self::get(row, 1)?)?);
        }
        for row in &self.rows("SELECT number, low, next, newest_ms FROM stream WHERE shard = $1").await? {
            let image =
                StreamImage { low: self.number(row, 1)?, next: self.number(row, 2)?, newest_ms: Self::get(row, 3)? };
            images.streams.insert(StreamId(self.number(row, 0)?), image);
        }
        let cursors = "SELECT number, stream, start, head, page, consumed, rule FROM reader WHERE shard = $1";
        for row in &self.rows(cursors).await? {
            let rule = Self::get::<Option<&str>>(row, 6)?.map(|rule| self.json(rule)).transpose()?;
            let image = CursorImage {
                stream: StreamId(self.number(row, 1)?),
                start: self.number(row, 2)?,
                head: self.number(row, 3)?,
                page: self.number(row, 4)?,
                consumed: self.number(row, 5)?,
                rule,
            };
            images.add_cursor(CursorId(self.number(row, 0)?), image);
        }
        for row in &self.rows("SELECT reader, page, bits, failures FROM settled WHERE shard = $1").await? {
            let page = SettledPage::decode(Self::get(row, 2)?, Self::get(row, 3)?)
                .map_err(|bad| self.damaged(bad.to_string()))?;
            images.pages.insert((CursorId(self.number(row, 0)?), self.number(row, 1)?), page);
        }
        for row in &self.rows("SELECT queue, name, facts, progress FROM schedule WHERE shard = $1").await? {
            let (facts, progress) = (self.json(Self::get(row, 2)?)?, self.json(Self::get(row, 3)?)?);
            let key = (self.number(row, 0)?, Self::get(row, 1)?);
            images.schedules.insert(key, ScheduleSnapshot { row: facts, progress });
        }
        for row in &self.rows("SELECT until_ms, commit_no, keys FROM sent_keys WHERE shard = $1").await? {
            let keys = SentKeys::from_bytes(Self::get(row, 2)?);
            let keys = keys.ok_or_else(|| self.damaged("a row of sent_keys is cut off"))?;
            images.keys.insert((Self::get(row, 0)?, self.number(row, 1)?), keys);
        }
        Ok(images)
    }

    /// Takes in the commits after the image. None of them may be missing.
    async fn replay(&self, images: &mut Images) -> Result<(), PostgresError> {
        let sql =
            "SELECT commit_no, payload FROM journal WHERE shard = $1 AND commit_no > $2 ORDER BY commit_no LIMIT $3";
        // In parts, because after an outage of maintenance the journal may be long.
        loop {
            let rows = self.query(sql, &[&self.shard, &big(images.commit_no), &JOURNAL_ROWS]).await?;
            for row in &rows {
                let commit_no: u64 = self.number(row, 0)?;
                // A gap is a lost commit. Without its changes, later ones would be applied to a state that never was.
                if commit_no != images.commit_no + 1 {
                    return Err(self.damaged(format!("the journal has commit {commit_no} behind {}", images.commit_no)));
                }
                let changes = journal::decode((self.log, commit_no), Self::get(row, 1)?)
                    .map_err(|bad| self.damaged(format!("commit {commit_no}: {bad}")))?;
                changes.iter().for_each(|change| images.apply(change));
                images.commit_no = commit_no;
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }

    /// Finds the tables, and which of them each stream uses. The last message of each stream has to be there.
    async fn slots(&self, images: &Images) -> Result<Slots, PostgresError> {
        let mut found = Slots::default();
        let sql = "SELECT tablename FROM pg_tables WHERE schemaname = $1 AND tablename LIKE 'chunk\\_%'";
        for row in &self.query(sql, &[&self.schema]).await? {
            found.tables.extend(slots::slot_of_table(self.shard, Self::get(row, 0)?));
        }
        // Only these are looked for. Of many queues, most streams are of dead letters or delayed messages, and empty.
        let streams: Vec<_> = images.streams_with_messages().collect();
        let numbers: Vec<i64> = streams.iter().map(|(stream, _)| i64::from(stream.0)).collect();
        let mut ends: BTreeMap<StreamId, u64> = BTreeMap::new();
        for slot in found.tables.clone() {
            for (stream, (first, end)) in self.extents(&numbers, slot).await? {
                found.note(stream, first, slot);
                ends.insert(stream, end);
            }
        }
        for (stream, image) in streams {
            if ends.get(&stream) != Some(&image.next) {
                let last = image.next - 1;
                return Err(self.damaged(format!("message {last} of stream {} is in no chunk table", stream.0)));
            }
            found.expire(stream, image.low, image.next);
        }
        // Slots never go back, also behind messages that have expired since.
        found.reached(images.streams.values().map(|image| image.newest_ms).max());
        Ok(found)
    }

    /// Where these streams begin in a table, and where they end.
    async fn extents(&self, streams: &[i64], slot: Slot) -> Result<Vec<(StreamId, Extent)>, PostgresError> {
        // Two look-ups in the index for each stream. Grouping the rows of a table by stream would read all of them,
        // and there may be millions.
        let table = slots::table(self.shard, slot);
        let sql = format!(
            "SELECT t.number, a.first, z.first + z.n FROM unnest($2::bigint[]) t(number) \
             CROSS JOIN LATERAL (SELECT first FROM {table} WHERE shard = $1 AND stream = t.number ORDER BY first LIMIT 1) a \
             CROSS JOIN LATERAL (SELECT first, n FROM {table} WHERE shard = $1 AND stream = t.number ORDER BY first DESC LIMIT 1) z"
        );
        let rows = self.query(&sql, &[&self.shard, &streams]).await?;
        rows.iter()
            .map(|row| Ok((StreamId(self.number(row, 0)?), (self.number(row, 1)?, self.number(row, 2)?))))
            .collect()
    }

    /// The shard as the broker opens it.
    async fn snapshot(&self, images: &Images, slots: &Slots) -> Result<Snapshot, PostgresError> {
        let oldest = self.oldest(images, slots).await?;
        let delayed = self.delayed().await?;
        let stream = |number: StreamId| {
            let image = images.streams.get(&number);
            let image = image.ok_or_else(|| self.damaged(format!("there is no stream {}", number.0)))?;
            let StreamImage { low, next, newest_ms } = *image;
            let oldest = if low < next { Some(oldest.get(&number).copied().unwrap_or(newest_ms)) } else { None };
            Ok::<_, PostgresError>(StreamSnapshot { low, next, oldest, newest: newest_ms })
        };
        let cursor = |number: CursorId| {
            images.cursor_snapshot(number).ok_or_else(|| self.damaged(format!("there is no cursor {}", number.0)))
        };
        let leases = self.leases(images.commit_no).await?;
        let keys = images.keys.values().cloned().collect();
        let mut snapshot = Snapshot { next_number: images.next_number, keys, leases, ..Snapshot::default() };
        for QueueImage { row, tags, retention } in images.queues.values() {
            let next = stream(row.delay_queue())?.next;
            let (count, next_due) = delayed.get(&row.delay_queue()).copied().unwrap_or_default();
            snapshot.queues.push(QueueSnapshot {
                row: row.clone(),
                tags: tags.clone(),
                retention: *retention,
                schedules: images.schedules_of(row.number).map(|(_, schedule)| schedule.clone()).collect(),
                stream: stream(row.stream())?,
                delay_queue: DelayQueueSnapshot { next, count, next_due },
            });
        }
        for row in images.groups.values() {
            snapshot.groups.push(GroupSnapshot {
                row: row.clone(),
                cursor: cursor(row.cursor())?,
                dead_letters: stream(row.dead_letters())?,
                dead_letter_cursor: cursor(row.dead_letter_cursor())?,
            });
        }
        Ok(snapshot)
    }

    /// The leases that the owner before handed over. A commit since then means that they have ended, or that their owner crashed later.
    async fn leases(&self, commit_no: u64) -> Result<Vec<LeaseSnapshot>, PostgresError> {
        let sql = "SELECT leases FROM leased WHERE shard = $1 AND commit_no = $2";
        let rows = self.query(sql, &[&self.shard, &big(commit_no)]).await?;
        rows.first().map_or(Ok(Vec::new()), |row| self.json(Self::get(row, 0)?))
    }

    /// Deletes the leases that were handed over. Without a commit until this server crashes, the next one would take them for its own, and
    /// they would last longer than they were given.
    async fn forget_leases(&self, duty: &Duty) -> Result<(), PostgresError> {
        let sql = "DELETE FROM leased WHERE shard = $1 AND EXISTS (SELECT 1 FROM shard WHERE id = $1 AND epoch = $2 FOR SHARE)";
        self.query(sql, &[&self.shard, &duty.epoch]).await.map(drop)
    }

    /// When the first message of each stream entered, or a little earlier: the time of the row that it is in.
    async fn oldest(&self, images: &Images, slots: &Slots) -> Result<BTreeMap<StreamId, i64>, PostgresError> {
        // One query for each table and not for each stream: while a shard is opened, all requests for its queues
        // wait.
        let mut by_slot: BTreeMap<Slot, (Vec<i64>, Vec<i64>)> = BTreeMap::new();
        for (stream, image) in images.streams.iter().filter(|(_, image)| image.low < image.next) {
            if let Some(slot) = slots.of(*stream, image.low) {
                let (numbers, lows) = by_slot.entry(slot).or_default();
                numbers.push(i64::from(stream.0));
                lows.push(big(image.low));
            }
        }
        let mut oldest = BTreeMap::new();
        for (slot, (numbers, lows)) in &by_slot {
            let table = slots::table(self.shard, *slot);
            let sql = format!(
                "SELECT t.number, c.oldest_ms FROM unnest($2::bigint[], $3::bigint[]) t(number, low) CROSS JOIN LATERAL \
                 (SELECT oldest_ms FROM {table} WHERE shard = $1 AND stream = t.number AND first <= t.low \
                 ORDER BY first DESC LIMIT 1) c"
            );
            for row in &self.query(&sql, &[&self.shard, numbers, lows]).await? {
                oldest.insert(StreamId(self.number(row, 0)?), Self::get(row, 1)?);
            }
        }
        Ok(oldest)
    }

    /// How many messages each delay queue has, and when the first one is due.
    async fn delayed(&self) -> Result<BTreeMap<StreamId, (u64, Option<i64>)>, PostgresError> {
        let rows = self.rows("SELECT lot, count(*), min(due_ms) FROM parked WHERE shard = $1 GROUP BY lot").await?;
        rows.iter()
            .map(|row| Ok((StreamId(self.number(row, 0)?), (self.number(row, 1)?, Self::get(row, 2)?))))
            .collect()
    }
}
