//! The `dms` section: which service, which project, with which credentials.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::schema::values::{Secret, Span};
use dms_protocol::internal::secret_url::SecretUrl;

/// The service that workers and publishers talk to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dms {
    /// `embedded` for a server in this process (the default), or an `http://` or `https://` address.
    pub endpoint: SecretUrl,
    /// The API of the service: `dms`, or `mqs` for ROMA Connect MQS; `dms` by default.
    pub dialect: Dialect,
    /// How contents of messages are written and read over MQS.
    pub content: Content,
    /// The version of the API; `v2` by default. MQS has one.
    pub api_version: ApiVersion,
    /// The project in every path; `local` by default. MQS has none, so it has no effect there.
    pub project_id: String,
    /// The credentials; none by default: the vendor's environment variables and credentials file are looked at, and
    /// where they say nothing requests are unsigned.
    pub auth: Option<Auth>,
    /// PEM certificates trusted instead of the system's; none by default.
    pub ca_file: Option<PathBuf>,
    /// Whether any certificate of the service is accepted; false by default. Then anybody on the way can read and forge messages.
    pub insecure_skip_verify: bool,
    /// How long a connection may take to come about; 5 s by default.
    pub connect_timeout: Span,
}

/// The word for the server in the same process.
pub(crate) const EMBEDDED: &str = "embedded";

impl Default for Dms {
    fn default() -> Self {
        Self {
            endpoint: EMBEDDED.into(),
            dialect: Dialect::default(),
            content: Content::default(),
            api_version: ApiVersion::default(),
            project_id: "local".to_owned(),
            auth: None,
            ca_file: None,
            insecure_skip_verify: false,
            connect_timeout: Span::secs(5),
        }
    }
}

impl Dms {
    /// Whether the service is the server in the same process.
    pub fn is_embedded(&self) -> bool {
        self.endpoint.expose() == EMBEDDED
    }
}

/// The API of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// The API of the DMS queue service, the default.
    #[default]
    Dms,
    /// The REST API of ROMA Connect MQS.
    Mqs,
}

impl From<Dialect> for dms_worker::Dialect {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Dms => Self::Dms,
            Dialect::Mqs => Self::Mqs,
        }
    }
}

/// How contents of messages are written and read over MQS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Content {
    /// `json`: the body itself, as documented; `text`: a string, for other bodies of their JSON text; `base64`: a string, Base64 of
    /// the JSON text. `json` by default.
    pub send: ContentEncoding,
    /// `auto`: Base64 as documented, or JSON text, or text; or one of `base64`, `json` and `text`. `auto` by default.
    pub receive: ContentDecoding,
}

/// How a body is sent as a content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContentEncoding {
    /// The body itself, the default.
    #[default]
    Json,
    /// A string.
    Text,
    /// Base64 of the JSON text.
    Base64,
}

/// How a content is read as a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContentDecoding {
    /// Whatever it is, the default.
    #[default]
    Auto,
    /// Base64 of text.
    Base64,
    /// JSON text.
    Json,
    /// Text.
    Text,
}

impl From<Content> for dms_worker::Content {
    fn from(content: Content) -> Self {
        let send = match content.send {
            ContentEncoding::Json => dms_worker::ContentEncoding::Json,
            ContentEncoding::Text => dms_worker::ContentEncoding::Text,
            ContentEncoding::Base64 => dms_worker::ContentEncoding::Base64,
        };
        let receive = match content.receive {
            ContentDecoding::Auto => dms_worker::ContentDecoding::Auto,
            ContentDecoding::Base64 => dms_worker::ContentDecoding::Base64,
            ContentDecoding::Json => dms_worker::ContentDecoding::Json,
            ContentDecoding::Text => dms_worker::ContentDecoding::Text,
        };
        Self::new().send(send).receive(receive)
    }
}

/// The version of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// V2, the default.
    #[default]
    #[serde(rename = "v2")]
    V2,
    /// V1.0.
    #[serde(rename = "v1.0")]
    V1,
}

/// Credentials: exactly one of an access key, a token, or an IAM user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// The identifier of an access key; requests are signed with it.
    pub access_key: Option<String>,
    /// The secret of the access key.
    pub secret_key: Option<Secret>,
    /// A file that holds the secret of the access key.
    pub secret_key_file: Option<PathBuf>,
    /// The session token of temporary access keys.
    pub security_token: Option<Secret>,
    /// A file that holds the session token.
    pub security_token_file: Option<PathBuf>,
    /// A token that is sent as it is and never renewed.
    pub token: Option<Secret>,
    /// A file that holds such a token.
    pub token_file: Option<PathBuf>,
    /// A user whose tokens are fetched from IAM and renewed in time.
    pub iam: Option<Iam>,
}

/// An IAM user with a password.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["endpoint", "user", "domain"]))]
pub struct Iam {
    /// The address of IAM, as in `https://iam.eu-de.otc.t-systems.com`; required.
    pub endpoint: SecretUrl,
    /// The user's name; required.
    pub user: String,
    /// The user's password.
    pub password: Option<Secret>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The domain (account) of the user; required.
    pub domain: String,
    /// The name of the project that tokens are for; by default the project of `dms.project_id`.
    pub project: Option<String>,
}
