//! [`PollPermit`]: the permission to send one poll.
//!
//! Everything that holds a poll back is waited for in [`PollPermit::acquire`], in this order:
//!
//! 1. a pause by the operator;
//! 2. the backlog of acknowledgements, because fetching more would only make more of them late;
//! 3. the rate limit;
//! 4. the limit of messages in flight: the concurrency, the bytes, and temporary caps;
//! 5. the limit that the worker shares with others, if there is one;
//! 6. the isolation of failed messages, which may wait for a failing acknowledgement, or allow one message only.

use futures_util::FutureExt;

use crate::{
    message::ReceivedMessage,
    worker::{
        fetch::rate_limit::{TokenBucket, Tokens},
        isolation::{IsolationPermit, quarantine::MessageTrace},
        limit::inflight::Reservation,
        pipeline::context::Context,
    },
};

/// How many acknowledgements may be in progress for each poll that may be in flight, and the number of polls to assume
/// at least.
const ACKS_PER_POLL: usize = 2;
const MIN_POLLS: usize = 8;

/// The permission to send one poll. Dropped, it releases everything.
#[derive(Debug)]
pub(crate) struct PollPermit<'a> {
    tokens: RateTokens<'a>,
    reservation: Reservation,
    isolation: IsolationPermit<'a>,
}

impl<'a> PollPermit<'a> {
    /// Waits until a poll may be sent. `want`, the number of messages to ask for, is called after the first two waits.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it has taken nothing.
    pub(crate) async fn acquire(context: &'a Context, want: impl Fn() -> usize) -> Self {
        let control = &context.control;
        loop {
            control.until_resumed().await;
            context.acks.below(context.max_polls().max(MIN_POLLS) * ACKS_PER_POLL).await;
            // Before the capacity, because the wait for a token may be long, and others can use the capacity meanwhile.
            let tokens = RateTokens::take(&control.rate_limit, want()).await;
            let (reservation, isolation) = reserve(context, tokens.count()).await;
            // The rate may have changed during the wait for capacity.
            if tokens.are_valid() {
                return Self { tokens, reservation, isolation };
            }
        }
    }

    /// The number of messages that the poll may ask for.
    pub(crate) fn messages(&self) -> usize {
        self.reservation.messages()
    }

    /// Whether the poll is for quarantined messages.
    pub(crate) fn is_for_suspects(&self) -> bool {
        self.isolation.is_for_suspects()
    }

    /// Whether a failing acknowledgement has to wait for the poll.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.isolation.is_waited_for()
    }

    /// Releases what the isolation does not allow to use.
    pub(crate) fn shrink(&mut self) {
        let allowed = self.isolation.want();
        self.tokens.shrink(allowed);
        self.reservation.shrink(allowed);
    }

    /// Records the messages that the poll has received, and returns the capacity for them.
    pub(crate) fn answered(mut self, messages: &[ReceivedMessage]) -> Reservation {
        self.tokens.spend(messages.len());
        self.isolation.answered(&messages.iter().map(MessageTrace::of).collect::<Vec<_>>());
        self.reservation
    }
}

/// Capacity for up to `want` messages, and the permission of the isolation to use it.
async fn reserve(context: &Context, want: usize) -> (Reservation, IsolationPermit<'_>) {
    let inflight = &context.control.inflight;
    loop {
        let reservation = inflight.reserve(want).await;
        if !inflight.is_shared() {
            let isolation = context.isolation.admit(reservation.messages()).await;
            return (reservation, isolation);
        }
        if let Some(isolation) = context.isolation.admit(reservation.messages()).now_or_never() {
            return (reservation, isolation);
        }
        // The workers that share the limit can use the capacity while this one waits.
        drop(reservation);
        drop(context.isolation.admit(1).await);
    }
}

/// Tokens of the rate limit. Dropped, the tokens that were not spent go back.
#[derive(Debug)]
struct RateTokens<'a> {
    bucket: &'a TokenBucket,
    tokens: Tokens,
}

impl<'a> RateTokens<'a> {
    async fn take(bucket: &'a TokenBucket, want: usize) -> Self {
        Self { bucket, tokens: bucket.take(want).await }
    }

    fn count(&self) -> usize {
        self.tokens.count
    }

    /// Whether the rate is still the one under which they were taken.
    fn are_valid(&self) -> bool {
        self.bucket.allows(self.tokens)
    }

    /// Gives back all tokens but `keep`.
    fn shrink(&mut self, keep: usize) {
        let (kept, spare) = self.tokens.split(keep);
        self.tokens = kept;
        self.bucket.give_back(spare);
    }

    fn spend(&mut self, count: usize) {
        self.tokens = self.tokens.split(count).1;
    }
}

impl Drop for RateTokens<'_> {
    fn drop(&mut self) {
        self.bucket.give_back(self.tokens);
    }
}
