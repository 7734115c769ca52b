//! Who may call: the last step before an operation.
//!
//! The body is read here, within its bounds, because a signature covers it.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::Method;
use tokio::sync::SemaphorePermit;

use super::{app::App, body, codes, error::ApiError, gate::is_project_id};

/// Admits a request to its operation, or answers why not.
pub(super) async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match check(&app, request).await {
        // The room for the body is held until the operation has done with it.
        Ok((request, _room)) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Takes a request from anybody, its body within the same bounds.
pub(super) async fn receive(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match body::read(body, &app.room, &app.limits).await {
        Ok((body, _room)) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(error) => error.into_response(),
    }
}

async fn check(app: &App, request: Request) -> Result<(Request, Option<SemaphorePermit<'_>>), ApiError> {
    if request.method() == Method::HEAD {
        // The router would serve HEAD by GET: a consume that throws its messages away.
        return Err(codes::METHOD.plain());
    }
    let (mut parts, body) = request.into_parts();
    let (body, room) = body::read(body, &app.room, &app.limits).await?;
    let caller = app.gate.identify(&parts, &body)?;
    if let Some(project) = project(parts.uri.path()) {
        if !is_project_id(project) {
            return Err(codes::PROJECT_FORMAT.because("1 to 64 of A-Z a-z 0-9 _ - are allowed."));
        }
        caller.enter(project)?;
    }
    parts.extensions.insert(caller);
    Ok((Request::from_parts(parts, Body::from(body)), room))
}

/// The project that a path of the API begins with; the identity service's have none.
fn project(path: &str) -> Option<&str> {
    let mut parts = path.split('/').skip(1);
    let version = parts.next();
    version.filter(|version| *version != "v3").and_then(|_| parts.next())
}
