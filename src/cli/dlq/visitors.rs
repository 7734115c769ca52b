//! What `dlq` does with each dead letter: look, or throw away.

use std::io;

use async_trait::async_trait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{client::Error, message::ReceivedMessage, redrive::Visitor};

/// The attributes that a message must have.
#[derive(Clone, Debug)]
pub(super) struct Matches(Vec<(String, Value)>);

impl Matches {
    pub(super) fn new(wanted: &[(String, Value)]) -> Self {
        Self(wanted.to_vec())
    }

    fn all(&self, message: &ReceivedMessage) -> bool {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // `7` on the command line is a number, and stands for a text "7" too.
        self.0
            .iter()
            .all(|(name, wanted)| message.attributes.get(name).is_some_and(|found| text(found) == text(wanted)))
    }
}

/// Sees messages and takes none.
pub(super) struct Look<F> {
    matches: Matches,
    left: u64,
    seen: u64,
    enough: CancellationToken,
    see: F,
    failed: Option<io::Error>,
}

impl<F: FnMut(&ReceivedMessage) -> io::Result<()>> Look<F> {
    /// Shows `see` at most `max` messages, then sets `enough` off.
    pub(super) fn new(matches: Matches, max: u64, enough: CancellationToken, see: F) -> Self {
        Self { matches, left: max, seen: 0, enough, see, failed: None }
    }

    /// How many messages were seen.
    ///
    /// # Errors
    /// The one that `see` ended with.
    pub(super) fn finish(self) -> io::Result<u64> {
        self.failed.map_or(Ok(self.seen), Err)
    }
}

#[async_trait]
impl<F: FnMut(&ReceivedMessage) -> io::Result<()> + Send> Visitor for Look<F> {
    fn wants(&self, _: &ReceivedMessage) -> bool {
        false
    }

    async fn take(&mut self, _: &[ReceivedMessage]) -> Result<usize, Error> {
        Ok(0)
    }

    fn passed_over(&mut self, message: &ReceivedMessage) {
        if self.left > 0 && self.failed.is_none() && self.matches.all(message) {
            self.left -= 1;
            match (self.see)(message) {
                Ok(()) => self.seen += 1,
                Err(error) => self.failed = Some(error),
            }
        }
        if self.left == 0 || self.failed.is_some() {
            self.enough.cancel();
        }
    }
}

/// Takes messages and does nothing with them.
#[derive(Debug)]
pub(super) struct Discard {
    matches: Matches,
    dry_run: bool,
    max: u64,
    would_be: u64,
}

impl Discard {
    pub(super) fn new(matches: Matches, dry_run: bool, max: Option<u64>) -> Self {
        Self { matches, dry_run, max: max.unwrap_or(u64::MAX), would_be: 0 }
    }

    /// How many messages a dry run would have taken.
    pub(super) fn would_be(&self) -> u64 {
        self.would_be.min(self.max)
    }
}

#[async_trait]
impl Visitor for Discard {
    fn wants(&self, message: &ReceivedMessage) -> bool {
        !self.dry_run && self.matches.all(message)
    }

    async fn take(&mut self, messages: &[ReceivedMessage]) -> Result<usize, Error> {
        Ok(messages.len())
    }

    fn passed_over(&mut self, message: &ReceivedMessage) {
        self.would_be += u64::from(self.matches.all(message));
    }
}
