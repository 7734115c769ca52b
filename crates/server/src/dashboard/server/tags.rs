//! The tags of a queue: shown on its page, set and deleted by forms.

use axum::response::Response;
use maud::{Markup, html};

use crate::{
    broker::QueueOverview,
    dashboard::{
        html::{format::foreign, frame::Ui},
        server::{Pages, request::Posted},
    },
};
use dms_protocol::{limits, queue::QueueTag};

/// The tags with their forms.
pub(super) async fn section(ui: &Ui<'_>, pages: &Pages, queue: &QueueOverview) -> Markup {
    let (t, base) = (ui.t, format!("/queues/{}/tags", queue.queue.id));
    let tags = pages.app.broker.tags(&queue.project, &queue.queue.id).await.unwrap_or_default();
    html! {
        h2 { (t.tags) }
        @if tags.is_empty() { p.muted { (t.no_tags) } } @else {
            ul.cards { @for tag in &tags { li {
                code { (foreign(&tag.key)) } " = " code { (foreign(&tag.value)) }
                @if ui.visitor.acts() {
                    " " form.inline method="post" action=(ui.url(&format!("{base}/delete"))) {
                        input type="hidden" name="key" value=(tag.key);
                        button.bad type="submit" aria-label=(format!("{} {}", t.delete, tag.key)) { (t.delete) }
                    }
                }
            } } }
        }
        @if ui.visitor.acts() {
            form.inline method="post" action=(ui.url(&base)) {
                label for="tag-key" { (t.tag_key) } input #tag-key name="key" required maxlength="36" autocomplete="off";
                label for="tag-value" { (t.value) } input #tag-value name="value" maxlength="43" autocomplete="off";
                button type="submit" { (t.set) }
            }
        }
    }
}

/// `POST /ui/queues/{queue}/tags`.
pub(super) async fn put(Posted(request): Posted<QueueOverview>) -> Response {
    let QueueOverview { project, queue, .. } = &request.target;
    let field = |name| request.form.filled(name).unwrap_or_default().to_owned();
    let tag = QueueTag { key: field("key"), value: field("value") };
    let target = format!("{}: {}", queue.name, tag.key);
    let checked = limits::tag_key(&tag.key).map_err(|error| error.of("key").to_string());
    let checked = checked.and_then(|()| limits::tag_value(&tag.value).map_err(|error| error.of("value").to_string()));
    let set = match checked {
        Ok(()) => {
            request.pages.app.broker.put_tags(project, &queue.id, vec![tag]).await.map_err(|error| error.to_string())
        }
        Err(text) => Err(text),
    };
    request.ended("set-tag", &target, set.map(|()| "set".to_owned()), &format!("/queues/{}", queue.id))
}

/// `POST /ui/queues/{queue}/tags/delete`.
pub(super) async fn delete(Posted(request): Posted<QueueOverview>) -> Response {
    let QueueOverview { project, queue, .. } = &request.target;
    let key = request.form.filled("key").unwrap_or_default().to_owned();
    let target = format!("{}: {key}", queue.name);
    let gone = request.pages.app.broker.delete_tags(project, &queue.id, vec![(key, None)]).await;
    let gone = gone.map(|()| "deleted".to_owned()).map_err(|error| error.to_string());
    request.ended("delete-tag", &target, gone, &format!("/queues/{}", queue.id))
}
