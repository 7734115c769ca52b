//! Comparing secrets in constant time, and telling empty ones.

use dms_protocol::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Whether a text is no credential: there is nothing in it.
pub(crate) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Whether two secrets are equal, in a time that does not depend on where they differ.
pub(super) fn same(left: &str, right: &str) -> bool {
    GivenSecret::of(left).is(right)
}

/// Whether there are two equal secrets, or none.
pub(crate) fn same_secret(one: Option<&Secret>, other: Option<&Secret>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same(one.expose(), other.expose()),
        (None, None) => true,
        _ => false,
    }
}

/// A secret that somebody gave, to be compared with many: strangers choose how long it is, so that it is read once.
pub(crate) struct GivenSecret(Option<Vec<u8>>);

impl GivenSecret {
    pub(crate) fn of(text: &str) -> Self {
        Self(mac(text).map(|mac| mac.finalize().into_bytes().to_vec()))
    }

    /// Whether it is this secret, in a time that does not depend on where they differ.
    pub(crate) fn is(&self, secret: &str) -> bool {
        self.0.as_ref().is_some_and(|given| mac(secret).is_some_and(|mac| mac.verify_slice(given).is_ok()))
    }
}

fn mac(text: &str) -> Option<Hmac<Sha256>> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(b"compare").ok()?;
    mac.update(text.as_bytes());
    Some(mac)
}
