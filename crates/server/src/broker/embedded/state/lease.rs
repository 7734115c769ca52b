//! [`Lease`]: a batch of leased messages, and how its end settles them (API reference 5.3.3). Pure.

use std::{ops::Range, sync::Arc};

use tokio::time::Instant;

use crate::{
    broker::{
        AckCounts, Attempt, AttemptEnd, FailureCause,
        ack_status::REJECTED,
        embedded::{
            config::FailureCounting,
            state::receipt::{LeaseToken, Receipt, Seal},
        },
    },
    shared_buffer::kept_bytes,
    store::{Attempts, FailureHistory, Settlement, StoredMessage},
};
use dms_protocol::{message::DeadLetterInfo, queue::ProjectId};

/// A leased message.
#[derive(Clone, Debug)]
pub(crate) struct LeasedEntry {
    /// The message itself, which is needed if it fails or becomes a dead letter.
    pub(crate) message: Arc<StoredMessage>,
    /// The number of failures before this lease.
    pub(crate) failures: u32,
    /// The history of those failures.
    pub(crate) history: FailureHistory,
}

/// A batch that was leased and is not settled.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The project of the queue.
    pub(crate) project: ProjectId,
    /// The first part of the receipts.
    pub(crate) token: LeaseToken,
    /// The last part of the receipts, one for each message.
    pub(crate) seals: Vec<Seal>,
    /// The messages in the order in which they were leased.
    pub(crate) entries: Vec<LeasedEntry>,
    /// Messages between them that the label filter skipped. They are settled with the batch, however it ends.
    pub(crate) skipped: Vec<Range<u64>>,
    /// When the lease began, in Unix milliseconds. `None` if it began on another server of the cluster.
    pub(crate) began_ms: Option<i64>,
    /// From this time on the batch cannot be acknowledged.
    pub(crate) deadline: Instant,
    /// Whether the end of the lease is being committed. Until then neither an acknowledgement nor the timer may end it again.
    pub(crate) is_ending: bool,
    /// Whether an operator has the message instead of a consumer. If its change cannot be stored, no failure is counted.
    pub(crate) is_operators: bool,
}

/// How a lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    /// By an acknowledgement: the first `settled` messages are settled, the others are not.
    Acknowledged {
        /// The number of settled messages.
        settled: usize,
        /// Positions of rejected messages among them, with their causes.
        rejected: Vec<(usize, Option<Arc<FailureCause>>)>,
        /// Why the next message was not settled.
        stop: StopReason,
    },
    /// By its deadline: every message failed.
    Lapsed,
    /// By a release: every message is available again, and no failure is counted.
    Released,
}

/// The status of the first message that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// It failed. A message that is not mentioned failed too.
    Failed(Option<Arc<FailureCause>>),
    /// It is handed back together with all later ones.
    Released,
}

/// The effect of the end of a lease on one message.
enum MessageOutcome<'a> {
    Done,
    Rejected(Option<&'a Arc<FailureCause>>),
    /// It failed. The end is the reason, unless its consumer reported another one.
    Failed(AttemptEnd, Option<&'a Arc<FailureCause>>),
    /// It is available again, and no failure is counted.
    Spared,
}

/// The effect of the end of a lease on all its messages.
#[derive(Debug, Default)]
pub(crate) struct LeaseDecision {
    /// The settlement to store.
    pub(crate) settlement: Settlement,
    /// The messages that become dead letters, by position in the batch.
    pub(crate) dead_letters: Vec<(usize, DeadLetterInfo)>,
    /// The histories of messages that are available again, by sequence number. They are kept in memory only.
    pub(crate) histories: Vec<(u64, FailureHistory)>,
}

impl LeasedEntry {
    /// The history of the message after one more failure.
    fn failed(&self, cause: Option<&Arc<FailureCause>>, attempt: Attempt) -> FailureHistory {
        let (first_failure_ms, last) = self.first_and_last(cause, attempt.ended_ms);
        FailureHistory { first_failure_ms, last: last.cloned(), ..self.after(attempt) }
    }

    /// When the message failed first, and the cause that was reported last, after a failure now.
    fn first_and_last<'a>(
        &'a self,
        cause: Option<&'a Arc<FailureCause>>,
        now_ms: i64,
    ) -> (Option<i64>, Option<&'a Arc<FailureCause>>) {
        let first_failure_ms = if self.failures == 0 { Some(now_ms) } else { self.history.first_failure_ms };
        (first_failure_ms, cause.or(self.history.last.as_ref()))
    }

    /// The history of the message after one more lease that did not settle it.
    fn after(&self, attempt: Attempt) -> FailureHistory {
        let attempts = Attempts::and(self.history.attempts.as_deref(), attempt);
        FailureHistory { attempts: Some(Arc::new(attempts)), ..self.history.clone() }
    }

    /// The details kept with the dead letter.
    fn dies(&self, reason: &str, cause: Option<&Arc<FailureCause>>, now_ms: i64) -> DeadLetterInfo {
        let (first_failure_ms, last) = self.first_and_last(cause, now_ms);
        // If this failure was reported without a cause, the cause that an earlier consumer reported is kept, but with the reason
        // and the time of this failure.
        let said = last.map(AsRef::as_ref);
        let cause = cause.map(AsRef::as_ref);
        let mut info = DeadLetterInfo::new(cause.and_then(|cause| cause.reason.as_deref()).unwrap_or(reason));
        info.error = said.and_then(|cause| cause.error.clone());
        info.worker = said.and_then(|cause| cause.worker.clone());
        info.attempts = self.failures.saturating_add(1);
        let last_failure_ms = cause.and_then(|cause| cause.last_failure_ms).unwrap_or(now_ms);
        let first_failure_ms = cause.and_then(|cause| cause.first_failure_ms).or(first_failure_ms);
        // A consumer says when its handler failed, by its own clock; this broker, when it was told.
        info.first_failure_ms = first_failure_ms.map(|first| first.min(last_failure_ms));
        info.last_failure_ms = Some(last_failure_ms);
        info
    }
}

impl Lease {
    /// The receipts of the messages in order.
    pub(crate) fn receipts(&self) -> impl Iterator<Item = Receipt> {
        let batch = self.token;
        (0..).zip(&self.seals).map(move |(position, seal)| Receipt { batch, position, seal: *seal })
    }

    /// An estimate of the memory that the messages take, in bytes, with other messages that they keep in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let texts = self.entries.iter().map(|entry| (&entry.message.json, entry.message.buffer));
        let beside: usize = self.entries.iter().map(|entry| entry.message.bytes_beside_json()).sum();
        kept_bytes(texts) + beside
    }

    /// Whether a receipt belongs to this lease.
    pub(crate) fn holds(&self, receipt: &Receipt) -> bool {
        self.entries.len() > usize::from(receipt.position)
            && self.seals.get(usize::from(receipt.position)) == Some(&receipt.seal)
    }

    /// Whether the lease can be acknowledged at `now`.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        !self.is_ending && now < self.deadline
    }

    /// How many messages an end settles, and how many it does not.
    pub(crate) fn count(&self, ending: &LeaseEnd) -> AckCounts {
        let success = match ending {
            LeaseEnd::Acknowledged { settled, .. } => *settled,
            LeaseEnd::Lapsed | LeaseEnd::Released => 0,
        };
        AckCounts { success, fail: self.entries.len() - success }
    }

    /// Decides what an end at `now_ms` means for each message. After `dead_after` failures a message becomes a dead letter.
    pub(crate) fn decide(
        &self,
        ending: &LeaseEnd,
        counting: FailureCounting,
        dead_after: Option<u32>,
        now_ms: i64,
    ) -> LeaseDecision {
        let mut decision = LeaseDecision::default();
        let settlement = &mut decision.settlement;
        // However the batch ends: skipped messages belong to nobody in this group, and the cursor has passed them.
        settlement.skipped.clone_from(&self.skipped);
        if let LeaseEnd::Acknowledged { settled, .. } = ending {
            settlement.done.reserve_exact(*settled);
        }
        let attempt = |end| Attempt { began_ms: self.began_ms, ended_ms: now_ms, end };
        for (position, entry) in self.entries.iter().enumerate() {
            let seq = entry.message.seq;
            match ending.outcome_of(position, counting) {
                MessageOutcome::Done => settlement.done.push(seq),
                MessageOutcome::Spared => {
                    settlement.failed.push((seq, entry.failures));
                    // No consumer had what an operator leased for a moment.
                    if !self.is_operators {
                        decision.histories.push((seq, entry.after(attempt(AttemptEnd::Released))));
                    }
                }
                MessageOutcome::Rejected(cause) => {
                    settlement.dead.push(seq);
                    decision.dead_letters.push((position, entry.dies(REJECTED, cause, now_ms)));
                }
                MessageOutcome::Failed(end, cause) => {
                    let failures = entry.failures.saturating_add(1);
                    if dead_after.is_some_and(|most| failures >= most) {
                        settlement.dead.push(seq);
                        decision.dead_letters.push((position, entry.dies(end.as_str(), cause, now_ms)));
                        continue;
                    }
                    settlement.failed.push((seq, failures));
                    decision.histories.push((seq, entry.failed(cause, attempt(end))));
                }
            }
        }
        decision
    }
}

impl LeaseDecision {
    /// The same decision without messages below `below`, which were purged while they were leased: they are settled, whatever the
    /// acknowledgement says.
    pub(crate) fn without_purged(mut self, lease: &Lease, below: u64) -> Self {
        let kept = |seq: &u64| *seq >= below;
        self.settlement.failed.retain(|(seq, _)| kept(seq));
        self.settlement.dead.retain(kept);
        self.histories.retain(|(seq, _)| kept(seq));
        self.dead_letters.retain(|(at, _)| lease.entries.get(*at).is_some_and(|entry| kept(&entry.message.seq)));
        self
    }
}

impl LeaseEnd {
    /// The effect of the end on the message at a position.
    fn outcome_of(&self, position: usize, counting: FailureCounting) -> MessageOutcome<'_> {
        match self {
            Self::Acknowledged { settled, rejected, .. } if position < *settled => {
                match rejected.iter().find(|(at, _)| *at == position) {
                    Some((_, cause)) => MessageOutcome::Rejected(cause.as_ref()),
                    None => MessageOutcome::Done,
                }
            }
            Self::Acknowledged { stop: StopReason::Released, .. } | Self::Released => MessageOutcome::Spared,
            Self::Acknowledged { settled, stop: StopReason::Failed(cause), .. } if position == *settled => {
                MessageOutcome::Failed(AttemptEnd::Failed, cause.as_ref())
            }
            Self::Acknowledged { .. } if counting == FailureCounting::Batch => {
                MessageOutcome::Failed(AttemptEnd::BatchFailed, None)
            }
            Self::Acknowledged { .. } => MessageOutcome::Spared,
            Self::Lapsed => MessageOutcome::Failed(AttemptEnd::LeaseExpired, None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::broker::embedded::state::receipt::NewReceipts;

    fn lease(failures: &[u32]) -> Lease {
        let new_receipts = NewReceipts::draw(failures.len()).unwrap();
        let entry = |(seq, failures): (u64, &u32)| LeasedEntry {
            message: Arc::new(StoredMessage {
                seq,
                entered_ms: 0,
                json: "{}".into(),
                body_bytes: 1,
                tags: Arc::from(Vec::new()),
                ..StoredMessage::default()
            }),
            failures: *failures,
            history: FailureHistory::default(),
        };
        Lease {
            project: ProjectId::new("p"),
            token: new_receipts.batch,
            seals: new_receipts.seals().collect(),
            entries: (1..).zip(failures).map(entry).collect(),
            skipped: Vec::new(),
            began_ms: Some(400),
            deadline: Instant::now(),
            is_ending: false,
            is_operators: false,
        }
    }

    fn stops_at(settled: usize, stop: StopReason) -> LeaseEnd {
        LeaseEnd::Acknowledged { settled, rejected: Vec::new(), stop }
    }

    fn decide(batch: &Lease, ending: &LeaseEnd, counting: FailureCounting, dead_after: Option<u32>) -> Settlement {
        batch.decide(ending, counting, dead_after, 1_000).settlement
    }

    /// 5.3.3: the service stops at the first message that is not confirmed. That message and all later ones failed.
    #[test]
    fn settled_up_to_the_first_failure_and_failed_behind_it() {
        let batch = lease(&[0, 0, 0, 0]);
        let ending = stops_at(2, StopReason::Failed(None));
        assert_eq!(batch.count(&ending), AckCounts { success: 2, fail: 2 });
        let culprit = decide(&batch, &ending, FailureCounting::Culprit, Some(3));
        assert_eq!((culprit.done, culprit.failed), (vec![1, 2], vec![(3, 1), (4, 0)]));
        let strict = decide(&batch, &ending, FailureCounting::Batch, Some(3));
        assert_eq!(strict.failed, [(3, 1), (4, 1)]);
    }

    /// 5.1.1: after `max_consume_count` failed consumptions a message is a dead letter.
    #[test]
    fn the_last_allowed_failure_makes_a_dead_letter() {
        let batch = lease(&[2, 2, 1]);
        let one = decide(&batch, &stops_at(0, StopReason::Failed(None)), FailureCounting::Culprit, Some(3));
        assert_eq!((one.dead, one.failed), (vec![1], vec![(2, 2), (3, 1)]));
        let all = decide(&batch, &LeaseEnd::Lapsed, FailureCounting::Culprit, Some(3));
        assert_eq!((all.dead, all.failed), (vec![1, 2], vec![(3, 2)]));
        let released = decide(&batch, &LeaseEnd::Released, FailureCounting::Batch, Some(3));
        assert_eq!((released.dead, released.failed), (vec![], vec![(1, 2), (2, 2), (3, 1)]));
        let never = decide(&batch, &LeaseEnd::Lapsed, FailureCounting::Culprit, None);
        assert_eq!((never.dead, never.failed), (vec![], vec![(1, 3), (2, 3), (3, 2)]));
    }

    #[test]
    fn failures_do_not_overflow() {
        let decision = decide(&lease(&[u32::MAX]), &LeaseEnd::Lapsed, FailureCounting::Culprit, None);
        assert_eq!(decision.failed, [(1, u32::MAX)]);
    }

    /// Also the attempts that counted no failure are remembered, with their times, and no more than ten of them.
    #[test]
    fn attempts_are_remembered_with_their_times() {
        let mut batch = lease(&[0, 0]);
        let ends = [
            (stops_at(0, StopReason::Failed(None)), [AttemptEnd::Failed, AttemptEnd::Released]),
            (LeaseEnd::Lapsed, [AttemptEnd::LeaseExpired; 2]),
            (LeaseEnd::Released, [AttemptEnd::Released; 2]),
        ];
        for (ending, expected) in ends {
            let decision = batch.decide(&ending, FailureCounting::Culprit, Some(9), 1_000);
            let last = |(_, history): &(u64, FailureHistory)| history.attempts.as_ref().unwrap().recent.last().copied();
            let expected = expected.map(|end| Some(Attempt { began_ms: Some(400), ended_ms: 1_000, end }));
            assert_eq!(decision.histories.iter().map(last).collect::<Vec<_>>(), expected, "{ending:?}");
            batch.entries[0].history = decision.histories[0].1.clone();
        }
        for _ in 3..20 {
            let decision = batch.decide(&LeaseEnd::Released, FailureCounting::Culprit, None, 2_000);
            batch.entries[0].history = decision.histories[0].1.clone();
        }
        let attempts = batch.entries[0].history.attempts.as_ref().unwrap();
        assert_eq!((attempts.count, attempts.recent.len()), (20, 10));
        batch.is_operators = true;
        let operators = batch.decide(&LeaseEnd::Released, FailureCounting::Culprit, None, 3_000);
        assert!(operators.histories.is_empty(), "no consumer had the message");
    }

    /// A release counts no failure for anybody, whatever `failure_counting` says.
    #[test]
    fn what_is_released_has_not_failed() {
        let batch = lease(&[0, 2, 2]);
        for counting in [FailureCounting::Culprit, FailureCounting::Batch] {
            let decision = batch.decide(&stops_at(1, StopReason::Released), counting, Some(3), 1_000);
            assert_eq!(decision.settlement.failed, [(2, 2), (3, 2)]);
            assert_eq!((decision.settlement.done, decision.dead_letters.len()), (vec![1], 0));
        }
    }

    #[test]
    fn what_is_rejected_dies_at_once_and_says_why() {
        let batch = lease(&[0, 1, 0]);
        let cause = FailureCause {
            reason: Some("undecodable".into()),
            error: Some("no JSON".into()),
            ..FailureCause::default()
        };
        let rejected = vec![(0, None), (1, Some(Arc::new(cause)))];
        let ending = LeaseEnd::Acknowledged { settled: 3, rejected, stop: StopReason::Failed(None) };
        let decision = batch.decide(&ending, FailureCounting::Culprit, Some(9), 1_000);
        assert_eq!((decision.settlement.dead, decision.settlement.done), (vec![1, 2], vec![3]));
        let [(0, first), (1, second)] = decision.dead_letters.as_slice() else { panic!("{:?}", decision.dead_letters) };
        assert_eq!((first.reason.as_str(), first.attempts, first.first_failure_ms), ("rejected", 1, Some(1_000)));
        assert_eq!((second.reason.as_str(), second.error.as_deref()), ("undecodable", Some("no JSON")));
        assert_eq!((second.attempts, second.first_failure_ms), (2, None), "who knows when it failed first");
    }

    #[test]
    fn the_first_failure_is_not_later_than_the_last() {
        let cause = FailureCause { last_failure_ms: Some(900), ..FailureCause::default() };
        let failed = stops_at(0, StopReason::Failed(Some(Arc::new(cause))));
        let decision = lease(&[0]).decide(&failed, FailureCounting::Culprit, Some(1), 1_000);
        let [(0, info)] = decision.dead_letters.as_slice() else { panic!("{decision:?}") };
        assert_eq!((info.first_failure_ms, info.last_failure_ms), (Some(900), Some(900)));
    }

    /// The last failure has the say; what an earlier consumer reported is kept where nobody reports anything.
    #[test]
    fn a_history_goes_into_the_grave() {
        let mut batch = lease(&[0]);
        let cause =
            FailureCause { error: Some("db is down".into()), worker: Some("w1".into()), ..FailureCause::default() };
        let failed = stops_at(0, StopReason::Failed(Some(Arc::new(cause))));
        let decision = batch.decide(&failed, FailureCounting::Culprit, Some(2), 1_000);
        let [(1, history)] = decision.histories.as_slice() else { panic!("{decision:?}") };
        batch.entries[0].failures = 1;
        batch.entries[0].history = history.clone();
        let decision = batch.decide(&LeaseEnd::Lapsed, FailureCounting::Culprit, Some(2), 5_000);
        let [(0, info)] = decision.dead_letters.as_slice() else { panic!("{decision:?}") };
        assert_eq!((info.reason.as_str(), info.attempts), ("lease_expired", 2));
        assert_eq!((info.error.as_deref(), info.worker.as_deref()), (Some("db is down"), Some("w1")));
        assert_eq!((info.first_failure_ms, info.last_failure_ms), (Some(1_000), Some(5_000)));
    }
}
