//! `/ui/search`: messages and dead letters of all queues, in bounded steps. Looking leases nothing.

use axum::response::Response;
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use crate::{
    broker::{BrokerError, GroupPath, Peeked, QueueOverview, Stream},
    dashboard::{
        html::{
            format::number,
            frame::{Ui, see_other},
        },
        server::{
            Pages,
            filter::Filter,
            messages::{ROWS, cells, columns, filter_form, readable},
            request::PageRequest,
            scan::{MAX_LOOKED, MAX_TIME, Scan, Seen},
        },
        text::fill,
    },
};

/// One stream of one group, which is searched from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: GroupPath,
    stream: Stream,
    /// The names of the queue and the group.
    label: String,
    /// The number of messages that are there.
    size: u64,
}

impl Place {
    /// Its name in links.
    fn key(&self) -> String {
        let stream = if self.stream == Stream::Messages { "messages" } else { "dead" };
        format!("{stream}-{}", self.path.group)
    }

    /// All places, in the order in which they are searched.
    fn all(queues: &[QueueOverview]) -> Vec<Self> {
        let groups = queues.iter().flat_map(|queue| queue.groups.iter().map(move |group| (queue, group)));
        let places = groups.flat_map(|(queue, group)| {
            let counts = &group.group;
            let path =
                GroupPath { project: queue.project.clone(), queue: queue.queue.id.clone(), group: counts.id.clone() };
            let label = format!("{} / {}", queue.queue.name, counts.name);
            let size = counts.available_messages + group.in_flight + queue.delayed;
            let messages = Self { path: path.clone(), stream: Stream::Messages, label: label.clone(), size };
            let size = counts.available_dead_letters.unwrap_or(0);
            let dead = Self { path, stream: Stream::DeadLetters, label, size };
            // Also where none is available, because consumers may hold some.
            let has_dead = queue.queue.dead_letters == Some(true);
            [Some(messages), has_dead.then_some(dead)].into_iter().flatten()
        });
        places.collect()
    }
}

/// A message that was found, and where.
struct Hit {
    label: String,
    stream: Stream,
    message: Peeked,
}

/// What one step found.
#[derive(Default)]
struct Step {
    hits: Vec<Hit>,
    /// The number of messages that were looked at.
    looked: usize,
    /// Where the next step begins; `None` at the end.
    next: Option<(String, u64)>,
}

/// `GET /ui/search?text=…&at=…&from=…`.
pub(super) async fn show(request: PageRequest) -> Response {
    let (ui, PageRequest { pages, visitor, form: query, .. }) = (request.ui(), &request);
    if let Some(id) = query.filled("id") {
        return see_other(&ui.url(&format!("/messages/{}", utf8_percent_encode(id, NON_ALPHANUMERIC))));
    }
    let filter = readable(visitor, Filter::of(query));
    let t = ui.t;
    let searched = if filter == Filter::default() {
        html! { p.muted { (t.search_empty) } }
    } else {
        let places = Place::all(&pages.queues().await);
        let at = query.filled("at").map(|at| (at.to_owned(), query.number("from").unwrap_or(0)));
        match pages.search(&places, &filter, at.as_ref()).await {
            Ok(step) => results(&ui, &places, &filter, &step, at.is_some()),
            Err(error) => return ui.failed(&error),
        }
    };
    let body = html! {
        h1 { (t.search) }
        p.muted { (t.search_help) }
        form.filter method="get" action=(ui.url("/search")) role="search" aria-label=(t.message_id) {
            div { label for="search-id" { (t.message_id) } input #search-id name="id" autocomplete="off" required; }
            div.buttons { button type="submit" { (t.show_message) } }
        }
        (filter_form(&ui, &ui.url("/search"), &filter, true))
        (searched)
    };
    ui.page(t.search, "/search", &body)
}

impl Pages {
    /// Searches places from `at` on, until a page of messages is found or the step is long enough.
    async fn search(&self, places: &[Place], filter: &Filter, at: Option<&(String, u64)>) -> Result<Step, BrokerError> {
        let _place = self.dashboard.peeks.acquire().await;
        let (began, mut step) = (Instant::now(), Step::default());
        // A group may have been deleted since the last step; then the search begins again.
        let first = at.and_then(|(key, _)| places.iter().position(|place| place.key() == *key));
        let mut from = first.and(at).map_or(0, |(_, from)| *from);
        for place in places.iter().skip(first.unwrap_or(0)) {
            if step.looked >= MAX_LOOKED || began.elapsed() >= MAX_TIME || step.hits.len() >= ROWS {
                step.next = Some((place.key(), from));
                return Ok(step);
            }
            let scan = Scan::step(&*self.app.broker, &place.path, place.stream, from, filter, |message| {
                step.hits.push(Hit { label: place.label.clone(), stream: place.stream, message });
                if step.hits.len() < ROWS { Seen::More } else { Seen::Enough }
            });
            let scan = match scan.await {
                Ok(scan) => scan,
                // It was deleted meanwhile.
                Err(BrokerError::QueueNotFound | BrokerError::GroupNotFound) => Scan::default(),
                Err(error) => return Err(error),
            };
            step.looked += scan.looked;
            if let Some(next) = scan.next {
                step.next = Some((place.key(), next));
                return Ok(step);
            }
            from = 0;
        }
        Ok(step)
    }
}

fn results(ui: &Ui<'_>, places: &[Place], filter: &Filter, step: &Step, goes_on: bool) -> Markup {
    let t = ui.t;
    let looked = number(u64::try_from(step.looked).unwrap_or(u64::MAX));
    let size = number(places.iter().map(|place| place.size).sum());
    html! {
        @if step.hits.is_empty() { p.empty { (t.no_messages) } } @else {
            div.table-box { table.wide.messages {
                thead { tr { th scope="col" { (t.queue) " / " (t.group) } (columns(ui, false)) } }
                tbody { @for hit in &step.hits { tr {
                    td data-label=(t.queue) { (hit.label) @if hit.stream == Stream::DeadLetters { " · " (t.dead_letters) } }
                    (cells(ui, &hit.message, hit.stream == Stream::DeadLetters))
                } } }
            } }
        }
        p.further {
            span.muted { (fill(t.searched, &[&looked, &size])) }
            @if let Some((at, from)) = &step.next {
                " " a.button.primary href=(ui.url(&format!("/search?{}&at={at}&from={from}", filter.query()))) { (t.go_on) }
            }
            @if goes_on { " " a href=(ui.url(&format!("/search?{}", filter.query()))) { (t.from_the_start) } }
        }
    }
}
