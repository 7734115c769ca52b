//! [`Sender`]: the visitor that sends copies.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::{
    Filter, RedriveReport, SweepReport, Target, Transform, Visitor,
    copies::{again, is_exhausted, unchanged, without_unsupported},
    journal::{Journal, Legacy},
};
use crate::{
    client::{Client, Error, SendOptions},
    limits::LimitError,
    message::{DeadLetterInfo, Message, ReceivedMessage},
    queue::QueueId,
    retry::RetryPolicy,
    ttl_map::TtlMap,
    wire::Dialect,
    worker::attributes::{LAST_FAILURE, ORIGIN},
};

/// How long the redrive tries to send a copy.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The most stored copies to remember, by the positions of their originals.
const MAX_REMEMBERED: usize = 10_000;

/// Sends copies and counts the results.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) target: Target,
    pub(super) filter: Option<Filter>,
    pub(super) transform: Option<Transform>,
    pub(super) max_redrives: u32,
    /// When the run began.
    pub(super) began: jiff::Timestamp,
    pub(super) unchanged: bool,
    pub(super) skip_filtered: bool,
    /// Whether originals of edited dead letters are sent, too.
    pub(super) edited_originals: bool,
    /// Messages that were acknowledged without a copy.
    pub(super) skipped: u64,
    pub(super) dry_run: bool,
    pub(super) report: RedriveReport,
    pub(super) journal: Option<Journal>,
    /// The lease of the messages.
    pub(super) lease: Duration,
    pub(super) memory: Memory,
    /// The queues of parked messages, by name; `None` for a missing queue.
    pub(super) origins: HashMap<String, Option<QueueId>>,
}

/// The messages that have copies already, by position.
#[derive(Debug)]
pub(super) struct Memory {
    /// Copies that this run stored. Only their number is bounded, because a redelivery may come at any time of the run.
    copied: TtlMap<u64, ()>,
    /// Copies that a killed run stored.
    before: HashSet<u64>,
    /// Copies that a killed run may have stored.
    perhaps: HashSet<u64>,
    /// Redelivered messages that this run recognised, so that their copies are not duplicates.
    recognised: u64,
}

impl Memory {
    pub(super) fn new(legacy: &Legacy) -> Self {
        Self {
            copied: TtlMap::new(MAX_REMEMBERED),
            before: legacy.stored.clone(),
            perhaps: legacy.perhaps.clone(),
            recognised: 0,
        }
    }

    fn remember(&mut self, place: u64) {
        self.copied.insert(place, (), Duration::MAX);
    }

    fn has(&self, message: &ReceivedMessage) -> bool {
        message.sequence.is_some_and(|place| self.is_copied(place) || self.before.contains(&place))
    }

    fn is_copied(&self, place: u64) -> bool {
        self.copied.get(&place).is_some()
    }

    /// Counts the messages, from the front, that have copies already. Returns their number.
    fn recognise(&mut self, messages: &[ReceivedMessage]) -> usize {
        let known = messages.iter().take_while(|message| self.has(message)).count();
        let of_this_run = messages[..known].iter().filter_map(|message| message.sequence);
        self.recognised += of_this_run.filter(|place| self.is_copied(*place)).count() as u64;
        known
    }

    /// The number of redelivered messages that were not sent again.
    pub(super) fn recognised(&self) -> u64 {
        self.recognised
    }
}

impl Sender {
    fn is_filtered(&self, message: &ReceivedMessage) -> bool {
        self.filter.as_ref().is_some_and(|filter| !filter(message))
    }

    /// Whether a message stays because an edited copy of it was sent.
    fn is_edited(&self, message: &ReceivedMessage) -> bool {
        !self.edited_originals && message.dead_letter.as_ref().is_some_and(DeadLetterInfo::is_edited_original)
    }

    fn is_exhausted(&self, message: &ReceivedMessage) -> bool {
        !self.unchanged && (is_exhausted(&message.attributes, self.max_redrives) || self.failed_again(message))
    }

    /// Whether a copy that this run sent has failed and was parked again. Without attributes, nothing counts its redrives.
    fn failed_again(&self, message: &ReceivedMessage) -> bool {
        let last = || message.attributes.get_str(LAST_FAILURE)?.parse::<jiff::Timestamp>().ok();
        self.client.dialect() == Dialect::Mqs && last().is_some_and(|failed| failed > self.began)
    }

    /// The copies of the next request: all that fit, up to the first one that cannot be sent or has another target.
    async fn copies(&mut self, messages: &[ReceivedMessage]) -> Result<(QueueId, Vec<Message>), Error> {
        let mut queue = None;
        let mut copies = Vec::new();
        let (mut bytes, most) = (0, self.client.most_bytes());
        for message in messages {
            if self.is_filtered(message) {
                break;
            }
            let Some(target) = self.target_of(message).await? else { break };
            let copy = if self.unchanged { unchanged(message) } else { again(message) };
            let copy = match &self.transform {
                Some(change) => change(copy),
                None => copy,
            };
            let copy = without_unsupported(&self.client, copy);
            bytes += copy.body.len();
            let elsewhere = queue.as_ref().is_some_and(|queue| *queue != target);
            if elsewhere || self.memory.has(message) || bytes > most || self.client.check_message(&copy).is_err() {
                break;
            }
            queue = Some(target);
            copies.push(copy);
        }
        Ok((queue.unwrap_or_else(|| QueueId::from("")), copies))
    }

    /// The target queue of a message's copy, if there is one.
    async fn target_of(&mut self, message: &ReceivedMessage) -> Result<Option<QueueId>, Error> {
        let Target::Origin = &self.target else {
            return Ok(self.target.queue().cloned());
        };
        let Some(name) = message.attributes.get_str(ORIGIN) else { return Ok(None) };
        if let Some(known) = self.origins.get(&*name) {
            return Ok(known.clone());
        }
        let found = match self.client.find_queue(&name).await {
            Ok(queue) => Some(queue.id),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        self.origins.insert(name.into_owned(), found.clone());
        Ok(found)
    }

    /// Sends one request until it is stored. Returns how many copies, from the front, are stored.
    async fn send(&mut self, queue: &QueueId, copies: &[Message]) -> Result<usize, Error> {
        let mut schedule = RetryPolicy::default().max_attempts(None).schedule();
        let give_up = Instant::now() + SEND_TIMEOUT;
        loop {
            let error = match self.client.send_with(queue, copies, SendOptions::default()).await {
                Ok(outcomes) => {
                    let stored = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
                    // Copies after a failed one are stored, and their originals are redelivered with it.
                    self.report.doubled += outcomes[stored..].iter().filter(|outcome| outcome.is_ok()).count() as u64;
                    return Ok(stored);
                }
                Err(error) => error,
            };
            if error.is_unsure() {
                self.report.doubled += copies.len() as u64;
            }
            match schedule.next_delay() {
                Some(pause) if error.is_retryable() && Instant::now() + pause < give_up => sleep(pause).await,
                _ if error.is_limit() => return Ok(0),
                _ => return Err(error),
            }
        }
    }

    /// Sends copies of these messages and records them in the journal. Returns how many, from the front, are stored.
    async fn take_noted(&mut self, messages: &[ReceivedMessage]) -> Result<usize, Error> {
        let (queue, copies) = self.copies(messages).await?;
        let messages = &messages[..copies.len()];
        if copies.is_empty() {
            return Ok(0);
        }
        let before = self.report.doubled;
        let perhaps = messages.iter().filter_map(|message| message.sequence);
        let again = perhaps.filter(|place| self.memory.perhaps.remove(place)).count();
        self.report.doubled += again as u64;
        if let Some(journal) = &mut self.journal {
            journal.sending(messages, self.lease).await.map_err(|error| journal_error(&error))?;
        }
        let stored = self.send(&queue, &copies).await?;
        messages[..stored].iter().filter_map(|message| message.sequence).for_each(|place| self.memory.remember(place));
        if let Some(journal) = &mut self.journal {
            let doubled = self.report.doubled - before;
            journal.stored(stored, doubled).await.map_err(|error| journal_error(&error))?;
        }
        Ok(stored)
    }
}

/// The error of an unusable journal. It ends the redrive, because later duplicates would be unknown.
pub(super) fn journal_error(error: &io::Error) -> Error {
    let limit = LimitError {
        what: "journal",
        value: format!("unusable ({error})"),
        allowed: "a file that can be written, and that no other redrive uses, is needed".to_owned(),
    };
    Error::limit("redrive", limit)
}

#[async_trait]
impl Visitor for Sender {
    fn wants(&self, message: &ReceivedMessage) -> bool {
        let is_wanted = self.skip_filtered || !self.is_filtered(message);
        !self.dry_run
            && message.undecodable().is_none()
            && is_wanted
            && !self.is_edited(message)
            && !self.is_exhausted(message)
    }

    async fn take(&mut self, messages: &[ReceivedMessage]) -> Result<usize, Error> {
        // Their copies are stored. They only need the acknowledgement that was lost.
        let known = self.memory.recognise(messages);
        if known > 0 {
            return Ok(known);
        }
        let filtered = messages.iter().take_while(|message| self.is_filtered(message)).count();
        if filtered > 0 {
            self.report.filtered += filtered as u64;
            self.skipped += filtered as u64;
            return Ok(filtered);
        }
        self.take_noted(messages).await
    }

    fn counts_towards_max(&self, report: &SweepReport) -> u64 {
        // In a dry run nothing is taken, and messages that are skipped have no copy.
        if self.dry_run { self.report.redriven } else { report.taken.saturating_sub(self.skipped) }
    }

    fn passed_over(&mut self, message: &ReceivedMessage) {
        if let Some(reason) = message.undecodable() {
            tracing::warn!(sequence = message.sequence, reason, "a message that cannot be read is left where it is");
        }
        let count = match () {
            () if message.undecodable().is_some() => &mut self.report.refused,
            () if self.is_filtered(message) => &mut self.report.filtered,
            () if self.is_edited(message) => &mut self.report.edited,
            () if self.is_exhausted(message) => &mut self.report.exhausted,
            () if self.dry_run => &mut self.report.redriven,
            () => &mut self.report.refused,
        };
        *count += 1;
    }
}
