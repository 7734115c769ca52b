//! `/ui/events`: the numbers of a page as they change, one event a second.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};
use http::{StatusCode, header};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, timeout_at},
};

use crate::dashboard::{
    access::visitor::Visitor,
    form::Form,
    html::live::Live,
    server::{Pages, history::Snapshot},
    text::Texts,
};

/// The maximum number of open streams.
pub(super) const MAX_STREAMS: usize = 32;
/// After this time a stream ends and the browser opens another one, so that the end of a session ends it too.
const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// One open stream.
struct Events {
    pages: Pages,
    t: &'static Texts,
    /// The group of the page; all groups on the overview.
    group: Option<String>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    sent: Option<Arc<Live>>,
    ends: Instant,
    _place: OwnedSemaphorePermit,
}

/// `GET /ui/events?group=…`.
pub(super) async fn stream(
    State(pages): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    query: Form,
) -> Response {
    let Ok(place) = Arc::clone(&pages.dashboard.streams).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    };
    let events = Events {
        t: visitor.language.texts(),
        group: query.filled("group").map(str::to_owned),
        snapshots: pages.dashboard.history.watch(),
        sent: None,
        ends: Instant::now() + LIFETIME,
        pages,
        _place: place,
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events.into_stream())).into_response()
}

impl Events {
    /// The events. Each is made when the connection has room for it, so a slow browser misses some and holds no memory.
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut events| async move {
            let event = events.next().await?;
            Some((Ok(Bytes::from(event)), events))
        })
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<String> {
        if self.sent.is_none() {
            self.sent = Some(Arc::default());
            return Some("retry: 2000\n\n".to_owned());
        }
        let stopping = self.pages.app.stopping.clone();
        let changed = timeout_at(self.ends, self.snapshots.changed());
        stopping.run_until_cancelled(changed).await?.ok()?.ok()?;
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let live = self.numbers(&snapshot);
        let changes = self.sent.as_ref().and_then(|sent| live.changes(sent));
        self.sent = Some(live);
        // Without changes a comment shows that the connection works.
        Some(changes.map_or_else(|| ":\n\n".to_owned(), |changes| format!("data: {changes}\n\n")))
    }

    fn numbers(&self, snapshot: &Arc<Snapshot>) -> Arc<Live> {
        let Some(wanted) = &self.group else {
            let make = || self.pages.overview_live(snapshot, &self.pages.findings(snapshot), self.t);
            return self.pages.dashboard.latest.of(snapshot, self.t, make);
        };
        let mut live = Live::default();
        for queue in &snapshot.queues {
            if let Some(group) = queue.groups.iter().find(|group| group.group.id.as_str() == wanted) {
                self.pages.group_live(queue, group, snapshot, self.t, &mut live);
            }
        }
        Arc::new(live)
    }
}

/// The numbers of the latest overview in one language. With thousands of groups they take some milliseconds to make, so all open
/// pages share them.
#[derive(Debug, Default)]
pub(super) struct LatestOverview(Mutex<Option<SharedNumbers>>);

/// Numbers with the snapshot and the language that they are of.
#[derive(Debug)]
struct SharedNumbers {
    snapshot: Arc<Snapshot>,
    t: &'static Texts,
    live: Arc<Live>,
}

impl LatestOverview {
    /// The numbers of this snapshot. Locked while they are made, so that pages that ask at the same time make them once.
    fn of(&self, snapshot: &Arc<Snapshot>, t: &'static Texts, make: impl FnOnce() -> Live) -> Arc<Live> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = &*latest
            && Arc::ptr_eq(&shared.snapshot, snapshot)
            && std::ptr::eq(shared.t, t)
        {
            return Arc::clone(&shared.live);
        }
        let live = Arc::new(make());
        *latest = Some(SharedNumbers { snapshot: Arc::clone(snapshot), t, live: Arc::clone(&live) });
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::text::Language;

    #[test]
    fn pages_that_show_the_same_share_their_numbers() {
        let (latest, snapshot, mut made) = (LatestOverview::default(), Arc::<Snapshot>::default(), 0);
        let mut of = |snapshot: &Arc<Snapshot>, language: Language| {
            drop(latest.of(snapshot, language.texts(), || {
                made += 1;
                Live::default()
            }));
            made
        };
        assert_eq!((of(&snapshot, Language::English), of(&snapshot, Language::English)), (1, 1));
        assert_eq!(of(&snapshot, Language::Chinese), 2);
        assert_eq!(of(&Arc::default(), Language::Chinese), 3);
    }
}
