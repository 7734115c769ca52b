//! Messages by their ids: where one is, and what an operator does with it. An extension.

use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde::Serialize;

use crate::{
    auth::rights::Right,
    broker::{
        self, AttemptEnd, BrokerError, FoundIn, FoundMessage, FoundPlace, GroupPath, GroupStanding, MessageOrigin,
        Standing, Stream,
    },
    clock::millis,
    handlers::request::ApiRequest,
    http::{codes, error::ApiError, json::Json},
};
use dms_protocol::{
    internal::json::quoted,
    message::DeadLetterInfo,
    message_places::{Attempt, MessagePlace, MessagePlaces, PlaceKind, StateForGroup},
    queue::{GroupId, Queue},
};

/// The number of changes that are made at the same time at most.
const CONCURRENT_CHANGES: usize = 32;

/// The number of groups in which a message was retried or discarded.
#[derive(Debug, Default, Serialize)]
struct Resolved {
    #[serde(skip_serializing_if = "Option::is_none")]
    retried: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discarded: Option<usize>,
    /// Consumers hold it: nothing was done there.
    leased: usize,
    /// Its delay has not ended: nothing was done there.
    delayed: usize,
    /// `false` if there may be more of it, because not all messages were searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    /// Where the change failed, while it was made elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
    #[serde(skip)]
    changed: Changed,
}

/// The queues and groups in which a message was changed, for the access log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changed {
    /// The names of the queues, with commas.
    pub(crate) queues: String,
    /// The names of the groups, with commas.
    pub(crate) groups: String,
    /// The number of changes.
    pub(crate) count: usize,
}

/// A group for which a message could not be changed.
#[derive(Debug, Serialize)]
struct Failed {
    queue_id: String,
    group_id: String,
    group: String,
    error_code: &'static str,
    error_msg: String,
}

/// A message of a group.
struct Target<'a> {
    path: GroupPath,
    place: &'a FoundPlace,
    group: &'a GroupStanding,
}

/// `GET /messages/{message_id}?queue_id=`.
pub(crate) async fn show(request: &ApiRequest<'_>) -> Result<Json<MessagePlaces>, ApiError> {
    let (id, FoundMessage { complete, places }) = find(request).await?;
    let places = places.into_iter().filter_map(place).collect();
    Ok(Json(MessagePlaces { id: id.to_string(), complete, places }))
}

/// `POST /messages/{message_id}/retry?queue_id=&group_id=`: dead letters with this id go back to their groups.
pub(crate) async fn retry(request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    let (id, found) = find(request).await?;
    let broker = &*request.app.broker;
    let mut dead = targets(request, &found)?;
    dead.retain(|target| target.place.found_in == FoundIn::DeadLetters);
    // The copy of an edited message has the same id, and was sent already.
    let all = dead.len();
    dead.retain(|target| !target.place.dead_letter.as_ref().is_some_and(|info| info.is_edited_original()));
    let originals = all - dead.len();
    let change = |target: &Target<'_>| {
        let (path, sequence) = (target.path.clone(), target.place.sequence);
        async move { broker.retry_dead_letter(&path, sequence, id).await }
    };
    let mut resolved = resolve(&dead, change).await?;
    if resolved.changed.count + resolved.leased == 0 {
        let text = match originals {
            0 => format!("There is no dead letter with the id {id}."),
            _ => format!(
                "The dead letter with the id {id} is the original of a message that was edited and sent again: `dlq redrive --edited` and the \
                 dashboard can send the original, too."
            ),
        };
        return Err(nothing(request, &found, text));
    }
    resolved.retried = Some(resolved.changed.count);
    Ok(resolved.answer(&found))
}

/// `POST /messages/{message_id}/discard?queue_id=&group_id=`: the message is settled wherever it waits.
pub(crate) async fn discard(request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    let (id, found) = find(request).await?;
    let broker = &*request.app.broker;
    let change = |target: &Target<'_>| {
        let is_dead = target.place.found_in == FoundIn::DeadLetters;
        let stream = if is_dead { Stream::DeadLetters } else { Stream::Messages };
        let (path, sequence) = (target.path.clone(), target.place.sequence);
        async move { broker.discard_message(&path, stream, sequence).await }
    };
    let mut resolved = resolve(&targets(request, &found)?, change).await?;
    resolved.delayed = found.places.iter().filter(|place| place.found_in == FoundIn::Delayed).count();
    if resolved.changed.count + resolved.leased + resolved.delayed == 0 {
        return Err(nothing(request, &found, format!("No message with the id {id} is waiting.")));
    }
    resolved.discarded = Some(resolved.changed.count);
    Ok(resolved.answer(&found))
}

/// Changes the available ones of some messages, and counts the ones that consumers hold.
///
/// # Errors
/// When a change failed and none was made. If another one was made, the answer names the failed ones.
async fn resolve<F>(targets: &[Target<'_>], change: impl Fn(&Target<'_>) -> F) -> Result<Resolved, ApiError>
where
    F: Future<Output = Result<(), BrokerError>>,
{
    let is_leased = |target: &&Target<'_>| matches!(target.group.standing, Standing::Leased(_));
    let mut resolved = Resolved { leased: targets.iter().filter(is_leased).count(), ..Resolved::default() };
    let mut first_error = None;
    let available: Vec<_> = targets.iter().filter(|target| target.group.standing == Standing::Available).collect();
    for some in available.chunks(CONCURRENT_CHANGES) {
        // Changes that are made at the same time share a commit.
        let outcomes = join_all(some.iter().map(|target| change(target))).await;
        for (target, outcome) in some.iter().zip(outcomes) {
            match outcome {
                Ok(()) => resolved.changed.add(target),
                // A consumer has leased it since the search.
                Err(BrokerError::NotAvailable(_)) => resolved.leased += 1,
                Err(error) => {
                    let error = ApiError::from(error);
                    resolved.failed.push(Failed::new(target, &error));
                    first_error.get_or_insert(error);
                }
            }
        }
    }
    match first_error {
        Some(error) if resolved.changed.count == 0 => Err(error),
        _ => Ok(resolved),
    }
}

impl Resolved {
    fn answer(mut self, found: &FoundMessage) -> Response {
        self.complete = (!found.complete).then_some(false);
        let changed = std::mem::take(&mut self.changed);
        let mut response = Json(self).into_response();
        response.extensions_mut().insert(changed);
        response
    }
}

impl Changed {
    fn add(&mut self, target: &Target<'_>) {
        for (names, name) in [(&mut self.queues, &target.place.queue_name), (&mut self.groups, &target.group.name)] {
            if !names.split(',').any(|known| known == name) {
                names.push_str(if names.is_empty() { "" } else { "," });
                names.push_str(name);
            }
        }
        self.count += 1;
    }
}

impl Failed {
    fn new(target: &Target<'_>, error: &ApiError) -> Self {
        Self {
            queue_id: target.path.queue.to_string(),
            group_id: target.path.group.to_string(),
            group: target.group.name.clone(),
            error_code: error.code().name,
            error_msg: error.message().to_owned(),
        }
    }
}

/// The refusal of a change for which no message was found. After an incomplete search it does not say that there is none.
fn nothing(request: &ApiRequest<'_>, found: &FoundMessage, text: String) -> ApiError {
    if found.complete {
        return codes::URL_NOT_FOUND.saying(text);
    }
    let is_limited = request.query().is_ok_and(|query| query.first("queue_id").is_some());
    let how = match is_limited {
        true => "it is reached once messages before it are settled",
        false => "add queue_id to search one queue, ten times as far",
    };
    codes::URL_PARAMETER
        .because(format!("The message is not among those that were searched, and there are more: {how}."))
}

/// Finds the message in the queues that the caller may consume.
async fn find(request: &ApiRequest<'_>) -> Result<(MessageOrigin, FoundMessage), ApiError> {
    let (app, text) = (request.app, request.params[0]);
    let id = MessageOrigin::parse(text).ok_or_else(|| {
        codes::REQUEST_FORMAT.because(format!(
            "{} is no id of a message of this server: an id has 24 characters of A-Z a-z 0-9 _ -, as sends return it and consumers \
             receive it",
            quoted(text)
        ))
    })?;
    let (project, query) = (request.project_id(), request.query()?);
    let of = query.first("queue_id");
    let limits = request.caller.limits(request.project);
    let allowed = |queue: &Queue| limits.is_none_or(|limits| limits.check(Right::Consume, &queue.name).is_ok());
    let queues = app.broker.queues(&project).await?;
    let searched = queues.into_iter().filter(|queue| of.is_none_or(|of| of == queue.id.as_str()) && allowed(queue));
    let searched: Vec<_> = searched.map(|queue| queue.id).collect();
    Ok((id, app.broker.find_message(&project, &searched, id).await?))
}

/// The messages of groups, limited to the group that the request names.
fn targets<'a>(request: &ApiRequest<'_>, found: &'a FoundMessage) -> Result<Vec<Target<'a>>, ApiError> {
    let query = request.query()?;
    let of = query.first("group_id").map(GroupId::from);
    let project = request.project_id();
    let all = found.places.iter().flat_map(|place| place.groups.iter().map(move |group| (place, group)));
    let named = all.filter(|(_, group)| of.as_ref().is_none_or(|of| *of == group.group));
    let target = |(place, group): (&'a FoundPlace, &'a GroupStanding)| {
        let (queue, of) = (place.queue.clone(), group.group.clone());
        Target { path: GroupPath { project: project.clone(), queue, group: of }, place, group }
    };
    Ok(named.map(target).collect())
}

fn place(found: FoundPlace) -> Option<MessagePlace> {
    let died = found.dead_letter.as_deref();
    let group = |group: GroupStanding| {
        let (state, left) = match group.standing {
            Standing::Available => ("available", None),
            Standing::Leased(left) => ("leased", Some(left)),
            Standing::Settled => ("settled", None),
            Standing::Skipped => ("skipped", None),
            Standing::Damaged => ("damaged", None),
        };
        StateForGroup {
            failure: last_failure(&group),
            group_id: group.group.to_string(),
            group: group.name,
            state: state.to_owned(),
            failures: group.failures,
            left_ms: left.map(millis),
            leased_since: group.leased_since_ms,
            handed_out: group.handed_out,
            attempts: group.attempts.iter().map(attempt).collect(),
            dead_letter: died.cloned(),
        }
    };
    Some(MessagePlace {
        place: match found.found_in {
            FoundIn::Queue => PlaceKind::Queue,
            FoundIn::Delayed => PlaceKind::Delayed,
            FoundIn::DeadLetters => PlaceKind::DeadLetters,
        },
        queue_id: found.queue.to_string(),
        queue: found.queue_name,
        sequence: found.sequence,
        entered: found.entered_ms,
        groups: found.groups.into_iter().map(group).collect(),
        message: serde_json::from_slice(&found.json).ok()?,
    })
}

fn attempt(attempt: &broker::Attempt) -> Attempt {
    Attempt { began: attempt.began_ms, ended: attempt.ended_ms, end: attempt.end.as_str().to_owned() }
}

/// Why and when a message that is not settled failed last.
fn last_failure(group: &GroupStanding) -> Option<DeadLetterInfo> {
    let ended = group.attempts.iter().rev().find(|attempt| attempt.end != AttemptEnd::Released);
    let last = group.last_failure.as_deref();
    // A consumer reports a reason only for a failure: after a lease that expired its reason is that of an earlier failure.
    let end = ended.map(|attempt| attempt.end);
    let reported = last.filter(|_| end.is_none_or(|end| end == AttemptEnd::Failed));
    let reason = reported.and_then(|cause| cause.reason.as_deref()).or(end.map(AttemptEnd::as_str))?;
    let mut info = DeadLetterInfo::new(reason);
    info.error = last.and_then(|cause| cause.error.clone());
    info.worker = last.and_then(|cause| cause.worker.clone());
    info.attempts = group.failures;
    info.first_failure_ms = group.first_failure_ms;
    info.last_failure_ms = reported.and_then(|cause| cause.last_failure_ms).or(ended.map(|attempt| attempt.ended_ms));
    Some(info)
}
