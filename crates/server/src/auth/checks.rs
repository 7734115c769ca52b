//! The rules for projects, access keys and users.

use std::collections::{HashMap, HashSet};

use crate::auth::{
    project::{AccessKey, Project, User},
    rights::Rights,
    secret::{is_blank, same_secret},
};
use dms_protocol::{internal::setting_checks::SettingChecks, limits};

/// Finds every project, key and user that is invalid or contradicts another one.
pub(crate) fn check_projects(projects: &[Project], checks: &mut SettingChecks) {
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    let guarded = projects.iter().any(Project::has_auth);
    for (number, project) in projects.iter().enumerate() {
        let path = format!("projects[{number}]");
        let (id, name) = (project.id.as_str(), project.name.as_str());
        check_id(&format!("{path}.id"), id, checks);
        if !id.is_empty() && !ids.insert(id) {
            checks.rule(&format!("{path}.id"), format!("there is another project `{id}`"));
        }
        checks.required(&format!("{path}.name"), name);
        if !name.is_empty() && !names.insert(name) {
            let problem = format!("there is another project of the name `{name}`: tokens are requested by name");
            checks.rule(&format!("{path}.name"), problem);
        }
        if guarded && !project.has_auth() {
            checks.rule(&path, "has neither access keys nor users, but other projects have: add some");
        }
        project.users.iter().enumerate().for_each(|(place, user)| check_user(project, &path, place, user, checks));
    }
    check_keys(projects, checks);
}

fn check_id(setting: &str, id: &str, checks: &mut SettingChecks) {
    if is_blank(id) {
        checks.required(setting, id);
    } else if !is_project_id(id) {
        checks.value(setting, id, "is not allowed: 1 to 64 of A-Z a-z 0-9 _ - are allowed");
    }
}

/// Whether `text` is a valid project id.
pub(crate) fn is_project_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}

/// One key may belong to several projects, with the same secrets in each of them.
fn check_keys(projects: &[Project], checks: &mut SettingChecks) {
    let mut known: HashMap<&str, Vec<(usize, &AccessKey)>> = HashMap::new();
    for (number, project) in projects.iter().enumerate() {
        for (place, key) in project.access_keys.iter().enumerate() {
            let path = format!("projects[{number}].access_keys[{place}]");
            let name = format!("{path}.access_key");
            let others = known.entry(&key.access_key).or_default();
            if let Some(contradiction) = contradiction(others, number, key).filter(|_| !key.access_key.is_empty()) {
                checks.rule(&name, format!("the access key {} is listed twice{contradiction}", key.access_key));
            }
            others.push((number, key));
            check_key(&path, key, checks);
        }
    }
}

/// Describes how a key contradicts earlier entries of the same name; empty if it merely repeats one of its project.
fn contradiction(others: &[(usize, &AccessKey)], number: usize, key: &AccessKey) -> Option<&'static str> {
    let is_same = |other: &AccessKey| same_secret(Some(&other.secret_key), Some(&key.secret_key));
    if others.iter().any(|(_, other)| !is_same(other)) {
        return Some(" with different secrets");
    }
    if others.iter().any(|(_, other)| !same_secret(other.security_token.as_ref(), key.security_token.as_ref())) {
        return Some(" with different security tokens");
    }
    others.iter().any(|(project, _)| *project == number).then_some("")
}

fn check_key(path: &str, key: &AccessKey, checks: &mut SettingChecks) {
    let name = format!("{path}.access_key");
    if is_blank(&key.access_key) {
        checks.required(&name, &key.access_key);
    } else {
        checks.limit(&name, limits::access_key(&key.access_key));
    }
    checks.required(&format!("{path}.secret_key"), key.secret_key.expose());
    if key.security_token.as_ref().is_some_and(|token| is_blank(token.expose())) {
        checks.rule(&format!("{path}.security_token"), "is empty: set it, or leave it out");
    }
    check_rights(&format!("{path}.rights"), &key.rights, checks);
}

/// A user may be listed twice while the password is changed, but with the same rights, because tokens carry the rights.
fn check_user(project: &Project, path: &str, place: usize, user: &User, checks: &mut SettingChecks) {
    let path = format!("{path}.users[{place}]");
    checks.required(&format!("{path}.user"), &user.user);
    checks.required(&format!("{path}.password"), user.password.expose());
    let mut before = project.users.iter().take(place).filter(|other| other.is_same_user(user));
    if before.any(|other| other.rights != user.rights) {
        checks.value(&format!("{path}.user"), user.user.as_str(), "is listed twice with different rights");
    }
    check_rights(&format!("{path}.rights"), &user.rights, checks);
}

/// Rights allow something, and their patterns can match a queue's name.
fn check_rights(path: &str, rights: &Rights, checks: &mut SettingChecks) {
    let by_name = [("send", &rights.send), ("consume", &rights.consume), ("manage", &rights.manage)];
    if by_name.iter().all(|(_, patterns)| patterns.is_empty()) {
        checks.rule(path, "allows nothing: name queues in send, consume or manage, or leave it out for all rights");
    }
    for (right, patterns) in by_name {
        for (place, pattern) in patterns.iter().enumerate() {
            checks.limit(&format!("{path}.{right}[{place}]"), limits::queue_pattern(pattern));
        }
    }
}
