//! `/ui/publishers`: the endpoints that accept messages over HTTP, and what became of the messages.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use axum::{Extension, extract::State, response::Response};
use maud::{Markup, html};

use crate::sidecar::{
    dashboard::Pages,
    reload::parts::{Parts, RunningPublisher},
};
use dms_protocol::queue::QueueId;
use dms_server::internal::dashboard::{Ui, Visitor, foreign, number, rate};
use dms_worker::producer::ProducerReport;

/// The number of samples, one a second, from which a rate follows.
const MINUTE: usize = 60;

/// The messages that publishers sent in the last minute, by the address and the queue.
#[derive(Debug, Default)]
pub(super) struct PublishedRates(Mutex<BTreeMap<(String, QueueId), VecDeque<u64>>>);

impl PublishedRates {
    /// Takes a sample. It is called once a second.
    pub(super) fn sample(&self, parts: &Parts) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let publishers = parts.publishers();
        let now: BTreeMap<_, _> = publishers
            .iter()
            .flat_map(|publisher| {
                let address = address(publisher);
                publisher
                    .producers
                    .reports()
                    .into_iter()
                    .map(move |(queue, report)| ((address.clone(), queue), report.sent))
            })
            .collect();
        samples.retain(|key, _| now.contains_key(key));
        for (key, sent) in now {
            let totals = samples.entry(key).or_default();
            if totals.len() > MINUTE {
                totals.pop_front();
            }
            totals.push_back(sent);
        }
    }

    /// Messages per second in the last minute.
    fn rate(&self, address: &str, queue: &QueueId) -> f64 {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(totals) = samples.get(&(address.to_owned(), queue.clone())) else { return 0.0 };
        per_second(totals)
    }
}

/// The rate of totals that were taken once a second. A replaced publisher counts from zero.
fn per_second(totals: &VecDeque<u64>) -> f64 {
    let (Some(first), Some(last)) = (totals.front(), totals.back()) else { return 0.0 };
    let seconds = u32::try_from(totals.len().saturating_sub(1)).unwrap_or(1).max(1);
    f64::from(u32::try_from(last.saturating_sub(*first)).unwrap_or(u32::MAX)) / f64::from(seconds)
}

fn address(publisher: &RunningPublisher) -> String {
    publisher.listener.local_addr().map_or_else(|| "–".to_owned(), |address| address.to_string())
}

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
                tbody { @for (queue, report) in &reports { tr {
                    @let ProducerReport { sent, duplicates, failed, unsure, requests, .. } = report;
                    th scope="row" data-label=(t.queue) { code { (queue.as_str()) } }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_samples_that_there_are() {
        let of = |totals: &[u64]| per_second(&totals.iter().copied().collect());
        assert_eq!((of(&[]), of(&[7]), of(&[0, 10]), of(&[10, 20, 40]), of(&[9, 0])), (0.0, 0.0, 10.0, 15.0, 0.0));
    }
}
