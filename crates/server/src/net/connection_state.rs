//! [`ConnectionState`]: the peer of a connection and how far its request is.

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

/// The state of one connection, shared by its listener and its requests.
#[derive(Debug)]
pub struct ConnectionState {
    peer: IpAddr,
    network: IpAddr,
    /// Whether a request on it has shown valid credentials.
    known: AtomicBool,
    /// Whether the answer in progress is only being delayed.
    delayed: AtomicBool,
    /// Whether its last consume call had to wait for messages, so that the next one probably has to wait, too.
    waits: AtomicBool,
    began: Instant,
    /// When its last request was answered, in milliseconds after `began`.
    answered: AtomicU64,
    /// How far the request in progress is.
    pub(crate) progress: Arc<Progress>,
    /// The consume call that waits on it.
    pub(crate) waiting_poll: WaitingPoll,
    /// Cancelled when its slot is given to another connection.
    pub(crate) displaced: CancellationToken,
    /// Notified when the connection may be displaced.
    idle: Arc<Notify>,
}

impl ConnectionState {
    /// A new connection from `peer`. `idle` is notified when a request on it is answered.
    pub(crate) fn new(peer: IpAddr, idle: Arc<Notify>) -> Self {
        Self {
            peer,
            network: network(peer),
            known: AtomicBool::new(false),
            delayed: AtomicBool::new(false),
            waits: AtomicBool::new(true),
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

    /// The network by which the share of its peer is counted.
    pub(crate) fn network(&self) -> IpAddr {
        self.network
    }

    /// Notes that a request on it has shown valid credentials.
    pub fn has_authenticated(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Whether a request on it has shown valid credentials.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Notes that a request on it is answered.
    pub(crate) fn answered(&self) {
        self.progress.answered();
        self.delayed.store(false, Ordering::Relaxed);
        let after = millis(self.began.elapsed());
        self.answered.store(after, Ordering::Relaxed);
        self.idle.notify_one();
    }

    /// Notes whether a consume call on it had to wait for messages.
    pub(crate) fn has_consumed(&self, waited: bool) {
        self.waits.store(waited, Ordering::Relaxed);
    }

    /// Whether its next consume call probably has to wait for messages.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Notes that the answer is ready and is being delayed.
    pub(crate) fn hold_back(&self) {
        self.delayed.store(true, Ordering::Relaxed);
        self.idle.notify_one();
    }

    /// When its last request was answered, or when the connection began.
    pub(crate) fn quiet_since(&self) -> Instant {
        self.began + Duration::from_millis(self.answered.load(Ordering::Relaxed))
    }

    /// Whether its slot may be given to another connection. A request that is being answered is never cut. A request that is
    /// still arriving, or whose answer is delayed, is cut only if the peer is a stranger.
    pub(crate) fn is_displaceable(&self) -> bool {
        if self.waiting_poll.is_leaving(Instant::now()) {
            return false;
        }
        let working = self.progress.is_answering() && !self.delayed.load(Ordering::Relaxed);
        !(working || self.is_known() && self.progress.is_busy())
    }
}
