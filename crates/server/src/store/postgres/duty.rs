//! Whether this server may act as the owner, by its own monotonic clock. Pure, except for reading that clock.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

/// A time of a monotonic clock that also counts while the machine is suspended, because the clocks of other servers count then, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        #[cfg(target_os = "linux")]
        let clock = ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let clock = ClockId::Monotonic;
        let time = clock_gettime(clock);
        let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
        Self(Duration::new(seconds, nanos))
    }

    /// How long it is from an earlier moment to this one.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// A moment that is later by this much.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }

    /// In nanoseconds since the clock began.
    pub(crate) fn nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// One period in which this server owns a shard.
#[derive(Debug)]
pub(crate) struct Duty {
    /// The shard.
    pub(crate) shard: i32,
    /// The fence of its commits.
    pub(crate) epoch: i64,
    /// Until when it may serve, in nanoseconds.
    until: AtomicU64,
    lost: AtomicBool,
    ended: Notify,
    /// The server that takes the shard next, if it is handed over.
    pub(crate) next: OnceLock<String>,
}

impl Duty {
    /// A period that lasts until `until`, if it is not extended.
    pub(crate) fn new(shard: i32, epoch: i64, until: Moment) -> Self {
        let until = AtomicU64::new(until.nanos());
        Self { shard, epoch, until, lost: AtomicBool::new(false), ended: Notify::new(), next: OnceLock::new() }
    }

    /// Whether messages may be handed out now: no other server can have become the owner.
    pub(crate) fn may_serve(&self) -> bool {
        !self.is_lost() && Moment::now().nanos() < self.until.load(Ordering::Acquire)
    }

    /// Extends the period to `until`, after a beat was answered: others wait at least until then.
    pub(crate) fn extend(&self, until: Moment) {
        // The later of the two, because answers may arrive late.
        self.until.fetch_max(until.nanos(), Ordering::AcqRel);
    }

    /// Another server may be the owner from now on. This does not change again.
    pub(crate) fn lose(&self) {
        // Stored before the notification, so that woken tasks see it.
        self.lost.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// Whether the period has ended.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Returns when the period has ended.
    pub(crate) async fn lost(&self) {
        let ended = self.ended.notified();
        tokio::pin!(ended);
        // Registered before looking, so that an end between the two is not missed.
        ended.as_mut().enable();
        if !self.is_lost() {
            ended.await;
        }
    }
}

/// The owner as PostgreSQL has it. Each server reads it with every beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The owner's id; none after an orderly release.
    pub(crate) id: Option<String>,
    /// Its name, if it is registered.
    pub(crate) name: Option<String>,
    /// The number of its period.
    pub(crate) epoch: i64,
    /// How often it has beaten; none where it is not registered any more.
    pub(crate) beat: Option<i64>,
}

/// The status of the owner of a shard, as the watch sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerStatus {
    /// It may be alive.
    Alive,
    /// There is no owner, so the shard can be taken at once.
    Free,
    /// It has not beaten for too long, so the shard can be taken.
    Dead,
}

impl OwnerStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Free => "free",
            Self::Dead => "dead",
        }
    }
}

/// Decides that the owner of a shard is dead, by this server's own clock alone.
#[derive(Debug)]
pub(crate) struct Watch {
    dead_after: Duration,
    /// The owner when it was last read, and since when it has not changed.
    seen: Option<(Owner, Moment)>,
}

impl Watch {
    /// Creates a watch that declares an owner dead after `dead_after` without a beat.
    pub(crate) fn new(dead_after: Duration) -> Self {
        Self { dead_after, seen: None }
    }

    /// Starts the time again, after a read that failed or was slow. So an outage of PostgreSQL does not make owners dead.
    pub(crate) fn restart(&mut self) {
        self.seen = None;
    }

    /// Judges the owner that was read at `now`.
    pub(crate) fn look(&mut self, me: &str, owner: &Owner, now: Moment) -> OwnerStatus {
        // A take-over of ours whose answer was lost is begun again.
        if owner.id.is_none() || owner.beat.is_none() || owner.id.as_deref() == Some(me) {
            return OwnerStatus::Free;
        }
        match &self.seen {
            // Any change of the row is a sign of life. Only equality counts, measured with this server's clock:
            // clocks of other machines, and of PostgreSQL, may be wrong or jump.
            Some((seen, since)) if seen == owner => match now.since(*since) >= self.dead_after {
                true => OwnerStatus::Dead,
                false => OwnerStatus::Alive,
            },
            _ => {
                self.seen = Some((owner.clone(), now));
                OwnerStatus::Alive
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "me";

    fn owner(beat: i64) -> Owner {
        Owner { id: Some("it".to_owned()), name: None, epoch: 4, beat: Some(beat) }
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn an_owner_that_beats_lives_and_one_that_does_not_is_dead_after_the_time() {
        let mut watch = Watch::new(Duration::from_secs(6));
        for second in 0..100_u32 {
            assert_eq!(watch.look(ME, &owner(i64::from(second)), at(u64::from(second))), OwnerStatus::Alive);
        }
        for second in 100..105 {
            assert_eq!(watch.look(ME, &owner(99), at(second)), OwnerStatus::Alive, "{second}");
        }
        assert_eq!(watch.look(ME, &owner(99), at(105)), OwnerStatus::Dead);
    }

    #[test]
    fn a_failed_read_begins_the_watch_again() {
        let mut watch = Watch::new(Duration::from_secs(6));
        assert_eq!(watch.look(ME, &owner(1), at(0)), OwnerStatus::Alive);
        watch.restart();
        assert_eq!(watch.look(ME, &owner(1), at(30)), OwnerStatus::Alive);
        assert_eq!(watch.look(ME, &owner(1), at(35)), OwnerStatus::Alive);
        assert_eq!(watch.look(ME, &owner(1), at(36)), OwnerStatus::Dead);
    }

    #[test]
    fn a_shard_without_a_registered_owner_is_free() {
        let mut watch = Watch::new(Duration::from_secs(6));
        assert_eq!(watch.look(ME, &Owner { id: None, ..owner(1) }, at(0)), OwnerStatus::Free);
        assert_eq!(watch.look(ME, &Owner { beat: None, ..owner(1) }, at(0)), OwnerStatus::Free);
        assert_eq!(watch.look("it", &owner(1), at(0)), OwnerStatus::Free, "a take-over of ours whose answer was lost");
    }

    #[test]
    fn a_period_ends_by_the_clock_or_for_good() {
        let duty = Duty::new(0, 1, Moment::now().after(Duration::from_secs(60)));
        assert!(duty.may_serve());
        duty.lose();
        assert!(!duty.may_serve());
        let over = Duty::new(0, 1, Moment::now());
        assert!(!over.may_serve());
        over.extend(Moment::now().after(Duration::from_secs(60)));
        assert!(over.may_serve());
        over.extend(Moment::now());
        assert!(over.may_serve(), "an answer that comes late shortens nothing");
    }
}
