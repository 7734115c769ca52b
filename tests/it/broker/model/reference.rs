//! The model: every message with its standing in every group, nothing clever.

use std::time::Duration;

use dms_worker::{
    queue::{QueueMode, TagFilter},
    server::broker::embedded::FailureCounting,
};

use super::{DEAD_LETTER_RETENTION, RETENTION, Setting};

/// Where a message stands, as a look inside shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Available,
    Leased,
    Delayed,
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
}

/// A message for one reader.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Open { failures: u32 },
    Out { failures: u32, lease: usize },
    Settled,
}

/// A group's view of a log, position by position.
#[derive(Default)]
struct View {
    fates: Vec<Fate>,
    consumed: u64,
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
        let sent = Sent { text, tags, at: self.now + delay };
        if delay.is_zero() { self.enter(sent) } else { self.delayed.push(sent) }
    }

    fn enter(&mut self, sent: Sent) {
        for (view, rule) in self.views.iter_mut().zip(&self.rules) {
            let passes = rule.matches(&sent.tags);
            view[0].fates.push(if passes { Fate::Open { failures: 0 } } else { Fate::Settled });
        }
        self.log.messages.push(sent);
    }

    /// The lowest open positions, in order; none while a FIFO group has a batch out.
    pub(super) fn take(&mut self, group: usize, dead: bool, max: usize, ack_wait: Duration) -> Vec<String> {
        let lease = self.leases.len();
        let log = if dead { &self.dead[group] } else { &self.log };
        let view = &mut self.views[group][usize::from(dead)];
        if self.fifo && view.fates.iter().any(|fate| matches!(fate, Fate::Out { .. })) {
            return Vec::new();
        }
        let mut positions = Vec::new();
        for (position, fate) in view.fates.iter_mut().enumerate().skip(log.gone) {
            if let Fate::Open { failures } = *fate
                && positions.len() < max
            {
                *fate = Fate::Out { failures, lease };
                positions.push(position);
            }
        }
        let texts: Vec<_> = positions.iter().map(|position| log.messages[*position].text.clone()).collect();
        if !texts.is_empty() {
            self.leases.push(Lease { group, dead, positions, until: self.now + ack_wait, over: false });
        }
        texts
    }

    /// Judges a batch by its own order; `None` where its lease is over.
    pub(super) fn ack(&mut self, lease: usize, said: &[Option<bool>]) -> Option<(usize, usize)> {
        if self.leases[lease].over {
            return None;
        }
        let done = said.iter().take_while(|said| **said == Some(true)).count();
        self.end(lease, done, |position| position == done);
        Some((done, self.leases[lease].positions.len() - done))
    }

    fn end(&mut self, lease: usize, done: usize, culprit: impl Fn(usize) -> bool) {
        let Lease { group, dead, ref positions, ref mut over, .. } = self.leases[lease];
        *over = true;
        for (place, position) in positions.clone().into_iter().enumerate() {
            let Fate::Out { failures, .. } = self.views[group][usize::from(dead)].fates[position] else { continue };
            let counts = culprit(place) || self.counting == FailureCounting::Batch;
            let failures = failures + u32::from(counts);
            let fate = if place < done {
                self.views[group][usize::from(dead)].consumed += 1;
                Fate::Settled
            } else if counts && !dead && self.max_consume_count.is_some_and(|most| failures >= most) {
                let Sent { text, .. } = self.log.messages[position].clone();
                self.dead[group].messages.push(Sent { text, tags: Vec::new(), at: self.now });
                self.views[group][1].fates.push(Fate::Open { failures: 0 });
                Fate::Settled
            } else {
                Fate::Open { failures }
            };
            self.views[group][usize::from(dead)].fates[position] = fate;
        }
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
                    self.end(lease, 0, |_| true);
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

    /// Leases are gone, and count for nothing.
    pub(super) fn restart(&mut self) {
        for fate in self.views.iter_mut().flatten().flat_map(|view| &mut view.fates) {
            if let Fate::Out { failures, .. } = *fate {
                *fate = Fate::Open { failures };
            }
        }
        self.leases.iter_mut().for_each(|lease| lease.over = true);
    }

    pub(super) fn counters(&self, group: usize) -> Counters {
        let open =
            |dead: bool| self.standings(group, dead).iter().filter(|(_, s, _)| *s == Standing::Available).count();
        Counters {
            produced: (self.log.messages.len() - self.log.gone + self.delayed.len()) as u64,
            consumed: self.views[group][0].consumed,
            available: open(false) as u64,
            produced_dead: self.dead[group].messages.len() as u64,
            available_dead: open(true) as u64,
        }
    }

    /// What is not settled, in order: out or available, then what is not due.
    pub(super) fn standings(&self, group: usize, dead: bool) -> Vec<(String, Standing, u32)> {
        let log = if dead { &self.dead[group] } else { &self.log };
        let mut standings = Vec::new();
        let fates = &self.views[group][usize::from(dead)].fates;
        for (sent, fate) in log.messages.iter().zip(fates).skip(log.gone) {
            match fate {
                Fate::Open { failures } => standings.push((sent.text.clone(), Standing::Available, *failures)),
                Fate::Out { failures, .. } => standings.push((sent.text.clone(), Standing::Leased, *failures)),
                Fate::Settled => {}
            }
        }
        if !dead {
            let waiting = self.delayed.iter().map(|sent| (sent.text.clone(), Standing::Delayed, 0));
            standings.extend(waiting);
        }
        standings
    }
}
