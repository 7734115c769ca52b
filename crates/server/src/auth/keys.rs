//! Access keys: whose signature a request carries.
//!
//! A signature is judged as the service's gateway did (API reference 3.2 and the signing guide): by the header list of
//! the request itself, and within 15 minutes. Unlike the gateway, which locked a key for everybody after five wrong
//! signatures, a right signature always passes: otherwise anybody who has seen the name of a key could lock its owner
//! out. Only wrong ones are answered with the gateway's text for a locked key.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use http::HeaderMap;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    auth::{
        caller::{CallerName, Principal},
        key_lock::{KeyLock, Strike},
        project::{AccessKey, Project, SignatureRules},
        replays::{ReplayTable, SignatureUse},
        secret::{same, same_secret},
        sender::Sender,
    },
    http::{codes, error::ApiError},
    log_limit::Warnings,
    metrics::ServerMetrics,
};
use dms_protocol::auth::{
    RequestParts,
    signer::{Authorization, DATE_HEADER, SECURITY_TOKEN_HEADER, SignatureError, signed_at},
};
use dms_protocol::secret::Secret;

/// The header that carries a token.
pub(crate) const TOKEN_HEADER: &str = "x-auth-token";
/// How much of the name of an unknown key is shown.
const SHOWN: usize = 40;

/// The access keys of all projects.
#[derive(Debug)]
pub(crate) struct Keys {
    known: HashMap<String, Arc<Key>>,
    /// The warnings about keys that are not known.
    strangers: Warnings,
}

/// An access key.
#[derive(Debug)]
struct Key {
    secret: Secret,
    security_token: Option<Secret>,
    principal: Arc<Principal>,
    rules: SignatureRules,
    lock: KeyLock,
    warnings: Warnings,
}

/// A request that says it is signed with a known key, at a time that is right.
#[derive(Debug)]
pub(crate) struct SignedClaim {
    key: Arc<Key>,
    authorization: Authorization,
}

/// Why a signature is refused.
#[derive(Debug)]
pub(crate) struct SignatureRefusal {
    /// A word for metrics.
    pub(crate) reason: &'static str,
    /// The answer.
    pub(crate) error: ApiError,
}

impl SignatureRefusal {
    /// Counts it, and gives the answer.
    pub(crate) fn count(self, metrics: &ServerMetrics) -> ApiError {
        metrics.refused_signature(self.reason);
        self.error
    }
}

impl Keys {
    /// The keys of all projects; one key may be good for several.
    ///
    /// # Errors
    /// A sentence about an empty key, one that is twice in a project, or one with two secrets.
    pub(crate) fn new(projects: &[Project]) -> Result<Self, String> {
        let mut keys: HashMap<String, Arc<Key>> = HashMap::new();
        for project in projects {
            for access in &project.access_keys {
                let name = &access.access_key;
                if access.has_a_blank() {
                    let id = &project.id;
                    return Err(format!(
                        "an access key of the project {id}, its secret or its security token is empty"
                    ));
                }
                let known = keys.get(name);
                if known.is_some_and(|key| !same(key.secret.expose(), access.secret_key.expose())) {
                    return Err(format!("the access key {name} is there twice with different secrets"));
                }
                if known.is_some_and(|key| key.principal.projects.iter().any(|(id, _)| *id == project.id)) {
                    return Err(format!("the access key {name} is there twice in the project {}", project.id));
                }
                if known.is_some_and(|key| !same_secret(key.security_token.as_ref(), access.security_token.as_ref())) {
                    return Err(format!("the access key {name} is there twice with different security tokens"));
                }
                let mut projects = known.map_or_else(Vec::new, |key| key.principal.projects.clone());
                projects.push((project.id.clone(), access.rights.clone()));
                let rules = known.map_or(project.signatures, |key| key.rules.and(project.signatures));
                let principal = Principal { name: CallerName::Key(name.clone()), projects };
                keys.insert(name.clone(), Arc::new(Key::new(access, principal, rules)));
            }
        }
        Ok(Self { known: keys, strangers: Warnings::default() })
    }

    /// Checks what the head alone tells of a request's signature: the key is known, the time is right.
    ///
    /// # Errors
    /// APIGW.0301 with the gateway's text for what is wrong.
    pub(crate) fn claim(
        &self,
        authorization: &str,
        sender: Sender<'_>,
        now: Timestamp,
    ) -> Result<SignedClaim, SignatureRefusal> {
        let authorization = Authorization::parse(authorization).map_err(|error| refused(&error))?;
        let Some(key) = self.known.get(&authorization.access_key) else {
            return Err(self.unknown(&authorization.access_key, sender.peer));
        };
        match key.check_head(&authorization, &sender.parts.headers, now) {
            Ok(()) => Ok(SignedClaim { key: Arc::clone(key), authorization }),
            Err(error) => Err(key.refuse(&authorization.access_key, sender.peer, &error)),
        }
    }

    fn unknown(&self, access_key: &str, peer: Option<IpAddr>) -> SignatureRefusal {
        let shown: String = access_key.chars().take(SHOWN).collect();
        if let Some(suppressed) = self.strangers.admit(Instant::now()) {
            let peer = peer.map(tracing::field::display);
            tracing::warn!(
                access_key = shown,
                peer,
                suppressed,
                "a signature was refused: there is no such access key"
            );
        }
        let text = format!("Get secretKey failed,ak:{shown},err:ak not exist");
        SignatureRefusal { reason: "unknown_key", error: codes::SIGNATURE.because(text) }
    }
}

impl SignedClaim {
    /// Checks the signature, which covers the body, and gives the key's owner.
    ///
    /// # Errors
    /// APIGW.0301 with the gateway's text for what is wrong.
    pub(crate) fn prove(
        &self,
        sender: Sender<'_>,
        body: &[u8],
        replays: &ReplayTable,
        now: Timestamp,
    ) -> Result<Arc<Principal>, SignatureRefusal> {
        let Self { key, authorization } = self;
        let parts = sender.parts;
        let request = RequestParts {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &parts.headers,
            body,
        };
        match authorization.verify_request(&key.secret, &request) {
            Ok(()) => {
                key.lock.clear(sender.peer);
                self.check_use(&parts.headers, replays, now)?;
                Ok(Arc::clone(&key.principal))
            }
            Err(error) => Err(key.refuse(&authorization.access_key, sender.peer, &error)),
        }
    }
}

impl SignedClaim {
    /// Refuses a right signature that was used before, where the key's rules say so. The answer asks for another try: two
    /// requests that are the same in all that is signed, in one second, have one signature.
    fn check_use(&self, headers: &HeaderMap, replays: &ReplayTable, now: Timestamp) -> Result<(), SignatureRefusal> {
        if !self.key.rules.reject_replays {
            return Ok(());
        }
        let made = signed_at(headers).map_err(|error| refused(&error))?;
        let text = match replays.record(&self.authorization.access_key, self.authorization.signature(), made, now) {
            SignatureUse::First => return Ok(()),
            SignatureUse::Again => "This signature was used before: sign every request anew, with another X-Sdk-Date.",
            SignatureUse::NoRoom => {
                "Too many requests were signed in the last 15 minutes to remember another signature."
            }
        };
        let access_key = &self.authorization.access_key;
        if let Some(suppressed) = self.key.warnings.admit(Instant::now()) {
            tracing::warn!(access_key, suppressed, text, "a right signature was refused");
        }
        Err(SignatureRefusal { reason: "replayed", error: codes::TOO_FREQUENT.because(text) })
    }
}

impl Key {
    fn new(access: &AccessKey, principal: Principal, rules: SignatureRules) -> Self {
        Self {
            secret: access.secret_key.clone(),
            security_token: access.security_token.clone(),
            principal: Arc::new(principal),
            rules,
            lock: KeyLock::default(),
            warnings: Warnings::default(),
        }
    }

    /// Refuses a signature. Clocks that are off and missing headers do not count towards the lock: they say nothing
    /// about the secret.
    fn refuse(&self, access_key: &str, peer: Option<IpAddr>, error: &SignatureError) -> SignatureRefusal {
        let now = Instant::now();
        let strike = match error {
            SignatureError::Mismatch(_) | SignatureError::BodyHash => Some(self.lock.strike(peer, now)),
            _ => None,
        };
        self.warn(access_key, peer, error, strike, now);
        match strike {
            Some(Strike::Locked) => SignatureRefusal {
                reason: "locked",
                error: codes::SIGNATURE.because("AK access failed to reach the limit,forbidden"),
            },
            _ => refused(error),
        }
    }

    fn warn(
        &self,
        access_key: &str,
        peer: Option<IpAddr>,
        error: &SignatureError,
        strike: Option<Strike>,
        now: Instant,
    ) {
        if matches!(strike, Some(Strike::Further | Strike::Locked)) {
            return;
        }
        let Some(suppressed) = self.warnings.admit(now) else { return };
        let peer = peer.map(tracing::field::display);
        match strike {
            Some(Strike::Locks) => tracing::warn!(
                access_key,
                peer,
                suppressed,
                "five wrong signatures in a row: further wrong ones with this key from this peer are answered as by a \
                 locked key for 5 minutes, right ones still pass; if the peer is a stranger, block it"
            ),
            // Its text has no secrets: the canonical request is not part of it.
            _ => tracing::warn!(
                access_key,
                peer,
                suppressed,
                %error,
                "a signature was refused: check the secret key and the clock of the peer"
            ),
        }
    }

    /// Checks what does not depend on the body.
    fn check_head(
        &self,
        authorization: &Authorization,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        if !authorization.signed_headers.iter().any(|name| name == DATE_HEADER) {
            return Err(SignatureError::Malformed("SignedHeaders does not have x-sdk-date"));
        }
        if self.rules.require_host && !authorization.signed_headers.iter().any(|name| name == "host") {
            return Err(SignatureError::Malformed("SignedHeaders does not have host"));
        }
        if !self.has_token_of(headers) {
            return Err(SignatureError::Malformed("X-Security-Token is not the one of this access key"));
        }
        authorization.check_date(headers, now)
    }

    /// Whether the request carries the token of temporary credentials, or none where the key has none.
    fn has_token_of(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(SECURITY_TOKEN_HEADER).map(|value| value.to_str().unwrap_or_default());
        match (&self.security_token, given) {
            (Some(own), Some(given)) => same(own.expose(), given),
            (None, None) => true,
            _ => false,
        }
    }
}

/// The gateway's answer to a request whose signature it did not accept.
fn refused(error: &SignatureError) -> SignatureRefusal {
    let (reason, text) = match error {
        SignatureError::Expired(_) => ("expired", format!("calc ak sk signature fail:{error}")),
        SignatureError::Mismatch(canonical) => {
            let shown = without_secrets(canonical);
            ("mismatch", format!("verify aksk signature fail, canonical request: {shown:?}"))
        }
        SignatureError::BodyHash => ("mismatch", format!("verify aksk signature fail: {error}")),
        _ => ("malformed", format!("verify aksk signature fail: {error}")),
    };
    SignatureRefusal { reason, error: codes::SIGNATURE.because(text) }
}

/// The canonical request less the tokens in it: callers write errors into their logs.
fn without_secrets(canonical: &str) -> String {
    let secret = |line: &&str| [SECURITY_TOKEN_HEADER, TOKEN_HEADER].iter().any(|name| line.starts_with(*name));
    let shown = |line| if secret(&line) { "(a token)" } else { line };
    canonical.lines().map(shown).collect::<Vec<_>>().join("\n")
}
