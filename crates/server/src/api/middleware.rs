//! Steps that apply to every request and every answer: request id, panics, error bodies, one debug line without bodies or
//! secrets, and metrics.

use std::pin::pin;

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, request::Parts};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    api::{
        Dialect,
        admission::{self, refuse},
        router::Target,
    },
    auth::{login_throttle::DelayedResponse, sender::Sender},
    handlers::extensions::{ANNOUNCED, EXTENSIONS},
    http::{
        codes::{self, Code},
        error::ApiError,
        head,
        host_check::HostRefusal,
        operation::Operation,
        request_id::{REQUEST_ID, request_id},
    },
    net::connection_state::ConnectionState,
    state::AppState,
};
use dms_protocol::internal::{panics::until_panic, text::brief};

/// The longest URI, and the longest value of a header, in bytes.
const MAX_LINE: usize = 32 << 10;

/// Answers a request. A panic or an error becomes an answer.
pub(crate) async fn wrap(
    app: &AppState,
    dialect: Dialect,
    connection: Option<&ConnectionState>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    // Thousands of consume calls may wait, each with a connection that has a read buffer.
    if parts.method == Method::GET && connection.is_some_and(ConnectionState::is_waiting) {
        head::copy_out(&mut parts);
    }
    let id = request_id(&parts.headers);
    let target = Target::find(dialect, &parts.method, parts.uri.path(), app.extensions);
    let operation = target.map_or(Operation::Unknown, Target::operation).as_str();

    let mut response = match (acceptable(app, connection, &parts), target) {
        (Err(error), _) => refuse(error, &parts, body),
        (Ok(()), None) => refuse(codes::URL_NOT_FOUND.plain(), &parts, body),
        (Ok(()), Some(target)) => {
            let admitted = pin!(admission::admit(app, dialect, Sender::new(&parts, connection), target, body));
            pin!(until_panic(admitted)).await.unwrap_or_else(|_| {
                tracing::error!(
                    operation,
                    request_id = id.to_str().unwrap_or_default(),
                    "a request handler panicked; the request was answered with 500"
                );
                codes::INTERNAL.plain().into_response()
            })
        }
    };

    let refused = response.extensions_mut().remove::<ApiError>();
    if let Some(error) = &refused {
        *response.body_mut() = Body::from(error.body(id.to_str().unwrap_or_default()));
    }
    let (status, took) = (response.status().as_u16(), started.elapsed());
    let code = refused.as_ref().map(|error| error.code().name);
    tracing::debug!(operation, status, code, took = %brief(took), request_id = id.to_str().unwrap_or_default(), "answered");
    app.metrics.answered(operation, status, took);
    if status == StatusCode::UNAUTHORIZED.as_u16() {
        let (peer, now_ms) = (connection.map(ConnectionState::peer), app.authenticator.clock().now_ms());
        app.authenticator.refused.note(peer, code.unwrap_or("-"), now_ms);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    if app.extensions && dialect == Dialect::Dms && target.is_none_or(|target| target.project.is_some()) {
        response.headers_mut().insert(EXTENSIONS, ANNOUNCED);
    }
    if let Some(DelayedResponse(delay)) = response.extensions_mut().remove() {
        hold_back(connection, delay).await;
    }
    response
}

/// Delays an answer. Meanwhile the connection may be given to another peer.
async fn hold_back(connection: Option<&ConnectionState>, delay: Duration) {
    if let Some(connection) = connection {
        connection.hold_back();
    }
    sleep(delay).await;
}

/// Checks the rules for every head.
fn acceptable(app: &AppState, connection: Option<&ConnectionState>, head: &Parts) -> Result<(), ApiError> {
    check_size(head).map_err(Code::plain)?;
    match connection {
        Some(_) => app.host_check.check(head).map_err(misdirected),
        // A caller in the same process needs no `Host`.
        None => Ok(()),
    }
}

/// Refuses a head that is larger than the gateway of the service accepted. A much larger head never gets here, because its
/// connection is closed.
fn check_size(head: &Parts) -> Result<(), Code> {
    let uri = head.uri.path_and_query().map_or(0, |uri| uri.as_str().len());
    if uri > MAX_LINE {
        return Err(codes::URI_SIZE);
    }
    if head.headers.values().any(|value| value.len() > MAX_LINE) {
        return Err(codes::HEADER_SIZE);
    }
    Ok(())
}

fn misdirected(refusal: HostRefusal) -> ApiError {
    let code = match refusal.status {
        StatusCode::BAD_REQUEST => codes::HOST,
        StatusCode::FORBIDDEN => codes::WEB_PAGE,
        _ => codes::FOREIGN_HOST,
    };
    code.because(refusal.text)
}
