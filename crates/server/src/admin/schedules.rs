//! `/admin/schedules`: adding, listing, pausing and removing schedules.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{RawPathParams, State},
    response::Response,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::{
    admin::response::answer,
    broker::{MissedTicks, NewSchedule, QueueOverview, ScheduleOverview, ScheduleSource, ScheduledMessage},
    http::{codes, error::ApiError, query::Query},
    state::{
        AppState,
        waiting_schedules::{WaitingSchedule, is_of},
    },
};
use dms_protocol::{
    internal::{json::quoted, suggest::nearest},
    limits::MAX_SCHEDULED_BYTES,
};

/// The maximum size of a request, in bytes: JSON may be written with blanks and escapes.
const MAX_REQUEST: usize = 4 * MAX_SCHEDULED_BYTES;
/// The time that a request may take to arrive.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// A schedule in an answer.
#[derive(Debug, Serialize)]
struct ScheduleView {
    project: String,
    name: String,
    /// `None` while the queue is missing.
    queue_id: Option<String>,
    queue: String,
    cron: String,
    timezone: String,
    missed: &'static str,
    source: &'static str,
    paused: bool,
    /// `active`, `paused`, `late`, `ended` or `waiting`.
    state: &'static str,
    /// The problem, with the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    message: Box<RawValue>,
    created_at: Option<String>,
    next: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<LastView>,
    sent_messages: u64,
    missed_ticks: u64,
}

/// The last tick that sent its message.
#[derive(Debug, Serialize)]
struct LastView {
    planned_at: Option<String>,
    sent_at: Option<String>,
    message_id: String,
}

/// The answer to a removal.
#[derive(Debug, Serialize)]
struct RemovedView {
    project: String,
    name: String,
    queue_id: String,
    queue: String,
}

/// The body of a request that adds a schedule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddRequest<'a> {
    name: String,
    cron: String,
    queue: String,
    #[serde(borrow)]
    message: &'a RawValue,
    timezone: Option<String>,
    missed: Option<MissedTicks>,
    project: Option<String>,
}

/// `GET /admin/schedules?project=…&queue=…`: the schedules that match all parameters.
pub(super) async fn list(State(app): State<Arc<AppState>>, query: Query) -> Response {
    answer(all(&app, &query).await)
}

/// The schedules that are in force, and the schedules that wait for their queue.
async fn all(app: &AppState, query: &Query) -> Result<Vec<ScheduleView>, ApiError> {
    let in_force = matching(app, query).await?;
    let mut views = in_force.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    let (project, queue) = (query.first("project"), query.first("queue"));
    for waiting in app.waiting_schedules.all() {
        // Another server of the cluster may have set it since this one looked.
        let waits = !in_force.iter().any(|there| is_of(there, &waiting.project, &waiting.start));
        let of_project = project.is_none_or(|project| waiting.project.as_str() == project);
        if waits && of_project && queue.is_none_or(|queue| waiting.start.queue == queue) {
            views.push(waiting_view(&waiting)?);
        }
    }
    Ok(views)
}

/// `POST /admin/schedules`: adds a schedule.
pub(super) async fn add(State(app): State<Arc<AppState>>, query: Query, body: Body) -> Response {
    answer(add_one(&app, &query, body).await)
}

/// `POST /admin/schedules/{name}/pause?paused=…`: pauses a schedule, or resumes it.
pub(super) async fn pause(State(app): State<Arc<AppState>>, params: RawPathParams, query: Query) -> Response {
    answer(pause_named(&app, &params, &query).await)
}

/// `POST /admin/schedules/{name}/remove`: removes a schedule.
pub(super) async fn remove(State(app): State<Arc<AppState>>, params: RawPathParams, query: Query) -> Response {
    answer(remove_named(&app, &params, &query).await)
}

async fn add_one(app: &AppState, query: &Query, body: Body) -> Result<ScheduleView, ApiError> {
    query.only(&[])?;
    let body = timeout(MAX_WAIT, to_bytes(body, MAX_REQUEST)).await;
    let body = body.ok().and_then(Result::ok).ok_or_else(|| {
        codes::REQUEST_FORMAT.because(format!("The body is missing a part or has more than {MAX_REQUEST} bytes"))
    })?;
    let request: AddRequest<'_> =
        serde_json::from_slice(&body).map_err(|error| codes::REQUEST_FORMAT.because(format!("The body: {error}")))?;
    let wrong = |error: crate::broker::ScheduleError| codes::REQUEST_FORMAT.because(error);
    let message = ScheduledMessage::parse(request.message.get()).map_err(wrong)?;
    let mut schedule = NewSchedule::new(request.name, request.cron, message).missed(request.missed.unwrap_or_default());
    if let Some(timezone) = request.timezone {
        schedule.timezone = timezone;
    }
    schedule.check().map_err(wrong)?;
    let queue = queue(app, &request.queue, request.project.as_deref()).await?;
    let added = app.broker.set_schedule(&queue.project, &queue.queue.id, schedule, ScheduleSource::Command).await?;
    view(&added)
}

async fn pause_named(app: &AppState, params: &RawPathParams, query: &Query) -> Result<ScheduleView, ApiError> {
    query.only(&["project", "queue", "paused"])?;
    let is_paused = query.flag("paused", true)?;
    let found = named(app, params, query).await?;
    let now = app.broker.pause_schedule(&found.project, &found.queue, &found.schedule.name, is_paused).await?;
    view(&now)
}

async fn remove_named(app: &AppState, params: &RawPathParams, query: &Query) -> Result<RemovedView, ApiError> {
    query.only(&["project", "queue"])?;
    let ScheduleOverview { project, queue, queue_name, schedule, .. } = named(app, params, query).await?;
    app.broker.remove_schedule(&project, &queue, &schedule.name, ScheduleSource::Command).await?;
    let (project, queue_id) = (project.to_string(), queue.to_string());
    Ok(RemovedView { project, name: schedule.name, queue_id, queue: queue_name })
}

async fn matching(app: &AppState, query: &Query) -> Result<Vec<ScheduleOverview>, ApiError> {
    query.only(&["project", "queue"])?;
    chosen(app, query).await
}

/// The schedules of the project and the queue that a request names; of all of them by default.
async fn chosen(app: &AppState, query: &Query) -> Result<Vec<ScheduleOverview>, ApiError> {
    let (project, queue) = (query.first("project"), query.first("queue"));
    let mut found = app.broker.schedules().await?;
    found.retain(|schedule| {
        project.is_none_or(|project| schedule.project.as_str() == project)
            && queue.is_none_or(|queue| schedule.queue.as_str() == queue || schedule.queue_name == queue)
    });
    Ok(found)
}

/// The schedule that the path names. `project` and `queue` distinguish schedules with the same name.
async fn named(app: &AppState, params: &RawPathParams, query: &Query) -> Result<ScheduleOverview, ApiError> {
    let name = params.iter().find(|(key, _)| *key == "name").map_or("", |(_, value)| value);
    let mut all = chosen(app, query).await?;
    let names: Vec<&str> = all.iter().map(|schedule| schedule.schedule.name.as_str()).collect();
    match names.iter().filter(|other| **other == name).count() {
        0 => {
            let near = nearest(name, &names).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            Err(codes::URL_NOT_FOUND.saying(format!("There is no schedule {}{near}", quoted(name))))
        }
        1 => Ok(all.swap_remove(names.iter().position(|other| *other == name).unwrap_or_default())),
        _ => {
            let text = format!("{} is a schedule of several projects or queues: add project or queue.", quoted(name));
            Err(codes::URL_PARAMETER.because(text))
        }
    }
}

/// The queue of this name or id.
async fn queue(app: &AppState, wanted: &str, project: Option<&str>) -> Result<QueueOverview, ApiError> {
    let mut all = app.broker.overview_of_all().await?;
    all.retain(|queue| project.is_none_or(|project| queue.project.as_str() == project));
    let fits = |queue: &QueueOverview| queue.queue.id.as_str() == wanted || queue.queue.name == wanted;
    match all.iter().filter(|queue| fits(queue)).count() {
        0 => {
            let names: Vec<&str> = all.iter().map(|queue| queue.queue.name.as_str()).collect();
            let near = nearest(wanted, &names).map(|near| format!("; did you mean {near}?"));
            let near = near.unwrap_or_else(|| ": create it first, with `dms-worker queue create`".to_owned());
            Err(codes::QUEUE_NOT_FOUND.saying(format!("There is no queue {}{near}", quoted(wanted))))
        }
        1 => Ok(all.swap_remove(all.iter().position(fits).unwrap_or_default())),
        _ => {
            let text = format!("{} is a queue of several projects: add project, or use its id.", quoted(wanted));
            Err(codes::REQUEST_FORMAT.because(text))
        }
    }
}

/// The message object of a schedule.
fn message(what: &NewSchedule) -> Result<Box<RawValue>, ApiError> {
    let (body, attributes) = (what.message.body(), what.message.attributes());
    let tags = serde_json::to_string(what.message.tags()).unwrap_or_default();
    let message = RawValue::from_string(format!("{{\"body\":{body},\"attributes\":{attributes},\"tags\":{tags}}}"));
    message.map_err(|error| codes::INTERNAL.because(error))
}

fn waiting_view(WaitingSchedule { project, start, reason }: &WaitingSchedule) -> Result<ScheduleView, ApiError> {
    let (what, queue) = (&start.schedule, &start.queue);
    Ok(ScheduleView {
        project: project.to_string(),
        name: what.name.clone(),
        queue_id: None,
        queue: queue.clone(),
        cron: what.cron.clone(),
        timezone: what.timezone.clone(),
        missed: what.missed.as_str(),
        source: ScheduleSource::Configuration.as_str(),
        paused: false,
        state: "waiting",
        problem: Some(format!("it is not in force: {reason}; create queue {queue}, or list it in server.queues")),
        message: message(what)?,
        created_at: None,
        next: Vec::new(),
        last: None,
        sent_messages: 0,
        missed_ticks: 0,
    })
}

/// The state of a schedule and its problem, for programs.
///
/// The dashboard has other texts, in the language of the visitor and also about the last day. Both follow the same facts: the
/// broker judges what is late.
fn state(schedule: &ScheduleOverview) -> (&'static str, Option<String>) {
    if schedule.is_paused {
        return ("paused", None);
    }
    if schedule.is_late {
        let problem =
            "its next message is late, because the store cannot take it: it is tried again; /readyz has the reason";
        return ("late", Some(problem.to_owned()));
    }
    if schedule.next_ms.is_empty() {
        let problem =
            "it sends nothing any more: no time fits its cron expression, or this version does not know its time zone";
        return ("ended", Some(problem.to_owned()));
    }
    ("active", None)
}

fn view(schedule: &ScheduleOverview) -> Result<ScheduleView, ApiError> {
    let time = |ms: i64| Timestamp::from_millisecond(ms).ok().map(|time| time.to_string());
    let ScheduleOverview { schedule: what, last, .. } = schedule;
    let (state, problem) = state(schedule);
    Ok(ScheduleView {
        project: schedule.project.to_string(),
        name: what.name.clone(),
        queue_id: Some(schedule.queue.to_string()),
        queue: schedule.queue_name.clone(),
        cron: what.cron.clone(),
        timezone: what.timezone.clone(),
        missed: what.missed.as_str(),
        source: schedule.source.as_str(),
        paused: schedule.is_paused,
        state,
        problem,
        message: message(what)?,
        created_at: time(schedule.created_ms),
        next: schedule.next_ms.iter().filter_map(|ms| time(*ms)).collect(),
        last: last.map(|last| LastView {
            planned_at: time(last.planned_ms),
            sent_at: time(last.sent_ms),
            message_id: last.id.to_string(),
        }),
        sent_messages: schedule.sent,
        missed_ticks: schedule.missed,
    })
}
