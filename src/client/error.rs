//! Why a call failed: [`Error`], opaque, with predicates for what a caller can act on.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    cause::RefusalCause,
    code::{Class, ErrorCode},
};
use crate::{auth::AuthError, limits::LimitError, transport::TransportError, visible::visible};

/// Why a call, or one message of a send, failed. Cloning is cheap.
///
/// Its text is one sentence without secrets: what was called, what happened, and what can be done.
#[derive(Clone)]
pub struct Error {
    cause: Arc<Cause>,
    // Marks stand beside what clones share: one caller's mark is not that of another.
    /// The call may have taken effect.
    unsure: bool,
    /// How long the client sends nothing, because the key was refused but may be accepted later.
    wait: Option<Duration>,
}

struct Cause {
    operation: &'static str,
    kind: Kind,
}

pub(crate) enum Kind {
    /// A setting of the client cannot work.
    Setup(String),
    /// A value is outside the service's limits; nothing was sent. The message's place, where it is one's fault.
    Limit(Option<usize>, LimitError),
    /// The service answered with an error.
    Service(Refusal),
    /// There was no answer from this address.
    Transport(String, TransportError),
    /// The answer is not what the API reference says.
    Answer(StatusCode, Box<dyn StdError + Send + Sync>),
    /// The caller could not be authenticated before the call.
    Credentials(Box<dyn StdError + Send + Sync>),
    /// The key was refused before: nothing was sent.
    Stopped(Error),
    /// The key was refused a short time ago: nothing was sent, and later requests will be.
    Held(Error),
    /// No queue or group of that name.
    Missing { what: &'static str, name: String, known: Vec<String> },
    /// The caller's deadline passed before there was an answer worth having.
    Deadline,
}

/// An error answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: Option<ErrorCode>,
    /// The code as it came, where it is none of the service's.
    pub(crate) foreign_code: Option<String>,
    pub(crate) class: Class,
    pub(crate) message: String,
    pub(crate) request_id: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    /// How far a call came that was answered with trouble of the service, or of something before it.
    fn progress(&self) -> Progress {
        match self.status {
            // It was turned away at the door, and told when to come back.
            StatusCode::SERVICE_UNAVAILABLE if self.retry_after.is_some() => Progress::None,
            // A gateway passed it on, and does not know what became of it.
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT if self.code.is_none() => Progress::Unknown,
            _ => Progress::Failed,
        }
    }
}

/// How far a failed try came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The service did nothing.
    None,
    /// The service answered that it failed; some of it may have been done.
    Failed,
    /// Nobody knows.
    Unknown,
}

impl Error {
    pub(crate) fn new(operation: &'static str, kind: Kind) -> Self {
        Self { cause: Arc::new(Cause { operation, kind }), unsure: false, wait: None }
    }

    #[doc(hidden)]
    pub fn limit(operation: &'static str, error: LimitError) -> Self {
        Self::new(operation, Kind::Limit(None, error))
    }

    /// As [`new`](Self::new), of a call that may have taken effect.
    pub(crate) fn unsure(operation: &'static str, kind: Kind) -> Self {
        Self::new(operation, kind).into_unsure()
    }

    /// Whether the same call may succeed later: throttling, a service or a network in trouble, a queue being created.
    ///
    /// Whether repeating it is safe is another question: see [`is_unsure`](Self::is_unsure).
    pub fn is_retryable(&self) -> bool {
        if self.wait.is_some() {
            return true;
        }
        match &self.cause.kind {
            Kind::Service(refusal) => {
                matches!(refusal.class, Class::Transient | Class::BeingCreated | Class::Throttled)
            }
            Kind::Transport(..) => true,
            Kind::Credentials(source) => source.downcast_ref::<AuthError>().is_some_and(AuthError::is_retryable),
            // What stood there was not the service's: something between here and there answered for it.
            Kind::Answer(..) => true,
            _ => false,
        }
    }

    /// Whether the service asks for fewer calls.
    pub fn is_throttled(&self) -> bool {
        self.class() == Some(Class::Throttled)
    }

    /// Whether the key or token is refused.
    ///
    /// A key that never worked stops the client for good: build another one. A key that has worked before, or is refused
    /// for a lock or a clock, is tried again after a pause: then [`is_retryable`](Self::is_retryable) is true too, and
    /// [`retry_after`](Self::retry_after) says when.
    pub fn is_auth(&self) -> bool {
        match &self.cause.kind {
            Kind::Stopped(_) | Kind::Held(_) => true,
            Kind::Credentials(source) => !source.downcast_ref::<AuthError>().is_some_and(AuthError::is_retryable),
            _ => self.class() == Some(Class::Auth),
        }
    }

    /// Whether the caller is known but may not do this.
    pub fn is_forbidden(&self) -> bool {
        self.class() == Some(Class::Forbidden)
    }

    /// Whether the queue, group, tag or URL does not exist.
    pub fn is_not_found(&self) -> bool {
        self.class() == Some(Class::NotFound) || matches!(self.cause.kind, Kind::Missing { .. })
    }

    /// Whether a queue, group or tag of that name exists already.
    pub fn is_exists(&self) -> bool {
        self.class() == Some(Class::Exists)
    }

    /// Whether the lease was over: the messages are, or will be, handed out again.
    pub fn is_lost_lease(&self) -> bool {
        !self.unsure && self.class() == Some(Class::LostLease)
    }

    /// Whether the call may have taken effect although it failed: a send that may have been stored, an
    /// acknowledgement that may have counted.
    pub fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Whether a value was outside the service's limits, so that nothing was sent, or a quota is used up.
    pub fn is_limit(&self) -> bool {
        matches!(self.cause.kind, Kind::Limit(..)) || self.class() == Some(Class::Quota)
    }

    /// Whether the time was up before an answer came.
    pub fn is_timeout(&self) -> bool {
        match &self.cause.kind {
            Kind::Transport(_, error) => error.is_timeout(),
            Kind::Deadline => true,
            _ => false,
        }
    }

    /// Whether the service could not be reached at all.
    pub fn is_connect(&self) -> bool {
        match &self.cause.kind {
            Kind::Transport(_, error) => error.is_not_sent(),
            Kind::Credentials(source) => source.downcast_ref::<AuthError>().is_some_and(AuthError::is_connect),
            _ => false,
        }
    }

    /// The service's error code, where it gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.refusal().and_then(|refusal| refusal.code)
    }

    /// The HTTP status of the answer, where there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match &self.cause.kind {
            Kind::Answer(status, _) => Some(*status),
            _ => self.refusal().map(|refusal| refusal.status),
        }
    }

    /// The request's id in the service's logs, where it gave one.
    pub fn request_id(&self) -> Option<&str> {
        self.refusal().and_then(|refusal| refusal.request_id.as_deref())
    }

    /// How long the service asks to wait (`Retry-After`, in seconds or as a date), or the client waits after its key was refused;
    /// five minutes at most, whatever the service asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.wait.or_else(|| self.refusal().and_then(|refusal| refusal.retry_after))
    }

    /// How far the try came.
    pub(super) fn progress(&self) -> Progress {
        match &self.cause.kind {
            Kind::Transport(_, error) if !error.is_not_sent() => Progress::Unknown,
            Kind::Answer(..) => Progress::Unknown,
            Kind::Service(refusal) if refusal.class == Class::Transient => refusal.progress(),
            _ => Progress::None,
        }
    }

    /// The same error of a call that may have taken effect.
    pub(super) fn into_unsure(self) -> Self {
        Self { unsure: true, ..self }
    }

    /// Whether the key itself was refused now: another try would bring it closer to being locked.
    pub(super) fn is_key_refused(&self) -> bool {
        match &self.cause.kind {
            Kind::Service(refusal) => refusal.class == Class::Auth,
            Kind::Credentials(source) => source.downcast_ref::<AuthError>().is_some_and(AuthError::is_refused),
            _ => false,
        }
    }

    /// A refusal for good, for tests of those who hear it.
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
        Self::new("acknowledge", Kind::Service(refusal))
    }

    /// Whether a refusal of the key speaks of something that passes: a lock, or a clock.
    pub(super) fn is_passing_refusal(&self) -> bool {
        match &self.cause.kind {
            Kind::Service(refusal) => RefusalCause::of(&refusal.message).is_passing(),
            Kind::Credentials(source) => match source.downcast_ref() {
                Some(AuthError::Refused { message, .. }) => RefusalCause::of(message).is_passing(),
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the service must have accepted the key to answer so. What a proxy or a balancer before it answers is none.
    pub(super) fn says_key_is_good(&self) -> bool {
        let Kind::Service(refusal) = &self.cause.kind else { return false };
        let by_service = refusal.code.is_some_and(ErrorCode::is_of_service);
        by_service && !matches!(refusal.class, Class::Auth | Class::Transient | Class::Throttled)
    }

    /// The same error, of a key that is tried again after this wait.
    pub(super) fn waiting(self, wait: Duration) -> Self {
        Self { wait: Some(wait), ..self }
    }

    /// How long the client sends nothing after the key was refused.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.wait
    }

    fn refusal(&self) -> Option<&Refusal> {
        match &self.cause.kind {
            Kind::Service(refusal) => Some(refusal),
            Kind::Stopped(error) | Kind::Held(error) => error.refusal(),
            _ => None,
        }
    }

    pub(crate) fn class(&self) -> Option<Class> {
        self.refusal().map(|refusal| refusal.class)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(self.cause.kind, Kind::Stopped(_) | Kind::Held(_)) {
            write!(f, "{}: ", self.cause.operation)?;
        }
        write!(f, "{}", self.cause.kind)?;
        if let Some(wait) = self.wait {
            write!(f, "; the client sends nothing for {} s and then tries again", wait.as_secs_f64().ceil())?;
        }
        match (self.unsure, self.progress()) {
            (false, _) => Ok(()),
            // This try did nothing, and one before it may have.
            (true, Progress::None) => f.write_str("; an earlier try may have taken effect"),
            (true, _) => f.write_str("; it may have taken effect all the same"),
        }
    }
}

impl fmt::Display for Kind {
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
            Self::Held(error) => write!(f, "nothing was sent because the key was refused a short time ago: {error}"),
            Self::Missing { what, name, known } if known.is_empty() => {
                write!(f, "there is no {what} {name:?}, nor any other; create it first")
            }
            Self::Missing { what, name, known } => {
                write!(f, "there is no {what} {name:?}; there are {}", visible(&known.join(", ")))
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
            write!(f, " {}", visible(self.message.trim_end_matches('.')))?;
        }
        if let Some(id) = &self.request_id {
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
        Class::Quota => "delete what is not needed, or ask for a larger quota",
        Class::Throttled => "send fewer requests",
        Class::BeingCreated => "wait a few seconds",
        Class::LostLease => "the messages come again",
        Class::Transient | Class::Exists | Class::NotFound | Class::Caller => "",
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text holds everything, and no secrets.
        write!(f, "Error({self})")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.cause.kind {
            Kind::Limit(_, error) => Some(error),
            Kind::Transport(_, error) => Some(error),
            Kind::Answer(_, error) | Kind::Credentials(error) => Some(error.as_ref()),
            Kind::Stopped(error) | Kind::Held(error) => Some(error),
            Kind::Setup(_) | Kind::Service(_) | Kind::Missing { .. } | Kind::Deadline => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_was_cloned_can_be_marked_too() {
        let error = Error::new("send", Kind::Transport("http://h".to_owned(), TransportError::unsure("eof")));
        let kept = error.clone();
        let marked = error.into_unsure();
        assert!(
            marked.is_unsure() && marked.clone().is_unsure() && marked.to_string().contains("may have taken effect")
        );
        assert!(!kept.is_unsure(), "what is kept elsewhere was not about this call");
    }

    #[test]
    fn what_did_nothing_does_not_say_that_it_may_have() {
        let gone = Error::new("send", Kind::Transport("http://h".to_owned(), TransportError::not_sent("refused")));
        let text = gone.into_unsure().to_string();
        assert!(text.ends_with("; an earlier try may have taken effect") && !text.contains("all the same"), "{text}");
    }
}
