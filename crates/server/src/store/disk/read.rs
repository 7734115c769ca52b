//! Finds messages, in the index or among what it does not have yet, and reads them from the log.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use bytes::Bytes;
use rusqlite::Connection;

use crate::store::{
    Damaged, Found, ReadLimit, StoreError, Stored, StreamNo,
    disk::{
        DiskStore,
        index::lookup,
        locked,
        log::{file_cache::ReadError, position::Run, run::Content},
        released,
    },
};

/// How often messages are looked for again because their file was emptied meanwhile.
pub(crate) const LOOKS: usize = 5;
/// The number of damaged messages that ends a read.
const MOST_DAMAGED: usize = 1_024;

impl DiskStore {
    /// Messages of a stream from a place on.
    pub(crate) fn read_range(&self, stream: StreamNo, from: u64, limit: ReadLimit) -> Result<Found, StoreError> {
        let mut pile = Pile::new(limit);
        let mut next = from;
        loop {
            let runs = self.runs(stream, next, limit.messages.max(1))?;
            if runs.last().is_none_or(|last| last.end() <= next) {
                let unknown = self.unknown(stream, next..u64::MAX)?;
                // What was committed between the two looks is found by another one.
                if !unknown.is_empty() && self.first_run(stream, next)?.is_some() {
                    continue;
                }
                pile.found.damaged.extend(unknown);
                return Ok(pile.until(u64::MAX));
            }
            for run in runs {
                if run.first > next {
                    pile.found.damaged.extend(self.unknown(stream, next..run.first)?);
                }
                // Of a run that is gone nothing is left.
                if let Some((run, content)) = self.content(run)?
                    && let Err(place) = pile.add_run(&run, content, next, &self.files)
                {
                    return Ok(pile.until(place));
                }
                next = next.max(run.end());
            }
            if pile.found.messages.len() >= limit.messages || pile.found.damaged.len() >= MOST_DAMAGED {
                return Ok(pile.until(next));
            }
        }
    }

    /// These messages of a stream as far as they are there.
    pub(crate) fn read_places(&self, stream: StreamNo, places: &[u64], bytes: usize) -> Result<Found, StoreError> {
        let mut pile = Pile::new(ReadLimit { messages: places.len(), bytes });
        let mut last: Option<(Run, Content)> = None;
        for &place in places {
            let run = self.runs(stream, place, 1)?.into_iter().find(|run| (run.first..run.end()).contains(&place));
            let Some(run) = run else {
                pile.found.damaged.extend(self.unknown(stream, place..place + 1)?);
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
    pub(crate) fn read_due(&self, lot: StreamNo, limit: ReadLimit, skip: &BTreeSet<u64>) -> Result<Found, StoreError> {
        let due = self.look_up(|conn| lookup::first_due(conn, lot, limit.messages, skip))?;
        let mut found = Found { until: u64::MAX, ..Found::default() };
        let mut left = limit.bytes;
        for (due_ms, place) in due {
            let mut one = self.read_places(lot, &[place], left)?;
            for message in one.messages {
                let footprint = message.footprint();
                if footprint > left && !found.messages.is_empty() {
                    return Ok(found);
                }
                left = left.saturating_sub(footprint);
                found.messages.push(message);
            }
            one.damaged.iter_mut().for_each(|damaged| damaged.entered_ms = Some(due_ms));
            found.damaged.extend(one.damaged);
        }
        Ok(found)
    }

    /// Messages of a stream that have to be there, and that the index does not know. A lot has gaps.
    fn unknown(&self, stream: StreamNo, places: Range<u64>) -> Result<Vec<Damaged>, StoreError> {
        let there = self.look_up(|conn| lookup::extent(conn, stream))?;
        let Some(there) = there else { return Ok(Vec::new()) };
        let places = places.start.max(there.start)..places.end.min(there.end);
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let file: Arc<str> = self.files.directory.path.display().to_string().into();
        let reason: Arc<str> = "the index does not know where it is".into();
        let unknown = |seq| {
            let (file, reason) = (file.clone(), reason.clone());
            Damaged { seq, entered_ms: None, file, offset: 0, reason, is_unreadable: false }
        };
        Ok(places.take(MOST_DAMAGED).map(unknown).collect())
    }

    /// The index has all of a lot when this returns: what left one is only found there.
    pub(crate) fn know_lot(&self, stream: StreamNo) -> Result<(), StoreError> {
        let touched = locked(&self.recent).touches_lot(stream);
        if touched { self.catch_up() } else { Ok(()) }
    }

    pub(crate) fn look_up<T>(&self, look: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        match locked(&self.lookup).as_ref() {
            Some(conn) => look(conn).map_err(StoreError::new),
            None => Err(released()),
        }
    }

    /// The runs of a stream from the one with a place on, for so many messages.
    pub(crate) fn runs(&self, stream: StreamNo, from: u64, messages: usize) -> Result<Vec<Run>, StoreError> {
        // In this order: what the index takes in between is found there.
        let (recent, covered) = locked(&self.recent).runs(stream, from, messages);
        if covered {
            return Ok(recent);
        }
        let mut runs = self.look_up(|conn| lookup::runs(conn, stream, from, messages))?;
        let end = runs.last().map_or(from, Run::end);
        runs.extend(recent.into_iter().filter(|run| run.first >= end));
        Ok(runs)
    }

    /// The run that has a place, or the next one behind it.
    pub(crate) fn first_run(&self, stream: StreamNo, from: u64) -> Result<Option<Run>, StoreError> {
        Ok(self.runs(stream, from, 1)?.into_iter().find(|run| run.end() > from))
    }

    /// What a run holds, wherever it is now; `None` when it is gone.
    fn content(&self, run: Run) -> Result<Option<(Run, Content)>, StoreError> {
        let read = |run: &Run| self.files.read(run);
        match self.read_moved(run, read)? {
            Read::Done(run, content) => Ok(Some((run, content))),
            Read::Lost(run) => Ok(Some((run, Content::lost(&run)))),
            Read::Gone => Ok(None),
        }
    }

    /// Reads something of a run. One that was moved since it was looked up is looked up again.
    pub(crate) fn read_moved<T>(
        &self,
        mut run: Run,
        read: impl Fn(&Run) -> Result<T, ReadError>,
    ) -> Result<Read<T>, StoreError> {
        for _ in 0..LOOKS {
            match read(&run) {
                Err(ReadError::Gone(_)) => match self.first_run(run.stream, run.first)? {
                    Some(found) if found.first == run.first => run = found,
                    _ => return Ok(Read::Gone),
                },
                Err(error) => return Err(StoreError::new(error)),
                Ok(found) => return Ok(Read::Done(run, found)),
            }
        }
        // It is still to be there: its file was deleted.
        Ok(Read::Lost(run))
    }
}

/// What became of a run that was to be read.
pub(crate) enum Read<T> {
    /// It was read, there.
    Done(Run, T),
    /// Its file is missing.
    Lost(Run),
    /// It expired, or was deleted.
    Gone,
}

/// Messages up to a limit, the first whatever its size.
struct Pile {
    found: Found,
    limit: ReadLimit,
}

impl Pile {
    fn new(limit: ReadLimit) -> Self {
        Self { found: Found::default(), limit }
    }

    fn until(self, until: u64) -> Found {
        Found { until, ..self.found }
    }

    /// Adds what a run has from a place on; the first message for which there is no room is the error.
    fn add_run(
        &mut self,
        run: &Run,
        content: Content,
        from: u64,
        files: &crate::store::disk::log::file_cache::Files,
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

    fn add(&mut self, message: Arc<Stored>) -> bool {
        let footprint = message.footprint();
        let messages = &mut self.found.messages;
        if messages.len() == self.limit.messages || (!messages.is_empty() && footprint > self.limit.bytes) {
            return false;
        }
        self.limit.bytes = self.limit.bytes.saturating_sub(footprint);
        messages.push(message);
        true
    }
}

impl Stored {
    /// The same message in memory of its own.
    fn copied(&self) -> Self {
        let Self { seq, entered_ms, body_bytes, .. } = *self;
        let (json, tags) = (Bytes::copy_from_slice(&self.json), self.tags.clone());
        Self { seq, entered_ms, json, body_bytes, tags, dead_letter: self.dead_letter.clone() }
    }
}
