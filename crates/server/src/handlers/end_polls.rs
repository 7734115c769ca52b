//! The extension `end-poll`: ending waiting consume calls by name.
//!
//! A worker that stops ends its consume calls instead of cutting their connections. So messages that they lease meanwhile still
//! reach the worker, which can hand them back.

use serde::Serialize;

use crate::{
    handlers::{
        extensions::{is_poll_id, not_a_poll_id},
        request::ApiRequest,
    },
    http::{
        codes,
        error::ApiError,
        json::{self, Json},
    },
};
use dms_protocol::internal::json::{Fault, Scan};

/// The maximum number of names in one request.
const MAX_ENDED: usize = 100;

/// The answer: how many calls were waiting.
#[derive(Debug, Serialize)]
pub(crate) struct EndOutcome {
    ended: usize,
}

/// `POST …/polls/end`: ends the consume calls with these names.
pub(crate) async fn end(request: &ApiRequest<'_>) -> Result<Json<EndOutcome>, ApiError> {
    let polls = json::read_messages(request.body, names)?;
    let count = polls.len();
    if !(1..=MAX_ENDED).contains(&count) {
        return Err(codes::REQUEST_FORMAT.because(format!("polls has {count} entries: 1 to {MAX_ENDED} are allowed.")));
    }
    if let Some((at, id)) = polls.iter().enumerate().find(|(_, id)| !is_poll_id(id)) {
        return Err(codes::REQUEST_FORMAT.because(not_a_poll_id(&format!("polls[{at}]"), id.as_bytes())));
    }
    let (app, project) = (request.app, request.project_id());
    // First the calls that wait here: until a call has ended, it may lease messages to a consumer that stops.
    let here = app.polls.end(&project, polls.clone());
    // A load balancer may have brought the consume call to another server than this request.
    let elsewhere = app.broker.end_polls_elsewhere(&project, &polls).await;
    Ok(Json(EndOutcome { ended: here + elsewhere }))
}

fn names(scan: &mut Scan<'_>) -> Result<Vec<String>, Fault> {
    scan.only("polls", |scan| scan.items(Scan::owned))
}
