//! The charts of a worker, and their values.

use axum::{
    extract::{RawPathParams, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use maud::Markup;

use crate::sidecar::{
    dashboard::pages::{Pages, page_of},
    running::parts::RunningWorker,
};
use dms_server::internal::dashboard::{Form, Range, Ui, charts};

/// The charts of a worker.
pub(super) fn of_worker(ui: &Ui<'_>, pages: &Pages, watch: &RunningWorker, query: &Form) -> Markup {
    let t = ui.t;
    let data = format!("{}/history", page_of(watch));
    charts(
        ui,
        &data,
        query,
        Some(pages.charts.began_ms),
        &[
            (t.in_flight_now, &[("running", t.in_flight), ("limit", t.concurrency)]),
            (t.rates, &[("handled", t.handled), ("failed", t.failures)]),
            (t.handler_millis, &[("p50", "p50"), ("p99", "p99")]),
        ],
    )
}

/// `GET /ui/workers/{worker}/history?range=…`: the values of the charts.
pub(super) async fn history(State(pages): State<Pages>, params: RawPathParams, query: Form) -> Response {
    let Some(watch) = pages.find(&params) else { return StatusCode::NOT_FOUND.into_response() };
    let range = query.first("range").and_then(Range::parse).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], pages.charts.chart(&watch.name, range)).into_response()
}
