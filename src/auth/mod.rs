//! Credentials of a client: access keys, IAM users, and where the vendor's SDKs keep both.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};

use crate::{queue::ProjectId, transport::TransportError, visible::visible};

mod token;
mod vendor;

pub use crate::secret::Secret;
pub(crate) use dms_protocol::auth::canonical::encode;
use dms_protocol::auth::{RequestParts, SignatureError, signer};
pub(crate) use token::{Iam, find_project};
pub use token::{IamCredentials, Scope};
pub use vendor::{VendorCredentials, VendorCredentialsError};

const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-auth-token");

/// An access key and its secret key; temporary ones come with a security token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AccessKey {
    /// The access key (AK): a name, not a secret.
    pub access_key: String,
    /// The secret key (SK).
    pub secret_key: Secret,
    /// The token of temporary keys.
    pub security_token: Option<Secret>,
}

impl AccessKey {
    /// Makes a key without a security token. [`ClientBuilder::access_key`](crate::ClientBuilder::access_key) does the
    /// same.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<Secret>) -> Self {
        Self { access_key: access_key.into(), secret_key: secret_key.into(), security_token: None }
    }
}

/// Why a request could not be authenticated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// The request cannot be signed.
    #[error("the request cannot be signed: {0}")]
    Sign(#[from] SignatureError),
    /// A token has characters that a header cannot carry.
    #[error("the {0} has characters that an HTTP header cannot carry")]
    Header(&'static str),
    /// IAM refused.
    #[error("IAM at {endpoint} refused with {status}: {}; {remedy}", visible(.message))]
    Refused {
        /// IAM's address.
        endpoint: String,
        /// The status of its answer.
        status: StatusCode,
        /// Its error text.
        message: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// IAM could not be reached, or did not answer.
    #[error("IAM at {0}: {1}")]
    Unreachable(String, #[source] TransportError),
    /// IAM's answer is not what the API reference says.
    #[error("the answer of IAM at {0} cannot be read: {1}")]
    Answer(String, String),
}

impl AuthError {
    /// Returns whether another try may succeed later.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Unreachable(..) => true,
            _ => false,
        }
    }

    /// Returns whether IAM refused the user.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(status.as_u16(), 401 | 403))
    }

    /// Returns whether no connection to IAM could be made.
    pub(crate) fn is_connect(&self) -> bool {
        matches!(self, Self::Unreachable(_, error) if error.is_not_sent())
    }
}

/// Adds the credentials to requests.
#[derive(Clone, Debug)]
pub(crate) enum Authenticator {
    /// Requests stay as they are.
    Anonymous,
    /// Requests are signed.
    Signer(Arc<AccessKey>),
    /// All requests carry the same token.
    Token(Secret),
    /// Tokens from IAM.
    Iam(Arc<Iam>),
}

/// The number of the token that a request carried, so that a refusal discards that token and not a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(pub(crate) u64);

impl Authenticator {
    /// Adds the credentials to the headers of `request`, which must have its `Host` already.
    pub(crate) async fn authorize(
        &self,
        request: &mut Request<Bytes>,
        project: &ProjectId,
    ) -> Result<Generation, AuthError> {
        match self {
            Self::Anonymous => {}
            // An API without projects has no header for one.
            Self::Signer(key) => sign(key, request, Some(project).filter(|project| !project.as_str().is_empty()))?,
            Self::Token(token) => put_token(request, token)?,
            Self::Iam(iam) => {
                let (token, generation) = iam.token().await?;
                put_token(request, &token)?;
                return Ok(generation);
            }
        }
        Ok(Generation(0))
    }

    /// Records that a request was refused (401). Returns whether another try may succeed, with a new token.
    pub(crate) async fn refused(&self, generation: Generation) -> bool {
        let Self::Iam(iam) = self else { return false };
        iam.discard(generation).await;
        true
    }

    /// Returns whether repeated refusals lock the key or the user.
    pub(crate) fn locks(&self) -> bool {
        matches!(self, Self::Signer(_) | Self::Iam(_))
    }
}

/// Signs `request`. If `project` is given, a header names it, as the vendor's SDKs do.
pub(crate) fn sign(
    key: &AccessKey,
    request: &mut Request<Bytes>,
    project: Option<&ProjectId>,
) -> Result<(), SignatureError> {
    let bad_header = |_| SignatureError::Malformed("a header has characters that HTTP does not allow");
    let headers = request.headers_mut();
    // Signatures alone need the wall clock.
    let date = signer::format_date(crate::clock::now().into());
    headers.insert(signer::DATE_HEADER, HeaderValue::try_from(date).map_err(bad_header)?);
    if let Some(project) = project {
        headers.insert("x-project-id", HeaderValue::try_from(project.as_str()).map_err(bad_header)?);
    }
    if let Some(token) = &key.security_token {
        let mut value = HeaderValue::try_from(token.expose()).map_err(bad_header)?;
        value.set_sensitive(true);
        headers.insert(signer::SECURITY_TOKEN_HEADER, value);
    }
    let parts = RequestParts {
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query().unwrap_or(""),
        headers: request.headers(),
        body: request.body(),
    };
    let authorization = signer::sign(&key.access_key, &key.secret_key, &parts)?;
    request.headers_mut().insert(http::header::AUTHORIZATION, authorization);
    Ok(())
}

fn put_token(request: &mut Request<Bytes>, token: &Secret) -> Result<(), AuthError> {
    let mut value = HeaderValue::try_from(token.expose()).map_err(|_| AuthError::Header("token"))?;
    value.set_sensitive(true);
    request.headers_mut().insert(TOKEN_HEADER, value);
    Ok(())
}
