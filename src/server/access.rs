//! The access log: who did what to queues, groups and keys, as log lines of a target of their own. No bodies, no secrets.

use super::{
    changes::{Change, Kind},
    principal::Name,
};

/// The target of every line, for filters.
const TARGET: &str = "dms_worker::access";

/// A key or a user is new, gone or different.
pub(super) fn caller_changed(change: &Change) {
    let action = match (&change.name, change.kind) {
        (Name::Key(_), Kind::Added) => "add_key",
        (Name::Key(_), Kind::Changed) => "change_key",
        (Name::Key(_), Kind::Removed) => "remove_key",
        (Name::User { .. }, Kind::Added) => "add_user",
        (Name::User { .. }, Kind::Changed) => "change_user",
        (Name::User { .. }, Kind::Removed) => "remove_user",
    };
    let (access_key, user, domain) = change.name.parts();
    let project = change.project.as_str();
    tracing::info!(target: TARGET, action, access_key, user, domain, project, outcome = "done", "access");
}
