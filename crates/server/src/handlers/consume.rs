//! Consuming messages and dead letters (API reference 5.3.2, 5.3.4).

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};
use tokio::time::Instant;

use crate::{
    broker::{GroupPath, LeaseRequest, LeasedMessage, Stream},
    handlers::{
        extensions::{self, Asked},
        request::ApiRequest,
    },
    http::{codes, error::ApiError, json::JsonText, query::Query},
    net::waiting_poll::PollGuard,
};
use dms_protocol::{
    internal::json::{push_string, quoted},
    limits,
    queue::{TagFilter, TagMode},
};

const DELIVERIES: HeaderName = HeaderName::from_static("x-dms-deliveries");
const WAITED: HeaderName = HeaderName::from_static("x-dms-waited-ms");
/// A call that took this long had to wait for messages.
const LONG_WAIT: Duration = Duration::from_millis(100);

/// `GET …/messages` (5.3.2).
pub(crate) async fn messages(request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    consume(request, Stream::Messages).await
}

/// `GET …/deadletters` (5.3.4): the same, without labels in the request or the answer.
pub(crate) async fn dead_letters(request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    consume(request, Stream::DeadLetters).await
}

async fn consume(request: &ApiRequest<'_>, stream: Stream) -> Result<Response, ApiError> {
    let (app, headers) = (request.app, &request.head().headers);
    let (path, query) = (request.group().await?, request.query()?);
    let arrived = Instant::now();
    let lease_request = match stream {
        Stream::Messages => LeaseRequest { filter: filter(&query)?, ..lease_request(&query)? },
        Stream::DeadLetters => lease_request(&query)?,
    };
    let taken = take(request, &path, stream, lease_request, |leased| {
        answer(leased, arrived.elapsed(), (&path, stream), Asked::read(app, headers))
    });
    pin!(taken).await
}

/// Leases the next messages and builds the answer from them. The answer closes the connection when the listener needs it.
pub(crate) async fn take(
    request: &ApiRequest<'_>,
    path: &GroupPath,
    stream: Stream,
    lease_request: LeaseRequest,
    answer: impl FnOnce(&[LeasedMessage]) -> Response,
) -> Result<Response, ApiError> {
    let app = request.app;
    if app.stopping.is_cancelled() {
        return Err(codes::STOPPING.plain());
    }
    let began = Instant::now();
    let mut lease = pin!(lease(request, path, stream, lease_request));
    let mut must_close = false;
    let leased = match poll_fn(|cx| Poll::Ready(lease.as_mut().poll(cx))).await {
        // Most calls find messages at once, and nobody has to know of them.
        Poll::Ready(leased) => leased?,
        Poll::Pending => {
            let waiting = request.sender.begin_poll(path);
            tokio::select! {
                // A lease call that is dropped hands out nothing, so a message that arrives now goes to another call.
                () = ended(waiting.as_ref()) => {
                    must_close = true;
                    Vec::new()
                }
                leased = lease => leased?,
            }
        }
    };
    request.sender.has_consumed(began.elapsed() >= LONG_WAIT);
    app.metrics.consumed(leased.len());
    let mut response = answer(&leased);
    if must_close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Ready when the listener needs the connection of the call. Callers in the same process have no connection.
async fn ended(waiting: Option<&PollGuard<'_>>) {
    match waiting {
        Some(poll) => poll.ended().await,
        None => std::future::pending().await,
    }
}

/// Leases the next messages. Empty when the call is ended by its name, or when the server stops.
async fn lease(
    request: &ApiRequest<'_>,
    path: &GroupPath,
    stream: Stream,
    lease_request: LeaseRequest,
) -> Result<Vec<LeasedMessage>, ApiError> {
    let app = request.app;
    let id = extensions::poll_id(app, &request.head().headers)?;
    if id.is_some_and(|id| app.polls.is_ended(&path.project, id)) {
        return Ok(Vec::new());
    }
    let mut lease = app.broker.lease(path, stream, lease_request);
    if let Poll::Ready(leased) = poll_fn(|cx| Poll::Ready(lease.as_mut().poll(cx))).await {
        return Ok(leased?);
    }
    // It has to wait, so it can be ended from now on.
    let named = match id {
        None => None,
        Some(id) => match app.polls.begin(&path.project, id) {
            Some(poll) => Some(poll),
            None => return Ok(Vec::new()),
        },
    };
    let ended = async {
        match &named {
            Some(poll) => poll.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // A lease call that is dropped hands out nothing, so its answer is an empty list.
        () = app.stopping.cancelled() => Ok(Vec::new()),
        () = ended => Ok(Vec::new()),
        leased = lease => Ok(leased?),
    }
}

fn lease_request(query: &Query) -> Result<LeaseRequest, ApiError> {
    let seconds = |name, default, range, code| query.number(name, default, range, code).map(Duration::from_secs);
    Ok(LeaseRequest {
        max_messages: query.number("max_msgs", limits::MAX_MESSAGES, &(1..=limits::MAX_MESSAGES), codes::MAX_MSGS)?,
        max_bytes: limits::MAX_BYTES,
        wait: seconds("time_wait", 3, &limits::POLL_WAIT_SECS, codes::TIME_WAIT)?,
        ack_wait: seconds("ack_wait", 30, &limits::ACK_WAIT_SECS, codes::ACK_WAIT)?,
        filter: TagFilter::default(),
    })
}

/// `tag` (repeated) and `tag_type`.
fn filter(query: &Query) -> Result<TagFilter, ApiError> {
    let tags: Vec<String> = query.all("tag").map(str::to_owned).collect();
    if tags.len() > limits::MAX_LABELS {
        let (found, most) = (tags.len(), limits::MAX_LABELS);
        return Err(codes::URL_PARAMETER.because(format!("tag is given {found} times: at most {most} are allowed.")));
    }
    limits::labels(&tags).map_err(|error| codes::LABEL.because(error))?;
    let mode = match query.first("tag_type") {
        None | Some("or") => TagMode::Or,
        Some("and") => TagMode::And,
        Some(other) => return Err(codes::TAG_TYPE.because(format!("It is {}.", quoted(other)))),
    };
    Ok(TagFilter { tags, mode })
}

/// The array of 5.3.2, built from the stored texts in one buffer. `waited` is in a header: a client that knows when it sent the
/// call then knows that the lease began no earlier than this much later.
fn answer(leased: &[LeasedMessage], waited: Duration, place: (&GroupPath, Stream), asked: Asked) -> Response {
    let labels_size = |message: &LeasedMessage| message.tags.iter().map(|tag| tag.len() + 12).sum::<usize>();
    let size = |message: &LeasedMessage| {
        labels_size(message)
            + message.json.len()
            + message.receipt.as_bytes().len()
            + 28
            + if asked.ids { 32 } else { 0 }
    };
    let mut text = Vec::with_capacity(leased.iter().map(size).sum::<usize>() + 2);
    text.push(b'[');
    for (at, message) in leased.iter().enumerate() {
        text.extend_from_slice(if at == 0 { br#"{"message":"# } else { br#",{"message":"# });
        text.extend_from_slice(&message.json);
        labels(&mut text, &message.tags);
        text.extend_from_slice(br#","handler":"#);
        push_string(&mut text, &message.receipt);
        if asked.ids {
            text.extend_from_slice(br#","id":""#);
            message.id(place.0, place.1).with_text(|id| text.extend_from_slice(id.as_bytes()));
            text.push(b'"');
        }
        if let Some(info) = message.dead_letter.as_deref().filter(|_| asked.reasons) {
            text.extend_from_slice(br#","dead_letter":"#);
            text.extend_from_slice(serde_json::json!(info).to_string().as_bytes());
        }
        text.push(b'}');
    }
    text.push(b']');
    let waited = match waited.as_millis() {
        0 => HeaderValue::from_static("0"),
        millis => HeaderValue::from(u64::try_from(millis).unwrap_or(u64::MAX)),
    };
    ([(WAITED, waited)], [(DELIVERIES, deliveries(leased))], JsonText(text.into())).into_response()
}

/// The position, the attempt and the time of entry of each message, as in `17.1.1795550351698`. They distinguish a redelivery
/// from another message. They are in a header, so that bodies stay as the API reference has them.
fn deliveries(leased: &[LeasedMessage]) -> String {
    let mut text = String::with_capacity(leased.len() * 32);
    let mut digits = itoa::Buffer::new();
    for LeasedMessage { sequence, failures, entered_ms, .. } in leased {
        text.push_str(if text.is_empty() { "" } else { "," });
        text.push_str(digits.format(*sequence));
        text.push('.');
        text.push_str(digits.format(failures.saturating_add(1)));
        text.push('.');
        text.push_str(digits.format(*entered_ms));
    }
    text
}

/// Adds the labels beside `message`, where the examples of 5.3.2 have them. The tables of 5.3.2 have them inside.
fn labels(text: &mut Vec<u8>, tags: &[String]) {
    for (at, tag) in tags.iter().enumerate() {
        text.extend_from_slice(if at == 0 { br#","tags":[""# } else { br#"",""# });
        text.extend_from_slice(tag.as_bytes());
    }
    if !tags.is_empty() {
        text.extend_from_slice(br#""]"#);
    }
}
