//! A look at messages that leases nothing, through the admin address of this project's server.

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::{
    commands::dlq::filter::Filter,
    support::{admin_client::AdminClient, failure::Failure},
};
use dms_protocol::{
    message::{Attributes, Body, DeadLetterInfo},
    queue::{SourcePath, Stream},
};

/// Messages per answer: ten of the largest fit into the limit for answers.
const PAGE: &str = "10";

/// A message as the server shows it.
#[derive(Debug)]
pub(super) struct Peeked {
    pub(super) sequence: u64,
    /// `available`, `leased` or `delayed`.
    pub(super) state: String,
    pub(super) failures: u32,
    /// Why and when it died, of dead letters.
    pub(super) died: Option<DeadLetterInfo>,
    pub(super) body: Body,
    pub(super) attributes: Attributes,
    tags: Vec<String>,
}

/// The same on the wire; the message in its own text, which may be one that cannot be read.
#[derive(Debug, Deserialize)]
struct Entry {
    sequence: u64,
    state: String,
    failures: u32,
    #[serde(default)]
    dead_letter: Option<Box<RawValue>>,
    message: Box<RawValue>,
}

#[derive(Debug, Deserialize)]
struct MessageJson {
    body: Box<RawValue>,
    #[serde(default)]
    attributes: Attributes,
    #[serde(default)]
    tags: Vec<String>,
}

impl From<Entry> for Peeked {
    /// A message that cannot be read is shown with its text and the reason: it breaks no page.
    fn from(entry: Entry) -> Self {
        let text = entry.message.get();
        let (body, attributes, tags) = match serde_json::from_str::<MessageJson>(text) {
            Ok(MessageJson { body, attributes, tags }) => {
                (Body::trusted(Bytes::copy_from_slice(body.get().as_bytes())), attributes, tags)
            }
            Err(error) => {
                let body = Body::undecodable(Bytes::copy_from_slice(text.as_bytes()), &error.to_string());
                (body, Attributes::new(), Vec::new())
            }
        };
        let died = entry.dead_letter.and_then(|info| serde_json::from_str(info.get()).ok());
        Self { sequence: entry.sequence, state: entry.state, failures: entry.failures, died, body, attributes, tags }
    }
}

/// The first messages that pass, leased ones included.
///
/// # Errors
/// When the server cannot be asked, or knows no such group.
pub(super) async fn peek(
    admin: &AdminClient,
    source: &SourcePath,
    filter: &Filter,
    max: u64,
) -> Result<Vec<Peeked>, Failure> {
    let path = format!("/admin/queues/{}/groups/{}/messages", source.queue, source.group);
    let stream = match source.stream {
        Stream::Messages => "messages",
        Stream::DeadLetters => "deadletters",
    };
    let mut seen = Vec::new();
    let mut from = 0;
    loop {
        let parameters = [("stream", stream.into()), ("from", from.to_string().into()), ("max", PAGE.into())];
        let page: Vec<Entry> = admin.ask(Method::GET, &path, &parameters).await?;
        let Some(last) = page.last() else { return Ok(seen) };
        from = last.sequence + 1;
        for peeked in page.into_iter().map(Peeked::from) {
            if filter.holds(&peeked.body, &peeked.attributes, &peeked.tags) {
                seen.push(peeked);
            }
            if seen.len() as u64 >= max {
                return Ok(seen);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_message_that_cannot_be_read_breaks_no_page() {
        let page = r#"[{"sequence":1,"state":"available","failures":0,"message":{"body":1,"attributes":{"a":1}}},
            {"sequence":2,"state":"leased","failures":1,"message":{"body":2,"attributes":{"who":"\ud83d"}},"dead_letter":7},
            {"sequence":3,"state":"available","failures":2,"message":[],
             "dead_letter":{"reason":"failed","attempts":3,"last_failure":5}}]"#;
        let page: Vec<Entry> = serde_json::from_str(page).unwrap();
        let shown: Vec<Peeked> = page.into_iter().map(Peeked::from).collect();
        assert_eq!((shown[0].body.as_str(), shown[0].body.fault()), ("1", None));
        assert!(shown[2].body.fault().is_some() && shown[2].body.as_bytes()[..] == b"[]"[..]);
        assert_eq!((shown[2].sequence, shown[2].died.as_ref().unwrap().attempts), (3, 3));
        assert_eq!((shown[1].state.as_str(), &shown[1].died), ("leased", &None));
    }
}
