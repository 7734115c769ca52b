//! A message as a CloudEvent in binary mode (CloudEvents 1.0.2, HTTP protocol binding 3.1): its attributes are headers,
//! its data is the body.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::request::put;
use crate::{auth::canonical::hex, worker::Delivery};

/// The longest name of an extension by the specification's advice.
const MAX_NAME: usize = 20;

/// Adds the event's headers. `source` is `/dms/PROJECT/QUEUE`.
pub(crate) fn add(headers: &mut HeaderMap, delivery: &Delivery, source: &str) {
    for (name, value) in attributes(delivery, source) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        put(headers, &format!("ce-{name}"), &encode(&text));
    }
}

/// The message as an event in JSON (CloudEvents 1.0.2, JSON event format), for a batch.
pub(crate) fn event(delivery: &Delivery, source: &str) -> Value {
    let mut event = attributes(delivery, source);
    let content_type = text_type(delivery).unwrap_or("application/json".into());
    event.insert("datacontenttype".to_owned(), content_type.into());
    event.insert("data".to_owned(), delivery.body().parse().unwrap_or_default());
    event.into()
}

/// The event's attributes.
///
/// Attributes of the message that are called `ce-…` win over ours, so that an event keeps its id and type on its way
/// through a queue. Other attributes become extensions where their name and value can be one.
fn attributes(delivery: &Delivery, source: &str) -> Map<String, Value> {
    let mut event = Map::new();
    let own = [
        ("specversion", "1.0"),
        ("id", &fingerprint(delivery)),
        ("source", source),
        ("type", "dms.message"),
        ("dmsqueue", delivery.queue()),
        ("dmsgroup", delivery.group()),
    ];
    event.extend(own.map(|(name, value)| (name.to_owned(), value.into())));
    for (name, value) in &delivery.attributes().to_values() {
        let bare = name.strip_prefix("ce-").unwrap_or(name);
        let fits = name.starts_with("ce-") || (bare.len() <= MAX_NAME && !is_reserved(bare));
        // Content types have a place of their own.
        if is_name(bare) && bare != "datacontenttype" && fits {
            event.extend(scalar(value).map(|value| (bare.to_owned(), value)));
        }
    }
    event
}

/// The data as it goes into the request. Text that came as text leaves as text; everything else is JSON.
pub(crate) fn data(headers: &mut HeaderMap, delivery: &Delivery) -> Bytes {
    let content_type = text_type(delivery).and_then(|text| HeaderValue::from_str(&text).ok());
    match (content_type, delivery.body().parse::<String>()) {
        (Some(content_type), Ok(text)) => {
            headers.insert(CONTENT_TYPE, content_type);
            text.into()
        }
        _ => delivery.body().as_bytes().clone(),
    }
}

/// The type of an event whose data came as text.
fn text_type(delivery: &Delivery) -> Option<Cow<'_, str>> {
    delivery.attribute("ce-datacontenttype").filter(|text| text.starts_with("text/"))
}

/// An identifier of this delivery: the service tells a consumer no message id. A consumer that drops what it has seen
/// loses nothing by it, for no two deliveries are equal.
fn fingerprint(delivery: &Delivery) -> String {
    hex(&Sha256::digest(delivery.message().handle.as_str())[..16])
}

/// Names of attributes are lower-case letters and digits.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn is_reserved(name: &str) -> bool {
    matches!(name, "specversion" | "id" | "source" | "type" | "subject" | "time" | "dataschema" | "data")
}

/// What an attribute can be (CloudEvents 1.0.2, 3.1.1): texts, truth values and whole numbers of 32 bits; other numbers as
/// text.
fn scalar(value: &Value) -> Option<Value> {
    match value {
        Value::String(_) | Value::Bool(_) => Some(value.clone()),
        Value::Number(number) if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => {
            Some(value.clone())
        }
        Value::Number(number) => Some(number.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Percent-encodes what the binding says: space, `"`, `%`, and everything outside U+0021-7E.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => out.push_str(&format!("%{byte:02X}")),
            0x21..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_the_binding_says() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode("100% \"x\""), "100%25%20%22x%22");
        assert_eq!(encode("/dms/p/orders"), "/dms/p/orders");
    }

    #[test]
    fn names_of_extensions_are_lower_case_letters_and_digits() {
        assert!(is_name("tenant1"));
        ["", "Tenant", "tenant-id", "a_b"].into_iter().for_each(|name| assert!(!is_name(name), "{name}"));
    }
}
