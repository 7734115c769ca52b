//! `/ui/queues/{queue}/{group}/leases`: the messages that consumers hold now, with the time that each lease has left.

use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};

use crate::{
    broker::{BrokerError, PeekState, Peeked, Stream},
    dashboard::{
        html::{
            format::{foreign, number, time},
            frame::Ui,
            left::{countdown, ticking},
        },
        server::{
            Pages,
            filter::{Filter, Parts},
            find::Found,
            group::{Tab, heading},
            messages::EXCERPT,
            request::PageRequest,
            scan::{Scan, Seen},
        },
        text::fill,
    },
};
use dms_protocol::internal::text::cut;

/// The maximum number of rows.
const MAX_ROWS: usize = 200;

/// A message that a consumer holds, and how much longer.
type Held = (Duration, Peeked);

/// `GET /ui/queues/{queue}/{group}/leases`.
pub(super) async fn show(request: PageRequest<Found>) -> Response {
    let (ui, PageRequest { pages, target: found, .. }) = (request.ui(), &request);
    let held = match pages.held(found).await {
        Ok(held) => held,
        Err(error) => return ui.failed(&error),
    };
    let (t, count) = (ui.t, found.group.in_flight);
    let body = html! {
        (heading(&ui, found, Tab::Leases))
        p.muted { (t.leases_help) }
        @if held.is_empty() { p.empty { (t.no_leases) } } @else {
            p { (fill(t.leases_count, &[&number(count), &number(found.group.leases)])) }
            (table(&ui, &held))
            @if count > MAX_ROWS as u64 { p.muted { (fill(t.leases_first, &[&MAX_ROWS.to_string()])) } }
        }
    };
    ui.page(&found.label(), "/queues", &body)
}

impl Pages {
    /// The messages of a group that are leased, the shortest time first.
    async fn held(&self, found: &Found) -> Result<Vec<Held>, BrokerError> {
        let wanted = usize::try_from(found.group.in_flight).unwrap_or(MAX_ROWS).min(MAX_ROWS);
        let mut held = Vec::new();
        if wanted == 0 {
            return Ok(held);
        }
        let _place = self.dashboard.peeks.acquire().await;
        let (path, filter) = (found.path(), Filter::leased());
        // Leased messages come before those that were never leased, so the look ends long before the backlog does.
        let scan = Scan::step(&*self.app.broker, &path, Stream::Messages, 0, &filter, |message| {
            if let PeekState::Leased(left) = message.state {
                held.push((left, message));
            }
            if held.len() < wanted { Seen::More } else { Seen::Enough }
        });
        scan.await?;
        held.sort_by_key(|(left, message)| (*left, message.sequence));
        Ok(held)
    }
}

fn table(ui: &Ui<'_>, held: &[Held]) -> Markup {
    let t = ui.t;
    html! {
        div.table-box {
            (ticking(t, &html! {
                thead { tr {
                    th.num scope="col" { (t.place) } th.num scope="col" { (t.time_left) } th.num scope="col" { (t.failures) }
                    th scope="col" { (t.entered) } th scope="col" { (t.body) }
                } }
                tbody { @for (left, message) in held { tr {
                    td.num data-label=(t.place) { a href=(ui.url(&format!("/messages/{}", message.id))) { (number(message.sequence)) } }
                    td.num.main data-label=(t.time_left) { (countdown(*left, t)) }
                    td.num data-label=(t.failures) { (message.failures) }
                    td data-label=(t.entered) { (time(message.entered_ms)) }
                    td.body data-label=(t.body) { (excerpt(ui, message)) }
                } } }
            }))
        }
    }
}

fn excerpt(ui: &Ui<'_>, message: &Peeked) -> Markup {
    if !ui.visitor.sees_bodies() {
        return html! { span.muted { (ui.t.hidden_body) } };
    }
    let parts = Parts::of(&message.json);
    let body = parts.as_ref().map_or("", |parts| parts.body.get());
    html! { code { (foreign(cut(body, EXCERPT))) @if body.len() > EXCERPT { "…" } } }
}
