//! Who may call: the last step before an operation.
//!
//! What the head tells is checked first: a stranger's body costs nothing. Then the body is read, within its bounds, because
//! a signature covers it.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{Method, request::Parts};

use crate::{
    api::{
        resource::Target,
        routes::{Admitted, wrong_method},
    },
    auth::{
        accounts::is_project_id,
        authenticator::{Claim, Sender},
        caller::Caller,
    },
    faults::inject::inject,
    http::{
        body::{self, BodyError, BodyLimits, BufferedBody},
        codes,
        error::ApiError,
    },
    net::limits::HttpLimits,
    state::AppState,
};

/// The largest body from callers who have not shown who they are: a request for a token.
const STRANGERS_BODY: usize = 64 << 10;

/// Admits a request to its operation, or answers why not.
pub(crate) async fn admit(app: &AppState, sender: Sender<'_>, target: Target<'_>, body: Body) -> Response {
    let parts = sender.parts;
    if parts.method == Method::HEAD && !target.resource.is_for_anybody() {
        // HEAD is served by GET elsewhere: here that would be a consume that throws its messages away.
        return wrong_method(target.resource);
    }
    let claim = match claim(app, sender, target) {
        Ok(claim) => claim,
        Err(error) => return refuse(error, parts, body),
    };
    // The room for the body is held until the operation has done with it.
    let body = match read(app, sender, target, body).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    match identify(app, claim, sender, target, &body.bytes) {
        Ok(caller) => inject(app, Admitted { sender, target, caller: &caller }, body.bytes.clone()).await,
        Err(error) => error.into_response(),
    }
}

/// HttpService without having read the body.
pub(crate) fn refuse(error: ApiError, head: &Parts, body: Body) -> Response {
    body::discard(&head.headers, body);
    error.into_response()
}

/// Who the head of a request says it comes from.
fn claim(app: &AppState, sender: Sender<'_>, target: Target<'_>) -> Result<Claim, ApiError> {
    match target.resource.is_for_anybody() {
        true => Ok(Claim::Proven(Caller::Anyone)),
        false => app.gate.claim(sender, &app.metrics),
    }
}

/// Who a request comes from, if it may enter the project that it names.
fn identify(
    app: &AppState,
    claim: Claim,
    sender: Sender<'_>,
    target: Target<'_>,
    body: &[u8],
) -> Result<Caller, ApiError> {
    let caller = claim.prove(&app.gate, sender, body, &app.metrics)?;
    if let Some(project) = target.project {
        if !is_project_id(project) {
            return Err(codes::PROJECT_FORMAT.because("1 to 64 of A-Z a-z 0-9 _ - are allowed."));
        }
        caller.enter(project)?;
    }
    Ok(caller)
}

async fn read(app: &AppState, sender: Sender<'_>, target: Target<'_>, body: Body) -> Result<BufferedBody, ApiError> {
    let bounds = bounds(&app.limits, target.resource.is_for_anybody());
    body::read(body, &app.room, sender.peer, bounds).await.map_err(|error| refused(error, bounds.most))
}

fn bounds(limits: &HttpLimits, strangers: bool) -> BodyLimits {
    BodyLimits {
        most: if strangers { limits.body_bytes.min(STRANGERS_BODY) } else { limits.body_bytes },
        drained: body::DRAINED,
        patience: limits.body_timeout,
        room_patience: limits.body_timeout,
    }
}

fn refused(error: BodyError, most: usize) -> ApiError {
    match error {
        BodyError::TooLarge(size) => codes::MESSAGE_SIZE
            .saying(format!("The message size is {size}, larger than the size limit {most} of a whole request.")),
        BodyError::Endless => codes::BODY_SIZE.plain(),
        BodyError::TooSlow | BodyError::NoRoom => codes::BODY_TIMEOUT.plain(),
        BodyError::Broken(reason) => codes::REQUEST_FORMAT.because(format!("The body broke off: {reason}.")),
    }
}
