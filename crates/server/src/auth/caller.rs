//! [`Caller`]: who sent a request, and what that caller may do.

use std::{fmt, sync::Arc};

use crate::{
    auth::{
        last_use::LastUse,
        rights::{Right, Rights},
    },
    http::{codes, error::ApiError},
};
use dms_protocol::queue::ProjectId;

/// The sender of a request.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Any caller, because the server has no keys and no users.
    Anyone,
    /// A caller with valid credentials.
    Known(Arc<Principal>),
}

/// The owner of credentials.
#[derive(Debug)]
pub(crate) struct Principal {
    /// Its access key or user.
    pub(crate) name: CallerName,
    /// Its rights in each of its projects.
    pub(crate) projects: Vec<(ProjectId, Rights)>,
    /// When it was let in last.
    pub(crate) last_use: LastUse,
}

/// The name of a caller in logs and refusals.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CallerName {
    /// An access key.
    Key(String),
    /// A user of a domain.
    User {
        /// The user.
        user: String,
        /// The domain.
        domain: String,
    },
}

impl CallerName {
    /// The access key, or the user and the domain, as fields of a log line.
    pub(crate) fn parts(&self) -> (Option<&str>, Option<&str>, Option<&str>) {
        match self {
            Self::Key(key) => (Some(key), None, None),
            Self::User { user, domain } => (None, Some(user), Some(domain)),
        }
    }
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "the access key {key:?}"),
            Self::User { user, domain } => write!(f, "the user {user:?} of the domain {domain:?}"),
        }
    }
}

impl Caller {
    /// Checks that the caller may use a project.
    ///
    /// # Errors
    /// DMS.10240104 when the credentials are for other projects.
    pub(crate) fn enter(&self, project: &str) -> Result<(), ApiError> {
        match self {
            Self::Anyone => Ok(()),
            Self::Known(principal) if principal.rights(project).is_some() => Ok(()),
            Self::Known(_) => Err(codes::PROJECT_MISMATCH.plain()),
        }
    }

    /// The project of a request that names none: the first one of the credentials, or `default` for a caller without any.
    ///
    /// # Errors
    /// DMS.10240104 when the credentials are for no project.
    pub(crate) fn home<'a>(&'a self, default: &'a ProjectId) -> Result<&'a ProjectId, ApiError> {
        match self {
            Self::Anyone => Ok(default),
            Self::Known(principal) => {
                let first = principal.projects.first().map(|(project, _)| project);
                first.ok_or_else(|| codes::PROJECT_MISMATCH.plain())
            }
        }
    }

    /// Whether the caller may see a project.
    pub(crate) fn sees(&self, project: &ProjectId) -> bool {
        self.enter(project.as_str()).is_ok()
    }

    /// Whether the caller may see a queue of this name.
    pub(crate) fn sees_queue(&self, project: &str, queue: &str) -> bool {
        self.limits(project).is_none_or(|limits| limits.rights.show(queue))
    }

    /// The rights of the caller in a project; `None` if the caller has all rights.
    pub(crate) fn limits(&self, project: &str) -> Option<LimitedRights<'_>> {
        let Self::Known(principal) = self else { return None };
        let rights = principal.rights(project)?;
        (!rights.are_all()).then_some(LimitedRights { name: &principal.name, rights })
    }

    /// Checks that the caller has a right on the queue of this name.
    ///
    /// # Errors
    /// DMS.10240311 with the caller, the right and the queue.
    pub(crate) fn may(&self, right: Right, project: &str, queue: &str) -> Result<(), ApiError> {
        self.limits(project).map_or(Ok(()), |limits| limits.check(right, queue))
    }
}

impl Principal {
    fn rights(&self, project: &str) -> Option<&Rights> {
        self.projects.iter().find(|(own, _)| own.as_str() == project).map(|(_, rights)| rights)
    }
}

/// The rights of a caller that does not have all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitedRights<'a> {
    name: &'a CallerName,
    /// The rights.
    pub(crate) rights: &'a Rights,
}

impl LimitedRights<'_> {
    /// Checks for a right on a queue of this name.
    ///
    /// # Errors
    /// As [`Caller::may`].
    pub(crate) fn check(self, right: Right, queue: &str) -> Result<(), ApiError> {
        match self.rights.allow(right, queue) {
            true => Ok(()),
            false => Err(self.refusal(format_args!("the right {:?} on the queue {queue:?}", right.to_string()))),
        }
    }

    /// Checks for any right on a queue of this name.
    ///
    /// # Errors
    /// As [`Caller::may`].
    pub(crate) fn check_sight(self, queue: &str) -> Result<(), ApiError> {
        match self.rights.show(queue) {
            true => Ok(()),
            false => Err(self.refusal(format_args!("any right on the queue {queue:?}"))),
        }
    }

    /// Checks for a right on at least one queue.
    ///
    /// # Errors
    /// As [`Caller::may`].
    pub(crate) fn check_any(self, right: Right) -> Result<(), ApiError> {
        match self.rights.allow_somewhere(right) {
            true => Ok(()),
            false => Err(self.refusal(format_args!("the right {:?} on any queue", right.to_string()))),
        }
    }

    /// The refusal of a caller that lacks `lacks`.
    fn refusal(self, lacks: impl fmt::Display) -> ApiError {
        codes::NO_RIGHT.because(format!("{} does not have {lacks}", sentence(self.name)))
    }
}

/// A name at the beginning of a sentence.
fn sentence(name: &CallerName) -> String {
    name.to_string().replacen("the", "The", 1)
}
