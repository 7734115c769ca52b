//! Answers of the admin address: JSON, or an error in the form of the API's.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::header;
use serde::Serialize;

use crate::http::{error::ApiError, json::Json};

/// The answer to an operation: JSON, or an error.
pub(super) fn answer<T: Serialize>(result: Result<T, ApiError>) -> Response {
    result.map_or_else(|error| plain(&error), |value| Json(value).into_response())
}

/// An error as an answer. The admin address has no middleware that writes error bodies.
pub(super) fn plain(error: &ApiError) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (error.code().status, json, Body::from(error.body(""))).into_response()
}
