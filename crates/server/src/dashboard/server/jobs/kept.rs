//! The file with the jobs that are open: a restart continues redrives, and says that discards were not done.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::dashboard::server::jobs::Order;
use dms_protocol::internal::private;

const FILE: &str = "dashboard-jobs.json";

/// An open job.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    #[serde(flatten)]
    pub(super) order: Order,
    /// Whether it may have changed something.
    #[serde(default)]
    pub(super) has_begun: bool,
}

/// Replaces the file. It is removed where no job is open.
pub(super) fn write(directory: &Path, jobs: &[Kept]) -> io::Result<()> {
    let file = directory.join(FILE);
    if jobs.is_empty() {
        return match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let new = directory.join(format!("{FILE}.new"));
    let mut writer = private::options().write(true).create(true).truncate(true).open(&new)?;
    serde_json::to_writer(&mut writer, jobs)?;
    writer.flush()?;
    writer.sync_all()?;
    fs::rename(new, file)
}

/// The jobs that were open when the process ended.
pub(super) fn read(directory: &Path) -> Vec<Kept> {
    let Ok(text) = fs::read(directory.join(FILE)) else { return Vec::new() };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(%error, file = FILE, "the redrives and discards in progress cannot be read: start them again");
        Vec::new()
    })
}
