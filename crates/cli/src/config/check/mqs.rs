//! Rules of `dms.dialect: mqs`: what ROMA Connect MQS cannot do is refused, with the alternative.

use crate::config::{
    check::checker::Checker,
    schema::{config::Config, dms::ApiVersion, worker::Worker},
    source::path::KeyPath,
};

/// The service, its credentials, and the parts that need attributes of messages.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let (path, dms) = (KeyPath::dotted("dms"), &config.dms);
    if dms.is_embedded() {
        let message = "`mqs` needs the address of a service in dms.endpoint: the embedded server is used with `dms`";
        checker.report(&path.child("dialect"), message);
    }
    if dms.api_version == ApiVersion::V1 {
        checker.report(&path.child("api_version"), "ROMA Connect MQS has one version: leave it out");
    }
    if let Some(auth) = &dms.auth {
        let tokens = [
            ("token", auth.token.is_some()),
            ("token_file", auth.token_file.is_some()),
            ("security_token", auth.security_token.is_some()),
            ("security_token_file", auth.security_token_file.is_some()),
            ("iam", auth.iam.is_some()),
        ];
        for (key, _) in tokens.into_iter().filter(|(_, is_set)| *is_set) {
            let message =
                "ROMA Connect MQS knows no tokens: set its SASL user as access_key and the password as secret_key";
            checker.report(&path.child("auth").child(key), message);
        }
    }
    if !config.outboxes.is_empty() {
        let message = "need attributes of messages, which ROMA Connect MQS does not have: use the DMS API";
        checker.report(&KeyPath::dotted("outboxes"), message);
    }
}

/// The settings of a worker that the library does not know by these names.
pub(super) fn check_worker(path: &KeyPath, worker: &Worker, checker: &mut Checker<'_>) {
    if worker.deduplicate.as_ref().is_some_and(|deduplicate| !deduplicate.key.starts_with('/')) {
        let message = "is the name of an attribute, and ROMA Connect MQS has none: use a pointer into the body, such as /order/id";
        checker.report(&path.child("deduplicate").child("key"), message);
    }
}
