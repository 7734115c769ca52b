//! [`Chunks`]: joins the chunks of a body without keeping more memory than they need.

use bytes::{Bytes, BytesMut};

/// The chunks that have arrived.
///
/// A chunk keeps the whole buffer alive that it was read into, so several chunks are copied together. Most bodies arrive as one
/// chunk and are not copied.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    only: Option<Bytes>,
    copied: BytesMut,
}

impl Chunks {
    /// Adds a chunk. The capacity stays within `most` bytes, which must be enough for all chunks.
    pub(super) fn push(&mut self, chunk: Bytes, most: usize) {
        if self.only.is_none() && self.copied.is_empty() {
            self.only = Some(chunk);
            return;
        }
        let first = self.only.take().unwrap_or_default();
        for chunk in [first, chunk] {
            self.grow(chunk.len(), most);
            self.copied.extend_from_slice(&chunk);
        }
    }

    /// Doubles the capacity, up to `most`, so that each byte is copied a few times at most.
    fn grow(&mut self, further: usize, most: usize) {
        let needed = self.copied.len() + further;
        if needed > self.copied.capacity() {
            let capacity = (needed * 2).min(most).max(needed);
            let mut larger = BytesMut::with_capacity(capacity);
            larger.extend_from_slice(&self.copied);
            self.copied = larger;
        }
    }

    /// The joined body.
    pub(super) fn finish(self) -> Bytes {
        self.only.unwrap_or_else(|| self.copied.freeze())
    }
}
