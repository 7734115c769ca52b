//! Access keys: whose signature a request carries, and the lock on keys that are guessed at.
//!
//! A signature is judged as the service's gateway did (API reference 3.2 and the signing guide): by the header list of
//! the request itself, within 15 minutes, and after five bad ones in a row the key is locked for five minutes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, request::Parts};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use tokio::time::Instant;

use super::{codes, config::Project, error::ApiError};
use crate::{
    auth::{
        RequestParts,
        signer::{Authorization, DATE_HEADER, SECURITY_TOKEN_HEADER, SignatureError},
    },
    queue::ProjectId,
};

/// The header that carries a token.
pub(super) const TOKEN_HEADER: &str = "x-auth-token";
/// Bad signatures in a row that lock a key.
const STRIKES: u32 = 5;
/// How long a key stays locked.
const LOCKED: Duration = Duration::from_secs(5 * 60);

/// The access keys of all projects.
#[derive(Debug)]
pub(super) struct Keys(HashMap<String, Key>);

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

impl Keys {
    /// The keys of all projects; one key may be good for several.
    ///
    /// # Errors
    /// A sentence about an empty key, or one with two secrets.
    pub(super) fn new(projects: &[Project]) -> Result<Self, String> {
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
        Ok(Self(keys))
    }

    /// Checks a request's `Authorization` header and gives the projects that its key is good for.
    ///
    /// # Errors
    /// APIGW.0301 with the gateway's text for what is wrong.
    pub(super) fn check(
        &self,
        authorization: &str,
        parts: &Parts,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Arc<[ProjectId]>, ApiError> {
        let authorization = Authorization::parse(authorization).map_err(|error| refused(&error))?;
        let Some(key) = self.0.get(&authorization.access_key) else {
            let shown: String = authorization.access_key.chars().take(40).collect();
            return Err(codes::SIGNATURE.because(format!("Get secretKey failed,ak:{shown},err:ak not exist")));
        };
        key.check_lock()?;
        let verdict = key.verify(&authorization, parts, body, now);
        key.note(&verdict);
        verdict.map_err(|error| refused(&error))?;
        Ok(Arc::clone(&key.projects))
    }
}

impl Key {
    /// Whether the key is locked; a lock that is over is taken away.
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

    fn verify(
        &self,
        authorization: &Authorization,
        parts: &Parts,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        if !authorization.signed_headers.iter().any(|name| name == DATE_HEADER) {
            return Err(SignatureError::Malformed("SignedHeaders does not have x-sdk-date"));
        }
        if !self.has_token_of(&parts.headers) {
            return Err(SignatureError::Malformed("X-Security-Token is not the one of this access key"));
        }
        let request = RequestParts {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &parts.headers,
            body,
        };
        authorization.verify(&self.secret, &request, now)
    }

    /// Whether the request carries the token of temporary credentials, or none where the key has none.
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
        SignatureError::Mismatch(canonical) => {
            format!("verify aksk signature fail, canonical request: {:?}", without_secrets(canonical))
        }
        _ => format!("verify aksk signature fail: {error}"),
    })
}

/// The canonical request less the tokens in it: callers write errors into their logs.
fn without_secrets(canonical: &str) -> String {
    let secret = |line: &&str| [SECURITY_TOKEN_HEADER, TOKEN_HEADER].iter().any(|name| line.starts_with(*name));
    let shown = |line| if secret(&line) { "(a token)" } else { line };
    canonical.lines().map(shown).collect::<Vec<_>>().join("\n")
}

/// Whether two secrets are equal, in a time that does not depend on where they differ.
pub(super) fn same(left: &str, right: &str) -> bool {
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
