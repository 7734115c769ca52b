//! The numbers of the workers, and the stream of changed numbers.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{StatusCode, header};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::sidecar::{dashboard::pages::Pages, running::parts::RunningWorker};
use dms_server::internal::dashboard::{Live, Texts, Visitor, number, rate, span};
use dms_worker::{internal::ACK_MARGIN, worker::Status};

/// The time between two events.
const STEP: Duration = Duration::from_secs(1);
/// Places for open streams.
static STREAMS: Semaphore = Semaphore::const_new(32);
/// After this time a stream ends and the browser opens another one, so that the end of a session ends it too.
const LIFETIME: Duration = Duration::from_secs(5 * 60);

impl Pages {
    /// The numbers of all workers.
    pub(super) fn live(&self, t: &'static Texts) -> Live {
        let mut live = Live::default();
        for watch in self.admin.parts.workers().iter() {
            self.worker_live(watch, t, &mut live);
        }
        live
    }

    fn worker_live(&self, watch: &RunningWorker, t: &'static Texts, live: &mut Live) {
        let status = watch.throttle.worker().status();
        let counts = &status.counts;
        let mut set = |name: &str, text: String| live.set(format!("{}.{name}", watch.name), text);
        set("state", state(watch, &status, t).1.to_owned());
        set("in-flight", number(count(watch.recorder.running())));
        set("concurrency", number(count(status.concurrency)));
        set("rate", rate(watch.recorder.rate()));
        let millis = |duration: Duration| span(duration, t);
        set("p50", status.durations.map_or_else(|| "–".to_owned(), |seen| millis(seen.p50)));
        set("p99", status.durations.map_or_else(|| "–".to_owned(), |seen| millis(seen.p99)));
        set("lease", lease_used(watch, &status).map_or_else(|| "–".to_owned(), |used| format!("{used} %")));
        set("isolated", number(count(status.isolated.messages)));
        set("polled", status.last_poll_age.map_or_else(|| "–".to_owned(), |age| span(age, t)));
        for (name, value) in [
            ("received", counts.received),
            ("done", counts.done),
            ("failed", counts.failed),
            ("rejected", counts.rejected),
            ("deferred", counts.deferred),
            ("panicked", counts.panicked),
            ("timed_out", counts.timed_out),
            ("acknowledged", counts.acknowledged),
            ("redelivered", counts.redelivered),
            ("released", counts.released),
            ("dead_lettered", counts.dead_lettered),
            ("late", counts.late),
            ("failed_polls", counts.failed_polls),
        ] {
            set(name, number(value));
        }
    }
}

/// The part of the lease that the slowest handlers need, in percent. Near 100, messages are redelivered.
fn lease_used(watch: &RunningWorker, status: &Status) -> Option<u128> {
    let lease = watch.ack_wait.saturating_sub(ACK_MARGIN).as_millis().max(1);
    Some(status.durations?.p99.as_millis() * 100 / lease)
}

/// The style and the name of a worker's state.
pub(super) fn state(watch: &RunningWorker, status: &Status, t: &'static Texts) -> (&'static str, &'static str) {
    match status {
        status if status.stopping => ("settled", t.stopping),
        _ if watch.throttle.worker().failure().is_some() => ("bad", t.failed),
        _ if watch.trouble().is_some() => ("bad", t.not_ready),
        status if status.paused => ("delayed", t.paused),
        _ => ("ready", t.running),
    }
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// `GET /ui/events`.
pub(super) async fn events(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>) -> Response {
    let (t, ends) = (visitor.language.texts(), Instant::now() + LIFETIME);
    let Ok(place) = STREAMS.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    };
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from("retry: 2000\n\n"))]);
    let later = stream::unfold((pages, Live::default(), place), move |(pages, sent, place)| async move {
        sleep(STEP).await;
        if Instant::now() >= ends {
            return None;
        }
        let live = pages.live(t);
        let event = live.changes(&sent).map_or_else(|| ":\n\n".to_owned(), |changes| format!("data: {changes}\n\n"));
        Some((Ok(Bytes::from(event)), (pages, live, place)))
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(first, later));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}
