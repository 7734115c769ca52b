//! Files and directories that only their user may read: messages, journals, dumps.

use std::{fs, io, path::Path};

/// Options that create files for this user only.
pub fn options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Opens a file to append to. An existing file is allowed only if `may_exist`.
///
/// # Errors
/// When the file exists and may not, or cannot be opened.
pub fn append(path: &Path, may_exist: bool) -> io::Result<fs::File> {
    options().append(true).create(may_exist).create_new(!may_exist).open(path)
}

/// Creates a directory, and missing ones above it, for this user only. Existing directories do not change.
///
/// # Errors
/// When the directory cannot be created.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Logs a warning if all users may read the file. `what` names it.
pub fn warn_if_exposed(what: &str, path: &Path) {
    if is_exposed(path) {
        let path = path.display();
        tracing::warn!(%path, "any user of this machine may read {what}: take the right away with chmod o-rwx");
    }
}

/// Returns whether all users of the machine may read this file or the target of this link. The right of a group is not
/// checked, because it may be given on purpose, as Kubernetes does with `fsGroup`.
#[cfg(unix)]
pub fn is_exposed(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
pub fn is_exposed(_: &Path) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_made_is_for_its_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        create_dir_all(&inner).unwrap();
        let file = inner.join("f");
        options().write(true).create(true).open(&file).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir.path().join("a")), mode(&inner), mode(&file)), (0o700, 0o700, 0o600));
        assert!(!is_exposed(&file));
        for (mode, exposed) in [(0o640, false), (0o660, false), (0o644, true), (0o604, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_exposed(&file), exposed, "{mode:o}");
        }
        let link = inner.join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(is_exposed(&link), "what counts is the file");
        assert!(!is_exposed(&inner.join("nothing")) && !is_exposed(Path::new("/dev/null")));
    }
}
