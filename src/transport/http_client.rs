//! [`HttpTransport`]: HTTP/1.1 over sockets, with or without TLS and proxies. This is the only file that names reqwest.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::Uri;
use reqwest::{Certificate, Client, Url, redirect::Policy, retry};

use super::{
    Transport, TransportError,
    answer::whole,
    direct::{DirectHttp, IDLE, NAME},
    outgoing::{Departure, Outgoing},
    pool::{KEEPALIVE, UNACKNOWLEDGED},
    tls::{UnusableAuthorities, authorities, client_config},
};

/// The environment variables that name proxies.
const PROXY_VARIABLES: [&str; 6] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The most parsed URLs to cache.
const MAX_CACHED_URLS: usize = 1_024;

/// Options of an [`HttpTransport`].
///
/// ```
/// use std::time::Duration;
/// use dms_worker::transport::{HttpOptions, HttpTransport};
///
/// let options = HttpOptions::new().connect_timeout(Duration::from_secs(2)).tls(false);
/// let transport = HttpTransport::new(&options)?; // for ClientBuilder::transport
/// # Ok::<(), dms_worker::transport::TransportError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpOptions {
    /// The most idle connections to keep; 1,024 by default. Below the number of concurrent calls, connections are
    /// opened again and again; a worker has acknowledgements in flight as well as polls. Idle connections close after
    /// 20 s.
    pub pool_size: usize,
    /// The timeout of connecting, TLS included; 5 s by default.
    pub connect_timeout: Duration,
    /// A PEM file with the certificate authorities to trust instead of the system's; none by default.
    pub ca_file: Option<PathBuf>,
    /// Whether TLS is needed; on by default. If off, no certificate authorities are loaded, so a machine without any
    /// will do.
    pub tls: bool,
    /// Whether the proxies of the environment (`HTTPS_PROXY` and others) are used; on by default.
    pub proxies: bool,
    /// Whether any certificate is accepted; off by default. Then anybody on the way can read and forge answers.
    pub insecure_skip_verify: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            pool_size: 1_024,
            connect_timeout: Duration::from_secs(5),
            ca_file: None,
            tls: true,
            proxies: true,
            insecure_skip_verify: false,
        }
    }
}

impl HttpOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most idle connections to keep; 1,024 by default. See [`pool_size`](#structfield.pool_size).
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections;
        self
    }

    /// The timeout of connecting, TLS included; 5 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// A PEM file with the certificate authorities to trust instead of the system's; none by default.
    pub fn ca_file(mut self, file: impl Into<Option<PathBuf>>) -> Self {
        self.ca_file = file.into();
        self
    }

    /// Whether TLS is needed; on by default. If off, no certificate authorities are loaded.
    pub fn tls(mut self, on: bool) -> Self {
        self.tls = on;
        self
    }

    /// Whether the proxies of the environment (`HTTPS_PROXY` and others) are used; on by default.
    pub fn proxies(mut self, on: bool) -> Self {
        self.proxies = on;
        self
    }

    /// Whether any certificate is accepted; off by default. Then anybody on the way can read and forge answers.
    pub fn insecure_skip_verify(mut self, on: bool) -> Self {
        self.insecure_skip_verify = on;
        self
    }
}

/// A pool of HTTP/1.1 connections. It does not use HTTP/2, because long polls and acknowledgements would share one
/// connection.
#[derive(Clone, Debug)]
pub struct HttpTransport {
    route: Route,
}

/// The way of the requests.
#[derive(Clone, Debug)]
enum Route {
    /// To the service itself, which is faster.
    Direct(DirectHttp),
    /// Through the proxies of the environment.
    Proxied(ProxiedHttp),
}

/// Requests through reqwest, which knows proxies.
#[derive(Clone, Debug)]
struct ProxiedHttp {
    client: Client,
    urls: Arc<Urls>,
}

impl HttpTransport {
    /// Makes a pool. It connects when the first request is sent.
    ///
    /// # Errors
    /// When the certificate authorities cannot be read, or TLS is needed and the system has none.
    pub fn new(options: &HttpOptions) -> Result<Self, TransportError> {
        let tls = client_config(options)?;
        if !options.proxies || !has_proxies() {
            let direct = DirectHttp::new(options.pool_size, options.connect_timeout, Arc::new(tls));
            return Ok(Self { route: Route::Direct(direct) });
        }
        let builder = Client::builder()
            .user_agent(NAME)
            .http1_only()
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(options.pool_size)
            .connect_timeout(options.connect_timeout)
            // A redirect would send a signed request to another host.
            .redirect(Policy::none())
            // reqwest copies each request for its retries, which HTTP/1.1 never uses.
            .retry(retry::never().max_retries_per_request(0))
            .referer(false)
            .tcp_nodelay(true)
            .tcp_keepalive(KEEPALIVE)
            .tls_backend_preconfigured(tls);
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        let builder = builder.tcp_user_timeout(UNACKNOWLEDGED);
        builder.build().map(Self::over).map_err(TransportError::not_sent)
    }

    /// A transport that sends all requests through `client`.
    pub(super) fn over(client: Client) -> Self {
        Self { route: Route::Proxied(ProxiedHttp { client, urls: Arc::default() }) }
    }
}

/// Returns whether the environment names any proxy.
fn has_proxies() -> bool {
    PROXY_VARIABLES.iter().any(|name| std::env::var_os(name).is_some_and(|proxy| !proxy.is_empty()))
}

/// A cache of parsed URLs. A worker uses the same two again and again, and parsing one costs more than the rest of this
/// file does for a request.
#[derive(Default)]
struct Urls(Mutex<HashMap<Uri, Url>>);

impl Urls {
    fn read(&self, uri: Uri) -> Result<Url, TransportError> {
        if let Some(url) = self.lock().get(&uri) {
            return Ok(url.clone());
        }
        let url: Url = uri.to_string().parse().map_err(TransportError::not_sent)?;
        let mut kept = self.lock();
        if kept.len() >= MAX_CACHED_URLS {
            kept.clear();
        }
        kept.insert(uri, url.clone());
        Ok(url)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uri, Url>> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Urls({})", self.lock().len())
    }
}

/// The certificate authorities of a PEM file, for another client of reqwest.
///
/// # Errors
/// When the file cannot be read, or has no certificate; the error names the file.
pub fn certificates(file: &Path) -> Result<Vec<Certificate>, UnusableAuthorities> {
    let unusable = |error: reqwest::Error| UnusableAuthorities::new(file, error.to_string());
    authorities(file)?.iter().map(|der| Certificate::from_der(der).map_err(unusable)).collect()
}

impl Transport for HttpTransport {
    // Not an `async fn`, whose future would have room for both ways, and be moved into its box.
    fn send<'a, 'b>(
        &'a self,
        request: http::Request<Bytes>,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, TransportError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        match &self.route {
            Route::Direct(direct) => Box::pin(direct.send(request, timeout)),
            Route::Proxied(proxied) => Box::pin(proxied.send(request, timeout)),
        }
    }
}

impl ProxiedHttp {
    /// As [`Transport::send`].
    async fn send(
        &self,
        request: http::Request<Bytes>,
        timeout: Duration,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let (parts, body) = request.into_parts();
        let mut request = reqwest::Request::new(parts.method, self.urls.read(parts.uri)?);
        *request.headers_mut() = parts.headers;
        *request.timeout_mut() = Some(timeout);
        let (body, departure) = Outgoing::new(body);
        *request.body_mut() = Some(reqwest::Body::wrap(body));
        let failure = |error| failure(error, &departure);
        let answer = self.client.execute(request).await.map_err(failure)?;
        whole(answer.into(), failure).await
    }
}

fn failure(error: reqwest::Error, departure: &Departure) -> TransportError {
    // The URL has only ids; the caller's error has the names.
    let error = error.without_url();
    if error.is_timeout() { departure.timed_out(error) } else { departure.failed(error) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn urls_are_kept_but_not_without_end() {
        let urls = Urls::default();
        for number in 0..=MAX_CACHED_URLS {
            let text = format!("http://127.0.0.1:9400/v2/p/queues/{number}?max_msgs=10");
            for time in ["first", "second"] {
                assert_eq!(urls.read(text.parse().unwrap()).unwrap().as_str(), text, "the {time} time");
            }
        }
        assert_eq!(urls.lock().len(), 1, "the set was cleared");
    }
}
