//! The middleware before every page of a dashboard.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header, request::Parts};

use crate::{
    dashboard::{
        access::{gate::Gate, headers::protect, origin, visitor::Visitor},
        html::frame::read_only,
    },
    http::bearer::CHALLENGE,
    net::connection_state::ConnectionState,
};

/// The middleware before pages for everyone, such as the login page.
pub(crate) async fn open(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    if let Err(refusal) = gate.check_origin(&head) {
        return protect(*refusal);
    }
    let visitor = Visitor::new(&head, gate.here(&head), gate.admit(&head));
    head.extensions.insert(visitor);
    protect(next.run(Request::from_parts(head, body)).await)
}

/// The middleware before all other pages.
pub(crate) async fn closed(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    if let Err(refusal) = gate.check_origin(&head) {
        return protect(*refusal);
    }
    let Some(access) = gate.admit(&head) else { return protect(to_login(&gate, &head)) };
    if let Some(connection) = head.extensions.get::<Arc<ConnectionState>>().filter(|_| gate.asks()) {
        connection.has_authenticated();
    }
    let visitor = Visitor::new(&head, gate.here(&head), Some(access));
    if origin::changes(&head.method) && !access.acts {
        let action = head.uri.path().rsplit('/').next().unwrap_or_default();
        gate.record(&visitor, "refused", action, Err("the visitor may only read"));
        return protect(read_only(&gate, &visitor));
    }
    head.extensions.insert(visitor);
    protect(next.run(Request::from_parts(head, body)).await)
}

/// Sends a browser to the login page, and tells a program that it needs the token.
fn to_login(gate: &Gate, head: &Parts) -> Response {
    let accepts = head.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if !origin::changes(&head.method) && accepts.into_iter().any(|accepted| accepted.contains("text/html")) {
        let next = gate.here(head);
        let next = percent_encoding::utf8_percent_encode(&next, percent_encoding::NON_ALPHANUMERIC);
        let login = format!("{}?next={next}", gate.url("/login"));
        return (StatusCode::SEE_OTHER, [(header::LOCATION, login)]).into_response();
    }
    (StatusCode::UNAUTHORIZED, CHALLENGE, "log in, or send the token\n").into_response()
}
