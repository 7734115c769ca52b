//! The `server` section: the embedded DMS server.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::schema::{
    rights::Rights,
    schedule::Schedule,
    server_admin::ServerAdmin,
    tls::Tls,
    values::{Secret, Span},
};
use dms_protocol::queue::QueueMode;

/// The embedded server, for `serve` and for `dms.endpoint: embedded`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where the API is served; `127.0.0.1:9400` by default. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where health, metrics and the dashboard are served: an address, or a section with `listen`; nowhere by default. Other
    /// addresses than loopback need a token and a certificate.
    pub admin: ServerAdmin,
    /// The bearer token of `admin`, as `admin.token`; none by default.
    pub admin_token: Option<Secret>,
    /// A file that holds the token.
    pub admin_token_file: Option<PathBuf>,
    /// The certificate of `admin`, as `admin.tls`; plain HTTP by default.
    pub admin_tls: Option<Tls>,
    /// Further names by which callers may call `listen` and `admin` while these ask for no credentials; none by default.
    pub hosts: Vec<String>,
    /// The certificate of the API's address; plain HTTP by default.
    pub tls: Option<Tls>,
    /// The API of ROMA Connect MQS over the same queues; not served by default.
    pub mqs: Option<Mqs>,
    /// Where messages are kept; in memory by default.
    pub data_dir: Option<PathBuf>,
    /// The PostgreSQL that keeps the messages instead of `data_dir`; none by default.
    pub postgres: Option<Postgres>,
    /// How servers on the same PostgreSQL share the queues.
    pub cluster: Cluster,
    /// The identifier of the one project; `local` by default.
    pub project_id: String,
    /// The name of the one project in requests for tokens; its identifier by default.
    pub project_name: Option<String>,
    /// The region of the endpoints in the catalogue of its IAM tokens; `local` by default.
    pub region: String,
    /// The keys and users that may call; by default any caller, which is allowed on loopback addresses only.
    pub auth: Option<ServerAuth>,
    /// Which messages count as failed when an acknowledgement stops at a failure; `culprit` by default.
    pub failure_counting: FailureCounting,
    /// Whether a FIFO group receives nothing while one of its batches is leased; true by default.
    pub fifo_blocks: bool,
    /// Where a new group starts; `beginning` by default.
    pub new_group_starts: GroupStart,
    /// How long a new queue or group refuses calls, as the hosted service did for 1-3 s; 0 by default.
    pub create_delay: Span,
    /// How long queues keep messages, consumed or not, 1s to 72h; Kafka queues with `retention_hours` say it themselves. 72 h by default.
    pub retention: Span,
    /// The lifetime of IAM tokens of this server; 24 h by default.
    pub token_lifetime: Span,
    /// The limits of the project.
    pub quotas: Quotas,
    /// The resources that callers may use.
    pub limits: ServerLimits,
    /// Queues created at start where they are missing.
    pub queues: Vec<QueueSpec>,
    /// Messages that the server sends at the times of a cron expression.
    pub schedules: Vec<Schedule>,
    /// Further projects.
    pub projects: Vec<Project>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9400)),
            admin: ServerAdmin::default(),
            admin_token: None,
            admin_token_file: None,
            admin_tls: None,
            hosts: Vec::new(),
            tls: None,
            mqs: None,
            data_dir: None,
            postgres: None,
            cluster: Cluster::default(),
            project_id: "local".to_owned(),
            project_name: None,
            region: "local".to_owned(),
            auth: None,
            failure_counting: FailureCounting::default(),
            fifo_blocks: true,
            new_group_starts: GroupStart::default(),
            create_delay: Span::default(),
            retention: Span::secs(72 * 3600),
            token_lifetime: Span::secs(24 * 3600),
            quotas: Quotas::default(),
            limits: ServerLimits::default(),
            queues: Vec::new(),
            schedules: Vec::new(),
            projects: Vec::new(),
        }
    }
}

impl Server {
    /// The admin address.
    pub(crate) fn admin_listen(&self) -> Option<SocketAddr> {
        self.admin.0.listen
    }

    /// The token of the admin address.
    pub(crate) fn admin_token(&self) -> Option<&Secret> {
        self.admin.0.token.as_ref().or(self.admin_token.as_ref())
    }

    /// The certificate of the admin address.
    pub(crate) fn admin_tls(&self) -> Option<&Tls> {
        self.admin.0.tls.as_ref().or(self.admin_tls.as_ref())
    }

    /// The keys and users of a project: from the server's own `auth`, unless an entry of `projects` has this id.
    pub(crate) fn auth_of(&self, project_id: &str) -> Option<&ServerAuth> {
        let further = self.projects.iter().find(|project| project.id == project_id);
        further.map_or(self.auth.as_ref(), |project| project.auth.as_ref())
    }

    /// `in memory`, or where the messages are kept, for the first line that a server prints.
    pub(crate) fn storage(&self) -> String {
        match (&self.data_dir, &self.postgres) {
            (Some(dir), _) => format!("data in {}", dir.display()),
            (None, Some(postgres)) => format!("data in PostgreSQL, schema {}", postgres.schema),
            (None, None) => "in memory".to_owned(),
        }
    }

    /// Whether its queues outlive the process.
    pub(crate) fn is_durable(&self) -> bool {
        self.data_dir.is_some() || self.postgres.is_some()
    }
}

/// The REST API of ROMA Connect MQS. A topic is a queue, and the SASL user and password of a client are an access key of `server.auth`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mqs {
    /// Where it is served; `127.0.0.1:9292` by default. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate of that address; plain HTTP by default.
    pub tls: Option<Tls>,
    /// Whether a topic is created when it is first named, which takes the right `manage`; true by default.
    pub auto_create: bool,
}

impl Default for Mqs {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9292)), tls: None, auto_create: true }
    }
}

/// The PostgreSQL that keeps the messages. Several servers may use one schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// Where it is: `postgres://user@host1,host2/database` or `host=host1,host2 user=… dbname=…`; this or `url_file` is required.
    #[schemars(with = "Option<String>")]
    pub url: Option<Secret>,
    /// A file that holds the connection string.
    pub url_file: Option<PathBuf>,
    /// A PEM file with the certificates of the authorities that may have issued PostgreSQL's; nothing is encrypted by default.
    pub ca_file: Option<PathBuf>,
    /// The schema of the tables; `dms` by default.
    pub schema: String,
}

impl Default for Postgres {
    fn default() -> Self {
        Self { url: None, url_file: None, ca_file: None, schema: "dms".to_owned() }
    }
}

/// How servers on the same PostgreSQL share the queues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Where other servers pass requests on to this one; nowhere by default: then one server owns all queues, and the others stand by.
    pub listen: Option<SocketAddr>,
    /// The URL at which other servers reach that address, with `tls` an `https://` one; `listen` by default.
    pub advertise: Option<String>,
    /// The certificates with which the servers check each other and encrypt; by default nothing between them is encrypted.
    pub tls: Option<ClusterTls>,
    /// How many parts the queues are divided into, each owned by one server; fixed by the first server, 4 by default.
    pub shards: Option<u32>,
    /// How long a server may be silent before others take over its queues, 2s or more; 5 s by default.
    pub takeover_after: Span,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { listen: None, advertise: None, tls: None, shards: None, takeover_after: Span::secs(5) }
    }
}

/// The certificates of the servers of a cluster, read again on SIGHUP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificate", "key", "ca_file"]))]
pub struct ClusterTls {
    /// A PEM file with the certificate of this server, followed by the intermediate ones; required.
    pub certificate: PathBuf,
    /// A PEM file with its private key, without a passphrase; required.
    pub key: PathBuf,
    /// A PEM file with the authorities that issue the certificates of the servers; required.
    pub ca_file: PathBuf,
    /// The name that every server's certificate has; by default each has the host of its server's `advertise`.
    pub server_name: Option<String>,
}

/// The keys and users of the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerAuth {
    /// Keys that sign requests.
    pub access_keys: Vec<AccessKey>,
    /// A file with further keys, which `dms-worker key` changes while the server runs.
    pub access_keys_file: Option<PathBuf>,
    /// The keys in that file.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) keys_of_file: Vec<AccessKey>,
    /// Users that fetch tokens.
    pub users: Vec<User>,
    /// Whether `Host` must be among the signed headers of a request, as it is with the vendor's SDKs; true by default.
    pub require_signed_host: bool,
    /// Whether a signature is accepted only once, instead of for 15 minutes; false by default.
    pub reject_replays: bool,
}

impl Default for ServerAuth {
    fn default() -> Self {
        Self {
            access_keys: Vec::new(),
            access_keys_file: None,
            keys_of_file: Vec::new(),
            users: Vec::new(),
            require_signed_host: true,
            reject_replays: false,
        }
    }
}

impl ServerAuth {
    /// All keys: first the keys of the configuration, then the keys of the keys file.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &AccessKey> {
        self.access_keys.iter().chain(&self.keys_of_file)
    }
}

/// An access key that the server knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["access_key"]))]
pub struct AccessKey {
    /// Its identifier; required.
    pub access_key: String,
    /// Its secret.
    pub secret_key: Option<Secret>,
    /// A file that holds its secret.
    pub secret_key_file: Option<PathBuf>,
    /// The session token that must come with it; none by default.
    pub security_token: Option<Secret>,
    /// A file that holds the session token.
    pub security_token_file: Option<PathBuf>,
    /// Its rights; everything by default.
    pub rights: Option<Rights>,
}

/// A user that the server knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["user"]))]
pub struct User {
    /// The name; required.
    pub user: String,
    /// The password.
    pub password: Option<Secret>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The domain; `Default` by default.
    pub domain: String,
    /// The rights of its tokens; everything by default.
    pub rights: Option<Rights>,
}

impl Default for User {
    fn default() -> Self {
        Self { user: String::new(), password: None, password_file: None, domain: "Default".to_owned(), rights: None }
    }
}

/// Which messages count as failed when an acknowledgement stops at a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCounting {
    /// The failed message alone. The default.
    #[default]
    Culprit,
    /// The failed message and all after it in its batch.
    Batch,
}

/// Where a new group starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupStart {
    /// At the oldest message kept. The default.
    #[default]
    Beginning,
    /// At the first message sent after its creation.
    End,
}

/// The limits of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Queues of the project; 30 by default.
    pub queues: usize,
    /// Groups of one queue; 3 by default.
    pub groups_per_queue: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { queues: 30, groups_per_queue: 3 }
    }
}

/// The resources that callers of all projects may use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerLimits {
    /// Connections at a time, at least 1; a further one takes the place of the connection that was idle the longest. 4 096 by
    /// default.
    #[schemars(range(min = 1))]
    pub connections: usize,
    /// Bytes of request bodies in memory, at least 1 048 576, the largest one; further ones wait. 268 435 456 by default.
    #[schemars(range(min = 1_048_576))]
    pub request_bytes: usize,
    /// Consume calls of one group that may wait, at least 1; 1 000 by default.
    #[schemars(range(min = 1))]
    pub polls_per_group: usize,
    /// Bytes of messages in leased batches, at least 524 288, the largest batch; 268 435 456 by default.
    #[schemars(range(min = 524_288))]
    pub leased_bytes: usize,
    /// Groups that have metrics of their own, the oldest first; all others share one set. With 0 no queue and no group is named in
    /// `/metrics`. 10 000 by default.
    pub metrics_groups: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            request_bytes: 256 << 20,
            polls_per_group: 1_000,
            leased_bytes: 256 << 20,
            metrics_groups: 10_000,
        }
    }
}

/// A queue created at start where it is missing (API reference 5.1.1).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct QueueSpec {
    /// The name; required.
    pub name: String,
    /// The mode; `NORMAL` by default.
    pub mode: QueueMode,
    /// Free text; none by default.
    pub description: Option<String>,
    /// Failed consumptions before a message becomes a dead letter, 1-100; no dead letters by default.
    #[schemars(range(min = 1, max = 100))]
    pub max_consume_count: Option<u32>,
    /// Kafka modes only: how long messages are kept, 1-72 hours.
    #[schemars(range(min = 1, max = 72))]
    pub retention_hours: Option<u32>,
    /// How long this queue keeps messages, 1s to 72h; `server.retention` by default. This value applies again at every start.
    pub retention: Option<Span>,
    /// Whether messages go as soon as every group that exists has settled them, for queues that need no later groups; false by
    /// default.
    pub delete_when_settled: Option<bool>,
    /// The names of its groups; none by default.
    pub groups: Vec<String>,
}

/// A project of a server that has several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["id"]))]
pub struct Project {
    /// The identifier in paths; required.
    pub id: String,
    /// The name for IAM; the identifier by default.
    pub name: Option<String>,
    /// The keys and users that may call.
    pub auth: Option<ServerAuth>,
    /// The limits.
    pub quotas: Quotas,
    /// Queues created at start where they are missing.
    pub queues: Vec<QueueSpec>,
    /// Messages that the server sends at the times of a cron expression.
    pub schedules: Vec<Schedule>,
}
