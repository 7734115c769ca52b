//! The access log: who did what to queues, groups and keys, as log lines of a target of their own. No bodies, no secrets.

use std::{net::IpAddr, sync::Arc};

use axum::{extract::Request, middleware::Next, response::Response};
use http::Method;
use serde_json::Value;

use crate::{
    api::{resource::Resource, routes::Admitted},
    auth::{
        account_changes::{AccountChange, ChangeKind},
        caller::{Caller, CallerName},
    },
    http::{error::ApiError, path::QueuePath},
    net::connection_state::ConnectionState,
    state::AppState,
};
use dms_protocol::{
    queue::{GroupId, ProjectId},
    text::cut,
};

/// The target of every line, for filters.
const TARGET: &str = "dms_worker::access";
/// How much of a name from a request is logged, in bytes.
const SHOWN: usize = 256;

/// A change of a queue or its groups that is asked for: what to log of it once it is answered.
pub(crate) struct ChangeRecord<'a> {
    action: &'static str,
    caller: &'a Caller,
    peer: Option<IpAddr>,
    project: ProjectId,
    queue: String,
    group: Option<String>,
}

impl<'a> ChangeRecord<'a> {
    /// What a request is about to change; `None` where it changes no queue and no group. Looked up before: afterwards
    /// what is deleted has no name any more.
    pub(crate) async fn of(app: &AppState, request: Admitted<'a>, project: &ProjectId, body: &[u8]) -> Option<Self> {
        use Resource as R;
        let Admitted { sender, target, caller } = request;
        let (action, queue, group) = match (sender.parts.method.as_str(), target.resource) {
            ("POST", R::Queues) => ("create_queue", new_name(body), None),
            ("DELETE", R::Queue(queue)) => ("delete_queue", queue_name(app, project, queue).await, None),
            ("POST", R::Groups(queue)) => {
                ("create_groups", queue_name(app, project, queue).await, Some(new_groups(body)))
            }
            ("DELETE", R::Group(queue, group)) => {
                let name = group_name(app, project, queue, group).await;
                ("delete_group", queue_name(app, project, queue).await, Some(name))
            }
            ("POST" | "DELETE", R::Tags(queue) | R::TagActions(queue) | R::Tag(queue, _)) => {
                ("change_tags", queue_name(app, project, queue).await, None)
            }
            _ => return None,
        };
        Some(Self { action, caller, peer: sender.peer, project: project.clone(), queue, group })
    }

    /// Logs how it was answered.
    pub(crate) fn log(&self, result: &Result<Response, ApiError>) {
        let (access_key, user, domain) = match self.caller {
            Caller::Known(principal) => principal.name.parts(),
            Caller::Anyone => (None, None, None),
        };
        let (action, project, queue) = (self.action, self.project.as_str(), cut(&self.queue, SHOWN));
        let group = self.group.as_deref().map(|group| cut(group, SHOWN));
        let peer = self.peer.map(tracing::field::display);
        let code = result.as_ref().err().map(|error| error.code().name);
        let outcome = outcome(result.as_ref().is_ok_and(|response| response.status().is_success()));
        tracing::info!(target: TARGET, action, access_key, user, domain, peer, project, queue, group, outcome, code, "access");
    }
}

/// Logs what is done by POST on the admin address; a middleware.
pub(crate) async fn log_admin(request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Arc<ConnectionState>>().map(|visitor| visitor.peer());
    let uri = request.uri().clone();
    let response = next.run(request).await;
    let peer = peer.map(tracing::field::display);
    let (action, path) = (uri.path().rsplit('/').next().unwrap_or_default(), cut(uri.path(), SHOWN));
    let query = uri.query().map(|query| cut(query, SHOWN));
    let (outcome, status) = (outcome(response.status().is_success()), response.status().as_u16());
    tracing::info!(target: TARGET, action, listener = "server.admin", peer, path, query, outcome, status, "access");
    response
}

/// A key or a user is new, gone or different.
pub(crate) fn caller_changed(change: &AccountChange) {
    let action = match (&change.name, change.kind) {
        (CallerName::Key(_), ChangeKind::Added) => "add_key",
        (CallerName::Key(_), ChangeKind::Changed) => "change_key",
        (CallerName::Key(_), ChangeKind::Removed) => "remove_key",
        (CallerName::User { .. }, ChangeKind::Added) => "add_user",
        (CallerName::User { .. }, ChangeKind::Changed) => "change_user",
        (CallerName::User { .. }, ChangeKind::Removed) => "remove_user",
    };
    let (access_key, user, domain) = change.name.parts();
    let project = change.project.as_str();
    tracing::info!(target: TARGET, action, access_key, user, domain, project, outcome = "done", "access");
}

fn outcome(success: bool) -> &'static str {
    if success { "done" } else { "refused" }
}

/// The name of a queue, or its id as the path has it where there is no such queue.
async fn queue_name(app: &AppState, project: &ProjectId, queue: &str) -> String {
    let Ok(path) = QueuePath::read(project.clone(), queue) else { return queue.to_owned() };
    app.broker.queue(project, &path.queue).await.map_or_else(|_| queue.to_owned(), |queue| queue.name)
}

/// The name of a group, or its id as the path has it where there is no such group.
async fn group_name(app: &AppState, project: &ProjectId, queue: &str, group: &str) -> String {
    let named = async {
        let path = QueuePath::read(project.clone(), queue).ok()?;
        let list = app.broker.groups(project, &path.queue).await.ok()?;
        list.groups.into_iter().find(|known| known.id == GroupId::new(group)).map(|known| known.name)
    };
    named.await.unwrap_or_else(|| group.to_owned())
}

/// The name in a request for a queue; empty where there is none.
fn new_name(body: &[u8]) -> String {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    request["name"].as_str().unwrap_or_default().to_owned()
}

/// The names in a request for groups.
fn new_groups(body: &[u8]) -> String {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let groups = request["groups"].as_array().into_iter().flatten();
    groups.filter_map(|group| group["name"].as_str()).collect::<Vec<_>>().join(",")
}
