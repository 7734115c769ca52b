//! [`ConnectionState`]: who is at the other end of a connection, as far as that is known.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    sync::Notify,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::millis,
    net::{half_close::Progress, peer::network, waiting_poll::WaitingPoll},
};

/// A connection as its listener and its requests see it.
#[derive(Debug)]
pub struct ConnectionState {
    peer: IpAddr,
    network: IpAddr,
    /// Whether a request on it has shown credentials that are right.
    known: AtomicBool,
    /// Whether the answer in progress is only held back.
    held_back: AtomicBool,
    began: Instant,
    /// When it was last answered, in milliseconds after `began`.
    answered: AtomicU64,
    /// How far the request in progress is.
    pub(crate) progress: Arc<Progress>,
    /// The consume call that waits on it.
    pub(crate) waiting_poll: WaitingPoll,
    /// Set off when its slot is given to another.
    pub(crate) displaced: CancellationToken,
    /// Hears when it may be displaced.
    idle: Arc<Notify>,
}

impl ConnectionState {
    /// A new connection from this address; `idle` hears when a request on it is answered.
    pub(crate) fn new(peer: IpAddr, idle: Arc<Notify>) -> Self {
        Self {
            peer,
            network: network(peer),
            known: AtomicBool::new(false),
            held_back: AtomicBool::new(false),
            began: Instant::now(),
            answered: AtomicU64::new(0),
            progress: Arc::default(),
            waiting_poll: WaitingPoll::default(),
            displaced: CancellationToken::new(),
            idle,
        }
    }

    /// The address at the other end.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// What the share of its peer is counted by.
    pub(crate) fn network(&self) -> IpAddr {
        self.network
    }

    /// A request on it has shown credentials that are right.
    pub fn has_authenticated(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Whether one has.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// A request on it is answered.
    pub(crate) fn answered(&self) {
        self.progress.answered();
        self.held_back.store(false, Ordering::Relaxed);
        let after = millis(self.began.elapsed());
        self.answered.store(after, Ordering::Relaxed);
        self.idle.notify_one();
    }

    /// The answer in progress is there and is held back for a while.
    pub(crate) fn hold_back(&self) {
        self.held_back.store(true, Ordering::Relaxed);
        self.idle.notify_one();
    }

    /// Since when it has had no answer: since the last one, or since its beginning.
    pub(crate) fn quiet_since(&self) -> Instant {
        self.began + Duration::from_millis(self.answered.load(Ordering::Relaxed))
    }

    /// Whether its slot may be given to another. A request that is being worked on is never cut; one that is still
    /// arriving, or whose answer is held back, only from a stranger.
    pub(crate) fn is_displaceable(&self) -> bool {
        if self.waiting_poll.is_leaving(Instant::now()) {
            return false;
        }
        let working = self.progress.is_answering() && !self.held_back.load(Ordering::Relaxed);
        !(working || self.is_known() && self.progress.is_busy())
    }
}
