//! `/readyz`: whether the server serves requests.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;

use crate::{
    admin::storage,
    state::{AppState, waiting_schedules::WaitingSchedule},
};

/// `/readyz`: 200 if requests would be served, with a line for each schedule that waits for its queue; otherwise 503 with the reason.
pub(super) async fn ready(State(app): State<Arc<AppState>>) -> (StatusCode, String) {
    if app.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    let troubles = app.broker.storage_troubles();
    if !troubles.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, troubles.iter().map(storage::line).collect());
    }
    match app.broker.ready().await {
        // The server serves all the same, so a load balancer must not take it out.
        Ok(()) => {
            let waiting = app.waiting_schedules.all();
            (StatusCode::OK, "ok\n".to_owned() + &waiting.iter().map(WaitingSchedule::line).collect::<String>())
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}
