//! What `dlq` does with each message: look at it, take it into a file, or throw it away.

use std::io;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::cli::commands::dlq::filter::Filter;
use dms_protocol::message::ReceivedMessage;
use dms_worker::{
    client::Error,
    redrive::{SweepReport, Visitor},
};

/// Hands messages to `see`, and takes them only if that is asked for.
pub(super) struct Viewer<F> {
    filter: Filter,
    takes: bool,
    left: u64,
    seen: u64,
    enough: CancellationToken,
    see: F,
    failed: Option<io::Error>,
}

impl<F: FnMut(&[ReceivedMessage]) -> io::Result<()>> Viewer<F> {
    /// Shows at most `max` messages to `see`, and then cancels `enough`. With `takes`, the shown messages are acknowledged.
    pub(super) fn new(filter: Filter, takes: bool, max: u64, enough: CancellationToken, see: F) -> Self {
        Self { filter, takes, left: max, seen: 0, enough, see, failed: None }
    }

    /// How many messages were seen.
    ///
    /// # Errors
    /// The one that `see` ended with.
    pub(super) fn finish(self) -> io::Result<u64> {
        self.failed.map_or(Ok(self.seen), Err)
    }

    /// Shows messages; false when that is over.
    fn show(&mut self, messages: &[ReceivedMessage]) -> bool {
        let over = self.left == 0 || self.failed.is_some();
        if !over {
            match (self.see)(messages) {
                Ok(()) => {
                    self.seen += messages.len() as u64;
                    self.left = self.left.saturating_sub(messages.len() as u64);
                }
                Err(error) => self.failed = Some(error),
            }
        }
        if self.left == 0 || self.failed.is_some() {
            self.enough.cancel();
        }
        !over && self.failed.is_none()
    }
}

#[async_trait]
impl<F: FnMut(&[ReceivedMessage]) -> io::Result<()> + Send> Visitor for Viewer<F> {
    fn wants(&self, message: &ReceivedMessage) -> bool {
        self.takes && self.failed.is_none() && self.filter.passes(message)
    }

    async fn take(&mut self, messages: &[ReceivedMessage]) -> Result<usize, Error> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(messages.len());
        Ok(if self.show(&messages[..most]) { most } else { 0 })
    }

    fn passed_over(&mut self, message: &ReceivedMessage) {
        if !self.takes && self.filter.passes(message) {
            self.show(std::slice::from_ref(message));
        }
    }
}

/// Takes messages and does nothing with them.
#[derive(Debug)]
pub(super) struct Discard {
    filter: Filter,
    dry_run: bool,
    max: u64,
    would_be: u64,
}

impl Discard {
    pub(super) fn new(filter: Filter, dry_run: bool, max: Option<u64>) -> Self {
        Self { filter, dry_run, max: max.unwrap_or(u64::MAX), would_be: 0 }
    }

    /// How many messages a dry run would have taken.
    pub(super) fn would_be(&self) -> u64 {
        self.would_be.min(self.max)
    }
}

#[async_trait]
impl Visitor for Discard {
    fn wants(&self, message: &ReceivedMessage) -> bool {
        !self.dry_run && self.filter.passes(message)
    }

    async fn take(&mut self, messages: &[ReceivedMessage]) -> Result<usize, Error> {
        Ok(messages.len())
    }

    fn counts_towards_max(&self, report: &SweepReport) -> u64 {
        if self.dry_run { self.would_be } else { report.taken }
    }

    fn passed_over(&mut self, message: &ReceivedMessage) {
        self.would_be += u64::from(self.filter.passes(message));
    }
}
