//! Reads and writes at an offset of a file, on every platform.

use std::{fs::File, io};

/// Fills a buffer from an offset on.
#[cfg(unix)]
pub(crate) fn read(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Writes all bytes from an offset on.
#[cfg(unix)]
pub(crate) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Whether the file system knows that a part of a file was never written, so that it is zeros on the disk too.
#[cfg(target_os = "linux")]
pub(crate) fn is_hole(file: &File, offset: u64, length: u64) -> bool {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data >= offset + length,
        Err(error) => error == rustix::io::Errno::NXIO,
    }
}

/// Whether a part of a file is known to be a hole. On this platform nothing is known.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_hole(_file: &File, _offset: u64, _length: u64) -> bool {
    false
}

/// Fills a buffer from an offset on.
#[cfg(windows)]
pub(crate) fn read(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => (bytes, offset) = (&mut bytes[read..], offset + read as u64),
        }
    }
    Ok(())
}

/// Writes all bytes from an offset on.
#[cfg(windows)]
pub(crate) fn write(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => (bytes, offset) = (&bytes[written..], offset + written as u64),
        }
    }
    Ok(())
}
