//! [`Accounts`]: the projects with their keys and users, as they are at one moment.

use std::{collections::HashSet, sync::Arc};

use crate::auth::{
    caller::{CallerName, Principal},
    keys::Keys,
    project::{Project, User},
    rights::Rights,
    secret::{GivenSecret, is_blank},
};
use dms_protocol::queue::ProjectId;

/// The projects and their callers.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// In the order of the configuration.
    pub(crate) projects: Vec<Project>,
    /// The keys of all of them.
    pub(crate) keys: Keys,
}

impl Accounts {
    /// The accounts of these projects.
    ///
    /// # Errors
    /// A sentence about the first project, key or user that contradicts another or itself.
    pub(crate) fn new(projects: Vec<Project>) -> Result<Self, String> {
        check_projects(&projects)?;
        projects.iter().try_for_each(check_users)?;
        Ok(Self { keys: Keys::new(&projects)?, projects })
    }

    /// Whether anybody is let in.
    pub(crate) fn is_open(&self) -> bool {
        !self.projects.iter().any(Project::has_auth)
    }

    /// The projects that have a user of this name, domain and password.
    pub(crate) fn projects_of(&self, name: &str, domain: &str, password: &str) -> Vec<&Project> {
        let password = GivenSecret::of(password);
        let known = |user: &User| {
            // No short cut: how long the answer takes must not say which part was right.
            let named = user.user == name && user.domain == domain;
            password.is(user.password.expose()) & named
        };
        self.projects.iter().filter(|project| project.users.iter().fold(false, |any, user| any | known(user))).collect()
    }

    /// A user with a token for this project, or for none. `None` when there is no such user in the project any more.
    pub(crate) fn user(&self, user: &str, domain: &str, project: Option<&ProjectId>) -> Option<Arc<Principal>> {
        let projects = match project {
            Some(project) => vec![(project.clone(), self.rights(user, domain, project)?)],
            None => Vec::new(),
        };
        let name = CallerName::User { user: user.to_owned(), domain: domain.to_owned() };
        Some(Arc::new(Principal { name, projects }))
    }

    /// The user of a token as this accounts has it. `None` when it is not in the project any more.
    pub(crate) fn user_again(&self, owner: &Principal) -> Option<Arc<Principal>> {
        match &owner.name {
            CallerName::User { user, domain } => {
                self.user(user, domain, owner.projects.first().map(|(project, _)| project))
            }
            CallerName::Key(_) => None,
        }
    }

    fn rights(&self, user: &str, domain: &str, project: &ProjectId) -> Option<Rights> {
        let project = self.projects.iter().find(|own| own.id == *project)?;
        project.users.iter().find(|own| own.user == user && own.domain == domain).map(|user| user.rights.clone())
    }

    /// This accounts with the keys and users of other projects in place of those of the same ids.
    ///
    /// # Errors
    /// As [`new`](Self::new), when a project with keys or users is not among the others (they would stay good unseen), and when the
    /// server would be open to anybody, or no longer open.
    pub(crate) fn with_callers_of(&self, others: &[Project]) -> Result<Self, String> {
        let is_there = |own: &&Project| others.iter().any(|other| other.id == own.id);
        if let Some(gone) = self.projects.iter().filter(|own| own.has_auth()).find(|own| !is_there(own)) {
            return Err(format!("the project {} is not among the projects any more: its end needs a restart", gone.id));
        }
        let replaced = |own: &Project| match others.iter().find(|other| other.id == own.id) {
            Some(other) => Project {
                access_keys: other.access_keys.clone(),
                users: other.users.clone(),
                signatures: other.signatures,
                ..own.clone()
            },
            None => own.clone(),
        };
        let accounts = Self::new(self.projects.iter().map(replaced).collect())?;
        match accounts.is_open() == self.is_open() {
            true => Ok(accounts),
            false => Err("the first keys and users, and the end of the last ones, need a restart".to_owned()),
        }
    }
}

fn check_projects(projects: &[Project]) -> Result<(), String> {
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    let guarded = projects.iter().any(Project::has_auth);
    for project in projects {
        let (id, name) = (&project.id, &project.name);
        if !is_project_id(id.as_str()) {
            return Err(format!("the project id {id:?} is not 1 to 64 of A-Z a-z 0-9 _ -"));
        }
        if !ids.insert(id) {
            return Err(format!("the project id {id} is there twice"));
        }
        if !names.insert(name) {
            return Err(format!("the project name {name} is there twice: tokens are asked for by name"));
        }
        if guarded && !project.has_auth() {
            return Err(format!("the project {id} has neither access keys nor users, but other projects have"));
        }
    }
    Ok(())
}

/// Nobody may log in with nothing, and a user has one set of rights: tokens carry them.
fn check_users(project: &Project) -> Result<(), String> {
    let id = &project.id;
    for (place, user) in project.users.iter().enumerate() {
        let name = &user.user;
        if is_blank(name) || is_blank(user.password.expose()) {
            return Err(format!("a user of the project {id}, {name:?}, or the password is empty"));
        }
        let mut before = project.users.iter().take(place).filter(|other| other.is_same_user(user));
        if before.any(|other| other.rights != user.rights) {
            return Err(format!("the user {name:?} of the project {id} is there twice with different rights"));
        }
    }
    Ok(())
}

/// Whether a text can be a project id.
pub(crate) fn is_project_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}
