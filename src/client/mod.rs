//! The client: every operation of the API, typed, checked, signed and repeated where that is safe.

use std::{fmt, sync::Arc};

use crate::queue::ProjectId;

mod builder;
mod call;
mod cause;
mod code;
mod credentials;
mod error;
mod extensions;
mod groups;
mod key_guard;
mod messages;
mod queues;
mod tags;
mod tries;

pub use crate::wire::extensions::Extensions;
pub use builder::ClientBuilder;
pub use code::ErrorCode;
pub use error::Error;
pub use extensions::PollId;
pub use groups::GroupsOptions;
pub use messages::{AckOutcome, ConsumeOptions, SendOptions, SendOutcome};
pub(crate) use messages::{Acked, Consumed, check_message};

/// A client of one project. Cloning is cheap: clones share connections, tokens and the stop after a refused key.
///
/// Its calls are cancel-safe in this sense: dropping one abandons the answer, not what the service does with the
/// request. A dropped `consume` may leave messages leased until their `ack_wait` is over.
#[derive(Clone)]
pub struct Client {
    inner: Arc<call::Inner>,
}

impl Client {
    /// Begins a client of the project `project_id` at `endpoint`, as `https://dms.cn-north-4.myhuaweicloud.com` or
    /// `http://127.0.0.1:9400`. Both are checked by [`build`](ClientBuilder::build).
    pub fn builder(endpoint: impl Into<String>, project_id: impl Into<ProjectId>) -> ClientBuilder {
        ClientBuilder::new(endpoint.into(), project_id.into())
    }

    /// Signs calls, or has tokens, as `other` does, from now on and in all clones: for keys and passwords that are rotated. Calls that
    /// are on their way are finished as they were begun. Where the credentials of before have worked, a refusal of the new ones is waited
    /// out, as that of a key that has worked.
    pub fn authorize_as(&self, other: &Self) {
        self.inner.authorize_as(&other.inner);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.inner).finish()
    }
}
