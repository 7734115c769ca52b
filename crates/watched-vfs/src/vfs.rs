//! The VFS: opens files, and reports when files are created and deleted.

use std::{
    ffi::{CStr, OsStr, c_char, c_int},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    ptr,
    sync::Once,
};

use rusqlite::ffi;

use crate::{Op, file, tell};

/// Makes the VFS the default of this process. Later calls do nothing.
///
/// # Panics
/// If SQLite has no VFS, or does not take this one.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the default VFS lives as long as the process, and so does this copy of it, which is leaked on purpose.
        unsafe {
            let real = ffi::sqlite3_vfs_find(ptr::null());
            assert!(!real.is_null(), "SQLite has no VFS");
            let watched = Box::leak(Box::new(*real));
            watched.pNext = ptr::null_mut();
            watched.zName = c"watched".as_ptr();
            watched.pAppData = real.cast();
            watched.szOsFile = (*real).szOsFile + file::HEAD;
            watched.xOpen = Some(open);
            watched.xDelete = Some(delete);
            watched.xAccess = Some(access);
            watched.xFullPathname = Some(full_path_name);
            watched.xSetSystemCall = None;
            watched.xGetSystemCall = None;
            watched.xNextSystemCall = None;
            watched.iVersion = 2;
            assert_eq!(ffi::sqlite3_vfs_register(watched, 1), ffi::SQLITE_OK);
        }
    });
}

/// The VFS that was the default before.
unsafe fn real(vfs: *mut ffi::sqlite3_vfs) -> *mut ffi::sqlite3_vfs {
    // SAFETY: `install` put it there.
    unsafe { (*vfs).pAppData.cast() }
}

unsafe fn path_of(name: *const c_char) -> Option<PathBuf> {
    // SAFETY: SQLite's names end with a zero byte.
    (!name.is_null()).then(|| Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())).to_owned())
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    opened: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: all arguments are SQLite's; `opened` has room for `szOsFile` bytes, the first of which are ours.
    unsafe {
        (*opened).pMethods = ptr::null();
        let path = path_of(name);
        let is_new = path.as_ref().is_some_and(|path| !path.exists());
        if let (true, Some(path)) = (is_new && flags & ffi::SQLITE_OPEN_CREATE != 0, &path)
            && let Err(refusal) = tell(Op::Create { path })
        {
            return refusal.code(ffi::SQLITE_CANTOPEN);
        }
        let real = real(vfs);
        let Some(open) = (*real).xOpen else { return ffi::SQLITE_CANTOPEN };
        let done = open(real, name, file::real(opened), flags, out_flags);
        if done == ffi::SQLITE_OK {
            file::begin(opened, path, is_new);
        }
        done
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: all arguments are SQLite's.
    unsafe {
        let path = path_of(name).unwrap_or_default();
        if path.exists() {
            let synced = || if sync_directory == 0 { Ok(()) } else { tell(Op::SyncNames { path: &path }) };
            if let Err(refusal) = tell(Op::Delete { path: &path }).and_then(|()| synced()) {
                return refusal.code(ffi::SQLITE_IOERR_DELETE);
            }
        }
        let real = real(vfs);
        (*real).xDelete.map_or(ffi::SQLITE_IOERR_DELETE, |delete| delete(real, name, sync_directory))
    }
}

unsafe extern "C" fn access(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: all arguments are SQLite's.
    unsafe {
        let real = real(vfs);
        (*real).xAccess.map_or(ffi::SQLITE_IOERR_ACCESS, |access| access(real, name, flags, out))
    }
}

unsafe extern "C" fn full_path_name(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    length: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: all arguments are SQLite's.
    unsafe {
        let real = real(vfs);
        (*real).xFullPathname.map_or(ffi::SQLITE_CANTOPEN, |full| full(real, name, length, out))
    }
}
