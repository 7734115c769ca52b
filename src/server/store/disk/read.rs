//! Finds messages, in the index or among what it does not have yet, and reads them from the log.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Connection;

use super::{
    DiskStore,
    files::{Files, ReadError},
    index::lookup,
    locked,
    position::Run,
    released,
};
use crate::server::store::{ReadLimit, StoreError, Stored, StreamNo};

/// How often messages are looked for again because their file was emptied meanwhile.
pub(super) const LOOKS: usize = 5;

impl DiskStore {
    /// Messages of a stream from a place on.
    pub(super) fn read_range(
        &self,
        stream: StreamNo,
        from: u64,
        limit: ReadLimit,
    ) -> Result<Vec<Arc<Stored>>, StoreError> {
        self.read_runs(|| {
            let runs = self.runs(stream, from, limit.messages)?;
            Ok(range_of(&self.files, &runs, from, limit))
        })
    }

    /// These messages of a stream as far as they are there.
    pub(super) fn read_places(
        &self,
        stream: StreamNo,
        places: &[u64],
        bytes: usize,
    ) -> Result<Vec<Arc<Stored>>, StoreError> {
        self.read_runs(|| {
            let mut runs = Vec::with_capacity(places.len());
            for place in places {
                let found = self.runs(stream, *place, 1)?;
                runs.push(found.into_iter().find(|run| (run.first..run.end()).contains(place)));
            }
            Ok(places_of(&self.files, places, &runs, bytes))
        })
    }

    /// The index has all of a lot when this returns: what left one is only found there.
    pub(super) fn know_lot(&self, stream: StreamNo) -> Result<(), StoreError> {
        let touched = locked(&self.recent).touches_lot(stream);
        if touched { self.catch_up() } else { Ok(()) }
    }

    pub(super) fn look_up<T>(&self, look: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        match locked(&self.lookup).as_ref() {
            Some(conn) => look(conn).map_err(StoreError::new),
            None => Err(released()),
        }
    }

    /// The runs of a stream from the one with a place on, for so many messages.
    pub(super) fn runs(&self, stream: StreamNo, from: u64, messages: usize) -> Result<Vec<Run>, StoreError> {
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

    /// Reads what is in the log at places that the index gave. What was moved meanwhile is looked for again.
    fn read_runs<T>(
        &self,
        mut read: impl FnMut() -> Result<Result<T, ReadError>, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 1..LOOKS {
            match read()? {
                Err(ReadError::Gone(_)) => {}
                found => return found.map_err(StoreError::new),
            }
        }
        read()?.map_err(StoreError::new)
    }
}

/// Messages of runs that follow each other, from a place on.
fn range_of(files: &Files, runs: &[Run], from: u64, limit: ReadLimit) -> Result<Vec<Arc<Stored>>, ReadError> {
    let mut pile = Pile::new(limit);
    for run in runs {
        for message in files.messages(run)?.into_iter().filter(|message| message.seq >= from) {
            // A copy, unless the run is this one message: a leased message must not keep up to 48 KiB of others in memory, which
            // nothing counts.
            if !pile.add(if run.count == 1 { message } else { Arc::new(message.copied()) }) {
                return Ok(pile.messages);
            }
        }
    }
    Ok(pile.messages)
}

/// These messages as far as they are there, each with its run. They are copies: one of them does not keep its whole run in
/// memory.
fn places_of(files: &Files, places: &[u64], runs: &[Option<Run>], bytes: usize) -> Result<Vec<Arc<Stored>>, ReadError> {
    let mut pile = Pile::new(ReadLimit { messages: places.len(), bytes });
    let mut last: Option<(Run, Vec<Arc<Stored>>)> = None;
    for (place, run) in places.iter().zip(runs).filter_map(|(place, run)| Some((place, (*run)?))) {
        let messages = match last.take_if(|(known, _)| *known == run) {
            Some((_, messages)) => messages,
            None => files.messages(&run)?,
        };
        let found = messages.iter().find(|message| message.seq == *place).map(|message| Arc::new(message.copied()));
        last = Some((run, messages));
        if found.is_some_and(|message| !pile.add(message)) {
            break;
        }
    }
    Ok(pile.messages)
}

/// Messages up to a limit, the first whatever its size.
struct Pile {
    messages: Vec<Arc<Stored>>,
    limit: ReadLimit,
}

impl Pile {
    fn new(limit: ReadLimit) -> Self {
        Self { messages: Vec::new(), limit }
    }

    fn add(&mut self, message: Arc<Stored>) -> bool {
        let footprint = message.footprint();
        if self.messages.len() == self.limit.messages || (!self.messages.is_empty() && footprint > self.limit.bytes) {
            return false;
        }
        self.limit.bytes = self.limit.bytes.saturating_sub(footprint);
        self.messages.push(message);
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
