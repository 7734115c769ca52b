//! `/ui/queues/{queue}/{group}/messages`: the messages of a group. Looking at them leases nothing.

use axum::response::Response;
use maud::{Markup, html};

use crate::{
    broker::{PeekState, Peeked, Stream},
    dashboard::{
        access::visitor::Visitor,
        html::{
            format::{bytes, foreign, number, span, time},
            frame::Ui,
        },
        server::{
            filter::{Filter, Parts, moment},
            find::Found,
            group::{Tab, base, heading},
            request::PageRequest,
            scan::{DELAYED, Scan, Seen},
        },
        text::{Texts, fill},
    },
};
use dms_protocol::internal::text::cut;

/// The number of rows of a page.
pub(super) const ROWS: usize = 50;
/// The length of the beginning of a body in a row, in bytes.
pub(super) const EXCERPT: usize = 160;

/// `GET /ui/queues/{queue}/{group}/messages`.
pub(super) async fn show(request: PageRequest<Found>) -> Response {
    let (ui, PageRequest { pages, visitor, target: found, form: query }) = (request.ui(), &request);
    let filter = readable(visitor, Filter::of(query));
    let from = query.number("from").unwrap_or(0);
    let mut rows = Vec::new();
    let _place = pages.dashboard.peeks.acquire().await;
    let path = found.path();
    let scan = Scan::step(&*pages.app.broker, &path, Stream::Messages, from, &filter, |message| {
        rows.push(message);
        if rows.len() < ROWS { Seen::More } else { Seen::Enough }
    });
    let scan = match scan.await {
        Ok(scan) => scan,
        Err(error) => return ui.failed(&error),
    };
    let url = ui.url(&format!("{}/messages", base(found)));
    let body = html! {
        (heading(&ui, found, Tab::Messages))
        p.muted { (ui.t.looking_leases_nothing) }
        (filter_form(&ui, &url, &filter, true))
        @if rows.is_empty() { p.empty { (ui.t.no_messages) } } @else { (table(&ui, &rows, false)) }
        (further(&ui, &url, &filter, from, &scan))
    };
    ui.page(&found.label(), "/queues", &body)
}

/// A filter without the conditions about bodies, for visitors that may not see these.
pub(super) fn readable(visitor: &Visitor, filter: Filter) -> Filter {
    if visitor.sees_bodies() {
        return filter;
    }
    Filter { attribute: String::new(), pointer: String::new(), text: String::new(), ..filter }
}

/// The form of a filter. Its fields are in the URL afterwards.
pub(super) fn filter_form(ui: &Ui<'_>, url: &str, filter: &Filter, states: bool) -> Markup {
    let t = ui.t;
    let field = |name: &str, label: &str, value: &str, hint: &str| {
        html! {
            div { label for=(format!("filter-{name}")) { (label) } input #(format!("filter-{name}")) name=(name) value=(value) placeholder=(hint) autocomplete="off"; }
        }
    };
    html! {
        @if let Some(bad) = filter.bad_time() { p.alert.bad role="alert" { (fill(t.bad_time, &[bad])) } }
        form.filter method="get" action=(url) role="search" aria-label=(t.filter) {
            @if states {
                div {
                    label for="filter-state" { (t.state) }
                    select #filter-state name="state" {
                        @for (value, name) in [("", t.all), ("available", t.ready), ("leased", t.leased), ("delayed", t.delayed)] {
                            option value=(value) selected[filter.state == value] { (name) }
                        }
                    }
                }
            } @else {
                @for (name, value) in [("reason", &filter.reason), ("error", &filter.error)] {
                    @if !value.is_empty() { input type="hidden" name=(name) value=(value); }
                }
            }
            @if ui.visitor.sees_bodies() {
                (field("text", t.text, &filter.text, ""))
                (field("pointer", t.pointer, &filter.pointer, "/customer/id=7"))
                (field("attribute", t.attribute, &filter.attribute, "key=value"))
            }
            (field("label", t.label, &filter.label, ""))
            @for (name, label, value) in [("since", t.entered_since, &filter.since), ("until", t.entered_until, &filter.until)] {
                div.when {
                    label for=(format!("filter-{name}")) { (label) span data-utc { " (UTC)" } }
                    input #(format!("filter-{name}")) name=(name) type="datetime-local" step="1" value=(civil(value));
                }
            }
            div.buttons { button type="submit" { (t.filter) } @if *filter != Filter::default() { a href=(url) { (t.clear) } } }
        }
    }
}

/// A time as a field for times takes it, in UTC.
fn civil(text: &str) -> String {
    moment(text).map_or_else(String::new, |at| at.strftime("%Y-%m-%dT%H:%M:%S").to_string())
}

/// The rows of messages.
pub(super) fn table(ui: &Ui<'_>, rows: &[Peeked], dead: bool) -> Markup {
    html! {
        div.table-box {
            table.wide.messages {
                thead { tr { (columns(ui, dead)) } }
                tbody { @for message in rows { tr { (cells(ui, message, dead)) } } }
            }
        }
    }
}

/// The names of the columns of messages.
pub(super) fn columns(ui: &Ui<'_>, dead: bool) -> Markup {
    let t = ui.t;
    html! {
        th.num scope="col" { (t.place) } th scope="col" { (t.state) } th.num scope="col" { (t.failures) } th scope="col" { (t.entered) }
        th.num scope="col" { (t.size) } th scope="col" { (t.labels) } th scope="col" { @if dead { (t.reason) } @else { (t.body) } }
    }
}

/// The cells of a message.
pub(super) fn cells(ui: &Ui<'_>, message: &Peeked, dead: bool) -> Markup {
    let t = ui.t;
    let parts = Parts::of(&message.json);
    let failures = message.dead_letter.as_ref().map_or(message.failures, |info| info.attempts);
    let size = parts.as_ref().map_or(0, |parts| parts.body.get().len());
    let body = parts.as_ref().map_or("", |parts| parts.body.get());
    html! {
            td.num data-label=(t.place) { a href=(ui.url(&format!("/messages/{}", message.id))) { (number(message.sequence % DELAYED)) } }
            td data-label=(t.state) { (state(message.state, t)) }
            td.num data-label=(t.failures) { (failures) }
            td data-label=(t.entered) { (time(message.entered_ms)) }
            td.num data-label=(t.size) { (bytes(u64::try_from(size).unwrap_or(u64::MAX))) }
            td data-label=(t.labels) { @for label in parts.iter().flat_map(|parts| &parts.tags) { span.chip { (foreign(label)) } } }
            td.body data-label=(if dead { t.reason } else { t.body }) {
                @if let Some(info) = message.dead_letter.as_ref().filter(|_| dead) {
                    strong { (foreign(&info.reason)) } @if let Some(error) = &info.error { ": " (foreign(cut(error, EXCERPT))) } br;
                }
                @if ui.visitor.sees_bodies() {
                    code { (foreign(cut(body, EXCERPT))) @if body.len() > EXCERPT { "…" } }
                } @else { span.muted { (t.hidden_body) } }
            }
    }
}

/// The state of a message, with the time that is left.
pub(super) fn state(state: PeekState, t: &Texts) -> Markup {
    let (class, text) = match state {
        PeekState::Available => ("ready", t.ready.to_owned()),
        PeekState::Leased(left) => ("leased", fill(t.leased_for, &[&span(left, t)])),
        PeekState::Delayed(left) => ("delayed", fill(t.due_in, &[&span(left, t)])),
    };
    html! { span.chip.(class) { (text) } }
}

/// The link to the next rows, or what a search has looked at so far.
pub(super) fn further(ui: &Ui<'_>, url: &str, filter: &Filter, from: u64, scan: &Scan) -> Markup {
    let looked = number(u64::try_from(scan.looked).unwrap_or(u64::MAX));
    html! {
        p.further {
            span.muted { (fill(ui.t.looked_at, &[&looked])) }
            @if let Some(next) = scan.next { " " a.button href=(format!("{url}?{}&from={next}", filter.query())) { (ui.t.go_on) } }
            @if from > 0 { " " a href=(format!("{url}?{}", filter.query())) { (ui.t.from_the_start) } }
        }
    }
}
