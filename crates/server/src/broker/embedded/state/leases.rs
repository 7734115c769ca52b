//! The leases of all groups: handed out, extended after pauses, ended.

use std::{mem, time::Duration};

use tokio::time::Instant;

use crate::{
    broker::embedded::state::{
        BrokerState,
        lease::{Lease, LeaseEnd, LeasedEntry},
        pause::Pause,
        receipt::NewReceipts,
    },
    store::{CursorId, ReadLimit},
};
use dms_protocol::{internal::text::brief, queue::ProjectId};

/// The maximum number of leases that lapse in one commit, and of the bytes of their messages, because all of them may become dead
/// letters.
const MAX_LAPSED: ReadLimit = ReadLimit { messages: 1_000, bytes: 4 * 1024 * 1024 };
/// The minimum time that a lease has left after a pause, because the requests waiting in the sockets have to be read first.
const MIN_REMAINING: Duration = Duration::from_secs(1);
/// A pause that is logged as a warning.
const LONG_PAUSE: Duration = Duration::from_secs(2);

impl BrokerState {
    /// Leases a batch from `began_ms` (`None` if it is not known here) until `deadline`.
    pub(crate) fn lease(
        &mut self,
        (project, cursor): (&ProjectId, CursorId),
        new_receipts: &NewReceipts,
        entries: Vec<LeasedEntry>,
        skipped: Vec<std::ops::Range<u64>>,
        (began_ms, deadline): (Option<i64>, Instant),
    ) -> Option<&Lease> {
        let leases = &mut self.cursors.get_mut(&cursor)?.leases;
        let number = self.next_lease;
        self.next_lease += 1;
        let seals = new_receipts.seals().take(entries.len()).collect();
        let project = project.clone();
        let lease = Lease {
            project,
            token: new_receipts.batch,
            seals,
            entries,
            skipped,
            began_ms,
            deadline,
            is_ending: false,
            is_operators: false,
        };
        // Counted from the moment of the lease until its end is stored, because the messages stay in memory as long.
        self.leased.add(&lease.project, cursor, lease.memory_bytes());
        self.tokens.insert(new_receipts.batch, (cursor, number));
        self.deadlines.insert((deadline, cursor, number));
        Some(leases.entry(number).or_insert(lease))
    }

    /// Marks every lease that is not ending as ending, to be released.
    pub(crate) fn take_open_leases(&mut self) -> Vec<(CursorId, u64, LeaseEnd)> {
        let mut open = Vec::new();
        for (cursor, leases) in self.cursors.iter_mut().map(|(number, cursor)| (*number, &mut cursor.leases)) {
            for (number, lease) in leases.iter_mut().filter(|(_, lease)| !lease.is_ending) {
                lease.is_ending = true;
                open.push((cursor, *number, LeaseEnd::Released));
            }
        }
        open
    }

    /// Forgets the receipts and the deadline of a lease that has ended.
    pub(crate) fn remove_lease(&mut self, cursor: CursorId, number: u64, lease: &Lease) {
        self.leased.remove(&lease.project, cursor, lease.memory_bytes());
        self.tokens.remove(&lease.token);
        self.deadlines.remove(&(lease.deadline, cursor, number));
    }

    /// Records that the process runs, and extends the open leases by a pause that has just ended. Everything that compares leases with
    /// the time calls this first, because after a pause it may run before the heartbeat does.
    pub(crate) fn notice_pause(&mut self) {
        let Some(pause) = self.pauses.beat() else { return };
        // Without leases there is no heartbeat, and the gap says nothing.
        if self.deadlines.is_empty() {
            return;
        }
        let (paused, leases) = (pause.length, self.deadlines.len());
        if paused >= LONG_PAUSE {
            tracing::warn!(paused = %brief(paused), leases, "the process did not run for a while; open leases are extended by as much");
        } else {
            tracing::debug!(
                paused = %brief(paused),
                leases,
                "the process did not run for a moment; open leases are extended by as much"
            );
        }
        self.extend_leases(&pause, Instant::now());
    }

    fn extend_leases(&mut self, pause: &Pause, now: Instant) {
        for (deadline, cursor, number) in mem::take(&mut self.deadlines) {
            let mut extended = deadline;
            // A lease that had expired before the pause is lost to its consumer anyway.
            if deadline > pause.began {
                extended = (deadline + pause.length).max(now + MIN_REMAINING);
            }
            let lease = self.cursors.get_mut(&cursor).and_then(|cursor| cursor.leases.get_mut(&number));
            if let Some(lease) = lease {
                lease.deadline = extended;
                self.deadlines.insert((extended, cursor, number));
            }
        }
    }

    /// Marks the leases that are over at `now` as ending.
    pub(crate) fn take_lapsed(&mut self, now: Instant) -> Vec<(CursorId, u64, LeaseEnd)> {
        // Sorted by deadline, so this looks at lapsed leases only.
        let over = self.deadlines.iter().take_while(|(deadline, ..)| *deadline <= now);
        let open = over.filter(|(_, cursor, lease)| !self.is_ending_or_gone(*cursor, *lease));
        let mut bytes = 0;
        let fits = |&&(_, cursor, lease): &&(Instant, CursorId, u64)| {
            let fits = bytes < MAX_LAPSED.bytes;
            bytes += self.bytes_of_lease(cursor, lease);
            fits
        };
        let lapsed: Vec<_> = open
            .take(MAX_LAPSED.messages)
            .take_while(fits)
            .map(|(_, cursor, lease)| (*cursor, *lease, self.lapse_of(*cursor, *lease)))
            .collect();
        for (cursor, lease, _) in &lapsed {
            if let Some(lease) = self.cursors.get_mut(cursor).and_then(|cursor| cursor.leases.get_mut(lease)) {
                // From now on an acknowledgement is refused, so the lease cannot end twice.
                lease.is_ending = true;
            }
        }
        lapsed
    }

    fn find_lease(&self, cursor: CursorId, lease: u64) -> Option<&Lease> {
        self.cursors.get(&cursor)?.leases.get(&lease)
    }

    /// How a lease ends by its deadline.
    fn lapse_of(&self, cursor: CursorId, lease: u64) -> LeaseEnd {
        let is_operators = self.find_lease(cursor, lease).is_some_and(|lease| lease.is_operators);
        if is_operators { LeaseEnd::Released } else { LeaseEnd::Lapsed }
    }

    fn bytes_of_lease(&self, cursor: CursorId, lease: u64) -> usize {
        self.find_lease(cursor, lease).map_or(0, Lease::memory_bytes)
    }

    pub(crate) fn is_ending_or_gone(&self, cursor: CursorId, lease: u64) -> bool {
        self.find_lease(cursor, lease).is_none_or(|lease| lease.is_ending)
    }
}
