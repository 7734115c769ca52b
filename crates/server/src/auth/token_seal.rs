//! [`TokenSeal`]: tokens that every server with the same secret accepts. They contain their owner, so nothing has to be stored.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use dms_protocol::{auth::canonical::hex, queue::ProjectId, secret::Secret};

/// The first characters of a sealed token.
const PREFIX: &str = "dms1";
/// How many bytes of a password's check are in a token.
const CHECK_BYTES: usize = 8;

/// Seals and opens tokens.
#[derive(Debug)]
pub(crate) struct TokenSeal(Secret);

/// The content of a sealed token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedToken {
    pub(crate) user: String,
    pub(crate) domain: String,
    pub(crate) project: Option<ProjectId>,
    /// In Unix milliseconds.
    pub(crate) expires_ms: i64,
    /// Ends the token when the user's password changes; see [`TokenSeal::check_of`].
    pub(crate) password: String,
    /// Makes tokens differ.
    pub(crate) nonce: u64,
}

impl TokenSeal {
    pub(crate) fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// The text of a token; `None` if it cannot be written.
    pub(crate) fn seal(&self, token: &SealedToken) -> Option<String> {
        let said = BASE64.encode(serde_json::to_vec(token).ok()?);
        let proof = BASE64.encode(self.mac(b"token", said.as_bytes())?.finalize().into_bytes());
        Some(format!("{PREFIX}.{said}.{proof}"))
    }

    /// The content of a token. `None` if it was not sealed with this secret.
    pub(crate) fn open(&self, text: &str) -> Option<SealedToken> {
        let (prefix, rest) = text.split_once('.')?;
        let (said, proof) = rest.split_once('.').filter(|_| prefix == PREFIX)?;
        self.mac(b"token", said.as_bytes())?.verify_slice(&BASE64.decode(proof).ok()?).ok()?;
        serde_json::from_slice(&BASE64.decode(said).ok()?).ok()
    }

    /// A value that changes with the passwords of a user and does not show them.
    pub(crate) fn check_of(&self, password: &Secret) -> Option<String> {
        let proof = self.mac(b"password", password.expose().as_bytes())?.finalize().into_bytes();
        Some(hex(&proof[..CHECK_BYTES]))
    }

    /// The purpose keeps one kind of proof from being used as another.
    fn mac(&self, purpose: &[u8], of: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.0.expose().as_bytes()).ok()?;
        for part in [&b"dms-"[..], purpose, b" ", of] {
            mac.update(part);
        }
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn token() -> SealedToken {
        let (user, domain, password) = ("u".to_owned(), "d".to_owned(), "c".to_owned());
        SealedToken { user, domain, project: Some("p".into()), expires_ms: 7, password, nonce: 1 }
    }

    #[test]
    fn a_token_is_opened_with_its_secret_only_and_unchanged_only() {
        let seal = TokenSeal::new(Secret::from("one"));
        let text = seal.seal(&token()).unwrap();
        assert_eq!(seal.open(&text), Some(token()));
        assert_eq!(TokenSeal::new(Secret::from("two")).open(&text), None);
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of a proof has bits that mean nothing.
            assert!(seal.open(&changed).is_none_or(|opened| opened == token()), "{changed}");
        }
        for text in ["", ".", "..", "dms1", "dms1.", "dms1..", "dms2.a.b"] {
            assert_eq!(seal.open(text), None, "{text}");
        }
    }

    #[test]
    fn the_check_of_a_password_depends_on_the_secret() {
        let of = |secret: &str, password: &str| {
            TokenSeal::new(Secret::from(secret)).check_of(&Secret::from(password)).unwrap()
        };
        assert_eq!(of("one", "pass"), of("one", "pass"));
        assert_ne!(of("one", "pass"), of("one", "word"));
        assert_ne!(of("one", "pass"), of("two", "pass"));
    }
}
