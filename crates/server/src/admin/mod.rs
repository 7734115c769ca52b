//! The admin address: health, metrics, and operations on queues beyond the documented API.
//!
//! `/livez` and `/readyz` are open to all who reach it, everything else needs the token where one is configured. Without a
//! token and a certificate it is for loopback alone. Requests skip damaged messages, purge and change
//! queues, change schedules, move shards of a cluster, and copy the data directory; nothing else is changed.

mod backup;
mod cluster;
mod damaged;
mod health;
mod peek;
mod queue_changes;
mod queues;
mod response;
mod schedules;
mod scrape;
mod storage;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use http::Method;

use crate::{
    api::access_log,
    http::{bearer, codes, host_check},
    log_limit::Warnings,
    state::AppState,
};

/// The router of the admin address.
pub(crate) fn router(app: &Arc<AppState>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(scrape::metrics))
        .route("/admin/queues", get(queues::list))
        .route("/admin/damaged", get(damaged::list))
        .route("/admin/damaged/skip", post(damaged::skip))
        .route("/admin/backup", post(backup::backup))
        .route("/admin/cluster", get(cluster::status))
        .route("/admin/cluster/move", post(cluster::shift))
        .route("/admin/cluster/drain", post(cluster::drain))
        .route("/admin/storage", get(storage::show))
        .route("/admin/schedules", get(schedules::list))
        .route("/admin/schedules", post(schedules::add))
        .route("/admin/schedules/{name}/pause", post(schedules::pause))
        .route("/admin/schedules/{name}/remove", post(schedules::remove))
        .route("/admin/queues/{queue_id}/purge", post(queue_changes::purge))
        .route("/admin/queues/{queue_id}/update", post(queue_changes::update))
        .route("/admin/queues/{queue_id}/groups/{group_id}/messages", get(peek::messages))
        .layer(middleware::from_fn_with_state(Arc::clone(app), check_token))
        .layer(middleware::from_fn_with_state(Arc::new(Warnings::default()), access_log::log_admin));
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(health::ready))
        .merge(guarded)
        .fallback(async || codes::URL_NOT_FOUND.plain())
        .method_not_allowed_fallback(async || codes::METHOD.plain())
        .layer(Extension(Arc::new(scrape::registry(app))))
        .layer(middleware::from_fn_with_state(app.admin_host_check.clone(), host_check::check))
        .layer(middleware::from_fn(response::finish))
        .with_state(Arc::clone(app))
}

/// Refuses requests without the token, in the form of the other refusals; a middleware. The read token is enough to read.
async fn check_token(State(app): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    // The messages of schedules are bodies, too.
    let shows_bodies = path.ends_with("/messages") || path == "/admin/schedules";
    let is_known_reader = app.admin_read_auth.asks() && app.admin_read_auth.admit(&request).is_ok();
    match app.admin_auth.admit(&request) {
        Ok(()) => next.run(request).await,
        Err(_) if is_known_reader && is_read && (!shows_bodies || app.reader_sees_bodies) => next.run(request).await,
        Err(_) if is_known_reader => {
            codes::NO_RIGHT.because("The read token does not allow this: send the token").into_response()
        }
        Err(remedy) => (bearer::CHALLENGE, codes::TOKEN_INVALID.because(remedy)).into_response(),
    }
}
