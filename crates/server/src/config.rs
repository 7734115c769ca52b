//! What a server is started with.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use super::{
    ServerError,
    broker::{Quotas, embedded::EmbeddedConfig},
    clock::Clock,
    faults::FaultPlan,
    rights::Rights,
    roster::Roster,
    roster::is_blank,
    tls::TlsFiles,
};
use dms_protocol::queue::{NewQueue, ProjectId};

/// The settings of a [`Server`](super::Server). The default is a server in memory, without sockets, open to any caller.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address of the API; none (the default): no socket, in-process callers only.
    pub listen: Option<SocketAddr>,
    /// The address of health, metrics and peek; none by default. Other addresses than loopback need `admin_token` and
    /// `admin_tls`.
    pub admin: Option<SocketAddr>,
    /// The bearer token that all but health asks for at the admin address; none by default.
    pub admin_token: Option<SecretString>,
    /// The certificate of the admin address; none (the default): plain HTTP.
    pub admin_tls: Option<TlsFiles>,
    /// Further names and addresses, without ports, by which callers may call a server that asks for no credentials, as
    /// behind a proxy that passes `Host` on; none (the default): `localhost` and loopback addresses only.
    pub hosts: Vec<String>,
    /// The certificate of the API's address; none (the default): plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Where messages are kept; none (the default): in memory.
    pub data_dir: Option<PathBuf>,
    /// The projects. While none of them has keys or users, any caller may use any project.
    pub projects: Vec<Project>,
    /// The region in the catalogue of tokens; `local`.
    pub region: String,
    /// How long a token is good; 24 hours.
    pub token_lifetime: Duration,
    /// The limits of connections and requests.
    pub limits: HttpLimits,
    /// What goes wrong on purpose; nothing by default.
    pub faults: FaultPlan,
    /// How the broker behaves; the quotas of projects are added to its own.
    pub broker: EmbeddedConfig,
    /// Whether the server's extensions are announced and obeyed; true. Without them it is as a service that never had
    /// any, for tests of clients.
    pub extensions: bool,
    /// The wall clock; the system's.
    pub clock: Clock,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: None,
            admin: None,
            admin_token: None,
            admin_tls: None,
            hosts: Vec::new(),
            tls: None,
            data_dir: None,
            projects: Vec::new(),
            region: "local".to_owned(),
            token_lifetime: Duration::from_secs(24 * 3600),
            limits: HttpLimits::default(),
            faults: FaultPlan::default(),
            broker: EmbeddedConfig::default(),
            extensions: true,
            clock: Clock::system(),
        }
    }
}

impl ServerConfig {
    /// Checks the projects with their keys and users as [`Server::bind`](crate::Server::bind) does, without starting anything.
    ///
    /// # Errors
    /// [`ServerError::Config`] with a sentence about the first that contradicts another or itself.
    pub fn check(&self) -> Result<(), ServerError> {
        Roster::new(self.projects.clone()).map(drop).map_err(ServerError::Config)
    }
}

/// A project: a space of queues with its own callers.
#[derive(Clone, Debug)]
pub struct Project {
    /// The `{project_id}` of paths: 1-64 of `A-Z a-z 0-9 _ -`.
    pub id: ProjectId,
    /// The name that a token's scope may use in place of the id.
    pub name: String,
    /// Keys that sign requests to it.
    pub access_keys: Vec<AccessKey>,
    /// Users that get tokens for it.
    pub users: Vec<User>,
    /// What is asked of the signatures of its keys.
    pub signatures: SignatureRules,
    /// Its quotas, where they differ from the server's.
    pub quotas: Option<Quotas>,
    /// Queues that are created at start if they are missing.
    pub queues: Vec<StartQueue>,
}

impl Project {
    /// A project without callers of its own, queues or quotas, named as its id.
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
        }
    }

    /// Adds a key.
    pub fn access_key(mut self, access_key: impl Into<String>, secret_key: impl Into<SecretString>) -> Self {
        self.access_keys.push(AccessKey {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            security_token: None,
            rights: Rights::default(),
        });
        self
    }

    /// Adds a user.
    pub fn user(
        mut self,
        user: impl Into<String>,
        password: impl Into<SecretString>,
        domain: impl Into<String>,
    ) -> Self {
        let (user, password, domain) = (user.into(), password.into(), domain.into());
        self.users.push(User { user, password, domain, rights: Rights::default() });
        self
    }

    /// Whether anybody can prove to be a caller of it.
    pub(crate) fn has_auth(&self) -> bool {
        !self.access_keys.is_empty() || !self.users.is_empty()
    }
}

/// What is asked of signatures beyond the documented scheme. A key of several projects has the stricter rules of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureRules {
    /// Whether `Host` must be among the signed headers, as it is with the vendor's SDKs; true. Without it a request could be
    /// sent to another server that knows the key.
    pub require_host: bool,
    /// Whether a signature is good for one request only; false. The scheme itself lets a request be sent again for 15
    /// minutes.
    pub reject_replays: bool,
}

impl Default for SignatureRules {
    fn default() -> Self {
        Self { require_host: true, reject_replays: false }
    }
}

impl SignatureRules {
    /// The stricter of both, rule by rule.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            require_host: self.require_host || other.require_host,
            reject_replays: self.reject_replays || other.reject_replays,
        }
    }
}

/// An access key with its secret.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// The key's public half.
    pub access_key: String,
    /// Its secret half.
    pub secret_key: SecretString,
    /// The token that requests with this key must carry, for temporary credentials.
    pub security_token: Option<SecretString>,
    /// What requests with this key may do.
    pub rights: Rights,
}

impl AccessKey {
    /// Whether a part of it is no credential: there is nothing in it.
    pub(super) fn has_a_blank(&self) -> bool {
        let secrets = [Some(&self.secret_key), self.security_token.as_ref()].into_iter().flatten();
        is_blank(&self.access_key) || secrets.map(ExposeSecret::expose_secret).any(is_blank)
    }
}

/// A user who gets tokens by password.
#[derive(Clone, Debug)]
pub struct User {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: SecretString,
    /// The domain (account) the user belongs to.
    pub domain: String,
    /// What requests with the user's tokens may do.
    pub rights: Rights,
}

impl User {
    /// Whether both are passwords of one user.
    pub(super) fn is_same_user(&self, other: &Self) -> bool {
        (&self.user, &self.domain) == (&other.user, &other.domain)
    }
}

/// A queue that is there from the start.
#[derive(Clone, Debug)]
pub struct StartQueue {
    /// The queue; one of that name that exists already is left as it is.
    pub queue: NewQueue,
    /// Its groups; those missing are created.
    pub groups: Vec<String>,
}

/// The limits of connections and single requests.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Connections at a time; 4096. For a further one the connection that has been idle the longest is closed; it waits
    /// while requests are being answered on all of them.
    pub connections: usize,
    /// The largest request body, in bytes; 1 MiB: 512 KiB of message bodies, attributes and their wrapping.
    pub body_bytes: usize,
    /// The most memory that request bodies take together, in bytes; 256 MiB. Further ones wait for room.
    pub bodies_bytes: usize,
    /// How long a body may take to arrive, waiting for room included; 30 seconds.
    pub body_timeout: Duration,
    /// How long a request's head may take from its first byte, and a TLS handshake; 10 seconds.
    pub head_timeout: Duration,
    /// How long a connection may stay without a request; 75 seconds, above the pools of usual clients.
    pub idle_timeout: Duration,
    /// The same for callers who have not shown credentials, where they are asked for; the same time. The server shortens
    /// it to 10 seconds where there are keys or users.
    pub strangers_idle_timeout: Duration,
    /// How long an answer may take to be written once the caller reads too slowly; 60 seconds.
    pub write_timeout: Duration,
    /// How old a connection gets before it is closed after an answer; one hour.
    pub connection_age: Duration,
    /// How long requests may take to finish once the server stops; 20 seconds.
    pub shutdown_grace: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            body_bytes: 1 << 20,
            bodies_bytes: 256 << 20,
            body_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            strangers_idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            connection_age: Duration::from_secs(3600),
            shutdown_grace: Duration::from_secs(20),
        }
    }
}
