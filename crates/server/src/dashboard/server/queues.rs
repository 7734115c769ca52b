//! `/ui/queues`: creating, deleting and purging queues and groups.

use axum::{
    Extension,
    body::Body,
    extract::{RawPathParams, State},
    response::Response,
};
use maud::html;

use crate::{
    broker::{BrokerError, Purged, QueueOverview},
    dashboard::{
        access::visitor::Visitor,
        form::Form,
        html::{
            format::number,
            frame::{Ui, notice, see_other},
        },
        server::{MAX_FORM, Pages, find},
        text::fill,
    },
};
use dms_protocol::{
    limits,
    queue::{NewQueue, ProjectId, QueueMode},
};

/// `GET /ui/queues`.
pub(super) async fn list(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>, query: Form) -> Response {
    let ui = Ui::new(&pages.dashboard.gate, &visitor);
    page(&pages, &ui, &query, None)
}

fn page(pages: &Pages, ui: &Ui<'_>, entered: &Form, refused: Option<&str>) -> Response {
    let (t, queues) = (ui.t, pages.app.broker.overview());
    let projects = pages.projects();
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
    fn projects(&self) -> Vec<ProjectId> {
        let mut projects: Vec<_> =
            self.app.authenticator.accounts().projects.iter().map(|project| project.id.clone()).collect();
        projects.extend(self.app.broker.overview().into_iter().map(|queue| queue.project));
        let mut seen = std::collections::HashSet::new();
        projects.retain(|project| seen.insert(project.clone()));
        projects
    }
}

/// `POST /ui/queues`.
pub(super) async fn create(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>, body: Body) -> Response {
    let gate = &pages.dashboard.gate;
    let ui = Ui::new(gate, &visitor);
    let Ok(form) = Form::read(body, MAX_FORM).await else { return ui.bad_form() };
    let name = form.filled("name").unwrap_or_default().to_owned();
    match pages.create(&name, &form).await {
        Ok(()) => {
            gate.record(&visitor, "create-queue", &name, Ok("created"));
            see_other(&ui.url("/queues?notice=created"))
        }
        Err(text) => {
            gate.record(&visitor, "create-queue", &name, Err(&text));
            page(&pages, &ui, &form, Some(&text))
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
        let projects = self.projects();
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
pub(super) async fn create_group(
    State(pages): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    params: RawPathParams,
    body: Body,
) -> Response {
    let ui = Ui::new(&pages.dashboard.gate, &visitor);
    let Ok(form) = Form::read(body, MAX_FORM).await else { return ui.bad_form() };
    let Some(queue) = find::queue(&pages.app, &params, &form) else { return ui.not_found() };
    let name = form.filled("name").unwrap_or_default().to_owned();
    let made = match limits::group_name(&name) {
        Ok(()) => {
            let made =
                pages.app.broker.create_groups(&queue.project, &queue.queue.id, std::slice::from_ref(&name)).await;
            made.map(|_| "created".to_owned()).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.of("name").to_string()),
    };
    ended(
        &pages,
        &ui,
        "create-group",
        &format!("{}/{name}", queue.queue.name),
        made,
        &format!("/queues/{}", queue.queue.id),
    )
}

/// `POST /ui/queues/{queue}/purge`.
pub(super) async fn purge(
    State(pages): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    params: RawPathParams,
    body: Body,
) -> Response {
    let ui = Ui::new(&pages.dashboard.gate, &visitor);
    let Ok(form) = Form::read(body, MAX_FORM).await else { return ui.bad_form() };
    let Some(queue) = find::queue(&pages.app, &params, &form) else { return ui.not_found() };
    let (name, page) = (queue.queue.name.clone(), format!("/queues/{}", queue.queue.id));
    if !is_confirmed(&form, &name) {
        return unconfirmed(&ui, &name);
    }
    let purged = pages.app.broker.purge(&queue.project, &queue.queue.id, None).await;
    ended(&pages, &ui, "purge", &name, counts(purged), &page)
}

/// `POST /ui/queues/{queue}/delete`.
pub(super) async fn delete(
    State(pages): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    params: RawPathParams,
    body: Body,
) -> Response {
    let ui = Ui::new(&pages.dashboard.gate, &visitor);
    let Ok(form) = Form::read(body, MAX_FORM).await else { return ui.bad_form() };
    let Some(QueueOverview { project, queue, .. }) = find::queue(&pages.app, &params, &form) else {
        return ui.not_found();
    };
    if !is_confirmed(&form, &queue.name) {
        return unconfirmed(&ui, &queue.name);
    }
    let deleted = pages.app.broker.delete_queue(&project, &queue.id).await;
    let deleted = deleted.map(|()| "deleted".to_owned()).map_err(|error| error.to_string());
    ended(&pages, &ui, "delete-queue", &queue.name, deleted, "/queues")
}

/// `POST /ui/queues/{queue}/{group}/purge`.
pub(super) async fn purge_group(
    State(pages): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    params: RawPathParams,
    body: Body,
) -> Response {
    let ui = Ui::new(&pages.dashboard.gate, &visitor);
    let Ok(form) = Form::read(body, MAX_FORM).await else { return ui.bad_form() };
    let Some(found) = find::group(&pages.app, &params, &form) else { return ui.not_found() };
    if !is_confirmed(&form, &found.group.group.name) {
        return unconfirmed(&ui, &found.group.group.name);
    }
    let path = found.path();
    let purged = pages.app.broker.purge(&path.project, &path.queue, Some(&path.group)).await;
    ended(&pages, &ui, "purge", &found.label(), counts(purged), &format!("/queues/{}", path.queue))
}

/// `POST /ui/queues/{queue}/{group}/delete`.
pub(super) async fn delete_group(
    State(pages): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    params: RawPathParams,
    body: Body,
) -> Response {
    let ui = Ui::new(&pages.dashboard.gate, &visitor);
    let Ok(form) = Form::read(body, MAX_FORM).await else { return ui.bad_form() };
    let Some(found) = find::group(&pages.app, &params, &form) else { return ui.not_found() };
    if !is_confirmed(&form, &found.group.group.name) {
        return unconfirmed(&ui, &found.group.group.name);
    }
    let deleted = pages.app.broker.delete_group(&found.path()).await;
    let deleted = deleted.map(|()| "deleted".to_owned()).map_err(|error| error.to_string());
    ended(&pages, &ui, "delete-group", &found.label(), deleted, &format!("/queues/{}", found.queue.queue.id))
}

fn counts(purged: Result<Purged, BrokerError>) -> Result<String, String> {
    purged
        .map(|Purged { messages, delayed }| format!("{messages} messages, {delayed} delayed"))
        .map_err(|error| error.to_string())
}

fn is_confirmed(form: &Form, name: &str) -> bool {
    form.filled("confirm") == Some(name)
}

fn unconfirmed(ui: &Ui<'_>, name: &str) -> Response {
    ui.refused(&fill(ui.t.type_name, &[name]))
}

/// Records an action, and leads to the page that shows what came of it.
fn ended(
    pages: &Pages,
    ui: &Ui<'_>,
    action: &'static str,
    target: &str,
    outcome: Result<String, String>,
    page: &str,
) -> Response {
    let recorded = outcome.as_ref().map(String::as_str).map_err(String::as_str);
    pages.dashboard.gate.record(ui.visitor, action, target, recorded);
    match outcome {
        Ok(_) => see_other(
            &ui.url(&format!("{page}?notice={}", if action.starts_with("create") { "created" } else { "done" })),
        ),
        Err(text) => ui.refused(&text),
    }
}
