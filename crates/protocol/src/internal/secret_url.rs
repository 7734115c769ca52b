//! [`SecretUrl`]: a URL that may contain secrets and is shown without them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The replacement of a secret in all output.
pub const MASK: &str = "***";

/// A URL as written. `Debug` and `Display` show `***` for the user and password, the query and the fragment, because
/// each may be a secret, also in a malformed URL.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps a URL.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The URL with its secrets. Do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether the URL is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for SecretUrl {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for SecretUrl {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", masked(&self.0))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for SecretUrl {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretUrl".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// A URL without its secrets.
fn masked(url: &str) -> String {
    let (address, rest) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let (scheme, address) = match address.split_once("://") {
        Some((scheme, address)) => (&url[..scheme.len() + 3], address),
        None => ("", address),
    };
    let authority = address.split('/').next().unwrap_or_default();
    let address = match (authority.rsplit_once('@'), address.rsplit_once('@')) {
        (Some((user, _)), _) => &address[user.len()..],
        // A user cannot follow a slash, but a password may have an unescaped slash.
        (None, Some((user, _))) if scheme.is_empty() || authority.contains(':') => &address[user.len()..],
        _ => return format!("{scheme}{address}{}", masked_rest(rest)),
    };
    format!("{scheme}{MASK}{address}{}", masked_rest(rest))
}

/// Shows `?***` for a query and `#***` for a fragment.
fn masked_rest(rest: &str) -> String {
    let mut letters = rest.chars();
    match letters.next() {
        Some(mark) if !letters.as_str().is_empty() => format!("{mark}{MASK}"),
        _ => rest.to_owned(),
    }
}

/// The parts of a URL that may be secret: the text before the `@`, the query and the fragment.
pub fn credentials(url: &str) -> Vec<&str> {
    let Some((_, rest)) = url.split_once("://") else { return Vec::new() };
    let (address, query) = match rest.split_once(['?', '#']) {
        Some((address, query)) => (address, Some(query)),
        None => (rest, None),
    };
    address.rsplit_once('@').map(|(user, _)| user).into_iter().chain(query).filter(|part| !part.is_empty()).collect()
}

/// Removes the secrets of all URLs in a text, such as the error of a library.
pub fn without_secrets(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '(' | ')');
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let begin = rest[..start].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
        // The search ends at one byte or at whitespace, and the scheme starts after it.
        let begin = (begin..=start).find(|at| rest.is_char_boundary(*at)).unwrap_or(start);
        let end = rest[start..].find(is_end).map_or(rest.len(), |at| start + at);
        shown.push_str(&rest[..begin]);
        shown.push_str(&masked(&rest[begin..end]));
        rest = &rest[end..];
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_queries_and_fragments_are_masked() {
        for (url, shown) in [
            ("http://127.0.0.1:8080/orders", "http://127.0.0.1:8080/orders"),
            ("embedded", "embedded"),
            ("", ""),
            ("https://user:pw@app/x?key=k#f", "https://***@app/x?***"),
            ("https://token@app", "https://***@app"),
            ("https://a@b@app/x", "https://***@app/x"),
            ("https://app/#k", "https://app/#***"),
            ("https://app/x?", "https://app/x?"),
            ("https://user:p/w@app/x", "https://***@app/x"),
            ("https://app/@user", "https://app/@user"),
            ("user:pw@app", "***@app"),
            ("http:/user:pw@app", "***@app"),
            ("ftp//user:pw@app", "***@app"),
        ] {
            assert_eq!(SecretUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", SecretUrl::new(url)), format!("{shown:?}"));
        }
    }

    #[test]
    fn urls_are_found_in_the_text_of_others() {
        for (text, shown) in [
            (
                "error sending request for url (http://u:p@app/x?k=v): closed",
                "error sending request for url (http://***@app/x?***): closed",
            ),
            ("größe: http://a/ and \"https://u:p@b\"", "größe: http://a/ and \"https://***@b\""),
            ("nothing here", "nothing here"),
            ("://x?y", "://x?***"),
            ("ü://u:p@x ü", "ü://***@x ü"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }
}
