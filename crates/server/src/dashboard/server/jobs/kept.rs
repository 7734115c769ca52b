//! The file with the redrives that a restart continues.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use crate::dashboard::server::jobs::Order;
use dms_protocol::internal::private;

const FILE: &str = "dashboard-jobs.json";

/// Replaces the file. It is removed where nothing is to be continued.
pub(super) fn write(directory: &Path, orders: &[&Order]) -> io::Result<()> {
    let file = directory.join(FILE);
    if orders.is_empty() {
        return match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let new = directory.join(format!("{FILE}.new"));
    let mut writer = private::options().write(true).create(true).truncate(true).open(&new)?;
    serde_json::to_writer(&mut writer, orders)?;
    writer.flush()?;
    writer.sync_all()?;
    fs::rename(new, file)
}

/// The redrives that were in progress when the process ended.
pub(super) fn read(directory: &Path) -> Vec<Order> {
    let Ok(text) = fs::read(directory.join(FILE)) else { return Vec::new() };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(%error, file = FILE, "the redrives in progress cannot be read: start them again");
        Vec::new()
    })
}
