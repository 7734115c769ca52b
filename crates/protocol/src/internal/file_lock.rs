//! A file that this process has locked.

use std::{
    fs::{File, TryLockError},
    ops::Deref,
};

/// A file with the kernel's exclusive lock, released when the value is dropped or the process ends, however that dies.
///
/// Closing the file alone would not do. A process that is being started by another thread has a copy of each open file
/// until its program is loaded, and the kernel keeps the lock while a copy is open. Unlocking ends the lock for all copies.
#[derive(Debug)]
pub struct LockedFile(File);

impl LockedFile {
    /// Locks a file, without waiting for a process that holds the lock.
    ///
    /// # Errors
    /// The file and why it could not be locked.
    pub fn try_lock(file: File) -> Result<Self, (File, TryLockError)> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(error) => Err((file, error)),
        }
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // If it fails, closing the file releases the lock.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_lock_ends_with_its_value_even_if_a_copy_of_the_file_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let open = || File::create(dir.path().join("lock")).unwrap();
        let locked = LockedFile::try_lock(open()).unwrap();
        let copy = locked.try_clone().unwrap();
        assert!(matches!(LockedFile::try_lock(open()), Err((_, TryLockError::WouldBlock))));
        drop(locked);
        LockedFile::try_lock(open()).unwrap();
        drop(copy);
    }
}
