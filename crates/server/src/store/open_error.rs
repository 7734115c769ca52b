//! [`OpenError`]: why a data directory could not be opened.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a data directory could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be created, read or written.
    #[error("the data directory {dir} cannot be used; choose one that this user may read and write")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no data directory.
    #[error("{dir} is no data directory of dms-worker: it {found}")]
    Absent {
        /// The directory.
        dir: PathBuf,
        /// The reason, as the end of a sentence.
        found: &'static str,
    },
    /// The directory is no finished backup.
    #[error(
        "{dir} is no finished backup: it has no backup.json. The file is written last, and a server that opens the backup removes \
         it; `dms-worker data check` looks at such a directory"
    )]
    NoBackup {
        /// The directory.
        dir: PathBuf,
    },
    /// An import into it has not finished.
    #[error(
        "an import of the export {export} into the data directory {dir} has not finished; run the same `dms-worker data import` again, \
         or delete the directory and begin anew"
    )]
    Importing {
        /// The directory.
        dir: PathBuf,
        /// The id of the export.
        export: String,
    },
    /// Another process has it open.
    #[error(
        "the data directory {dir} is in use by another process{}; stop that first, or choose another directory",
        by(pid)
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process, where it is known.
        pid: Option<u32>,
    },
    /// The file belongs to something else.
    #[error(
        "{file} is not a database of dms-worker; it was left as it is: move it away, or choose another directory; if it was the index \
         of this one, `dms-worker data rebuild-index` makes a new one from the log"
    )]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The file was written by a later version of this program.
    #[error("{file} has version {found}, and this program knows versions up to {known}; use a newer dms-worker")]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: usize,
        /// The last version known.
        known: usize,
    },
    /// The file was written before the first release.
    #[error(
        "{file} has version {found}, of a program before the first release, which this one does not read; \
         let that program's consumers empty its queues, then start with another directory"
    )]
    Older {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: usize,
    },
    /// The file is damaged.
    #[error(
        "{file} is damaged ({reason}); it was left as it is: {}restore the directory from a backup, or move it away to start with an \
         empty one",
        tool(file)
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The damage.
        reason: String,
    },
    /// The index has commits that the log lacks.
    #[error(
        "the data directory {dir} has parts of two states: its index dms.db has {index} commits, and its log ends with commit {log}, \
         because only a part of a backup was restored or the end of the log was lost; it was left as it is: restore dms.db and log from \
         the same backup, or make an index of what the log has with `dms-worker data rebuild-index`, or see with `dms-worker data \
         repair` what has to be given up to keep the index"
    )]
    IndexAhead {
        /// The directory.
        dir: PathBuf,
        /// The number of commits in the index.
        index: u64,
        /// The number of the last commit in the log; 0 if the log has none.
        log: u64,
    },
    /// The disk is full, and so little is left that not even the reserves are enough.
    #[error("{file} cannot be opened, because the disk is full ({reason}); free some space on it")]
    Full {
        /// The file.
        file: PathBuf,
        /// The error of the system.
        reason: String,
    },
    /// This program was built without the disk store.
    #[error(
        "the data directory {dir} cannot be used: this program keeps messages in memory only, because it was built without the \
         feature `disk` of dms-server; build it with that, or leave the data directory out"
    )]
    NoDisk {
        /// The directory.
        dir: PathBuf,
    },
    /// The runtime stopped meanwhile.
    #[error("the runtime stopped while the data directory was being opened")]
    Stopped,
    /// The file cannot be read or written.
    #[error("{file} cannot be opened: {reason}")]
    Unusable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The tool for a damaged part of a data directory, before the remedies that always help.
fn tool(file: &Path) -> &'static str {
    match file.file_name().and_then(|name| name.to_str()) {
        Some("dms.db") => "rebuild it from the log with `dms-worker data rebuild-index`, ",
        Some("log") => "see with `dms-worker data repair` what can be given up, ",
        _ => "",
    }
}

fn by(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}
