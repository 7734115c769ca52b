//! Applies faults to requests, after authentication, because some of them change the body that a signature covers.

use std::{io, pin::pin};

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
    faults::{Fault, FaultDecision},
    http::codes::{self, Code},
    net::connection::AbortConnection,
};

/// Answers a request with `answer`, or as the decision says. A fault may call `answer` twice, or with another body.
pub(crate) async fn inject<A: Future<Output = Response>>(
    decision: FaultDecision,
    mut body: Bytes,
    answer: impl Fn(Bytes) -> A,
) -> Response {
    if !decision.delay.is_zero() {
        sleep(decision.delay).await;
    }
    match decision.fault {
        Some(Fault::ServerError) => return refuse(codes::INTERNAL),
        Some(Fault::Throttled) => return refuse(codes::TOO_FREQUENT),
        Some(Fault::ExpiredLease) => return refuse(codes::UNKNOWN_HANDLER),
        Some(Fault::Reset) => return aborted(),
        Some(Fault::Duplicate) => drop(Box::pin(answer(body.clone())).await),
        Some(Fault::PartialAck) => body = first_half(&body),
        // The delay above was the latency, and the answer is dropped below.
        Some(Fault::Latency(_) | Fault::LostAnswer) | None => {}
    }
    let response = pin!(answer(body)).await;
    if decision.fault == Some(Fault::LostAnswer) { aborted() } else { response }
}

fn refuse(code: Code) -> Response {
    code.because("This is an injected fault.").into_response()
}

/// An acknowledgement without the second half of its messages. Other bodies are not changed.
fn first_half(body: &Bytes) -> Bytes {
    let Ok(mut request) = serde_json::from_slice::<Value>(body) else { return body.clone() };
    let Some(lines) = request.get_mut("message").and_then(Value::as_array_mut) else { return body.clone() };
    lines.truncate(lines.len().div_ceil(2));
    request.to_string().into()
}

/// An answer that fails: a connection is closed without it, and a caller in the same process gets an error from its body.
fn aborted() -> Response {
    let broken = stream::iter([Err::<Bytes, _>(io::Error::from(io::ErrorKind::ConnectionReset))]);
    let mut response = (StatusCode::OK, Body::from_stream(broken)).into_response();
    response.extensions_mut().insert(AbortConnection);
    response
}
