//! Rules of `dms`.

use crate::config::{
    check::checker::{Checker, is_http_address},
    schema::{
        config::Config,
        dms::{Auth, Content, Dialect, Iam},
    },
    source::path::KeyPath,
};
use dms_protocol::limits;

/// The service, the project and the credentials.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("dms");
    let dms = &config.dms;
    if !dms.is_embedded() && !is_http_address(&dms.endpoint) {
        let message = format!(
            "`{}` is not allowed: write `embedded`, or an address like https://dms.example.com or http://127.0.0.1:9400",
            dms.endpoint
        );
        checker.report(&path.child("endpoint"), message);
    }
    checker.above_zero(&path.child("connect_timeout"), dms.connect_timeout);
    if dms.dialect == Dialect::Dms && dms.content != Content::default() {
        checker.report(&path.child("content"), "is for ROMA Connect MQS: leave it out, or set dms.dialect to mqs");
    }
    if dms.insecure_skip_verify && dms.ca_file.is_some() {
        let message = "`true` makes ca_file useless, because every certificate is accepted: keep one of the two";
        checker.report(&path.child("insecure_skip_verify"), message);
    }
    if let Some(file) = &dms.ca_file {
        checker.readable(&path.child("ca_file"), file);
    }
    if dms.project_id.trim().is_empty() || dms.project_id.contains('/') {
        checker.report(&path.child("project_id"), format!("`{}` is not a project id", dms.project_id));
    }
    let ours = || std::iter::once(&config.server.project_id).chain(config.server.projects.iter().map(|p| &p.id));
    let used = config.has_work();
    if used && dms.is_embedded() && !ours().any(|id| *id == dms.project_id) {
        let known: Vec<_> = ours().map(String::as_str).collect();
        let message =
            format!("the embedded server has no project `{}`: its projects are {}", dms.project_id, known.join(", "));
        checker.report(&path.child("project_id"), message);
    }
    if let Some(auth) = &dms.auth {
        check_auth(auth, checker);
    }
}

fn check_auth(auth: &Auth, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("dms.auth");
    let signing = auth.access_key.is_some() || auth.secret_key.is_some() || auth.security_token.is_some();
    let token = auth.token.is_some() || auth.token_file.is_some();
    match [signing, token, auth.iam.is_some()].into_iter().filter(|set| *set).count() {
        0 => checker
            .report(&path, "has no credentials: set access_key and secret_key, or token, or iam; or leave it out"),
        1 => {}
        _ => checker.report(&path, "has several kinds of credentials: keep one of access_key, token and iam"),
    }
    if signing && auth.access_key.as_ref().is_none_or(|key| key.trim().is_empty()) {
        let path = path.child("access_key");
        let message = match auth.access_key {
            Some(_) => checker.blank(&path),
            None => "is required beside secret_key, and missing",
        };
        checker.report(&path, message);
    }
    if let Some(key) = auth.access_key.as_ref().filter(|key| !key.trim().is_empty()) {
        checker.limit(&path.child("access_key"), limits::access_key(key));
    }
    if auth.access_key.is_some() && auth.secret_key.is_none() && auth.secret_key_file.is_none() {
        checker.report(&path.child("secret_key"), "is missing: set secret_key or secret_key_file");
    }
    if let Some(iam) = &auth.iam {
        check_iam(&path.child("iam"), iam, checker);
    }
}

fn check_iam(path: &KeyPath, iam: &Iam, checker: &mut Checker<'_>) {
    checker.require(path, "endpoint", iam.endpoint.expose());
    checker.require(path, "user", &iam.user);
    checker.require(path, "domain", &iam.domain);
    if !iam.endpoint.is_empty() {
        checker.http_address(&path.child("endpoint"), &iam.endpoint);
    }
    if iam.password.is_none() && iam.password_file.is_none() {
        checker.report(&path.child("password"), "is missing: set password or password_file");
    }
}
