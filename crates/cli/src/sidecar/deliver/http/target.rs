//! The application as an HTTP client sees it: posts, and probes whether it is there. Only this file and `probe` of the
//! sidecar name reqwest.
//!
//! Posts to an `http://` URL take the short path of the library's client, which costs less than half of reqwest's time.

use std::{error::Error as StdError, fmt, io, path::PathBuf, pin::pin, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, USER_AGENT},
};
use reqwest::{Client, Url, redirect::Policy};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    config::HttpHandler,
    sidecar::{backpressure::app::Health, deliver::http::credentials::Credentials},
};
use dms_protocol::internal::{
    current::Current,
    secret_url::{SecretUrl, without_secrets},
    text::brief,
};
use dms_worker::internal::{NoExchange, Pool, PoolLimits, certificates};

/// The `User-Agent` of posts.
const NAME: &str = concat!("dms-worker/", env!("CARGO_PKG_VERSION"));

/// How much of an answer's body is read: enough for the connection to be used again, for an error text, and for the verdicts
/// of many messages.
const MAX_READ_BYTES: usize = 1024 * 1024;

/// How long a connection may be idle and be used again: less than usual servers wait before they close one (gunicorn 2 s, Node
/// and uvicorn 5 s), or a message would meet the closing now and then, and fail for nothing.
const POOL_IDLE: Duration = Duration::from_millis(1500);
/// How long a health check may take, at least.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// An application's address, with its connections.
#[derive(Debug)]
pub(crate) struct Target {
    client: Client,
    url: SecretUrl,
    /// The same, read once.
    parsed_url: ParsedUrl,
    plain: Option<PlainTarget>,
    health_url: Option<SecretUrl>,
    unix_socket: Option<PathBuf>,
    connect_timeout: Duration,
    credentials: Current<Credentials>,
}

/// The short path to an application: `http://` over TCP, without a user in the URL.
struct PlainTarget {
    pool: Pool,
    uri: Uri,
}

impl PlainTarget {
    /// `None` if the application needs what only reqwest has.
    fn new(handler: &HttpHandler, url: &Url, concurrency: usize) -> Option<Self> {
        let has_user = !url.username().is_empty() || url.password().is_some();
        if url.scheme() != "http" || has_user || handler.unix_socket.is_some() {
            return None;
        }
        let mut url = url.clone();
        url.set_fragment(None);
        let limits = PoolLimits {
            idle_per_host: concurrency,
            idle_timeout: POOL_IDLE,
            connect_timeout: handler.connect_timeout.get(),
        };
        Some(Self { pool: Pool::new(limits), uri: url.as_str().parse().ok()? })
    }

    async fn post(&self, headers: HeaderMap, body: Bytes, wait: Duration) -> Result<AppAnswer, NoAnswer> {
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut()) = (Method::POST, self.uri.clone());
        *request.headers_mut() = headers;
        // As reqwest sends them.
        for (name, value) in [(ACCEPT, "*/*"), (USER_AGENT, NAME)] {
            request.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
        }
        let exchanged = pin!(self.pool.exchange_leniently(request, wait, MAX_READ_BYTES)).await;
        let answer = exchanged.map_err(|error| match error {
            NoExchange::Connect(error) => NoAnswer::NotReached(error),
            NoExchange::TimedOut { .. } => NoAnswer::TimedOut(wait),
            NoExchange::Broken { error, .. } => NoAnswer::Broken(error.into()),
        })?;
        let (head, body) = answer.into_parts();
        Ok(AppAnswer { status: head.status, headers: head.headers, body })
    }
}

impl fmt::Debug for PlainTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainTarget")
    }
}

/// A URL that may hold secrets.
struct ParsedUrl(Url);

impl fmt::Debug for ParsedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ParsedUrl")
    }
}

/// An answer; a very long body is cut short, and our secrets in it are masked.
#[derive(Debug)]
pub(crate) struct AppAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl AppAnswer {
    /// The text about an answer that is a failure: the status and the beginning of the body.
    pub(crate) fn failure(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body).trim().chars().take(200).collect();
        let (status, colon) = (self.status, if text.is_empty() { "" } else { ": " });
        format!("the application answered {status}{colon}{text}")
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// No connection came about: the application has seen nothing.
    #[error("the application cannot be reached: {0}")]
    NotReached(#[source] Box<dyn StdError + Send + Sync>),
    /// It did not answer in time.
    #[error("the application did not answer within {}", brief(*.0))]
    TimedOut(Duration),
    /// The connection broke before the answer.
    #[error("the connection to the application broke: {0}")]
    Broken(#[source] Box<dyn StdError + Send + Sync>),
}

impl Target {
    /// The target of a handler that posts at most `concurrency` messages at a time.
    ///
    /// # Errors
    /// When its authorities cannot be read, or the HTTP client cannot be set up.
    pub(crate) fn new(handler: &HttpHandler, concurrency: usize) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        let mut client = Client::builder()
            .user_agent(NAME)
            .http1_only()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(handler.connect_timeout.get())
            .pool_max_idle_per_host(concurrency)
            .pool_idle_timeout(POOL_IDLE)
            .no_proxy();
        if let Some(path) = &handler.unix_socket {
            client = client.unix_socket(path.as_path());
        }
        if let Some(file) = &handler.ca_file {
            client = client.tls_certs_only(certificates(file)?);
        }
        let parsed_url: Url = handler.url.expose().parse()?;
        Ok(Self {
            client: client.build()?,
            url: handler.url.clone(),
            plain: PlainTarget::new(handler, &parsed_url, concurrency),
            parsed_url: ParsedUrl(parsed_url),
            health_url: handler.health_url.clone(),
            unix_socket: handler.unix_socket.clone(),
            connect_timeout: handler.connect_timeout.get(),
            credentials: Current::new(Credentials::of(handler)),
        })
    }

    /// Posts a message.
    ///
    /// # Errors
    /// When there is no answer within `wait`.
    pub(crate) async fn post(&self, headers: HeaderMap, body: Bytes, wait: Duration) -> Result<AppAnswer, NoAnswer> {
        let answer = match &self.plain {
            Some(plain) => pin!(plain.post(headers, body, wait)).await?,
            None => Box::pin(self.post_with_reqwest(headers, body, wait)).await?,
        };
        Ok(AppAnswer { body: self.credentials.get().redaction.apply(answer.body), ..answer })
    }

    async fn post_with_reqwest(&self, headers: HeaderMap, body: Bytes, wait: Duration) -> Result<AppAnswer, NoAnswer> {
        let request = self.client.post(self.parsed_url.0.clone()).headers(headers).body(body).timeout(wait);
        // The URL may hold secrets, and is known.
        let no_answer = |error: reqwest::Error| match error.without_url() {
            error if error.is_connect() => NoAnswer::NotReached(error.into()),
            error if error.is_timeout() => NoAnswer::TimedOut(wait),
            error => NoAnswer::Broken(error.into()),
        };
        let mut response = request.send().await.map_err(no_answer)?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let mut body = Vec::new();
        // The status is the answer: a body that breaks off, or never ends, changes nothing about it.
        while body.len() < MAX_READ_BYTES {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(AppAnswer { status, headers, body })
    }

    /// What the application is sent besides messages.
    pub(crate) fn credentials(&self) -> &Current<Credentials> {
        &self.credentials
    }

    /// Whether the application has a URL that tells how it is.
    pub(crate) fn has_health_url(&self) -> bool {
        self.health_url.is_some()
    }

    /// How the application is: what its health URL answers, or else whether it takes a connection.
    pub(crate) async fn look(&self) -> Health {
        let Some(url) = &self.health_url else {
            return match timeout(self.connect_timeout, self.connect()).await {
                Ok(Ok(())) => Health::Well,
                Ok(Err(error)) => Health::Ill(self.unreached(&error)),
                Err(_) => {
                    Health::Ill(format!("{}: no connection within {}", self.address(), brief(self.connect_timeout)))
                }
            };
        };
        let asked = format!("GET {}", without_secrets(url.expose()));
        match self.client.get(url.expose()).timeout(self.connect_timeout.max(HEALTH_TIMEOUT)).send().await {
            Ok(answer) if answer.status().is_success() => Health::Well,
            Ok(answer) => Health::Ill(format!("{asked} answered {}", answer.status())),
            Err(error) if error.is_timeout() && !error.is_connect() => Health::Silent(asked),
            Err(error) => Health::Ill(format!("{asked}: {}", root(&error.without_url()))),
        }
    }

    /// The text of a connection that did not come about, with the address.
    pub(crate) fn unreached(&self, error: &(dyn StdError + 'static)) -> String {
        format!("{}: {}", self.address(), root(error))
    }

    fn address(&self) -> String {
        match &self.unix_socket {
            Some(path) => path.display().to_string(),
            None => without_secrets(self.url.expose()),
        }
    }

    async fn connect(&self) -> io::Result<()> {
        #[cfg(unix)]
        if let Some(path) = &self.unix_socket {
            return tokio::net::UnixStream::connect(path).await.map(drop);
        }
        let uri = self.url.expose().parse::<http::Uri>().map_err(io::Error::other)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        TcpStream::connect((host, port)).await.map(drop)
    }
}

/// The first cause of an error, which says what happened: the errors around it say only where.
fn root(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_status_and_the_body_if_there_is_one() {
        let failure = |body: &str| {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            AppAnswer { status, headers: HeaderMap::new(), body: body.into() }.failure()
        };
        assert_eq!(failure(" no order \n"), "the application answered 422 Unprocessable Entity: no order");
        assert_eq!(failure(""), "the application answered 422 Unprocessable Entity");
    }
}
