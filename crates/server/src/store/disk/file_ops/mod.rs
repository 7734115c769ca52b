//! What the store does to files and directories, a function for each kind of change: tests watch them all, have them fail, and
//! cut the power behind any of them.

use std::{fs::File, io, path::Path};

pub(crate) use dms_protocol::private::options as private;

#[cfg(all(test, target_os = "linux"))]
use crate::store::disk::tests::power_cut::watch::change;

pub(crate) mod pread;

/// A change that is about to be made.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(all(test, target_os = "linux")), expect(dead_code, reason = "only tests look at it"))]
pub(crate) enum Op<'a> {
    /// A directory begins, empty.
    CreateDirectory(&'a Path),
    /// A file begins, empty.
    Create(&'a Path),
    /// A file's name goes.
    Remove(&'a Path),
    /// A file gets another name; whatever had that is gone.
    Rename(&'a Path, &'a Path),
    /// Bytes of a file.
    Write(&'a File, &'a [u8], u64),
    /// The length of a file.
    SetLen(&'a File, u64),
    /// What was written to a file is brought to the disk.
    Sync(&'a File),
    /// The names in a directory are.
    SyncDirectory(&'a Path),
}

#[cfg(not(all(test, target_os = "linux")))]
fn change<T>(_change: Op<'_>, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    make()
}

/// Makes a file, for reading and writing.
///
/// # Errors
/// When one of that name exists: it is never overwritten, because it may be another process's.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    change(Op::Create(path), || private().read(true).write(true).create_new(true).open(path))
}

/// Opens a file for reading and writing, made if it is missing.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let open = || private().read(true).write(true).create(true).truncate(false).open(path);
    if path.exists() { open() } else { change(Op::Create(path), open) }
}

/// Makes a directory that only this user may enter, and those above it that are missing.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    change(Op::CreateDirectory(path), || dms_protocol::private::create_dir_all(path))
}

/// Removes a file.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    change(Op::Remove(path), || std::fs::remove_file(path))
}

/// Gives a file another name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    change(Op::Rename(from, to), || std::fs::rename(from, to))
}

/// Writes all bytes from a place on.
pub(crate) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    change(Op::Write(file, bytes, offset), || pread::write(file, bytes, offset))
}

/// Gives a file a length.
pub(crate) fn set_len(file: &File, length: u64) -> io::Result<()> {
    change(Op::SetLen(file, length), || file.set_len(length))
}

/// Reserves room, so that a commit that fits is not refused by a full disk; all of it reads as zeros.
pub(crate) fn reserve(path: &Path, file: &File, size: u64) -> io::Result<()> {
    #[cfg(test)]
    crate::store::disk::tests::small_disk::check(path, file, size)?;
    #[cfg(not(test))]
    let _ = path;
    change(Op::SetLen(file, size), || {
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size) {
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            reserved => return Ok(reserved?),
        }
        file.set_len(size)
    })
}

/// Returns when the bytes of a file are on the disk.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    change(Op::Sync(file), || file.sync_data())
}

/// Returns when a file is on the disk with all that is known of it.
pub(crate) fn sync_all(file: &File) -> io::Result<()> {
    change(Op::Sync(file), || file.sync_all())
}

/// Returns when the entries of a directory are on the disk. Where a directory cannot be opened, the system sees to it.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    change(Op::SyncDirectory(path), || if cfg!(windows) { Ok(()) } else { File::open(path)?.sync_all() })
}
