//! Messages by their ids: extensions of this project's server.

use http::Method;
use serde::Deserialize;

use super::{Client, call::Call, error::Error, tries::Repeat};
use crate::{
    limits::LimitError,
    message::MessageId,
    message_places::MessagePlaces,
    queue::{GroupId, QueueId},
};

/// The result of an operation on a message by its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Resolved {
    /// The number of dead letters that went back to their groups.
    #[serde(default)]
    pub retried: usize,
    /// The number of groups for which the message was settled.
    #[serde(default)]
    pub discarded: usize,
    /// The number of groups in which a consumer holds it. Nothing was done there.
    #[serde(default)]
    pub leased: usize,
    /// The number of places where its delay has not ended. Nothing was done there.
    #[serde(default)]
    pub delayed: usize,
}

impl Client {
    /// Finds a message and its copies: the state for each group, attempts, leases, reasons.
    ///
    /// # Errors
    /// When the last answer of the service did not announce the extension `messages`, or the call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn find_message(&self, id: &MessageId) -> Result<MessagePlaces, Error> {
        const NAME: &str = "find message";
        self.needs_messages(NAME)?;
        let path = ["messages", id.as_str()];
        let call = Call::new(NAME, Method::GET, &path, Repeat::Harmless);
        self.fetch(call, |answer| Ok(serde_json::from_slice(answer)?)).await
    }

    /// Gives the dead letters with an id back to their groups. They are delivered as new messages with the same id, and only to the
    /// groups whose dead letters they are.
    ///
    /// # Errors
    /// As [`find_message`](Self::find_message), and when there is no such dead letter. After a lost answer the call is not repeated.
    ///
    /// # Cancel safety
    /// The service may make the change although the future was dropped.
    pub async fn retry_message(
        &self,
        id: &MessageId,
        queue: Option<&QueueId>,
        group: Option<&GroupId>,
    ) -> Result<Resolved, Error> {
        self.resolve("retry message", "retry", id, (queue, group)).await
    }

    /// Settles a message and the dead letters with its id, wherever they wait.
    ///
    /// # Errors
    /// As [`find_message`](Self::find_message), and when no such message waits.
    ///
    /// # Cancel safety
    /// The service may make the change although the future was dropped.
    pub async fn discard_message(
        &self,
        id: &MessageId,
        queue: Option<&QueueId>,
        group: Option<&GroupId>,
    ) -> Result<Resolved, Error> {
        self.resolve("discard message", "discard", id, (queue, group)).await
    }

    async fn resolve(
        &self,
        name: &'static str,
        what: &str,
        id: &MessageId,
        (queue, group): (Option<&QueueId>, Option<&GroupId>),
    ) -> Result<Resolved, Error> {
        self.needs_messages(name)?;
        let mut query = Vec::new();
        query.extend(queue.map(|queue| format!("queue_id={}", queue.as_str())));
        query.extend(group.map(|group| format!("group_id={}", group.as_str())));
        let path = ["messages", id.as_str(), what];
        let call = Call::new(name, Method::POST, &path, Repeat::Doubles).query(query.join("&"));
        self.fetch(call, |answer| Ok(serde_json::from_slice(answer)?)).await
    }

    fn needs_messages(&self, name: &'static str) -> Result<(), Error> {
        if self.extensions().messages() {
            return Ok(());
        }
        let value = "one that does not announce the extension messages".to_owned();
        Err(Error::limit(
            name,
            LimitError { what: "service", value, allowed: "the server of this project is needed".to_owned() },
        ))
    }
}
