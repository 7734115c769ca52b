//! [`Guard`]: who may use a listener of the sidecar.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::{config::Secret, server::visitor::Visitor};

/// Lets requests through that bear the token, where there is one. Without a token the listener's
/// [`HostCheck`](crate::server::host_check::HostCheck) keeps web pages out.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    token: Option<Secret>,
    /// The key that the token stands under, for the refusal.
    key: &'static str,
}

impl Guard {
    /// A guard that asks for `token`, which stands under `key`.
    pub(super) fn new(token: Option<Secret>, key: &'static str) -> Self {
        Self { token, key }
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let token = self.token.as_ref()?;
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        // Hashes are compared: how far they agree says nothing about the token.
        if given.is_some_and(|given| Sha256::digest(given) == Sha256::digest(token.expose())) {
            return None;
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        let text = format!("send the token of {} as `Authorization: Bearer …`\n", self.key);
        Some((StatusCode::UNAUTHORIZED, challenge, text).into_response())
    }
}

/// Refuses what the guard does not let through; a middleware.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if let Some(refusal) = guard.refusal(request.headers()) {
        return refusal;
    }
    if let (Some(_), Some(visitor)) = (&guard.token, request.extensions().get::<Arc<Visitor>>()) {
        visitor.has_authenticated();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        let status = |token: Option<&str>, name: header::HeaderName, value: &'static str| {
            let guard = Guard::new(token.map(Secret::new), "admin.token");
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            guard.refusal(&headers).map(|refusal| refusal.status().as_u16())
        };
        assert_eq!(status(None, header::ACCEPT, "*/*"), None);
        assert_eq!(status(Some("t"), header::ACCEPT, "*/*"), Some(401));
        assert_eq!(status(Some("t"), header::AUTHORIZATION, "Bearer t"), None);
        assert_eq!(status(Some("t"), header::AUTHORIZATION, "bearer t"), None);
        for wrong in ["Bearer", "Bearer ", "Bearer tt", "Basic t", "t"] {
            assert_eq!(status(Some("t"), header::AUTHORIZATION, wrong), Some(401), "{wrong}");
        }
    }
}
