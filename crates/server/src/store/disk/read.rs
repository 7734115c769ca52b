//! Finds messages in the index or the memtable, and reads them from the log.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use rusqlite::Connection;

use crate::store::{
    Damaged, ReadBatch, ReadLimit, StoreError, StoredMessage, StreamId,
    disk::{DiskStore, index::lookup, locked, log::file_cache::ReadError, released},
    position::Run,
    run::RunContent,
};

/// How often a run is looked up again because compaction moved it meanwhile.
pub(crate) const MAX_LOOKUPS: usize = 5;
/// A read ends after this number of damaged messages.
const MAX_DAMAGED: usize = 1_024;

impl DiskStore {
    /// Messages of a stream from `from` on.
    pub(crate) fn read_range(&self, stream: StreamId, from: u64, limit: ReadLimit) -> Result<ReadBatch, StoreError> {
        let mut pile = ReadBuilder::new(limit);
        let mut room = Vec::new();
        let mut next = from;
        loop {
            // Looked up for each round, because compaction and retention go on between them.
            let runs = self.runs(stream, next, limit.messages.max(1))?;
            if runs.last().is_none_or(|last| last.end() <= next) {
                let missing_from_index = self.missing_from_index(stream, next..u64::MAX)?;
                // A commit between the two lookups is found by the next one.
                if !missing_from_index.is_empty() && self.first_run(stream, next)?.is_some() {
                    continue;
                }
                pile.found.damaged.extend(missing_from_index);
                return Ok(pile.until(u64::MAX));
            }
            for run in runs {
                if run.first > next {
                    pile.found.damaged.extend(self.missing_from_index(stream, next..run.first)?);
                }
                // A run that no longer exists has no messages.
                if let Some((run, content)) = self.content(run, &mut room)?
                    && let Err(place) = pile.add_run(&run, content, next, &self.files)
                {
                    return Ok(pile.until(place));
                }
                next = next.max(run.end());
            }
            if pile.found.messages.len() >= limit.messages || pile.found.damaged.len() >= MAX_DAMAGED {
                return Ok(pile.until(next));
            }
        }
    }

    /// These messages of a stream, as far as they exist.
    pub(crate) fn read_places(&self, stream: StreamId, places: &[u64], bytes: usize) -> Result<ReadBatch, StoreError> {
        let mut pile = ReadBuilder::new(ReadLimit { messages: places.len(), bytes });
        let mut last: Option<(Run, RunContent)> = None;
        let mut room = Vec::new();
        for &place in places {
            let run = self.runs(stream, place, 1)?.into_iter().find(|run| (run.first..run.end()).contains(&place));
            let Some(run) = run else {
                pile.found.damaged.extend(self.missing_from_index(stream, place..place + 1)?);
                continue;
            };
            // Places close to each other are usually in one run, which is read only once.
            last = match last.take_if(|(known, _)| *known == run) {
                Some(known) => Some(known),
                None => self.content(run, &mut room)?,
            };
            let Some((run, content)) = &last else { continue };
            let found = content.messages.iter().find(|message| message.seq == place);
            if found.is_some_and(|message| !pile.add(message.clone())) {
                return Ok(pile.until(place));
            }
            if found.is_none() {
                pile.found.damaged.extend(self.files.describe(run, content).into_iter().filter(|one| one.seq == place));
            }
        }
        Ok(pile.until(u64::MAX))
    }

    /// The first messages of a delay queue by due time.
    pub(crate) fn read_due(
        &self,
        delay_queue: StreamId,
        limit: ReadLimit,
        skip: &BTreeSet<u64>,
    ) -> Result<ReadBatch, StoreError> {
        let due = self.look_up(|conn| lookup::first_due(conn, delay_queue, limit.messages, skip))?;
        let mut found = ReadBatch { until: u64::MAX, ..ReadBatch::default() };
        let mut left = limit.bytes;
        for (due_ms, place) in due {
            let mut one = self.read_places(delay_queue, &[place], left)?;
            for message in one.messages {
                let memory_bytes = message.memory_bytes();
                if memory_bytes > left && !found.messages.is_empty() {
                    return Ok(found);
                }
                left = left.saturating_sub(memory_bytes);
                found.messages.push(message);
            }
            one.damaged.iter_mut().for_each(|damaged| damaged.entered_ms = Some(due_ms));
            found.damaged.extend(one.damaged);
        }
        Ok(found)
    }

    /// Messages of a stream that must exist and that the index does not know. A delay queue has gaps, so it has none.
    fn missing_from_index(&self, stream: StreamId, places: Range<u64>) -> Result<Vec<Damaged>, StoreError> {
        let there = self.look_up(|conn| lookup::extent(conn, stream))?;
        let Some(there) = there else { return Ok(Vec::new()) };
        let places = places.start.max(there.start)..places.end.min(there.end);
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let file: Arc<str> = self.files.directory.path.display().to_string().into();
        let reason: Arc<str> = "the index does not know where it is".into();
        let missing_from_index = |seq| {
            let (file, reason) = (file.clone(), reason.clone());
            Damaged { seq, entered_ms: None, file, offset: 0, reason, is_unreadable: false }
        };
        // Bounded, because a lost file may leave a gap of millions of messages.
        Ok(places.take(MAX_DAMAGED).map(missing_from_index).collect())
    }

    /// Flushes the memtable if it has changes of this delay queue, because messages that left a delay queue are known to the index
    /// only.
    pub(crate) fn flush_delay_queue(&self, stream: StreamId) -> Result<(), StoreError> {
        let touched = locked(&self.memtable).changed_delay_queue(stream);
        if touched { self.flush_memtable() } else { Ok(()) }
    }

    pub(crate) fn look_up<T>(&self, look: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        match locked(&self.lookup).as_ref() {
            Some(conn) => look(conn).map_err(StoreError::new),
            None => Err(released()),
        }
    }

    /// The runs of a stream that contain the next `messages` messages, beginning at `from`.
    pub(crate) fn runs(&self, stream: StreamId, from: u64, messages: usize) -> Result<Vec<Run>, StoreError> {
        // The memtable is read first: a run that is flushed in between is found in the index. In the other order it would be missed.
        let (memtable, covered) = locked(&self.memtable).runs(stream, from, messages);
        if covered {
            return Ok(memtable);
        }
        let mut runs = self.look_up(|conn| lookup::runs(conn, stream, from, messages))?;
        let found: u64 = runs.iter().map(|run| run.end() - run.first.max(from)).sum();
        // Where the index has enough, it may have more before the first run of the memtable. Messages between the two would look as
        // if the index had lost them.
        if found >= messages as u64 {
            return Ok(runs);
        }
        let end = runs.last().map_or(from, Run::end);
        runs.extend(memtable.into_iter().filter(|run| run.first >= end));
        Ok(runs)
    }

    /// The run that contains `from`, or the next one.
    pub(crate) fn first_run(&self, stream: StreamId, from: u64) -> Result<Option<Run>, StoreError> {
        Ok(self.runs(stream, from, 1)?.into_iter().find(|run| run.end() > from))
    }

    /// The messages of a run, wherever it is now. `None` if it no longer exists. `room` is for the bytes of the run.
    fn content(&self, run: Run, room: &mut Vec<u8>) -> Result<Option<(Run, RunContent)>, StoreError> {
        let read = |run: &Run| self.files.read_with(run, room);
        match self.read_moved(run, read)? {
            RunRead::Done(run, content) => Ok(Some((run, content))),
            RunRead::Lost(run) => Ok(Some((run, RunContent::lost(&run)))),
            RunRead::Gone => Ok(None),
        }
    }

    /// Reads from a run. If it was moved since it was looked up, it is looked up again.
    pub(crate) fn read_moved<T>(
        &self,
        mut run: Run,
        mut read: impl FnMut(&Run) -> Result<T, ReadError>,
    ) -> Result<RunRead<T>, StoreError> {
        // A move is in the index before the old file is deleted, so a second lookup finds the new place.
        for _ in 0..MAX_LOOKUPS {
            match read(&run) {
                // The file was deleted after the lookup: the run was moved, or it expired.
                Err(ReadError::Gone(_)) => match self.first_run(run.stream, run.first)? {
                    Some(found) if found.first == run.first => run = found,
                    _ => return Ok(RunRead::Gone),
                },
                Err(error) => return Err(StoreError::new(error)),
                Ok(found) => return Ok(RunRead::Done(run, found)),
            }
        }
        // The run should exist, so its file was not deleted by this server.
        Ok(RunRead::Lost(run))
    }
}

/// The result of reading from a run.
pub(crate) enum RunRead<T> {
    /// It was read at this position.
    Done(Run, T),
    /// Its file is missing.
    Lost(Run),
    /// It expired or was deleted.
    Gone,
}

/// Collects messages up to a limit. The first one is added whatever its size.
struct ReadBuilder {
    found: ReadBatch,
    limit: ReadLimit,
}

impl ReadBuilder {
    fn new(limit: ReadLimit) -> Self {
        Self { found: ReadBatch::default(), limit }
    }

    fn until(self, until: u64) -> ReadBatch {
        ReadBatch { until, ..self.found }
    }

    /// Adds the messages of a run from `from` on. The error is the first message for which there is no room.
    fn add_run(
        &mut self,
        run: &Run,
        content: RunContent,
        from: u64,
        files: &crate::store::disk::log::file_cache::FileCache,
    ) -> Result<(), u64> {
        let mut damaged: Vec<Damaged> = files.describe(run, &content);
        damaged.retain(|damaged| damaged.seq >= from);
        let mut full = Ok(());
        for message in content.messages.into_iter().filter(|message| message.seq >= from) {
            if !self.has_room(&message) {
                full = Err(message.seq);
                damaged.retain(|damaged| damaged.seq < message.seq);
                break;
            }
            self.push(message);
        }
        self.found.damaged.extend(damaged);
        full
    }

    fn has_room(&self, message: &StoredMessage) -> bool {
        let messages = &self.found.messages;
        messages.len() < self.limit.messages && (messages.is_empty() || message.memory_bytes() <= self.limit.bytes)
    }

    fn add(&mut self, message: Arc<StoredMessage>) -> bool {
        let has_room = self.has_room(&message);
        if has_room {
            self.push(message);
        }
        has_room
    }

    fn push(&mut self, message: Arc<StoredMessage>) {
        self.limit.bytes = self.limit.bytes.saturating_sub(message.memory_bytes());
        self.found.messages.push(message);
    }
}
