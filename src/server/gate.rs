//! The gate: who a request comes from, by signature or by token.
//!
//! A signature is judged as the service's gateway did (API reference 3.2 and the signing guide): by the header list of
//! the request itself, within 15 minutes, and after five bad ones in a row the key is locked for five minutes. Where a
//! request has both a signature and a token, the signature counts, because it covers the request and the token does not.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, header, request::Parts};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use tokio::time::Instant;

use super::{
    clock::Clock,
    codes,
    config::{Project, User},
    error::ApiError,
    tokens::Tokens,
};
use crate::{
    auth::{
        RequestParts,
        signer::{ALGORITHM, Authorization, DATE_HEADER, SECURITY_TOKEN_HEADER, SignatureError},
    },
    queue::ProjectId,
};

/// The header that carries a token.
pub(super) const TOKEN_HEADER: &str = "x-auth-token";
/// Bad signatures in a row that lock a key.
const STRIKES: u32 = 5;
/// How long a key stays locked.
const LOCKED: Duration = Duration::from_secs(5 * 60);

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

/// Knows the projects, their keys, their users and the tokens given out.
#[derive(Debug)]
pub(crate) struct Gate {
    projects: Vec<Project>,
    keys: HashMap<String, Key>,
    /// The tokens given out.
    pub(super) tokens: Tokens,
    clock: Clock,
    open: bool,
}

/// An access key.
#[derive(Debug)]
struct Key {
    secret: SecretString,
    security_token: Option<SecretString>,
    projects: Arc<[ProjectId]>,
    record: Mutex<Record>,
}

/// The latest signatures made with a key.
#[derive(Debug, Default)]
struct Record {
    strikes: u32,
    locked_until: Option<Instant>,
}

impl Gate {
    /// A gate for these projects.
    ///
    /// # Errors
    /// A sentence about the first project or key that contradicts another or itself.
    pub(super) fn new(projects: Vec<Project>, token_lifetime: Duration, clock: Clock) -> Result<Self, String> {
        check_projects(&projects)?;
        Ok(Self {
            keys: keys(&projects)?,
            open: !projects.iter().any(Project::has_auth),
            tokens: Tokens::new(token_lifetime),
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

    /// Finds out who a request comes from.
    ///
    /// # Errors
    /// 401 with the gateway's code for signatures (APIGW.0301) or the service's for tokens (DMS.10240101 to 103).
    pub(super) fn identify(&self, parts: &Parts, body: &[u8]) -> Result<Caller, ApiError> {
        if self.open {
            return Ok(Caller::Anyone);
        }
        let authorization = parts.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let token = parts.headers.get(TOKEN_HEADER).map(|value| value.to_str().unwrap_or_default());
        match (authorization, token) {
            (Some(text), _) if text.starts_with(ALGORITHM) => self.signed(text, parts, body),
            (_, Some(token)) => self.tokens.project(token).map(|project| Caller::Of([project].into())),
            (Some(_), None) => Err(codes::SIGNATURE
                .because(format!("verify aksk signature fail: the Authorization header is not of {ALGORITHM}"))),
            (None, None) => Err(codes::TOKEN_MISSING.because("X-Auth-Token or a signature is required.")),
        }
    }

    fn signed(&self, authorization: &str, parts: &Parts, body: &[u8]) -> Result<Caller, ApiError> {
        let authorization = Authorization::parse(authorization).map_err(|error| refused(&error))?;
        let Some(key) = self.keys.get(&authorization.access_key) else {
            let shown: String = authorization.access_key.chars().take(40).collect();
            return Err(codes::SIGNATURE.because(format!("Get secretKey failed,ak:{shown},err:ak not exist")));
        };
        key.check_lock()?;
        let verdict = self.verify(&authorization, key, parts, body);
        key.note(&verdict);
        verdict.map_err(|error| refused(&error))?;
        Ok(Caller::Of(Arc::clone(&key.projects)))
    }

    fn verify(
        &self,
        authorization: &Authorization,
        key: &Key,
        parts: &Parts,
        body: &[u8],
    ) -> Result<(), SignatureError> {
        if !authorization.signed_headers.iter().any(|name| name == DATE_HEADER) {
            return Err(SignatureError::Malformed("SignedHeaders does not have x-sdk-date"));
        }
        if !key.has_token_of(&parts.headers) {
            return Err(SignatureError::Malformed("X-Security-Token is not the one of this access key"));
        }
        let request = RequestParts {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &parts.headers,
            body,
        };
        let now = Timestamp::from_millisecond(self.clock.now_ms()).unwrap_or(Timestamp::UNIX_EPOCH);
        authorization.verify(&key.secret, &request, now)
    }
}

impl Key {
    fn check_lock(&self) -> Result<(), ApiError> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        match record.locked_until {
            Some(until) if Instant::now() < until => {
                Err(codes::SIGNATURE.because("AK access failed to reach the limit,forbidden"))
            }
            Some(_) => {
                *record = Record::default();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Counts a wrong signature; a right one wipes the slate. Clocks that are off and missing headers do not count: they
    /// say nothing about the secret.
    fn note(&self, verdict: &Result<(), SignatureError>) {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict {
            Ok(()) => record.strikes = 0,
            Err(SignatureError::Mismatch(_) | SignatureError::BodyHash) => {
                record.strikes += 1;
                if record.strikes >= STRIKES {
                    record.locked_until = Some(Instant::now() + LOCKED);
                }
            }
            Err(_) => {}
        }
    }

    fn has_token_of(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(SECURITY_TOKEN_HEADER).map(|value| value.to_str().unwrap_or_default());
        match (&self.security_token, given) {
            (Some(own), Some(given)) => same(own.expose_secret(), given),
            (None, None) => true,
            _ => false,
        }
    }
}

/// The gateway's answer to a request whose signature it did not accept.
fn refused(error: &SignatureError) -> ApiError {
    codes::SIGNATURE.because(match error {
        SignatureError::Expired(_) => format!("calc ak sk signature fail:{error}"),
        // The canonical request holds headers and a body hash of the caller: it goes nowhere else.
        SignatureError::Mismatch(canonical) => format!("verify aksk signature fail, canonical request: {canonical:?}"),
        _ => format!("verify aksk signature fail: {error}"),
    })
}

/// Whether two secrets are equal, in a time that does not depend on where they differ.
fn same(left: &str, right: &str) -> bool {
    let mac = |text: &str| {
        <Hmac<Sha256> as KeyInit>::new_from_slice(b"compare").map(|mut mac| {
            mac.update(text.as_bytes());
            mac
        })
    };
    match (mac(left), mac(right)) {
        (Ok(left), Ok(right)) => left.verify(&right.finalize().into_bytes()).is_ok(),
        _ => false,
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

/// Whether a text can be a project id.
pub(super) fn is_project_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}

fn keys(projects: &[Project]) -> Result<HashMap<String, Key>, String> {
    let mut keys: HashMap<String, Key> = HashMap::new();
    for project in projects {
        for access in &project.access_keys {
            let name = &access.access_key;
            if name.is_empty() || access.secret_key.expose_secret().is_empty() {
                return Err(format!("an access key of the project {} or its secret is empty", project.id));
            }
            let known = keys.get(name);
            if known.is_some_and(|key| !same(key.secret.expose_secret(), access.secret_key.expose_secret())) {
                return Err(format!("the access key {name} is there twice with different secrets"));
            }
            let mut shared = known.map_or_else(Vec::new, |key| key.projects.to_vec());
            shared.push(project.id.clone());
            let key = Key {
                secret: access.secret_key.clone(),
                security_token: access.security_token.clone(),
                projects: shared.into(),
                record: Mutex::default(),
            };
            keys.insert(name.clone(), key);
        }
    }
    Ok(keys)
}
