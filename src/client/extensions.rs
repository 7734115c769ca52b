//! The extensions of this project's server: which of them the service announces, and calls that only they allow.

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

/// What the service announced last.
#[derive(Debug, Default)]
pub(super) struct Announced(AtomicU8);

impl Announced {
    /// Takes in the headers of an answer. One that worked and announces nothing comes from a service without extensions; an error may
    /// come from something in between.
    pub(super) fn note(&self, worked: bool, headers: &HeaderMap) {
        let Some(extensions) = Extensions::announced(headers).or(worked.then_some(Extensions::NONE)) else { return };
        // Nearly always nothing changes, and then the cores need not take the byte from each other.
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
    /// Takes an id that is used for one call alone.
    ///
    /// # Errors
    /// When it is not 1-64 of `A-Z a-z 0-9 _ -`.
    pub fn new(id: impl Into<Box<str>>) -> Result<Self, LimitError> {
        let id = id.into();
        limits::poll_id(&id)?;
        Ok(Self(id))
    }

    /// An id that no other call has.
    pub fn unique() -> Self {
        /// Tells this process from others.
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
    /// What the service can do beyond the documented API, as its last answer announced; nothing before the first answer.
    pub fn extensions(&self) -> Extensions {
        self.inner.extensions.get()
    }

    /// Ends consume calls that wait, by the ids that they were [given](Self::consume_as): the service answers each at once
    /// with what it has, usually nothing. A call that has not arrived yet is answered as soon as it does. Gives the number of calls that
    /// were waiting; zero where the service has not announced that it can do this, and then it is not asked.
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
