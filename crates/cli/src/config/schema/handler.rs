//! The `handler` of a worker.

use std::{borrow::Cow, collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::config::schema::values::{Secret, Span};
use dms_protocol::internal::secret_url::SecretUrl;

/// The handler of messages: exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Handler {
    /// It is posted to an application.
    pub http: Option<HttpHandler>,
    /// It is given to a program.
    pub command: Option<CommandHandler>,
    /// It is written to the log.
    #[serde(deserialize_with = "present")]
    pub log: Option<LogHandler>,
}

impl Handler {
    /// The names of the kinds that are set.
    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        let kinds = [("http", self.http.is_some()), ("command", self.command.is_some()), ("log", self.log.is_some())];
        kinds.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
    }

    /// How long one message may take; `None` where the lease alone bounds it.
    pub fn timeout(&self) -> Option<Span> {
        let http = self.http.as_ref().map(|http| http.timeout);
        http.or_else(|| self.command.as_ref().and_then(|command| command.timeout))
    }

    /// How long a message may wait for its batch.
    pub(crate) fn linger(&self) -> Duration {
        match self.http.as_ref().and_then(|http| http.batch) {
            Some(Batch::Collect(collect)) => collect.linger.get(),
            _ => Duration::ZERO,
        }
    }
}

/// Delivery to an application over HTTP: one POST per message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub struct HttpHandler {
    /// Where messages are posted, `http://` or `https://`; required.
    pub url: SecretUrl,
    /// How long an answer may take; 20 s by default, or less where ack_wait leaves less.
    pub timeout: Span,
    /// How long a connection may take to come about; 2 s by default.
    pub connect_timeout: Span,
    /// A Unix socket to connect to instead of the host of `url`; none by default.
    pub unix_socket: Option<PathBuf>,
    /// A PEM file with the authorities that an `https://` application is trusted by, instead of the system's; none by default.
    pub ca_file: Option<PathBuf>,
    /// How a message is written; `raw` by default.
    pub format: BodyFormat,
    /// How a body that is a JSON string is written; `json` by default.
    pub text_bodies: TextBodies,
    /// Which messages share a request; by default each has its own.
    pub batch: Option<Batch>,
    /// Headers of every request; none by default. Their values are secrets.
    pub headers: BTreeMap<String, Secret>,
    /// Files that hold the values of further headers, by their names; none by default.
    pub header_files: BTreeMap<String, PathBuf>,
    /// The key of the `Dms-Signature` header (HMAC-SHA256); not signed by default.
    pub signature_key: Option<Secret>,
    /// A file that holds that key.
    pub signature_key_file: Option<PathBuf>,
    /// A URL that answers 2xx while the application is well, asked all the time; by default a connection to `url` is proof
    /// enough.
    pub health_url: Option<SecretUrl>,
    /// How often the application is looked at, without `health_url` only while it is down; 1 s by default.
    pub health_interval: Span,
}

impl Default for HttpHandler {
    fn default() -> Self {
        Self {
            url: SecretUrl::default(),
            timeout: Span::secs(20),
            connect_timeout: Span::secs(2),
            unix_socket: None,
            ca_file: None,
            format: BodyFormat::default(),
            text_bodies: TextBodies::default(),
            batch: None,
            headers: BTreeMap::new(),
            header_files: BTreeMap::new(),
            signature_key: None,
            signature_key_file: None,
            health_url: None,
            health_interval: Span::secs(1),
        }
    }
}

/// Which messages share a request, whose answer has a verdict for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// Those that were consumed together: up to ten, nobody waits.
    Consumed,
    /// Those that arrive until there are enough.
    Collect(Collect),
}

/// When a batch that is collected is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Collect {
    /// The most messages in a request, not above the worker's concurrency; 100 by default, or the concurrency.
    #[schemars(range(min = 1))]
    pub max_messages: usize,
    /// How long the first message waits for others; 1 s by default, or less where ack_wait leaves less.
    pub linger: Span,
}

impl Default for Collect {
    fn default() -> Self {
        Self { max_messages: 100, linger: Span::secs(1) }
    }
}

/// How a message is written into a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// The body as it is, the rest in `Dms-*` headers. The default.
    #[default]
    Raw,
    /// CloudEvents 1.0 in binary mode.
    Cloudevents,
}

/// How a body that is a JSON string is written into a request for one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextBodies {
    /// As JSON, with its quotes. The default.
    #[default]
    Json,
    /// As `text/plain` in UTF-8, without quotes and escapes.
    Plain,
}

/// Delivery to a program: one process per message, or one that stays and speaks JSON lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CommandHandler {
    /// The program and its arguments; no shell is involved. Required.
    pub run: Vec<String>,
    /// How long one message may take; by default as long as the lease allows.
    pub timeout: Option<Span>,
    /// Whether every message gets a process; `per_message` by default.
    pub mode: CommandMode,
}

/// How many messages a process sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandMode {
    /// One: JSON on stdin, the answer is the exit code (0 done, 75 again, 65 reject). The default.
    #[default]
    PerMessage,
    /// All: a line of JSON in and a line of JSON out for each.
    JsonLines,
}

impl<'de> Deserialize<'de> for CommandHandler {
    /// A list is the program and its arguments; a map has the other settings too.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CommandVisitor)
    }
}

/// The map form of [`CommandHandler`].
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["run"]))]
struct CommandFields {
    /// The program and its arguments; no shell is involved. Required.
    #[serde(default)]
    run: Vec<String>,
    /// How long one message may take; by default as long as the lease allows.
    #[serde(default)]
    timeout: Option<Span>,
    /// Whether every message gets a process; `per_message` by default.
    #[serde(default)]
    mode: CommandMode,
}

impl JsonSchema for CommandHandler {
    fn schema_name() -> Cow<'static, str> {
        "CommandHandler".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (list, map) = (generator.subschema_for::<Vec<String>>(), generator.subschema_for::<CommandFields>());
        json_schema!({ "description": "A program and its arguments, or a map with `run`.", "anyOf": [list, map] })
    }
}

struct CommandVisitor;

impl<'de> de::Visitor<'de> for CommandVisitor {
    type Value = CommandHandler;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list like [\"./handle.sh\", \"--fast\"], or a map with `run`")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<CommandHandler, A::Error> {
        let run = Vec::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
        Ok(CommandHandler { run, ..CommandHandler::default() })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<CommandHandler, A::Error> {
        let fields = CommandFields::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(CommandHandler { run: fields.run, timeout: fields.timeout, mode: fields.mode })
    }
}

/// Delivery to the log: one line per message, always successful.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogHandler {
    /// Whether the line has the body, which may be private; false by default.
    pub body: bool,
}

/// Reads `log:` without a value as `log: {}`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LogHandler>, D::Error> {
    Option::deserialize(deserializer).map(|handler| Some(handler.unwrap_or_default()))
}
