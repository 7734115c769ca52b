//! Makes parts of a log file zeros again, on the disk too.

use std::{fs::File, io};

use crate::store::disk::file_ops::{self, pread};

/// How many bytes are written at once where zeros are wanted.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Makes bytes zeros, on the disk too. They are written whatever is read there: after a sync that failed, that may not be what is on the
/// disk, and zeros that were written before it are not written again by another sync.
pub(crate) fn wipe(file: &File, from: u64, until: u64) -> io::Result<()> {
    let mut begin = from;
    while begin < until {
        let length = usize::try_from(until - begin).unwrap_or(ZEROS.len()).min(ZEROS.len());
        file_ops::write(file, &ZEROS[..length], begin)?;
        begin += length as u64;
    }
    file_ops::sync_all(file)
}

/// Makes everything behind a place of a file zeros, on the disk too, whatever is read there (see `wipe`): another process may have failed
/// to. The file keeps its length throughout: a shorter one is damage.
pub(crate) fn clear(file: &File, from: u64, size: u64) -> io::Result<()> {
    let (mut begin, mut found) = (from, vec![0; ZEROS.len()]);
    while begin < size {
        let length = usize::try_from(size - begin).unwrap_or(ZEROS.len()).min(ZEROS.len());
        let (look, zeros) = (&mut found[..length], &ZEROS[..length]);
        pread::read(file, look, begin)?;
        // Most of it was never written; to write it would be 32 MiB for nothing.
        if look != zeros || !pread::is_hole(file, begin, length as u64) {
            file_ops::write(file, zeros, begin)?;
        }
        begin += length as u64;
    }
    file_ops::sync_all(file)
}
