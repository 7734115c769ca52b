//! `/ui/` and `/ui/workers/{worker}`.

use axum::{
    Extension,
    extract::{RawPathParams, State},
    response::Response,
};
use maud::{Markup, html};

use crate::sidecar::{
    admin::Trouble,
    dashboard::{
        charts,
        in_flight::in_flight,
        live::state,
        pages::{Pages, page_of},
        redelivered::{message, redelivered},
    },
    running::parts::RunningWorker,
};
use dms_server::internal::dashboard::{Form, Live, Texts, Ui, Visitor, fill, foreign, notice, number, span, time};
use dms_worker::worker::Status;

/// `GET /ui/`.
pub(super) async fn list(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>, query: Form) -> Response {
    let ui = Ui::new(&pages.gate, &visitor);
    let (t, live) = (ui.t, pages.live(ui.t));
    let body = html! {
        div.head { h1 { (t.workers) } (ui.freshness("")) @if visitor.acts() { (all(&ui)) } }
        (notice(&ui, &query))
        (troubles(&ui, &pages))
        @if pages.admin.parts.workers().is_empty() { p.empty { (t.no_workers) } } @else {
            div.table-box { table.wide {
                thead { tr {
                    th scope="col" { (t.worker_name) } th scope="col" { (t.queue) " / " (t.group) } th scope="col" { (t.state) }
                    th.num scope="col" { (t.in_flight) } th.num scope="col" { (t.handled) } th.num scope="col" { (t.failures) }
                    th.num scope="col" { "p50" } th.num scope="col" { "p99" } th.num scope="col" { (t.lease_used) } th.num scope="col" { (t.last_poll) }
                } }
                tbody { @for watch in pages.admin.parts.workers().iter() { (row(&ui, watch, &live)) } }
            } }
            p.muted { (t.lease_used_help) }
        }
    };
    ui.live_page(t.workers, "/", "/events", &body)
}

fn all(ui: &Ui<'_>) -> Markup {
    let t = ui.t;
    html! {
        @for (action, name) in [("pause", t.pause_all), ("resume", t.resume_all)] {
            form.inline method="post" action=(ui.url(&format!("/{action}"))) { button { (name) } }
        }
        form.inline method="post" action=(ui.url("/drain")) {
            label.hidden for="confirm-drain" { (t.drain_help) }
            input #confirm-drain name="confirm" placeholder=(t.drain_type) required autocomplete="off" size="12";
            button.bad { (t.drain) }
        }
    }
}

/// Why workers cannot work.
fn troubles(ui: &Ui<'_>, pages: &Pages) -> Markup {
    let workers = pages.admin.parts.workers();
    let troubles = workers.iter().filter_map(|watch| Some((watch, watch.trouble()?)));
    let troubles: Vec<_> = troubles.collect();
    html! {
        @if troubles.is_empty() { p.alert.good { (ui.t.workers_are_well) } } @else {
            ul.findings { @for (watch, trouble) in troubles {
                li.alert.bad { strong { a href=(ui.url(&page_of(watch))) { (watch.name) } } " " (foreign(&told(&trouble, ui.t))) }
            } }
        }
    }
}

/// A trouble in the language of the visitor. Errors of the service and of the application stay as they were told.
fn told(trouble: &Trouble, t: &Texts) -> String {
    match trouble {
        Trouble::Refused(refusal) => format!("{}: {refusal}", t.trouble_refused),
        Trouble::Failed(failure) => failure.clone(),
        Trouble::Stopping => t.trouble_stopping.to_owned(),
        Trouble::AppDown(None) => t.trouble_app_down.to_owned(),
        Trouble::AppDown(Some(outage)) => format!("{}: {outage}", t.trouble_app_down),
        Trouble::NoAnswerYet => t.trouble_no_answer_yet.to_owned(),
        Trouble::NoAnswer(age) => fill(t.trouble_no_answer, &[&span(*age, t)]),
    }
}

fn row(ui: &Ui<'_>, watch: &RunningWorker, live: &Live) -> Markup {
    let (t, handle) = (ui.t, watch.throttle.worker());
    let cell = |name: &str| live.cell(&format!("{}.{name}", watch.name));
    let (class, _) = state(watch, &handle.status(), t);
    html! { tr {
        th scope="row" data-label=(t.worker_name) { a href=(ui.url(&page_of(watch))) { (watch.name) } }
        td data-label=(t.queue) { (handle.queue()) " / " (handle.group()) @if watch.dead_letters { " · " (t.dead_letters) } }
        td data-label=(t.state) { span.chip.(class) { (cell("state")) } }
        td.num data-label=(t.in_flight) { span { (cell("in-flight")) " / " (cell("concurrency")) } }
        td.num data-label=(t.handled) { span { (cell("rate")) "/s" } }
        td.num data-label=(t.failures) { (cell("failed")) }
        td.num data-label="p50" { (cell("p50")) }
        td.num data-label="p99" { (cell("p99")) }
        td.num data-label=(t.lease_used) { (cell("lease")) }
        td.num data-label=(t.last_poll) { (cell("polled")) }
    } }
}

/// `GET /ui/workers/{worker}`.
pub(super) async fn show(
    State(pages): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    params: RawPathParams,
    query: Form,
) -> Response {
    let ui = Ui::new(&pages.gate, &visitor);
    let Some(watch) = pages.find(&params) else { return ui.not_found() };
    let (t, live, handle) = (ui.t, pages.live(ui.t), watch.throttle.worker());
    let cell = |name: &str| live.cell(&format!("{}.{name}", watch.name));
    let tiles = [
        (t.in_flight, "in-flight", ""),
        (t.concurrency, "concurrency", ""),
        (t.handled, "rate", "/s"),
        ("p50", "p50", ""),
        ("p99", "p99", ""),
        (t.lease_used, "lease", ""),
        (t.isolated, "isolated", ""),
        (t.last_poll, "polled", ""),
    ];
    let body = html! {
        div.head { h1 { (watch.name) small.muted { " " (handle.queue()) " / " (handle.group()) } } (ui.freshness("")) }
        (notice(&ui, &query))
        @if let Some(trouble) = watch.trouble() { p.alert.bad { (foreign(&told(&trouble, t))) } }
        @for warning in handle.warnings() { p.alert.warn { (foreign(&warning)) } }
        (isolation(&ui, &handle.status()))
        section.tiles.dense aria-label=(t.now) {
            @for (name, key, unit) in tiles { div.tile { span.name { (name) } span.value { (cell(key)) small { (unit) } } } }
        }
        @if visitor.acts() { (controls(&ui, &watch, handle.status().concurrency)) }
        (charts::of_worker(&ui, &pages, &watch, &query))
        h2 { (t.in_flight_now) }
        (in_flight(&ui, &watch))
        h2 { (t.outcomes) }
        (outcomes(&ui, &cell))
        h2 { (t.why_again) }
        (redelivered(&ui, &watch, &query))
        h2 { (t.failures_by_error) }
        (failures(&ui, &watch))
        h2 { (t.last_errors) }
        (errors(&ui, &watch))
    };
    ui.live_page(&watch.name, "/", "/events", &body)
}

fn controls(ui: &Ui<'_>, watch: &RunningWorker, concurrency: usize) -> Markup {
    let (t, page) = (ui.t, page_of(watch));
    html! {
        div.actions {
            form.inline method="post" action=(ui.url(&format!("{page}/pause"))) { button { (t.pause) } }
            form.inline method="post" action=(ui.url(&format!("{page}/resume"))) { button { (t.resume) } }
            form.inline method="post" action=(ui.url(&format!("{page}/concurrency"))) {
                label for="messages" { (t.concurrency) }
                input #messages name="messages" type="number" min="1" max="100000" value=(concurrency) required;
                button { (t.set) }
            }
        }
    }
}

/// The counts since the process started, each with its meaning and the setting that changes it.
fn outcomes(ui: &Ui<'_>, cell: &dyn Fn(&str) -> Markup) -> Markup {
    let t = ui.t;
    let rows = [
        ("done", t.outcome_done, ""),
        ("failed", t.outcome_failed, "on_failure"),
        ("timed_out", t.outcome_timed_out, "handler.http.timeout"),
        ("panicked", t.outcome_panicked, ""),
        ("rejected", t.outcome_rejected, "on_reject"),
        ("deferred", t.outcome_deferred, "on_failure"),
        ("released", t.outcome_released, "shutdown.grace"),
        ("late", t.outcome_late, "ack_wait"),
        ("redelivered", t.outcome_redelivered, "ack_wait, concurrency"),
        ("dead_lettered", t.outcome_dead_lettered, "max_consume_count"),
        ("failed_polls", t.outcome_failed_polls, "dms.endpoint"),
    ];
    html! { div.table-box { table.wide {
        thead { tr { th scope="col" { (t.outcome) } th.num scope="col" { (t.count) } th scope="col" { (t.meaning) } th scope="col" { (t.setting) } } }
        tbody { @for (key, meaning, setting) in rows { tr {
            th scope="row" data-label=(t.outcome) { code { (key) } } td.num.main data-label=(t.count) { (cell(key)) }
            td.body data-label=(t.meaning) { (meaning) } td data-label=(t.setting) { code { (setting) } }
        } } }
    } } }
}

/// Says which messages are fetched one at a time, and why.
fn isolation(ui: &Ui<'_>, status: &Status) -> Markup {
    let (t, isolated) = (ui.t, status.isolated);
    let place = |place: Option<u64>| place.map_or_else(|| "–".to_owned(), number);
    let count = number(u64::try_from(isolated.messages).unwrap_or(u64::MAX));
    html! {
        @if isolated.messages > 0 {
            p.alert.note { (fill(t.isolation_note, &[&count, &place(isolated.first), &place(isolated.last)])) }
        }
    }
}

/// The failures by their errors without numbers and ids.
fn failures(ui: &Ui<'_>, watch: &RunningWorker) -> Markup {
    let (t, rows) = (ui.t, watch.recorder.failures());
    html! {
        p.muted { (t.failures_by_error_help) }
        @if rows.is_empty() { p.muted { (t.no_errors) } } @else {
            div.table-box { table.wide {
                thead { tr {
                    th.num scope="col" { (t.ten_minutes) } th.num scope="col" { (t.count) } th scope="col" { (t.reason) }
                    th scope="col" { (t.error) } th scope="col" { (t.first) } th scope="col" { (t.last) } th scope="col" { (t.message) }
                } }
                tbody { @for row in rows { tr {
                    td.num.main data-label=(t.ten_minutes) { (number(row.recent)) }
                    td.num data-label=(t.count) { (number(row.count)) }
                    td data-label=(t.reason) { code { (row.what) } }
                    td.body data-label=(t.error) {
                        (foreign(&row.error))
                        @if row.example != row.error { br; small.muted { (t.example) ": " (foreign(&row.example)) } }
                    }
                    td data-label=(t.first) { (time(row.first.as_millisecond())) }
                    td data-label=(t.last) { (time(row.last.as_millisecond())) }
                    td.body data-label=(t.message) { @if let Some(seen) = &row.message { (message(ui, seen)) } @else { "–" } }
                } } }
            } }
        }
    }
}

fn errors(ui: &Ui<'_>, watch: &RunningWorker) -> Markup {
    let (t, errors) = (ui.t, watch.recorder.errors());
    html! {
        @if errors.is_empty() { p.muted { (t.no_errors) } } @else {
            div.table-box { table.wide {
                thead { tr { th scope="col" { (t.when) } th scope="col" { (t.reason) } th scope="col" { (t.error) } } }
                tbody { @for seen in errors { tr {
                    td data-label=(t.when) { time datetime=(seen.at()) { (seen.at()) } }
                    td data-label=(t.reason) { code { (seen.what()) } }
                    td.body data-label=(t.error) { (foreign(seen.error())) }
                } } }
            } }
        }
    }
}
