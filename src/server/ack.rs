//! Acknowledging messages and dead letters (API reference 5.3.3, 5.3.5).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    app::App,
    broker::{Ack, GroupPath, Settled, Stream},
    codes,
    error::ApiError,
    json::{self, Json},
};

/// Acknowledgements in one request: the reference knows batches of ten, and several may be acknowledged together.
const MAX_ACKS: usize = 1000;

/// The body of 5.3.3.
#[derive(Debug, Deserialize)]
struct AckRequest<'a> {
    #[serde(borrow)]
    message: Vec<AckEntry<'a>>,
}

#[derive(Debug, Deserialize)]
struct AckEntry<'a> {
    handler: String,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
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
    let acks = checked(json::parse_messages(body)?)?;
    let Settled { success, fail } = app.broker.settle(path, stream, acks).await?;
    app.metrics.settled(success, fail);
    Ok(Json(Outcome { success, fail }))
}

fn checked(request: AckRequest<'_>) -> Result<Vec<Ack>, ApiError> {
    let count = request.message.len();
    if !(1..=MAX_ACKS).contains(&count) {
        return Err(codes::REQUEST_FORMAT.because(format!("message has {count} entries: 1 to {MAX_ACKS} are allowed.")));
    }
    request.message.into_iter().map(ack).collect()
}

fn ack(entry: AckEntry<'_>) -> Result<Ack, ApiError> {
    let text = entry.status.map_or("", RawValue::get);
    let success = match text {
        r#""success""# => true,
        r#""fail""# => false,
        _ => unusual_status(text)?,
    };
    Ok(Ack { handle: entry.handler, success })
}

/// A status that is not spelled as usual: with escapes, or wrong.
fn unusual_status(text: &str) -> Result<bool, ApiError> {
    let status: Cow<'_, str> = serde_json::from_str(text).map_or(Cow::Borrowed(text), Cow::<str>::Owned);
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
