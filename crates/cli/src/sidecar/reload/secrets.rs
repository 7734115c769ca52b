//! The secrets that a sidecar uses, replaced while it runs.

use std::path::PathBuf;

use crate::{
    config::{Config, Secret},
    sidecar::{
        deliver::http::credentials::Credentials,
        running::{parts::Parts, publisher::PublisherKey},
    },
};
use dms_server::internal::bearer::{BearerAuth, BearerPair};

/// Whether the client may need other credentials. Where the configuration has none, they come from the embedded server or the
/// environment, which may have changed.
pub(super) fn needs_credentials(old: &Config, new: &Config) -> bool {
    old.dms.auth != new.dms.auth || new.dms.auth.is_none()
}

/// Replaces the headers and signing keys for the applications of workers that continue. Returns the names of the changed ones.
pub(super) fn renew_apps(parts: &Parts, old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    for worker in &new.workers {
        let before = old.workers.iter().find(|old| old.label() == worker.label());
        let before = before.and_then(|old| old.handler.http.as_ref());
        let (Some(old), Some(new)) = (before, &worker.handler.http) else { continue };
        if old.headers == new.headers && old.signature_key == new.signature_key {
            continue;
        }
        let running = parts.worker(&worker.label());
        if let Some(credentials) = running.as_ref().and_then(|running| running.credentials.as_ref()) {
            credentials.set(Credentials::of(new).behind(&credentials.get()));
            changed.push(format!("handler.http of {}", worker.label()));
        }
    }
    changed
}

/// Replaces the tokens of publishers that continue. Returns the changed keys.
pub(super) fn renew_publishers(parts: &Parts, old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    for (place, (publisher, key)) in new.publishers.iter().zip(PublisherKey::all(&new.publishers)).enumerate() {
        if let (Some(before), Some(running)) = (key.find(&old.publishers), parts.publisher(key))
            && before.token != publisher.token
            && running.guard.renew(publisher.token.as_ref().map(Secret::expose))
        {
            changed.push(format!("publishers[{place}].token"));
        }
    }
    changed
}

/// Replaces the tokens of the admin endpoint, and writes them into `old`. Setting the first token or removing it needs a restart.
/// Returns the changed keys.
pub(super) fn renew_admin(guards: &BearerPair, old: &mut Config, new: &Config) -> Vec<String> {
    let (old, new) = (&mut old.admin, &new.admin);
    let mut changed = Vec::new();
    if renew(&guards.token, (&mut old.token, &mut old.token_file), (&new.token, &new.token_file)) {
        changed.push("admin.token".to_owned());
    }
    let files = (&new.read_token, &new.read_token_file);
    if renew(&guards.read_token, (&mut old.read_token, &mut old.read_token_file), files) {
        changed.push("admin.read_token".to_owned());
    }
    changed
}

/// Replaces a token, and writes it and its file into the settings in use. Returns whether the token has changed.
fn renew(
    guard: &BearerAuth,
    (token, file): (&mut Option<Secret>, &mut Option<PathBuf>),
    (new, new_file): (&Option<Secret>, &Option<PathBuf>),
) -> bool {
    let is_other = token != new;
    if is_other && !guard.renew(new.as_ref().map(Secret::expose)) {
        return false;
    }
    token.clone_from(new);
    file.clone_from(new_file);
    is_other
}
