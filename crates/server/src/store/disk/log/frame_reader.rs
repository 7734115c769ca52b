//! [`FrameReader`]: reads the frames of a segment, one after the other, and looks at the bytes after the last one.

use std::{fs::File, io};

use crate::store::disk::{
    file_ops::{self, pread},
    log::frame::{FRAME_HEADER, FRAME_MAGIC, FrameHeader},
};

/// A disk writes at least this many bytes at once or not at all.
const SECTOR: u64 = 512;
/// The number of bytes read at once when searching after the frames.
const READ_BYTES: usize = 64 * 1024;
static ZEROS: [u8; READ_BYTES] = [0; READ_BYTES];

/// Reads the frames of a segment.
#[derive(Debug)]
pub(crate) struct FrameReader<'a> {
    file: &'a File,
    log: u32,
    /// Where the next frame begins.
    pub(crate) offset: u64,
    size: u64,
}

impl<'a> FrameReader<'a> {
    /// Reads frames from an offset on.
    pub(crate) fn from(file: &'a File, log: u32, offset: u64) -> io::Result<Self> {
        Ok(Self { file, log, offset, size: file.metadata()?.len() })
    }

    /// The next frame with its items and its offset. `None` if there is no intact frame.
    pub(crate) fn next(&mut self) -> io::Result<Option<(FrameHeader, Vec<u8>, u64)>> {
        let at = self.offset;
        let found = self.frame_at(at)?;
        if let Some((head, _)) = &found {
            self.offset += (FRAME_HEADER + head.length) as u64;
        }
        Ok(found.map(|(head, items)| (head, items, at)))
    }

    /// Writes the bytes from `begin` up to the next frame again, unchanged.
    pub(crate) fn rewrite(&self, begin: u64) -> io::Result<()> {
        let mut bytes = vec![0; usize::try_from(self.offset.saturating_sub(begin)).unwrap_or(0)];
        pread::read(self.file, &mut bytes, begin)?;
        file_ops::write(self.file, &bytes, begin)
    }

    /// The header of a frame that would fit into the file, whether or not the frame is intact.
    pub(crate) fn head_at(&self, at: u64) -> io::Result<Option<FrameHeader>> {
        let left = self.size.saturating_sub(at);
        if left < FRAME_HEADER as u64 {
            return Ok(None);
        }
        let mut head = [0; FRAME_HEADER];
        pread::read(self.file, &mut head, at)?;
        // A length that exceeds the file is damage, and must not make the reader allocate that much.
        Ok(FrameHeader::read(&head).filter(|head| head.length as u64 <= left - FRAME_HEADER as u64))
    }

    /// Whether frame `number` begins at `at`. A few changed bits of its header are accepted; a header that was lost differs in more.
    pub(crate) fn begins_like(&self, at: u64, number: u64) -> io::Result<bool> {
        if self.size.saturating_sub(at) < FRAME_HEADER as u64 {
            return Ok(false);
        }
        let mut head = [0; FRAME_HEADER];
        pread::read(self.file, &mut head, at)?;
        // Length and checksum are not compared: they may be damaged as well, and the mark and the number identify the frame.
        let expected = FRAME_MAGIC.into_iter().chain(number.to_le_bytes());
        let found = head[..4].iter().chain(&head[8..16]);
        let changed: u32 = expected.zip(found).map(|(expected, found)| (expected ^ found).count_ones()).sum();
        Ok(changed <= 8)
    }

    /// Whether nothing was ever written at `at`: the frames end there.
    pub(crate) fn is_unwritten(&self, at: u64) -> io::Result<bool> {
        let mut head = [0; FRAME_HEADER];
        if self.size.saturating_sub(at) >= FRAME_HEADER as u64 {
            pread::read(self.file, &mut head, at)?;
        }
        Ok(head == [0; FRAME_HEADER])
    }

    /// The bytes from `at` to the next whole frame, if [`next_whole`](Self::next_whole) found one, or to the end of the file.
    pub(crate) fn bytes_until(&self, at: u64, next: Option<u64>) -> io::Result<Vec<u8>> {
        let end = next.unwrap_or(self.size);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(at)).unwrap_or(0)];
        pread::read(self.file, &mut bytes, at)?;
        Ok(bytes)
    }

    /// The offset of the next intact frame after `at`.
    pub(crate) fn next_whole(&self, at: u64) -> io::Result<Option<u64>> {
        // Byte by byte from the next one on, because a damaged header cannot be trusted to say where its frame ends.
        let (mut begin, mut bytes) = (at + 1, vec![0; READ_BYTES]);
        while begin < self.size {
            let length = usize::try_from(self.size - begin).unwrap_or(READ_BYTES).min(READ_BYTES);
            let look = &mut bytes[..length];
            pread::read(self.file, look, begin)?;
            // Most of a segment is zeros, which are skipped without looking for marks.
            if *look != ZEROS[..length] {
                for (place, window) in look.windows(FRAME_MAGIC.len()).enumerate() {
                    if window == FRAME_MAGIC && self.frame_at(begin + place as u64)?.is_some() {
                        return Ok(Some(begin + place as u64));
                    }
                }
            }
            begin = next_offset(begin, length, self.size);
        }
        Ok(None)
    }

    fn frame_at(&self, at: u64) -> io::Result<Option<(FrameHeader, Vec<u8>)>> {
        let Some(head) = self.head_at(at)? else { return Ok(None) };
        let mut items = vec![0; head.length];
        pread::read(self.file, &mut items, at + FRAME_HEADER as u64)?;
        Ok(head.fits(self.log, &items).then_some((head, items)))
    }

    /// Looks at the bytes after the last frame. `number` is the number that the next frame would have.
    pub(crate) fn rest(&self, number: u64) -> io::Result<Tail> {
        let (mut begin, mut rest) = (self.offset, Tail::Zeros);
        // The length of the torn frame is known from its header, unless the header itself may be torn: that is possible if it spans
        // two sectors.
        let is_whole =
            |head: &FrameHeader| head.number == number || self.offset % SECTOR + FRAME_HEADER as u64 <= SECTOR;
        let torn = self.head_at(self.offset)?.filter(is_whole).map(|head| (FRAME_HEADER + head.length) as u64);
        let mut bytes = vec![0; READ_BYTES];
        while begin < self.size {
            let length = usize::try_from(self.size - begin).unwrap_or(READ_BYTES).min(READ_BYTES);
            let look = &mut bytes[..length];
            pread::read(self.file, look, begin)?;
            if *look != ZEROS[..length] {
                let last = look.iter().rposition(|byte| *byte != 0).unwrap_or_default();
                let bytes = begin + last as u64 + 1 - self.offset;
                rest = Tail::Torn { bytes };
                // A crash tears one frame, the last one. Bytes beyond its length, or a frame with a higher number, were written
                // after it was synced and so answered.
                if torn.is_some_and(|torn| bytes > torn) || self.has_frame_above(number, look, begin)? {
                    return Ok(Tail::LaterFrames);
                }
            }
            begin = next_offset(begin, length, self.size);
        }
        Ok(rest)
    }

    fn has_frame_above(&self, number: u64, bytes: &[u8], begin: u64) -> io::Result<bool> {
        for (place, window) in bytes.windows(FRAME_MAGIC.len()).enumerate() {
            if window == FRAME_MAGIC
                && self.frame_at(begin + place as u64)?.is_some_and(|(head, _)| head.number > number)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Where the next search begins. A mark may lie across the border of two reads.
fn next_offset(begin: u64, length: usize, size: u64) -> u64 {
    let border = if begin + length as u64 == size { 0 } else { FRAME_MAGIC.len() - 1 };
    begin + (length - border) as u64
}

/// The bytes after the last frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing was ever written there.
    Zeros,
    /// Bytes that are not a frame, because a crash cut off the write of the last one.
    Torn {
        /// The number of bytes up to the last one that is not zero.
        bytes: u64,
    },
    /// More than a crash can leave: a later frame, or bytes after the torn frame.
    LaterFrames,
}
