//! Questions about the rights of the caller. They are asked with requests that change nothing.

use http::Method;

use super::{Client, call::Call, error::Error, tries::Repeat};
use crate::{
    message::AckLine,
    queue::{QueueId, SourcePath},
    wire::{self, Dialect},
};

/// Whether the caller may send messages to a queue.
///
/// The service checks the caller before the body, and refuses a list without messages, so nothing is sent.
///
/// # Errors
/// When the call fails for another reason.
pub async fn may_send(client: &Client, queue: &QueueId) -> Result<bool, Error> {
    let path = ["queues", queue.as_str(), "messages"];
    let body = wire::messages::encode_send(client.inner.wording, &[], false);
    let call = Call::new("ask for the right to send", Method::POST, &path, Repeat::Harmless).body(body)?;
    is_permitted(client, call).await
}

/// Whether the caller may consume messages of a group; asked with an acknowledgement of no message.
///
/// # Errors
/// As [`may_send`].
pub async fn may_consume(client: &Client, source: &SourcePath) -> Result<bool, Error> {
    let (queue, group) = (source.queue.as_str(), source.group.as_str());
    let path = match client.dialect() {
        Dialect::Dms => ["queues", queue, "groups", group, "ack"],
        Dialect::Mqs => ["topic", queue, "group", group, "messages"],
    };
    let body = wire::messages::encode_ack(client.dialect(), std::iter::empty::<AckLine<'_>>(), client.extensions());
    let call = Call::new("ask for the right to consume", Method::POST, &path, Repeat::Harmless).body(Ok(body))?;
    is_permitted(client, call).await
}

async fn is_permitted(client: &Client, call: Call<'_>) -> Result<bool, Error> {
    match client.fetch(call, |_| Ok(())).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_forbidden() => Ok(false),
        // The body is refused, and not the caller.
        Err(error) if error.status().is_some_and(|status| status == 400) => Ok(true),
        Err(error) => Err(error),
    }
}
