//! [`Journal`]: a file with the copies in flight, so that the run after a killed redrive knows which copies may be
//! stored and which are stored.

use std::{
    collections::HashSet,
    fs::{self, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use dms_protocol::internal::file_lock::LockedFile;

use crate::{clock, message::ReceivedMessage, private};

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Notes {
    /// The source and the target of the redrive.
    task: String,
    /// The positions of the messages whose copies are in flight, in order.
    pending: Vec<u64>,
    /// The number of messages in flight without a known position.
    unnumbered: u64,
    /// The number of pending messages, from the front, whose copies are stored and which are not acknowledged yet.
    stored: usize,
    /// When the lease of the pending messages ends, in Unix milliseconds.
    until_ms: i64,
    /// Copies stored by this run and the runs that it continues.
    copied: u64,
    /// Copies that may be stored twice.
    doubled: u64,
}

/// The journal of a redrive. The file is locked against other processes.
#[derive(Debug)]
pub(super) struct Journal {
    file: Arc<LockedFile>,
    path: PathBuf,
    notes: Notes,
}

/// The state that a killed run left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Legacy {
    /// The positions of messages whose copies may be stored. Another copy may be a duplicate.
    pub(super) perhaps: HashSet<u64>,
    /// The positions of messages whose copies are stored. They only need an acknowledgement.
    pub(super) stored: HashSet<u64>,
    /// How long these messages may still be leased.
    pub(super) leased_for: Duration,
    /// Copies stored by earlier runs.
    pub(super) copied: u64,
    /// Copies of them that may be there twice.
    pub(super) doubled: u64,
}

impl Journal {
    /// Opens the journal at `path`: a new one, or the journal of a run that did not finish.
    ///
    /// # Errors
    /// When the file cannot be read or written, is in use, or belongs to another redrive.
    pub(super) fn open(path: &Path, task: &str) -> io::Result<(Self, Legacy)> {
        if let Some(parent) = path.parent() {
            private::create_dir_all(parent)?;
        }
        let file = private::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let file = LockedFile::try_lock(file).map_err(|(_, error)| match error {
            TryLockError::WouldBlock => io::Error::other("another redrive of the same messages is under way"),
            TryLockError::Error(error) => error,
        })?;
        private::warn_if_exposed("the journal", path);
        let mut text = String::new();
        (&*file).read_to_string(&mut text)?;
        let earlier: Notes = match text.trim() {
            "" => Notes { task: task.to_owned(), ..Notes::default() },
            text => {
                serde_json::from_str(text).map_err(|error| io::Error::other(format!("it is no journal: {error}")))?
            }
        };
        if earlier.task != task {
            let text = format!("it is of another redrive ({}): finish that one, or remove the file", earlier.task);
            return Err(io::Error::other(text));
        }
        let legacy = legacy(&earlier, clock::now().as_millisecond());
        let notes = Notes { task: earlier.task, copied: legacy.copied, doubled: legacy.doubled, ..Notes::default() };
        Ok((Self { file: Arc::new(file), path: path.to_owned(), notes }, legacy))
    }

    /// Records that copies of these messages are about to be sent, and how long their lease lasts. Synced, so that a
    /// crash cannot forget a copy that was sent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) async fn sending(&mut self, messages: &[ReceivedMessage], lease: Duration) -> io::Result<()> {
        self.notes.pending = messages.iter().filter_map(|message| message.sequence).collect();
        self.notes.unnumbered = (messages.len() - self.notes.pending.len()) as u64;
        self.notes.stored = 0;
        let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        self.notes.until_ms = clock::now().as_millisecond().saturating_add(lease);
        self.store(true).await
    }

    /// Records that the copies of the first `stored` messages are stored. Not synced: a crash of the machine may lose
    /// it, and such a copy then counts as possibly stored.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) async fn stored(&mut self, count: usize, doubled: u64) -> io::Result<()> {
        self.notes.stored = count;
        self.notes.copied += count as u64;
        self.notes.doubled += doubled;
        self.store(false).await
    }

    /// Removes the journal of a finished run.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn finish(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    async fn store(&self, durable: bool) -> io::Result<()> {
        let record = serde_json::to_string(&self.notes)?;
        let file = Arc::clone(&self.file);
        let write = move || {
            let mut file = &**file;
            file.seek(SeekFrom::Start(0))?;
            // One write of a fixed length, which covers longer earlier content.
            file.write_all(format!("{record:<1023}\n").as_bytes())?;
            if durable { file.sync_data() } else { Ok(()) }
        };
        match durable {
            true => tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error))),
            false => write(),
        }
    }
}

/// Reads the state that a run continues.
fn legacy(notes: &Notes, now_ms: i64) -> Legacy {
    let (stored, perhaps) = notes.pending.split_at(notes.stored.min(notes.pending.len()));
    let left = u64::try_from(notes.until_ms.saturating_sub(now_ms)).unwrap_or(0);
    Legacy {
        perhaps: perhaps.iter().copied().collect(),
        stored: stored.iter().copied().collect(),
        // If the clock was set back, the wait is still no longer than a lease can last.
        leased_for: Duration::from_millis(left).min(Duration::from_secs(300)),
        copied: notes.copied,
        // Messages without a position cannot be recognised later, so their possible duplicates are counted now.
        doubled: notes.doubled + notes.unnumbered,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::message::{Attributes, Body};

    fn received(sequence: u64) -> ReceivedMessage {
        let mut received = ReceivedMessage::new(Body::json(&1).unwrap(), Attributes::default(), Vec::new(), "h");
        received.sequence = Some(sequence);
        received
    }

    #[tokio::test]
    async fn what_was_on_its_way_is_known_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/redrive.journal");
        let (mut journal, legacy) = Journal::open(&path, "a to b").unwrap();
        assert_eq!(legacy, Legacy::default());
        let busy = Journal::open(&path, "a to b").unwrap_err();
        assert!(busy.to_string().contains("under way"), "{busy}");
        journal.sending(&[received(7), received(8), received(9)], Duration::from_secs(60)).await.unwrap();
        journal.stored(1, 2).await.unwrap();
        drop(journal);

        let other = Journal::open(&path, "a to c").unwrap_err();
        assert!(other.to_string().contains("of another redrive (a to b)"), "{other}");
        let (journal, legacy) = Journal::open(&path, "a to b").unwrap();
        assert_eq!((legacy.stored, legacy.perhaps), (HashSet::from([7]), HashSet::from([8, 9])));
        assert_eq!((legacy.copied, legacy.doubled), (1, 2));
        assert!((50..=60).contains(&legacy.leased_for.as_secs()), "{:?}", legacy.leased_for);
        journal.finish().unwrap();
        assert!(!path.exists());
    }
}
