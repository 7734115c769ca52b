//! The layer that does the work of each key once, from the configuration.

use dms_worker::{layers::Deduplicate, worker::Delivery};
use serde_json::Value;

use crate::config::{self, UnusableStore};

/// The layer of a worker, if it deduplicates. Nothing is connected before the first message.
///
/// # Errors
/// If the connection string or a certificate is unusable.
pub(crate) fn layer(worker: &config::Worker) -> Result<Option<Deduplicate>, UnusableStore> {
    let Some(settings) = &worker.deduplicate else { return Ok(None) };
    let scope = settings.scope.clone().unwrap_or_else(|| format!("{}/{}", worker.queue, worker.group));
    let store = config::open_key_store(&settings.store, &scope)?;
    let (key, keep) = (settings.key.clone(), settings.keep.get());
    if key.starts_with('/') {
        return Ok(Some(Deduplicate::new(move |delivery: &Delivery| in_body(delivery, &key), store, keep)));
    }
    Ok(Some(Deduplicate::by_attribute(key, store, keep)))
}

/// The text or number at a place in the body.
fn in_body(delivery: &Delivery, pointer: &str) -> Option<String> {
    let body: Value = delivery.body().parse().ok()?;
    match body.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use dms_worker::worker::DeliveryBuilder;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_in_the_body_is_a_text_or_a_number() {
        let key = |body: Value, pointer| in_body(&DeliveryBuilder::json(&body).unwrap().build(), pointer);
        assert_eq!(key(json!({"order": {"id": "o-7"}}), "/order/id").as_deref(), Some("o-7"));
        assert_eq!(key(json!({"id": 7}), "/id").as_deref(), Some("7"));
        assert_eq!(key(json!([1, 2]), "/1").as_deref(), Some("2"));
        for none in [json!({"id": null}), json!({"id": {}}), json!({"id": true}), json!("text"), json!({})] {
            assert_eq!(key(none, "/id"), None);
        }
    }
}
