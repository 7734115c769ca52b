//! Every change that the store makes to files and directories goes through a function of this file. So tests can record all changes,
//! make them fail, and simulate a power cut after any of them.

use std::{fs::File, io, path::Path};

pub(crate) use dms_protocol::internal::private::options as private;

#[cfg(all(test, target_os = "linux"))]
use crate::store::disk::tests::power_cut::watch::change;

pub(crate) mod pread;

/// A change that is about to be made.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(all(test, target_os = "linux")), expect(dead_code, reason = "only tests look at it"))]
pub(crate) enum Op<'a> {
    /// An empty directory is created.
    CreateDirectory(&'a Path),
    /// An empty file is created.
    Create(&'a Path),
    /// A file is removed.
    Remove(&'a Path),
    /// A file is renamed, and replaces the file that had the new name.
    Rename(&'a Path, &'a Path),
    /// Bytes are written to a file.
    Write(&'a File, &'a [u8], u64),
    /// The length of a file is changed.
    SetLen(&'a File, u64),
    /// The bytes of a file are brought to the disk.
    Sync(&'a File),
    /// The entries of a directory are brought to the disk.
    SyncDirectory(&'a Path),
}

#[cfg(not(all(test, target_os = "linux")))]
fn change<T>(_change: Op<'_>, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    make()
}

/// Creates a file for reading and writing.
///
/// # Errors
/// When a file of that name exists. It is never overwritten, because it may belong to another process.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    change(Op::Create(path), || private().read(true).write(true).create_new(true).open(path))
}

/// Opens a file for reading and writing, or creates it.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let open = || private().read(true).write(true).create(true).truncate(false).open(path);
    // Opening an existing file changes nothing, so tests must not see it as a change.
    if path.exists() { open() } else { change(Op::Create(path), open) }
}

/// Creates a directory that only this user may enter, and missing ones above it.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    change(Op::CreateDirectory(path), || dms_protocol::internal::private::create_dir_all(path))
}

/// Removes a file. After a power cut it may be there again, unless its directory was synced.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    change(Op::Remove(path), || std::fs::remove_file(path))
}

/// Renames a file. A power cut may undo this, unless the directory was synced.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    change(Op::Rename(from, to), || std::fs::rename(from, to))
}

/// Writes all bytes at an offset.
pub(crate) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    change(Op::Write(file, bytes, offset), || pread::write(file, bytes, offset))
}

/// Sets the length of a file.
pub(crate) fn set_len(file: &File, length: u64) -> io::Result<()> {
    change(Op::SetLen(file, length), || file.set_len(length))
}

/// Allocates the blocks of a file, so that a full disk cannot refuse later writes to them. All bytes read as zeros.
pub(crate) fn reserve(path: &Path, file: &File, size: u64) -> io::Result<()> {
    #[cfg(test)]
    crate::store::disk::tests::small_disk::check(path, file, size)?;
    #[cfg(not(test))]
    let _ = path;
    change(Op::SetLen(file, size), || {
        // The length alone would leave a hole, and a later write into a hole can fail on a full disk.
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size) {
            // Some file systems cannot allocate in advance. There a full disk may refuse any commit.
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

/// Returns when the bytes and the metadata of a file are on the disk.
pub(crate) fn sync_all(file: &File) -> io::Result<()> {
    change(Op::Sync(file), || file.sync_all())
}

/// Returns when the entries of a directory are on the disk. Syncing a file alone does not make its name durable. On Windows a directory cannot be opened, and the system takes care of
/// its entries.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    change(Op::SyncDirectory(path), || if cfg!(windows) { Ok(()) } else { File::open(path)?.sync_all() })
}
