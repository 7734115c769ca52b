//! The page of activities: what was done through the dashboard.

use axum::response::Response;
use maud::html;

use crate::dashboard::html::{
    format::{foreign, time},
    frame::Ui,
};

/// The page.
pub fn activity_page(ui: &Ui<'_>) -> Response {
    let (t, rows) = (ui.t, ui.gate.activity().rows());
    let body = html! {
        h1 { (t.activity) }
        p.muted { (t.activity_help) }
        @if rows.is_empty() { p.empty { (t.no_activity) } } @else {
            div.table-box { table.wide {
                thead { tr {
                    th scope="col" { (t.when) } th scope="col" { (t.who) } th scope="col" { (t.action) } th scope="col" { (t.target) } th scope="col" { (t.outcome) }
                } }
                tbody { @for row in rows { tr {
                    td data-label=(t.when) { (time(row.at_ms)) }
                    td data-label=(t.who) { (row.who) " " small.muted { (row.peer) } }
                    td data-label=(t.action) { code { (row.action) } }
                    td.body data-label=(t.target) { (foreign(&row.target)) }
                    td.body data-label=(t.outcome) { span.bad-text[!row.done] { (foreign(&row.outcome)) } }
                } } }
            } }
        }
    };
    ui.page(t.activity, "/activity", &body)
}
