//! Overwrites parts of a segment with zeros, and waits until they are on the disk.

use std::{fs::File, io};

use crate::store::disk::file_ops::{self, pread};

/// The number of zeros written at once.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Overwrites a range with zeros. They are written whatever a read returns: after a failed sync the page cache may differ from the
/// disk, and pages written before the failure are not written again by the next sync.
pub(crate) fn wipe(file: &File, from: u64, until: u64) -> io::Result<()> {
    let mut begin = from;
    while begin < until {
        let length = usize::try_from(until - begin).unwrap_or(ZEROS.len()).min(ZEROS.len());
        file_ops::write(file, &ZEROS[..length], begin)?;
        begin += length as u64;
    }
    // Synced before the next frame is written. Otherwise a power cut could keep the new frame and parts of the old one after it.
    file_ops::sync_all(file)
}

/// Overwrites everything from `from` on with zeros, whatever a read returns (see [`wipe`]), because another process may have failed
/// to do so. The length of the file does not change, because a shorter file counts as damaged.
pub(crate) fn clear(file: &File, from: u64, size: u64) -> io::Result<()> {
    let (mut begin, mut found) = (from, vec![0; ZEROS.len()]);
    while begin < size {
        let length = usize::try_from(size - begin).unwrap_or(ZEROS.len()).min(ZEROS.len());
        let (look, zeros) = (&mut found[..length], &ZEROS[..length]);
        pread::read(file, look, begin)?;
        // Most of the file was never written. Writing it would cost 32 MiB for nothing.
        if look != zeros || !pread::is_hole(file, begin, length as u64) {
            file_ops::write(file, zeros, begin)?;
        }
        begin += length as u64;
    }
    file_ops::sync_all(file)
}
