//! Reads entry times without messages, for retention. The memory for that does not depend on the size of the messages.

use crate::store::{
    StoreError, StreamId,
    disk::{DiskStore, index::rows::stream_row, read::RunRead},
    position::Run,
    run::RunContent,
};

impl DiskStore {
    /// Entry times of a stream, as [`Store::entered`](crate::store::Store::entered) describes.
    pub(crate) fn entry_times(
        &self,
        stream: StreamId,
        from: u64,
        count: usize,
        until_ms: i64,
    ) -> Result<Vec<(u64, i64)>, StoreError> {
        let mut times = Vec::new();
        let mut next = from;
        while times.len() < count {
            // One run at a time, because usually the second one contains a message that is not due, and that ends the search.
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

    /// The entry times of a run. A damaged message gets the time of the message after it.
    fn times_of(&self, stream: StreamId, run: Run) -> Result<Vec<(u64, i64)>, StoreError> {
        let (run, times) = match self.read_moved(run, |run| self.files.times(run))? {
            RunRead::Done(run, times) => (run, times),
            RunRead::Lost(run) => (run, RunContent::lost(&run).times()),
            RunRead::Gone => return Ok(Vec::new()),
        };
        let mut following = match times.last() {
            Some((_, Some(_))) => 0,
            _ => self.time_behind(stream, run.end())?,
        };
        let mut known = Vec::with_capacity(times.len());
        // From the end, because a damaged message gets the time of the one after it.
        for (place, time) in times.into_iter().rev() {
            following = time.unwrap_or(following);
            known.push((place, following));
        }
        known.reverse();
        Ok(known)
    }

    /// The entry time of the first readable message from `from` on, or of the newest message of the stream if none is readable.
    fn time_behind(&self, stream: StreamId, from: u64) -> Result<i64, StoreError> {
        let mut next = from;
        while let Some(run) = self.first_run(stream, next)? {
            if let Some(entered_ms) = self.files.first_time(&run, next) {
                return Ok(entered_ms);
            }
            next = run.end();
        }
        // The index may not contain the newest messages yet, but those were read above.
        self.look_up(|conn| Ok(stream_row(conn, stream)?.newest))
    }
}
