//! [`BearerAuth`]: the bearer token of a small listener, such as an admin address.

use std::sync::Arc;

use axum::extract::Request;
use axum::{
    extract::State,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, header};
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

    /// The SHA-256 hash of the token, if one is set.
    #[cfg(feature = "dashboard")]
    pub(crate) fn hash(&self) -> Option<[u8; 32]> {
        self.token.as_ref().map(|token| *token.get())
    }

    /// Whether `token` is the token; false if none is set. The hashes are compared in constant time.
    pub fn is(&self, token: &str) -> bool {
        self.is_hash(&Sha256::digest(token).into())
    }

    /// The same for the SHA-256 hash of a token.
    pub fn is_hash(&self, hash: &[u8; 32]) -> bool {
        let differs = |own: &[u8; 32]| own.iter().zip(hash).fold(0, |differs, (own, given)| differs | (own ^ given));
        self.token.as_ref().is_some_and(|token| differs(&token.get()) == 0)
    }

    /// Admits a request with the token, and notes on its connection that the caller is known.
    ///
    /// # Errors
    /// An instruction for the caller.
    pub fn admit(&self, request: &Request) -> Result<(), String> {
        if self.asks() && !given(request.headers()).is_some_and(|given| self.is(given)) {
            return Err(format!("send the token of {} as `Authorization: Bearer …`", self.key));
        }
        if !self.asks() {
            return Ok(());
        }
        if let Some(connection) = request.extensions().get::<Arc<ConnectionState>>() {
            connection.has_authenticated();
        }
        Ok(())
    }
}

/// The bearer token of a request.
pub fn given(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The tokens of an address where a second one may read.
#[derive(Clone, Debug)]
pub struct BearerPair {
    /// The token for everything.
    pub token: BearerAuth,
    /// The token that reads and changes nothing.
    pub read_token: BearerAuth,
}

/// As [`check`], where the read token is enough to read; a middleware.
pub async fn check_pair(State(pair): State<BearerPair>, request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match pair.token.admit(&request) {
        Err(_) if is_read && pair.read_token.asks() && pair.read_token.admit(&request).is_ok() => {
            next.run(request).await
        }
        Ok(()) => next.run(request).await,
        Err(remedy) => (http::StatusCode::UNAUTHORIZED, CHALLENGE, format!("{remedy}\n")).into_response(),
    }
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
