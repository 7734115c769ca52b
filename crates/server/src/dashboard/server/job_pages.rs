//! `/ui/jobs`: redrives and discards, how far they are, and cancelling and undoing them.

use std::sync::Arc;

use axum::response::Response;
use maud::{Markup, html};

use crate::dashboard::{
    html::{
        format::{foreign, number, span, time},
        frame::{Ui, see_other},
    },
    server::{
        jobs::{Elsewhere, Job, Kind, Order, State as JobState},
        request::PageRequest,
    },
    text::{Texts, fill},
};

/// `GET /ui/jobs`.
pub(super) async fn list(request: PageRequest) -> Response {
    let ui = request.ui();
    let (t, jobs) = (ui.t, request.pages.dashboard.jobs.all());
    let elsewhere = request.pages.dashboard.jobs.elsewhere();
    let body = html! {
        h1 { (t.jobs) }
        p.muted { (t.jobs_help) }
        @if jobs.is_empty() && elsewhere.is_empty() { p.empty { (t.no_jobs) } } @else {
            div.table-box { table.wide {
                thead { tr {
                    th scope="col" { (t.job) } th scope="col" { (t.group) } th scope="col" { (t.state) } th.num scope="col" { (t.progress) }
                    th scope="col" { (t.began) } th scope="col" { (t.who) }
                } }
                tbody { @for job in &jobs { tr {
                    td data-label=(t.job) { a href=(ui.url(&format!("/jobs/{}", job.order.id))) { (kind(&job.order, t)) } }
                    td data-label=(t.group) { (job.order.label) }
                    td data-label=(t.state) { (state(job, t)) }
                    td.num data-label=(t.progress) { (number(job.done())) " / " (number(job.order.expected)) }
                    td data-label=(t.began) { (time(job.order.began_ms)) }
                    td data-label=(t.who) { (job.order.who) }
                } }
                @for Elsewhere { order, server } in &elsewhere { tr {
                    td data-label=(t.job) { (kind(order, t)) }
                    td data-label=(t.group) { (order.label) }
                    td data-label=(t.state) { span.chip.leased { (fill(t.job_at_server, &[server])) } }
                    td.num data-label=(t.progress) { "– / " (number(order.expected)) }
                    td data-label=(t.began) { (time(order.began_ms)) }
                    td data-label=(t.who) { (order.who) }
                } } }
            } }
            @if !elsewhere.is_empty() { p.muted { (t.jobs_elsewhere_help) } }
        }
    };
    ui.page(t.jobs, "/jobs", &body)
}

/// `GET /ui/jobs/{id}`.
pub(super) async fn show(request: PageRequest<Arc<Job>>) -> Response {
    let (ui, job) = (request.ui(), &request.target);
    let t = ui.t;
    let body = html! {
        h1 { (kind(&job.order, t)) " · " (job.order.label) }
        // The script replaces this part while the job is open, because nothing else on the page changes.
        div #job data-refresh=[job.is_open().then_some("1")] { (progress(&ui, job)) }
        p { a href=(ui.url(&job.order.page)) { (t.back_to_dead_letters) } " · " a href=(ui.url("/jobs")) { (t.jobs) } }
    };
    ui.page(kind(&job.order, t), "/jobs", &body)
}

fn progress(ui: &Ui<'_>, job: &Job) -> Markup {
    let (t, order) = (ui.t, &job.order);
    let seen = job.done() + job.skipped();
    html! {
        p.lead { (state(job, t)) " " (number(job.done())) " / " (number(order.expected)) }
        progress max=(order.expected.max(1)) value=(seen.min(order.expected)) aria-label=(t.progress) {}
        @if job.skipped() > 0 { p { (fill(t.left_with_consumers, &[&number(job.skipped())])) } }
        @if let JobState::Failed(error) = job.state() { p.alert.bad { (foreign(&error)) } }
        @if let JobState::Interrupted { has_begun } = job.state() {
            p.alert.warn { @if has_begun { (t.discard_interrupted) } @else { (t.discard_not_begun) } }
        }
        @if job.resumed { p.alert.note { (t.job_resumed) } }
        @if ui.visitor.acts() && job.is_open() {
            form.inline method="post" action=(ui.url(&format!("/jobs/{}/cancel", order.id))) {
                button.bad type="submit" { @if job.state() == JobState::Waiting { (t.undo) } @else { (t.cancel) } }
            }
            p.muted { @if order.kind == Kind::Redrive { (t.cancel_redrive_help) } @else { (t.undo_help) } }
        }
        @if job.is_open() { noscript { p { a href=(ui.url(&format!("/jobs/{}", order.id))) { (t.reload) } } } }
        dl.facts {
            div { dt { (t.filter) } dd { code { (foreign(&order.filter.shown(t.all))) } } }
            div { dt { (t.rates) } dd { @if order.rate == 0 { (t.none) } @else { (order.rate) "/s" } } }
            div { dt { (t.began) } dd { (time(order.began_ms)) } }
            div { dt { (t.who) } dd { (order.who) } }
        }
    }
}

fn kind(order: &Order, t: &'static Texts) -> &'static str {
    match order.kind {
        Kind::Redrive => t.redrive,
        Kind::Discard => t.discard,
    }
}

fn state(job: &Job, t: &Texts) -> Markup {
    let (class, text) = match job.state() {
        JobState::Waiting => ("delayed", fill(t.waits_for_undo, &[&span(job.waits(), t)])),
        JobState::Running => ("leased", t.running.to_owned()),
        JobState::Done => ("ready", t.done.to_owned()),
        JobState::Cancelled => ("settled", t.cancelled.to_owned()),
        JobState::Moved => ("settled", t.job_moved.to_owned()),
        JobState::Interrupted { .. } => ("bad", t.job_interrupted.to_owned()),
        JobState::Failed(_) => ("bad", t.failed.to_owned()),
    };
    html! { span.chip.(class) { (text) } }
}

/// `POST /ui/jobs/{id}/cancel`: stops a redrive, or undoes a discard.
pub(super) async fn cancel(request: PageRequest<Arc<Job>>) -> Response {
    let (ui, PageRequest { pages, visitor, target: job, .. }) = (request.ui(), &request);
    let action = if job.state() == JobState::Waiting { "undo" } else { "cancel" };
    job.cancel();
    let target = format!("{} job {}", job.order.label, job.order.id);
    pages.dashboard.gate.record(
        visitor,
        action,
        &target,
        Ok(&format!("after {} of {}", job.done(), job.order.expected)),
    );
    see_other(&ui.url(&format!("/jobs/{}", job.order.id)))
}
