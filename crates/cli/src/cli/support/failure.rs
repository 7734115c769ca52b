//! [`Failure`]: an error on its way to the user, with its exit code.

use std::{error::Error as StdError, fmt, io, path::Path};

use crate::config::ConfigError;
use dms_protocol::limits::LimitError;
use dms_server::ServerError;
use dms_worker::{client, internal::certificate_in_words};

/// Why a command failed, in one sentence with the remedy.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: ExitKind,
    message: String,
    /// Whether an HTTP server answered, and not as the DMS API does.
    about_http: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kind of a failure, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitKind {
    /// Anything not below.
    Failed,
    /// The command was not used as it should.
    Usage,
    /// The service cannot be reached.
    Unavailable,
    /// The service is there, and in trouble.
    Outage,
    /// The deadline passed before everything was finished.
    Drain,
    /// The credentials are refused.
    Refused,
    /// The configuration is wrong.
    Config,
    /// The reader of standard output went away: no failure at all.
    ClosedPipe,
}

impl ExitKind {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::ClosedPipe => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unavailable | Self::Outage => 69,
            Self::Drain => 75,
            Self::Refused => 77,
            Self::Config => 78,
        }
    }

    /// A stable name, for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClosedPipe => "closed_pipe",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Unavailable | Self::Outage => "unavailable",
            Self::Drain => "deadline",
            Self::Refused => "refused",
            Self::Config => "config",
        }
    }
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::of(ExitKind::Failed, message)
    }

    /// A failure of this kind.
    pub(crate) fn of(kind: ExitKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), about_http: false, source: None }
    }

    /// The same with its cause, which `-v` shows.
    pub(crate) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same with another text.
    pub(crate) fn saying(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// The same as a failure of another kind.
    pub(crate) fn into_kind(self, kind: ExitKind) -> Self {
        Self { kind, ..self }
    }

    /// The kind.
    pub(crate) fn kind(&self) -> ExitKind {
        self.kind
    }

    /// Whether a server answered whose certificate is not accepted, or without TLS.
    pub(crate) fn is_about_tls(&self) -> bool {
        ["certificate is not accepted", "the answer is not TLS"].iter().any(|text| self.message.contains(text))
    }

    /// Whether an HTTP server answered without an error code of the DMS API.
    pub(crate) fn is_foreign(&self) -> bool {
        self.about_http
    }

    /// What caused it, outermost first.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(cause) = next {
            let text = certificate_in_words(&cause.to_string()).into_owned();
            // Many errors repeat their cause in their own text.
            if text != self.message && causes.last() != Some(&text) {
                causes.push(text);
            }
            next = cause.source();
        }
        causes
    }
}

impl Failure {
    /// The failure for programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let error = serde_json::json!({
            "code": self.kind.name(),
            "exit_code": self.kind.code(),
            "message": self.message,
            "causes": self.causes(),
        });
        serde_json::json!({ "error": error })
    }

    /// A file, or standard input, cannot be read.
    pub(crate) fn unreadable(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(format!("{what} cannot be read: {error}"))
    }

    /// A file cannot be written.
    pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{} cannot be written: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let kind = match () {
            () if error.is_connect() => ExitKind::Unavailable,
            () if error.is_auth() || error.is_forbidden() => ExitKind::Refused,
            () => ExitKind::Failed,
        };
        let text = error.to_string();
        let text = match text.split_once("invalid HTTP version parsed") {
            Some((before, _)) => {
                format!("{before}this port does not speak plain HTTP: if it speaks HTTPS, write https://")
            }
            None => text,
        };
        Self { about_http: is_foreign(&error), ..Self::of(kind, text).because(error) }
    }
}

/// Whether an answer is one that another server gives: a page, a redirect, or an unknown path.
fn is_foreign(error: &client::Error) -> bool {
    let status = error.status().map_or(0, |status| status.as_u16());
    match error.code() {
        // The server's own admin address answers so.
        Some(code) => code.to_string() == "DMS.10240406",
        None => matches!(status, 200..=399 | 404 | 405 | 501),
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Listen { address, source } => {
                let text = format!(
                    "cannot listen on {address}: {source}; choose another address with --listen or in the configuration"
                );
                Self::new(text).because(source)
            }
            #[cfg(feature = "postgres")]
            ServerError::Postgres(dms_server::PostgresError::Tls(error)) => {
                Self::of(ExitKind::Config, format!("server.cluster.tls: TLS: {error}"))
            }
            ServerError::Config(_) | ServerError::Tls(_) => Self::of(ExitKind::Config, error.to_string()),
            other => {
                let cause = other.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                Self::new(format!("{other}{cause}")).because(other)
            }
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::of(ExitKind::Config, error.to_string())
    }
}

impl From<LimitError> for Failure {
    fn from(error: LimitError) -> Self {
        Self::of(ExitKind::Usage, error.to_string())
    }
}

impl From<io::Error> for Failure {
    /// Errors of standard output; others are given a sentence where they happen.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::of(ExitKind::ClosedPipe, error.to_string()),
            _ => Self::new(format!("cannot write to standard output: {error}")),
        }
    }
}
