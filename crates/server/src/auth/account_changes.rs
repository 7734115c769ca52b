//! The differences of keys and users between two configurations.

use std::collections::BTreeMap;

use crate::auth::{
    caller::CallerName,
    project::{AccessKey, Project, User},
    secret::same_secret,
};
use dms_protocol::queue::ProjectId;

/// A key or a user of a project that was added, changed or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccountChange {
    /// The project.
    pub(crate) project: ProjectId,
    /// The key or the user.
    pub(crate) name: CallerName,
    /// The kind of change.
    pub(crate) kind: ChangeKind,
    /// Whether tokens that were issued before are invalid now, because the password changed or the user was removed.
    pub(crate) ends_tokens: bool,
}

/// The kind of change of a key or a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// It was added.
    Added,
    /// Its secret or its rights changed.
    Changed,
    /// It was removed.
    Removed,
}

/// The entries of a key or a user. A user may have several passwords.
#[derive(Default)]
struct Entries<'a> {
    keys: Vec<&'a AccessKey>,
    users: Vec<&'a User>,
}

/// The differences between the accounts of two lists of projects.
pub(crate) fn changes(old: &[Project], new: &[Project]) -> Vec<AccountChange> {
    let (old, new) = (entries(old), entries(new));
    let change = |(project, name): &(&ProjectId, CallerName), kind, ends_tokens| {
        Some(AccountChange { project: (*project).clone(), name: name.clone(), kind, ends_tokens })
    };
    let gone =
        old.iter().filter(|(id, _)| !new.contains_key(*id)).filter_map(|(id, _)| change(id, ChangeKind::Removed, true));
    let others = new.iter().filter_map(|(id, entries)| match old.get(id) {
        None => change(id, ChangeKind::Added, false),
        Some(before) if before.are(entries) => None,
        Some(before) => change(id, ChangeKind::Changed, !before.have_passwords_of(entries)),
    });
    gone.chain(others).collect()
}

fn entries(projects: &[Project]) -> BTreeMap<(&ProjectId, CallerName), Entries<'_>> {
    let mut found: BTreeMap<_, Entries<'_>> = BTreeMap::new();
    for project in projects {
        for key in &project.access_keys {
            let name = CallerName::Key(key.access_key.clone());
            found.entry((&project.id, name)).or_default().keys.push(key);
        }
        for user in &project.users {
            let name = CallerName::User { user: user.user.clone(), domain: user.domain.clone() };
            found.entry((&project.id, name)).or_default().users.push(user);
        }
    }
    found
}

impl Entries<'_> {
    fn are(&self, others: &Self) -> bool {
        let same_keys = self.keys.len() == others.keys.len()
            && self.keys.iter().zip(&others.keys).all(|(one, other)| {
                same_secret(Some(&one.secret_key), Some(&other.secret_key))
                    && same_secret(one.security_token.as_ref(), other.security_token.as_ref())
                    && one.rights == other.rights
            });
        let same_rights = self.users.iter().zip(&others.users).all(|(one, other)| one.rights == other.rights);
        same_keys && same_rights && self.have_passwords_of(others)
    }

    fn have_passwords_of(&self, others: &Self) -> bool {
        let pairs = || self.users.iter().zip(&others.users);
        self.users.len() == others.users.len()
            && pairs().all(|(one, other)| same_secret(Some(&one.password), Some(&other.password)))
    }
}
