//! `/admin/backup`: copying the data directory of a running server.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};

use crate::{
    broker::BackedUp,
    http::{codes, error::ApiError, json::Json, query::Query},
    state::AppState,
};
use dms_protocol::internal::json::quoted;

/// `POST /admin/backup?to=/new/directory`: copies the data directory of the running server. With `from=/directory` only if that
/// is its data directory.
pub(super) async fn backup(State(app): State<Arc<AppState>>, query: Query) -> Response {
    if let Err(error) = query.only(&["from", "to"]).and_then(|()| is_own(&app, query.first("from"))) {
        return error.into_response();
    }
    let to = match query.first("to").map(PathBuf::from) {
        Some(to) if to.is_absolute() => to,
        _ => {
            let text = "to is missing, or is no absolute path of a new directory.";
            return codes::URL_PARAMETER.because(text).into_response();
        }
    };
    match app.broker.back_up(&to).await {
        Ok(BackedUp { commit, files, bytes }) => {
            tracing::info!(to = %to.display(), commit, files, bytes, "the data directory was copied");
            Json(serde_json::json!({ "commit": commit, "files": files, "bytes": bytes })).into_response()
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// Refuses a directory that is not the data directory of this server.
fn is_own(app: &AppState, from: Option<&str>) -> Result<(), ApiError> {
    let (Some(from), Some(own)) = (from, &app.data_dir) else { return Ok(()) };
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if real(Path::new(from)) == real(own) {
        return Ok(());
    }
    let text = format!("This server's data directory is {}, not {}.", own.display(), quoted(from));
    Err(codes::URL_PARAMETER.because(text))
}
