//! `…/dead/{sequence}/edit`: a dead letter is edited and sent to its group again. The original is kept beside it.

use axum::{body::Body, response::Response};
use maud::html;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    broker::{NewMessage, PeekState, Peeked, Stream},
    dashboard::{
        form::Form,
        html::{
            format::{foreign, number},
            frame::{Ui, see_other},
            json::{compact, pretty},
        },
        server::{
            Pages,
            find::DeadLetterPlace,
            group::base,
            message::cause,
            request::PageRequest,
            send::{MAX_SEND_FORM, check_json},
        },
        text::fill,
    },
    handlers::send_body::SendRequest,
};
use dms_protocol::limits::MAX_DELAY;

/// The maximum size of a text that is indented for editing, in bytes. Larger ones are edited as they are, so that the form stays
/// within its limit.
const MAX_INDENTED: usize = 64 << 10;

/// The parts of a stored message that can be edited, as they are written.
#[derive(Debug, Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(borrow, default)]
    attributes: Option<&'a RawValue>,
}

/// What a visitor entered, or the text to begin with.
struct Entered {
    body: String,
    attributes: String,
}

impl Entered {
    fn of(message: &Peeked) -> Option<Self> {
        let written: Written<'_> = serde_json::from_slice(&message.json).ok()?;
        let attributes = written.attributes.map_or("{}", RawValue::get);
        Some(Self { body: indented(written.body.get()), attributes: indented(attributes) })
    }

    fn from_form(form: &Form) -> Self {
        let field = |name| form.first(name).unwrap_or_default().to_owned();
        Self { body: field("body"), attributes: field("attributes") }
    }
}

fn indented(json: &str) -> String {
    match pretty(json) {
        (text, true) if text.len() <= MAX_INDENTED => text,
        _ => json.to_owned(),
    }
}

/// `GET …/dead/{sequence}/edit`.
pub(super) async fn show(request: PageRequest<DeadLetterPlace>) -> Response {
    let (ui, PageRequest { pages, target, .. }) = (request.ui(), &request);
    match pages.dead_letter(target).await {
        Some(message) => page(&ui, target, &message, Entered::of(&message), None),
        None => ui.not_found(),
    }
}

fn page(
    ui: &Ui<'_>,
    place: &DeadLetterPlace,
    message: &Peeked,
    entered: Option<Entered>,
    refused: Option<&str>,
) -> Response {
    let (t, found) = (ui.t, &place.found);
    let original = Entered::of(message).filter(|_| ui.visitor.sees_bodies());
    let entered = entered.filter(|_| ui.visitor.acts() && ui.visitor.sees_bodies());
    let body = html! {
        h1 { (t.edit_title) " " small.muted { (found.label()) " · " (t.place) " " (number(place.sequence)) } }
        p { a href=(ui.url(&format!("/messages/{}", message.id))) { code.id { (message.id) } } }
        @if let Some(info) = &message.dead_letter { (cause(ui, info)) }
        @if let Some(refused) = refused { p.alert.bad role="alert" { (foreign(refused)) } }
        @if let Some(entered) = entered {
            p { (t.edit_help) }
            form.stack method="post" action=(ui.url(&format!("{}/dead/{}/edit", base(found), place.sequence))) {
                input type="hidden" name="id" value=(message.id);
                label for="edit-body" { (t.body) " (JSON)" }
                // A browser drops the first line break of a text field, so there is one more.
                textarea #edit-body name="body" rows="12" required spellcheck="false" { "\n" (entered.body) }
                label for="edit-attributes" { (t.attributes) } p.hint #edit-attributes-hint { (t.attributes_hint) }
                textarea #edit-attributes name="attributes" rows="5" spellcheck="false" aria-describedby="edit-attributes-hint" { "\n" (entered.attributes) }
                div.buttons { button.primary type="submit" { (t.edit_send) } a href=(ui.url(&format!("{}/dead", base(found)))) { (t.back) } }
            }
        } @else { p.alert.note { (t.denied_reader) } }
        @if let Some(original) = original {
            h2 { (t.original) }
            div.code { pre #original-body tabindex="0" { (foreign(&original.body)) } (ui.copy("original-body")) }
            h3 { (t.attributes) }
            div.code { pre #original-attributes tabindex="0" { (foreign(&original.attributes)) } (ui.copy("original-attributes")) }
        }
    };
    ui.page(t.edit_title, "/dead", &body)
}

/// `POST …/dead/{sequence}/edit`.
pub(super) async fn send(request: PageRequest<DeadLetterPlace>, body: Body) -> Response {
    let (ui, PageRequest { pages, visitor, target, .. }) = (request.ui(), &request);
    let Ok(form) = Form::read(body, MAX_SEND_FORM).await else { return ui.bad_form() };
    let Some(message) = pages.dead_letter(target).await else { return ui.not_found() };
    let gate = &pages.dashboard.gate;
    let name = format!("{} place {}, {}", target.found.label(), target.sequence, message.id);
    // After a restore another message may be at this place.
    let is_it = form.first("id") == Some(message.id.to_string().as_str());
    if !is_it || message.state != PeekState::Available {
        gate.record(visitor, "edit", &name, Err("the message is not available"));
        return see_other(&ui.url(&format!("/messages/{}?notice=not-available", message.id)));
    }
    let copy = match edited(&ui, &form, pages.app.extensions) {
        Ok(copy) => copy,
        Err(text) => return page(&ui, target, &message, Some(Entered::from_form(&form)), Some(&text)),
    };
    let path = target.found.path();
    match pages.app.broker.edit_dead_letter(&path, target.sequence, message.id, copy).await {
        Ok(()) => {
            gate.record(visitor, "edit", &name, Ok("an edited copy was sent, and the original is kept"));
            see_other(&ui.url(&format!("/messages/{}?notice=edited", message.id)))
        }
        Err(error) => {
            gate.record(visitor, "edit", &name, Err(&error.to_string()));
            ui.failed(&error)
        }
    }
}

/// The message of a form, through the checks of the API. Its numbers are copied as they are written.
fn edited(ui: &Ui<'_>, form: &Form, extensions: bool) -> Result<NewMessage, String> {
    let body = form.first("body").unwrap_or_default();
    check_json(body).map_err(|error| fill(ui.t.body_is_no_json, &[&error.to_string()]))?;
    let attributes = form.filled("attributes").unwrap_or("{}");
    check_json(attributes).map_err(|error| format!("{}: {error}", ui.t.attributes))?;
    let text = format!("{{\"messages\":[{{\"body\":{},\"attributes\":{}}}]}}", compact(body), compact(attributes));
    let read = SendRequest::read(text.as_bytes(), extensions, MAX_DELAY).map_err(|error| error.to_string())?;
    read.messages.into_iter().next().ok_or_else(|| ui.t.bad_form.to_owned())
}

impl Pages {
    /// The dead letter at a place.
    async fn dead_letter(&self, place: &DeadLetterPlace) -> Option<Peeked> {
        let _place = self.dashboard.peeks.acquire().await;
        let path = place.found.path();
        let found = self.app.broker.peek(&path, Stream::DeadLetters, place.sequence, 1).await.ok()?;
        found.into_iter().find(|message| message.sequence == place.sequence)
    }
}
