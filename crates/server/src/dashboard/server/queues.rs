//! `/ui/queues`: creating, deleting and purging queues and groups.

use std::collections::HashSet;

use axum::response::Response;
use maud::html;

use crate::{
    broker::{BrokerError, Purged, QueueOverview},
    dashboard::{
        form::Form,
        html::{
            format::number,
            frame::{Ui, notice, see_other},
        },
        server::{
            Pages,
            find::Found,
            request::{PageRequest, Posted},
        },
        text::fill,
    },
};
use dms_protocol::{
    limits,
    queue::{NewQueue, ProjectId, QueueMode},
};

/// `GET /ui/queues`.
pub(super) async fn list(request: PageRequest) -> Response {
    page(&request.pages, &request.ui(), &request.form, None).await
}

async fn page(pages: &Pages, ui: &Ui<'_>, entered: &Form, refused: Option<&str>) -> Response {
    let (t, queues) = (ui.t, pages.queues().await);
    let projects = pages.projects(&queues);
    let body = html! {
        h1 { (t.queues) }
        (notice(ui, entered))
        @if let Some(refused) = refused { p.alert.bad role="alert" { (refused) } }
        @if queues.is_empty() { p.empty { (t.no_queues) } } @else {
            div.table-box { table.wide {
                thead { tr {
                    th scope="col" { (t.queue) } th scope="col" { (t.mode) } th scope="col" { (t.groups) } th.num scope="col" { (t.entered_total) }
                    th.num scope="col" { (t.delayed) } th scope="col" { (t.project) }
                } }
                tbody { @for queue in &queues { tr {
                    th data-label=(t.queue) scope="row" { a href=(ui.url(&format!("/queues/{}", queue.queue.id))) { (queue.queue.name) } }
                    td data-label=(t.mode) { (queue.queue.mode.as_str()) }
                    td data-label=(t.groups) {
                        @for group in &queue.groups { a.chip href=(ui.url(&format!("/queues/{}/{}", queue.queue.id, group.group.id))) { (group.group.name) } " " }
                    }
                    td.num data-label=(t.entered_total) { (number(queue.entered)) }
                    td.num data-label=(t.delayed) { (number(queue.delayed)) }
                    td data-label=(t.project) { (queue.project.as_str()) }
                } } }
            } }
        }
        @if ui.visitor.acts() {
            h2 { (t.create_queue) }
            form.stack method="post" action=(ui.url("/queues")) {
                div.row {
                    div { label for="new-name" { (t.name) } input #new-name name="name" required maxlength="64" autocomplete="off" value=(entered.first("name").unwrap_or_default()); }
                    div { label for="new-mode" { (t.mode) } select #new-mode name="mode" { option { "NORMAL" } option { "FIFO" } } }
                    div { label for="new-dead" { (t.dead_after_field) } input #new-dead name="max_consume_count" type="number" min="1" max="100" value=(entered.first("max_consume_count").unwrap_or("3")); }
                    div { label for="new-group" { (t.first_group) } input #new-group name="group" maxlength="32" autocomplete="off"; }
                    @if projects.len() > 1 {
                        div { label for="new-project" { (t.project) } select #new-project name="project" { @for project in &projects { option { (project.as_str()) } } } }
                    }
                }
                button.primary type="submit" { (t.create) }
            }
        }
    };
    ui.page(t.queues, "/queues", &body)
}

impl Pages {
    /// The projects of the configuration, and those that have queues.
    fn projects(&self, queues: &[QueueOverview]) -> Vec<ProjectId> {
        let accounts = self.app.authenticator.accounts();
        let configured = accounts.projects.iter().map(|project| &project.id);
        distinct(configured.chain(queues.iter().map(|queue| &queue.project)))
    }
}

/// These projects, each once.
pub(super) fn distinct<'a>(projects: impl Iterator<Item = &'a ProjectId>) -> Vec<ProjectId> {
    let mut seen = HashSet::new();
    projects.filter(|project| seen.insert(*project)).cloned().collect()
}

/// `POST /ui/queues`.
pub(super) async fn create(Posted(request): Posted) -> Response {
    let (ui, PageRequest { pages, visitor, form, .. }) = (request.ui(), &request);
    let gate = &pages.dashboard.gate;
    let name = form.filled("name").unwrap_or_default();
    match pages.create(name, form).await {
        Ok(()) => {
            gate.record(visitor, "create-queue", name, Ok("created"));
            see_other(&ui.url("/queues?notice=created"))
        }
        Err(text) => {
            gate.record(visitor, "create-queue", name, Err(&text));
            page(pages, &ui, form, Some(&text)).await
        }
    }
}

impl Pages {
    async fn create(&self, name: &str, form: &Form) -> Result<(), String> {
        limits::queue_name(name).map_err(|error| error.of("name").to_string())?;
        let group = form.filled("group");
        if let Some(group) = group {
            limits::group_name(group).map_err(|error| error.of("group").to_string())?;
        }
        let projects = self.projects(&self.queues().await);
        let wanted = form.filled("project");
        let project = projects.iter().find(|project| wanted.is_none_or(|wanted| project.as_str() == wanted));
        let project = project.ok_or_else(|| "there is no such project".to_owned())?;
        let mode = if form.first("mode") == Some("FIFO") { QueueMode::Fifo } else { QueueMode::Normal };
        let mut queue = NewQueue::new(name);
        queue.mode = mode;
        queue.max_consume_count =
            form.number("max_consume_count").and_then(|count| u32::try_from(count.clamp(1, 100)).ok());
        let text = |error: BrokerError| error.to_string();
        let created = self.app.broker.create_queue(project, queue).await.map_err(text)?;
        if let Some(group) = group {
            self.app.broker.create_groups(project, &created.id, &[group.to_owned()]).await.map_err(text)?;
        }
        Ok(())
    }
}

/// `POST /ui/queues/{queue}/groups`.
pub(super) async fn create_group(Posted(request): Posted<QueueOverview>) -> Response {
    let QueueOverview { project, queue, .. } = &request.target;
    let name = request.form.filled("name").unwrap_or_default().to_owned();
    let made = match limits::group_name(&name) {
        Ok(()) => {
            let made = request.pages.app.broker.create_groups(project, &queue.id, std::slice::from_ref(&name)).await;
            made.map(|_| "created".to_owned()).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.of("name").to_string()),
    };
    let (target, page) = (format!("{}/{name}", queue.name), format!("/queues/{}", queue.id));
    request.ended("create-group", &target, made, &page)
}

/// `POST /ui/queues/{queue}/purge`.
pub(super) async fn purge(Posted(request): Posted<QueueOverview>) -> Response {
    let QueueOverview { project, queue, .. } = &request.target;
    if !request.is_confirmed(&queue.name) {
        return request.unconfirmed(&queue.name);
    }
    let purged = request.pages.app.broker.purge(project, &queue.id, None).await;
    request.ended("purge", &queue.name, counts(purged), &format!("/queues/{}", queue.id))
}

/// `POST /ui/queues/{queue}/delete`.
pub(super) async fn delete(Posted(request): Posted<QueueOverview>) -> Response {
    let QueueOverview { project, queue, .. } = &request.target;
    if !request.is_confirmed(&queue.name) {
        return request.unconfirmed(&queue.name);
    }
    let gone = request.pages.app.broker.delete_queue(project, &queue.id).await;
    request.ended("delete-queue", &queue.name, deleted(gone), "/queues")
}

/// `POST /ui/queues/{queue}/{group}/purge`.
pub(super) async fn purge_group(Posted(request): Posted<Found>) -> Response {
    let (found, path) = (&request.target, request.target.path());
    if !request.is_confirmed(&found.group.group.name) {
        return request.unconfirmed(&found.group.group.name);
    }
    let purged = request.pages.app.broker.purge(&path.project, &path.queue, Some(&path.group)).await;
    request.ended("purge", &found.label(), counts(purged), &format!("/queues/{}", path.queue))
}

/// `POST /ui/queues/{queue}/{group}/delete`.
pub(super) async fn delete_group(Posted(request): Posted<Found>) -> Response {
    let (found, path) = (&request.target, request.target.path());
    if !request.is_confirmed(&found.group.group.name) {
        return request.unconfirmed(&found.group.group.name);
    }
    let gone = request.pages.app.broker.delete_group(&path).await;
    request.ended("delete-group", &found.label(), deleted(gone), &format!("/queues/{}", path.queue))
}

fn counts(purged: Result<Purged, BrokerError>) -> Result<String, String> {
    purged
        .map(|Purged { messages, delayed }| format!("{messages} messages, {delayed} delayed"))
        .map_err(|error| error.to_string())
}

fn deleted(gone: Result<(), BrokerError>) -> Result<String, String> {
    gone.map(|()| "deleted".to_owned()).map_err(|error| error.to_string())
}

impl<T> PageRequest<T> {
    /// Whether the name was typed as a confirmation.
    pub(super) fn is_confirmed(&self, name: &str) -> bool {
        self.form.filled("confirm") == Some(name)
    }

    pub(super) fn unconfirmed(&self, name: &str) -> Response {
        let ui = self.ui();
        ui.refused(&fill(ui.t.type_name, &[name]))
    }

    /// Records an action, and leads to the page that shows its result.
    pub(super) fn ended(
        &self,
        action: &'static str,
        target: &str,
        outcome: Result<String, String>,
        page: &str,
    ) -> Response {
        let ui = self.ui();
        let recorded = outcome.as_ref().map(String::as_str).map_err(String::as_str);
        self.pages.dashboard.gate.record(&self.visitor, action, target, recorded);
        let notice = if action.starts_with("create") { "created" } else { "done" };
        match outcome {
            Ok(_) => see_other(&ui.url(&format!("{page}?notice={notice}"))),
            Err(text) => ui.refused(&text),
        }
    }
}
