//! `/ui/publishers`: the endpoints that accept messages over HTTP, and what became of the messages.

use axum::{Extension, extract::State, response::Response};
use maud::{Markup, html};

use crate::sidecar::{
    dashboard::{pages::Pages, published_rates::address},
    running::publisher::RunningPublisher,
};
use dms_server::internal::dashboard::{Ui, Visitor, foreign, number, rate};
use dms_worker::producer::ProducerReport;

/// `GET /ui/publishers`.
pub(super) async fn list(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>) -> Response {
    let ui = Ui::new(&pages.gate, &visitor);
    let (t, publishers) = (ui.t, pages.admin.parts.publishers());
    let body = html! {
        h1 { (t.publishers) }
        p.muted { (t.publishers_help) }
        @if publishers.is_empty() { p.empty { (t.no_publishers) } }
        @for publisher in publishers.iter() { (section(&ui, &pages, publisher)) }
    };
    ui.page(t.publishers, "/publishers", &body)
}

fn section(ui: &Ui<'_>, pages: &Pages, publisher: &RunningPublisher) -> Markup {
    let (t, address, reports) = (ui.t, address(publisher), publisher.producers.reports());
    let (pending, most) = publisher.producers.pending();
    let count = |count: usize| number(u64::try_from(count).unwrap_or(u64::MAX));
    html! {
        h2 { code { (address) } }
        p {
            (t.queues) ": " @for queue in &publisher.queues { span.chip { (foreign(queue)) } " " }
            " · " (t.pending) ": " (count(pending)) " / " (count(most))
        }
        progress max=(most.max(1)) value=(pending) aria-label=(t.pending) {}
        @if reports.is_empty() { p.muted { (t.nothing_published) } } @else {
            div.table-box { table.wide {
                thead { tr {
                    th scope="col" { (t.queue) } th.num scope="col" { (t.rates) } th.num scope="col" { (t.published_sent) }
                    th.num scope="col" { (t.published_duplicates) } th.num scope="col" { (t.published_failed) } th.num scope="col" { (t.published_unsure) }
                    th.num scope="col" { (t.published_requests) }
                } }
                tbody { @for (queue, name, report) in &reports { tr {
                    @let ProducerReport { sent, duplicates, failed, unsure, requests, .. } = report;
                    th scope="row" data-label=(t.queue) { code { (foreign(name)) } }
                    td.num data-label=(t.rates) { (rate(pages.charts.published.rate(&address, queue))) "/s" }
                    @for (name, value) in [
                        (t.published_sent, sent), (t.published_duplicates, duplicates), (t.published_failed, failed),
                        (t.published_unsure, unsure), (t.published_requests, requests),
                    ] {
                        td.num data-label=(name) { (number(*value)) }
                    }
                } } }
            } }
        }
    }
}
