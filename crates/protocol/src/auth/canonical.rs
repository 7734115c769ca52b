//! [`CanonicalRequest`]: the text of a request that client and server hash for the signature.
//!
//! The server builds it from requests before it knows the caller, so no input may make it panic.

use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};

/// The error if `SignedHeaders` names a header that the request does not have. Holds the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header {0} is signed but missing")]
pub struct MissingHeader(pub String);

/// The parts of a request that its signature covers.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as it is sent, percent-encoded.
    pub path: &'a str,
    /// The query as it is sent, without `?`; empty if there is none.
    pub query: &'a str,
    /// The headers, including `Host`.
    pub headers: &'a HeaderMap,
    /// The body; empty if there is none.
    pub body: &'a [u8],
}

/// The canonical text of a request, exactly as the vendor's signer builds it: method, path, query, signed headers, their names, and
/// the SHA-256 of the body, each on separate lines. The path gets a final `/`, and the query is sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalRequest(Vec<u8>);

impl CanonicalRequest {
    /// Builds the text with the headers named by `signed`, in this order. The names must be in lower case. Several values of one
    /// header are joined by commas.
    ///
    /// # Errors
    /// When a header of `signed` is missing.
    pub fn new(request: &RequestParts<'_>, signed: &[String]) -> Result<Self, MissingHeader> {
        let mut text = request.method.as_str().to_ascii_uppercase().into_bytes();
        text.push(b'\n');
        text.extend_from_slice(canonical_path(request.path).as_bytes());
        text.push(b'\n');
        text.extend_from_slice(canonical_query(request.query).as_bytes());
        text.push(b'\n');
        for name in signed {
            push_header(&mut text, name, request.headers)?;
        }
        text.push(b'\n');
        text.extend_from_slice(signed.join(";").as_bytes());
        text.push(b'\n');
        text.extend_from_slice(sha256_hex(request.body).as_bytes());
        Ok(Self(text))
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The SHA-256 of the text, in lower-case hex.
    pub fn hash(&self) -> String {
        sha256_hex(&self.0)
    }
}

/// Appends `name:value\n`. Several values of one name are joined by commas, so that nobody can add an unsigned one.
fn push_header(text: &mut Vec<u8>, name: &str, headers: &HeaderMap) -> Result<(), MissingHeader> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().ok_or_else(|| MissingHeader(name.to_owned()))?;
    text.extend_from_slice(name.as_bytes());
    text.push(b':');
    text.extend_from_slice(first.as_bytes().trim_ascii());
    for value in values {
        text.push(b',');
        text.extend_from_slice(value.as_bytes().trim_ascii());
    }
    text.push(b'\n');
    Ok(())
}

/// Decodes the path, encodes each segment again, and appends a `/`. An encoded `/` becomes a separator.
fn canonical_path(path: &str) -> String {
    let decoded = decode(path);
    let mut text = String::with_capacity(path.len() + 1);
    for (index, part) in decoded.split(|&byte| byte == b'/').enumerate() {
        if index > 0 {
            text.push('/');
        }
        encode(&mut text, part);
    }
    if !text.ends_with('/') {
        text.push('/');
    }
    text
}

/// Sorts the decoded pairs by name, then by value. A name without a value gets an empty one.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode_form(name), decode_form(value)))
        .collect();
    pairs.sort_unstable();
    let mut text = String::with_capacity(query.len());
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            text.push('&');
        }
        encode(&mut text, name);
        text.push('=');
        encode(&mut text, value);
    }
    text
}

/// Decodes `%xx`, of either case. Everything else, including broken escapes, stays. The result need not be UTF-8.
pub fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex_value(*high) << 4 | hex_value(*low));
                rest = after;
            }
            _ => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    decoded
}

/// As [`decode`], with `+` as a blank, because the signature must cover what a query parser reads.
fn decode_form(text: &str) -> Vec<u8> {
    if text.contains('+') { decode(&text.replace('+', "%20")) } else { decode(text) }
}

/// The value of one hex digit, which the callers have checked.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

/// Appends `bytes` percent-encoded, except `A-Z a-z 0-9 - _ . ~`, as in paths and queries.
pub fn encode(text: &mut String, mut bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let stays = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    loop {
        // Ids need no encoding. A check without an early exit finds that out for many bytes in one step.
        let all_stay = bytes.iter().fold(true, |all, byte| all & stays(byte));
        let staying =
            if all_stay { bytes.len() } else { bytes.iter().position(|byte| !stays(byte)).unwrap_or_default() };
        let (as_it_is, rest) = bytes.split_at(staying);
        text.push_str(std::str::from_utf8(as_it_is).unwrap_or_default());
        let Some((&byte, rest)) = rest.split_first() else { return };
        text.push('%');
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
        bytes = rest;
    }
}

/// The SHA-256 of `bytes` in lower-case hex (64 characters).
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// `bytes` in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

/// The bytes of a hex text, of either case. `None` if the length is odd or a character is not a hex digit.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(text.as_bytes().chunks_exact(2).map(|pair| hex_value(pair[0]) << 4 | hex_value(pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_slash_becomes_a_separator_and_a_broken_escape_stays() {
        assert_eq!(canonical_path("/a%2Fb/%zz%4"), "/a/b/%25zz%254/");
        assert_eq!(canonical_path(""), "/");
        assert_eq!(canonical_path("/"), "/");
    }

    #[test]
    fn a_query_is_sorted_by_decoded_name_then_value() {
        assert_eq!(canonical_query("b=2&a=%7E&a=1&&c"), "a=1&a=~&b=2&c=");
        assert_eq!(canonical_query("x=a+b"), "x=a%20b");
        assert_eq!(canonical_query(""), "");
    }

    #[test]
    fn hex_goes_both_ways() {
        assert_eq!(unhex(&hex(&[0, 255, 0x1a])), Some(vec![0, 255, 0x1a]));
        assert_eq!(unhex("0F"), Some(vec![15]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
    }
}
