//! [`Call`]: one operation of the API as a request that is authorized, sent, judged and repeated where that is safe.

use std::{
    collections::HashMap,
    error::Error as StdError,
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use tokio::{sync::OnceCell, time::Instant};
use tracing::Instrument;

use super::{
    Client,
    announced::Announced,
    code::{Class, ErrorCode, classify},
    credentials::Credentials,
    error::{Error, ErrorKind, Refusal},
    key_guard::{Blocked, KeyGuard, RefusalEffect, SendPermit},
    last_uri::LastUri,
    tries::{CREATION_TIMEOUT, Repeat, Tries},
};
use crate::{
    auth::{AccessKey, AuthError, Authenticator, Generation, encode, find_project},
    clock,
    current::Current,
    queue::ProjectId,
    retry::RetryPolicy,
    retry_after::RetryAfter,
    text::brief,
    transport::Transport,
    wire::{Content, Dialect, Wording, error::ErrorBody},
};

/// The most bytes of an unreadable answer that an error shows.
const EXCERPT: usize = 120;

/// The refusal of a call that the API of MQS does not have.
const NOT_IN_MQS: &str = "ROMA Connect MQS has no such call: its API produces, consumes and acknowledges; use the console of the service for \
                          anything else";

/// The state that all clones of a client share.
pub(crate) struct Inner {
    transport: Arc<dyn Transport>,
    base: String,
    host: HeaderValue,
    pub(super) wording: &'static Wording,
    /// How contents are written and read, in the dialect that has contents.
    pub(super) content: Content,
    project: Project,
    found_project: OnceCell<ProjectId>,
    credentials: Current<Credentials>,
    retry: RetryPolicy,
    timeout: Duration,
    pub(super) extensions: Announced,
    /// The queues and groups that this client created and that may not be ready yet.
    created: Mutex<HashMap<String, Instant>>,
    /// Whether `created` has entries. Calls read this flag, because the lock would make all of them wait for each other.
    any_created: AtomicBool,
    /// Whether the log has it that the service asks for too long a wait. Reset when a call works.
    logged_long_wait: AtomicBool,
}

/// The source of the project id.
pub(super) enum Project {
    Known(ProjectId),
    OfToken,
    Named { transport: Arc<dyn Transport>, key: AccessKey, name: String, iam: String },
}

/// An answer, and when its request was sent.
#[derive(Debug)]
pub(super) struct TimedAnswer {
    pub(super) response: Response<Bytes>,
    pub(super) sent: Instant,
}

/// One call, as an operation describes it.
pub(super) struct Call<'a> {
    /// The operation's name in errors and spans.
    operation: &'static str,
    method: Method,
    /// The segments of the path after the project.
    path: &'a [&'a str],
    query: String,
    body: Bytes,
    /// Headers in addition to the usual ones.
    headers: Vec<(HeaderName, HeaderValue)>,
    repeat: Repeat,
    /// Added to the usual timeout.
    wait: Duration,
    deadline: Option<Instant>,
    /// The last URI of this path, if the caller sends to it often.
    last_uri: Option<&'a LastUri>,
}

impl<'a> Call<'a> {
    pub(super) fn new(operation: &'static str, method: Method, path: &'a [&'a str], repeat: Repeat) -> Self {
        Self {
            operation,
            method,
            path,
            query: String::new(),
            body: Bytes::new(),
            headers: Vec::new(),
            repeat,
            wait: Duration::ZERO,
            deadline: None,
            last_uri: None,
        }
    }

    pub(super) fn query(mut self, query: impl Into<String>) -> Self {
        self.query = query.into();
        self
    }

    pub(super) fn body(mut self, body: Result<Vec<u8>, serde_json::Error>) -> Result<Self, Error> {
        let unwritable = |error: serde_json::Error| Error::new(self.operation, ErrorKind::Setup(error.to_string()));
        self.body = body.map_err(unwritable)?.into();
        Ok(self)
    }

    pub(super) fn header(mut self, header: Option<(HeaderName, HeaderValue)>) -> Self {
        self.headers.extend(header);
        self
    }

    pub(super) fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    pub(super) fn deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    pub(super) fn last_uri(mut self, last_uri: Option<&'a LastUri>) -> Self {
        self.last_uri = last_uri;
        self
    }
}

impl Client {
    /// Makes a call and reads its answer.
    pub(super) async fn fetch<T>(
        &self,
        call: Call<'_>,
        decode: impl Fn(&Bytes) -> Result<T, Unreadable>,
    ) -> Result<T, Error> {
        self.fetch_answer(call, |answer| decode(answer.response.body())).await
    }

    /// Makes a call and reads its answer, headers included.
    pub(super) async fn fetch_answer<T>(
        &self,
        call: Call<'_>,
        decode: impl Fn(&TimedAnswer) -> Result<T, Unreadable>,
    ) -> Result<T, Error> {
        let span = tracing::debug_span!("dms", operation = call.operation, path = call.path.join("/"));
        // Pinned first, because a span would move the whole future.
        pin!(self.inner.call(&call, decode)).instrument(span).await
    }

    /// Makes a call whose answer has no content.
    pub(super) async fn perform(&self, call: Call<'_>) -> Result<(), Error> {
        self.fetch_answer(call, |_| Ok(())).await
    }

    /// Remembers that a queue or group was created now, because the service may not find it for some seconds.
    pub(super) fn remember_created<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        let now = Instant::now();
        let mut created = self.inner.created.lock().unwrap_or_else(PoisonError::into_inner);
        created.retain(|_, at| now.duration_since(*at) < CREATION_TIMEOUT);
        created.extend(ids.map(|id| (id.to_owned(), now)));
        self.inner.any_created.store(!created.is_empty(), Relaxed);
    }
}

impl Inner {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        base: String,
        host: HeaderValue,
        wording: &'static Wording,
        project: Project,
        authenticator: Authenticator,
    ) -> Self {
        Self {
            transport,
            base,
            host,
            wording,
            content: Content::default(),
            project,
            found_project: OnceCell::new(),
            extensions: Announced::default(),
            credentials: Current::new(Credentials::new(authenticator)),
            retry: RetryPolicy::default(),
            timeout: Duration::from_secs(15),
            created: Mutex::default(),
            any_created: AtomicBool::new(false),
            logged_long_wait: AtomicBool::new(false),
        }
    }

    /// Writes and reads contents in this way.
    pub(super) fn with_content(mut self, content: Content) -> Self {
        self.content = content;
        self
    }

    pub(super) fn with_limits(mut self, retry: RetryPolicy, timeout: Duration) -> Self {
        (self.retry, self.timeout) = (retry, timeout);
        self
    }

    async fn call<T>(
        &self,
        call: &Call<'_>,
        decode: impl Fn(&TimedAnswer) -> Result<T, Unreadable>,
    ) -> Result<T, Error> {
        if self.wording.dialect == Dialect::Mqs && call.path.first() != Some(&"topic") {
            return Err(Error::new(call.operation, ErrorKind::Setup(NOT_IN_MQS.to_owned())));
        }
        let mut tries = Tries::new(call.repeat, &self.retry, call.deadline, Instant::now());
        loop {
            let tried = pin!(self.try_once(call)).await;
            let error = match tried {
                Ok(answer) => match decode(&answer) {
                    Ok(read) => {
                        self.is_ready(call.path);
                        return Ok(read);
                    }
                    Err(reason) => unreadable(call.operation, &answer.response, &reason),
                },
                Err(error) => error,
            };
            let reason = error.to_string();
            let pause = tries.failed(error, Instant::now(), self.recently_created(call.path))?;
            tracing::debug!(reason, pause = %brief(pause), "the call is repeated");
            tokio::time::sleep(pause).await;
        }
    }

    /// One try, followed by a second one if a new token may help.
    async fn try_once(&self, call: &Call<'_>) -> Result<TimedAnswer, Error> {
        let credentials = self.credentials.get();
        let Credentials { authenticator, guard } = &*credentials;
        let pass = guard.enter().await.map_err(|blocked| not_sent(call.operation, blocked))?;
        let mut tried = pin!(self.attempt(call, authenticator)).await;
        if let Err((error, Some(generation))) = &tried
            && error.class() == Some(Class::Auth)
            && authenticator.refused(*generation).await
        {
            tracing::debug!(%error, "the token was refused and is renewed");
            tried = Box::pin(self.attempt(call, authenticator)).await;
        }
        match tried {
            Ok(answer) => {
                self.accepted(guard, &pass);
                Ok(answer)
            }
            Err((error, _)) if error.is_key_refused() => Err(self.refused(guard, &pass, error)),
            Err((error, _)) => {
                if error.says_key_is_good() {
                    self.accepted(guard, &pass);
                }
                Err(error)
            }
        }
    }

    /// One request. The returned generation names the token that the request carried.
    async fn attempt(
        &self,
        call: &Call<'_>,
        authenticator: &Authenticator,
    ) -> Result<TimedAnswer, (Error, Option<Generation>)> {
        let fail = |kind| (Error::new(call.operation, kind), None);
        let credentials = |error: AuthError| fail(ErrorKind::Credentials(error.into()));
        let project = self.project(authenticator).await.map_err(credentials)?;
        let mut request = self.request(call, project).map_err(|error| (error, None))?;
        let generation = authenticator.authorize(&mut request, project).await.map_err(credentials)?;
        let timeout = self.time_left(call).ok_or_else(|| fail(ErrorKind::Deadline))?;
        let unanswered = |error| fail(ErrorKind::Transport(self.base.clone(), error));
        let sent = Instant::now();
        let response = self.transport.send(request, timeout).await.map_err(unanswered)?;
        self.extensions.note(response.status().is_success(), response.headers());
        if response.status().is_success() {
            self.logged_long_wait.store(false, Relaxed);
            return Ok(TimedAnswer { response, sent });
        }
        let retry_after = RetryAfter::read(response.headers(), clock::now());
        self.log_long_wait(call.operation, retry_after);
        let refusal = Refusal::read(response.status(), response.headers(), response.body(), retry_after);
        Err((Error::new(call.operation, ErrorKind::Service(refusal)), Some(generation)))
    }

    /// Whether requests carry credentials.
    pub(super) fn has_credentials(&self) -> bool {
        !matches!(self.credentials.get().authenticator, Authenticator::Anonymous)
    }

    /// Uses the credentials of `other` from now on.
    pub(super) fn authorize_as(&self, other: &Self) {
        let authenticator = other.credentials.get().authenticator.clone();
        self.credentials.update(|credentials| credentials.followed_by(authenticator));
    }

    fn accepted(&self, guard: &KeyGuard, pass: &SendPermit<'_>) {
        if guard.accepted(pass) {
            tracing::info!(endpoint = self.base, "the key is accepted again");
        }
    }

    /// Applies the guard's decision about a refused key to the error.
    fn refused(&self, guard: &KeyGuard, pass: &SendPermit<'_>, error: Error) -> Error {
        let endpoint = self.base.as_str();
        match guard.refused(pass, &error, error.is_passing_refusal()) {
            RefusalEffect::Stop => {
                tracing::error!(endpoint, %error, "the key is refused: this client stops, so that the key is not locked");
                error
            }
            RefusalEffect::Pause(retry_in) => {
                tracing::warn!(
                    endpoint,
                    %error,
                    retry_in = %brief(retry_in),
                    "the key is refused: nothing is sent until then, when one request tries it again"
                );
                error.waiting(retry_in)
            }
            RefusalEffect::AlreadyPaused(left) => error.waiting(left),
            RefusalEffect::Nothing => error,
        }
    }

    fn time_left(&self, call: &Call<'_>) -> Option<Duration> {
        let usual = self.timeout.saturating_add(call.wait);
        match call.deadline {
            None => Some(usual),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                (!left.is_zero()).then_some(left.min(usual))
            }
        }
    }

    async fn project(&self, authenticator: &Authenticator) -> Result<&ProjectId, AuthError> {
        let find = || async {
            match (&self.project, authenticator) {
                (Project::Known(id), _) => Ok(id.clone()),
                (Project::Named { transport, key, name, iam }, _) => {
                    find_project(transport.as_ref(), iam, key, name).await
                }
                (Project::OfToken, Authenticator::Iam(iam)) => iam.project().await,
                (Project::OfToken, _) => Ok(ProjectId::from("")),
            }
        };
        match &self.project {
            Project::Known(id) => Ok(id),
            _ => match self.found_project.get() {
                Some(id) => Ok(id),
                None => Box::pin(self.found_project.get_or_try_init(find)).await,
            },
        }
    }

    fn request(&self, call: &Call<'_>, project: &ProjectId) -> Result<Request<Bytes>, Error> {
        let uri = match call.last_uri.and_then(|last| last.with_query(&call.query)) {
            Some(uri) => uri,
            None => self.uri(call, project)?,
        };
        let mut request = Request::new(call.body.clone());
        (*request.method_mut(), *request.uri_mut()) = (call.method.clone(), uri);
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &call.headers {
            headers.insert(name.clone(), value.clone());
        }
        Ok(request)
    }

    fn uri(&self, call: &Call<'_>, project: &ProjectId) -> Result<Uri, Error> {
        let mut uri = String::with_capacity(256);
        uri.push_str(&self.base);
        uri.push_str(self.wording.prefix);
        if self.wording.dialect == Dialect::Dms {
            uri.push('/');
            uri.push_str(project.as_str());
        }
        for part in call.path {
            // An empty segment or a `.` would name another resource than the caller meant.
            if matches!(*part, "" | "." | "..") {
                let text = format!("{part:?} is no id of a queue, a group or a tag");
                return Err(Error::new(call.operation, ErrorKind::Setup(text)));
            }
            uri.push('/');
            encode(&mut uri, part.as_bytes());
        }
        if !call.query.is_empty() {
            uri.push('?');
            uri.push_str(&call.query);
        }
        let uri =
            Uri::try_from(uri).map_err(|error| Error::new(call.operation, ErrorKind::Setup(error.to_string())))?;
        if let Some(last) = call.last_uri {
            last.remember(&call.query, &uri);
        }
        Ok(uri)
    }

    /// Logs that the service asks for a longer wait than the client obeys; once until a call works.
    fn log_long_wait(&self, operation: &str, retry_after: Option<RetryAfter>) {
        let Some(retry_after) = retry_after else { return };
        if let Some(asked) = retry_after.shortened()
            && !self.logged_long_wait.swap(true, Relaxed)
        {
            let wait = retry_after.wait();
            tracing::warn!(
                operation,
                asked = %brief(asked),
                wait = %brief(wait),
                "the service asks for a very long pause (Retry-After): a shorter one is made"
            );
        }
    }

    /// Forgets that a resource is new, because it has answered. If it is not found later, somebody deleted it.
    fn is_ready(&self, path: &[&str]) {
        if !self.any_created.load(Relaxed) {
            return;
        }
        let now = Instant::now();
        let mut created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        // Old entries go too. Otherwise a resource that is created and never used would have every later call lock this.
        created.retain(|id, at| now.duration_since(*at) < CREATION_TIMEOUT && !path.contains(&id.as_str()));
        self.any_created.store(!created.is_empty(), Relaxed);
    }

    /// Returns when this client created a resource in `path`, if that was recently and the resource has not answered
    /// yet.
    fn recently_created(&self, path: &[&str]) -> Option<Instant> {
        let created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        path.iter().filter_map(|id| created.get(*id)).max().copied()
    }
}

/// The reason why an answer cannot be read.
pub(super) type Unreadable = Box<dyn StdError + Send + Sync>;

/// The error of a success that is not the service's JSON, such as the page of a proxy or a truncated answer.
fn unreadable(operation: &'static str, answer: &Response<Bytes>, reason: &Unreadable) -> Error {
    let text = format!("{reason}; it begins with {}", excerpt(answer.body()));
    Error::new(operation, ErrorKind::Answer(answer.status(), text.into()))
}

/// The first bytes of an answer as quoted text.
fn excerpt(body: &[u8]) -> String {
    let (first, more) = (&body[..body.len().min(EXCERPT)], if body.len() > EXCERPT { "…" } else { "" });
    format!("{:?}{more}", String::from_utf8_lossy(first))
}

/// The error of a request that the guard held back.
fn not_sent(operation: &'static str, blocked: Blocked) -> Error {
    match blocked {
        Blocked::Stopped(error) => Error::new(operation, ErrorKind::Stopped(error)),
        Blocked::Paused(left, error) => Error::new(operation, ErrorKind::Paused(error)).waiting(left),
    }
}

impl Refusal {
    fn read(status: StatusCode, headers: &HeaderMap, body: &[u8], retry_after: Option<RetryAfter>) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let ErrorBody { code: text, message, request_id } = ErrorBody::read(body);
        let code = text.as_deref().and_then(ErrorCode::parse);
        Self {
            status,
            code,
            foreign_code: text.filter(|_| code.is_none()),
            class: classify(status, code),
            message: message.unwrap_or_default(),
            request_id: request_id.or_else(|| header("x-request-id").map(str::to_owned)),
            retry_after: retry_after.map(RetryAfter::wait),
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("base", &self.base)
            .field("credentials", &self.credentials.get())
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}
