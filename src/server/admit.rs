//! Who may call: the last step before an operation.
//!
//! The body is read here, within its bounds, because a signature covers it.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::Method;

use super::{
    app::App,
    body, codes,
    error::ApiError,
    gate::{Caller, Sender, is_project_id},
    inject::inject,
    resource::Target,
    routes::{Admitted, wrong_method},
};

/// Admits a request to its operation, or answers why not.
pub(super) async fn admit(app: &App, sender: Sender<'_>, target: Target<'_>, body: Body) -> Response {
    let parts = sender.parts;
    if parts.method == Method::HEAD && !target.resource.is_for_anybody() {
        // HEAD is served by GET elsewhere: here that would be a consume that throws its messages away.
        return wrong_method(target.resource);
    }
    // The room for the body is held until the operation has done with it.
    let (body, _room) = match body::read(body, &app.room, &app.limits).await {
        Ok(read) => read,
        Err(error) => return error.into_response(),
    };
    match identify(app, sender, target, &body) {
        Ok(caller) => inject(app, Admitted { parts, target, caller: &caller }, body).await,
        Err(error) => error.into_response(),
    }
}

/// Who a request comes from, if it may enter the project that it names.
fn identify(app: &App, sender: Sender<'_>, target: Target<'_>, body: &Bytes) -> Result<Caller, ApiError> {
    if target.resource.is_for_anybody() {
        return Ok(Caller::Anyone);
    }
    let caller = app.gate.identify(sender, body, &app.metrics)?;
    if let Some(project) = target.project {
        if !is_project_id(project) {
            return Err(codes::PROJECT_FORMAT.because("1 to 64 of A-Z a-z 0-9 _ - are allowed."));
        }
        caller.enter(project)?;
    }
    Ok(caller)
}
