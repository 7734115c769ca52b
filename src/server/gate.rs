//! The gate: who a request comes from, by signature or by token.
//!
//! Where a request has both, the signature counts, because it covers the request and the token does not.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use http::{header, request::Parts};
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::{
    clock::Clock,
    codes,
    config::{Project, User},
    error::ApiError,
    keys::{Keys, SignedClaim, TOKEN_HEADER, same},
    logins::Logins,
    metrics::Metrics,
    tokens::Tokens,
    visitor::Visitor,
};
use crate::{auth::signer::ALGORITHM, queue::ProjectId};

/// Who a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Anybody: the server has no keys and no users.
    Anyone,
    /// Somebody who may use these projects.
    Of(Arc<[ProjectId]>),
}

impl Caller {
    /// Checks that the caller may use a project.
    ///
    /// # Errors
    /// DMS.10240104 when it is another's.
    pub(super) fn enter(&self, project: &str) -> Result<(), ApiError> {
        match self {
            Self::Anyone => Ok(()),
            Self::Of(projects) if projects.iter().any(|own| own.as_str() == project) => Ok(()),
            Self::Of(_) => Err(codes::PROJECT_MISMATCH.plain()),
        }
    }

    /// Whether the caller may see a project.
    pub(super) fn sees(&self, project: &ProjectId) -> bool {
        self.enter(project.as_str()).is_ok()
    }
}

/// Who a request says it comes from.
#[derive(Debug)]
pub(super) enum Claim<'a> {
    /// The head alone proves it.
    Proven(Caller),
    /// The signature does, together with the body.
    Signed(SignedClaim<'a>),
}

impl Claim<'_> {
    /// Finds out who the request comes from.
    ///
    /// # Errors
    /// 401 APIGW.0301 when the signature is wrong.
    pub(super) fn prove(self, sender: Sender<'_>, body: &[u8], metrics: &Metrics) -> Result<Caller, ApiError> {
        let caller = match self {
            Self::Proven(caller) => Ok(caller),
            Self::Signed(claim) => claim.prove(sender, body).map(Caller::Of).map_err(|refusal| refusal.count(metrics)),
        }?;
        if caller != Caller::Anyone {
            sender.has_authenticated();
        }
        Ok(caller)
    }
}

/// The head of a request, and the address that sent it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender<'a> {
    /// The head.
    pub(super) parts: &'a Parts,
    /// The address at the other end of the connection; `None` for callers in the same process.
    pub(super) peer: Option<IpAddr>,
    visitor: Option<&'a Visitor>,
}

impl<'a> Sender<'a> {
    /// The sender of a request on a connection; `None` for callers in the same process.
    pub(super) fn new(parts: &'a Parts, visitor: Option<&'a Visitor>) -> Self {
        Self { parts, peer: visitor.map(Visitor::peer), visitor }
    }

    /// Its credentials are right.
    fn has_authenticated(self) {
        if let Some(visitor) = self.visitor {
            visitor.has_authenticated();
        }
    }
}

/// Knows the projects, their keys, their users and the tokens given out.
#[derive(Debug)]
pub(crate) struct Gate {
    projects: Vec<Project>,
    keys: Keys,
    /// The tokens given out.
    pub(super) tokens: Tokens,
    /// The logins that were refused.
    pub(super) logins: Logins,
    clock: Clock,
    open: bool,
}

impl Gate {
    /// A gate for these projects.
    ///
    /// # Errors
    /// A sentence about the first project or key that contradicts another or itself.
    pub(super) fn new(projects: Vec<Project>, token_lifetime: Duration, clock: Clock) -> Result<Self, String> {
        check_projects(&projects)?;
        check_users(&projects)?;
        Ok(Self {
            keys: Keys::new(&projects)?,
            open: !projects.iter().any(Project::has_auth),
            tokens: Tokens::new(token_lifetime),
            logins: Logins::new(),
            projects,
            clock,
        })
    }

    /// Whether anybody is let in.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The projects, in the order of the configuration.
    pub(super) fn projects(&self) -> &[Project] {
        &self.projects
    }

    /// The wall clock.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The projects' users of this name, domain and password.
    pub(super) fn projects_of(&self, name: &str, domain: &str, password: &str) -> Vec<&Project> {
        let known = |user: &User| {
            // No short cut: how long the answer takes must not say which part was right.
            let named = user.user == name && user.domain == domain;
            same(user.password.expose_secret(), password) & named
        };
        self.projects.iter().filter(|project| project.users.iter().fold(false, |any, user| any | known(user))).collect()
    }

    /// Finds out from the head who a request says it comes from, before anything is spent on its body.
    ///
    /// # Errors
    /// 401 with the gateway's code for signatures (APIGW.0301) or the service's for tokens (DMS.10240101 to 103).
    pub(super) fn claim(&self, sender: Sender<'_>, metrics: &Metrics) -> Result<Claim<'_>, ApiError> {
        if self.open {
            return Ok(Claim::Proven(Caller::Anyone));
        }
        let parts = sender.parts;
        let authorization = parts.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let token = parts.headers.get(TOKEN_HEADER).map(|value| value.to_str().unwrap_or_default());
        let token = token.filter(|token| !token.is_empty());
        match (authorization, token) {
            (Some(text), _) if text.starts_with(ALGORITHM) => {
                let now = Timestamp::from_millisecond(self.clock.now_ms()).unwrap_or(Timestamp::UNIX_EPOCH);
                self.keys.claim(text, sender, now).map(Claim::Signed).map_err(|refusal| refusal.count(metrics))
            }
            (_, Some(token)) => {
                let project = self.tokens.project(token)?;
                Ok(Claim::Proven(Caller::Of(project.into_iter().collect())))
            }
            (Some(_), None) => Err(codes::SIGNATURE
                .because(format!("verify aksk signature fail: the Authorization header is not of {ALGORITHM}"))),
            (None, None) => Err(codes::TOKEN_MISSING.because("X-Auth-Token or a signature is required.")),
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

/// Nobody may log in with nothing.
fn check_users(projects: &[Project]) -> Result<(), String> {
    for project in projects {
        for user in &project.users {
            if is_blank(&user.user) || is_blank(user.password.expose_secret()) {
                return Err(format!("a user of the project {}, {:?}, or the password is empty", project.id, user.user));
            }
        }
    }
    Ok(())
}

/// Whether a text is no credential: there is nothing in it.
pub(super) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Whether a text can be a project id.
pub(super) fn is_project_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}
