//! [`Admin`]: the admin address of a running server, as commands ask it.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use serde::de::DeserializeOwned;

use super::{
    context::Context,
    failure::{Failure, Kind},
};
use crate::{
    secret_url::without_secrets,
    transport::{HttpOptions, HttpTransport, Transport, TransportError},
};

/// How long an answer may take, unless the command knows better.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that is asked through its admin address.
#[derive(Debug)]
pub(crate) struct Admin {
    url: String,
    transport: HttpTransport,
    patience: Duration,
}

impl Admin {
    /// The address that was named with `--admin`, or else `server.admin` of the configuration.
    ///
    /// # Errors
    /// When neither is there.
    pub(crate) fn find(named: Option<&str>, context: &Context) -> Result<Self, Failure> {
        let address = match named {
            Some(named) => return Self::at(named),
            None => context.load()?.config.server.admin,
        };
        let unknown = "the server's admin address is not known: name it with --admin, or set server.admin";
        Self::listening(address.ok_or_else(|| Failure::of(Kind::Usage, unknown))?)
    }

    /// The address that was named, or else that of the embedded server whose queues the configuration uses; `None` where it
    /// names another service.
    pub(crate) fn of_service(named: Option<&str>, context: &Context) -> Result<Option<Self>, Failure> {
        if let Some(named) = named {
            return Self::at(named).map(Some);
        }
        let config = context.load()?.config;
        config.server.admin.filter(|_| config.dms.is_embedded()).map(Self::listening).transpose()
    }

    fn listening(address: SocketAddr) -> Result<Self, Failure> {
        Self::at(&address.to_string())
    }

    /// The server at this URL; `http://` may be left out.
    fn at(named: &str) -> Result<Self, Failure> {
        let url = if named.contains("://") { named.to_owned() } else { format!("http://{named}") };
        let url = url.trim_end_matches('/').to_owned();
        let options = HttpOptions { tls: url.starts_with("https"), ..HttpOptions::default() };
        let transport = HttpTransport::new(&options).map_err(|error| unreachable(&url, error))?;
        Ok(Self { url, transport, patience: PATIENCE })
    }

    /// Waits this long for an answer.
    pub(crate) fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
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
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let shown = without_secrets(&self.url);
        let request = Request::builder().method(method).uri(format!("{}{path}?{query}", self.url)).body(Bytes::new());
        let request = request.map_err(|error| Failure::of(Kind::Usage, format!("--admin {shown}: {error}")))?;
        let answer = self.transport.send(request, self.patience).await;
        let answer = answer.map_err(|error| unreachable(&self.url, error))?;
        match serde_json::from_slice(answer.body()) {
            Ok(told) if answer.status().is_success() => Ok(told),
            _ => Err(Failure::new(format!("{shown} answered {}: {}", answer.status(), refusal(answer.body())))),
        }
    }
}

fn unreachable(url: &str, error: TransportError) -> Failure {
    Failure::of(Kind::Unavailable, format!("{}: {error}", without_secrets(url))).because(error)
}

/// The text of a refusal.
fn refusal(body: &[u8]) -> String {
    let said: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    said["error_msg"].as_str().unwrap_or("it is not the admin address of a server").to_owned()
}
