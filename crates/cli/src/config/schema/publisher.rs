//! The `publishers` section: endpoints that take messages over HTTP and send them on.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::schema::{
    tls::Tls,
    values::{Secret, Span},
};

/// An endpoint that takes messages: `POST /` or `POST /QUEUE` with one or an array, answered when the service has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["queue"]}, {"required": ["queues"]}]))]
pub struct Publisher {
    /// Where it listens; `127.0.0.1:9403` by default.
    pub listen: SocketAddr,
    /// Further names by which callers may call it while there is no token; none by default.
    pub hosts: Vec<String>,
    /// Its certificate; plain HTTP by default.
    pub tls: Option<Tls>,
    /// The name or identifier of the queue that messages of `POST /` go to; required unless `queues` is set.
    pub queue: String,
    /// The names or identifiers of queues that messages of `POST /QUEUE` go to, besides `queue`; none by default.
    pub queues: Vec<String>,
    /// Whether messages are stored in the order in which they arrived; by default only messages of FIFO queues are.
    pub ordered: bool,
    /// Messages taken and not yet sent, of all its queues together; more are answered 503. 10 000 by default.
    #[schemars(range(min = 1))]
    pub max_pending: usize,
    /// How long a message waits for others to share its request; 5 ms by default.
    pub linger: Span,
    /// The bearer token that requests need; none by default. Other addresses than loopback need one.
    pub token: Option<Secret>,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
}

impl Publisher {
    /// All queues that messages go to, by name or identifier.
    pub fn queues(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.queue).chain(&self.queues).filter(|queue| !queue.is_empty())
    }
}

impl Default for Publisher {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9403)),
            hosts: Vec::new(),
            tls: None,
            queue: String::new(),
            queues: Vec::new(),
            ordered: false,
            max_pending: 10_000,
            linger: Span::millis(5),
            token: None,
            token_file: None,
        }
    }
}
