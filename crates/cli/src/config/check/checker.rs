//! [`Checker`]: collects the mistakes in a configuration.

use std::{collections::BTreeSet, fs::File, path::Path, time::Duration};

use crate::config::{
    schema::values::Span,
    source::{path::KeyPath, problem::Problem, tree::Tree},
};
use dms_protocol::{
    internal::{secret_url::SecretUrl, setting_checks::EMPTY},
    limits::LimitError,
};

/// Collects problems; keys that could not be read are not reported a second time.
pub(crate) struct Checker<'a> {
    pub(super) tree: &'a Tree,
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

    /// The keys with a mistake.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.problems.iter().map(|problem| problem.key.clone()).collect()
    }

    /// Reports `key` of `parent` as missing or empty when `value` is blank.
    pub(super) fn require(&mut self, parent: &KeyPath, key: &str, value: &str) {
        if value.trim().is_empty() {
            let path = parent.child(key);
            let message = self.blank(&path);
            self.report(&path, message);
        }
    }

    /// What is wrong with a required value that is blank.
    pub(super) fn blank(&self, path: &KeyPath) -> &'static str {
        if self.tree.is_set(path) { EMPTY } else { "is required and missing" }
    }

    /// Reports a broken limit of the service at `path`.
    pub(super) fn limit(&mut self, path: &KeyPath, result: Result<(), LimitError>) {
        if let Err(LimitError { value, allowed, .. }) = result {
            self.report(path, format!("`{}` is not allowed: {allowed}", value.trim_matches('"')));
        }
    }

    /// Reports a time of zero.
    pub(super) fn above_zero(&mut self, path: &KeyPath, span: Span) {
        if span == Span::default() {
            self.report(path, "`0s` is not allowed: a duration above zero is needed");
        }
    }

    /// Reports a time above `most`.
    pub(super) fn no_longer_than(&mut self, path: &KeyPath, span: Span, most: Duration) {
        if span.get() > most {
            self.report(path, format!("`{span}` is not allowed: at most {}", Span::from(most)));
        }
    }

    /// Reports a file that cannot be opened; its content is checked where it is used.
    pub(super) fn readable(&mut self, path: &KeyPath, file: &Path) {
        if file.as_os_str().is_empty() {
            let message = self.blank(path);
            return self.report(path, message);
        }
        if let Err(error) = File::open(file) {
            self.report(path, format!("`{}` cannot be read: {error}", file.display()));
        }
    }

    /// Reports an address that is not `http://host[:port][/path]` or the same with `https`.
    pub(super) fn http_address(&mut self, path: &KeyPath, url: &SecretUrl) {
        if !is_http_address(url) {
            self.report(path, format!("`{url}` is not an address: write it like http://127.0.0.1:8080/path"));
        }
    }
}

/// Whether a URL is `http://host[:port][/path]` or the same with `https`.
pub(super) fn is_http_address(url: &SecretUrl) -> bool {
    let known = |uri: &http::Uri| matches!(uri.scheme_str(), Some("http" | "https"));
    url.expose().parse().is_ok_and(|uri: http::Uri| known(&uri) && uri.host().is_some_and(|host| !host.is_empty()))
}
