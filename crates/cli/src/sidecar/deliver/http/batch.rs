//! Several messages in one request: the array that is posted, and the verdicts that are answered.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use serde::Deserialize;

use crate::{
    config::BodyFormat,
    message_json::object::Object,
    sidecar::deliver::{http::cloudevents, verdict::AppVerdict},
};
use dms_protocol::message::MessageId;
use dms_worker::worker::{Delivery, HandlerError};

/// The messages as one JSON array, with its content type in `headers`.
pub(super) fn body(headers: &mut HeaderMap, deliveries: &[Delivery], format: BodyFormat, source: &str) -> Bytes {
    let items: Vec<String> = match format {
        BodyFormat::Raw => deliveries.iter().map(item).collect(),
        BodyFormat::Cloudevents => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cloudevents-batch+json"));
            deliveries.iter().map(|delivery| cloudevents::event(delivery, source)).collect()
        }
    };
    format!("[{}]", items.join(",")).into()
}

fn item(delivery: &Delivery) -> String {
    let object = Object::new()
        .raw("body", delivery.body().as_str())
        .raw("attributes", &delivery.attributes().to_json())
        .texts("tags", delivery.tags())
        .raw("attempt", &delivery.attempt().to_string())
        .some_text("message_id", delivery.id().as_ref().map(MessageId::as_str));
    object.finish()
}

/// The verdict of an application on one message: a bare word, or with a reason.
#[derive(Deserialize)]
#[serde(untagged)]
enum VerdictItem {
    Bare(AppVerdict),
    Reasoned {
        outcome: AppVerdict,
        #[serde(default)]
        error: Option<String>,
    },
}

/// The verdicts of a success: one for each message, in their order; an empty body says that all are done.
///
/// # Errors
/// When the answer is not a list of verdicts, or has another length: then all messages have failed.
pub(super) fn verdicts(answer: &[u8], messages: usize) -> Result<Vec<Result<(), HandlerError>>, HandlerError> {
    if answer.trim_ascii().is_empty() {
        return Ok((0..messages).map(|_| Ok(())).collect());
    }
    let said: Vec<VerdictItem> = serde_json::from_slice(answer).map_err(|error| {
        HandlerError::retry(format!(
            "the application's answer is no list of verdicts like [{{\"outcome\": \"done\"}}]: {error}"
        ))
    })?;
    if said.len() != messages {
        let text = format!("the application answered {} verdicts for {messages} messages", said.len());
        return Err(HandlerError::retry(text));
    }
    let verdict = |said| match said {
        VerdictItem::Bare(outcome) => outcome.verdict(None),
        VerdictItem::Reasoned { outcome, error } => outcome.verdict(error),
    };
    Ok(said.into_iter().map(verdict).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use dms_worker::worker::FailureKind;

    #[test]
    fn each_message_has_its_verdict() {
        let answer = br#"["done", {"outcome": "retry", "error": "busy"}, {"outcome": "reject"}]"#;
        let verdicts = verdicts(answer, 3).unwrap();
        assert!(verdicts[0].is_ok());
        let (busy, never) = (verdicts[1].as_ref().unwrap_err(), verdicts[2].as_ref().unwrap_err());
        assert_eq!((busy.kind(), busy.to_string().as_str()), (FailureKind::Retry, "busy"));
        assert_eq!(never.kind(), FailureKind::Reject);
    }

    #[test]
    fn nothing_said_is_all_done_and_anything_else_fails_them_all() {
        assert_eq!(verdicts(b" \n", 2).unwrap().iter().filter(|verdict| verdict.is_ok()).count(), 2);
        let reason = |answer: &[u8]| verdicts(answer, 2).unwrap_err().to_string();
        assert_eq!(reason(br#"["done"]"#), "the application answered 1 verdicts for 2 messages");
        for answer in [b"ok".as_slice(), b"{}", br#"["done", "fine"]"#, br#"["done", "done""#] {
            assert!(reason(answer).starts_with("the application's answer is no list of verdicts"));
        }
    }
}
