//! [`Keys`]: access keys, and the check of signatures.
//!
//! A signature is checked as the gateway of the service did (API reference 3.2 and the signing guide): with the header list of
//! the request itself, and valid for 15 minutes. The gateway locked a key for everybody after five wrong signatures. Here a
//! correct signature always passes, because otherwise anybody who knows the name of a key could lock out its owner. Only wrong
//! signatures get the text of a locked key.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use http::HeaderMap;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    auth::{
        caller::{CallerName, Principal},
        key_lock::{KeyLock, Strike},
        last_use::LastUses,
        project::{AccessKey, Project, SignatureRules},
        replays::{ReplayTable, SignatureUse},
        secret::same,
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
/// How many characters of an unknown key are shown.
const MAX_SHOWN: usize = 40;

/// The access keys of all projects.
#[derive(Debug)]
pub(crate) struct Keys {
    known: HashMap<String, Arc<Key>>,
    /// Bounds the warnings about unknown keys.
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

/// A request that names a known key and a valid time. Its signature is not checked yet.
#[derive(Debug)]
pub(crate) struct SignedClaim {
    key: Arc<Key>,
    authorization: Authorization,
}

/// Why a signature is refused.
#[derive(Debug)]
pub(crate) struct SignatureRefusal {
    /// The label in metrics.
    pub(crate) reason: &'static str,
    /// The answer.
    pub(crate) error: ApiError,
}

impl SignatureRefusal {
    /// Counts the refusal and returns the answer.
    pub(crate) fn count(self, metrics: &ServerMetrics) -> ApiError {
        metrics.refused_signature(self.reason);
        self.error
    }
}

impl Keys {
    /// The keys of all projects, which were checked. One key may belong to several projects.
    pub(crate) fn new(projects: &[Project], uses: &LastUses<CallerName>) -> Self {
        let mut keys: HashMap<String, Arc<Key>> = HashMap::new();
        for project in projects {
            for access in &project.access_keys {
                let name = &access.access_key;
                let known = keys.get(name);
                let mut projects = known.map_or_else(Vec::new, |key| key.principal.projects.clone());
                projects.push((project.id.clone(), access.rights.clone()));
                let rules = known.map_or(project.signatures, |key| key.rules.and(project.signatures));
                let name_of = CallerName::Key(name.clone());
                let principal = Principal { last_use: uses.of(&name_of), name: name_of, projects };
                keys.insert(name.clone(), Arc::new(Key::new(access, principal, rules)));
            }
        }
        Self { known: keys, strangers: Warnings::default() }
    }

    /// Checks the parts of a signature that the head shows: the key is known and the time is valid.
    ///
    /// # Errors
    /// APIGW.0301 with the text of the gateway.
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

    /// The keys whose wrong signatures get the answer of a locked key now, each with the peer and the time that is left.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows it"))]
    pub(crate) fn locked(&self, now: Instant) -> Vec<(&str, Option<IpAddr>, Duration)> {
        let mut locked = Vec::new();
        for (name, key) in &self.known {
            locked.extend(key.lock.locked(now).into_iter().map(|(peer, left)| (name.as_str(), peer, left)));
        }
        locked.sort_unstable();
        locked
    }

    /// Ends the lock of a key for a peer. Returns whether there was one.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard does it"))]
    pub(crate) fn unlock(&self, access_key: &str, peer: Option<IpAddr>) -> bool {
        let Some(key) = self.known.get(access_key) else { return false };
        let was_locked = key.lock.locked(Instant::now()).iter().any(|(locked, _)| *locked == peer);
        key.lock.clear(peer);
        was_locked
    }

    fn unknown(&self, access_key: &str, peer: Option<IpAddr>) -> SignatureRefusal {
        let shown: String = access_key.chars().take(MAX_SHOWN).collect();
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
    /// Checks the signature, which covers the body, and returns the owner of the key.
    ///
    /// # Errors
    /// APIGW.0301 with the text that the gateway has for the fault.
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
    /// Refuses a correct signature that was used before, if the rules of the key say so. The answer asks the client to try
    /// again, because two requests with the same signed parts within one second have the same signature.
    fn check_use(&self, headers: &HeaderMap, replays: &ReplayTable, now: Timestamp) -> Result<(), SignatureRefusal> {
        if !self.key.rules.reject_replays {
            return Ok(());
        }
        let made = signed_at(headers).map_err(|error| refused(&error))?;
        let made = Timestamp::try_from(made).map_err(|_| refused(&SignatureError::BadDate))?;
        let text = match replays.record(&self.authorization.access_key, self.authorization.signature(), made, now) {
            SignatureUse::First => return Ok(()),
            SignatureUse::Again => "This signature was used before: sign every request again, with another X-Sdk-Date.",
            SignatureUse::NoRoom => {
                "Too many requests were signed in the last 15 minutes to remember another signature."
            }
        };
        let access_key = &self.authorization.access_key;
        if let Some(suppressed) = self.key.warnings.admit(Instant::now()) {
            tracing::warn!(access_key, suppressed, text, "a correct signature was refused");
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

    /// Refuses a signature. A wrong clock and missing headers do not count towards the lock, because they do not show that the
    /// secret is wrong.
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
                "five wrong signatures in a row: for 5 minutes, further wrong ones with this key from this peer get the \
                 answer of a locked key; correct ones still pass; if the peer is a stranger, block it"
            ),
            // The text contains no secret, because it does not include the canonical request.
            _ => tracing::warn!(
                access_key,
                peer,
                suppressed,
                %error,
                "a signature was refused: check the secret key and the clock of the peer"
            ),
        }
    }

    /// Checks the parts of a signature that do not depend on the body.
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
        authorization.check_date(headers, now.into())
    }

    /// Whether the request has the security token of the key, or none if the key has none.
    fn has_token_of(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(SECURITY_TOKEN_HEADER).map(|value| value.to_str().unwrap_or_default());
        match (&self.security_token, given) {
            (Some(own), Some(given)) => same(own.expose(), given),
            (None, None) => true,
            _ => false,
        }
    }
}

/// The answer of the gateway to a refused signature.
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

/// The canonical request without its tokens, because callers write errors into their logs.
fn without_secrets(canonical: &str) -> String {
    let secret = |line: &&str| [SECURITY_TOKEN_HEADER, TOKEN_HEADER].iter().any(|name| line.starts_with(*name));
    let shown = |line| if secret(&line) { "(a token)" } else { line };
    canonical.lines().map(shown).collect::<Vec<_>>().join("\n")
}
