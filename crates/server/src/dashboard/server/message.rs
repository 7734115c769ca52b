//! `/ui/messages/{id}`: one message and its copies, with what every group has done with it.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::State, response::Response};
use maud::{Markup, html};

use crate::{
    broker::{
        Attempt, AttemptEnd, BrokerError, FoundIn, FoundPlace, GroupPath, GroupStanding, MessageOrigin, Standing,
        Stream, ack_status::EDITED,
    },
    dashboard::{
        form::Form,
        html::{
            format::{bytes, foreign, number, span, time},
            frame::{Ui, notice, see_other},
            json::pretty,
        },
        server::{MAX_FORM, Pages, commands::commands, filter::Parts, queues::distinct, request::PageRequest},
        text::{Texts, fill},
    },
};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::ProjectId,
    trace_context::{TRACEPARENT, TraceContext},
};

/// `GET /ui/messages/{id}`.
pub(super) async fn show(request: PageRequest<MessageOrigin>) -> Response {
    let (ui, PageRequest { pages, form: query, .. }, id) = (request.ui(), &request, request.target);
    let (complete, places) = match pages.find(id).await {
        Ok(found) => found,
        Err(error) => return ui.failed(&error),
    };
    let t = ui.t;
    let body = html! {
        h1 { (t.message) " " code.id #message-id { (id) } " " (ui.copy("message-id")) }
        (notice(&ui, query))
        @if places.is_empty() { p.empty { (t.message_gone) } }
        @if !complete { p.alert.warn { (t.search_incomplete) } }
        @for (place, (project, found)) in places.iter().enumerate() { (section(&ui, pages, (project, found), place, id)) }
        @if places.iter().flat_map(|(_, found)| &found.groups).any(|group| group.handed_out > 0) { p.muted { (t.handed_out_help) } }
    };
    ui.page(t.message, "/queues", &body)
}

/// `GET /ui/find?id=…`: the page of a message by its id.
pub(super) async fn find(State(pages): State<Pages>, query: Form) -> Response {
    let gate = &pages.dashboard.gate;
    let id = query.filled("id").unwrap_or_default();
    see_other(
        &gate.url(&format!(
            "/messages/{}",
            percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC)
        )),
    )
}

impl Pages {
    /// The places of a message in all projects.
    async fn find(&self, id: MessageOrigin) -> Result<(bool, Vec<(ProjectId, FoundPlace)>), BrokerError> {
        // The queues of every server of a cluster: the search asks their owners.
        let overview = self.app.broker.overview_of_all().await?;
        let (mut complete, mut places) = (true, Vec::new());
        for project in distinct(overview.iter().map(|queue| &queue.project)) {
            let own = overview.iter().filter(|queue| queue.project == project);
            let queues: Vec<_> = own.map(|queue| queue.queue.id.clone()).collect();
            let found = self.app.broker.find_message(&project, &queues, id).await?;
            complete &= found.complete;
            places.extend(found.places.into_iter().map(|place| (project.clone(), place)));
        }
        Ok((complete, places))
    }
}

fn section(ui: &Ui<'_>, pages: &Pages, at: (&ProjectId, &FoundPlace), place: usize, id: MessageOrigin) -> Markup {
    let (t, (project, found)) = (ui.t, at);
    let parts = Parts::of(&found.json);
    let kind = match found.found_in {
        FoundIn::Queue => t.in_queue,
        FoundIn::Delayed => t.in_delayed,
        FoundIn::DeadLetters => t.in_dead_letters,
    };
    html! {
        section.place {
            h2 { (fill(kind, &[&found.queue_name])) small.muted { " " (t.place) " " (number(found.sequence)) " · " (project.as_str()) } }
            (timeline(ui, found))
            @for group in &found.groups { (standing(ui, found, group, id)) }
            @if let Some(parts) = parts { (content(ui, &parts, place)) }
            (commands(ui, pages, at, place, id))
        }
    }
}

/// What happened to a message, in the order of time.
fn timeline(ui: &Ui<'_>, found: &FoundPlace) -> Markup {
    let t = ui.t;
    let died = found.dead_letter.as_deref();
    let entered = match found.found_in {
        FoundIn::Queue => t.entered,
        FoundIn::Delayed => t.is_due,
        FoundIn::DeadLetters if died.is_some_and(|info| info.reason == EDITED) => t.was_edited,
        FoundIn::DeadLetters => t.became_dead,
    };
    let first = died.and_then(|info| info.first_failure_ms);
    let last = died.and_then(|info| info.last_failure_ms).filter(|last| Some(*last) != first);
    html! {
        ol.timeline {
            @if let Some(first) = first { li { (t.failed_first) " " (time(first)) } }
            @if let Some(last) = last { li { (t.failed_last) " " (time(last)) } }
            li { (entered) " " (time(found.entered_ms)) }
        }
        @if let Some(info) = died { (cause(ui, info)) }
    }
}

/// Why a message became a dead letter.
pub(super) fn cause(ui: &Ui<'_>, info: &DeadLetterInfo) -> Markup {
    let t = ui.t;
    html! {
        p.alert.warn {
            strong { (foreign(&info.reason)) } ": " (reason(&info.reason, t))
            @if let Some(error) = &info.error { br; code { (foreign(error)) } }
            br; span.muted {
                (fill(t.after_attempts, &[&info.attempts.to_string()]))
                @if let Some(worker) = &info.worker { " · " (t.worker_name) " " (foreign(worker)) }
            }
        }
    }
}

/// A reason in plain words.
pub(super) fn reason(reason: &str, t: &Texts) -> &'static str {
    match reason {
        "failed" => t.reason_failed,
        "panicked" => t.reason_panicked,
        "timed_out" => t.reason_timed_out,
        "rejected" => t.reason_rejected,
        "undecodable" => t.reason_undecodable,
        "republish_exhausted" => t.reason_republish_exhausted,
        "lease_expired" => t.reason_lease_expired,
        "batch_failed" => t.reason_batch_failed,
        EDITED => t.reason_edited,
        _ => t.reason_other,
    }
}

fn standing(ui: &Ui<'_>, found: &FoundPlace, group: &GroupStanding, id: MessageOrigin) -> Markup {
    let t = ui.t;
    let (class, text) = match group.standing {
        Standing::Available => ("ready", t.ready.to_owned()),
        Standing::Leased(left) => ("leased", fill(t.leased_for, &[&span(left, t)])),
        Standing::Settled => ("settled", t.settled.to_owned()),
        Standing::Skipped => ("settled", t.skipped.to_owned()),
        Standing::Damaged => ("bad", t.is_damaged.to_owned()),
    };
    let is_dead = found.found_in == FoundIn::DeadLetters;
    // Its edited copy was sent: sending it, too, is seldom wanted.
    let is_original = found.dead_letter.as_ref().is_some_and(|info| info.is_edited_original());
    let form = |action: &str, name: &str, class: &str| {
        html! {
            form.inline method="post" action=(ui.url(&format!("/messages/{id}/{action}"))) {
                input type="hidden" name="queue" value=(found.queue.as_str());
                input type="hidden" name="place" value=(place_of(found));
                input type="hidden" name="group" value=(group.group.as_str());
                button.(class) type="submit" { (name) }
            }
        }
    };
    html! {
        div.standing {
            a href=(ui.url(&format!("/queues/{}/{}", found.queue, group.group))) { (group.name) } " "
            span.chip.(class) { (text) }
            @if group.handed_out > 0 { " " span.muted { (fill(t.handed_out, &[&number(group.handed_out.into())])) } }
            @if group.failures > 0 { " " span.muted { (fill(t.failures_so_far, &[&group.failures.to_string()])) } }
            @if ui.visitor.acts() && group.standing == Standing::Available {
                @if is_dead {
                    @let page = format!("/queues/{}/{}/dead/{}/edit", found.queue, group.group, found.sequence);
                    " " (form("retry", t.redrive_this, if is_original { "" } else { "primary" })) " " a.button href=(ui.url(&page)) { (t.edit_this) }
                }
                " " (form("discard", t.discard_this, "bad"))
            }
        }
        (attempts(ui, group))
    }
}

/// The times of the attempts that the server knows, and why they failed.
fn attempts(ui: &Ui<'_>, group: &GroupStanding) -> Markup {
    let t = ui.t;
    let last = group.last_failure.as_deref();
    let until = match group.standing {
        Standing::Leased(left) => Some(ui.gate.now_ms().saturating_add(i64::try_from(left.as_millis()).unwrap_or(0))),
        _ => None,
    };
    let is_known = group.first_failure_ms.is_some() || last.is_some() || !group.attempts.is_empty();
    html! {
        @if is_known || until.is_some() {
            ol.timeline {
                @if let Some(first) = group.first_failure_ms { li { (t.failed_first) " " (time(first)) } }
                @if let Some(last) = last {
                    li {
                        @if let Some(at) = last.last_failure_ms { (t.failed_last) " " (time(at)) } @else { (t.last_cause) }
                        @if let Some(code) = &last.reason { ": " strong { (foreign(code)) } " (" (reason(code, t)) ")" }
                        @if let Some(error) = &last.error { " " code { (foreign(error)) } }
                        @if let Some(worker) = &last.worker { " · " (t.worker_name) " " (foreign(worker)) }
                    }
                }
                @for attempt in &group.attempts { li { (attempted(attempt, t)) } }
                @if let Some(since) = group.leased_since_ms { li { (t.leased_since) " " (time(since)) } }
                @if let Some(until) = until { li { (t.leased_until) " " (time(until)) } }
            }
        }
    }
}

/// A lease that did not settle the message: when it was, and how it ended.
fn attempted(attempt: &Attempt, t: &Texts) -> Markup {
    let end = match attempt.end {
        AttemptEnd::Failed => t.attempt_failed,
        AttemptEnd::LeaseExpired => t.attempt_expired,
        AttemptEnd::BatchFailed => t.attempt_batch_failed,
        AttemptEnd::Released => t.attempt_released,
    };
    html! {
        @if let Some(began) = attempt.began_ms { (t.leased_at) " " (time(began)) ", " }
        (end) " " (time(attempt.ended_ms))
        @if let Some(lasted) = attempt.began_ms.and_then(|began| u64::try_from(attempt.ended_ms.saturating_sub(began)).ok()) {
            " " span.muted { "(" (span(Duration::from_millis(lasted), t)) ")" }
        }
    }
}

/// The place of a copy in its queue, as forms name it.
fn place_of(found: &FoundPlace) -> String {
    let stream = match found.found_in {
        FoundIn::Queue => "messages",
        FoundIn::Delayed => "delayed",
        FoundIn::DeadLetters => "dead-letters",
    };
    format!("{stream}-{}", found.sequence)
}

fn content(ui: &Ui<'_>, parts: &Parts<'_>, place: usize) -> Markup {
    let t = ui.t;
    if !ui.visitor.sees_bodies() {
        return html! { p.muted { (t.hidden_body) } };
    }
    let raw = parts.body.get();
    let (text, complete) = pretty(raw);
    let decoded: Option<String> = serde_json::from_str(raw).ok();
    let (body, json) = (format!("body-{place}"), format!("json-{place}"));
    html! {
        h3 { (t.body) " " small.muted { (bytes(u64::try_from(raw.len()).unwrap_or(u64::MAX))) } }
        @if let Some(decoded) = &decoded {
            div.code { pre #(body) tabindex="0" { (foreign(decoded)) } (ui.copy(&body)) }
        } @else {
            div.code { pre #(body) tabindex="0" { (foreign(&text)) } (ui.copy(&body)) }
            @if !complete { p.muted { (t.cut_short) } }
        }
        @if !parts.attributes.is_empty() {
            h3 { (t.attributes) }
            dl.facts.exact { @for (name, value) in &parts.attributes { div { dt { (foreign(name)) } dd { code { (foreign(value.get())) } } } } }
        }
        @if let Some(trace) = trace(parts) { (traced(ui, &trace)) }
        @if !parts.tags.is_empty() { p { (t.labels) ": " @for label in &parts.tags { span.chip { (foreign(label)) } } } }
        details { summary { (t.as_it_was_sent) } div.code { pre #(json) tabindex="0" { (foreign(raw)) } (ui.copy(&json)) } }
    }
}

/// The trace that the message is a part of.
fn trace(parts: &Parts<'_>) -> Option<TraceContext> {
    let parent: String = serde_json::from_str(parts.attributes.get(TRACEPARENT)?.get()).ok()?;
    TraceContext::parse(&parent, None).ok()
}

fn traced(ui: &Ui<'_>, trace: &TraceContext) -> Markup {
    let id = format!("{:032x}", trace.trace_id());
    html! {
        p { (ui.t.trace) ": "
            @match ui.gate.trace(trace) {
                Some(url) => { a href=(url) rel="noreferrer" { code { (id) } } }
                None => { code { (id) } }
            }
        }
    }
}

/// `POST /ui/messages/{id}/retry`: a dead letter goes back to its group.
pub(super) async fn retry(request: PageRequest<MessageOrigin>, body: Body) -> Response {
    act(&request, body, "retry").await
}

/// `POST /ui/messages/{id}/discard`: a message is settled for a group.
pub(super) async fn discard(request: PageRequest<MessageOrigin>, body: Body) -> Response {
    act(&request, body, "discard").await
}

async fn act(request: &PageRequest<MessageOrigin>, body: Body, action: &'static str) -> Response {
    let (ui, PageRequest { pages, visitor, target: id, .. }) = (request.ui(), request);
    let gate = &pages.dashboard.gate;
    let Ok(form) = Form::read(body, MAX_FORM).await else { return ui.bad_form() };
    let [queue, group, place] = ["queue", "group", "place"].map(|name| form.first(name).unwrap_or_default());
    let done = pages.settle(*id, queue, group, place, action).await;
    let target = id.to_string();
    let notice = match done {
        Ok(count) => {
            gate.record(visitor, action, &target, Ok(&format!("{count} message(s)")));
            if action == "retry" { "retried" } else { "discarded" }
        }
        Err(error) => {
            gate.record(visitor, action, &target, Err(&error.to_string()));
            "not-available"
        }
    };
    see_other(&ui.url(&format!("/messages/{id}?notice={notice}")))
}

impl Pages {
    /// Redrives or discards a message at its place in the queue and group of the form.
    async fn settle(
        &self,
        id: MessageOrigin,
        queue: &str,
        group: &str,
        at: &str,
        action: &str,
    ) -> Result<usize, BrokerError> {
        let (_, places) = self.find(id).await?;
        let mut count = 0;
        // Several dead letters may have this id, such as an edited copy and its original. The button is for one of them.
        for (project, place) in
            places.iter().filter(|(_, place)| place.queue.as_str() == queue && place_of(place) == at)
        {
            let standings = place.groups.iter().filter(|standing| standing.group.as_str() == group);
            for standing in standings.filter(|standing| standing.standing == Standing::Available) {
                let path =
                    GroupPath { project: project.clone(), queue: place.queue.clone(), group: standing.group.clone() };
                let is_dead = place.found_in == FoundIn::DeadLetters;
                let broker = Arc::clone(&self.app.broker);
                match (action, is_dead) {
                    ("retry", true) => broker.retry_dead_letter(&path, place.sequence, id).await?,
                    ("retry", false) => continue,
                    (_, true) => broker.discard_message(&path, Stream::DeadLetters, place.sequence).await?,
                    (_, false) => broker.discard_message(&path, Stream::Messages, place.sequence).await?,
                }
                count += 1;
            }
        }
        if count == 0 {
            Err(BrokerError::NotAvailable("no such message is available there now".into()))
        } else {
            Ok(count)
        }
    }
}
