//! Acknowledging messages and dead letters (API reference 5.3.3, 5.3.5).

use std::str;

use serde::{Deserialize, Serialize};

use super::{
    app::App,
    broker::{Ack, GroupPath, Settled, Stream},
    codes,
    error::ApiError,
    json::{self, Json},
};
use crate::json::{Scan, once};

/// Acknowledgements in one request: the reference knows batches of ten, and several may be acknowledged together.
const MAX_ACKS: usize = 1000;

/// The body of 5.3.3.
#[derive(Debug, PartialEq, Deserialize)]
struct AckRequest<'a> {
    #[serde(borrow)]
    message: Vec<AckEntry<'a>>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct AckEntry<'a> {
    handler: String,
    #[serde(default, borrow, deserialize_with = "json::text_or_null")]
    status: Option<&'a [u8]>,
}

/// The answer of 5.3.3: the first `success` of the batch are settled, the last `fail` failed.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    success: usize,
    fail: usize,
}

/// `POST …/ack` (5.3.3), or `POST …/deadletters/ack` (5.3.5).
pub(super) async fn acknowledge(
    app: &App,
    path: &GroupPath,
    stream: Stream,
    body: &[u8],
) -> Result<Json<Outcome>, ApiError> {
    let acks = checked(json::read_messages(body, scan)?)?;
    let Settled { success, fail } = app.broker.settle(path, stream, acks).await?;
    app.metrics.settled(success, fail);
    Ok(Json(Outcome { success, fail }))
}

/// The same as the parser makes of a body.
fn scan<'a>(scan: &mut Scan<'a>) -> Option<AckRequest<'a>> {
    let mut message = None;
    scan.members(|name, scan| match name {
        b"message" => once(&mut message, scan.items(scan_entry)?),
        _ => None,
    })?;
    Some(AckRequest { message: message? })
}

fn scan_entry<'a>(scan: &mut Scan<'a>) -> Option<AckEntry<'a>> {
    let (mut handler, mut status) = (None, None);
    scan.members(|name, scan| match name {
        b"handler" => once(&mut handler, str::from_utf8(scan.plain_string()?).ok()?),
        b"status" => once(&mut status, scan.value()?),
        _ => None,
    })?;
    Some(AckEntry { handler: handler?.to_owned(), status: status.filter(|text| *text != b"null") })
}

fn checked(request: AckRequest<'_>) -> Result<Vec<Ack>, ApiError> {
    let count = request.message.len();
    if !(1..=MAX_ACKS).contains(&count) {
        return Err(codes::REQUEST_FORMAT.because(format!("message has {count} entries: 1 to {MAX_ACKS} are allowed.")));
    }
    request.message.into_iter().map(ack).collect()
}

fn ack(entry: AckEntry<'_>) -> Result<Ack, ApiError> {
    let success = match entry.status.unwrap_or_default() {
        br#""success""# => true,
        br#""fail""# => false,
        text => unusual_status(text)?,
    };
    Ok(Ack { handle: entry.handler, success })
}

/// A status that is not spelled as usual: with escapes, or wrong.
fn unusual_status(text: &[u8]) -> Result<bool, ApiError> {
    let status = serde_json::from_slice(text).unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned());
    match &*status {
        "success" => Ok(true),
        "fail" => Ok(false),
        other => {
            let shown: String = other.chars().take(80).collect();
            Err(codes::ACK_STATUS
                .saying(format!("Message ack status must be either 'success' or 'fail'. It should not be '{shown}'.")))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::json::assert_scanned_as_parsed;

    /// The usual requests are read without the parser, the others by it, and both read the same.
    #[test]
    fn requests_are_scanned_as_they_are_parsed() {
        let usual = [
            r#"{"message":[]}"#,
            r#"{"message":[{"handler":"a","status":"success"},{"status":"fail","handler":"b"}]}"#,
            r#" { "message" : [ { "handler" : "a" , "status" : null } , { "handler" : "b" , "status" : 1 } ] } "#,
        ];
        let unusual = [
            r#"{"message":[{"handler":"a\/b","status":"success"}]}"#,
            r#"{"message":[{"handler":"a","handler":"b"}]}"#,
            r#"{"message":[{"status":"success"}]}"#,
            r#"{"message":[{"handler":"a","status":"success","new":1}]}"#,
            r#"{"message":[],"message":[]}"#,
            r#"{"messages":[]}"#,
            r#"{"message":{}}"#,
        ];
        let parse = |text| json::parse_messages(text).unwrap();
        assert_scanned_as_parsed(&usual, &unusual, |text| Scan::whole(text, scan), parse);
    }
}
