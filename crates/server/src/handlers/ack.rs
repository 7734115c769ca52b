//! Acknowledging messages and dead letters (API reference 5.3.3, 5.3.5).

use std::{borrow::Cow, sync::Arc};

use serde::Serialize;

use crate::{
    broker::{Ack, AckCounts, AckStatus, BrokerError, FailureCause, Stream},
    handlers::{
        extensions::{CauseText, read_cause},
        request::ApiRequest,
    },
    http::{
        codes,
        error::ApiError,
        json::{self, Json},
    },
};
use dms_protocol::internal::json::{Fault, Scan, shown};

/// The maximum number of acknowledgements in one request. Batches have at most ten messages, and several batches may be
/// acknowledged together.
const MAX_ACKS: usize = 1000;

/// One acknowledgement in the body of 5.3.3.
#[derive(Debug, PartialEq)]
struct AckLine<'a> {
    handler: Cow<'a, str>,
    /// Its raw JSON if it is not a string; empty if it is missing.
    status: Cow<'a, str>,
    /// The cause of a failure, if the request has one.
    cause: Option<Box<CauseText<'a>>>,
}

/// The answer of 5.3.3: the first `success` messages of the batch are settled, the last `fail` failed.
#[derive(Debug, Serialize)]
pub(crate) struct AckOutcome {
    success: usize,
    fail: usize,
}

/// What differs between the requests that acknowledge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckForm {
    /// The name of the array.
    pub(crate) member: &'static str,
    /// The maximum number of its entries.
    pub(crate) most: usize,
    /// Whether the statuses and members of the extensions are known.
    pub(crate) extensions: bool,
}

impl AckForm {
    fn documented(request: &ApiRequest<'_>) -> Self {
        Self { member: "message", most: MAX_ACKS, extensions: request.app.extensions }
    }

    /// The error with the name that the array has in this request. The broker knows the documented one.
    fn named(self, error: BrokerError) -> BrokerError {
        let named = |text: String| match text.strip_prefix("message[") {
            Some(rest) => format!("{}[{rest}", self.member),
            None => text,
        };
        match error {
            BrokerError::UnknownReceipt(text) => BrokerError::UnknownReceipt(named(text)),
            BrokerError::ForeignReceipt(text) => BrokerError::ForeignReceipt(named(text)),
            error => error,
        }
    }
}

/// `POST …/ack` (5.3.3).
pub(crate) async fn messages(request: &ApiRequest<'_>) -> Result<Json<AckOutcome>, ApiError> {
    acknowledge(request, Stream::Messages, AckForm::documented(request)).await
}

/// `POST …/deadletters/ack` (5.3.5).
pub(crate) async fn dead_letters(request: &ApiRequest<'_>) -> Result<Json<AckOutcome>, ApiError> {
    acknowledge(request, Stream::DeadLetters, AckForm::documented(request)).await
}

/// Reads a request in this form and acknowledges its messages.
pub(crate) async fn acknowledge(
    request: &ApiRequest<'_>,
    stream: Stream,
    form: AckForm,
) -> Result<Json<AckOutcome>, ApiError> {
    let app = request.app;
    let path = request.group().await?;
    let acks = checked(&json::read_messages(request.body, |scan| lines(scan, form.member))?, form)?;
    let AckCounts { success, fail } = app.broker.ack(&path, stream, acks).await.map_err(|error| form.named(error))?;
    app.metrics.settled(success, fail);
    Ok(Json(AckOutcome { success, fail }))
}

fn lines<'a>(scan: &mut Scan<'a>, member: &'static str) -> Result<Vec<AckLine<'a>>, Fault> {
    scan.only(member, |scan| scan.items(line))
}

fn line<'a>(scan: &mut Scan<'a>) -> Result<AckLine<'a>, Fault> {
    let start = scan.start();
    let (mut handler, mut status) = (None, None);
    // Most acknowledgements have no cause. Boxing it keeps them small.
    let mut cause: Option<Box<CauseText<'a>>> = None;
    scan.members(|name, scan| match &**name {
        b"handler" => name.once(&mut handler, scan.string()?),
        b"status" => name.once(&mut status, scan.nullable(any_status)?),
        other => match CauseText::member(&mut cause, other) {
            Some(place) => scan.nullable(Scan::value).map(|text| *place = text),
            None => scan.value().map(drop),
        },
    })?;
    let handler = handler.ok_or_else(|| Fault::missing("handler", start))?;
    Ok(AckLine { handler, status: status.flatten().unwrap_or_default(), cause })
}

/// Reads a status of any type, so that a wrong type gets the code of a wrong status.
fn any_status<'a>(scan: &mut Scan<'a>) -> Result<Cow<'a, str>, Fault> {
    match scan.first() {
        Some(b'"') => scan.string(),
        _ => Ok(String::from_utf8_lossy(scan.value()?)),
    }
}

fn checked(lines: &[AckLine<'_>], form: AckForm) -> Result<Vec<Ack>, ApiError> {
    let (count, AckForm { member, most, .. }) = (lines.len(), form);
    if !(1..=most).contains(&count) {
        return Err(codes::REQUEST_FORMAT.at(format!("{member} has {count} entries: 1 to {most} are allowed.")));
    }
    lines.iter().enumerate().map(|(index, line)| ack(index, count, line, form)).collect()
}

fn ack(index: usize, count: usize, line: &AckLine<'_>, form: AckForm) -> Result<Ack, ApiError> {
    let extensions = form.extensions;
    let cause = || match &line.cause {
        Some(text) if extensions => read_cause(index, text).map(|cause| Some(Arc::new(cause))),
        _ => Ok(None::<Arc<FailureCause>>),
    };
    let status = match &*line.status {
        "success" => AckStatus::Success,
        "fail" => AckStatus::Fail(cause()?),
        "release" if extensions => AckStatus::Release,
        "reject" if extensions => AckStatus::Reject(cause()?),
        other => {
            let documented = format!("It should not be '{}'.", shown(other));
            return Err(codes::ACK_STATUS.at(match count {
                1 => documented,
                _ => format!("{documented} That is {}[{index}].status.", form.member),
            }));
        }
    };
    Ok(Ack { receipt: (&*line.handler).into(), status })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lines_are_read_whatever_is_beside_them() {
        let text = r#" { "new": {"message":[]}, "message" : [ {"handler":"a\/b","status":"success","new":1e999},
            { "status" : "f\u0061il" , "handler" : "b" }, {"handler":""}, {"handler":"c","status":null}, {"handler":"d","status":[ 1 ]} ] } "#;
        let line = |handler: &'static str, status: &'static str| AckLine {
            handler: handler.into(),
            status: status.into(),
            cause: None,
        };
        let expected = [line("a/b", "success"), line("b", "fail"), line("", ""), line("c", ""), line("d", "[ 1 ]")];
        assert_eq!(json::read_messages(text.as_bytes(), |scan| lines(scan, "message")).unwrap(), expected);
    }
}
