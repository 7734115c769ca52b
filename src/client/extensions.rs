//! The extensions of this project's server: those that the service announced, and the calls that need them.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    sync::{
        LazyLock,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, HeaderValue, Method};

use super::{
    Client,
    call::Call,
    error::{Error, Kind},
    tries::Repeat,
};
use crate::{
    limits::{self, LimitError},
    wire::extensions::{Extensions, MAX_ENDED_POLLS, decode_ended, encode_end_polls},
};

/// The extensions that the service announced last.
#[derive(Debug, Default)]
pub(super) struct Announced(AtomicU8);

impl Announced {
    /// Reads the headers of an answer. A success without the header comes from a service without extensions; an error
    /// may come from a proxy.
    pub(super) fn note(&self, worked: bool, headers: &HeaderMap) {
        let Some(extensions) = Extensions::announced(headers).or(worked.then_some(Extensions::NONE)) else { return };
        // A write on each answer would move the cache line between the cores, and the value rarely changes.
        if self.get() != extensions {
            self.0.store(extensions.bits(), Relaxed);
        }
    }

    pub(super) fn get(&self) -> Extensions {
        Extensions::from_bits(self.0.load(Relaxed))
    }
}

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
        self.inner.extensions.get()
    }

    /// Ends waiting consume calls by their [ids](Self::consume_as). The service answers each at once, usually without
    /// messages, and answers a call that arrives later without a wait. Returns the number of calls that waited; zero,
    /// without a request, if the service has not announced this extension.
    ///
    /// # Errors
    /// When there are more than 100 ids, or the call fails.
    pub async fn end_polls(&self, polls: &[PollId]) -> Result<usize, Error> {
        const NAME: &str = "end polls";
        if polls.is_empty() || !self.extensions().end_poll() {
            return Ok(0);
        }
        limits::in_range("number of polls", polls.len(), &(1..=MAX_ENDED_POLLS), "")
            .map_err(|error| Error::new(NAME, Kind::Limit(None, error)))?;
        let body = encode_end_polls(polls.iter().map(PollId::as_str));
        let call = Call::new(NAME, Method::POST, &["polls", "end"], Repeat::Harmless).body(body)?;
        self.fetch(call, |answer| Ok(decode_ended(answer)?)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_worked_without_a_word_comes_from_a_service_without_extensions() {
        let headers = |list: Option<&'static str>| -> HeaderMap {
            list.map(|list| (http::HeaderName::from_static("x-dms-extensions"), HeaderValue::from_static(list)))
                .into_iter()
                .collect()
        };
        let announced = Announced::default();
        assert_eq!(announced.get(), Extensions::NONE);
        announced.note(true, &headers(Some("release")));
        announced.note(false, &headers(None));
        assert!(announced.get().release(), "an error from a proxy says nothing");
        announced.note(true, &headers(None));
        assert_eq!(announced.get(), Extensions::NONE);
        announced.note(false, &headers(Some("end-poll, release, reject, reason")));
        assert_eq!(announced.get(), Extensions::ALL);
    }

    #[test]
    fn ids_of_polls_are_words_and_none_is_given_twice() {
        assert_ne!(PollId::unique(), PollId::unique());
        assert!(PollId::new(PollId::unique().as_str()).is_ok());
        for bad in ["", "a b", "ä", &"x".repeat(65)] {
            assert!(PollId::new(bad).is_err(), "{bad:?}");
        }
    }
}
