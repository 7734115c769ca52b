//! `/ui/send`: sending a test message.

use std::{fmt::Write as _, time::Duration};

use axum::{body::Body, response::Response};
use maud::{Markup, html};
use serde_json::{Value, value::RawValue};

use crate::{
    broker::QueueOverview,
    dashboard::{
        form::Form,
        html::frame::{Ui, see_other},
        server::{Pages, request::PageRequest},
    },
    handlers::send_body::SendRequest,
    http::error::ApiError,
};
use dms_protocol::limits::{MAX_DELAY, MAX_LONG_DELAY};

/// The maximum size of the form, in bytes: the largest body, with each byte percent-encoded, and the other fields.
pub(super) const MAX_SEND_FORM: usize = 2 << 20;
/// The maximum number of copies.
const MAX_COPIES: u64 = 10;

/// `GET /ui/send?queue=…`.
pub(super) async fn show(request: PageRequest) -> Response {
    page(&request.ui(), &request.pages, &request.pages.queues().await, &request.form, None)
}

/// The form, with what was entered and why it was refused.
fn page(ui: &Ui<'_>, pages: &Pages, queues: &[QueueOverview], entered: &Form, refused: Option<&str>) -> Response {
    let (t, chosen) = (ui.t, entered.first("queue").unwrap_or_default());
    let value = |name| entered.first(name).unwrap_or_default();
    let body = html! {
        h1 { (t.send_message) }
        @if let Some(refused) = refused { p.alert.bad role="alert" { (refused) } }
        @if queues.is_empty() { p.empty { (t.no_queues) } }
        @else if !ui.visitor.acts() { p.alert.note { (t.may_not_send) } }
        @else {
            form.stack method="post" action=(ui.url("/send")) {
                label for="send-queue" { (t.queue) }
                select #send-queue name="queue" required {
                    @for queue in queues {
                        option value=(queue.queue.id) selected[queue.queue.id.as_str() == chosen] { (queue.queue.name) " (" (queue.queue.mode.as_str()) ")" }
                    }
                }
                label for="send-body" { (t.body) } p.hint #send-body-hint { (t.body_hint) }
                textarea #send-body name="body" rows="10" required spellcheck="false" aria-describedby="send-body-hint" { (value("body")) }
                div.row {
                    div { label for="send-labels" { (t.labels) } input #send-labels name="labels" value=(value("labels")) placeholder="a, b"; }
                    div { label for="send-delay" { (t.delay_seconds) } input #send-delay name="delay" type="number" min="0" max=(pages.longest_delay().as_secs()) value=(entered.first("delay").unwrap_or("0")); }
                    div { label for="send-copies" { (t.copies) } input #send-copies name="copies" type="number" min="1" max="10" value=(entered.first("copies").unwrap_or("1")); }
                }
                label for="send-attributes" { (t.attributes) } p.hint #send-attributes-hint { (t.attributes_hint) }
                textarea #send-attributes name="attributes" rows="3" spellcheck="false" aria-describedby="send-attributes-hint" { (value("attributes")) }
                button.primary type="submit" { (t.send) }
            }
        }
        (sent(ui, entered))
    };
    ui.page(t.send_message, "/send", &body)
}

/// The messages that were sent.
fn sent(ui: &Ui<'_>, query: &Form) -> Markup {
    html! {
        @if query.first("sent").is_some() {
            div.alert.good role="status" {
                p { (ui.t.sent) }
                ul { @for id in query.all("sent") { li { a href=(ui.url(&format!("/messages/{id}"))) { code { (id) } } } } }
            }
        }
    }
}

/// `POST /ui/send`.
pub(super) async fn send(request: PageRequest, body: Body) -> Response {
    let (ui, PageRequest { pages, visitor, .. }) = (request.ui(), &request);
    let gate = &pages.dashboard.gate;
    let Ok(form) = Form::read(body, MAX_SEND_FORM).await else { return ui.bad_form() };
    let queues = pages.queues().await;
    let chosen = form.first("queue").unwrap_or_default();
    let Some(queue) = queues.iter().find(|queue| queue.queue.id.as_str() == chosen) else { return ui.not_found() };
    match pages.send(queue, &form).await {
        Ok(ids) => {
            gate.record(visitor, "send", &queue.queue.name, Ok(&ids.join(" ")));
            let sent = ids.iter().fold(String::new(), |mut query, id| {
                let _ = write!(query, "&sent={id}");
                query
            });
            see_other(&ui.url(&format!("/send?queue={}{sent}", queue.queue.id)))
        }
        Err(error) => {
            let text = error.to_string();
            gate.record(visitor, "send", &queue.queue.name, Err(&text));
            page(&ui, pages, &queues, &form, Some(&text))
        }
    }
}

impl Pages {
    /// The longest delay that the server allows.
    fn longest_delay(&self) -> Duration {
        if self.app.extensions { MAX_LONG_DELAY } else { MAX_DELAY }
    }

    /// Sends what a form says, through the checks of the API. Returns the ids.
    async fn send(&self, queue: &QueueOverview, form: &Form) -> Result<Vec<String>, ApiError> {
        let message = message(form)?;
        let copies = form.number("copies").unwrap_or(1).clamp(1, MAX_COPIES);
        let messages = vec![message; usize::try_from(copies).unwrap_or(1)].join(",");
        let request = SendRequest::read(
            format!("{{\"messages\":[{messages}]}}").as_bytes(),
            self.app.extensions,
            self.longest_delay(),
        )?;
        let asked: Vec<_> = request.messages.iter().map(|message| (message.delay, message.origin)).collect();
        let (count, id) = (asked.len(), &queue.queue.id);
        let appended = self.app.broker.append(&queue.project, id, request.messages).await?;
        self.app.metrics.produced(count, 0);
        Ok(appended.ids(id, asked.into_iter()).map(|id| id.to_string()).collect())
    }
}

/// Checks that a text is one JSON value.
pub(super) fn check_json(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<&RawValue>(text).map(drop)
}

/// The message of a form as the API takes it. A body that is no JSON is sent as a string.
fn message(form: &Form) -> Result<String, ApiError> {
    let body = form.first("body").unwrap_or_default();
    let body = match serde_json::from_str::<&RawValue>(body) {
        Ok(json) => json.get().to_owned(),
        Err(_) => Value::from(body).to_string(),
    };
    let attributes = form.filled("attributes").unwrap_or("{}");
    // Text that is no JSON must not end the object around it.
    check_json(attributes)
        .map_err(|error| crate::http::codes::REQUEST_FORMAT.because(format!("the attributes are no JSON: {error}")))?;
    let labels = form.filled("labels").unwrap_or_default();
    let labels: Vec<_> = labels.split([',', ' ']).map(str::trim).filter(|label| !label.is_empty()).collect();
    let delay = form.number("delay").unwrap_or(0).saturating_mul(1_000);
    Ok(format!(
        "{{\"body\":{body},\"attributes\":{attributes},\"tags\":{},\"delay_time\":{delay}}}",
        Value::from(labels)
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(form: &str) -> Option<SendRequest> {
        let message = message(&Form::parse(form.as_bytes())).ok()?;
        SendRequest::read(format!("{{\"messages\":[{message}]}}").as_bytes(), true, MAX_DELAY).ok()
    }

    #[test]
    fn bodies_are_json_or_text() {
        let body = |form: &str| String::from_utf8(read(form).unwrap().messages.remove(0).json.to_vec()).unwrap();
        assert_eq!(
            body("body={\"id\":12345678901234567890}"),
            r#"{"body":{"id":12345678901234567890},"attributes":{}}"#
        );
        assert_eq!(
            body("body=hello \"you\"&labels=a,+b&attributes={\"k\":1}"),
            r#"{"body":"hello \"you\"","attributes":{"k":1},"tags":["a","b"]}"#
        );
        assert_eq!(body("body=1}],\"x\":[{"), r#"{"body":"1}],\"x\":[{","attributes":{}}"#);
        assert!(read("body=1&attributes={}},{\"body\":2").is_none());
        assert_eq!(read("body=1&delay=3").unwrap().messages[0].delay.as_secs(), 3);
        assert!(read("body=1&delay=604801").is_none());
    }
}
