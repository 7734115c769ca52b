//! Finds messages. The newest are usually in memory: these reads are for a backlog, for messages that failed, and after a take-over.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use tokio_postgres::Row;

use crate::store::{
    Damaged, ReadBatch, ReadLimit, StoreError, StoredMessage, StreamId,
    position::{Position, Run},
    postgres::{
        PgStore, big,
        current::Proof,
        error::failure,
        slots::{self, Slot},
    },
    run::{self, RunContent},
};

/// The most rows that one query brings.
const MAX_ROWS: usize = 1_000;
/// The most bytes that one query brings, beside its first row.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The most places that one query looks for.
const MAX_PLACES: usize = 256;
/// The number of damaged messages that ends a read.
const MAX_DAMAGED: usize = 1_024;

/// A row of messages.
struct Chunk {
    run: Run,
    newest_ms: i64,
    /// Empty where it was not asked for.
    payload: Bytes,
}

impl PgStore {
    /// See [`Store::read`](crate::store::Store::read).
    pub(crate) fn read_stream(&self, stream: StreamId, from: u64, limit: ReadLimit) -> Result<ReadBatch, StoreError> {
        if self.is_delay_queue(stream) {
            return self.read_delayed(stream, from, limit);
        }
        self.at_a_current_server(|proof| self.gather_from(stream, from, limit, proof))
    }

    /// Reads, and where something seems to be missing, again: an old primary lacks messages that are not damaged.
    fn at_a_current_server(
        &self,
        read: impl Fn(Proof) -> Result<(ReadBatch, bool), StoreError>,
    ) -> Result<ReadBatch, StoreError> {
        match read(Proof::Connection)? {
            (found, false) => Ok(found),
            (_, true) => read(Proof::Latest).map(|(found, _)| found),
        }
    }

    /// Messages of a stream from a place on, and whether some of them are missing.
    fn gather_from(
        &self,
        stream: StreamId,
        from: u64,
        limit: ReadLimit,
        proof: Proof,
    ) -> Result<(ReadBatch, bool), StoreError> {
        let mut gathered = Gathered::new(limit);
        let Some((slots, from, end)) = self.where_is(stream, from) else { return Ok(gathered.end(u64::MAX)) };
        let mut next = from;
        'slots: for slot in slots {
            while next < end {
                let rows = limit.messages.saturating_sub(gathered.found.messages.len()).clamp(1, MAX_ROWS);
                let most = (rows, limit.bytes.min(MAX_BYTES));
                // Places are dense, so this many messages are in the rows that begin before this place.
                let wanted = next.saturating_add(rows as u64).min(end);
                let mut chunks = self.chunks_from(slot, stream, next..wanted, most, proof)?;
                let is_passed = |chunks: &[Chunk], next| chunks.last().is_none_or(|last| last.run.end() <= next);
                if is_passed(&chunks, next) && wanted < end {
                    // Unless rows are missing. Then the first row is one that ends before, so there has to be room for another.
                    chunks = self.chunks_from(slot, stream, next..end, (rows + 1, MAX_BYTES), proof)?;
                }
                // This table has nothing later. The next one continues.
                if is_passed(&chunks, next) {
                    continue 'slots;
                }
                for chunk in chunks {
                    gathered.add_missing(self, stream, next..chunk.run.first);
                    if let Err(place) = gathered.add_chunk(&self.content_of(&chunk, slot), next..end) {
                        return Ok(gathered.end(place));
                    }
                    next = next.max(chunk.run.end());
                }
                if gathered.is_full() {
                    return Ok(gathered.end(next));
                }
            }
        }
        // The tables have to reach up to the end that memory knows. Anything less is missing, and not the end of the
        // stream.
        gathered.add_missing(self, stream, next..end);
        Ok(gathered.end(u64::MAX))
    }

    /// The slots that have messages of a stream from a place on, the first place that is there, and the end of the stream.
    fn where_is(&self, stream: StreamId, from: u64) -> Option<(Vec<Slot>, u64, u64)> {
        let state = self.lock();
        let image = state.images.streams.get(&stream)?;
        let from = from.max(image.low);
        // Taken under one lock, so that the slots and the ends of the stream are those of the same commit.
        (from < image.next).then(|| (state.slots.from(stream, from), from, image.next))
    }

    /// The rows with messages of these places: at most `rows`, and no more than fit into `bytes` beside the first.
    fn chunks_from(
        &self,
        slot: Slot,
        stream: StreamId,
        places: Range<u64>,
        (rows, bytes): (usize, usize),
        proof: Proof,
    ) -> Result<Vec<Chunk>, StoreError> {
        let table = slots::table(self.shard(), slot);
        // The limit of bytes is applied in PostgreSQL, so that large messages beyond it are not sent.
        let sql = format!(
            "SELECT first, n, newest_ms, payload FROM (SELECT *, sum(octet_length(payload)) OVER (ORDER BY first) \
             - octet_length(payload) AS before FROM (SELECT * FROM {table} WHERE shard = $1 AND stream = $2 AND first >= \
             coalesce((SELECT first FROM {table} WHERE shard = $1 AND stream = $2 AND first <= $3 ORDER BY first DESC LIMIT 1), $3) \
             AND first < $6 ORDER BY first LIMIT $4) rows) weighed WHERE before < $5 ORDER BY first"
        );
        let (stream_no, from, end) = (i64::from(stream.0), big(places.start), big(places.end));
        let (rows, bytes) = (big(rows as u64), big(bytes.max(1) as u64));
        let found = self.query(proof, &sql, &[&self.duty.shard, &stream_no, &from, &rows, &bytes, &end])?;
        found.iter().map(|row| chunk(stream, row)).collect()
    }

    /// See [`Store::read_these`](crate::store::Store::read_these).
    pub(crate) fn read_places(&self, stream: StreamId, seqs: &[u64], bytes: usize) -> Result<ReadBatch, StoreError> {
        let limit = ReadLimit { messages: seqs.len(), bytes };
        if self.is_delay_queue(stream) {
            return self.delayed_places(stream, seqs, Gathered::new(limit));
        }
        self.at_a_current_server(|proof| self.gather_places(stream, seqs, limit, proof))
    }

    /// These messages of a stream, and whether some of them are missing.
    fn gather_places(
        &self,
        stream: StreamId,
        seqs: &[u64],
        limit: ReadLimit,
        proof: Proof,
    ) -> Result<(ReadBatch, bool), StoreError> {
        let mut gathered = Gathered::new(limit);
        for (slot, places) in self.by_slot(stream, seqs) {
            for places in places.chunks(MAX_PLACES) {
                let mut left: BTreeSet<u64> = places.iter().copied().collect();
                for chunk in self.chunks_with(slot, stream, places, proof)? {
                    left.retain(|place| !(chunk.run.first..chunk.run.end()).contains(place));
                    let mut content = self.content_of(&chunk, slot);
                    content.messages.retain(|message| places.binary_search(&message.seq).is_ok());
                    content.damaged.retain(|damaged| places.binary_search(&damaged.seq).is_ok());
                    if let Err(place) = gathered.add_chunk(&content, 0..u64::MAX) {
                        return Ok(gathered.end(place));
                    }
                }
                // Some may have expired meanwhile.
                let low = self.lock().images.streams.get(&stream).map_or(u64::MAX, |image| image.low);
                left.range(low..).for_each(|place| gathered.add_missing(self, stream, *place..*place + 1));
            }
        }
        Ok(gathered.end(u64::MAX))
    }

    /// Places that are there, by the slots that have them.
    fn by_slot(&self, stream: StreamId, seqs: &[u64]) -> Vec<(Slot, Vec<u64>)> {
        let state = self.lock();
        let Some(image) = state.images.streams.get(&stream) else { return Vec::new() };
        let mut found: Vec<(Slot, Vec<u64>)> = Vec::new();
        for seq in seqs.iter().copied().filter(|seq| (image.low..image.next).contains(seq)) {
            let Some(slot) = state.slots.of(stream, seq) else { continue };
            // The places come in order, and places and slots grow together, so those of one slot follow each other.
            match found.last_mut().filter(|(last, _)| *last == slot) {
                Some((_, places)) => places.push(seq),
                None => found.push((slot, vec![seq])),
            }
        }
        found
    }

    /// The rows of a table that have these places, each of them once.
    fn chunks_with(
        &self,
        slot: Slot,
        stream: StreamId,
        places: &[u64],
        proof: Proof,
    ) -> Result<Vec<Chunk>, StoreError> {
        let table = slots::table(self.shard(), slot);
        let sql = format!(
            "SELECT first, n, newest_ms, payload FROM {table} WHERE shard = $1 AND stream = $2 AND first IN (SELECT \
             (SELECT first FROM {table} WHERE shard = $1 AND stream = $2 AND first <= t.place ORDER BY first DESC LIMIT 1) \
             FROM unnest($3::bigint[]) t(place)) ORDER BY first"
        );
        let places: Vec<i64> = places.iter().map(|place| big(*place)).collect();
        let found = self.query(proof, &sql, &[&self.duty.shard, &i64::from(stream.0), &places])?;
        found.iter().map(|row| chunk(stream, row)).collect()
    }

    /// See [`Store::entered`](crate::store::Store::entered).
    pub(crate) fn entry_times(
        &self,
        stream: StreamId,
        from: u64,
        count: usize,
        until_ms: i64,
    ) -> Result<Vec<(u64, i64)>, StoreError> {
        let mut times = Vec::new();
        let Some((slots, from, end)) = self.where_is(stream, from) else { return Ok(times) };
        let mut next = from;
        for slot in slots {
            loop {
                // A few rows at a time, because usually one of the first messages is not due, and that ends the
                // search.
                let chunks = self.times_from(slot, stream, next)?;
                let Some(last) = chunks.last().map(|chunk| chunk.run.end()).filter(|last| *last > next) else { break };
                for chunk in chunks {
                    for (place, entered_ms) in self.times_of(&chunk) {
                        if !(next..end).contains(&place) {
                            continue;
                        }
                        if times.len() == count {
                            return Ok(times);
                        }
                        times.push((place, entered_ms));
                        if entered_ms > until_ms {
                            return Ok(times);
                        }
                    }
                }
                next = last;
            }
        }
        Ok(times)
    }

    /// A few rows. A message that is alone in its row may be large; its time is in a column.
    fn times_from(&self, slot: Slot, stream: StreamId, from: u64) -> Result<Vec<Chunk>, StoreError> {
        let table = slots::table(self.shard(), slot);
        let sql = format!(
            "SELECT first, n, newest_ms, CASE WHEN n = 1 THEN ''::bytea ELSE payload END FROM {table} \
             WHERE shard = $1 AND stream = $2 AND first >= coalesce((SELECT first FROM {table} WHERE shard = $1 AND stream = $2 \
             AND first <= $3 ORDER BY first DESC LIMIT 1), $3) ORDER BY first LIMIT 16"
        );
        let found = self.query(Proof::Connection, &sql, &[&self.duty.shard, &i64::from(stream.0), &big(from)])?;
        found.iter().map(|row| chunk(stream, row)).collect()
    }

    /// See [`Store::entered_each`](crate::store::Store::entered_each). With many queues, a query for each message would take seconds.
    pub(crate) fn entry_times_of_each(&self, messages: &[(StreamId, u64)]) -> Result<Vec<Option<i64>>, StoreError> {
        let mut times = vec![None; messages.len()];
        for (slot, asked) in self.slots_of_each(messages) {
            for asked in asked.chunks(MAX_PLACES) {
                self.add_times(slot, messages, asked, &mut times)?;
            }
        }
        Ok(times)
    }

    /// Which of these messages are in which slot.
    fn slots_of_each(&self, messages: &[(StreamId, u64)]) -> BTreeMap<Slot, Vec<usize>> {
        let state = self.lock();
        let mut found: BTreeMap<Slot, Vec<usize>> = BTreeMap::new();
        for (number, (stream, seq)) in messages.iter().enumerate() {
            if let Some(slot) = state.slots.of(*stream, *seq) {
                found.entry(slot).or_default().push(number);
            }
        }
        found
    }

    /// Adds the times of the messages with these numbers.
    fn add_times(
        &self,
        slot: Slot,
        messages: &[(StreamId, u64)],
        asked: &[usize],
        times: &mut [Option<i64>],
    ) -> Result<(), StoreError> {
        let table = slots::table(self.shard(), slot);
        // The times of the first message of a row and of the last one are columns.
        let sql = format!(
            "SELECT c.first, c.n, CASE WHEN c.first = t.place THEN c.oldest_ms ELSE c.newest_ms END, \
             CASE WHEN c.first = t.place OR c.first + c.n <= t.place + 1 THEN ''::bytea ELSE c.payload END, t.number \
             FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) t(stream, place, number) CROSS JOIN LATERAL \
             (SELECT * FROM {table} WHERE shard = $1 AND stream = t.stream AND first <= t.place ORDER BY first DESC LIMIT 1) c"
        );
        let asked: Vec<_> = asked.iter().filter_map(|number| Some((number, messages.get(*number)?))).collect();
        let streams: Vec<i64> = asked.iter().map(|(_, (stream, _))| i64::from(stream.0)).collect();
        let places: Vec<i64> = asked.iter().map(|(_, (_, seq))| big(*seq)).collect();
        let numbers: Vec<i64> = asked.iter().map(|(number, _)| big(**number as u64)).collect();
        for row in self.query(Proof::Connection, &sql, &[&self.duty.shard, &streams, &places, &numbers])? {
            let number = usize::try_from(place(&row, 4)?).unwrap_or(usize::MAX);
            let (Some((stream, seq)), Some(time)) = (messages.get(number), times.get_mut(number)) else { continue };
            let chunk = chunk(*stream, &row)?;
            let is_there = (chunk.run.first..chunk.run.end()).contains(seq);
            *time = match chunk.payload.is_empty() {
                true => is_there.then_some(chunk.newest_ms),
                false => self.times_of(&chunk).into_iter().find(|(place, _)| place == seq).map(|(_, time)| time),
            };
        }
        Ok(())
    }

    /// The times of a row. A damaged message gets the latest time of the row, so that it never expires early.
    fn times_of(&self, chunk: &Chunk) -> Vec<(u64, i64)> {
        let content = match chunk.run.count {
            1 => RunContent::lost(&chunk.run),
            _ => run::read(self.log, &chunk.run, &chunk.payload),
        };
        content.times().into_iter().map(|(place, time)| (place, time.unwrap_or(chunk.newest_ms))).collect()
    }

    /// See [`Store::first_due`](crate::store::Store::first_due).
    pub(crate) fn due(&self, queue: StreamId, limit: ReadLimit, skip: &BTreeSet<u64>) -> Result<ReadBatch, StoreError> {
        let sql = "SELECT seq, due_ms, payload FROM (SELECT *, sum(octet_length(payload)) OVER (ORDER BY due_ms, seq) \
                   - octet_length(payload) AS before FROM (SELECT * FROM parked WHERE shard = $1 AND lot = $2 AND seq <> ALL ($3) \
                   ORDER BY due_ms, seq LIMIT $4) rows) weighed WHERE before < $5 ORDER BY due_ms, seq";
        let skip: Vec<i64> = skip.iter().map(|seq| big(*seq)).collect();
        let (rows, bytes) =
            (big(limit.messages.clamp(1, MAX_ROWS) as u64), big(limit.bytes.clamp(1, MAX_BYTES) as u64));
        // An old primary still has messages whose delay has ended: they would enter the stream twice.
        let found = self.query(Proof::Latest, sql, &[&self.duty.shard, &i64::from(queue.0), &skip, &rows, &bytes])?;
        let mut gathered = Gathered::new(limit);
        for row in &found {
            if gathered.add_chunk(&self.delayed_content(queue, row)?, 0..u64::MAX).is_err() {
                break;
            }
        }
        Ok(gathered.until(u64::MAX))
    }

    /// Delayed messages by place, for callers that look at them. [`due`](Self::due) finds them by time.
    fn read_delayed(&self, queue: StreamId, from: u64, limit: ReadLimit) -> Result<ReadBatch, StoreError> {
        let sql =
            "SELECT seq, due_ms, payload FROM parked WHERE shard = $1 AND lot = $2 AND seq >= $3 ORDER BY seq LIMIT $4";
        let mut gathered = Gathered::new(limit);
        let mut next = from;
        loop {
            // This query has no limit of bytes, so it asks for few rows at a time.
            let rows = limit.messages.clamp(1, 64);
            let found = self.query(
                Proof::Latest,
                sql,
                &[&self.duty.shard, &i64::from(queue.0), &big(next), &big(rows as u64)],
            )?;
            for row in &found {
                if let Err(place) = gathered.add_chunk(&self.delayed_content(queue, row)?, 0..u64::MAX) {
                    return Ok(gathered.until(place));
                }
                next = place(row, 0)? + 1;
            }
            if found.len() < rows {
                return Ok(gathered.until(u64::MAX));
            }
            if gathered.is_full() {
                return Ok(gathered.until(next));
            }
        }
    }

    /// Those of these delayed messages that are there.
    fn delayed_places(&self, queue: StreamId, seqs: &[u64], mut gathered: Gathered) -> Result<ReadBatch, StoreError> {
        let sql =
            "SELECT seq, due_ms, payload FROM parked WHERE shard = $1 AND lot = $2 AND seq = ANY ($3) ORDER BY seq";
        // As in `read_delayed`: few at a time, because the bytes are not limited.
        for places in seqs.chunks(16) {
            let places: Vec<i64> = places.iter().map(|place| big(*place)).collect();
            for row in &self.query(Proof::Latest, sql, &[&self.duty.shard, &i64::from(queue.0), &places])? {
                if let Err(place) = gathered.add_chunk(&self.delayed_content(queue, row)?, 0..u64::MAX) {
                    return Ok(gathered.until(place));
                }
            }
        }
        Ok(gathered.until(u64::MAX))
    }

    /// The message of a row of delayed messages. A damaged one keeps the time of its column, so that it is found when it is due.
    fn delayed_content(&self, queue: StreamId, row: &Row) -> Result<Content, StoreError> {
        let (seq, due_ms): (u64, i64) = (place(row, 0)?, row.try_get(1).map_err(|error| failure(&error))?);
        let payload = bytes(row, 2)?;
        let run = run_of(queue, seq, 1, payload.len());
        let table = || "parked".to_owned();
        let mut content = self.describe(run::read(self.log, &run, &payload), &run, table);
        content.damaged.iter_mut().for_each(|damaged| damaged.entered_ms = Some(due_ms));
        Ok(content)
    }

    fn content_of(&self, chunk: &Chunk, slot: Slot) -> Content {
        self.describe(run::read(self.log, &chunk.run, &chunk.payload), &chunk.run, || slots::table(self.shard(), slot))
    }

    /// Names the row of each damaged message, so that an operator finds it. `table` is called only where there is one.
    fn describe(&self, content: RunContent, run: &Run, table: impl FnOnce() -> String) -> Content {
        let mut damaged = Vec::new();
        if !content.damaged.is_empty() {
            let file: Arc<str> = format!("table {}.{}, stream {}", self.schema(), table(), run.stream.0).into();
            let reason: Arc<str> = "its bytes do not match their checksum".into();
            damaged.extend(content.damaged.iter().map(|slot| Damaged {
                seq: slot.seq,
                entered_ms: slot.entered_ms,
                file: file.clone(),
                offset: run.first,
                reason: reason.clone(),
                is_unreadable: false,
            }));
        }
        Content { messages: content.messages, damaged }
    }
}

/// The messages of a row.
struct Content {
    messages: Vec<Arc<StoredMessage>>,
    damaged: Vec<Damaged>,
}

/// Messages up to a limit, the first whatever its size.
struct Gathered {
    found: ReadBatch,
    limit: ReadLimit,
    /// Whether messages are missing.
    has_gap: bool,
}

impl Gathered {
    fn new(limit: ReadLimit) -> Self {
        Self { found: ReadBatch::default(), limit, has_gap: false }
    }

    fn until(self, until: u64) -> ReadBatch {
        ReadBatch { until, ..self.found }
    }

    fn end(self, until: u64) -> (ReadBatch, bool) {
        let has_gap = self.has_gap;
        (self.until(until), has_gap)
    }

    /// Adds messages that should exist and are missing, as damaged ones.
    fn add_missing(&mut self, store: &PgStore, stream: StreamId, places: Range<u64>) {
        if places.is_empty() {
            return;
        }
        self.has_gap = true;
        let file: Arc<str> = format!("schema {}, stream {}", store.schema(), stream.0).into();
        let reason: Arc<str> = "no chunk table has its row".into();
        self.found.damaged.extend(places.take(MAX_DAMAGED).map(|seq| Damaged {
            seq,
            entered_ms: None,
            file: file.clone(),
            offset: 0,
            reason: reason.clone(),
            is_unreadable: false,
        }));
    }

    /// Whether the read ends here. Damaged messages count, or a table that is damaged as a whole would be read to its end.
    fn is_full(&self) -> bool {
        self.found.messages.len() >= self.limit.messages || self.found.damaged.len() >= MAX_DAMAGED
    }

    /// Adds the messages of a row whose places are in `places`. The first message for which there is no room is the error.
    fn add_chunk(&mut self, content: &Content, places: Range<u64>) -> Result<(), u64> {
        let mut full = Ok(());
        for message in content.messages.iter().filter(|message| places.contains(&message.seq)) {
            if !self.add(message.clone()) {
                full = Err(message.seq);
                break;
            }
        }
        // Damaged messages behind the first one without room belong to the next read, or they would be reported
        // twice.
        let before = full.err().unwrap_or(u64::MAX);
        let damaged = content.damaged.iter().filter(|one| places.contains(&one.seq) && one.seq < before);
        self.found.damaged.extend(damaged.cloned());
        full
    }

    /// Adds a message. Returns false if there is no room for it.
    fn add(&mut self, message: Arc<StoredMessage>) -> bool {
        let bytes = message.memory_bytes();
        let messages = &mut self.found.messages;
        if messages.len() == self.limit.messages || (!messages.is_empty() && bytes > self.limit.bytes) {
            return false;
        }
        self.limit.bytes = self.limit.bytes.saturating_sub(bytes);
        messages.push(message);
        true
    }
}

fn chunk(stream: StreamId, row: &Row) -> Result<Chunk, StoreError> {
    let count: i32 = row.try_get(1).map_err(|error| failure(&error))?;
    let payload = bytes(row, 3)?;
    let run = run_of(stream, place(row, 0)?, u32::try_from(count).unwrap_or(0), payload.len());
    Ok(Chunk { run, newest_ms: row.try_get(2).map_err(|error| failure(&error))?, payload })
}

/// A row as a run of messages. It has no position in a log.
fn run_of(stream: StreamId, first: u64, count: u32, bytes: usize) -> Run {
    Run { stream, first, count, at: Position::default(), bytes: run::four_bytes(bytes) }
}

fn bytes(row: &Row, column: usize) -> Result<Bytes, StoreError> {
    row.try_get::<_, Vec<u8>>(column).map(Bytes::from).map_err(|error| failure(&error))
}

fn place(row: &Row, column: usize) -> Result<u64, StoreError> {
    let place: i64 = row.try_get(column).map_err(|error| failure(&error))?;
    u64::try_from(place).map_err(|_| StoreError::new("a place in PostgreSQL is negative"))
}
