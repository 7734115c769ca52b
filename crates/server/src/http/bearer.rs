//! [`BearerAuth`]: the bearer token of a small listener, such as an admin address.

use std::sync::Arc;

use axum::extract::Request;
use axum::{
    extract::State,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::net::connection_state::ConnectionState;
use dms_protocol::internal::current::Current;

/// The `WWW-Authenticate` header of a refusal.
pub const CHALLENGE: [(header::HeaderName, &str); 1] = [(header::WWW_AUTHENTICATE, "Bearer")];

/// Admits requests with the token, if one is set. Without a token, the [`HostCheck`](crate::http::host_check::HostCheck) of the
/// listener keeps web pages out.
#[derive(Clone, Debug)]
pub struct BearerAuth {
    /// The hash of the token. Comparing hashes reveals nothing about the token.
    token: Option<Current<[u8; 32]>>,
    /// The configuration key of the token, for the refusal.
    key: &'static str,
}

impl BearerAuth {
    /// Requires `token`, which is configured under `key`; admits every request if it is `None`.
    pub fn new(token: Option<&str>, key: &'static str) -> Self {
        Self { token: token.map(|token| Current::new(Sha256::digest(token).into())), key }
    }

    /// Replaces the token. Returns false, and changes nothing, if there was no token or `token` is `None`: both need a restart.
    pub fn renew(&self, token: Option<&str>) -> bool {
        match (&self.token, token) {
            (Some(current), Some(token)) => current.set(Sha256::digest(token).into()),
            _ => return false,
        }
        true
    }

    /// Whether a token is required.
    pub fn asks(&self) -> bool {
        self.token.is_some()
    }

    /// Admits a request with the token, and notes on its connection that the caller is known.
    ///
    /// # Errors
    /// An instruction for the caller.
    pub fn admit(&self, request: &Request) -> Result<(), String> {
        let Some(token) = &self.token else { return Ok(()) };
        if given(request.headers()).is_none_or(|given| Sha256::digest(given)[..] != *token.get()) {
            return Err(format!("send the token of {} as `Authorization: Bearer …`", self.key));
        }
        if let Some(connection) = request.extensions().get::<Arc<ConnectionState>>() {
            connection.has_authenticated();
        }
        Ok(())
    }
}

/// The bearer token of a request.
fn given(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Refuses requests without the token, in plain text; a middleware.
pub async fn check(State(guard): State<BearerAuth>, request: Request, next: Next) -> Response {
    match guard.admit(&request) {
        Ok(()) => next.run(request).await,
        Err(remedy) => (http::StatusCode::UNAUTHORIZED, CHALLENGE, format!("{remedy}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::body::Body;

    use super::*;

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        let admits = |token: Option<&str>, name: header::HeaderName, value: &'static str| {
            let request = Request::builder().header(name, value).body(Body::empty()).unwrap();
            BearerAuth::new(token, "admin.token").admit(&request)
        };
        let refusal = Err("send the token of admin.token as `Authorization: Bearer …`".to_owned());
        assert_eq!(admits(None, header::ACCEPT, "*/*"), Ok(()));
        assert_eq!(admits(Some("t"), header::ACCEPT, "*/*"), refusal);
        assert_eq!(admits(Some("t"), header::AUTHORIZATION, "Bearer t"), Ok(()));
        assert_eq!(admits(Some("t"), header::AUTHORIZATION, "bearer t"), Ok(()));
        for wrong in ["Bearer", "Bearer ", "Bearer tt", "Basic t", "t"] {
            assert_eq!(admits(Some("t"), header::AUTHORIZATION, wrong), refusal, "{wrong}");
        }
    }

    #[test]
    fn another_token_is_asked_for_from_now_on() {
        let guard = BearerAuth::new(Some("old"), "admin.token");
        let admits = |token: &str| {
            let request = Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}"));
            guard.admit(&request.body(Body::empty()).unwrap()).is_ok()
        };
        assert!(guard.clone().renew(Some("new")) && !guard.renew(None));
        assert_eq!((admits("old"), admits("new")), (false, true));
        assert!(!BearerAuth::new(None, "admin.token").renew(Some("new")));
    }
}
