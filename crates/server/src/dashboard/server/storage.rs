//! `/ui/storage`: the state of the store.

use axum::response::Response;
use maud::{Markup, html};

use crate::broker::Histogram;
use crate::dashboard::{
    html::{
        activity::activity_page,
        format::{bytes, foreign, number, span},
        frame::Ui,
    },
    server::{
        Pages,
        disk::DiskForecast,
        figures::{self, Finding},
        request::PageRequest,
    },
    text::fill,
};
use crate::metrics::disk_space;

/// `GET /ui/storage`.
pub(super) async fn storage(request: PageRequest) -> Response {
    let ui = request.ui();
    let (t, app) = (ui.t, &request.pages.app);
    let troubles: Vec<_> = app.broker.storage_troubles().into_iter().map(Finding::Storage).collect();
    let stats = app.broker.stats();
    let syncs = stats.syncs;
    let place = match &app.data_dir {
        Some(directory) => directory.display().to_string(),
        None => t.in_memory.to_owned(),
    };
    let (size, free) = match &app.data_dir {
        Some(directory) => (disk_space::size(Some(directory.clone())).await, disk_space::free(directory)),
        None => (0, None),
    };
    let forecast = match request.pages.dashboard.disk.forecast() {
        DiskForecast::Unknown => t.too_early.to_owned(),
        DiskForecast::Never => t.disk_never_full.to_owned(),
        DiskForecast::FullIn(left, each_hour) => fill(t.disk_full_in, &[&span(left, t), &bytes(each_hour)]),
    };
    let body = html! {
        h1 { (t.storage) }
        @if troubles.is_empty() { p.alert.good { (t.store_works) } } @else { (figures::findings(&ui, &troubles)) }
        dl.facts {
            div { dt { (t.kept_in) } dd { code { (foreign(&place)) } } }
            @if app.data_dir.is_some() {
                div { dt { (t.disk_used) } dd { (bytes(size)) } }
                @if let Some(free) = free {
                    div { dt { (t.disk_free) } dd { (bytes(free)) } }
                    div { dt { (t.outlook) } dd { (forecast) } }
                }
            }
            div { dt { (t.syncs) } dd { (number(syncs.count())) } }
            @for (name, part) in [("p50", 50), ("p99", 99)] {
                div { dt { "fsync " (name) } dd { (quantile(&syncs, part)) } }
            }
            div { dt { (t.redeliveries) } dd { (number(stats.redeliveries)) } }
            div { dt { (t.died_total) } dd { (number(stats.dead_letters)) } }
        }
        @if app.broker.cluster_counters().is_some() { p { a.button href=(ui.url("/cluster")) { (t.cluster) } } }
        h2 { (t.set_aside) }
        (damaged(&ui, &request.pages))
    };
    ui.page(t.storage, "/storage", &body)
}

/// The upper bound of the bucket in which this many hundredths of the durations end.
fn quantile(durations: &Histogram, part: u64) -> String {
    let (wanted, mut seen) = ((durations.count() * part).div_ceil(100), 0);
    for (bound, count) in durations.ranges() {
        seen += count;
        if seen >= wanted.max(1) {
            return if bound.is_finite() { format!("≤ {} ms", bound * 1_000.0) } else { "> 5 s".to_owned() };
        }
    }
    "–".to_owned()
}

fn damaged(ui: &Ui<'_>, pages: &Pages) -> Markup {
    let (t, damaged) = (ui.t, pages.app.broker.damaged());
    html! {
        @if damaged.is_empty() { p.muted { (t.nothing_damaged) } } @else {
            div.table-box { table.wide {
                thead { tr {
                    th scope="col" { (t.queue) } th scope="col" { (t.group) } th.num scope="col" { (t.place) } th scope="col" { (t.file) }
                    th scope="col" { (t.reason) }
                } }
                tbody { @for message in damaged.iter().take(200) { tr {
                    td data-label=(t.queue) { (message.queue_name) }
                    td data-label=(t.group) { (message.group_name.as_deref().unwrap_or("–")) }
                    td.num data-label=(t.place) { (number(message.sequence)) }
                    td data-label=(t.file) { code { (foreign(&message.file)) ":" (message.offset) } }
                    td.body data-label=(t.reason) { (foreign(&message.reason)) }
                } } }
            } }
            p.muted { (t.damaged_remedy) }
        }
    }
}

/// `GET /ui/activity`.
pub(super) async fn activity(request: PageRequest) -> Response {
    activity_page(&request.ui())
}
