//! The calls that need extensions of this project's server.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderValue, Method};

use super::{
    Client,
    call::Call,
    error::{Error, ErrorKind},
    tries::Repeat,
};
use crate::{
    limits::{self, LimitError},
    wire::extensions::{Extensions, MAX_ENDED_POLLS, decode_ended, encode_end_polls},
};

/// The id of one consume call, so that [`Client::end_polls`] can end it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PollId(Box<str>);

impl PollId {
    /// Checks an id. Use it for one call only.
    ///
    /// # Errors
    /// When it is not 1-64 of `A-Z a-z 0-9 _ -`.
    pub fn new(id: impl Into<Box<str>>) -> Result<Self, LimitError> {
        let id = id.into();
        limits::poll_id(&id)?;
        Ok(Self(id))
    }

    /// A unique id.
    pub fn unique() -> Self {
        /// A random part that differs between processes.
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Self(format!("{:016x}-{:x}", *PROCESS, NUMBER.fetch_add(1, Relaxed)).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl fmt::Debug for PollId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PollId({})", self.0)
    }
}

impl Client {
    /// The extensions of the documented API that the last answer announced; none before the first answer.
    pub fn extensions(&self) -> Extensions {
        // The API of MQS has none, whatever its headers say.
        if self.speaks_mqs() { Extensions::NONE } else { self.inner.extensions.get() }
    }

    /// Ends waiting consume calls by their [ids](Self::consume_as). The service answers each at once, usually without
    /// messages, and answers a call that arrives later without a wait. Returns the number of calls that waited; zero,
    /// without a request, if the service has not announced this extension.
    ///
    /// # Errors
    /// When there are more than 100 ids, or the call fails.
    ///
    /// # Cancel safety
    /// The service may end the polls although the future was dropped.
    pub async fn end_polls(&self, polls: &[PollId]) -> Result<usize, Error> {
        const NAME: &str = "end polls";
        if polls.is_empty() || !self.extensions().end_poll() {
            return Ok(0);
        }
        limits::in_range("number of polls", polls.len(), &(1..=MAX_ENDED_POLLS), "")
            .map_err(|error| Error::new(NAME, ErrorKind::Limit(None, error)))?;
        let body = encode_end_polls(polls.iter().map(PollId::as_str));
        let call = Call::new(NAME, Method::POST, &["polls", "end"], Repeat::Harmless).body(body)?;
        self.fetch(call, |answer| Ok(decode_ended(answer)?)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_polls_are_words_and_none_is_given_twice() {
        assert_ne!(PollId::unique(), PollId::unique());
        assert!(PollId::new(PollId::unique().as_str()).is_ok());
        for bad in ["", "a b", "ä", &"x".repeat(65)] {
            assert!(PollId::new(bad).is_err(), "{bad:?}");
        }
    }
}
