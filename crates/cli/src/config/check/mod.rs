//! The rules that a type cannot say: ranges, required keys, and settings that exclude or need each other.
//!
//! All rules look at the merged values, so that a value from the environment is judged like one from a file, and its
//! message names the variable.

mod credentials;
mod listeners;
mod service;
mod workers;

use std::{collections::BTreeSet, time::Duration};

use super::{Config, path::KeyPath, problem::Problem, tree::Tree, values::Span};
use dms_protocol::limits::LimitError;
use dms_protocol::secret_url::SecretUrl;

/// Finds everything that cannot work.
pub(crate) fn check(config: &Config, checker: &mut Checker<'_>) {
    credentials::check(checker);
    service::check_dms(config, checker);
    service::check_server(config, checker);
    workers::check(config, checker);
    listeners::check(config, checker);
}

/// Collects problems; keys that could not be read are not reported a second time.
pub(crate) struct Checker<'a> {
    tree: &'a Tree,
    broken: BTreeSet<KeyPath>,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    /// Starts with what reading the values has found.
    pub(crate) fn new(tree: &'a Tree, broken: BTreeSet<KeyPath>, problems: Vec<Problem>) -> Self {
        Self { tree, broken, problems }
    }

    /// Every problem found.
    pub(crate) fn finish(self) -> Vec<Problem> {
        self.problems
    }

    /// Reports a problem at `path`, unless the value there could not be read in the first place.
    pub(crate) fn report(&mut self, path: &KeyPath, message: impl Into<String>) {
        if self.broken.iter().any(|broken| broken.overlaps(path)) {
            return;
        }
        self.problems.push(Problem::new(self.tree.nearest_origin(path), path, message));
    }

    /// Reports `key` of `parent` as missing when `value` is empty.
    fn require(&mut self, parent: &KeyPath, key: &str, value: &str) {
        if value.trim().is_empty() {
            self.report(&parent.child(key), "is required and missing");
        }
    }

    /// Reports a broken limit of the service at `path`.
    fn limit(&mut self, path: &KeyPath, result: Result<(), LimitError>) {
        if let Err(LimitError { value, allowed, .. }) = result {
            self.report(path, format!("`{}` is not allowed: {allowed}", value.trim_matches('"')));
        }
    }

    /// Reports a count below one.
    fn at_least_one(&mut self, path: &KeyPath, value: usize) {
        if value == 0 {
            self.report(path, "`0` is not allowed: 1 or more is needed");
        }
    }

    /// Reports a time of zero.
    fn above_zero(&mut self, path: &KeyPath, span: Span) {
        if span == Span::default() {
            self.report(path, "`0s` is not allowed: a duration above zero is needed");
        }
    }

    /// Reports a time above `most`.
    fn no_longer_than(&mut self, path: &KeyPath, span: Span, most: Duration) {
        if span.get() > most {
            self.report(path, format!("`{span}` is not allowed: at most {}", Span::from(most)));
        }
    }

    /// Reports an address that is not `http://host[:port][/path]` or the same with `https`.
    fn http_address(&mut self, path: &KeyPath, url: &SecretUrl) {
        if !is_http_address(url) {
            self.report(path, format!("`{url}` is not an address: write it like http://127.0.0.1:8080/path"));
        }
    }
}

fn is_http_address(url: &SecretUrl) -> bool {
    let known = |uri: &http::Uri| matches!(uri.scheme_str(), Some("http" | "https"));
    url.expose().parse().is_ok_and(|uri: http::Uri| known(&uri) && uri.host().is_some_and(|host| !host.is_empty()))
}
