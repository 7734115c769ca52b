//! Answers of the admin address: JSON, or an error in the form of the API's.

use axum::{
    body::Body,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::http::{
    error::ApiError,
    json::Json,
    request_id::{REQUEST_ID, request_id},
};

/// The answer to an operation: JSON, or an error.
pub(super) fn answer<T: Serialize>(result: Result<T, ApiError>) -> Response {
    result.map_or_else(ApiError::into_response, |value| Json(value).into_response())
}

/// Gives every answer the id of its request, and writes the bodies of errors; a middleware.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        *response.body_mut() = Body::from(error.body(id.to_str().unwrap_or_default()));
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}
