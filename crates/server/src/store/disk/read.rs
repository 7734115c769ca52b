//! Finds messages, in the index or among what it does not have yet, and reads them from the log.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use bytes::Bytes;
use rusqlite::Connection;

use crate::store::{
    Damaged, ReadBatch, ReadLimit, StoreError, StoredMessage, StreamId,
    disk::{DiskStore, index::lookup, locked, log::file_cache::ReadError, released},
    position::Run,
    run::RunContent,
};

/// How often messages are looked for again because their file was emptied meanwhile.
pub(crate) const MAX_LOOKUPS: usize = 5;
/// The number of damaged messages that ends a read.
const MAX_DAMAGED: usize = 1_024;

impl DiskStore {
    /// Messages of a stream from a place on.
    pub(crate) fn read_range(&self, stream: StreamId, from: u64, limit: ReadLimit) -> Result<ReadBatch, StoreError> {
        let mut pile = BatchBuilder::new(limit);
        let mut next = from;
        loop {
            let runs = self.runs(stream, next, limit.messages.max(1))?;
            if runs.last().is_none_or(|last| last.end() <= next) {
                let missing_from_index = self.missing_from_index(stream, next..u64::MAX)?;
                // What was committed between the two looks is found by another one.
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
                // Of a run that is gone nothing is left.
                if let Some((run, content)) = self.content(run)?
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

    /// These messages of a stream as far as they are there.
    pub(crate) fn read_places(&self, stream: StreamId, places: &[u64], bytes: usize) -> Result<ReadBatch, StoreError> {
        let mut pile = BatchBuilder::new(ReadLimit { messages: places.len(), bytes });
        let mut last: Option<(Run, RunContent)> = None;
        for &place in places {
            let run = self.runs(stream, place, 1)?.into_iter().find(|run| (run.first..run.end()).contains(&place));
            let Some(run) = run else {
                pile.found.damaged.extend(self.missing_from_index(stream, place..place + 1)?);
                continue;
            };
            last = match last.take_if(|(known, _)| *known == run) {
                Some(known) => Some(known),
                None => self.content(run)?,
            };
            let Some((run, content)) = &last else { continue };
            // A copy: one message does not keep its whole run in memory.
            let found = content.messages.iter().find(|message| message.seq == place);
            if found.is_some_and(|message| !pile.add(Arc::new(message.copied()))) {
                return Ok(pile.until(place));
            }
            if found.is_none() {
                pile.found.damaged.extend(self.files.describe(run, content).into_iter().filter(|one| one.seq == place));
            }
        }
        Ok(pile.until(u64::MAX))
    }

    /// The first messages of a lot by due time.
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

    /// Messages of a stream that have to be there, and that the index does not know. A lot has gaps.
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
        Ok(places.take(MAX_DAMAGED).map(missing_from_index).collect())
    }

    /// The index has all of a lot when this returns: what left one is only found there.
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

    /// The runs of a stream from the one with a place on, for so many messages.
    pub(crate) fn runs(&self, stream: StreamId, from: u64, messages: usize) -> Result<Vec<Run>, StoreError> {
        // In this order: what the index takes in between is found there.
        let (memtable, covered) = locked(&self.memtable).runs(stream, from, messages);
        if covered {
            return Ok(memtable);
        }
        let mut runs = self.look_up(|conn| lookup::runs(conn, stream, from, messages))?;
        let end = runs.last().map_or(from, Run::end);
        runs.extend(memtable.into_iter().filter(|run| run.first >= end));
        Ok(runs)
    }

    /// The run that has a place, or the next one behind it.
    pub(crate) fn first_run(&self, stream: StreamId, from: u64) -> Result<Option<Run>, StoreError> {
        Ok(self.runs(stream, from, 1)?.into_iter().find(|run| run.end() > from))
    }

    /// What a run holds, wherever it is now; `None` when it is gone.
    fn content(&self, run: Run) -> Result<Option<(Run, RunContent)>, StoreError> {
        let read = |run: &Run| self.files.read(run);
        match self.read_moved(run, read)? {
            RunRead::Done(run, content) => Ok(Some((run, content))),
            RunRead::Lost(run) => Ok(Some((run, RunContent::lost(&run)))),
            RunRead::Gone => Ok(None),
        }
    }

    /// Reads something of a run. One that was moved since it was looked up is looked up again.
    pub(crate) fn read_moved<T>(
        &self,
        mut run: Run,
        read: impl Fn(&Run) -> Result<T, ReadError>,
    ) -> Result<RunRead<T>, StoreError> {
        for _ in 0..MAX_LOOKUPS {
            match read(&run) {
                Err(ReadError::Gone(_)) => match self.first_run(run.stream, run.first)? {
                    Some(found) if found.first == run.first => run = found,
                    _ => return Ok(RunRead::Gone),
                },
                Err(error) => return Err(StoreError::new(error)),
                Ok(found) => return Ok(RunRead::Done(run, found)),
            }
        }
        // It is still to be there: its file was deleted.
        Ok(RunRead::Lost(run))
    }
}

/// What became of a run that was to be read.
pub(crate) enum RunRead<T> {
    /// It was read, there.
    Done(Run, T),
    /// Its file is missing.
    Lost(Run),
    /// It expired, or was deleted.
    Gone,
}

/// Messages up to a limit, the first whatever its size.
struct BatchBuilder {
    found: ReadBatch,
    limit: ReadLimit,
}

impl BatchBuilder {
    fn new(limit: ReadLimit) -> Self {
        Self { found: ReadBatch::default(), limit }
    }

    fn until(self, until: u64) -> ReadBatch {
        ReadBatch { until, ..self.found }
    }

    /// Adds what a run has from a place on; the first message for which there is no room is the error.
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
            let seq = message.seq;
            // A copy, unless the run is this one message: a leased message must not keep up to 48 KiB of others in memory, which
            // nothing counts.
            if !self.add(if run.count == 1 { message } else { Arc::new(message.copied()) }) {
                full = Err(seq);
                damaged.retain(|damaged| damaged.seq < seq);
                break;
            }
        }
        self.found.damaged.extend(damaged);
        full
    }

    fn add(&mut self, message: Arc<StoredMessage>) -> bool {
        let memory_bytes = message.memory_bytes();
        let messages = &mut self.found.messages;
        if messages.len() == self.limit.messages || (!messages.is_empty() && memory_bytes > self.limit.bytes) {
            return false;
        }
        self.limit.bytes = self.limit.bytes.saturating_sub(memory_bytes);
        messages.push(message);
        true
    }
}

impl StoredMessage {
    /// The same message in memory of its own.
    fn copied(&self) -> Self {
        let Self { seq, entered_ms, body_bytes, .. } = *self;
        let (json, tags) = (Bytes::copy_from_slice(&self.json), self.tags.clone());
        Self { seq, entered_ms, json, body_bytes, tags, dead_letter: self.dead_letter.clone() }
    }
}
