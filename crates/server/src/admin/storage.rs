//! `/admin/storage`: the parts of the store that fail, since when and why. `/readyz` shows the same as text.

use std::sync::Arc;

use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;

use crate::{broker::StorageTrouble, http::json::Json, state::AppState};

/// The answer of `/admin/storage`.
#[derive(Debug, Serialize)]
pub(crate) struct StorageView {
    /// Empty if the store works.
    failing: Vec<TroubleView>,
}

#[derive(Debug, Serialize)]
struct TroubleView {
    part: &'static str,
    since: String,
    refused: u64,
    disk_full: bool,
    reason: String,
    remedy: &'static str,
}

/// `/admin/storage`.
pub(crate) async fn show(State(app): State<Arc<AppState>>) -> Json<StorageView> {
    Json(StorageView { failing: app.broker.storage_troubles().into_iter().map(view).collect() })
}

fn view(trouble: StorageTrouble) -> TroubleView {
    TroubleView {
        part: trouble.part.as_str(),
        since: time(trouble.since_ms),
        refused: trouble.refused,
        disk_full: trouble.is_disk_full,
        reason: trouble.reason,
        remedy: trouble.remedy,
    }
}

/// A line of `/readyz`.
pub(crate) fn line(trouble: &StorageTrouble) -> String {
    let StorageTrouble { part, since_ms, reason, remedy, is_disk_full, refused } = trouble;
    let (part, since) = (part.as_str(), time(*since_ms));
    let full = if *is_disk_full { ", disk full" } else { "" };
    format!("storage: {part} failing since {since} ({refused} changes refused{full}): {reason}; {remedy}\n")
}

fn time(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
