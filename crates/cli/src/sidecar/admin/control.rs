//! Operator actions while the process runs. `?worker=NAME` selects one worker; without it, all are selected.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::json;
use tokio::time::timeout;

use crate::sidecar::{
    admin::state::{AdminState, answer},
    running::parts::RunningWorker,
};

/// `POST /pause`: stop fetching; messages in flight finish.
pub(super) async fn pause(State(admin): State<Arc<AdminState>>, RawQuery(query): RawQuery) -> Response {
    each(&admin, query.as_deref(), |watch| watch.throttle.operator(true))
}

/// `POST /resume`: fetch again.
pub(super) async fn resume(State(admin): State<Arc<AdminState>>, RawQuery(query): RawQuery) -> Response {
    each(&admin, query.as_deref(), |watch| watch.throttle.operator(false))
}

/// `POST /concurrency?messages=64`: how many messages may be in flight.
pub(super) async fn concurrency(State(admin): State<Arc<AdminState>>, RawQuery(query): RawQuery) -> Response {
    let query = query.as_deref();
    match value(query, "messages").and_then(|text| text.parse().ok()).filter(|count| (1..=100_000).contains(count)) {
        Some(messages) => each(&admin, query, |watch| watch.throttle.concurrency(messages)),
        None => refused("write ?messages=N with a number from 1 to 100000"),
    }
}

/// `POST /log?filter=debug`: change the log filter until the next change or reload.
pub(super) async fn log(State(admin): State<Arc<AdminState>>, RawQuery(query): RawQuery) -> Response {
    let Some(filter) = value(query.as_deref(), "filter").filter(|filter| !filter.is_empty()) else {
        return refused("write ?filter= and a level like info, or directives like info,dms_worker=debug");
    };
    let Some(set) = &admin.log.0 else { return refused("this process does not let its log be changed") };
    match set(&filter) {
        Ok(()) => {
            tracing::info!(filter, "the log filter was changed");
            answer(StatusCode::OK, &json!({ "filter": filter }))
        }
        Err(error) => refused(&error),
    }
}

/// `POST /drain`: stop fetching for good and finish the messages in flight; answered when that is done or the grace period is
/// over. The process keeps running until a signal. A `preStop` hook calls this.
pub(super) async fn drain(State(admin): State<Arc<AdminState>>) -> Response {
    let workers = admin.parts.drain();
    let settled = join_all(workers.iter().map(|watch| watch.recorder.settled()));
    let drained = timeout(admin.runtime.shutdown_grace(), settled).await.is_ok();
    let status = if drained { StatusCode::OK } else { StatusCode::ACCEPTED };
    answer(status, &json!({ "drained": drained }))
}

fn each(admin: &AdminState, query: Option<&str>, change: impl Fn(&RunningWorker)) -> Response {
    let wanted = value(query, "worker");
    let (workers, mut changed) = (admin.parts.workers(), Vec::new());
    for watch in workers.iter() {
        if wanted.as_ref().is_none_or(|name| *name == watch.name) {
            change(watch);
            changed.push(&watch.name);
        }
    }
    match (changed.is_empty(), wanted) {
        (true, Some(name)) => {
            let known: Vec<_> = workers.iter().map(|watch| watch.name.as_str()).collect();
            refused(&format!("there is no worker `{name}`; there are {}", known.join(", ")))
        }
        _ => answer(StatusCode::OK, &json!({ "workers": changed })),
    }
}

fn refused(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}

/// A parameter, with its percent-encoding undone.
fn value(query: Option<&str>, name: &str) -> Option<String> {
    form_urlencoded::parse(query?.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
