//! Files with settings or secrets that are replaced as a whole.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use dms_protocol::internal::private;

/// Replaces a file by a rename, so that another process reads the old text or the new one. A new file has mode 0600, and missing
/// directories are made with 0700. An existing file keeps its owner, group and mode, so that a server that runs as another user can
/// still read it; only the access of all other users is removed.
///
/// # Errors
/// When the file cannot be written. The old content stays then.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        private::create_dir_all(folder)?;
    }
    // A symbolic link is followed, because renaming over it would replace the link and not its target.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let mut file = private::options().write(true).create(true).truncate(true).open(&new)?;
    let written =
        keep_access(&path, &file).and_then(|()| file.write_all(text.as_bytes())).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(&new, &path)).inspect_err(|_| drop(fs::remove_file(&new)))
}

#[cfg(unix)]
fn keep_access(old: &Path, new: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let Ok(old) = fs::metadata(old) else { return Ok(()) };
    let made = new.metadata()?;
    if (old.uid(), old.gid()) != (made.uid(), made.gid()) {
        fchown(new, Some(old.uid()), Some(old.gid()))?;
    }
    new.set_permissions(fs::Permissions::from_mode(old.mode() & 0o770))
}

#[cfg(not(unix))]
fn keep_access(_: &Path, _: &fs::File) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_private_and_keeps_the_rights_of_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/keys.yaml");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        replace(&path, "one").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode()), ("one", 0o600));
        for (before, after) in [(0o640, 0o640), (0o644, 0o640)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            replace(&path, "two").unwrap();
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode()), ("two", after));
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left behind");
    }
}
