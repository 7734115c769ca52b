//! The model: every message with its state in every group, as simple as possible.

use std::time::Duration;

use dms_protocol::queue::{QueueMode, TagFilter};
use dms_server::broker::embedded::FailureCounting;

use super::{DEAD_LETTER_RETENTION, RETENTION, Said, Setting};

/// Where a message stands, as a look inside shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Available,
    Leased,
    Delayed,
}

/// A dead letter; times are in seconds since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) reason: String,
    pub(super) error: Option<String>,
    pub(super) attempts: u32,
    pub(super) first: Option<u64>,
    pub(super) last: u64,
}

/// The result of an acknowledgement.
#[derive(Debug)]
pub(super) enum Judged {
    /// The numbers of settled and unsettled messages.
    Settled((usize, usize)),
    /// The lease is over.
    Over,
    /// Something is rejected that cannot be.
    Refused,
}

/// A queue's counters as one group shows them.
pub(super) struct Counters {
    pub(super) produced: u64,
    pub(super) consumed: u64,
    pub(super) available: u64,
    pub(super) produced_dead: u64,
    pub(super) available_dead: u64,
}

#[derive(Clone)]
struct Sent {
    text: String,
    tags: Vec<&'static str>,
    /// When it entered its log, or will.
    at: Duration,
    death: Option<Death>,
}

/// The failures of a message so far, with their causes.
#[derive(Clone, Copy, Default, PartialEq)]
struct Past {
    failures: u32,
    first: Option<u64>,
    /// The number of the last reported cause.
    cause: Option<u8>,
}

/// A message for one reader.
#[derive(Clone, Copy, PartialEq)]
enum MessageState {
    Open {
        past: Past,
    },
    Out {
        past: Past,
        lease: usize,
    },
    /// It was purged while it was leased. It is settled, whatever status is reported for it.
    Purged,
    Settled,
}

/// A group's view of a log, position by position.
#[derive(Default)]
struct View {
    states: Vec<MessageState>,
    consumed: u64,
}

/// Why a batch went no further.
#[derive(Clone, Copy)]
enum End {
    Fail(Option<u8>),
    Release,
    Lapse,
}

struct Lease {
    group: usize,
    dead: bool,
    positions: Vec<usize>,
    until: Duration,
    over: bool,
}

/// A log: messages in order, the first `gone` of which have expired.
#[derive(Default)]
struct Log {
    messages: Vec<Sent>,
    gone: usize,
}

/// A queue with two groups.
pub(super) struct Model {
    fifo: bool,
    max_consume_count: Option<u32>,
    counting: FailureCounting,
    rules: [TagFilter; 2],
    now: Duration,
    log: Log,
    dead: [Log; 2],
    delayed: Vec<Sent>,
    views: [[View; 2]; 2],
    leases: Vec<Lease>,
}

impl Model {
    pub(super) fn new(setting: &Setting) -> Self {
        Self {
            fifo: setting.mode == QueueMode::Fifo,
            max_consume_count: setting.max_consume_count,
            counting: setting.counting,
            rules: [TagFilter::default(), setting.rule.clone()],
            now: Duration::ZERO,
            log: Log::default(),
            dead: Default::default(),
            delayed: Vec::new(),
            views: Default::default(),
            leases: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, text: String, tags: Vec<&'static str>, delay: Duration) {
        let sent = Sent { text, tags, at: self.now + delay, death: None };
        if delay.is_zero() { self.enter(sent) } else { self.delayed.push(sent) }
    }

    fn enter(&mut self, sent: Sent) {
        for (view, rule) in self.views.iter_mut().zip(&self.rules) {
            let passes = rule.matches(&sent.tags);
            view[0].states.push(if passes {
                MessageState::Open { past: Past::default() }
            } else {
                MessageState::Settled
            });
        }
        self.log.messages.push(sent);
    }

    /// The lowest open positions, in order; none while a FIFO group has a batch out.
    pub(super) fn take(&mut self, group: usize, dead: bool, max: usize, ack_wait: Duration) -> Vec<String> {
        let lease = self.leases.len();
        let log = if dead { &self.dead[group] } else { &self.log };
        let view = &mut self.views[group][usize::from(dead)];
        if self.fifo && view.states.iter().any(|state| matches!(state, MessageState::Out { .. })) {
            return Vec::new();
        }
        let mut positions = Vec::new();
        for (position, state) in view.states.iter_mut().enumerate().skip(log.gone) {
            if let MessageState::Open { past } = *state
                && positions.len() < max
            {
                *state = MessageState::Out { past, lease };
                positions.push(position);
            }
        }
        let texts: Vec<_> = positions.iter().map(|position| log.messages[*position].text.clone()).collect();
        if !texts.is_empty() {
            self.leases.push(Lease { group, dead, positions, until: self.now + ack_wait, over: false });
        }
        texts
    }

    /// Judges a batch by its own order.
    pub(super) fn ack(&mut self, lease: usize, said: &[Option<Said>]) -> Judged {
        let Lease { dead, over, .. } = self.leases[lease];
        if over {
            return Judged::Over;
        }
        let rejects = said.iter().any(|said| matches!(said, Some(Said::Reject(_))));
        if rejects && (dead || self.max_consume_count.is_none()) {
            return Judged::Refused;
        }
        let settles = |said: &&Option<Said>| matches!(said, Some(Said::Done | Said::Reject(_)));
        let settled = said.iter().take_while(settles).count();
        let end = match said.get(settled).copied().flatten() {
            Some(Said::Release) => End::Release,
            Some(Said::Fail(cause)) => End::Fail(cause),
            _ => End::Fail(None),
        };
        self.end(lease, settled, said, end);
        Judged::Settled((settled, self.leases[lease].positions.len() - settled))
    }

    fn end(&mut self, lease: usize, settled: usize, said: &[Option<Said>], end: End) {
        let Lease { group, dead, ref positions, ref mut over, .. } = self.leases[lease];
        *over = true;
        let now = self.now.as_secs();
        for (place, position) in positions.clone().into_iter().enumerate() {
            let view = &mut self.views[group][usize::from(dead)];
            let past = match view.states[position] {
                MessageState::Out { past, .. } => past,
                MessageState::Purged => {
                    let done = place < settled && matches!(said.get(place), Some(Some(Said::Done)));
                    view.consumed += u64::from(done);
                    view.states[position] = MessageState::Settled;
                    continue;
                }
                MessageState::Open { .. } | MessageState::Settled => continue,
            };
            // Its reason without a cause, and the cause, where this is a failure that counts.
            let failure = match (said.get(place).copied().flatten(), end) {
                (Some(Said::Reject(cause)), _) if place < settled => Some(("rejected", cause)),
                _ if place < settled => None,
                (_, End::Lapse) => Some(("lease_expired", None)),
                (_, End::Fail(cause)) if place == settled => Some(("failed", cause)),
                (_, End::Fail(_)) if self.counting == FailureCounting::Batch => Some(("batch_failed", None)),
                _ => None,
            };
            let state = match failure {
                None if place < settled => {
                    self.views[group][usize::from(dead)].consumed += 1;
                    MessageState::Settled
                }
                None => MessageState::Open { past },
                Some((reason, cause)) => {
                    let first = if past.failures == 0 { Some(now) } else { past.first };
                    let past = Past { failures: past.failures + 1, first, cause: cause.or(past.cause) };
                    let last_one = self.max_consume_count.is_some_and(|most| past.failures >= most);
                    if !dead && (last_one || place < settled) {
                        let death = Death {
                            reason: cause.map_or(reason.to_owned(), |cause| format!("reason-{cause}")),
                            error: past.cause.map(|cause| format!("error-{cause}")),
                            attempts: past.failures,
                            first,
                            last: now,
                        };
                        let Sent { text, .. } = self.log.messages[position].clone();
                        let buried = Sent { text, tags: Vec::new(), at: self.now, death: Some(death) };
                        self.dead[group].messages.push(buried);
                        self.views[group][1].states.push(MessageState::Open { past: Past::default() });
                        MessageState::Settled
                    } else {
                        MessageState::Open { past }
                    }
                }
            };
            self.views[group][usize::from(dead)].states[position] = state;
        }
    }

    /// The backlog of a group is settled; without one all messages are gone. Gives how many, and how many of these were not due.
    pub(super) fn purge(&mut self, group: Option<usize>) -> (u64, u64) {
        let groups = group.map_or(0..2, |group| group..group + 1);
        let mut purged = 0;
        for view in &mut self.views[groups] {
            for (position, state) in view[0].states.iter_mut().enumerate() {
                let there =
                    position >= self.log.gone && matches!(state, MessageState::Open { .. } | MessageState::Out { .. });
                purged += u64::from(there);
                *state = match *state {
                    MessageState::Open { .. } | MessageState::Settled => MessageState::Settled,
                    MessageState::Out { .. } | MessageState::Purged => MessageState::Purged,
                };
            }
        }
        if group.is_some() {
            return (purged, 0);
        }
        let gone = (self.log.messages.len() - self.log.gone, self.delayed.len());
        self.log.gone = self.log.messages.len();
        self.delayed.clear();
        (gone.0 as u64, gone.1 as u64)
    }

    /// Time passes; what ends meanwhile ends in the order of its time.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let lapse = self.leases.iter().filter(|lease| !lease.over).map(|lease| lease.until).min();
            let due = self.delayed.iter().map(|sent| sent.at).min();
            let Some(next) = lapse.into_iter().chain(due).min().filter(|next| *next <= until) else { break };
            self.now = next;
            self.expire();
            for lease in 0..self.leases.len() {
                if !self.leases[lease].over && self.leases[lease].until <= next {
                    self.end(lease, 0, &[], End::Lapse);
                }
            }
            let (ready, waiting) = std::mem::take(&mut self.delayed).into_iter().partition(|sent| sent.at <= next);
            self.delayed = waiting;
            Vec::into_iter(ready).for_each(|sent| self.enter(sent));
        }
        self.now = until;
        self.expire();
    }

    fn expire(&mut self) {
        let now = self.now;
        let expire = |log: &mut Log, retention| {
            while log.messages.get(log.gone).is_some_and(|sent| sent.at + retention <= now) {
                log.gone += 1;
            }
        };
        expire(&mut self.log, RETENTION);
        self.dead.iter_mut().for_each(|log| expire(log, DEAD_LETTER_RETENTION));
    }

    /// A restart, after which the leases go on, except those with a purged message, or have ended.
    pub(super) fn restart(&mut self, keeps_leases: bool) {
        for lease in &mut self.leases {
            let view = &self.views[lease.group][usize::from(lease.dead)];
            let is_whole = lease.positions.iter().all(|place| matches!(view.states[*place], MessageState::Out { .. }));
            lease.over |= !(keeps_leases && is_whole);
        }
        for state in self.views.iter_mut().flatten().flat_map(|view| &mut view.states) {
            // The number of failures is kept; their causes and times are lost.
            let forgotten = |past: Past| Past { failures: past.failures, ..Past::default() };
            *state = match *state {
                MessageState::Out { past, lease } if !self.leases[lease].over => {
                    MessageState::Out { past: forgotten(past), lease }
                }
                MessageState::Open { past } | MessageState::Out { past, .. } => {
                    MessageState::Open { past: forgotten(past) }
                }
                MessageState::Purged | MessageState::Settled => MessageState::Settled,
            };
        }
    }

    pub(super) fn counters(&self, group: usize) -> Counters {
        let open =
            |dead: bool| self.standings(group, dead).iter().filter(|(_, s, ..)| *s == Standing::Available).count();
        Counters {
            produced: (self.log.messages.len() - self.log.gone + self.delayed.len()) as u64,
            consumed: self.views[group][0].consumed,
            available: open(false) as u64,
            produced_dead: self.dead[group].messages.len() as u64,
            available_dead: open(true) as u64,
        }
    }

    /// The unsettled messages in order: leased or available ones, then delayed ones.
    pub(super) fn standings(&self, group: usize, dead: bool) -> Vec<(String, Standing, u32, Option<Death>)> {
        let log = if dead { &self.dead[group] } else { &self.log };
        let mut standings = Vec::new();
        let mut show = |sent: &Sent, standing, failures| {
            standings.push((sent.text.clone(), standing, failures, sent.death.clone()));
        };
        let states = &self.views[group][usize::from(dead)].states;
        for (sent, state) in log.messages.iter().zip(states).skip(log.gone) {
            match state {
                MessageState::Open { past } => show(sent, Standing::Available, past.failures),
                MessageState::Out { past, .. } => show(sent, Standing::Leased, past.failures),
                MessageState::Purged | MessageState::Settled => {}
            }
        }
        if !dead {
            let waiting = self.delayed.iter().map(|sent| (sent.text.clone(), Standing::Delayed, 0, None));
            standings.extend(waiting);
        }
        standings
    }
}
