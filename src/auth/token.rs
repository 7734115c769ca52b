//! [`Iam`]: tokens from IAM (API reference 3.1-3.3), shared by all callers and renewed before they expire.

use std::{fmt, sync::Arc, time::Duration};

use crate::secret::Secret;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use super::{AccessKey, AuthError, Generation, encode};
use crate::{queue::ProjectId, secret_url::SecretUrl, text::brief, transport::Transport, wire::error::ErrorBody};

/// The timeout of IAM's answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The lifetime of a token if IAM does not tell it: the documented 24 hours, minus a margin.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(23 * 3600);

/// The pause after a failed renewal, while the old token is still valid.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);
/// The same after IAM refused the user. It is longer, because IAM locks users after wrong passwords.
const REFUSED_PAUSE: Duration = Duration::from_secs(5 * 60);

/// A user of IAM, with the project to work in.
///
/// ```
/// use dms_worker::auth::{IamCredentials, Scope};
///
/// let project = Scope::ProjectName("cn-north-4".to_owned());
/// let credentials = IamCredentials::new("https://iam.cn-north-4.myhuaweicloud.com", project)
///     .user("worker", "my-account")
///     .password("s3cret"); // for ClientBuilder::iam
/// assert_eq!(credentials.domain, "my-account");
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct IamCredentials {
    /// IAM's address, such as `https://iam.cn-north-4.myhuaweicloud.com`, with or without a final `/v3`.
    pub endpoint: String,
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// The name of the user's domain (account).
    pub domain: String,
    /// The project that the token is for.
    pub project: Scope,
}

impl IamCredentials {
    /// Starts credentials for `project`, with IAM at `endpoint`. [`user`](Self::user) and [`password`](Self::password)
    /// are required too.
    pub fn new(endpoint: impl Into<String>, project: Scope) -> Self {
        Self {
            endpoint: endpoint.into(),
            user: String::new(),
            password: Secret::default(),
            domain: String::new(),
            project,
        }
    }

    /// The user's name, and the name of the domain (account) that the user belongs to.
    pub fn user(mut self, user: impl Into<String>, domain: impl Into<String>) -> Self {
        (self.user, self.domain) = (user.into(), domain.into());
        self
    }

    /// The user's password.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.password = password.into();
        self
    }
}

impl fmt::Debug for IamCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamCredentials")
            .field("endpoint", &SecretUrl::new(self.endpoint.as_str()))
            .field("user", &self.user)
            .field("domain", &self.domain)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

/// A project, by id or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// By id.
    ProjectId(ProjectId),
    /// By name, as `cn-north-4`.
    ProjectName(String),
}

/// IAM, with the token of one user.
pub(crate) struct Iam {
    transport: Arc<dyn Transport>,
    credentials: IamCredentials,
    state: Mutex<TokenState>,
}

#[derive(Default)]
struct TokenState {
    /// The number of tokens fetched so far. It tells a newer token from the one that a caller found invalid.
    generation: u64,
    token: Option<Token>,
}

#[derive(Clone)]
struct Token {
    text: Secret,
    project: Option<ProjectId>,
    /// When the next call fetches a new token.
    renew_at: Instant,
    ends_at: Instant,
}

impl Iam {
    pub(crate) fn new(transport: Arc<dyn Transport>, credentials: IamCredentials) -> Self {
        Self { transport, credentials, state: Mutex::default() }
    }

    /// The current token. It is fetched or renewed first if necessary; concurrent callers share one fetch.
    pub(crate) async fn token(&self) -> Result<(Secret, Generation), AuthError> {
        let state = self.fresh().await?;
        let token = state.token.as_ref().map(|token| token.text.clone()).unwrap_or_default();
        Ok((token, Generation(state.generation)))
    }

    /// The project that the token is for.
    pub(crate) async fn project(&self) -> Result<ProjectId, AuthError> {
        let state = self.fresh().await?;
        let project = state.token.as_ref().and_then(|token| token.project.clone());
        project.ok_or_else(|| AuthError::Answer(self.credentials.endpoint.clone(), "the token has no project".into()))
    }

    /// Discards the token of `generation`. A newer token stays.
    pub(crate) async fn discard(&self, generation: Generation) {
        let mut state = self.state.lock().await;
        if state.generation == generation.0 {
            state.token = None;
        }
    }

    /// The state with a valid token. The lock is held during the fetch, so that all callers share one fetch.
    async fn fresh(&self) -> Result<MutexGuard<'_, TokenState>, AuthError> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if state.token.as_ref().is_some_and(|token| now < token.renew_at) {
            return Ok(state);
        }
        match self.fetch().await {
            Ok(token) => {
                state.token = Some(token);
                state.generation += 1;
                Ok(state)
            }
            Err(error) => match state.token.as_mut().filter(|token| now < token.ends_at) {
                // The old token is still valid. The next renewal waits, because IAM locks users after repeated wrong
                // passwords.
                Some(token) if error.is_retryable() || error.is_refused() => {
                    let retry_in = if error.is_refused() { REFUSED_PAUSE } else { RENEWAL_PAUSE };
                    token.renew_at = Instant::now() + retry_in;
                    tracing::warn!(%error, retry_in = %brief(retry_in), "the IAM token could not be renewed yet: the old one is used until it ends");
                    Ok(state)
                }
                _ => Err(error),
            },
        }
    }

    /// Requests a token from IAM, without retries.
    async fn fetch(&self) -> Result<Token, AuthError> {
        let endpoint = base(&self.credentials.endpoint);
        let asked_at = Instant::now();
        let request = Request::post(format!("{endpoint}/v3/auth/tokens"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(login(&self.credentials)));
        let answer = exchange(self.transport.as_ref(), endpoint, request).await?;
        let unreadable = |reason: &str| AuthError::Answer(endpoint.to_owned(), reason.to_owned());
        let text = answer
            .headers()
            .get("x-subject-token")
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| unreadable("it has no header X-Subject-Token"))?;
        let body: TokenBody = serde_json::from_slice(answer.body()).map_err(|error| unreadable(&error.to_string()))?;
        let lifetime = body.token.lifetime();
        Ok(Token {
            text: Secret::from(text),
            project: body.token.project.map(|project| project.id),
            renew_at: asked_at + lifetime.mul_f64(0.9),
            ends_at: asked_at + lifetime,
        })
    }
}

impl fmt::Debug for Iam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iam").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct TokenBody {
    token: TokenFields,
}

#[derive(Deserialize)]
struct TokenFields {
    issued_at: Option<String>,
    expires_at: Option<String>,
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Project {
    id: ProjectId,
    #[serde(default)]
    name: String,
}

impl TokenFields {
    /// Computed from IAM's two timestamps, because the local clock may be wrong.
    fn lifetime(&self) -> Duration {
        let time = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        time(&self.expires_at)
            .zip(time(&self.issued_at))
            .and_then(|(expires, issued)| Duration::try_from(expires.duration_since(issued)).ok())
            .unwrap_or(DEFAULT_LIFETIME)
    }
}

fn login(credentials: &IamCredentials) -> String {
    let scope = match &credentials.project {
        Scope::ProjectId(id) => json!({"project": {"id": id}}),
        Scope::ProjectName(name) => json!({"project": {"name": name}}),
    };
    let user = json!({
        "name": credentials.user,
        "password": credentials.password.expose(),
        "domain": {"name": credentials.domain},
    });
    json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}).to_string()
}

/// Looks up the id of a project by its name, with a signed `GET /v3/projects?name=…`.
pub(crate) async fn find_project(
    transport: &dyn Transport,
    endpoint: &str,
    key: &AccessKey,
    name: &str,
) -> Result<ProjectId, AuthError> {
    #[derive(Deserialize)]
    struct Projects {
        projects: Vec<Project>,
    }
    let endpoint = base(endpoint);
    let mut query = String::new();
    encode(&mut query, name.as_bytes());
    let uri = format!("{endpoint}/v3/projects?name={query}");
    let unreadable = |reason: String| AuthError::Answer(endpoint.to_owned(), reason);
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(&uri)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::new())
        .map_err(|error| unreadable(error.to_string()))?;
    if let Some(host) = request.uri().authority().and_then(|host| host.as_str().parse().ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    super::sign(key, &mut request, None)?;
    let answer = exchange(transport, endpoint, Ok(request)).await?;
    let found: Projects = serde_json::from_slice(answer.body()).map_err(|error| unreadable(error.to_string()))?;
    let project = found.projects.into_iter().find(|project| project.name.is_empty() || project.name == name);
    project.map(|project| project.id).ok_or_else(|| AuthError::Refused {
        endpoint: endpoint.to_owned(),
        status: StatusCode::NOT_FOUND,
        message: format!("there is no project {name:?}"),
        remedy: "give the project's id, or the name of one that the user may see",
    })
}

/// Sends `request` to IAM and returns the answer if it is a success.
async fn exchange(
    transport: &dyn Transport,
    endpoint: &str,
    request: Result<Request<Bytes>, http::Error>,
) -> Result<Response<Bytes>, AuthError> {
    let request = request.map_err(|error| AuthError::Answer(endpoint.to_owned(), error.to_string()))?;
    let answer =
        transport.send(request, TIMEOUT).await.map_err(|error| AuthError::Unreachable(endpoint.to_owned(), error))?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let body = ErrorBody::read(answer.body());
    Err(AuthError::Refused {
        endpoint: endpoint.to_owned(),
        status: answer.status(),
        message: body.message.or(body.code).unwrap_or_else(|| "no reason given".to_owned()),
        remedy: "check the user, the password, the domain and the project",
    })
}

/// An address without a final `/` or `/v3`.
fn base(endpoint: &str) -> &str {
    let endpoint = endpoint.trim_end_matches('/');
    endpoint.strip_suffix("/v3").unwrap_or(endpoint)
}
