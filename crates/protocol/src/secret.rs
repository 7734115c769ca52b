//! [`Secret`]: a text that no log shows.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A secret text, such as a secret key, a password or a token.
///
/// `Debug` does not show it, and its memory is overwritten when it is dropped.
///
/// ```
/// use dms_protocol::secret::Secret;
///
/// let secret = Secret::from("s3cret");
/// assert_eq!(secret.expose(), "s3cret");
/// assert_eq!(format!("{secret:?}"), "Secret");
/// ```
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// Returns the text. Do not log it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns whether the text is empty or white space alone.
    pub fn is_blank(&self) -> bool {
        self.expose().trim().is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(SecretString::from(text))
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(SecretString::from(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
