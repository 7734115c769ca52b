//! The access log: one line for each change of queues, groups, tags, keys and users. The lines contain no bodies and no
//! secrets.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    auth::{
        account_changes::{AccountChange, ChangeKind},
        caller::{Caller, CallerName},
    },
    handlers::{message::Changed, request::ApiRequest},
    http::{error::ApiError, operation::Operation},
    log_limit::Warnings,
    net::connection_state::ConnectionState,
};
use dms_protocol::{internal::text::cut, queue::GroupId};

/// The target of every line, for filters.
const TARGET: &str = "dms_worker::access";
/// The maximum length of a name from a request, in bytes.
const MAX_SHOWN: usize = 256;

/// A requested change of a queue or its groups, to be logged once it is answered.
pub(crate) struct ChangeRecord<'a> {
    action: &'static str,
    caller: &'a Caller,
    peer: Option<IpAddr>,
    project: &'a str,
    queue: String,
    group: Option<String>,
    /// The id of the message that is changed. Then there is no queue.
    message_id: Option<&'a str>,
}

impl<'a> ChangeRecord<'a> {
    /// The change that a request asks for; `None` if it changes neither a queue nor a group. Names are looked up before the
    /// change, because a deleted queue has none.
    pub(crate) async fn of(request: &ApiRequest<'a>, operation: Operation) -> Option<Self> {
        let (action, queue, group) = match operation {
            Operation::CreateQueue => (operation.as_str(), new_name(request.body), None),
            Operation::DeleteQueue => (operation.as_str(), queue_name(request).await, None),
            Operation::CreateGroups => (operation.as_str(), queue_name(request).await, Some(new_groups(request.body))),
            Operation::DeleteGroup => (operation.as_str(), queue_name(request).await, Some(group_name(request).await)),
            Operation::Tags if changes_tags(request) => ("change_tags", queue_name(request).await, None),
            Operation::RetryMessage | Operation::DiscardMessage => (operation.as_str(), String::new(), None),
            _ => return None,
        };
        let message_id = matches!(operation, Operation::RetryMessage | Operation::DiscardMessage)
            .then(|| cut(request.params[0], MAX_SHOWN));
        let ApiRequest { sender, caller, project, .. } = *request;
        Some(Self { action, caller, peer: sender.peer, project, queue, group, message_id })
    }

    /// A queue, or a group of a queue, that is created because a request named it.
    pub(crate) fn creation(request: &ApiRequest<'a>, queue: &str, group: Option<&str>) -> Self {
        let operation = if group.is_some() { Operation::CreateGroups } else { Operation::CreateQueue };
        let ApiRequest { sender, caller, project, .. } = *request;
        let (queue, group) = (queue.to_owned(), group.map(str::to_owned));
        Self { action: operation.as_str(), caller, peer: sender.peer, project, queue, group, message_id: None }
    }

    /// Logs the creation as done, or as refused.
    pub(crate) fn log_creation(&self, refusal: Option<&ApiError>) {
        self.log(&refusal.map_or_else(|| Ok(Response::default()), |error| Err(error.clone())));
    }

    /// Logs the change and its outcome.
    pub(crate) fn log(&self, result: &Result<Response, ApiError>) {
        let (access_key, user, domain) = match self.caller {
            Caller::Known(principal) => principal.name.parts(),
            Caller::Anyone => (None, None, None),
        };
        let (action, project, message_id) = (self.action, self.project, self.message_id);
        // A message is in any number of queues. The answer knows in which of them it was changed.
        let changed = result.as_ref().ok().and_then(|response| response.extensions().get::<Changed>());
        let queue = changed.map(|changed| &changed.queues).or(Some(&self.queue).filter(|_| message_id.is_none()));
        let group = changed.map(|changed| &changed.groups).or(self.group.as_ref());
        let (queue, group) = (queue.map(|queue| cut(queue, MAX_SHOWN)), group.map(|group| cut(group, MAX_SHOWN)));
        let messages = changed.map(|changed| changed.count);
        let peer = self.peer.map(tracing::field::display);
        let code = result.as_ref().err().map(|error| error.code().name);
        let outcome = outcome(result.as_ref().is_ok_and(|response| response.status().is_success()));
        tracing::info!(target: TARGET, action, access_key, user, domain, peer, project, queue, group, message_id, messages, outcome, code, "access");
    }
}

/// Logs the POST requests of the admin address; a middleware. `refusals` limits the lines about requests without the token,
/// because anybody who reaches the address can send them.
pub(crate) async fn log_admin(State(refusals): State<Arc<Warnings>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Arc<ConnectionState>>().map(|connection| connection.peer());
    let uri = request.uri().clone();
    let response = next.run(request).await;
    let suppressed = match response.status() {
        StatusCode::UNAUTHORIZED => match refusals.admit(Instant::now()) {
            Some(suppressed) => Some(suppressed),
            None => return response,
        },
        _ => None,
    };
    let peer = peer.map(tracing::field::display);
    let (action, path) = (uri.path().rsplit('/').next().unwrap_or_default(), cut(uri.path(), MAX_SHOWN));
    let query = uri.query().map(|query| cut(query, MAX_SHOWN));
    let (outcome, status) = (outcome(response.status().is_success()), response.status().as_u16());
    tracing::info!(target: TARGET, action, listener = "server.admin", peer, path, query, outcome, status, suppressed, "access");
    response
}

/// Logs that a key or a user was added, changed or removed.
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

/// Whether a request changes the tags of a queue. Searches for tags are POST requests too, but name no queue.
fn changes_tags(request: &ApiRequest<'_>) -> bool {
    request.head().method != Method::GET && !request.params[0].is_empty()
}

/// The name of the queue in the path, or its id if there is no such queue.
async fn queue_name(request: &ApiRequest<'_>) -> String {
    let id = || request.params[0].to_owned();
    let Ok(path) = request.queue() else { return id() };
    request.app.broker.queue(&path.project, &path.queue).await.map_or_else(|_| id(), |queue| queue.name)
}

/// The name of the group in the path, or its id if there is no such group.
async fn group_name(request: &ApiRequest<'_>) -> String {
    let id = request.params[1];
    let named = async {
        let path = request.queue().ok()?;
        let list = request.app.broker.groups(&path.project, &path.queue).await.ok()?;
        list.groups.into_iter().find(|known| known.id == GroupId::new(id)).map(|known| known.name)
    };
    named.await.unwrap_or_else(|| id.to_owned())
}

/// The name in a request for a queue; empty if it has none.
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
