//! What an operator can change while the process runs. `?worker=NAME` means one worker; without it all are meant.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;
use tokio::time::{Duration, sleep, timeout};

use super::{Admin, Watch, answer};

/// `POST /pause`: fetch nothing more; what is in flight finishes.
pub(super) async fn pause(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Response {
    each(&admin, query.as_deref(), |watch| watch.throttle.operator(true))
}

/// `POST /resume`: fetch again.
pub(super) async fn resume(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Response {
    each(&admin, query.as_deref(), |watch| watch.throttle.operator(false))
}

/// `POST /concurrency?messages=64`: how many messages may be in flight.
pub(super) async fn concurrency(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Response {
    let query = query.as_deref();
    match value(query, "messages").and_then(|text| text.parse().ok()).filter(|count| (1..=100_000).contains(count)) {
        Some(messages) => each(&admin, query, |watch| watch.throttle.concurrency(messages)),
        None => refused("write ?messages=N with a number from 1 to 100000"),
    }
}

/// `POST /drain`: stop fetching for good and finish what is in flight; answered when that is done or the grace period is
/// over. The process stays until it is told to end: this is what a `preStop` hook calls.
pub(super) async fn drain(State(admin): State<Arc<Admin>>) -> Response {
    admin.workers.iter().for_each(|watch| watch.throttle.worker().stop());
    let idle = async {
        while admin.workers.iter().any(|watch| watch.recorder.running() > 0) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let drained = timeout(admin.grace, idle).await.is_ok();
    let status = if drained { StatusCode::OK } else { StatusCode::ACCEPTED };
    answer(status, &json!({ "drained": drained }))
}

fn each(admin: &Admin, query: Option<&str>, change: impl Fn(&Watch)) -> Response {
    let wanted = value(query, "worker").map(decode);
    let mut changed = Vec::new();
    for watch in &admin.workers {
        if wanted.as_ref().is_none_or(|name| *name == watch.name) {
            change(watch);
            changed.push(&watch.name);
        }
    }
    match (changed.is_empty(), wanted) {
        (true, Some(name)) => {
            let known: Vec<_> = admin.workers.iter().map(|watch| watch.name.as_str()).collect();
            refused(&format!("there is no worker `{name}`; there are {}", known.join(", ")))
        }
        _ => answer(StatusCode::OK, &json!({ "workers": changed })),
    }
}

fn refused(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}

fn value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Names may have a `/`, which some callers encode.
fn decode(text: &str) -> String {
    text.replace("%2F", "/").replace("%2f", "/")
}
