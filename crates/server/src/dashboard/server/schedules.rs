//! `/ui/schedules`: messages that the server sends at planned times. Adding, pausing, resuming and removing them.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

use crate::{
    broker::{
        BrokerError, MissedTicks, NewSchedule, QueueOverview, ScheduleOverview, ScheduleSource, ScheduledMessage,
    },
    dashboard::{
        form::Form,
        html::{
            format::{foreign, number, span, time},
            frame::{Ui, notice, see_other},
            json::pretty,
        },
        server::{
            Pages,
            request::{PageRequest, Posted},
        },
        text::fill,
    },
};

/// The size from which the delay of a tick is shown. The timer looks every second.
const LATE: Duration = Duration::from_secs(2);

/// `GET /ui/schedules?queue=…`: the schedules of all queues, or of one.
pub(super) async fn list(request: PageRequest) -> Response {
    page(&request.pages, &request.ui(), &request.form, None).await
}

/// The schedules, and the form that adds one with what was entered and why it was refused.
async fn page(pages: &Pages, ui: &Ui<'_>, entered: &Form, refused: Option<&str>) -> Response {
    let (t, queues) = (ui.t, pages.queues().await);
    let mut schedules = match pages.app.broker.schedules().await {
        Ok(schedules) => schedules,
        Err(error) => return ui.failed(&error),
    };
    let chosen = entered
        .filled("queue")
        .and_then(|wanted| queues.iter().find(|queue| queue.queue.id.as_str() == wanted || queue.queue.name == wanted));
    // A form that was refused names the queue of a new schedule, and hides no other.
    let only = chosen.filter(|_| refused.is_none());
    if let Some(queue) = only {
        schedules.retain(|schedule| schedule.queue == queue.queue.id);
    }
    let body = html! {
        h1 { (t.schedules) @if let Some(queue) = only { " · " a href=(ui.url(&format!("/queues/{}", queue.queue.id))) { (queue.queue.name) } } }
        p.muted { (t.schedules_help) }
        (notice(ui, entered))
        @if let Some(refused) = refused { p.alert.bad role="alert" { (foreign(refused)) } }
        @if only.is_some() { p { a href=(ui.url("/schedules")) { (t.schedules_of_all) } } }
        @if schedules.is_empty() { p.empty { (t.no_schedules) } } @else { (table(ui, &schedules)) }
        @if ui.visitor.acts() && !queues.is_empty() { (adding(ui, &queues, chosen, entered)) }
    };
    let answer = ui.page(t.schedules, "/schedules", &body);
    if refused.is_some() { (StatusCode::UNPROCESSABLE_ENTITY, answer).into_response() } else { answer }
}

fn table(ui: &Ui<'_>, schedules: &[ScheduleOverview]) -> Markup {
    let t = ui.t;
    let several = schedules.iter().any(|schedule| schedule.project != schedules[0].project);
    html! {
        div.table-box { table.wide {
            thead { tr {
                th scope="col" { (t.schedule) } th scope="col" { (t.queue) } th scope="col" { (t.times) } th scope="col" { (t.next_tick) }
                th scope="col" { (t.last_tick) } th scope="col" { (t.last_result) } th scope="col" { (t.state) }
                @if ui.visitor.acts() { th scope="col" { (t.action) } }
            } }
            tbody { @for schedule in schedules { tr {
                th scope="row" data-label=(t.schedule) { a href=(ui.url(&path(schedule))) { (schedule.schedule.name) } @if several { small.muted { " " (schedule.project.as_str()) } } }
                td data-label=(t.queue) { a href=(ui.url(&format!("/queues/{}", schedule.queue))) { (schedule.queue_name) } }
                td data-label=(t.times) { span { code { (foreign(&schedule.schedule.cron)) } br; small.muted { (foreign(&schedule.schedule.timezone)) } } }
                td data-label=(t.next_tick) { (next(schedule)) }
                td data-label=(t.last_tick) { (last(schedule)) }
                td data-label=(t.last_result) { (result(ui, schedule)) }
                td data-label=(t.state) { (state(ui, schedule)) }
                @if ui.visitor.acts() { td data-label=(t.action) { (pausing(ui, schedule, "list")) } }
            } } }
        } }
    }
}

/// The path of the page of a schedule. Its name is unique in its queue, and needs no encoding.
fn path(schedule: &ScheduleOverview) -> String {
    format!("/schedules/{}/{}", schedule.queue, schedule.schedule.name)
}

fn next(schedule: &ScheduleOverview) -> Markup {
    html! { @if let Some(next) = schedule.next_ms.first() { (time(*next)) } @else { span.muted { "–" } } }
}

fn last(schedule: &ScheduleOverview) -> Markup {
    html! { @if let Some(last) = schedule.last { (time(last.planned_ms)) } @else { span.muted { "–" } } }
}

/// What the last tick did, with the way to its message, and how many ticks were missed.
fn result(ui: &Ui<'_>, schedule: &ScheduleOverview) -> Markup {
    let t = ui.t;
    html! {
        span {
            @if let Some(last) = schedule.last {
                @let late = Duration::from_millis(u64::try_from(last.sent_ms.saturating_sub(last.planned_ms)).unwrap_or(0));
                a href=(ui.url(&format!("/messages/{}", last.id))) { @if late < LATE { (t.tick_sent) } @else { (fill(t.tick_sent_late, &[&span(late, t)])) } }
            } @else { span.muted { (t.no_tick_yet) } }
            @if schedule.missed > 0 { br; span.bad-text { (fill(t.ticks_missed, &[&number(schedule.missed)])) } }
        }
    }
}

fn state(ui: &Ui<'_>, schedule: &ScheduleOverview) -> Markup {
    let t = ui.t;
    let (class, text) = match (schedule.is_paused, schedule.next_ms.is_empty()) {
        (true, _) => ("delayed", t.paused),
        (false, true) => ("bad", t.never_due),
        (false, false) => ("ready", t.schedule_active),
    };
    let source = match schedule.source {
        ScheduleSource::Configuration => t.of_the_configuration,
        ScheduleSource::Command => t.added_by_command,
    };
    html! { span { span.chip.(class) { (text) } br; small.muted { (source) } } }
}

/// The button that pauses or resumes. `back` says which page follows.
fn pausing(ui: &Ui<'_>, schedule: &ScheduleOverview, back: &str) -> Markup {
    let (action, text) = if schedule.is_paused { ("resume", ui.t.resume) } else { ("pause", ui.t.pause) };
    html! {
        form.inline method="post" action=(ui.url(&format!("{}/{action}", path(schedule)))) {
            input type="hidden" name="back" value=(back);
            button type="submit" aria-label=(format!("{text} {}", schedule.schedule.name)) { (text) }
        }
    }
}

fn adding(ui: &Ui<'_>, queues: &[QueueOverview], chosen: Option<&QueueOverview>, entered: &Form) -> Markup {
    let t = ui.t;
    let value = |name| entered.first(name).unwrap_or_default();
    let is_chosen = |queue: &QueueOverview| chosen.is_some_and(|chosen| chosen.queue.id == queue.queue.id);
    html! {
        h2 { (t.add_schedule) }
        form.stack method="post" action=(ui.url("/schedules")) {
            div.row {
                div { label for="new-name" { (t.name) } input #new-name name="name" required maxlength="64" pattern="[A-Za-z0-9_-]+" autocomplete="off" value=(value("name")); }
                div { label for="new-queue" { (t.queue) } select #new-queue name="queue" required {
                    @for queue in queues { option value=(queue.queue.id) selected[is_chosen(queue)] { (queue.queue.name) } }
                } }
                div { label for="new-cron" { (t.cron) } input #new-cron name="cron" required autocomplete="off" placeholder="0 2 * * MON-FRI" value=(value("cron")); }
                div { label for="new-zone" { (t.time_zone) } input #new-zone name="timezone" autocomplete="off" placeholder="UTC" value=(value("timezone")); }
                div { label for="new-missed" { (t.missed_ticks) } select #new-missed name="missed" {
                    @for (policy, text) in [(MissedTicks::Once, t.missed_once), (MissedTicks::Skip, t.missed_skip), (MissedTicks::All, t.missed_all)] {
                        option value=(policy.as_str()) selected[value("missed") == policy.as_str()] { (text) }
                    }
                } }
            }
            label for="new-message" { (t.message) } p.hint #new-message-hint { (t.scheduled_message_hint) }
            textarea #new-message name="message" rows="4" required spellcheck="false" aria-describedby="new-message-hint" { (value("message")) }
            button.primary type="submit" { (t.create) }
        }
    }
}

/// The schedules of a queue, on its page.
pub(super) async fn section(ui: &Ui<'_>, pages: &Pages, queue: &QueueOverview) -> Markup {
    let (t, url) = (ui.t, ui.url(&format!("/schedules?queue={}", queue.queue.id)));
    let all = pages.app.broker.schedules().await.unwrap_or_default();
    let own: Vec<_> = all.iter().filter(|schedule| schedule.queue == queue.queue.id).collect();
    html! {
        h2 { (t.schedules) }
        @if own.is_empty() { p.muted { (t.no_schedules_of_queue) } } @else {
            ul.cards { @for schedule in own { li {
                a href=(ui.url(&path(schedule))) { strong { (schedule.schedule.name) } } " " code { (foreign(&schedule.schedule.cron)) } " "
                span.muted { (foreign(&schedule.schedule.timezone)) }
                @if schedule.is_paused { " " span.chip.delayed { (t.paused) } }
                @else if let Some(next) = schedule.next_ms.first() { " " span.muted { (t.next_tick) " " (time(*next)) } }
            } } }
        }
        p { a.button href=(url) { @if ui.visitor.acts() { (t.add_schedule) } @else { (t.schedules) } } }
    }
}

/// `GET /ui/schedules/{queue}/{name}`.
pub(super) async fn show(request: PageRequest<ScheduleOverview>) -> Response {
    let (ui, schedule) = (request.ui(), &request.target);
    let (t, what) = (ui.t, &schedule.schedule);
    let missed = match what.missed {
        MissedTicks::Skip => t.missed_skip,
        MissedTicks::Once => t.missed_once,
        MissedTicks::All => t.missed_all,
    };
    let rows = [
        (t.queue, html! { a href=(ui.url(&format!("/queues/{}", schedule.queue))) { (schedule.queue_name) } }),
        (t.times, html! { code { (foreign(&what.cron)) } }),
        (t.time_zone, foreign(&what.timezone)),
        (t.missed_ticks, html! { (missed) }),
        (
            t.next_ticks,
            html! { @if schedule.next_ms.is_empty() { "–" } @for (place, next) in schedule.next_ms.iter().enumerate() { @if place > 0 { br; } (time(*next)) } },
        ),
        (t.last_tick, last(schedule)),
        (t.last_result, result(&ui, schedule)),
        (t.sent_in_total, html! { (number(schedule.sent)) }),
        (t.created, time(schedule.created_ms)),
        (t.project, html! { (schedule.project.as_str()) }),
    ];
    let body = html! {
        h1 { (t.schedule) " " (what.name) }
        (notice(&ui, &request.form))
        p { (state(&ui, schedule)) }
        @if !schedule.is_paused && schedule.next_ms.is_empty() { p.alert.bad { (t.never_due_remedy) } }
        @if ui.visitor.acts() { p { (pausing(&ui, schedule, "page")) " " span.muted { (t.pause_schedule_help) } } }
        dl.facts { @for (name, value) in rows { div { dt { (name) } dd { (value) } } } }
        h2 { (t.message) }
        (message(&ui, &what.message))
        (removing(&ui, schedule))
        p { a href=(ui.url("/schedules")) { (t.schedules_of_all) } }
    };
    ui.page(&what.name, "/schedules", &body)
}

fn message(ui: &Ui<'_>, message: &ScheduledMessage) -> Markup {
    let t = ui.t;
    if !ui.visitor.sees_bodies() {
        return html! { p.muted { (t.hidden_body) } };
    }
    let (body, _) = pretty(message.body());
    html! {
        div.code { pre #scheduled-body tabindex="0" { (foreign(&body)) } (ui.copy("scheduled-body")) }
        @if message.attributes() != "{}" { h3 { (t.attributes) } div.code { pre tabindex="0" { (foreign(message.attributes())) } } }
        @if !message.tags().is_empty() { p { (t.labels) ": " @for label in message.tags() { span.chip { (foreign(label)) } " " } } }
    }
}

/// The form that removes a schedule, or the reason why it cannot be removed here.
fn removing(ui: &Ui<'_>, schedule: &ScheduleOverview) -> Markup {
    let (t, name) = (ui.t, &schedule.schedule.name);
    html! {
        @if schedule.source == ScheduleSource::Configuration { p.alert.note { (t.remove_configured) } }
        @else if ui.visitor.acts() {
            h2 { (t.dangers) }
            div.dangers {
                form.danger method="post" action=(ui.url(&format!("{}/remove", path(schedule)))) {
                    h3 { (t.remove_schedule) } p.muted { (t.remove_schedule_help) }
                    label for="confirm-remove" { (fill(t.type_name, &[name])) }
                    input #confirm-remove name="confirm" required autocomplete="off";
                    button.bad type="submit" { (t.remove_schedule) }
                }
            }
        }
    }
}

/// `POST /ui/schedules`.
pub(super) async fn add(Posted(request): Posted) -> Response {
    let (ui, PageRequest { pages, visitor, form, .. }) = (request.ui(), &request);
    let (gate, queues) = (&pages.dashboard.gate, pages.queues().await);
    let wanted = form.filled("queue").unwrap_or_default();
    let Some(queue) = queues.iter().find(|queue| queue.queue.id.as_str() == wanted || queue.queue.name == wanted)
    else {
        return ui.not_found();
    };
    let target = format!("{}/{}", queue.queue.name, form.filled("name").unwrap_or_default());
    match pages.add_schedule(queue, form).await {
        Ok(added) => {
            let what = format!("{} {}", added.schedule.cron, added.schedule.timezone);
            gate.record(visitor, "add-schedule", &target, Ok(&what));
            see_other(&ui.url(&format!("{}?notice=created", path(&added))))
        }
        Err(error) => {
            let text = error.to_string();
            gate.record(visitor, "add-schedule", &target, Err(&text));
            page(pages, &ui, form, Some(&text)).await
        }
    }
}

impl Pages {
    async fn add_schedule(&self, queue: &QueueOverview, form: &Form) -> Result<ScheduleOverview, BrokerError> {
        let field = |name| form.filled(name).unwrap_or_default();
        let missed = match field("missed") {
            "skip" => MissedTicks::Skip,
            "all" => MissedTicks::All,
            _ => MissedTicks::Once,
        };
        let message = ScheduledMessage::parse(field("message"))?;
        let mut schedule = NewSchedule::new(field("name"), field("cron"), message).missed(missed);
        if let Some(zone) = form.filled("timezone") {
            schedule = schedule.timezone(zone);
        }
        schedule.check()?;
        self.app.broker.set_schedule(&queue.project, &queue.queue.id, schedule, ScheduleSource::Command).await
    }
}

/// `POST /ui/schedules/{queue}/{name}/pause`.
pub(super) async fn pause(Posted(request): Posted<ScheduleOverview>) -> Response {
    set_paused(request, "pause-schedule", true).await
}

/// `POST /ui/schedules/{queue}/{name}/resume`.
pub(super) async fn resume(Posted(request): Posted<ScheduleOverview>) -> Response {
    set_paused(request, "resume-schedule", false).await
}

async fn set_paused(request: PageRequest<ScheduleOverview>, action: &'static str, is_paused: bool) -> Response {
    let ScheduleOverview { project, queue, schedule, .. } = &request.target;
    let set = request.pages.app.broker.pause_schedule(project, queue, &schedule.name, is_paused).await;
    let outcome =
        set.map(|_| if is_paused { "paused" } else { "resumed" }.to_owned()).map_err(|error| error.to_string());
    let page = if request.form.first("back") == Some("page") { path(&request.target) } else { "/schedules".to_owned() };
    request.ended(action, &label(&request.target), outcome, &page)
}

/// `POST /ui/schedules/{queue}/{name}/remove`.
pub(super) async fn remove(Posted(request): Posted<ScheduleOverview>) -> Response {
    let ScheduleOverview { project, queue, schedule, source, .. } = &request.target;
    // The broker refuses to remove a configured schedule, and says why: its name need not be typed for that.
    if *source == ScheduleSource::Command && !request.is_confirmed(&schedule.name) {
        return request.unconfirmed(&schedule.name);
    }
    let gone = request.pages.app.broker.remove_schedule(project, queue, &schedule.name, ScheduleSource::Command).await;
    let gone = gone.map(|()| "removed".to_owned()).map_err(|error| error.to_string());
    request.ended("remove-schedule", &label(&request.target), gone, "/schedules")
}

/// The names of the queue and the schedule, for the log.
fn label(schedule: &ScheduleOverview) -> String {
    format!("{}/{}", schedule.queue_name, schedule.schedule.name)
}
