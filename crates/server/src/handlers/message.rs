//! Messages by their ids: where one is, and what an operator does with it. An extension.

use serde::Serialize;

use crate::{
    auth::rights::Right,
    broker::{
        BrokerError, FoundIn, FoundMessage, FoundPlace, GroupPath, GroupStanding, MessageOrigin, Standing, Stream,
    },
    clock::millis,
    handlers::request::ApiRequest,
    http::{codes, error::ApiError, json::Json},
};
use dms_protocol::{
    internal::json::quoted,
    message_places::{MessagePlace, MessagePlaces, PlaceKind, StateForGroup},
    queue::{GroupId, Queue},
};

/// The number of groups in which a message was retried or discarded.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Resolved {
    #[serde(skip_serializing_if = "Option::is_none")]
    retried: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discarded: Option<usize>,
    /// Consumers hold it: nothing was done there.
    leased: usize,
    /// Its delay has not ended: nothing was done there.
    delayed: usize,
}

/// `GET /messages/{message_id}?queue_id=`.
pub(crate) async fn show(request: &ApiRequest<'_>) -> Result<Json<MessagePlaces>, ApiError> {
    let (id, FoundMessage { complete, places }) = find(request).await?;
    let places = places.into_iter().filter_map(place).collect();
    Ok(Json(MessagePlaces { id: id.to_string(), complete, places }))
}

/// `POST /messages/{message_id}/retry?queue_id=&group_id=`: dead letters with this id go back to their groups.
pub(crate) async fn retry(request: &ApiRequest<'_>) -> Result<Json<Resolved>, ApiError> {
    let (id, found) = find(request).await?;
    let (app, mut resolved, mut retried) = (request.app, Resolved::default(), 0);
    for (path, place, group) in targets(request, &found)? {
        match (place.found_in, group.standing) {
            (FoundIn::DeadLetters, Standing::Available) => {
                match app.broker.retry_dead_letter(&path, place.sequence, id).await {
                    Ok(()) => retried += 1,
                    // A consumer has leased it since the search.
                    Err(BrokerError::NotAvailable(_)) => resolved.leased += 1,
                    Err(error) => return Err(error.into()),
                }
            }
            (FoundIn::DeadLetters, Standing::Leased(_)) => resolved.leased += 1,
            _ => {}
        }
    }
    if retried + resolved.leased == 0 {
        return Err(codes::URL_NOT_FOUND.saying(format!("There is no dead letter with the id {id}.")));
    }
    Ok(Json(Resolved { retried: Some(retried), ..resolved }))
}

/// `POST /messages/{message_id}/discard?queue_id=&group_id=`: the message is settled wherever it waits.
pub(crate) async fn discard(request: &ApiRequest<'_>) -> Result<Json<Resolved>, ApiError> {
    let (id, found) = find(request).await?;
    let (app, mut resolved, mut discarded) = (request.app, Resolved::default(), 0);
    resolved.delayed = found.places.iter().filter(|place| place.found_in == FoundIn::Delayed).count();
    for (path, place, group) in targets(request, &found)? {
        let stream = if place.found_in == FoundIn::DeadLetters { Stream::DeadLetters } else { Stream::Messages };
        match group.standing {
            Standing::Available => match app.broker.discard_message(&path, stream, place.sequence).await {
                Ok(()) => discarded += 1,
                // A consumer has leased it since the search.
                Err(BrokerError::NotAvailable(_)) => resolved.leased += 1,
                Err(error) => return Err(error.into()),
            },
            Standing::Leased(_) => resolved.leased += 1,
            Standing::Settled | Standing::Skipped | Standing::Damaged => {}
        }
    }
    if discarded + resolved.leased + resolved.delayed == 0 {
        return Err(codes::URL_NOT_FOUND.saying(format!("No message with the id {id} is waiting.")));
    }
    Ok(Json(Resolved { discarded: Some(discarded), ..resolved }))
}

/// Finds the message in the queues that the caller may consume.
async fn find(request: &ApiRequest<'_>) -> Result<(MessageOrigin, FoundMessage), ApiError> {
    let (app, text) = (request.app, request.params[0]);
    let id = MessageOrigin::parse(text).ok_or_else(|| {
        codes::REQUEST_FORMAT.because(format!("{} is no id of a message of this server", quoted(text)))
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

/// The places of groups, limited to the group that the request names.
fn targets<'a>(
    request: &ApiRequest<'_>,
    found: &'a FoundMessage,
) -> Result<Vec<(GroupPath, &'a FoundPlace, &'a GroupStanding)>, ApiError> {
    let query = request.query()?;
    let of = query.first("group_id").map(GroupId::from);
    let project = request.project_id();
    let all = found.places.iter().flat_map(|place| place.groups.iter().map(move |group| (place, group)));
    let named = all.filter(|(_, group)| of.as_ref().is_none_or(|of| *of == group.group));
    let path = |(place, group): (&'a FoundPlace, &'a GroupStanding)| {
        let (queue, of) = (place.queue.clone(), group.group.clone());
        (GroupPath { project: project.clone(), queue, group: of }, place, group)
    };
    Ok(named.map(path).collect())
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
            group_id: group.group.to_string(),
            group: group.name,
            state: state.to_owned(),
            failures: group.failures,
            left_ms: left.map(millis),
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
