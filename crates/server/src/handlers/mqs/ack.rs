//! Acknowledging messages of a topic.

use crate::{
    broker::Stream,
    handlers::{
        ack::{AckForm, AckOutcome, acknowledge},
        request::ApiRequest,
    },
    http::{error::ApiError, json::Json},
};
use dms_protocol::limits;

/// The body has `messages` where the DMS API has `message`, and none of its extensions.
const FORM: AckForm = AckForm { member: "messages", most: limits::MAX_MESSAGES, extensions: false };

/// `POST /v1/topic/{topic}/group/{group}/messages`.
pub(crate) async fn messages(request: &ApiRequest<'_>) -> Result<Json<AckOutcome>, ApiError> {
    acknowledge(request, Stream::Messages, FORM).await
}
