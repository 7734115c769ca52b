//! A message as an HTTP request: the headers, and the signature.

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use jiff::Timestamp;
use sha2::Sha256;

use dms_protocol::{
    auth::canonical::hex,
    internal::json::one_line,
    trace_context::{TRACEPARENT, TRACESTATE},
};
use dms_worker::worker::Delivery;

// Known names are neither read nor copied for each message.
const ATTEMPT: HeaderName = HeaderName::from_static("dms-attempt");
const ATTRIBUTES: HeaderName = HeaderName::from_static("dms-attributes");
const BATCH: HeaderName = HeaderName::from_static("dms-batch");
const DEADLINE: HeaderName = HeaderName::from_static("dms-deadline-ms");
const GROUP: HeaderName = HeaderName::from_static("dms-group");
const MESSAGE_ID: HeaderName = HeaderName::from_static("dms-message-id");
const QUEUE: HeaderName = HeaderName::from_static("dms-queue");
const TAGS: HeaderName = HeaderName::from_static("dms-tags");

/// The headers of a single message, including the common ones.
pub(crate) fn headers(delivery: &Delivery, budget: Duration, common: &HeaderMap) -> HeaderMap {
    let mut headers = shared(delivery, budget, common);
    headers.insert(ATTEMPT, delivery.attempt().into());
    if let Some(id) = delivery.id() {
        put_known(&mut headers, MESSAGE_ID, id.as_str());
    }
    if !delivery.tags().is_empty() {
        put_known(&mut headers, TAGS, &delivery.tags().join(","));
    }
    let attributes = match delivery.attributes().is_empty() {
        true => Some(HeaderValue::from_static("{}")),
        false => HeaderValue::try_from(ascii_json(&one_line(&delivery.attributes().to_json()))).ok(),
    };
    attributes.into_iter().for_each(|attributes| drop(headers.insert(ATTRIBUTES, attributes)));
    if let Some(context) = delivery.trace_context() {
        put(&mut headers, TRACEPARENT, &context.traceparent());
        context.tracestate().into_iter().for_each(|state| put(&mut headers, TRACESTATE, state));
    }
    headers
}

/// The headers that a batch of messages has in common.
pub(crate) fn batch_headers(first: &Delivery, messages: usize, budget: Duration, common: &HeaderMap) -> HeaderMap {
    let mut headers = shared(first, budget, common);
    headers.insert(BATCH, messages.into());
    headers
}

fn shared(delivery: &Delivery, budget: Duration, common: &HeaderMap) -> HeaderMap {
    let mut headers = common.clone();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    put_known(&mut headers, QUEUE, delivery.queue());
    put_known(&mut headers, GROUP, delivery.group());
    headers.insert(DEADLINE, u64::try_from(budget.as_millis()).unwrap_or(u64::MAX).into());
    headers
}

/// The text of a body that is a JSON string, and its `Content-Type`. `None`: the body is another value, and stays JSON.
pub(super) fn plain(headers: &mut HeaderMap, delivery: &Delivery) -> Option<Bytes> {
    // A text with half of a surrogate pair has no UTF-8, and stays JSON as well.
    let text: String = serde_json::from_slice(delivery.body().as_bytes()).ok()?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Some(text.into())
}

/// Adds a header of a known name; a value that cannot be one is left out.
fn put_known(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Adds a header; a value that cannot be one is left out.
pub(crate) fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    insert(headers, name, value, false);
}

/// Adds a header whose value `Debug` does not show.
pub(crate) fn put_secret(headers: &mut HeaderMap, name: &str, value: &str) {
    insert(headers, name, value, true);
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str, sensitive: bool) {
    if let (Ok(name), Ok(mut value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
        value.set_sensitive(sensitive);
        headers.insert(name, value);
    }
}

/// The same JSON in ASCII: headers carry nothing else reliably.
fn ascii_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            // Everything outside ASCII stands inside a string, where this escape is allowed.
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

/// Adds both signatures, in separate headers, because older receivers know only the first version.
pub(super) fn sign(headers: &mut HeaderMap, key: &str, body: &[u8], now: Timestamp) {
    let (first, second) = (signature(key, body, now), signature_v2(key, headers, body, now));
    put_secret(headers, "dms-signature", &first);
    put_secret(headers, "dms-signature-v2", &second);
}

/// `Dms-Signature-V2`: `t=UNIX,v2=HEX` with the HMAC-SHA256 of `UNIX`, a line `name:value` for each header that begins with
/// `dms-` or `ce-`, in the order of their names, an empty line and the body. So it covers the queue, the attributes and an
/// event's id too: a body cannot be passed on as another message.
fn signature_v2(key: &str, headers: &HeaderMap, body: &[u8], now: Timestamp) -> String {
    let covered = |name: &&HeaderName| ["dms-", "ce-"].iter().any(|beginning| name.as_str().starts_with(beginning));
    let mut names: Vec<&HeaderName> = headers.keys().filter(covered).collect();
    names.sort_unstable_by_key(|name| name.as_str());
    let time = now.as_second().to_string();
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(time.as_bytes());
    mac.update(b"\n");
    for name in names {
        mac.update(name.as_str().as_bytes());
        mac.update(b":");
        mac.update(headers.get(name).map_or(b"", |value| value.as_bytes().trim_ascii()));
        mac.update(b"\n");
    }
    mac.update(b"\n");
    mac.update(body);
    format!("t={time},v2={}", hex(&mac.finalize().into_bytes()))
}

/// `Dms-Signature`: `t=UNIX,v1=HEX` with the HMAC-SHA256 of `UNIX.BODY`. The time is part of it, so that a recorded
/// request cannot be played back later.
fn signature(key: &str, body: &[u8], now: Timestamp) -> String {
    let time = now.as_second().to_string();
    // A key of any length is allowed (RFC 2104).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("t={time},v1={}", hex(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use dms_protocol::message::Attributes;
    use dms_worker::worker::DeliveryBuilder;

    #[test]
    fn attributes_are_ascii_and_the_same_json() {
        let json = r#"{"名":"值","emoji":"😀","quote":"\""}"#;
        let ascii = ascii_json(json);
        assert!(ascii.is_ascii());
        let (one, other): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(json).unwrap(), serde_json::from_str(&ascii).unwrap());
        assert_eq!(one, other);
    }

    #[test]
    fn a_text_can_be_sent_without_quotes() {
        let sent = |body: &serde_json::Value| {
            let mut sent = HeaderMap::new();
            let text = plain(&mut sent, &DeliveryBuilder::json(body).unwrap().build());
            (text, sent.get(CONTENT_TYPE).cloned())
        };
        let (text, kind) = sent(&"a \"b\"\n值".into());
        assert_eq!(
            (text.unwrap(), kind.unwrap()),
            ("a \"b\"\n值".into(), "text/plain; charset=utf-8".parse().unwrap())
        );
        assert_eq!(sent(&serde_json::json!({"a": "b"})), (None, None));
    }

    #[test]
    fn attributes_keep_their_digits_in_one_line() {
        let attributes = "{\n \"n\": 1e3,\r\n \"i\": 123456789012345678901234567890\n}";
        let delivery = DeliveryBuilder::json(&1).unwrap().attributes(Attributes::raw(attributes).unwrap()).build();
        let headers = headers(&delivery, Duration::from_secs(1), &HeaderMap::new());
        assert_eq!(headers["dms-attributes"], r#"{"n":1e3,"i":123456789012345678901234567890}"#);
    }

    #[test]
    fn a_signature_is_the_hmac_of_time_and_body() {
        // openssl: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let signature = signature("key", br#"{"a":1}"#, now);
        assert_eq!(signature, "t=1700000000,v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03");
    }

    #[test]
    fn a_signature_of_the_second_version_covers_what_the_headers_say() {
        // openssl: printf '1700000000\nce-id:orders/5\ndms-attributes:{"k":1}\ndms-queue:orders\n\n{"a":1}' | openssl dgst
        // -sha256 -hmac key
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let mut headers = HeaderMap::new();
        let all = [
            ("dms-queue", "orders"),
            ("content-type", "application/json"),
            ("dms-attributes", r#"{"k":1}"#),
            ("ce-id", "orders/5"),
        ];
        all.iter().for_each(|(name, value)| put(&mut headers, name, value));
        sign(&mut headers, "key", br#"{"a":1}"#, now);
        assert_eq!(
            headers["dms-signature-v2"],
            "t=1700000000,v2=352ffecb0541123280d3ef8f265bac0d94ff1b26e9d1e4454db3c1b6cce2a9ba"
        );
        assert_eq!(
            headers["dms-signature"],
            "t=1700000000,v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03"
        );
        let signed = headers["dms-signature-v2"].clone();
        for (name, value) in [("dms-queue", "other"), ("dms-attributes", "{}"), ("ce-id", "orders/6")] {
            let mut changed: HeaderMap = HeaderMap::new();
            all.iter().for_each(|(name, value)| put(&mut changed, name, value));
            put(&mut changed, name, value);
            assert_ne!(signature_v2("key", &changed, br#"{"a":1}"#, now), signed.to_str().unwrap(), "{name}");
        }
    }
}
