//! [`AdminClient`]: the admin address of a running server, as commands ask it.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Uri, header::AUTHORIZATION};
use serde::de::DeserializeOwned;

use crate::{
    cli::support::{
        context::Context,
        failure::{ExitKind, Failure},
    },
    config::{Config, Secret},
};
use dms_protocol::internal::secret_url::without_secrets;
use dms_server::internal::host_check::is_loopback;
use dms_worker::transport::{HttpOptions, HttpTransport, Transport, TransportError};

/// How long an answer may take, unless the command knows better.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A server that is asked through its admin address.
#[derive(Debug)]
pub(crate) struct AdminClient {
    url: String,
    /// Shown to it, where it cannot be read on the way.
    token: Option<Secret>,
    transport: HttpTransport,
    timeout: Duration,
}

impl AdminClient {
    /// The address that was named with `--admin`, or else `server.admin` of the configuration.
    ///
    /// # Errors
    /// When neither is there.
    pub(crate) fn find(named: Option<&str>, context: &Context) -> Result<Self, Failure> {
        match named {
            Some(named) => Self::named(named, context),
            None => Self::configured(&context.load_service()?.config)?.ok_or_else(unknown),
        }
    }

    /// The address that was named, or else `server.admin`, where the service that commands talk to is that server; `None` where
    /// it is another one.
    ///
    /// # Errors
    /// When the configuration is wrong.
    pub(crate) fn of_service(named: Option<&str>, context: &Context) -> Result<Option<Self>, Failure> {
        if let Some(named) = named {
            return Self::named(named, context).map(Some);
        }
        let config = context.load_service()?.config;
        if is_own(&config) { Self::configured(&config) } else { Ok(None) }
    }

    /// As [`find`](Self::find), for what must not reach another server than the service by mistake.
    ///
    /// # Errors
    /// When the admin address of the service is not known.
    pub(crate) fn of_queues(named: Option<&str>, context: &Context) -> Result<Self, Failure> {
        if let Some(named) = named {
            return Self::named(named, context);
        }
        let config = context.load_service()?.config;
        if !is_own(&config) {
            let text = format!("the admin address of {} is not known: name it with --admin", config.dms.endpoint);
            return Err(Failure::of(ExitKind::Usage, text));
        }
        Self::configured(&config)?.ok_or_else(unknown)
    }

    /// Where it is asked, without secrets.
    pub(crate) fn url(&self) -> String {
        without_secrets(&self.url)
    }

    /// The server at this URL; `http://` may be left out. What the configuration says of the token and the authority counts
    /// for it too; one that is wrong otherwise keeps nobody from asking a server.
    fn named(named: &str, context: &Context) -> Result<Self, Failure> {
        let url = if named.contains("://") { named.to_owned() } else { format!("http://{named}") };
        let config = context.load_service().map(|loaded| loaded.config).unwrap_or_default();
        Self::at(url.trim_end_matches('/'), &config)
    }

    /// The server of a configuration.
    fn configured(config: &Config) -> Result<Option<Self>, Failure> {
        let Some(address) = config.server.admin_listen() else { return Ok(None) };
        let scheme = if config.server.admin_tls().is_some() { "https" } else { "http" };
        // A certificate is for a name, and none for the address that stands for all of a machine.
        let url = match address.ip().is_unspecified() {
            true => format!("{scheme}://localhost:{}", address.port()),
            false => format!("{scheme}://{address}"),
        };
        Self::at(&url, config).map(Some)
    }

    fn at(url: &str, config: &Config) -> Result<Self, Failure> {
        let (tls, ca_file) = (url.starts_with("https://"), config.dms.ca_file.clone());
        let options = HttpOptions::new().tls(tls).ca_file(ca_file.filter(|_| tls));
        let transport = HttpTransport::new(&options).map_err(|error| unreachable(url, error))?;
        let token = config.server.admin_token().cloned().filter(|_| tls || is_local(url));
        Ok(Self { url: url.to_owned(), token, transport, timeout: TIMEOUT })
    }

    /// Waits this long for an answer.
    pub(crate) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Asks, and reads what the server says.
    ///
    /// # Errors
    /// When there is no answer, a refusal, or one that no server of ours gives.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, Cow<'_, str>)],
    ) -> Result<T, Failure> {
        self.send(method, path, parameters, Vec::new()).await
    }

    /// As [`ask`](Self::ask), with a body.
    ///
    /// # Errors
    /// As `ask`.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, Cow<'_, str>)],
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let shown = without_secrets(&self.url);
        let request = Request::builder().method(method).uri(format!("{}{path}?{query}", self.url));
        let request = match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {}", token.expose())),
            None => request,
        };
        let request = request.body(Bytes::from(body));
        let request = request.map_err(|error| Failure::of(ExitKind::Usage, format!("--admin {shown}: {error}")))?;
        let answer = self.transport.send(request, self.timeout).await;
        let answer = answer.map_err(|error| unreachable(&self.url, error))?;
        match serde_json::from_slice(answer.body()) {
            Ok(told) if answer.status().is_success() => Ok(told),
            _ => Err(Failure::new(format!("{shown} answered {}: {}", answer.status(), refusal(answer.body())))),
        }
    }
}

/// Whether the service of a configuration is its own server: the one in the process of `run`, or one at the address that
/// `server.listen` has.
fn is_own(config: &Config) -> bool {
    let listen = config.server.listen;
    let uri: Option<Uri> = config.dms.endpoint.expose().parse().ok();
    let at = uri.as_ref().and_then(|uri| Some((host(uri)?, uri.port_u16()?)));
    config.dms.is_embedded()
        || at.is_some_and(|(host, port)| {
            let same = host.parse().is_ok_and(|address: IpAddr| address == listen.ip());
            port == listen.port()
                && (same || is_loopback(host) && (listen.ip().is_loopback() || listen.ip().is_unspecified()))
        })
}

/// The host of a URL, an IPv6 address without its brackets.
fn host(uri: &Uri) -> Option<&str> {
    uri.host().map(|host| host.trim_matches(['[', ']']))
}

/// Whether a URL leads to this machine, where a token may go without TLS.
pub(crate) fn is_local(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    uri.as_ref().and_then(host).is_some_and(is_loopback)
}

fn unknown() -> Failure {
    Failure::of(ExitKind::Usage, "the server's admin address is not known: name it with --admin, or set server.admin")
}

fn unreachable(url: &str, error: TransportError) -> Failure {
    Failure::of(ExitKind::Unavailable, format!("{}: {error}", without_secrets(url))).because(error)
}

/// The text of a refusal.
fn refusal(body: &[u8]) -> String {
    let said: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    said["error_msg"].as_str().unwrap_or("it is not the admin address of a server").to_owned()
}
