//! One file to which a thread appends: everything that is waiting goes into one write and one sync.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc, thread};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// What is to be stored, and who waits for it.
pub struct Change {
    /// Bytes of messages with their lengths, or of an acknowledgement.
    pub bytes: Vec<u8>,
    /// The lengths of messages; empty for an acknowledgement.
    pub lengths: Vec<usize>,
    pub done: oneshot::Sender<()>,
}

/// Where a message is in the file.
#[derive(Clone, Copy)]
pub struct Slot {
    pub at: u64,
    pub length: usize,
}

pub struct Log {
    file: Arc<File>,
    changes: mpsc::UnboundedSender<Change>,
}

/// The most bytes of one write.
const GROUP_BYTES: usize = 8 << 20;

impl Log {
    /// A new log. Messages that are stored go to `publish`.
    pub fn create(folder: &Path, publish: impl Fn(Vec<Slot>) + Send + 'static) -> io::Result<Self> {
        let file = Arc::new(File::options().create_new(true).read(true).write(true).open(folder.join("bound.log"))?);
        let (changes, mut waiting) = mpsc::unbounded_channel::<Change>();
        let written = file.clone();
        thread::spawn(move || {
            let (mut end, mut group) = (0, Vec::new());
            while let Some(first) = waiting.blocking_recv() {
                let (mut bytes, mut slots, mut next) = (Vec::new(), Vec::new(), Some(first));
                while let Some(change) = next {
                    let mut at = end + bytes.len() as u64;
                    for &length in &change.lengths {
                        slots.push(Slot { at, length });
                        at += length as u64;
                    }
                    bytes.extend_from_slice(&change.bytes);
                    group.push(change.done);
                    next = if bytes.len() < GROUP_BYTES { waiting.try_recv().ok() } else { None };
                }
                written.write_all_at(&bytes, end).expect("the disk of a benchmark works");
                written.sync_data().expect("the disk of a benchmark works");
                end += bytes.len() as u64;
                publish(slots);
                for done in group.drain(..) {
                    let _ = done.send(());
                }
            }
        });
        Ok(Self { file, changes })
    }

    /// Stores something; returns when it is on the disk.
    pub async fn store(&self, bytes: Vec<u8>, lengths: Vec<usize>) {
        let (done, stored) = oneshot::channel();
        let _ = self.changes.send(Change { bytes, lengths, done });
        let _ = stored.await;
    }

    /// The bytes from the first slot to the end of the last one.
    pub fn read(&self, first: Slot, last: Slot) -> Bytes {
        let mut bytes = vec![0; (last.at - first.at) as usize + last.length];
        self.file.read_exact_at(&mut bytes, first.at).expect("what was written can be read");
        bytes.into()
    }
}
