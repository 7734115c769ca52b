//! Why messages of a worker were redelivered, each reason with the setting that changes it.

use maud::{Markup, html};

use crate::sidecar::reload::parts::RunningWorker;
use dms_server::internal::dashboard::{Texts, Ui, number};
use dms_worker::worker::Redelivery;

/// The table of the reasons that occurred, or a note that none did.
pub(super) fn redelivered(ui: &Ui<'_>, watch: &RunningWorker) -> Markup {
    let (t, rows) = (ui.t, watch.recorder.redelivered());
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1);
    html! {
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
