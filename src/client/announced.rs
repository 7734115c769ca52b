//! [`Announced`]: which extensions of this project's server the service has.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use http::HeaderMap;

use crate::wire::extensions::Extensions;

/// The extensions that the service announced last.
#[derive(Debug, Default)]
pub(super) struct Announced(AtomicU16);

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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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
        let all = "end-poll, release, reject, reason, overview, peek, message-id, messages, deduplication, long-delay";
        announced.note(false, &headers(Some(all)));
        assert_eq!(announced.get(), Extensions::ALL);
    }
}
