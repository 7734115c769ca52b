//! `/ui/dead`: all groups with dead letters.

use axum::response::Response;
use maud::html;

use crate::dashboard::{html::format::number, server::request::PageRequest};

/// `GET /ui/dead`.
pub(super) async fn show(request: PageRequest) -> Response {
    let ui = request.ui();
    let (t, queues) = (ui.t, request.pages.queues().await);
    let groups = queues.iter().flat_map(|queue| queue.groups.iter().map(move |group| (queue, group)));
    let dead: Vec<_> = groups.filter(|(_, group)| group.group.available_dead_letters.unwrap_or(0) > 0).collect();
    let body = html! {
        h1 { (t.dead_letters) }
        p.muted { (t.dead_letters_help) }
        @if dead.is_empty() { p.alert.good { (t.no_dead_letters_anywhere) } } @else {
            div.table-box { table.wide {
                thead { tr { th scope="col" { (t.queue) } th scope="col" { (t.group) } th.num scope="col" { (t.dead) } th.num scope="col" { (t.died_total) } } }
                tbody { @for (queue, group) in dead { tr {
                    th data-label=(t.queue) scope="row" { (queue.queue.name) }
                    td data-label=(t.group) { a href=(ui.url(&format!("/queues/{}/{}/dead", queue.queue.id, group.group.id))) { (group.group.name) } }
                    td.num.main data-label=(t.dead) { (number(group.group.available_dead_letters.unwrap_or(0))) }
                    td.num data-label=(t.died_total) { (number(group.group.produced_dead_letters.unwrap_or(0))) }
                } } }
            } }
        }
    };
    ui.page(t.dead_letters, "/dead", &body)
}
