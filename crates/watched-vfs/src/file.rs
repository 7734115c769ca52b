//! An open file. The memory that SQLite allocates for it contains our struct, followed by the struct of the real file.

use std::{
    ffi::{c_int, c_void},
    path::PathBuf,
    ptr, slice,
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64};

use crate::{Op, tell};

/// Begins as SQLite's own struct, so that a pointer to one is a pointer to the other.
#[repr(C)]
struct Watched {
    base: sqlite3_file,
    path: *mut PathBuf,
    /// Whether the directory entry has to be synced with the first bytes, as SQLite does.
    is_new: bool,
}

/// The size of our struct.
pub(crate) const HEAD: c_int = size_of::<Watched>() as c_int;

/// The real file behind ours.
pub(crate) unsafe fn real(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: SQLite gave room for both.
    unsafe { file.cast::<Watched>().add(1).cast() }
}

/// Begins to watch a file whose real file is open. Files without a name are temporary and not watched.
pub(crate) unsafe fn begin(file: *mut sqlite3_file, path: Option<PathBuf>, is_new: bool) {
    let path = path.map_or(ptr::null_mut(), |path| Box::into_raw(Box::new(path)));
    // SAFETY: SQLite gave room for it.
    unsafe { file.cast::<Watched>().write(Watched { base: sqlite3_file { pMethods: &METHODS }, path, is_new }) };
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Without xFetch: nothing is mapped into memory.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// A method that is passed on to the real file.
macro_rules! passed_on {
    ($name:ident, $method:ident($($value:ident: $of:ty),*) -> $result:ty, $missing:expr) => {
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $($value: $of),*) -> $result {
            // SAFETY: all arguments are SQLite's, and the real file is open.
            unsafe {
                let file = real(file);
                (*(*file).pMethods).$method.map_or($missing, |method| method(file, $($value),*))
            }
        }
    };
}

passed_on!(read, xRead(bytes: *mut c_void, length: c_int, offset: sqlite3_int64) -> c_int, ffi::SQLITE_IOERR);
passed_on!(file_size, xFileSize(size: *mut sqlite3_int64) -> c_int, ffi::SQLITE_IOERR);
passed_on!(lock, xLock(level: c_int) -> c_int, ffi::SQLITE_IOERR);
passed_on!(unlock, xUnlock(level: c_int) -> c_int, ffi::SQLITE_IOERR);
passed_on!(check_reserved_lock, xCheckReservedLock(out: *mut c_int) -> c_int, ffi::SQLITE_IOERR);
passed_on!(file_control, xFileControl(what: c_int, value: *mut c_void) -> c_int, ffi::SQLITE_NOTFOUND);
passed_on!(sector_size, xSectorSize() -> c_int, 0);
passed_on!(device_characteristics, xDeviceCharacteristics() -> c_int, 0);
passed_on!(shm_map, xShmMap(page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int, ffi::SQLITE_IOERR);
passed_on!(shm_lock, xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int, ffi::SQLITE_IOERR);
passed_on!(shm_barrier, xShmBarrier() -> (), ());
passed_on!(shm_unmap, xShmUnmap(delete: c_int) -> c_int, ffi::SQLITE_OK);
passed_on!(real_close, xClose() -> c_int, ffi::SQLITE_IOERR);
passed_on!(real_write, xWrite(bytes: *const c_void, length: c_int, offset: sqlite3_int64) -> c_int, ffi::SQLITE_IOERR);
passed_on!(real_truncate, xTruncate(size: sqlite3_int64) -> c_int, ffi::SQLITE_IOERR);
passed_on!(real_sync, xSync(flags: c_int) -> c_int, ffi::SQLITE_IOERR);

unsafe fn path<'a>(file: *mut sqlite3_file) -> Option<&'a PathBuf> {
    // SAFETY: `begin` made it, `close` frees it.
    unsafe { (*file.cast::<Watched>()).path.as_ref() }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once, and uses it no more.
    unsafe {
        let done = real_close(file);
        let path = (*file.cast::<Watched>()).path;
        if !path.is_null() {
            drop(Box::from_raw(path));
        }
        (*file).pMethods = ptr::null();
        done
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite gives `length` bytes.
    unsafe {
        if let Some(path) = path(file) {
            let bytes = slice::from_raw_parts(bytes.cast(), usize::try_from(length).unwrap_or(0));
            if let Err(refusal) = tell(Op::Write { path, offset: offset.unsigned_abs(), bytes }) {
                return refusal.code(ffi::SQLITE_IOERR_WRITE);
            }
        }
        real_write(file, bytes, length, offset)
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: SQLite's file is open.
    unsafe {
        if let Some(path) = path(file)
            && let Err(refusal) = tell(Op::Truncate { path, length: size.unsigned_abs() })
        {
            return refusal.code(ffi::SQLITE_IOERR_TRUNCATE);
        }
        real_truncate(file, size)
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite's file is open.
    unsafe {
        if let Some(path) = path(file) {
            let with_name = std::mem::take(&mut (*file.cast::<Watched>()).is_new);
            let names = || if with_name { tell(Op::SyncNames { path }) } else { Ok(()) };
            if let Err(refusal) = tell(Op::Sync { path }).and_then(|()| names()) {
                return refusal.code(ffi::SQLITE_IOERR_FSYNC);
            }
        }
        real_sync(file, flags)
    }
}
