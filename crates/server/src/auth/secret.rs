//! Comparing secrets in constant time, and recognizing blank ones.

use dms_protocol::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Whether `text` is empty or white space, and so no credential.
pub(crate) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Whether two secrets are equal, in constant time.
pub(super) fn same(left: &str, right: &str) -> bool {
    GivenSecret::of(left).is(right)
}

/// Whether both secrets are equal, or both are missing.
pub(crate) fn same_secret(one: Option<&Secret>, other: Option<&Secret>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same(one.expose(), other.expose()),
        (None, None) => true,
        _ => false,
    }
}

/// A secret from a request, to be compared with several known ones. It is hashed once, because strangers choose its length.
pub(crate) struct GivenSecret(Option<Vec<u8>>);

impl GivenSecret {
    pub(crate) fn of(text: &str) -> Self {
        Self(mac(text).map(|mac| mac.finalize().into_bytes().to_vec()))
    }

    /// Whether it equals `secret`, in constant time.
    pub(crate) fn is(&self, secret: &str) -> bool {
        self.0.as_ref().is_some_and(|given| mac(secret).is_some_and(|mac| mac.verify_slice(given).is_ok()))
    }
}

fn mac(text: &str) -> Option<Hmac<Sha256>> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(b"compare").ok()?;
    mac.update(text.as_bytes());
    Some(mac)
}
