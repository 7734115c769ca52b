//! [`Accounts`]: an immutable snapshot of the projects with their keys and users.

use std::sync::Arc;

use crate::auth::{
    caller::{CallerName, Principal},
    checks::check_projects,
    keys::Keys,
    last_use::LastUses,
    project::{Project, User},
    rights::Rights,
    secret::GivenSecret,
};
#[cfg(feature = "postgres")]
use dms_protocol::secret::Secret;
use dms_protocol::{internal::setting_checks::SettingChecks, queue::ProjectId, settings::InvalidSettings};

/// The projects with their keys and users.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// In the order of the configuration.
    pub(crate) projects: Vec<Project>,
    /// The access keys of all projects.
    pub(crate) keys: Keys,
    /// When each key and each user was let in last.
    uses: LastUses<CallerName>,
}

impl Accounts {
    /// The accounts of these projects.
    ///
    /// # Errors
    /// Names every project, key and user that is invalid or contradicts another one.
    pub(crate) fn new(projects: Vec<Project>) -> Result<Self, InvalidSettings> {
        Self::with_uses(projects, LastUses::default())
    }

    fn with_uses(projects: Vec<Project>, uses: LastUses<CallerName>) -> Result<Self, InvalidSettings> {
        let mut checks = SettingChecks::default();
        check_projects(&projects, &mut checks);
        checks.finish()?;
        Ok(Self { keys: Keys::new(&projects, &uses), projects, uses })
    }

    /// When a key or a user was let in last, in Unix milliseconds.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
    pub(crate) fn last_use_ms(&self, caller: &CallerName) -> Option<i64> {
        self.uses.of(caller).at_ms()
    }

    fn has(&self, caller: &CallerName) -> bool {
        self.projects.iter().any(|project| match caller {
            CallerName::Key(name) => project.access_keys.iter().any(|key| key.access_key == *name),
            CallerName::User { user, domain } => {
                project.users.iter().any(|known| known.user == *user && known.domain == *domain)
            }
        })
    }

    /// Whether the server is open: no project has keys or users.
    pub(crate) fn is_open(&self) -> bool {
        !self.projects.iter().any(Project::has_auth)
    }

    /// The projects that have a user of this name, domain and password.
    pub(crate) fn projects_of(&self, name: &str, domain: &str, password: &str) -> Vec<&Project> {
        let password = GivenSecret::of(password);
        let known = |user: &User| {
            // Every user is compared, so that the time of the answer does not show which part was wrong.
            let named = user.user == name && user.domain == domain;
            password.is(user.password.expose()) & named
        };
        self.projects.iter().filter(|project| project.users.iter().fold(false, |any, user| any | known(user))).collect()
    }

    /// The principal of a user with a token for `project`, or for no project. `None` if the project has no such user.
    pub(crate) fn user(&self, user: &str, domain: &str, project: Option<&ProjectId>) -> Option<Arc<Principal>> {
        let projects = match project {
            Some(project) => vec![(project.clone(), self.rights(user, domain, project)?)],
            None => Vec::new(),
        };
        let name = CallerName::User { user: user.to_owned(), domain: domain.to_owned() };
        Some(Arc::new(Principal { last_use: self.uses.of(&name), name, projects }))
    }

    /// The passwords of a user in `project`, or in any project, as one text. A user may have several while a password is changed, and
    /// the removal of one of them has to be noticed.
    #[cfg(feature = "postgres")]
    pub(crate) fn passwords(&self, user: &str, domain: &str, project: Option<&ProjectId>) -> Option<Secret> {
        let projects = self.projects.iter().filter(|own| project.is_none_or(|project| own.id == *project));
        let own = projects.flat_map(|own| &own.users).filter(|own| own.user == user && own.domain == domain);
        let passwords: Vec<&str> = own.map(|own| own.password.expose()).collect();
        (!passwords.is_empty()).then(|| Secret::from(passwords.join("\0")))
    }

    /// The current principal of the owner of a token. `None` if the user no longer exists in the project.
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

    /// Returns these accounts with the keys and users that `others` has for each project. All other settings of a project stay.
    ///
    /// # Errors
    /// As [`new`](Self::new). Also when a project with keys or users is missing in `others`, because its callers would stay
    /// valid unnoticed, and when the server would become open, or would no longer be open.
    pub(crate) fn with_callers_of(&self, others: &[Project]) -> Result<Self, InvalidSettings> {
        let refused = |problem: String| SettingChecks::one("projects", problem);
        let is_there = |own: &&Project| others.iter().any(|other| other.id == own.id);
        if let Some(gone) = self.projects.iter().filter(|own| own.has_auth()).find(|own| !is_there(own)) {
            return Err(refused(format!(
                "the project {} is missing: to remove a project with keys or users, restart the server",
                gone.id
            )));
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
        let accounts = Self::with_uses(self.projects.iter().map(replaced).collect(), self.uses.clone())?;
        match accounts.is_open() == self.is_open() {
            true => {
                accounts.uses.retain(|caller| accounts.has(caller));
                Ok(accounts)
            }
            false => {
                Err(refused("adding the first keys or users, or removing the last ones, needs a restart".to_owned()))
            }
        }
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_second_password_that_is_removed_is_noticed() {
        let passwords = |given: &[&str]| {
            let project = given.iter().fold(Project::new("p"), |project, password| project.user("u", *password, "d"));
            let accounts = Accounts::new(vec![project]).unwrap();
            accounts.passwords("u", "d", Some(&ProjectId::new("p"))).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(passwords(&["a"]).as_deref(), Some("a"));
        assert_ne!(passwords(&["a"]), passwords(&["a", "b"]));
        assert_ne!(passwords(&["b"]), passwords(&["a", "b"]));
        assert_eq!(passwords(&[]), None);
    }
}
