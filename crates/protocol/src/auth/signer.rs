//! SDK-HMAC-SHA256, the AK/SK signature of requests: [`sign`] for clients, [`Authorization`] for servers.
//!
//! The functions are pure and follow the rules of the vendor's SDKs (API reference 3.2).

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use crate::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use sha2::Sha256;

use super::canonical::{CanonicalRequest, MissingHeader, RequestParts, hex, unhex};
use crate::limits::whole_seconds;

/// The only algorithm that the service's gateway accepts.
pub const ALGORITHM: &str = "SDK-HMAC-SHA256";
/// The header with the time of the signature, such as `20261122T203300Z`.
pub const DATE_HEADER: &str = "x-sdk-date";
/// The header with the token of temporary credentials.
pub const SECURITY_TOKEN_HEADER: &str = "x-security-token";
/// The header in which a client declares the hash of its body.
pub const CONTENT_HASH_HEADER: &str = "x-sdk-content-sha256";
/// The largest difference between the time of the signature and the server's clock.
pub const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

const DATE_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// Why a request cannot be signed, or why its signature is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The `Authorization` header has another algorithm or form.
    #[error("the Authorization header is malformed: {0}")]
    Malformed(&'static str),
    /// A signed header is missing.
    #[error(transparent)]
    MissingHeader(#[from] MissingHeader),
    /// The time of the signature cannot be read.
    #[error("the header X-Sdk-Date is not of the form 20261122T203300Z")]
    BadDate,
    /// The time of the signature differs too much from the server's clock.
    #[error("signature expired: X-Sdk-Date is {0} s off, 900 s are allowed")]
    Expired(u64),
    /// The declared hash of the body is wrong.
    #[error("the header X-Sdk-Content-Sha256 is not the SHA-256 of the body")]
    BodyHash,
    /// The signature is of another request or key. Holds the expected canonical request.
    #[error("verify aksk signature fail")]
    Mismatch(String),
}

/// A parsed `Authorization` header of a signed request. The signature in it was not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The access key.
    pub access_key: String,
    /// The names of the signed headers, in lower case.
    pub signed_headers: Vec<String>,
    /// The signature as received.
    signature: Vec<u8>,
}

impl Authorization {
    /// Reads `SDK-HMAC-SHA256 Access=…, SignedHeaders=…, Signature=…`.
    ///
    /// # Errors
    /// When a part is missing, repeated or malformed.
    pub fn parse(header: &str) -> Result<Self, SignatureError> {
        let fields = header
            .strip_prefix(ALGORITHM)
            .filter(|rest| rest.starts_with(' '))
            .ok_or(SignatureError::Malformed("it does not begin with SDK-HMAC-SHA256"))?;
        let (mut access_key, mut signed, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) =
                field.trim().split_once('=').ok_or(SignatureError::Malformed("a field has no value"))?;
            let slot = match name {
                "Access" => &mut access_key,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return Err(SignatureError::Malformed("a field is unknown")),
            };
            if slot.replace(value).is_some() {
                return Err(SignatureError::Malformed("a field is there twice"));
            }
        }
        let access_key =
            access_key.filter(|key| !key.is_empty()).ok_or(SignatureError::Malformed("Access is missing"))?;
        let signed = signed.ok_or(SignatureError::Malformed("SignedHeaders is missing"))?;
        let signature =
            signature.and_then(unhex).ok_or(SignatureError::Malformed("Signature is missing or not hex"))?;
        Ok(Self { access_key: access_key.to_owned(), signed_headers: header_names(signed)?, signature })
    }

    /// The signature as bytes.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Checks the time and the signature with the secret key that belongs to `access_key`. The comparison takes the same time for
    /// every wrong signature.
    ///
    /// # Errors
    /// When the time is off, a signed header is missing, a declared body hash is wrong, or the signature differs.
    pub fn verify(
        &self,
        secret_key: &Secret,
        request: &RequestParts<'_>,
        now: SystemTime,
    ) -> Result<(), SignatureError> {
        self.check_date(request.headers, now)?;
        self.verify_request(secret_key, request)
    }

    /// Checks the time of the signature. This needs only the head of the request, so a server can do it before it reads the body.
    ///
    /// # Errors
    /// When it is missing, malformed or off.
    pub fn check_date(&self, headers: &HeaderMap, now: SystemTime) -> Result<(), SignatureError> {
        check_skew(date_header(headers)?, now)
    }

    /// Checks the signature, without its time.
    ///
    /// # Errors
    /// When a signed header is missing, a declared body hash is wrong, or the signature differs.
    pub fn verify_request(&self, secret_key: &Secret, request: &RequestParts<'_>) -> Result<(), SignatureError> {
        let date = date_header(request.headers)?;
        check_content_hash(request)?;
        let canonical = CanonicalRequest::new(request, &self.signed_headers)?;
        let expected = mac(secret_key, date, &canonical);
        expected
            .verify_slice(&self.signature)
            .map_err(|_| SignatureError::Mismatch(String::from_utf8_lossy(canonical.as_bytes()).into_owned()))
    }
}

/// Signs a request and returns its `Authorization` header, marked as sensitive. As in the vendor's SDKs, all headers are signed except
/// `Authorization` and headers with `_` in their names. Set `Host` and `X-Sdk-Date` before.
///
/// # Errors
/// When `X-Sdk-Date` is missing or malformed, or the access key cannot stand in a header.
pub fn sign(access_key: &str, secret_key: &Secret, request: &RequestParts<'_>) -> Result<HeaderValue, SignatureError> {
    let date = date_header(request.headers)?;
    let mut names: Vec<String> = request
        .headers
        .keys()
        .map(|name| name.as_str().to_owned())
        .filter(|name| !name.contains('_') && name != "authorization")
        .collect();
    names.sort_unstable();
    let canonical = CanonicalRequest::new(request, &names)?;
    let signature = hex(&mac(secret_key, date, &canonical).finalize().into_bytes());
    let header = format!("{ALGORITHM} Access={access_key}, SignedHeaders={}, Signature={signature}", names.join(";"));
    let mut header = HeaderValue::try_from(header)
        .map_err(|_| SignatureError::Malformed("the access key has characters that no header may have"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// The time in the format of `X-Sdk-Date`. Years beyond 9999 are written as the end of 9999.
pub fn format_date(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX).strftime(DATE_FORMAT).to_string()
}

fn mac(secret_key: &Secret, date: &str, canonical: &CanonicalRequest) -> Hmac<Sha256> {
    // HMAC accepts keys of any length, so the error cannot occur.
    let key = secret_key.expose().as_bytes();
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(ALGORITHM.as_bytes());
    mac.update(b"\n");
    mac.update(date.as_bytes());
    mac.update(b"\n");
    mac.update(canonical.hash().as_bytes());
    mac
}

/// Splits the list of signed headers. A repeated name is refused, because a small request could create a large text
/// with it.
fn header_names(list: &str) -> Result<Vec<String>, SignatureError> {
    let names: Vec<String> = list.split(';').map(str::to_ascii_lowercase).collect();
    let mut seen = HashSet::with_capacity(names.len());
    if names.iter().any(|name| name.is_empty() || !seen.insert(name)) {
        return Err(SignatureError::Malformed("SignedHeaders has an empty or a doubled name"));
    }
    Ok(names)
}

fn date_header(headers: &HeaderMap) -> Result<&str, SignatureError> {
    let value = headers.get(DATE_HEADER).ok_or_else(|| MissingHeader(DATE_HEADER.to_owned()))?;
    value.to_str().map_err(|_| SignatureError::BadDate)
}

/// The time of the signature that a request declares.
///
/// # Errors
/// When the header is missing or malformed.
pub fn signed_at(headers: &HeaderMap) -> Result<SystemTime, SignatureError> {
    read_date(date_header(headers)?)
}

fn read_date(date: &str) -> Result<SystemTime, SignatureError> {
    let signed = DateTime::strptime(DATE_FORMAT, date).and_then(|date| date.to_zoned(TimeZone::UTC));
    signed.map(|signed| signed.timestamp().into()).map_err(|_| SignatureError::BadDate)
}

fn check_skew(date: &str, now: SystemTime) -> Result<(), SignatureError> {
    let skew = now.duration_since(read_date(date)?).unwrap_or_else(|signed_later| signed_later.duration());
    if skew > MAX_SKEW { Err(SignatureError::Expired(whole_seconds(skew))) } else { Ok(()) }
}

/// Checks a declared hash of the body. Bodies are JSON, so `UNSIGNED-PAYLOAD` is not accepted.
fn check_content_hash(request: &RequestParts<'_>) -> Result<(), SignatureError> {
    match request.headers.get(CONTENT_HASH_HEADER) {
        Some(declared) if !request.body.is_empty() => {
            let hash = super::canonical::sha256_hex(request.body);
            declared.as_bytes().eq_ignore_ascii_case(hash.as_bytes()).then_some(()).ok_or(SignatureError::BodyHash)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
