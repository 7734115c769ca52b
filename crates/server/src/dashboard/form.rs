//! [`Form`]: the fields of a form or a query string.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::FromRequestParts,
};
use http::request::Parts;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use tokio::time::timeout;

/// How long a form may take to arrive.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The fields of a form or a query string, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, String)>);

/// Why a form was not read: it is too large, too slow, or the connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableForm;

impl Form {
    /// Decodes `name=value` pairs. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub fn parse(text: &[u8]) -> Self {
        let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        let pair = |pair: &[u8]| {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            (decode(&pair[..at]), decode(pair.get(at + 1..).unwrap_or_default()))
        };
        Self(pairs.map(pair).collect())
    }

    /// Reads the body of a form of at most `most` bytes.
    ///
    /// # Errors
    /// When it is too large, arrives too slowly, or the connection fails.
    pub async fn read(body: Body, most: usize) -> Result<Self, UnreadableForm> {
        let body = timeout(MAX_WAIT, to_bytes(body, most)).await.map_err(|_| UnreadableForm)?;
        Ok(Self::parse(&body.map_err(|_| UnreadableForm)?))
    }

    /// The first field of this name.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first field of this name, without white space around it. `None` if nothing is left.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.first(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// All fields of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The query string of a link to the same page with another value of one field, such as `?range=3h`. The other fields are kept,
    /// except for the notice about an action, which the page has shown.
    pub fn with(&self, name: &str, value: &str) -> String {
        let kept = self.0.iter().filter(|(key, _)| key != name && key != "notice");
        let fields = kept.map(|(key, value)| (key.as_str(), value.as_str())).chain([(name, value)]);
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let pairs: Vec<_> = fields.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        format!("?{}", pairs.join("&"))
    }

    /// A number in the field of this name.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.filled(name)?.parse().ok()
    }
}

/// The query string of a request.
impl<S: Sync> FromRequestParts<S> for Form {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default().as_bytes()))
    }
}

fn decode(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_damage_is_replaced() {
        let form = Form::parse(b"a=1+2&b=%E4%BD%A0%25&a=3&c&=x&d=%ff%zz&n=18446744073709551615");
        assert_eq!(form.first("a"), Some("1 2"));
        assert_eq!(form.all("a").collect::<Vec<_>>(), ["1 2", "3"]);
        assert_eq!((form.first("b"), form.first("c"), form.filled("c")), (Some("你%"), Some(""), None));
        assert_eq!(form.first("d"), Some("\u{fffd}%zz"));
        assert_eq!((form.number("n"), form.number("b")), (Some(u64::MAX), None));
    }

    #[test]
    fn a_link_changes_one_field_and_keeps_the_others() {
        let form = Form::parse(b"range=3h&window=1h&text=a%26b&notice=done");
        assert_eq!(form.with("window", "10m"), "?range=3h&text=a%26b&window=10m");
        assert_eq!(Form::default().with("range", "24h"), "?range=24h");
    }
}
