//! The messages that the handlers of a worker work on now, with their deadlines.

use maud::{Markup, html};

use crate::sidecar::{observe::in_flight::Row, running::parts::RunningWorker};
use dms_server::internal::dashboard::{Ui, countdown, fill, foreign, number, span, ticking};

/// The maximum number of rows.
const MAX_ROWS: usize = 200;

/// The table, or a note that nothing is in flight.
pub(super) fn in_flight(ui: &Ui<'_>, watch: &RunningWorker) -> Markup {
    let (t, rows) = (ui.t, watch.recorder.in_flight().rows());
    let stuck = watch.throttle.worker().status().stuck;
    html! {
        p.muted { (t.in_flight_help) }
        @if stuck > 0 { p.alert.warn { (fill(t.stuck, &[&stuck.to_string()])) } }
        @if rows.is_empty() { p.empty { (t.nothing_in_flight) } } @else { (table(ui, &rows)) }
        @if rows.len() > MAX_ROWS { p.muted { (fill(t.leases_first, &[&MAX_ROWS.to_string()])) } }
    }
}

fn table(ui: &Ui<'_>, rows: &[Row]) -> Markup {
    let t = ui.t;
    let place = |row: &Row| row.place.map_or_else(|| "–".to_owned(), number);
    html! {
        div.table-box {
            (ticking(t, &html! {
                thead { tr {
                    th.num scope="col" { (t.place) } th scope="col" { (t.message) } th.num scope="col" { (t.attempt) }
                    th.num scope="col" { (t.handled_for) } th.num scope="col" { (t.time_left) }
                } }
                tbody { @for row in rows.iter().take(MAX_ROWS) { tr {
                    td.num data-label=(t.place) { (place(row)) }
                    td.body data-label=(t.message) {
                        code.id { (foreign(row.id.as_deref().unwrap_or("–"))) }
                        @if let Some(url) = row.trace.as_ref().and_then(|trace| ui.gate.trace(trace)) { " " a href=(url) rel="noreferrer" { (t.trace) } }
                    }
                    td.num data-label=(t.attempt) { (row.attempt) }
                    td.num data-label=(t.handled_for) { (span(row.age, t)) }
                    td.num.main data-label=(t.time_left) { (countdown(row.left, t)) }
                } } }
            }))
        }
    }
}
