//! Entry times without messages: what retention asks for, in memory that does not depend on the size of the messages.

use rusqlite::Connection;

use super::{
    DiskStore,
    files::{Files, ReadError},
    index::{load::stream_image, lookup},
    position::Run,
    read::LOOKS,
};
use crate::server::store::{StoreError, StreamNo};

impl DiskStore {
    /// Entry times of a stream, as [`Store::entered`](crate::server::store::Store::entered) describes.
    pub(super) fn entry_times(
        &self,
        stream: StreamNo,
        from: u64,
        count: usize,
        until_ms: i64,
    ) -> Result<Vec<(u64, i64)>, StoreError> {
        let mut times = Vec::new();
        let mut next = from;
        while times.len() < count {
            // One run at a time: usually the second look finds a message that is not due, and that is the end.
            let Some(run) = self.first_run(stream, next)? else { break };
            for (place, entered_ms) in self.times_of(stream, run)? {
                if place < next || times.len() == count {
                    continue;
                }
                times.push((place, entered_ms));
                if entered_ms > until_ms {
                    return Ok(times);
                }
            }
            next = run.end();
        }
        Ok(times)
    }

    /// The times of a run; of a damaged one, those of what follows it.
    fn times_of(&self, stream: StreamNo, run: Run) -> Result<Vec<(u64, i64)>, StoreError> {
        let mut run = run;
        for _ in 0..LOOKS {
            match self.files.times(&run) {
                Ok(times) => return Ok(times),
                Err(ReadError::Damaged(_)) => {
                    let time = self.time_behind(stream, run.end())?;
                    return Ok((run.first..run.end()).map(|place| (place, time)).collect());
                }
                // It was moved since it was looked up.
                Err(ReadError::Gone(_)) => match self.first_run(stream, run.first)? {
                    Some(found) => run = found,
                    None => return Ok(Vec::new()),
                },
                Err(error) => return Err(StoreError::new(error)),
            }
        }
        self.files.times(&run).map_err(StoreError::new)
    }

    /// When the first readable message from a place on entered; when there is none, when the newest of the stream did.
    fn time_behind(&self, stream: StreamNo, from: u64) -> Result<i64, StoreError> {
        let mut next = from;
        while let Some(run) = self.first_run(stream, next)? {
            if let Some((_, entered_ms)) = self.files.times(&run).ok().and_then(|times| times.first().copied()) {
                return Ok(entered_ms);
            }
            next = run.end();
        }
        // The index may not know of the newest messages yet; those were read above.
        self.look_up(|conn| Ok(stream_image(conn, stream)?.newest))
    }

    fn first_run(&self, stream: StreamNo, from: u64) -> Result<Option<Run>, StoreError> {
        Ok(self.runs(stream, from, 1)?.into_iter().find(|run| run.end() > from))
    }
}

/// When the first message of a stream entered, for a store that is being opened: damage to that message is no reason not to open.
pub(super) fn oldest(
    conn: &Connection,
    files: &Files,
    (stream, low, newest): (StreamNo, u64, i64),
) -> Result<Option<i64>, rusqlite::Error> {
    let mut next = low;
    loop {
        let found = lookup::runs(conn, stream, next, 1)?;
        let Some(run) = found.into_iter().find(|run| run.end() > next) else { return Ok(Some(newest)) };
        if let Ok(times) = files.times(&run) {
            return Ok(times.into_iter().find(|(place, _)| *place >= next).map(|(_, entered_ms)| entered_ms));
        }
        next = run.end();
    }
}
