//! Applies a new configuration to the embedded server: keys and users, the admin tokens, quotas, retention and limits, missing
//! queues, and schedules.

use crate::config::{self, QueueSpec, ServerAuth, server_settings};
use dms_server::ServerHandle;

/// Replaces the keys and users by the new ones, and writes them into `in_force`. Returns whether the server accepted them; if not,
/// nothing has changed.
pub(crate) fn take_callers(handle: &ServerHandle, in_force: &mut config::Server, new: &config::Server) -> bool {
    match handle.replace_callers(&server_settings::settings(new).projects) {
        Ok(0) => {}
        Ok(changes) => tracing::info!(changes, "the keys and users were read again"),
        Err(error) => {
            tracing::warn!(%error, "the new keys and users were rejected; the current ones stay in use");
            return false;
        }
    }
    take_admin_tokens(handle, in_force, new);
    in_force.auth = with_rules_of(in_force.auth.as_ref(), new.auth.as_ref());
    for project in &mut in_force.projects {
        if let Some(new) = new.projects.iter().find(|new| new.id == project.id) {
            project.auth = with_rules_of(project.auth.as_ref(), new.auth.as_ref());
        }
    }
    true
}

/// Replaces the tokens of the admin address, and writes them into `in_force`. Setting the first token or removing it needs a
/// restart.
fn take_admin_tokens(handle: &ServerHandle, in_force: &mut config::Server, new: &config::Server) {
    let is_other = in_force.admin.0.read_token != new.admin.0.read_token;
    let read_token = new.admin.0.read_token.as_ref().map(config::Secret::expose);
    if !is_other || handle.renew_admin_read_token(read_token) {
        in_force.admin.0.read_token.clone_from(&new.admin.0.read_token);
        in_force.admin.0.read_token_file.clone_from(&new.admin.0.read_token_file);
        if is_other {
            tracing::info!("the read token of the admin address was read again");
        }
    }
    let is_other = in_force.admin_token() != new.admin_token();
    if !is_other || handle.renew_admin_token(new.admin_token().map(config::Secret::expose)) {
        in_force.admin_token.clone_from(&new.admin_token);
        in_force.admin_token_file.clone_from(&new.admin_token_file);
        in_force.admin.0.token.clone_from(&new.admin.0.token);
        in_force.admin.0.token_file.clone_from(&new.admin.0.token_file);
        if is_other {
            tracing::info!("the token of the admin address was read again");
        }
    }
}

/// The new keys and users with the old rules for signatures, because a change of the rules needs a restart.
fn with_rules_of(in_force: Option<&ServerAuth>, new: Option<&ServerAuth>) -> Option<ServerAuth> {
    let mut auth = new?.clone();
    if let Some(in_force) = in_force {
        (auth.require_signed_host, auth.reject_replays) = (in_force.require_signed_host, in_force.reject_replays);
    }
    Some(auth)
}

/// Creates the missing queues and groups of a new configuration, and writes them into `in_force`. Queues that it leaves out stay,
/// and existing queues do not change.
pub(crate) async fn create_queues(handle: &ServerHandle, in_force: &mut config::Server, new: &config::Server) {
    let projects = new.projects.iter().map(|project| (project.id.as_str(), project.queues.as_slice()));
    let lists: Vec<_> = std::iter::once((new.project_id.as_str(), new.queues.as_slice())).chain(projects).collect();
    let own = (in_force.project_id.clone(), &mut in_force.queues);
    let further = in_force.projects.iter_mut().map(|project| (project.id.clone(), &mut project.queues));
    let mut merged = Vec::new();
    for (id, queues) in std::iter::once(own).chain(further) {
        if let Some((_, wanted)) = lists.iter().find(|(project, _)| *project == id)
            && **queues != **wanted
        {
            merged.push((id, queues, wanted.to_vec()));
        }
    }
    if merged.is_empty() {
        return;
    }
    let known: Vec<_> = merged.iter().map(|(id, ..)| id.as_str()).collect();
    let mut projects = server_settings::settings(new).projects;
    projects.retain(|project| known.contains(&project.id.to_string().as_str()));
    if let Err(error) = handle.create_missing_queues(&projects).await {
        return tracing::error!(%error, "queues of the configuration cannot be created before a restart");
    }
    for (_, queues, wanted) in merged {
        *queues = wanted;
    }
}

/// Takes the quotas, the retention and the limits of a new configuration that a running server can change, and writes them into
/// `in_force`. Call it before [`create_queues`], so that new queues begin with their retention and have room in the quotas.
pub(crate) fn take_settings(handle: &ServerHandle, in_force: &mut config::Server, new: &config::Server) {
    let mut next = in_force.clone();
    next.failure_counting = new.failure_counting;
    next.new_group_starts = new.new_group_starts;
    next.create_delay = new.create_delay;
    next.retention = new.retention;
    next.quotas = new.quotas;
    next.limits.polls_per_group = new.limits.polls_per_group;
    next.limits.leased_bytes = new.limits.leased_bytes;
    next.limits.metrics_groups = new.limits.metrics_groups;
    if next.project_id == new.project_id {
        take_retention(&mut next.queues, &new.queues);
    }
    for project in &mut next.projects {
        if let Some(new) = new.projects.iter().find(|new| new.id == project.id) {
            project.quotas = new.quotas;
            take_retention(&mut project.queues, &new.queues);
        }
    }
    // The policies of queues that are not there yet count, too.
    let settings = with_queues_of(&next, new);
    if *in_force == settings {
        return;
    }
    if let Err(error) = handle.reconfigure(&server_settings::settings(&settings)) {
        return tracing::error!(%error, "quotas, retention and limits of the configuration are not in force before a restart");
    }
    let (before, now) = (in_force.retention, next.retention);
    if now.get() < before.get() {
        tracing::warn!(%before, %now, "server.retention is shorter now; queues without a retention of their own delete older messages");
    }
    *in_force = next;
}

/// Takes the retention of the queues that both lists have.
fn take_retention(queues: &mut [QueueSpec], new: &[QueueSpec]) {
    for queue in queues {
        let new = new.iter().find(|new| new.name == queue.name);
        queue.retention = new.and_then(|new| new.retention);
        queue.delete_when_settled = new.and_then(|new| new.delete_when_settled);
    }
}

/// A configuration with the queues of another one, for the projects that it has.
fn with_queues_of(server: &config::Server, new: &config::Server) -> config::Server {
    let mut merged = server.clone();
    if merged.project_id == new.project_id {
        merged.queues.clone_from(&new.queues);
    }
    for project in &mut merged.projects {
        if let Some(new) = new.projects.iter().find(|new| new.id == project.id) {
            project.queues.clone_from(&new.queues);
        }
    }
    merged
}

/// Sets the schedules of a new configuration, and writes them into `in_force`.
pub(crate) async fn set_schedules(handle: &ServerHandle, in_force: &mut config::Server, new: &config::Server) {
    let schedules_of =
        |id: &str| new.projects.iter().find(|project| project.id == id).map(|project| &project.schedules);
    let known: Vec<_> = in_force.projects.iter().map(|project| project.id.clone()).collect();
    let is_other = |project: &config::Project| schedules_of(&project.id).is_some_and(|new| *new != project.schedules);
    let own = in_force.project_id == new.project_id;
    if !(own && in_force.schedules != new.schedules || in_force.projects.iter().any(is_other)) {
        return;
    }
    let mut projects = server_settings::settings(new).projects;
    projects.retain(|project| {
        let id = project.id.to_string();
        known.contains(&id) || (own && id == new.project_id)
    });
    if let Err(error) = handle.set_schedules(&projects).await {
        return tracing::error!(%error, "schedules of the configuration cannot be set before a restart");
    }
    if own {
        in_force.schedules.clone_from(&new.schedules);
    }
    for project in &mut in_force.projects {
        if let Some(schedules) = schedules_of(&project.id) {
            project.schedules.clone_from(schedules);
        }
    }
}
