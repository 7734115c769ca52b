//! Admission: authenticates a request and reads its body.
//!
//! The head is checked first, so that the bodies of strangers cost nothing. Then the body is read within its limits, because a
//! signature covers it.

use std::pin::pin;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{Method, request::Parts};

use crate::{
    api::{
        Dialect,
        router::{self, Target, method_not_allowed},
    },
    auth::{authenticator::IdentityClaim, caller::Caller, checks::is_project_id, sender::Sender},
    faults::inject::inject,
    handlers::request::ApiRequest,
    http::{
        body::{self, BodyError, BodyLimits, BufferedBody},
        codes,
        error::ApiError,
    },
    net::limits::{HttpLimits, MQS_BODY_BYTES},
    state::AppState,
};

/// The largest body of a request without credentials, which is a token request.
const MAX_UNSIGNED_BODY: usize = 64 << 10;

/// Authenticates a request and lets its handler answer it, or refuses it.
pub(crate) async fn admit(
    app: &AppState,
    dialect: Dialect,
    sender: Sender<'_>,
    target: Target<'_>,
    body: Body,
) -> Response {
    let head = sender.parts;
    // A HEAD that is served like a GET would consume messages and throw them away.
    if head.method == Method::HEAD && target.route.is_none() {
        return method_not_allowed(dialect, head.uri.path());
    }
    let claim = match claim(app, sender, target) {
        Ok(claim) => claim,
        Err(error) => return refuse(error, head, body),
    };
    // The memory for the body is reserved until the handler has finished.
    let body = match pin!(read(app, dialect, sender, target, body)).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    let caller = match identify(app, claim, sender, target, &body.bytes) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let Some(route) = target.route else { return method_not_allowed(dialect, head.uri.path()) };
    // Paths of topics name no project, so the credentials do.
    let project = match (target.project, dialect) {
        (Some(project), _) => project,
        (None, Dialect::Mqs) => match caller.home(&app.topics.project) {
            Ok(project) => project.as_str(),
            Err(error) => return error.into_response(),
        },
        (None, Dialect::Dms) => "",
    };
    let request = ApiRequest { app, sender, caller: &caller, project, params: target.params, body: &[] };
    let decision = app.faults.decide(route.operation);
    pin!(inject(decision, body.bytes.clone(), |body| router::answer(route, request, body))).await
}

/// Refuses a request without reading its body.
pub(crate) fn refuse(error: ApiError, head: &Parts, body: Body) -> Response {
    body::discard(&head.headers, body);
    error.into_response()
}

/// The sender of a request, as far as its head shows.
fn claim(app: &AppState, sender: Sender<'_>, target: Target<'_>) -> Result<IdentityClaim, ApiError> {
    match target.is_public {
        true => Ok(IdentityClaim::Proven(Caller::Anyone)),
        false => app.authenticator.claim(sender, &app.metrics),
    }
}

/// The caller of a request, if it may use the project in the path.
fn identify(
    app: &AppState,
    claim: IdentityClaim,
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

async fn read(
    app: &AppState,
    dialect: Dialect,
    sender: Sender<'_>,
    target: Target<'_>,
    body: Body,
) -> Result<BufferedBody, ApiError> {
    let mut bounds = bounds(&app.limits, target.is_public);
    if dialect == Dialect::Mqs {
        bounds.max_bytes = bounds.max_bytes.max(MQS_BODY_BYTES);
    }
    let read = pin!(body::read(body, &app.body_memory, sender.peer, bounds)).await;
    read.map_err(|error| refused(error, bounds.max_bytes))
}

fn bounds(limits: &HttpLimits, strangers: bool) -> BodyLimits {
    BodyLimits {
        max_bytes: if strangers { limits.body_bytes.min(MAX_UNSIGNED_BODY) } else { limits.body_bytes },
        max_drained_bytes: body::DRAINED,
        timeout: limits.body_timeout,
        memory_timeout: limits.body_timeout,
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
