//! [`SharedBuffer`]: puts small texts that arrive together into one piece of memory, because an allocation for each message costs
//! about as much as the rest of its way through the server.

use bytes::{Bytes, BytesMut};

use dms_protocol::limits;

/// The maximum size of memory that texts share, in bytes. A text that is needed for longer than the others keeps all of it.
const MAX_SHARED: usize = 16 * 1024;

/// The memory where the next texts go.
#[derive(Debug)]
pub(crate) struct SharedBuffer {
    room: BytesMut,
    size: BufferSize,
    /// The number of texts that are still expected, and an estimate of their bytes.
    texts: usize,
    bytes: usize,
}

/// The size of the memory of a text in bytes, if other texts may share it; otherwise 0. All sizes are equal: it does not matter for a
/// message where it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BufferSize(usize);

impl BufferSize {
    /// Whether other texts may be in the same memory.
    pub(crate) fn is_shared(self) -> bool {
        self.0 > 0
    }
}

impl PartialEq for BufferSize {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl SharedBuffer {
    /// A buffer for this number of texts, of about `bytes` bytes together.
    pub(crate) fn new(texts: usize, bytes: usize) -> Self {
        Self { room: BytesMut::new(), size: BufferSize::default(), texts, bytes }
    }

    /// Adds a text of at most `size` bytes.
    pub(crate) fn put(&mut self, size: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
        if self.room.capacity() < size {
            let average = self.bytes / self.texts.max(1);
            // No more than a consumer gets at once, so that the texts are usually needed for the same time.
            let together = self.texts.min(limits::MAX_MESSAGES).min(MAX_SHARED / average.max(1)).max(1);
            let bytes = (average * together).max(size);
            (self.room, self.size) = (BytesMut::with_capacity(bytes), BufferSize(bytes));
        }
        (self.texts, self.bytes) = (self.texts.saturating_sub(1), self.bytes.saturating_sub(size));
        write(&mut self.room);
        self.room.split().freeze()
    }

    /// The size of the memory of the last text.
    #[cfg_attr(
        not(any(feature = "disk", feature = "postgres")),
        expect(dead_code, reason = "only stores read runs of messages")
    )]
    pub(crate) fn size(&self) -> BufferSize {
        self.size
    }
}

/// The size of the memory of the first of these texts, which were put into buffers one after the other.
pub(crate) fn size_of_first<'a>(texts: impl Iterator<Item = &'a Bytes>) -> BufferSize {
    let mut texts = texts.peekable();
    let (mut size, mut is_shared) = (0, false);
    while let Some(text) = texts.next() {
        size += text.len();
        match texts.peek() {
            Some(next) if follows(next, text) => is_shared = true,
            _ => break,
        }
    }
    BufferSize(if is_shared { size } else { 0 })
}

/// The memory that texts keep, in bytes. Each text comes with the size of its memory. Memory that several texts share is counted once,
/// if they were put into it one after the other.
pub(crate) fn kept_bytes<'a>(texts: impl Iterator<Item = (&'a Bytes, BufferSize)>) -> usize {
    let (mut kept, mut last) = (0, None);
    for (text, BufferSize(size)) in texts {
        if size == 0 || last.is_none_or(|last| !follows(text, last)) {
            kept += text.len().max(size);
        }
        last = Some(text);
    }
    kept
}

/// Whether a text begins where another one ends.
pub(crate) fn follows(text: &Bytes, before: &Bytes) -> bool {
    text.as_ptr() == before.as_ptr_range().end
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn put(buffer: &mut SharedBuffer, text: &[u8]) -> (Bytes, BufferSize) {
        let text = buffer.put(text.len(), |room| room.put_slice(text));
        (text, buffer.size())
    }

    fn kept(texts: &[(Bytes, BufferSize)]) -> usize {
        kept_bytes(texts.iter().map(|(text, size)| (text, *size)))
    }

    #[test]
    fn small_texts_share_memory_and_it_is_counted_once() {
        let mut buffer = SharedBuffer::new(3, 300);
        let texts: Vec<_> = [1, 2, 3].into_iter().map(|byte| put(&mut buffer, &[byte; 100])).collect();
        assert!(texts.iter().zip(1..).all(|((text, _), byte)| text[..] == [byte; 100]));
        assert_eq!(kept(&texts), 300);
        assert_eq!(size_of_first(texts.iter().map(|(text, _)| text)).0, 300);
        assert_eq!(kept(&texts[1..2]), 300, "one text keeps the others in memory");
        assert_eq!(kept(&[texts[0].clone(), texts[2].clone()]), 600, "what is not next to each other may be elsewhere");
        let alone = (Bytes::from(vec![0; 100]), BufferSize::default());
        assert_eq!(kept(&[alone.clone(), alone]), 200);
    }

    #[test]
    fn a_text_keeps_no_more_than_a_consumer_gets_at_once_and_16_kib() {
        let mut buffer = SharedBuffer::new(100, 10_000);
        let texts: Vec<_> = (0..100).map(|byte| put(&mut buffer, &[byte; 100])).collect();
        assert!(texts.iter().all(|text| kept(std::slice::from_ref(text)) == 1_000));
        assert_eq!(kept(&texts), 10_000);
        let mut buffer = SharedBuffer::new(10, 100_000);
        let texts: Vec<_> = (0..10).map(|byte| put(&mut buffer, &[byte; 10_000])).collect();
        assert!(texts.iter().all(|text| kept(std::slice::from_ref(text)) == 10_000));
        let large = put(&mut SharedBuffer::new(2, 200_000), &[0; 100_000]);
        assert_eq!(kept(&[large]), 100_000);
        // An estimate that is wrong.
        let mut buffer = SharedBuffer::new(0, 0);
        assert_eq!(kept(&[put(&mut buffer, b"ab"), put(&mut buffer, b"c")]), 3);
    }
}
