//! A look at messages that leases nothing, through the admin address of this project's server.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::filter::Filter;
use crate::{
    cli::{
        context::Context,
        failure::{Failure, Kind},
    },
    message::{Attributes, Body},
    queue::{SourcePath, Stream},
    transport::{HttpOptions, HttpTransport, Transport},
};

/// Messages of one answer: ten of the largest stay below what is read of an answer.
const PAGE: u64 = 10;

/// A message as the server shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Peeked {
    pub(super) sequence: u64,
    /// `available`, `leased` or `delayed`.
    pub(super) state: String,
    pub(super) failures: u32,
    message: Shown,
}

#[derive(Debug, Deserialize)]
struct Shown {
    body: Box<RawValue>,
    #[serde(default)]
    attributes: Attributes,
    #[serde(default)]
    tags: Vec<String>,
}

impl Peeked {
    pub(super) fn body(&self) -> Body {
        Body::trusted(Bytes::copy_from_slice(self.message.body.get().as_bytes()))
    }

    pub(super) fn attributes(&self) -> &Attributes {
        &self.message.attributes
    }
}

/// The admin address to ask: the one that was named, or else that of the configured embedded server.
pub(super) fn address(named: Option<&str>, context: &Context) -> Result<Option<String>, Failure> {
    if let Some(named) = named {
        let url = if named.contains("://") { named.to_owned() } else { format!("http://{named}") };
        return Ok(Some(url.trim_end_matches('/').to_owned()));
    }
    let config = context.load()?.config;
    let address = config.server.admin.filter(|_| config.dms.is_embedded());
    Ok(address.map(|address| format!("http://{address}")))
}

/// The first messages that pass, leased ones included.
///
/// # Errors
/// When the address cannot be reached, or what is there is no admin address of a server with this group.
pub(super) async fn peek(admin: &str, source: &SourcePath, filter: &Filter, max: u64) -> Result<Vec<Peeked>, Failure> {
    let unreachable = |error: crate::transport::TransportError| {
        Failure::of(Kind::Unavailable, format!("{admin}: {error}")).because(error)
    };
    let transport = HttpTransport::new(&HttpOptions { tls: admin.starts_with("https"), ..HttpOptions::default() });
    let transport = transport.map_err(unreachable)?;
    let stream = match source.stream {
        Stream::Messages => "messages",
        Stream::DeadLetters => "deadletters",
    };
    let mut seen = Vec::new();
    let mut from = 0;
    loop {
        let (queue, group) = (&source.queue, &source.group);
        let url =
            format!("{admin}/admin/queues/{queue}/groups/{group}/messages?stream={stream}&from={from}&max={PAGE}");
        let request = Request::get(&url).body(Bytes::new());
        let request = request.map_err(|error| Failure::of(Kind::Usage, format!("--admin {admin}: {error}")))?;
        let answer = transport.send(request, Duration::from_secs(10)).await.map_err(unreachable)?;
        let page: Vec<Peeked> = match (answer.status(), serde_json::from_slice(answer.body())) {
            (StatusCode::OK, Ok(page)) => page,
            (status, _) => {
                let text =
                    format!("{admin} is not the admin address of a server with this group: it answered {status}");
                return Err(Failure::new(text));
            }
        };
        let Some(last) = page.last() else { return Ok(seen) };
        from = last.sequence + 1;
        for peeked in page {
            if filter.holds(&peeked.body(), peeked.attributes(), &peeked.message.tags) {
                seen.push(peeked);
            }
            if seen.len() as u64 >= max {
                return Ok(seen);
            }
        }
    }
}
