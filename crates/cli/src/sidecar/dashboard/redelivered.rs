//! Why messages of a worker were redelivered, each reason with the setting that changes it.

use maud::{Markup, html};

use crate::sidecar::{
    observe::redeliveries::{SeenMessage, TimeWindow},
    running::parts::RunningWorker,
};
use dms_server::internal::dashboard::{Form, Texts, Ui, foreign, number, time};
use dms_worker::worker::Redelivery;

/// The table of the reasons that occurred in the window of the query, or a note that none did, and the last cases.
pub(super) fn redelivered(ui: &Ui<'_>, watch: &RunningWorker, query: &Form) -> Markup {
    let (t, window) = (ui.t, query.first("window").and_then(TimeWindow::parse).unwrap_or_default());
    let (rows, cases) = {
        let seen = watch.recorder.redelivered();
        (seen.counts(window), seen.cases())
    };
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1);
    html! {
        nav.ranges #again aria-label=(t.why_again) {
            @for (other, name) in TimeWindow::ALL.into_iter().zip([t.ten_minutes, t.one_hour, t.since_start]) {
                a href=(format!("{}#again", query.with("window", other.as_str()))) aria-current=[(other == window).then_some("true")] { (name) }
            }
        }
        @if rows.is_empty() { p.muted { (t.no_redeliveries) } } @else {
            div.table-box { table.wide {
                thead { tr { th scope="col" { (t.reason) } th.num scope="col" { (t.count) } th scope="col" { (t.meaning) } th scope="col" { (t.setting) } } }
                tbody { @for (reason, count) in rows {
                    @let (meaning, setting) = explained(reason, t);
                    tr {
                        th scope="row" data-label=(t.reason) { code { (reason.name()) } }
                        td.num.main data-label=(t.count) { (number(count)) " " progress max=(most) value=(count) aria-label=(reason.name()) {} }
                        td.body data-label=(t.meaning) { (meaning) } td data-label=(t.setting) { code { (setting) } }
                    }
                } }
            } }
        }
        @if !cases.is_empty() {
            h3 { (t.last_cases) }
            div.table-box { table.wide {
                thead { tr { th scope="col" { (t.when) } th scope="col" { (t.message) } th.num scope="col" { (t.attempt) } th scope="col" { (t.reason) } } }
                tbody { @for (reason, seen) in cases { tr {
                    td data-label=(t.when) { (time(seen.at.as_millisecond())) }
                    td.body data-label=(t.message) { (message(ui, &seen)) }
                    td.num data-label=(t.attempt) { (seen.attempt) }
                    td.body data-label=(t.reason) { code { (reason.name()) } ": " (explained(reason, t).0) }
                } } }
            } }
        }
    }
}

/// A message by its place and its id, as far as the service tells them.
pub(super) fn message(ui: &Ui<'_>, seen: &SeenMessage) -> Markup {
    html! {
        @if let Some(place) = seen.place { (ui.t.place) " " (number(place)) " " }
        @if let Some(id) = &seen.id { code.id { (foreign(id)) } }
        @if seen.place.is_none() && seen.id.is_none() { "–" }
    }
}

/// A reason in plain words, and the setting that changes it.
fn explained(reason: Redelivery, t: &Texts) -> (&'static str, &'static str) {
    match reason {
        Redelivery::Failed => (t.again_failed, "on_failure"),
        Redelivery::Rejected => (t.again_rejected, "on_reject"),
        Redelivery::Panicked => (t.again_panicked, "on_failure"),
        Redelivery::TimedOut => (t.again_timed_out, "handler.http.timeout, ack_wait"),
        Redelivery::Deferred => (t.again_deferred, "on_failure"),
        Redelivery::BehindFailure => (t.again_behind_failure, "max_messages"),
        Redelivery::HandedBack => (t.again_handed_back, "shutdown.grace"),
        Redelivery::NotStarted => (t.again_not_started, "max_messages, concurrency"),
        Redelivery::LateAck => (t.again_late_ack, "ack_wait"),
        Redelivery::LostAck => (t.again_lost_ack, "–"),
        Redelivery::RejectedAck => (t.again_rejected_ack, "ack_wait"),
        Redelivery::LeaseLapsed => (t.again_lease_lapsed, "ack_wait"),
        Redelivery::Unknown => (t.again_unknown, "shutdown.grace, ack_wait"),
        _ => ("", ""),
    }
}
