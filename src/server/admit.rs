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

use super::{app::App, body, codes, error::ApiError};

/// Admits a request to its operation, or answers why not.
pub(super) async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match check(&app, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn check(app: &App, request: Request) -> Result<Request, ApiError> {
    if request.method() == Method::HEAD {
        // The router would serve HEAD by GET: a consume that throws its messages away.
        return Err(codes::METHOD.plain());
    }
    let (parts, body) = request.into_parts();
    let body = body::read(body, app.limits.body_bytes, app.limits.body_timeout).await?;
    check_project(parts.uri.path())?;
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// The project of the path is the first thing that its operations ask for.
fn check_project(path: &str) -> Result<(), ApiError> {
    let project = path.split('/').nth(2).unwrap_or_default();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=64).contains(&project.len()) && project.bytes().all(legal) {
        return Ok(());
    }
    Err(codes::PROJECT_FORMAT.because("1 to 64 of A-Z a-z 0-9 _ - are allowed."))
}
