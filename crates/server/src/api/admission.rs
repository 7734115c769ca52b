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
    api::router::{self, Target, method_not_allowed},
    auth::{accounts::is_project_id, authenticator::Claim, caller::Caller, sender::Sender},
    faults::inject::inject,
    handlers::request::ApiRequest,
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

/// Authenticates a request and lets its handler answer it, or answers why not.
pub(crate) async fn admit(app: &AppState, sender: Sender<'_>, target: Target<'_>, body: Body) -> Response {
    let head = sender.parts;
    // A HEAD that another server would treat as a GET would consume messages and throw them away.
    if head.method == Method::HEAD && target.route.is_none() {
        return method_not_allowed(head.uri.path());
    }
    let claim = match claim(app, sender, target) {
        Ok(claim) => claim,
        Err(error) => return refuse(error, head, body),
    };
    // The memory for the body is reserved until the handler has finished.
    let body = match read(app, sender, target, body).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    let caller = match identify(app, claim, sender, target, &body.bytes) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let Some(route) = target.route else { return method_not_allowed(head.uri.path()) };
    let request = ApiRequest {
        app,
        sender,
        caller: &caller,
        project: target.project.unwrap_or_default(),
        params: target.params,
        body: &[],
    };
    let decision = app.faults.decide(route.operation);
    inject(decision, body.bytes.clone(), |body| router::answer(route, request, body)).await
}

/// Answers without having read the body.
pub(crate) fn refuse(error: ApiError, head: &Parts, body: Body) -> Response {
    body::discard(&head.headers, body);
    error.into_response()
}

/// Who the head of a request says it comes from.
fn claim(app: &AppState, sender: Sender<'_>, target: Target<'_>) -> Result<Claim, ApiError> {
    match target.is_public {
        true => Ok(Claim::Proven(Caller::Anyone)),
        false => app.authenticator.claim(sender, &app.metrics),
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
    let caller = claim.prove(&app.authenticator, sender, body, &app.metrics)?;
    if let Some(project) = target.project {
        if !is_project_id(project) {
            return Err(codes::PROJECT_FORMAT.because("1 to 64 of A-Z a-z 0-9 _ - are allowed."));
        }
        caller.enter(project)?;
    }
    Ok(caller)
}

async fn read(app: &AppState, sender: Sender<'_>, target: Target<'_>, body: Body) -> Result<BufferedBody, ApiError> {
    let bounds = bounds(&app.limits, target.is_public);
    body::read(body, &app.body_memory, sender.peer, bounds).await.map_err(|error| refused(error, bounds.most))
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
