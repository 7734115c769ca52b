//! Commits: one statement each, repeated until it is known whether it took effect.
//!
//! The statement reads the shard's row `FOR SHARE`. A take-over updates that row, so it waits for a commit that is under way. Every
//! later commit of the old owner finds another epoch and changes nothing.
//!
//! A commit whose answer is missing is repeated with the same number on another connection. Reading alone would not decide: the
//! first try may still take effect, and visible rows may not be replicated yet.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{
    error::{DbError, Severity, SqlState},
    types::ToSql,
};

use crate::store::{
    Record, StoreError, StoredMessage, StreamId,
    postgres::{
        CLOSED, PgStore, big,
        connect::{LOOK_AROUND, OVERTAKEN, RETRY, Session},
        current::{COMMITS_ARE_GONE, Standing},
        duty::{Duty, Moment},
        error::{PostgresError, describe, failure},
        journal::{self, Appended, Change},
        schema::make_chunk_table,
        slots::{self, Slot},
    },
    run::{self, MESSAGE_HEADER, RUN_HEADER},
};

/// The size at which a run is ended: a row of this size is stored in its page of 8 KiB, a larger one out of line.
const RUN_BYTES: usize = 7_900;
/// How long one try of a commit may take. PostgreSQL is left alone then: a cancelled commit may be answered before it is replicated.
pub(crate) const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a commit that was not sent yet looks for a server that takes writes.
const SEARCH: Duration = Duration::from_secs(5);

/// A commit as it is sent, as often as it has to be.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) commit_no: u64,
    pub(crate) changes: Vec<Change<'a>>,
    journal: Vec<u8>,
    chunks: Chunks,
    delayed: Delayed,
    /// When the last message enters its stream.
    pub(crate) newest_ms: Option<i64>,
}

/// The columns of rows with messages.
#[derive(Debug, Default)]
struct Chunks {
    stream: Vec<i64>,
    first: Vec<i64>,
    count: Vec<i32>,
    oldest_ms: Vec<i64>,
    newest_ms: Vec<i64>,
    payload: Vec<Vec<u8>>,
}

/// Changes of the table of delayed messages: rows to insert, and rows to delete.
#[derive(Debug, Default)]
struct Delayed {
    rows: BTreeMap<(StreamId, u64), (i64, Vec<u8>)>,
    /// Messages whose delay has ended.
    ended: Vec<(StreamId, u64)>,
    /// Delay queues of which everything below a place goes.
    purged: Vec<(StreamId, u64)>,
}

impl Delayed {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.ended.is_empty() && self.purged.is_empty()
    }

    /// The delay of a message has ended, so its row goes.
    fn end(&mut self, queue: StreamId, seq: u64) {
        // A statement does not see the rows that it inserts itself.
        if self.rows.remove(&(queue, seq)).is_none() {
            self.ended.push((queue, seq));
        }
    }

    /// The rows of a delay queue below a place go.
    fn purge(&mut self, queue: StreamId, below: u64) {
        // As in `end`: rows of this same commit cannot be deleted by its statement, so they are not inserted.
        self.rows.retain(|(of, seq), _| *of != queue || *seq >= below);
        self.purged.push((queue, below));
    }
}

impl<'a> Batch<'a> {
    /// The rows of a commit. `delay_queue_of` returns the delay queue of a queue that a record deletes, because its delayed
    /// messages are deleted in the same statement.
    ///
    /// # Errors
    /// When a record cannot be written as JSON.
    pub(crate) fn new(
        log: u32,
        commit_no: u64,
        records: &'a [Record],
        delay_queue_of: impl Fn(&Record) -> Option<StreamId>,
    ) -> Result<Self, serde_json::Error> {
        let mut changes = Vec::with_capacity(records.len());
        let mut delayed = Delayed::default();
        let mut streams: BTreeMap<StreamId, Vec<&Arc<StoredMessage>>> = BTreeMap::new();
        for record in records {
            match record {
                Record::Appended(stream, message) => {
                    // Collected from the whole commit, so that the messages of a stream share rows however the
                    // records are mixed.
                    let messages = streams.entry(*stream).or_default();
                    if messages.is_empty() {
                        // The place of the change in their order; its numbers are known at the end.
                        let (stream, first) = (*stream, message.seq);
                        changes.push(Change::Appended(Appended { stream, first, count: 0, newest_ms: 0 }));
                    }
                    messages.push(message);
                }
                Record::Delayed(queue, message) => {
                    let mut bytes = BytesMut::new();
                    run::put(&mut bytes, log, (*queue, message.seq), std::iter::once(message))?;
                    delayed.rows.insert((*queue, message.seq), (message.entered_ms, bytes.to_vec()));
                    changes.push(Change::Delayed { queue: *queue, seq: message.seq });
                }
                other => {
                    match other {
                        Record::DelayEnded(queue, _, seq) => delayed.end(*queue, *seq),
                        Record::DelayQueuePurged { delay_queue, below } => delayed.purge(*delay_queue, *below),
                        other => {
                            // In the same statement, because a delayed message without its queue would be found by
                            // nobody, and never deleted.
                            if let Some(queue) = delay_queue_of(other) {
                                delayed.purge(queue, u64::MAX);
                            }
                        }
                    }
                    changes.push(Change::Other(Cow::Borrowed(other)));
                }
            }
        }
        for change in &mut changes {
            if let Change::Appended(appended) = change
                && let Some(messages) = streams.get(&appended.stream)
            {
                appended.count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
                appended.newest_ms = messages.last().map_or(0, |last| last.entered_ms);
            }
        }
        let newest_ms = streams.values().filter_map(|messages| messages.last()).map(|last| last.entered_ms).max();
        let chunks = Chunks::of(log, &streams)?;
        let journal = journal::encode((log, commit_no), &changes)?;
        Ok(Self { commit_no, changes, journal, chunks, delayed, newest_ms })
    }

    /// The statement of the commit. The rows are arrays, one for each column, so that the text depends only on the tables and
    /// PostgreSQL plans it once for each of its few forms.
    fn sql(&self, shard: i32, slot: Slot) -> String {
        // `FOR SHARE` makes a take-over, which updates the row, wait for this commit. If the commit is in the journal already, nothing
        // is inserted there, and then nothing anywhere else.
        let mut sql = "WITH fence AS (SELECT 1 FROM shard WHERE id = $1 AND epoch = $2 FOR SHARE), \
                       j AS (INSERT INTO journal SELECT $1::int, $3::bigint, $2::bigint, $4::bytea \
                       WHERE EXISTS (SELECT 1 FROM fence) ON CONFLICT DO NOTHING RETURNING 1)"
            .to_owned();
        let mut value = 4;
        let mut next = |kind: &str| {
            value += 1;
            format!("${value}::{kind}[]")
        };
        if !self.chunks.first.is_empty() {
            let columns = ["bigint", "bigint", "int", "bigint", "bigint", "bytea"].map(&mut next).join(", ");
            sql += &format!(
                ", c AS (INSERT INTO {} SELECT $1::int, t.* FROM unnest({columns}) t WHERE EXISTS (SELECT 1 FROM j))",
                slots::table(shard, slot)
            );
        }
        if !self.delayed.is_empty() {
            let rows = ["bigint", "bigint", "bigint", "bytea"].map(&mut next).join(", ");
            let (ended, purged) = (["bigint"; 2].map(&mut next).join(", "), ["bigint"; 2].map(&mut next).join(", "));
            sql += &format!(
                ", p AS (INSERT INTO parked SELECT $1::int, t.* FROM unnest({rows}) t WHERE EXISTS (SELECT 1 FROM j)), \
                 u AS (DELETE FROM parked USING unnest({ended}) t(lot, seq) WHERE parked.shard = $1 AND parked.lot = t.lot \
                 AND parked.seq = t.seq AND EXISTS (SELECT 1 FROM j)), \
                 e AS (DELETE FROM parked USING unnest({purged}) t(lot, below) WHERE parked.shard = $1 AND parked.lot = t.lot \
                 AND parked.seq < t.below AND EXISTS (SELECT 1 FROM j))"
            );
        }
        // Both counts, because a commit that changed nothing has one of two causes: another epoch, or an earlier try
        // that took effect.
        sql + " SELECT (SELECT count(*) FROM fence), (SELECT count(*) FROM j)"
    }

    /// Sends it once. Returns whether the epoch was right, and whether the journal took the row.
    async fn send(&self, session: &Session, sql: &str, duty: &Duty) -> Result<(bool, bool), tokio_postgres::Error> {
        let commit_no = big(self.commit_no);
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&duty.shard, &duty.epoch, &commit_no, &self.journal];
        let Chunks { stream, first, count, oldest_ms, newest_ms, payload } = &self.chunks;
        if !first.is_empty() {
            let columns: [&(dyn ToSql + Sync); 6] = [stream, first, count, oldest_ms, newest_ms, payload];
            values.extend(columns);
        }
        let of = |pairs: &[(StreamId, u64)]| -> (Vec<i64>, Vec<i64>) {
            pairs.iter().map(|(queue, place)| (i64::from(queue.0), big(*place))).unzip()
        };
        let keys: Vec<_> = self.delayed.rows.keys().copied().collect();
        let ((lots, seqs), ended, purged) = (of(&keys), of(&self.delayed.ended), of(&self.delayed.purged));
        let (due, payloads): (Vec<i64>, Vec<&[u8]>) =
            self.delayed.rows.values().map(|(due_ms, payload)| (*due_ms, payload.as_slice())).unzip();
        if !self.delayed.is_empty() {
            let columns: [&(dyn ToSql + Sync); 8] =
                [&lots, &seqs, &due, &payloads, &ended.0, &ended.1, &purged.0, &purged.1];
            values.extend(columns);
        }
        let rows = session.query(sql, &values).await?;
        let Some(row) = rows.first() else { return Ok((false, false)) };
        Ok((row.try_get::<_, i64>(0)? > 0, row.try_get::<_, i64>(1)? > 0))
    }
}

impl Chunks {
    /// The messages of each stream, in rows of about [`RUN_BYTES`].
    fn of(log: u32, streams: &BTreeMap<StreamId, Vec<&Arc<StoredMessage>>>) -> Result<Self, serde_json::Error> {
        let mut chunks = Self::default();
        for (stream, messages) in streams {
            let mut rest = messages.as_slice();
            while let Some(first) = rest.first() {
                let (taken, others) = rest.split_at(length_of_run(rest));
                chunks.push(log, *stream, first, taken)?;
                rest = others;
            }
        }
        Ok(chunks)
    }

    fn push(
        &mut self,
        log: u32,
        stream: StreamId,
        first: &StoredMessage,
        messages: &[&Arc<StoredMessage>],
    ) -> Result<(), serde_json::Error> {
        let mut bytes =
            BytesMut::with_capacity(RUN_HEADER + messages.iter().map(|message| size(message)).sum::<usize>());
        let count = run::put(&mut bytes, log, (stream, first.seq), messages.iter().copied())?;
        self.stream.push(i64::from(stream.0));
        self.first.push(big(first.seq));
        self.count.push(i32::try_from(count).unwrap_or(i32::MAX));
        self.oldest_ms.push(first.entered_ms);
        self.newest_ms.push(messages.last().map_or(first.entered_ms, |last| last.entered_ms));
        self.payload.push(bytes.into());
        Ok(())
    }
}

/// How many of these messages of a stream are one run.
fn length_of_run(messages: &[&Arc<StoredMessage>]) -> usize {
    let mut bytes = RUN_HEADER;
    let fits = |message: &&&Arc<StoredMessage>| {
        bytes += size(message);
        bytes <= RUN_BYTES
    };
    // One message alone may be larger.
    messages.iter().take_while(fits).count().max(1)
}

/// About how many bytes a message takes in a run.
fn size(message: &StoredMessage) -> usize {
    let labels: usize = message.tags.iter().map(|label| label.len() + 1).sum();
    MESSAGE_HEADER + labels + message.json.len() + message.dead_letter.as_ref().map_or(0, |_| 512)
}

/// The outcome of one attempt to commit.
enum CommitAttempt {
    /// It took effect, and is replicated.
    Done,
    /// An earlier try of it took effect.
    Repeated,
    /// Another server owns the shard.
    Fenced,
    /// It did not take effect in this try.
    Failed(StoreError),
    /// The server takes no writes any more: another one does, or will.
    NotPrimary,
    /// The table of the slot is not there: a failover lost it, before a standby had it.
    NoTable,
    /// It is unknown whether it took effect.
    Unsure(String),
}

impl PgStore {
    /// Commits records; see [`Store::commit`](crate::store::Store::commit).
    pub(crate) fn commit_records(&self, records: &[Record]) -> Result<(), StoreError> {
        // Held until the outcome is known. The next commit has the next number, and its outcome would say nothing
        // about this one.
        let mut commit_no = self.last_commit();
        let delay_queue_of = |record: &Record| self.delay_queue_of(record);
        let batch = Batch::new(self.log, *commit_no + 1, records, delay_queue_of).map_err(StoreError::refused)?;
        let began = std::time::Instant::now();
        // One slot for the whole commit, the one of its latest message, so that a single INSERT has all of its rows.
        let slot = self.lock().slots.for_time(batch.newest_ms);
        // While this commit waits for too long, `may_serve` refuses new work.
        self.waits_since.store(Moment::now().nanos(), Ordering::Relaxed);
        let decided = self.runtime().block_on(async {
            self.make_table(slot).await?;
            self.decide(&batch, slot).await
        });
        // Before the result is looked at: a commit that failed waits no more, and must not keep new work out.
        self.waits_since.store(0, Ordering::Relaxed);
        decided?;
        // Only now: a commit that failed left no row, so the next one has its number. The journal has no gaps.
        *commit_no = batch.commit_no;
        self.committed(&batch, slot, began.elapsed());
        Ok(())
    }

    /// Makes a slot's table where the clock was faster than maintenance, which makes tables ahead of time.
    async fn make_table(&self, slot: Slot) -> Result<(), StoreError> {
        if self.lock().slots.tables.contains(&slot) {
            return Ok(());
        }
        let session = self.commits.get().await.map_err(StoreError::new)?;
        let made = timeout(self.try_timeout, make_chunk_table(&session, &slots::table(self.shard(), slot))).await;
        match made {
            Ok(Ok(())) => {
                self.lock().slots.tables.insert(slot);
                Ok(())
            }
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => {
                // It may still be busy with the statement.
                self.commits.give_up(&session).await;
                Err(StoreError::new("PostgreSQL did not make a table in time"))
            }
        }
    }

    /// Sends a commit until its outcome is known.
    async fn decide(&self, batch: &Batch<'_>, slot: Slot) -> Result<(), StoreError> {
        let sql = batch.sql(self.shard(), slot);
        let (began, mut wait, mut is_unsure) = (Instant::now(), RETRY.0, false);
        loop {
            // Checked before each try: otherwise a commit whose outcome PostgreSQL never tells would be tried forever.
            if self.duty.is_lost() {
                return Err(self.lost(is_unsure));
            }
            let session = match self.commits.get().await {
                Ok(session) => session,
                // Nothing was sent yet.
                Err(error) if !is_unsure && began.elapsed() >= SEARCH => return Err(StoreError::new(error)),
                Err(error) => {
                    tracing::debug!(%error, is_unsure, "PostgreSQL cannot be reached for a commit; it is tried again");
                    pause(&mut wait).await;
                    continue;
                }
            };
            match self.compared(&session, batch.commit_no).await {
                Standing::Current => {}
                // This commit may or may not be among the lost ones, so its callers are not told that it failed.
                Standing::Gone if is_unsure => {
                    self.duty.lose();
                    return Err(StoreError::unsure(COMMITS_ARE_GONE));
                }
                Standing::Gone => return Err(self.lose(COMMITS_ARE_GONE)),
                Standing::Fenced => {
                    self.duty.lose();
                    return Err(self.lost(is_unsure));
                }
                Standing::Stale(reason) if !is_unsure && began.elapsed() >= SEARCH => {
                    return Err(StoreError::new(format!("no PostgreSQL server has the latest commits: {reason}")));
                }
                Standing::Stale(_) => {
                    self.commits.give_up(&session).await;
                    pause(&mut wait).await;
                    continue;
                }
            }
            match self.try_once(&session, batch, &sql).await {
                CommitAttempt::Done => return Ok(()),
                CommitAttempt::Fenced => {
                    self.duty.lose();
                    return Err(self.lost(is_unsure));
                }
                // An earlier attempt took effect, but its rows may not be on the standby yet.
                CommitAttempt::Repeated if is_unsure => match self.confirm(&session).await {
                    Ok(()) => return Ok(()),
                    Err(reason) => self.is_unsure(batch, &reason),
                },
                // This server did not send it, so another one writes to the shard.
                CommitAttempt::Repeated => {
                    self.duty.lose();
                    return Err(StoreError::lost("the journal has a commit of this number already"));
                }
                CommitAttempt::Failed(error) if !is_unsure => return Err(error),
                // The error is of this attempt. An earlier one may still take effect.
                CommitAttempt::Failed(error) => tracing::debug!(%error, "an unsure commit cannot be repeated yet"),
                CommitAttempt::NotPrimary if !is_unsure && began.elapsed() >= SEARCH => {
                    return Err(StoreError::new("no PostgreSQL server takes writes"));
                }
                // A failover is under way. The next connection looks for the new primary.
                CommitAttempt::NotPrimary => {}
                CommitAttempt::NoTable => {
                    // Forgotten first, because `make_table` makes no table that is known to exist.
                    self.lock().slots.tables.remove(&slot);
                    match self.make_table(slot).await {
                        Ok(()) => continue,
                        Err(error) if !is_unsure => return Err(error),
                        Err(error) => tracing::debug!(%error, "a table for messages cannot be made yet"),
                    }
                }
                CommitAttempt::Unsure(reason) => {
                    is_unsure = true;
                    self.is_unsure(batch, &reason);
                }
            }
            // On another connection: on this one the next answer may belong to this attempt.
            self.commits.give_up(&session).await;
            pause(&mut wait).await;
        }
    }

    /// Checks once for each session that PostgreSQL has all confirmed commits. After an asynchronous failover or a restore it lacks
    /// the last ones. Another commit would then leave a gap in the journal, and no server could open the shard.
    async fn compared(&self, session: &Session, commit_no: u64) -> Standing {
        if session.seen.load(Ordering::Relaxed) >= 0 {
            return Standing::Current;
        }
        self.standing(session, commit_no - 1).await
    }

    /// Sends a commit once, and says what is known of it afterwards.
    async fn try_once(&self, session: &Session, batch: &Batch<'_>, sql: &str) -> CommitAttempt {
        let warnings = session.warnings();
        let sent = tokio::select! {
            sent = timeout(self.try_timeout, batch.send(session, sql, &self.duty)) => sent,
            () = self.member.connector.overtaken(session, LOOK_AROUND) => {
                return CommitAttempt::Unsure(OVERTAKEN.to_owned());
            }
        };
        // Before the answer is looked at, because the warning that a standby was not waited for comes with a success.
        if session.warnings() != warnings {
            return CommitAttempt::Unsure("PostgreSQL warned that the commit may not be replicated".to_owned());
        }
        match sent {
            Ok(Ok((true, true))) => CommitAttempt::Done,
            Ok(Ok((true, false))) => CommitAttempt::Repeated,
            Ok(Ok((false, _))) => CommitAttempt::Fenced,
            Ok(Err(error)) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => CommitAttempt::NoTable,
            Ok(Err(error)) => judge(&error),
            Err(_) => CommitAttempt::Unsure(self.no_answer()),
        }
    }

    fn is_unsure(&self, batch: &Batch<'_>, reason: &str) {
        self.count_unsure();
        tracing::warn!(
            commit = batch.commit_no,
            reason,
            "it is not known whether a commit took effect; it is repeated until it is"
        );
    }

    /// Another server owns the shard. Unless an earlier attempt may have taken effect, nothing was changed and nothing will be: an
    /// attempt that PostgreSQL refused for its epoch inserted no row.
    fn lost(&self, is_unsure: bool) -> StoreError {
        match (is_unsure, self.is_released()) {
            (false, _) => StoreError::fenced(PostgresError::NotOwner),
            (true, true) => StoreError::unsure(CLOSED),
            (true, false) => StoreError::unsure(PostgresError::NotOwner),
        }
    }
}

async fn pause(wait: &mut Duration) {
    sleep(*wait).await;
    *wait = (*wait * 2).min(RETRY.1);
}

/// Classifies an error. Nothing was changed for certain only if the session goes on after it.
fn judge(error: &tokio_postgres::Error) -> CommitAttempt {
    // The connection broke. The statement may have arrived, and its answer is lost.
    let Some(said) = error.as_db_error() else { return CommitAttempt::Unsure(describe(error)) };
    if *said.code() == SqlState::READ_ONLY_SQL_TRANSACTION {
        return CommitAttempt::NotPrimary;
    }
    match is_definite(said) {
        true => CommitAttempt::Failed(failure(error)),
        false => CommitAttempt::Unsure(describe(error)),
    }
}

/// Whether an error of PostgreSQL means that the statement changed nothing, and will not.
fn is_definite(said: &DbError) -> bool {
    // A session that is ended while it waits for the standby has committed already. Class 57 is the operator's doing, 40 and 55 are
    // worth another try.
    let code = said.code().code();
    said.parsed_severity() == Some(Severity::Error)
        && !["57", "08", "40", "55"].iter().any(|class| code.starts_with(class))
}
