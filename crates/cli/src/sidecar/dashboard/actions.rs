//! Pause, resume, drain and concurrency, as forms. Each is a line of the log and a row of the activities.

use axum::{
    Extension,
    body::Body,
    extract::{RawPathParams, State},
    response::Response,
};

use crate::sidecar::dashboard::pages::{Pages, page_of};
use dms_server::internal::dashboard::{Form, Ui, Visitor, see_other};

/// The maximum size of a form, in bytes.
const MAX_FORM: usize = 16 << 10;

/// `POST /ui/workers/{worker}/pause`.
pub(super) async fn pause(
    State(pages): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    params: RawPathParams,
) -> Response {
    switch(&pages, &visitor, &params, true)
}

/// `POST /ui/workers/{worker}/resume`.
pub(super) async fn resume(
    State(pages): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    params: RawPathParams,
) -> Response {
    switch(&pages, &visitor, &params, false)
}

fn switch(pages: &Pages, visitor: &Visitor, params: &RawPathParams, paused: bool) -> Response {
    let ui = Ui::new(&pages.gate, visitor);
    let Some(watch) = pages.find(params) else { return ui.not_found() };
    watch.throttle.operator(paused);
    pages.gate.record(visitor, if paused { "pause" } else { "resume" }, &watch.name, Ok("done"));
    see_other(&ui.url(&format!("{}?notice=done", page_of(&watch))))
}

/// `POST /ui/pause`.
pub(super) async fn pause_all(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>) -> Response {
    switch_all(&pages, &visitor, true)
}

/// `POST /ui/resume`.
pub(super) async fn resume_all(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>) -> Response {
    switch_all(&pages, &visitor, false)
}

fn switch_all(pages: &Pages, visitor: &Visitor, paused: bool) -> Response {
    pages.admin.parts.workers().iter().for_each(|watch| watch.throttle.operator(paused));
    pages.gate.record(visitor, if paused { "pause" } else { "resume" }, "all workers", Ok("done"));
    see_other(&pages.gate.url("/?notice=done"))
}

/// `POST /ui/workers/{worker}/concurrency`.
pub(super) async fn concurrency(
    State(pages): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    params: RawPathParams,
    body: Body,
) -> Response {
    let ui = Ui::new(&pages.gate, &visitor);
    let Some(watch) = pages.find(&params) else { return ui.not_found() };
    let messages = match Form::read(body, MAX_FORM).await {
        Ok(form) => form.number("messages").and_then(|count| usize::try_from(count).ok()),
        Err(_) => None,
    };
    let Some(messages) = messages.filter(|count| (1..=100_000).contains(count)) else { return ui.bad_form() };
    watch.throttle.concurrency(messages);
    pages.gate.record(&visitor, "concurrency", &watch.name, Ok(&messages.to_string()));
    see_other(&ui.url(&format!("{}?notice=done", page_of(&watch))))
}

/// `POST /ui/drain`: the workers stop fetching for good. The word has to be typed, because only a restart takes it back.
pub(super) async fn drain(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>, body: Body) -> Response {
    let ui = Ui::new(&pages.gate, &visitor);
    let form = Form::read(body, MAX_FORM).await.unwrap_or_default();
    if form.filled("confirm") != Some("drain") {
        return ui.refused(ui.t.drain_help);
    }
    pages.admin.parts.drain();
    pages.gate.record(&visitor, "drain", "all workers", Ok("begun"));
    see_other(&ui.url("/?notice=done"))
}
