//! Readiness, status and backlog of the workers.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::sidecar::{
    admin::state::{AdminState, answer},
    running::parts::RunningWorker,
};
use dms_worker::{client::Error, worker::Status};

/// Why a worker is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Trouble {
    /// The service refuses its credentials, for this reason.
    Refused(String),
    /// It cannot continue, for this reason.
    Failed(String),
    Stopping,
    /// The application cannot be reached, for this reason if it is known.
    AppDown(Option<String>),
    /// The service has not answered since the start.
    NoAnswerYet,
    /// The service has not answered for this time.
    NoAnswer(Duration),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "the service refuses the key or the user: {refusal}"),
            Self::Failed(failure) => f.write_str(failure),
            Self::Stopping => f.write_str("stopping"),
            Self::AppDown(None) => f.write_str("the application cannot be reached"),
            Self::AppDown(Some(outage)) => write!(f, "the application cannot be reached: {outage}"),
            Self::NoAnswerYet => f.write_str("the service has not answered yet"),
            Self::NoAnswer(age) => write!(f, "the service has not answered for {} s", age.as_secs()),
        }
    }
}

impl RunningWorker {
    fn is_app_down(&self) -> bool {
        self.app.is_some() && self.throttle.is_app_down()
    }

    /// Why the worker is not ready; `None` when it is.
    pub(in crate::sidecar) fn trouble(&self) -> Option<Trouble> {
        // It drains because a reload replaced or removed it.
        if self.retiring.load(Relaxed) {
            return None;
        }
        let status = self.throttle.worker().status();
        if let Some(refusal) = self.throttle.worker().refusal().filter(|_| !status.stopping) {
            return Some(Trouble::Refused(refusal));
        }
        if let Some(failure) = self.throttle.worker().failure().filter(|_| !status.stopping) {
            return Some(Trouble::Failed(failure));
        }
        match status.last_poll_age {
            _ if status.stopping => Some(Trouble::Stopping),
            _ if self.is_app_down() => {
                let outage = self.app.as_ref().and_then(|app| app.outage());
                Some(Trouble::AppDown(outage.map(|outage| outage.to_string())))
            }
            _ if status.paused => None,
            // It waits for messages in flight.
            Some(_) if !status.polling => None,
            None => Some(Trouble::NoAnswerYet),
            Some(age) if age > self.stale_after => Some(Trouble::NoAnswer(age)),
            Some(_) => None,
        }
    }
}

/// `/readyz`: 200 when every worker can work, else 503 and why.
pub(super) async fn ready(State(admin): State<Arc<AdminState>>) -> Response {
    let mut text = String::new();
    let mut status = StatusCode::OK;
    for worker in admin.parts.workers().iter() {
        let trouble = worker.trouble();
        if trouble.is_some() {
            status = StatusCode::SERVICE_UNAVAILABLE;
        }
        let state = trouble.map_or_else(|| "ok".to_owned(), |trouble| trouble.to_string());
        text.push_str(&format!("{}: {state}\n", worker.name));
    }
    (status, text).into_response()
}

/// `/startupz`: 200 once the service has answered every worker, and from then on. A worker whose application is down counts as
/// started, because an orchestrator may start the application only after this process. So does a worker whose queue is missing,
/// because a restart of the process would stop the other workers and not help this one.
pub(super) async fn started(State(admin): State<Arc<AdminState>>) -> Response {
    let has_begun = |watch: &RunningWorker| {
        let worker = watch.throttle.worker();
        let has_begun = worker.status().last_poll_age.is_some() || worker.failure().is_some() || watch.is_app_down();
        watch.begun.fetch_or(has_begun, Relaxed) || has_begun
    };
    let workers = admin.parts.workers();
    let waiting = workers.iter().find(|watch| !has_begun(watch));
    match waiting {
        None => "ok\n".into_response(),
        Some(worker) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}: has not begun yet\n", worker.name)).into_response()
        }
    }
}

/// `/status`: how every worker is doing.
pub(super) async fn status(State(admin): State<Arc<AdminState>>) -> Response {
    let workers: Vec<_> = admin.parts.workers().iter().map(|running| worker(running)).collect();
    answer(
        StatusCode::OK,
        &json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": admin.started.elapsed().as_secs(),
            "configuration": admin.configuration.status(),
            "limits": {
                "in_flight": admin.runtime.max_in_flight(),
                "bytes": admin.runtime.max_in_flight_bytes(),
            },
            "workers": workers,
        }),
    )
}

fn worker(watch: &RunningWorker) -> Value {
    let handle = watch.throttle.worker();
    let status: Status = handle.status();
    let counts = status.counts;
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    json!({
        "name": watch.name,
        "queue": handle.queue(),
        "group": handle.group(),
        "state": match () {
            () if watch.retiring.load(Relaxed) => "draining",
            () if handle.failure().is_some() && !status.stopping => "failed",
            () => state(&status),
        },
        "ready": watch.trouble().is_none(),
        "trouble": watch.trouble().map(|trouble| trouble.to_string()),
        "failure": handle.failure(),
        "in_flight": watch.recorder.running(),
        "concurrency": status.concurrency,
        "last_poll_seconds_ago": status.last_poll_age.map(|age| age.as_secs_f64()),
        "handled_per_second": watch.recorder.rate(),
        "p50_ms": status.durations.map(|seen| millis(seen.p50)),
        "p99_ms": status.durations.map(|seen| millis(seen.p99)),
        "received": counts.received,
        "done": counts.done,
        "failed": counts.failed,
        "rejected": counts.rejected,
        "deferred": counts.deferred,
        "panicked": counts.panicked,
        "timed_out": counts.timed_out,
        "acknowledged": counts.acknowledged,
        "redelivered": counts.redelivered,
        "released": counts.released,
        "dead_lettered": counts.dead_lettered,
        "late_acknowledgements": counts.late,
        "failed_polls": counts.failed_polls,
        "last_errors": watch.recorder.errors(),
    })
}

fn state(status: &Status) -> &'static str {
    match status {
        status if status.stopping => "stopping",
        status if status.paused => "paused",
        status if status.last_poll_age.is_none() => "starting",
        _ => "running",
    }
}

/// `/scale`: the messages that wait for each worker's group, and all together, for an autoscaler.
pub(super) async fn scale(State(admin): State<Arc<AdminState>>) -> Response {
    let running = admin.parts.workers();
    let counted = join_all(running.iter().map(|watch| backlog(&admin, watch))).await;
    let mut workers = Map::new();
    let (mut total, mut in_flight) = (0, 0);
    for (watch, counted) in running.iter().zip(counted) {
        let backlog = match counted {
            Ok(backlog) => backlog,
            Err(error) => {
                return (StatusCode::SERVICE_UNAVAILABLE, format!("{}: {error}\n", watch.name)).into_response();
            }
        };
        let held = watch.recorder.running();
        total += backlog;
        in_flight += held;
        workers.insert(watch.name.clone(), json!({ "backlog": backlog, "in_flight": held }));
    }
    let in_flight_too = total + u64::try_from(in_flight).unwrap_or(u64::MAX);
    let body = json!({ "backlog": total, "in_flight": in_flight, "total": in_flight_too, "workers": workers });
    answer(StatusCode::OK, &body)
}

async fn backlog(admin: &AdminState, watch: &RunningWorker) -> Result<u64, Error> {
    let handle = watch.throttle.worker();
    let client = admin.client.get();
    let queue = client.find_queue(handle.queue()).await?;
    let group = client.find_group(&queue.id, handle.group()).await?;
    Ok(if watch.dead_letters { group.available_dead_letters.unwrap_or(0) } else { group.available_messages })
}
