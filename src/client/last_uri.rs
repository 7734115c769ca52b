//! [`LastUri`]: the URI of the last request to one path. A worker sends to the same two paths again and again, and building a URI
//! costs as much as all the rest of a request's head.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Uri;

/// The URI of the last request that one client sent to one path, with its query.
#[derive(Debug, Default)]
pub(crate) struct LastUri(Mutex<Option<(String, Uri)>>);

impl LastUri {
    /// The URI of the last request, if that had this query.
    pub(super) fn with_query(&self, query: &str) -> Option<Uri> {
        self.lock().as_ref().filter(|(last, _)| last == query).map(|(_, uri)| uri.clone())
    }

    /// Remembers the URI of a request with this query.
    pub(super) fn remember(&self, query: &str, uri: &Uri) {
        *self.lock() = Some((query.to_owned(), uri.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, Option<(String, Uri)>> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_query_needs_another_uri() {
        let last = LastUri::default();
        assert_eq!(last.with_query(""), None);
        let (ten, one) = (Uri::from_static("/messages?max_msgs=10"), Uri::from_static("/messages?max_msgs=1"));
        last.remember("max_msgs=10", &ten);
        assert_eq!((last.with_query("max_msgs=10"), last.with_query("max_msgs=1")), (Some(ten), None));
        last.remember("max_msgs=1", &one);
        assert_eq!((last.with_query("max_msgs=1"), last.with_query("max_msgs=10")), (Some(one), None));
    }
}
