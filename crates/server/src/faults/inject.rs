//! Faults applied to requests: between admission, because some change what a signature covers, and the operation.

use std::io;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    api::routes::{Admitted, answer},
    faults::Fault,
    http::{
        codes::{self, Code},
        operation::Operation,
    },
    state::AppState,
};

/// Marks an answer that its caller must not see: a connection that finds it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AbortConnection;

/// Lets a request meet its fate.
pub(crate) async fn inject(app: &AppState, request: Admitted<'_>, mut body: Bytes) -> Response {
    let fate = app.faults.fate(Operation::of(&request.sender.parts.method, request.target.resource));
    if !fate.delay.is_zero() {
        sleep(fate.delay).await;
    }
    match fate.fault {
        Some(Fault::ServerError) => return refuse(codes::INTERNAL),
        Some(Fault::Throttled) => return refuse(codes::TOO_FREQUENT),
        Some(Fault::ExpiredLease) => return refuse(codes::UNKNOWN_HANDLER),
        Some(Fault::Reset) => return cut(),
        Some(Fault::Duplicate) => drop(answer(app, request, &body).await),
        Some(Fault::PartialAck) => body = first_half(&body),
        // Served by waiting, above, or by what becomes of the answer.
        Some(Fault::Latency(_) | Fault::LostAnswer) | None => {}
    }
    let response = answer(app, request, &body).await;
    if fate.fault == Some(Fault::LostAnswer) { cut() } else { response }
}

fn refuse(code: Code) -> Response {
    code.because("This is an injected fault.").into_response()
}

/// An acknowledgement less the second half of its lines; anything else as it is.
fn first_half(body: &Bytes) -> Bytes {
    let Ok(mut request) = serde_json::from_slice::<Value>(body) else { return body.clone() };
    let Some(lines) = request.get_mut("message").and_then(Value::as_array_mut) else { return body.clone() };
    lines.truncate(lines.len().div_ceil(2));
    request.to_string().into()
}

/// An answer that breaks off: at once on a connection, in its body for a caller in the process.
fn cut() -> Response {
    let broken = stream::iter([Err::<Bytes, _>(io::Error::from(io::ErrorKind::ConnectionReset))]);
    let mut response = (StatusCode::OK, Body::from_stream(broken)).into_response();
    response.extensions_mut().insert(AbortConnection);
    response
}
