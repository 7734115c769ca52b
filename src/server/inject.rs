//! Faults applied to requests: a layer between admission and the operation.

use std::{io, sync::Arc};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, request::Parts};
use serde_json::Value;
use tokio::time::sleep;

use super::{app::App, codes, error::ApiError, faults::Fault, operation::Operation};

/// Marks an answer that its caller must not see: a connection that finds it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut;

/// Lets a request meet its fate.
pub(super) async fn inject(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let fate = app.faults.fate(Operation::of(request.method(), route));
    if !fate.delay.is_zero() {
        sleep(fate.delay).await;
    }
    let Some(fault) = fate.fault else { return next.run(request).await };
    match meet(fault, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn meet(fault: Fault, request: Request, next: Next) -> Result<Response, ApiError> {
    match fault {
        Fault::ServerError => Err(codes::INTERNAL.because("This is an injected fault.")),
        Fault::Throttled => Err(codes::TOO_FREQUENT.because("This is an injected fault.")),
        Fault::ExpiredLease => Err(codes::UNKNOWN_HANDLER.because("This is an injected fault.")),
        Fault::Reset => Ok(cut()),
        Fault::LostAnswer => {
            next.run(request).await;
            Ok(cut())
        }
        Fault::Duplicate => {
            let (parts, body) = whole(request).await?;
            next.clone().run(Request::from_parts(parts.clone(), Body::from(body.clone()))).await;
            Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
        }
        Fault::PartialAck => {
            let (parts, body) = whole(request).await?;
            Ok(next.run(Request::from_parts(parts, Body::from(first_half(&body)))).await)
        }
        // Served by waiting, above.
        Fault::Latency(_) => Ok(next.run(request).await),
    }
}

async fn whole(request: Request) -> Result<(Parts, Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    // Admission has read it within its bounds: this one is in memory.
    let body = axum::body::to_bytes(body, usize::MAX).await.map_err(|_| codes::REQUEST_FORMAT.plain())?;
    Ok((parts, body))
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
    response.extensions_mut().insert(Cut);
    response
}
