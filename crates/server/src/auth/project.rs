//! The accounts and queues of a configuration: [`Project`] and its parts.

use crate::{
    auth::rights::Rights,
    broker::{NewSchedule, Quotas},
};
use dms_protocol::{
    queue::{NewQueue, ProjectId},
    secret::Secret,
};

/// A project: a namespace of queues with its own keys and users.
///
/// A server without any keys and users is open: every caller may use every project, also projects that are not configured. Such a
/// server listens on loopback addresses only. With a key or a user in one project, all projects need credentials.
///
/// # Examples
/// ```
/// use dms_server::{Project, StartQueue, queue::NewQueue};
///
/// let project = Project::new("shop")
///     .access_key("AK", "secret key")
///     .user("billing", "password", "shop-domain")
///     .queue(StartQueue::new(NewQueue::new("orders").dead_letters_after(5)).group("billing"));
/// assert_eq!((project.name.as_str(), project.queues[0].groups.len()), ("shop", 1));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Project {
    /// The `{project_id}` of paths: 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub id: ProjectId,
    /// The name by which a token request may name the project; the id by default.
    pub name: String,
    /// The keys that sign requests to it.
    pub access_keys: Vec<AccessKey>,
    /// The users that request tokens for it.
    pub users: Vec<User>,
    /// The rules for signatures of its keys.
    pub signatures: SignatureRules,
    /// Its quotas. `None` (the default) applies the quotas of the server.
    pub quotas: Option<Quotas>,
    /// The queues that are created at the start if they are missing.
    pub queues: Vec<StartQueue>,
    /// The schedules of the configuration. Others that an earlier configuration had are removed at the start.
    pub schedules: Vec<StartSchedule>,
}

impl Project {
    /// A project without keys, users and queues. Its name is its id.
    pub fn new(id: impl Into<ProjectId>) -> Self {
        let id = id.into();
        Self {
            name: id.to_string(),
            id,
            access_keys: Vec::new(),
            users: Vec::new(),
            signatures: SignatureRules::default(),
            quotas: None,
            queues: Vec::new(),
            schedules: Vec::new(),
        }
    }

    /// Adds an access key with all rights. For a key with fewer rights push an [`AccessKey`] to
    /// [`access_keys`](Self::access_keys).
    pub fn access_key(mut self, access_key: impl Into<String>, secret_key: impl Into<Secret>) -> Self {
        self.access_keys.push(AccessKey::new(access_key, secret_key));
        self
    }

    /// Adds a user of a domain (account) with all rights. The user requests tokens at `POST /v3/auth/tokens`.
    pub fn user(mut self, user: impl Into<String>, password: impl Into<Secret>, domain: impl Into<String>) -> Self {
        self.users.push(User::new(user, password, domain));
        self
    }

    /// Adds a queue that is created at the start if it is missing.
    pub fn queue(mut self, queue: StartQueue) -> Self {
        self.queues.push(queue);
        self
    }

    /// Adds a schedule that sends to the queue with this name.
    pub fn schedule(mut self, queue: impl Into<String>, schedule: NewSchedule) -> Self {
        self.schedules.push(StartSchedule { queue: queue.into(), schedule });
        self
    }

    /// Whether it has keys or users.
    pub(crate) fn has_auth(&self) -> bool {
        !self.access_keys.is_empty() || !self.users.is_empty()
    }
}

/// A schedule of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StartSchedule {
    /// The name of the queue to which it sends.
    pub queue: String,
    /// The message and the times.
    pub schedule: NewSchedule,
}

/// Requirements for signatures beyond the documented scheme. For a key of several projects the stricter rules apply.
///
/// # Examples
/// ```
/// use dms_server::{Project, SignatureRules};
///
/// let mut project = Project::new("shop").access_key("AK", "secret key");
/// project.signatures = SignatureRules::default().reject_replays(true);
/// assert!(project.signatures.require_host);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignatureRules {
    /// Whether `Host` must be signed, as it is by the SDKs of the vendor; true. Otherwise a recorded request could be sent to
    /// another server that knows the key.
    pub require_host: bool,
    /// Whether a signature is valid for one request only; false. The scheme allows a request to be sent again for 15 minutes.
    pub reject_replays: bool,
}

impl Default for SignatureRules {
    fn default() -> Self {
        Self { require_host: true, reject_replays: false }
    }
}

impl SignatureRules {
    /// Sets whether `Host` must be signed; true by default.
    pub fn require_host(mut self, require_host: bool) -> Self {
        self.require_host = require_host;
        self
    }

    /// Sets whether a signature is valid for one request only; false by default.
    pub fn reject_replays(mut self, reject_replays: bool) -> Self {
        self.reject_replays = reject_replays;
        self
    }

    /// The stricter of both, for each rule.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            require_host: self.require_host || other.require_host,
            reject_replays: self.reject_replays || other.reject_replays,
        }
    }
}

/// An access key with its secret, which signs requests (AK/SK, API reference 3.2).
///
/// # Examples
/// ```
/// use dms_server::{AccessKey, Rights};
///
/// let sender = AccessKey::new("AK", "secret key").rights(Rights::none().send(vec!["orders-*".to_owned()]));
/// assert!(sender.rights.consume.is_empty());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AccessKey {
    /// The public part (AK).
    pub access_key: String,
    /// The secret part (SK).
    pub secret_key: Secret,
    /// The token that requests with this key must carry, for temporary credentials; none by default.
    pub security_token: Option<Secret>,
    /// The rights of requests with this key; all by default.
    pub rights: Rights,
}

impl AccessKey {
    /// A key with all rights and without a security token.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<Secret>) -> Self {
        Self {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            security_token: None,
            rights: Rights::default(),
        }
    }

    /// Sets the token of temporary credentials; none by default.
    pub fn security_token(mut self, token: impl Into<Secret>) -> Self {
        self.security_token = Some(token.into());
        self
    }

    /// Sets the rights; all of them by default.
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }
}

/// A user who requests tokens with a password (`POST /v3/auth/tokens`). A token is valid for
/// [`ServerConfig::token_lifetime`](crate::ServerConfig::token_lifetime).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct User {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// The domain (account) of the user.
    pub domain: String,
    /// The rights of requests with the tokens of the user; all by default.
    pub rights: Rights,
}

impl User {
    /// A user with all rights.
    pub fn new(user: impl Into<String>, password: impl Into<Secret>, domain: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into(), domain: domain.into(), rights: Rights::default() }
    }

    /// Sets the rights; all of them by default.
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    /// Whether both entries are of the same user.
    pub(crate) fn is_same_user(&self, other: &Self) -> bool {
        (&self.user, &self.domain) == (&other.user, &other.domain)
    }
}

/// A queue that is created at the start if it is missing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StartQueue {
    /// The queue. An existing queue of this name is not changed.
    pub queue: NewQueue,
    /// Its groups. Missing ones are created.
    pub groups: Vec<String>,
}

impl StartQueue {
    /// A queue without groups.
    pub fn new(queue: NewQueue) -> Self {
        Self { queue, groups: Vec::new() }
    }

    /// Adds a group.
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.groups.push(name.into());
        self
    }
}
