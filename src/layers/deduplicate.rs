//! Deduplication by a key of the user's: work that succeeded once is not done again.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::sleep;
use tower::Layer;

use super::around::{Around, AroundService};
use crate::worker::{Delivery, DeliveryService, HandlerError};

/// How often a key that is being handled elsewhere is looked at.
const GLANCE: Duration = Duration::from_millis(200);
/// How long a message is put off when that goes on.
const PUT_OFF: Duration = Duration::from_secs(1);

/// Proof that a key was claimed, and by which claim: a claim that has ended cannot touch the one that came after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    key: String,
    owner: String,
}

impl Token {
    /// The token of a claim of `key`, whose `owner` the store chose: a text that no other claim has.
    pub fn new(key: impl Into<String>, owner: impl Into<String>) -> Self {
        Self { key: key.into(), owner: owner.into() }
    }

    /// The token of a claim of `key` with a random owner of 128 bits, for stores that have no numbers of their own.
    pub fn random(key: impl Into<String>) -> Self {
        Self::new(key, format!("{:032x}", fastrand::u128(..)))
    }

    /// The key that was claimed.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What tells this claim from all others.
    pub fn owner(&self) -> &str {
        &self.owner
    }
}

/// What a store knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// Nobody had it: it is the caller's now, who shows this token later.
    New(Token),
    /// Somebody is at it.
    InProgress,
    /// It was done.
    Done,
}

/// Remembers keys: of work that is done, and of work in progress. Implement it on what all replicas share.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Claims a key in one step: of two callers at most one gets [`Claim::New`], with a token that no other claim has. The claim
    /// ends by itself after `lease`, should the claimer die; the key can then be claimed anew.
    ///
    /// # Errors
    /// Any: the message has failed.
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn StdError + Send + Sync>>;

    /// The work is done: the key is remembered for `keep`. Also when the claim has ended in the meantime, and whoever has the key
    /// now: done is done.
    ///
    /// # Errors
    /// Any: the message has failed although its work is done, and may be done again.
    async fn done(&self, token: &Token, keep: Duration) -> Result<(), Box<dyn StdError + Send + Sync>>;

    /// The work was not done: the key is free again if this very claim still has it. A claim that has ended changes nothing, neither a
    /// later claim nor what is done: compare the owner and delete in one step.
    ///
    /// # Errors
    /// Any: it is logged, and the claim ends by itself.
    async fn release(&self, token: &Token) -> Result<(), Box<dyn StdError + Send + Sync>>;
}

type KeyFn = dyn Fn(&Delivery) -> Option<String> + Send + Sync;

/// Acknowledges a message without calling the handler when work with the same key has succeeded before.
///
/// For messages that were sent twice: two messages with the same key, which the worker's own memory of finished work rightly
/// tells apart. A key is remembered only after success. While another message with the key is being handled, this one waits,
/// for half of what is left of its lease at most, and is then [deferred](HandlerError::defer). Messages without a key are handled
/// each time.
///
/// ```
/// # use std::time::Duration;
/// # use dms_worker::layers::{Deduplicate, MemoryStore};
/// let layer = Deduplicate::by_attribute("order_id", MemoryStore::new(10_000), Duration::from_secs(3600));
/// # let _ = layer;
/// ```
#[derive(Clone)]
pub struct Deduplicate {
    key: Arc<KeyFn>,
    store: Arc<dyn KeyStore>,
    keep: Duration,
}

impl Deduplicate {
    /// Goes by the key that `key` gives a message, remembered in `store` for `keep` after success.
    pub fn new(
        key: impl Fn(&Delivery) -> Option<String> + Send + Sync + 'static,
        store: impl KeyStore,
        keep: Duration,
    ) -> Self {
        Self { key: Arc::new(key), store: Arc::new(store), keep }
    }

    /// Goes by the text of an attribute.
    pub fn by_attribute(name: impl Into<String>, store: impl KeyStore, keep: Duration) -> Self {
        let name = name.into();
        let key = move |delivery: &Delivery| delivery.attributes().text(&name).map(Cow::into_owned);
        Self::new(key, store, keep)
    }

    /// Claims the key; `None` when its work is done.
    async fn claim(&self, key: String, delivery: &Delivery) -> Result<Option<Claimed>, HandlerError> {
        let patience = delivery.remaining() / 2;
        loop {
            match self.store.claim(&key, delivery.remaining()).await.map_err(HandlerError::retry)? {
                Claim::New(token) => return Ok(Some(Claimed { store: self.store.clone(), token: Some(token) })),
                Claim::Done => return Ok(None),
                Claim::InProgress if delivery.remaining() > patience => sleep(GLANCE).await,
                Claim::InProgress => return Err(HandlerError::defer(PUT_OFF)),
            }
        }
    }
}

impl fmt::Debug for Deduplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deduplicate").field("keep", &self.keep).finish_non_exhaustive()
    }
}

/// A key that is ours. Dropped before the work is done (a failure, a panic, the deadline), it is free again.
struct Claimed {
    store: Arc<dyn KeyStore>,
    token: Option<Token>,
}

impl Claimed {
    async fn done(mut self, keep: Duration) -> Result<(), HandlerError> {
        let Some(token) = &self.token else { return Ok(()) };
        self.store.done(token, keep).await.map_err(HandlerError::retry)?;
        self.token = None;
        Ok(())
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        // Without a runtime everything is ending, and the claim ends by itself.
        let (Some(token), Ok(runtime)) = (self.token.take(), tokio::runtime::Handle::try_current()) else { return };
        let store = self.store.clone();
        runtime.spawn(async move {
            if let Err(error) = store.release(&token).await {
                tracing::warn!(
                    key = token.key(),
                    error,
                    "a key could not be released: it is taken until its claim ends"
                );
            }
        });
    }
}

impl<S> Layer<S> for Deduplicate {
    type Service = AroundService<S, Self>;

    fn layer(&self, inner: S) -> AroundService<S, Self> {
        AroundService::new(inner, Arc::new(self.clone()))
    }
}

impl Around for Deduplicate {
    async fn around(self: Arc<Self>, delivery: Delivery, inner: impl DeliveryService) -> Result<(), HandlerError> {
        let Some(key) = (self.key)(&delivery) else { return inner.deliver(delivery).await };
        let Some(claimed) = self.claim(key, &delivery).await? else {
            tracing::debug!(queue = delivery.queue(), "a duplicate: its work is done");
            return Ok(());
        };
        inner.deliver(delivery).await?;
        claimed.done(self.keep).await
    }
}
