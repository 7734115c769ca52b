//! `/ui/storage`: the state of the store.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use maud::{Markup, html};

use crate::broker::Histogram;
use crate::dashboard::{
    form::Form,
    html::{
        activity::activity_page,
        format::{bytes, foreign, number, span, time},
        frame::Ui,
    },
    series::Range,
    server::{
        Pages,
        disk::{DiskForecast, Unit},
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
        @if app.data_dir.is_some() { (disk_charts(&ui, &request, size, free.unwrap_or(0))) }
        @if app.broker.cluster_counters().is_some() { p { a.button href=(ui.url("/cluster")) { (t.cluster) } } }
        h2 { (t.set_aside) }
        (damaged(&ui, &request.pages))
    };
    ui.page(t.storage, "/storage", &body)
}

/// The size of the files and the free space over time, each with its own scale.
fn disk_charts(ui: &Ui<'_>, request: &PageRequest, used: u64, free: u64) -> Markup {
    let (t, chosen) = (ui.t, range(&request.form));
    let (used, free) = (Unit::of(used).as_str(), Unit::of(free).as_str());
    let data = ui.url(&format!("/storage/history?range={}&used={used}&free={free}", chosen.as_str()));
    html! {
        div.chart-head {
            nav.ranges aria-label=(t.range) {
                @for (other, name) in [(Range::Hours, t.three_hours), (Range::Day, t.one_day)] {
                    a href=(request.form.with("range", other.as_str())) aria-current=[(other == chosen).then_some("true")] { (name) }
                }
            }
            @if let Some(began) = request.pages.dashboard.history.began_ms() { span.muted { (t.history_since) " " (time(began)) } }
        }
        @for (key, name, unit) in [("used", t.disk_used, used), ("free", t.disk_free, free)] {
            figure.chart data-chart=(format!("{key}:{name} ({unit})")) data-src=(data) data-step="60" data-time=(t.when) {
                figcaption { (name) " (" (unit) ")" }
                noscript { p.muted { (t.charts_need_script) } }
            }
        }
    }
}

/// The range of the charts: three hours, or a day.
fn range(form: &Form) -> Range {
    form.first("range").and_then(Range::parse).filter(|range| *range == Range::Day).unwrap_or(Range::Hours)
}

/// `GET /ui/storage/history?range=…&used=…&free=…`: the values of the charts, in these units.
pub(super) async fn history(State(pages): State<Pages>, query: Form) -> Response {
    let unit = |name| query.first(name).and_then(Unit::parse).unwrap_or(Unit::Megabytes);
    let now_ms = pages.app.authenticator.clock().now_ms();
    let chart = pages.dashboard.disk.chart(range(&query), unit("used"), unit("free"), now_ms);
    ([(header::CONTENT_TYPE, "application/json")], chart).into_response()
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
