//! `/ui/`: what needs attention, and all queues and groups with their rates.

use axum::response::Response;
use maud::{Markup, html};

use crate::{
    broker::{GroupOverview, QueueOverview},
    dashboard::{
        html::{frame::Ui, live::Live},
        server::{
            figures,
            find::{group_url, queue_urls},
            request::PageRequest,
        },
    },
};

/// `GET /ui/`.
pub(super) async fn show(request: PageRequest) -> Response {
    let (ui, pages) = (request.ui(), &request.pages);
    let snapshot = pages.snapshot().await;
    pages.dashboard.schedules.look(&pages.app).await;
    let mut findings = pages.findings(&snapshot);
    let live = pages.overview_live(&snapshot, &findings, ui.t);
    if let Some(first) = pages.not_serving().await {
        findings.insert(0, first);
    }
    let body = html! {
        div.head { h1 { (ui.t.overview) } (ui.freshness(live.get("version"))) }
        (figures::findings(&ui, &findings))
        (tiles(&ui, &live))
        @if snapshot.queues.is_empty() { (empty(&ui)) } @else { (table(&ui, &snapshot.queues, &live)) }
    };
    ui.live_page(ui.t.overview, "/", "/events", &body)
}

fn tiles(ui: &Ui<'_>, live: &Live) -> Markup {
    let t = ui.t;
    html! {
        section.tiles aria-label=(t.rates) {
            @for (name, key, unit) in [(t.entering, "in", "/s"), (t.settling, "out", "/s"), (t.backlog, "ready", ""), (t.dead_letters, "dead", "")] {
                div.tile {
                    span.name { (name) }
                    span.value { (live.cell(key)) small { (unit) } }
                    (live.spark(&format!("{key}.line"), name))
                }
            }
            div.tile.small-tile {
                dl {
                    @for (name, key) in [(t.leased, "leased"), (t.delayed, "delayed"), (t.redeliveries, "redelivered")] {
                        div { dt { (name) } dd { (live.cell(key)) } }
                    }
                }
            }
        }
    }
}

fn table(ui: &Ui<'_>, queues: &[QueueOverview], live: &Live) -> Markup {
    let t = ui.t;
    let several = queues.iter().any(|queue| queue.project != queues[0].project);
    html! {
        div.table-box {
            table.wide {
                caption.hidden { (t.queues) }
                thead { tr {
                    th scope="col" { (t.queue) } th scope="col" { (t.group) } th.num scope="col" { (t.entering) }
                    th.num scope="col" { (t.ready) } th.num scope="col" { (t.leased) } th.num scope="col" { (t.delayed) }
                    th.num scope="col" { (t.dead) } th.num scope="col" { (t.oldest) } th.num scope="col" { (t.consumers) }
                    th.num scope="col" { (t.settling) } th scope="col" { (t.last_minute) } th scope="col" { (t.outlook) }
                } }
                @for (queue, url) in queue_urls(queues) {
                    tbody {
                        @if queue.groups.is_empty() {
                            tr { (queue_cell(ui, queue, &url, several, 1)) td.muted colspan="11" data-label=(t.group) { (t.no_groups) } }
                        }
                        @for (place, group) in queue.groups.iter().enumerate() {
                            tr {
                                @if place == 0 { (queue_cell(ui, queue, &url, several, queue.groups.len())) }
                                (cells(ui, queue, group, &url, place > 0, live))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn queue_cell(ui: &Ui<'_>, queue: &QueueOverview, url: &str, several: bool, rows: usize) -> Markup {
    html! {
        th.queue scope="rowgroup" rowspan=(rows) {
            a href=(ui.url(url)) { (queue.queue.name) }
            small.muted { " " (queue.queue.mode.as_str()) @if several { " · " (queue.project.as_str()) } }
        }
    }
}

fn cells(
    ui: &Ui<'_>,
    queue: &QueueOverview,
    group: &GroupOverview,
    url: &str,
    is_further: bool,
    live: &Live,
) -> Markup {
    let (t, id, page) = (ui.t, &group.group.id, group_url(url, group));
    let cell = |name: &str| live.cell(&format!("{id}.{name}"));
    let has_dead = group.group.available_dead_letters.unwrap_or(0) > 0;
    html! {
        td data-label=(t.group) {
            // On narrow screens each row is a separate card, without the cell of the queue.
            a href=(ui.url(&page)) { @if is_further { span.narrow { (queue.queue.name) " / " } } (group.group.name) }
        }
        td.num data-label=(t.entering) { span { (cell("in")) "/s" } }
        td.num.main data-label=(t.ready) { (cell("ready")) }
        td.num data-label=(t.leased) { (cell("leased")) }
        td.num data-label=(t.delayed) { (cell("delayed")) }
        td.num data-label=(t.dead) {
            @if queue.queue.dead_letters == Some(true) {
                a.bad[has_dead] href=(ui.url(&format!("{page}/dead"))) { (cell("dead")) }
            } @else { span.muted { "–" } }
        }
        td.num data-label=(t.oldest) { (cell("oldest")) }
        td.num data-label=(t.consumers) { (cell("polls")) }
        td.num data-label=(t.settling) { span { (cell("out")) "/s" } }
        td.line data-label=(t.last_minute) { (live.spark(&format!("{id}.line"), t.backlog)) }
        td data-label=(t.outlook) { (cell("trend")) }
    }
}

fn empty(ui: &Ui<'_>) -> Markup {
    html! {
        div.empty {
            p { (ui.t.no_queues) }
            p { a.button href=(ui.url("/queues")) { (ui.t.create_queue) } }
            pre { code { "dms-worker queue create orders --max-consume-count 3\ndms-worker group create orders billing" } }
        }
    }
}
