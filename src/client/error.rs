//! [`Error`]: why a call failed. It is opaque; predicates tell the caller what to do.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    cause::RefusalCause,
    code::{Class, ErrorCode},
};
use crate::{auth::AuthError, limits::LimitError, suggest::nearest, transport::TransportError, visible::visible};

/// The most names of queues or groups that an error lists.
const MAX_NAMES: usize = 20;

/// The error of a call, or of one message of a send. Cloning it is cheap.
///
/// Its text is one sentence without secrets: the operation, what happened, and the remedy.
#[derive(Clone)]
pub struct Error {
    cause: Arc<Cause>,
    // The marks are not shared with clones, because each caller sets its own.
    /// The call may have taken effect.
    unsure: bool,
    /// How long the client pauses, because the key was refused and may be accepted later.
    wait: Option<Duration>,
}

struct Cause {
    operation: &'static str,
    kind: ErrorKind,
}

pub(crate) enum ErrorKind {
    /// A setting of the client cannot work.
    Setup(String),
    /// A value is outside the service's limits, and nothing was sent. The index of the message, if one is at fault.
    Limit(Option<usize>, LimitError),
    /// The service answered with an error.
    Service(Refusal),
    /// This address did not answer.
    Transport(String, TransportError),
    /// The answer is not as the API reference says.
    Answer(StatusCode, Box<dyn StdError + Send + Sync>),
    /// The caller could not be authenticated before the call.
    Credentials(Box<dyn StdError + Send + Sync>),
    /// Nothing was sent, because the key was refused before.
    Stopped(Error),
    /// Nothing was sent, because the key was refused a short time ago. Later requests will be sent.
    Paused(Error),
    /// There is no queue or group of that name.
    Missing { what: &'static str, name: String, known: Vec<String>, limited: bool },
    /// The caller's deadline passed before a useful answer.
    Deadline,
}

/// An error answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: Option<ErrorCode>,
    /// The code as received, if it is not one of the service's.
    pub(crate) foreign_code: Option<String>,
    pub(crate) class: Class,
    pub(crate) message: String,
    pub(crate) request_id: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    /// How far the call got, if the answer is an error of the service or of a gateway.
    fn progress(&self) -> Progress {
        match self.status {
            // Overloaded services refuse a request before they begin it, and say when to retry.
            StatusCode::SERVICE_UNAVAILABLE if self.retry_after.is_some() => Progress::None,
            // A gateway forwarded the request and does not know the result.
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT if self.code.is_none() => Progress::Unknown,
            _ => Progress::Failed,
        }
    }
}

/// How far a failed try got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The service did nothing.
    None,
    /// The service answered with a failure, and may have done a part.
    Failed,
    /// It is unknown what the service did.
    Unknown,
}

impl Error {
    pub(crate) fn new(operation: &'static str, kind: ErrorKind) -> Self {
        Self { cause: Arc::new(Cause { operation, kind }), unsure: false, wait: None }
    }

    #[doc(hidden)]
    pub fn limit(operation: &'static str, error: LimitError) -> Self {
        Self::new(operation, ErrorKind::Limit(None, error))
    }

    /// As [`new`](Self::new), for a call that may have taken effect.
    pub(crate) fn unsure(operation: &'static str, kind: ErrorKind) -> Self {
        Self::new(operation, kind).into_unsure()
    }

    /// Returns whether the same call may succeed later, because of throttling, an outage, or a queue that is being
    /// created.
    ///
    /// Check [`is_unsure`](Self::is_unsure) to find out whether it is safe to repeat the call.
    pub fn is_retryable(&self) -> bool {
        if self.wait.is_some() {
            return true;
        }
        match &self.cause.kind {
            ErrorKind::Service(refusal) => {
                matches!(refusal.class, Class::Transient | Class::BeingCreated | Class::Throttled)
            }
            ErrorKind::Transport(..) => true,
            ErrorKind::Credentials(source) => source.downcast_ref::<AuthError>().is_some_and(AuthError::is_retryable),
            // The body is not the service's: a proxy or gateway on the way answered.
            ErrorKind::Answer(..) => true,
            _ => false,
        }
    }

    /// Returns whether the service throttles.
    pub fn is_throttled(&self) -> bool {
        self.class() == Some(Class::Throttled)
    }

    /// Returns whether the service refused the key or the token.
    ///
    /// A refused key that never worked stops the client; build another one. If the key has worked before, or the reason
    /// is a lock or a clock, the client tries again after a pause. Then [`is_retryable`](Self::is_retryable) is true as
    /// well, and [`retry_after`](Self::retry_after) has the pause.
    pub fn is_auth(&self) -> bool {
        match &self.cause.kind {
            ErrorKind::Stopped(_) | ErrorKind::Paused(_) => true,
            ErrorKind::Credentials(source) => !source.downcast_ref::<AuthError>().is_some_and(AuthError::is_retryable),
            _ => self.class() == Some(Class::Auth),
        }
    }

    /// Returns whether the caller lacks the right to this call.
    pub fn is_forbidden(&self) -> bool {
        self.class() == Some(Class::Forbidden)
    }

    /// Returns whether the queue, group, tag or URL does not exist.
    pub fn is_not_found(&self) -> bool {
        self.class() == Some(Class::NotFound) || matches!(self.cause.kind, ErrorKind::Missing { .. })
    }

    /// Returns whether a queue, group or tag of that name exists already.
    pub fn is_exists(&self) -> bool {
        self.class() == Some(Class::Exists)
    }

    /// Returns whether the lease was over. The messages are redelivered.
    pub fn is_lost_lease(&self) -> bool {
        !self.unsure && self.class() == Some(Class::LostLease)
    }

    /// Returns whether the failed call may have taken effect: its messages may be stored, or its acknowledgement may
    /// count.
    pub fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Returns whether a value was outside the service's limits, in which case nothing was sent, or a quota is used up.
    pub fn is_limit(&self) -> bool {
        matches!(self.cause.kind, ErrorKind::Limit(..)) || self.class() == Some(Class::Quota)
    }

    /// Returns whether the timeout passed without an answer.
    pub fn is_timeout(&self) -> bool {
        match &self.cause.kind {
            ErrorKind::Transport(_, error) => error.is_timeout(),
            ErrorKind::Deadline => true,
            _ => false,
        }
    }

    /// Returns whether no connection to the service could be made.
    pub fn is_connect(&self) -> bool {
        match &self.cause.kind {
            ErrorKind::Transport(_, error) => error.is_not_sent(),
            ErrorKind::Credentials(source) => source.downcast_ref::<AuthError>().is_some_and(AuthError::is_connect),
            _ => false,
        }
    }

    /// The service's error code, if the answer has one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.refusal().and_then(|refusal| refusal.code)
    }

    /// The HTTP status of the answer, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match &self.cause.kind {
            ErrorKind::Answer(status, _) => Some(*status),
            _ => self.refusal().map(|refusal| refusal.status),
        }
    }

    /// The id of the request in the service's logs, if the answer has one.
    pub fn request_id(&self) -> Option<&str> {
        self.refusal().and_then(|refusal| refusal.request_id.as_deref())
    }

    /// The wait that the service asks for with `Retry-After`, or the client's own pause after a refused key; at most
    /// five minutes.
    pub fn retry_after(&self) -> Option<Duration> {
        self.wait.or_else(|| self.refusal().and_then(|refusal| refusal.retry_after))
    }

    /// How far the try got.
    pub(super) fn progress(&self) -> Progress {
        match &self.cause.kind {
            ErrorKind::Transport(_, error) if !error.is_not_sent() => Progress::Unknown,
            ErrorKind::Answer(..) => Progress::Unknown,
            ErrorKind::Service(refusal) if refusal.class == Class::Transient => refusal.progress(),
            _ => Progress::None,
        }
    }

    /// Marks the error as one of a call that may have taken effect.
    pub(super) fn into_unsure(self) -> Self {
        Self { unsure: true, ..self }
    }

    /// Returns whether the service refused the key itself just now. Another try could lead to a lock.
    pub(super) fn is_key_refused(&self) -> bool {
        match &self.cause.kind {
            ErrorKind::Service(refusal) => refusal.class == Class::Auth,
            ErrorKind::Credentials(source) => source.downcast_ref::<AuthError>().is_some_and(AuthError::is_refused),
            _ => false,
        }
    }

    /// A permanent refusal, for tests.
    #[cfg(test)]
    pub(crate) fn refused_for_test() -> Self {
        let refusal = Refusal {
            status: StatusCode::BAD_REQUEST,
            code: None,
            foreign_code: None,
            class: Class::Caller,
            message: "refused".to_owned(),
            request_id: None,
            retry_after: None,
        };
        Self::new("acknowledge", ErrorKind::Service(refusal))
    }

    /// Returns whether the refusal names a temporary cause: a lock or a clock.
    pub(super) fn is_passing_refusal(&self) -> bool {
        match &self.cause.kind {
            ErrorKind::Service(refusal) => RefusalCause::of(&refusal.message).is_passing(),
            ErrorKind::Credentials(source) => match source.downcast_ref() {
                Some(AuthError::Refused { message, .. }) => RefusalCause::of(message).is_passing(),
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns whether this answer proves that the service accepted the key. An answer of a proxy or load balancer
    /// proves nothing.
    pub(super) fn says_key_is_good(&self) -> bool {
        let ErrorKind::Service(refusal) = &self.cause.kind else { return false };
        let by_service = refusal.code.is_some_and(ErrorCode::is_of_service);
        by_service && !matches!(refusal.class, Class::Auth | Class::Transient | Class::Throttled)
    }

    /// Marks the error of a key that the client tries again after `wait`.
    pub(super) fn waiting(self, wait: Duration) -> Self {
        Self { wait: Some(wait), ..self }
    }

    /// How long the client pauses after the key was refused.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.wait
    }

    fn refusal(&self) -> Option<&Refusal> {
        match &self.cause.kind {
            ErrorKind::Service(refusal) => Some(refusal),
            ErrorKind::Stopped(error) | ErrorKind::Paused(error) => error.refusal(),
            _ => None,
        }
    }

    pub(crate) fn class(&self) -> Option<Class> {
        self.refusal().map(|refusal| refusal.class)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(self.cause.kind, ErrorKind::Stopped(_) | ErrorKind::Paused(_)) {
            write!(f, "{}: ", self.cause.operation)?;
        }
        write!(f, "{}", self.cause.kind)?;
        if let Some(wait) = self.wait {
            write!(f, "; the client sends nothing for {} s and then tries again", wait.as_secs_f64().ceil())?;
        }
        match (self.unsure, self.progress()) {
            (false, _) => Ok(()),
            // This try had no effect, but an earlier one may have had.
            (true, Progress::None) => f.write_str("; an earlier try may have taken effect"),
            (true, _) => f.write_str("; it may have taken effect all the same"),
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(text) => f.write_str(text),
            Self::Limit(None, error) => write!(f, "{error}"),
            Self::Limit(Some(index), error) => write!(f, "message {index}: {error}"),
            Self::Service(refusal) => write!(f, "{refusal}"),
            Self::Transport(address, error) => write!(f, "{address}: {error}"),
            Self::Answer(status, error) => write!(f, "the answer ({status}) cannot be read: {error}"),
            Self::Credentials(error) => write!(f, "{error}"),
            Self::Stopped(error) => write!(f, "nothing is sent any more because the key was refused: {error}"),
            Self::Paused(error) => write!(f, "nothing was sent because the key was refused a short time ago: {error}"),
            Self::Missing { what, name, known, limited: true } if known.is_empty() => {
                write!(f, "there is no {what} {name:?} that the credentials may see, nor any other")
            }
            Self::Missing { what, name, known, .. } if known.is_empty() => {
                write!(f, "there is no {what} {name:?}, nor any other; create it first")
            }
            Self::Missing { what, name, known, limited } => {
                let words: Vec<&str> = known.iter().map(String::as_str).collect();
                let seen = if *limited { " that the credentials may see" } else { "" };
                write!(f, "there is no {what} {name:?}{seen}; ")?;
                if let Some(meant) = nearest(name, &words) {
                    write!(f, "did you mean {meant:?}? ")?;
                }
                let shown = words.get(..words.len().min(MAX_NAMES)).unwrap_or_default();
                write!(f, "there are {}", visible(&shown.join(", ")))?;
                match words.len() - shown.len() {
                    0 => Ok(()),
                    others => write!(f, " and {others} others"),
                }
            }
            Self::Deadline => f.write_str("the deadline passed"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.code, &self.foreign_code) {
            (Some(code), _) => write!(f, "{code}")?,
            (None, Some(code)) => write!(f, "{}", visible(code))?,
            (None, None) => write!(f, "HTTP {}", self.status)?,
        }
        if !self.message.is_empty() {
            // A status is not followed by its meaning, as a code is.
            let gap = if self.code.is_none() && self.foreign_code.is_none() { ":" } else { "" };
            write!(f, "{gap} {}", visible(self.message.trim_end_matches('.')))?;
        }
        if let Some(id) = self.request_id.as_ref().filter(|id| !id.is_empty()) {
            write!(f, " (request {})", visible(id))?;
        }
        match remedy(self.class, &self.message) {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

fn remedy(class: Class, message: &str) -> &'static str {
    match class {
        Class::Auth => RefusalCause::of(message).remedy(),
        Class::Forbidden => "give the user the rights on DMS",
        Class::Quota => "delete resources that are not needed, or ask for a larger quota",
        Class::Throttled => "send fewer requests",
        Class::BeingCreated => "wait a few seconds",
        Class::LostLease => "the messages are redelivered",
        Class::Transient | Class::Exists | Class::NotFound | Class::Caller => "",
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text is complete and has no secrets.
        write!(f, "Error({self})")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.cause.kind {
            ErrorKind::Limit(_, error) => Some(error),
            ErrorKind::Transport(_, error) => Some(error),
            ErrorKind::Answer(_, error) | ErrorKind::Credentials(error) => Some(error.as_ref()),
            ErrorKind::Stopped(error) | ErrorKind::Paused(error) => Some(error),
            ErrorKind::Setup(_) | ErrorKind::Service(_) | ErrorKind::Missing { .. } | ErrorKind::Deadline => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_was_cloned_can_be_marked_too() {
        let error = Error::new("send", ErrorKind::Transport("http://h".to_owned(), TransportError::unsure("eof")));
        let kept = error.clone();
        let marked = error.into_unsure();
        assert!(
            marked.is_unsure() && marked.clone().is_unsure() && marked.to_string().contains("may have taken effect")
        );
        assert!(!kept.is_unsure(), "an outcome that is unknown elsewhere is not about this call");
    }

    #[test]
    fn what_did_nothing_does_not_say_that_it_may_have() {
        let gone = Error::new("send", ErrorKind::Transport("http://h".to_owned(), TransportError::not_sent("refused")));
        let text = gone.into_unsure().to_string();
        assert!(text.ends_with("; an earlier try may have taken effect") && !text.contains("all the same"), "{text}");
    }
}
