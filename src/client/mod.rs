//! [`Client`]: every operation of the API, typed, checked against the limits, signed, and repeated where that is safe.

use std::{fmt, sync::Arc};

use crate::queue::ProjectId;

mod announced;
mod builder;
mod call;
mod cause;
mod code;
mod credentials;
mod error;
mod extensions;
mod groups;
mod key_guard;
mod last_uri;
mod messages;
mod messages_by_id;
mod mqs;
mod options;
mod overview;
pub(crate) mod permissions;
mod queues;
mod sent;
mod tags;
mod tries;

pub use crate::wire::{
    extensions::Extensions,
    overview::{GroupOverview, PeekState, PeekedMessage, QueueOverview},
};
pub use builder::ClientBuilder;
pub use code::ErrorCode;
pub use error::Error;
pub use extensions::PollId;
pub use groups::GroupsOptions;
pub(crate) use last_uri::LastUri;
pub use messages::AckOutcome;
#[cfg(feature = "postgres")]
pub(crate) use messages::check_message;
pub(crate) use messages::{Acked, Consumed, are_deduplicated};
pub use messages_by_id::Resolved;
pub use options::{ConsumeOptions, SendOptions};
pub use sent::{SendOutcome, SentMessage};

/// A client of one project. Cloning is cheap: clones share connections, tokens and the stop after a refused key.
///
/// Its calls are cancel-safe in this sense: dropping one abandons the answer, not what the service does with the
/// request. A dropped `consume` may leave messages leased until their `ack_wait` is over.
/// ```
/// use dms_worker::{Error, Message, queue::{NewQueue, SourcePath}, testing::TestServer};
/// use dms_worker::{client::ConsumeOptions, message::AckStatus};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Error> {
///     let server = TestServer::start().await; // or Client::builder("http://127.0.0.1:9400", "local").build()?
///     let client = server.client();
///
///     let queue = client.create_queue(NewQueue::new("orders")).await?.id;
///     let (group, _) = client.create_groups(&queue, &["billing"]).await?.remove(0);
///     client.send(&queue, &[Message::text("hello")]).await?;
///
///     let source = SourcePath::messages(queue, group);
///     let received = client.consume(&source, &ConsumeOptions::new()).await?;
///     assert_eq!(received[0].body.as_str(), r#""hello""#);
///     client.acknowledge(&source, &[(received[0].handle.clone(), AckStatus::Success)]).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<call::Inner>,
}

impl Client {
    /// Starts a client for the project `project_id` at `endpoint`, such as `https://dms.cn-north-4.myhuaweicloud.com`
    /// or `http://127.0.0.1:9400`.
    pub fn builder(endpoint: impl Into<String>, project_id: impl Into<ProjectId>) -> ClientBuilder {
        ClientBuilder::new(endpoint.into(), project_id.into())
    }

    /// Replaces the credentials of this client and its clones by the credentials of `other`, for the rotation of keys and
    /// passwords. Calls in flight keep the credentials with which they started. If the old credentials have worked, a
    /// refusal of the new ones does not stop the client.
    pub fn authorize_as(&self, other: &Self) {
        self.inner.authorize_as(&other.inner);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.inner).finish()
    }
}
