//! [`Deduplicate`]: does the work of each key once.

use std::{
    borrow::Cow,
    error::Error as StdError,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use tower::Layer;

use super::around::{Around, AroundService};
use crate::{
    json,
    worker::{Delivery, DeliveryService, HandlerError, needs_attribute},
};

/// How often a key that is in progress elsewhere is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long a message waits until a store that failed is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// The delay of a message whose key stays in progress.
const DEFER_DELAY: Duration = Duration::from_secs(1);

/// A claim of a key. It identifies the claim, so that an expired claim cannot end a later one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    key: String,
    owner: String,
}

impl Token {
    /// The token of a claim of `key`. `owner` is a text, chosen by the store, that is different for each claim.
    pub fn new(key: impl Into<String>, owner: impl Into<String>) -> Self {
        Self { key: key.into(), owner: owner.into() }
    }

    /// The token of a claim of `key` with a random owner of 128 bits.
    pub fn random(key: impl Into<String>) -> Self {
        Self::new(key, format!("{:032x}", fastrand::u128(..)))
    }

    /// The key that was claimed.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The text that identifies the claim.
    pub fn owner(&self) -> &str {
        &self.owner
    }
}

/// The answer of a [`KeyStore`] to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// The key was free and is claimed now, with this token.
    New(Token),
    /// The key is in progress elsewhere.
    InProgress,
    /// The work of the key is done.
    Done,
}

/// Stores the keys of work that is done or in progress: [`MemoryStore`](super::MemoryStore) in this process,
/// `PostgresStore` (feature `postgres`) and `RedisStore` (feature `redis`) for all replicas. Implement it for another
/// database.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Claims a key atomically: of two callers at most one gets [`Claim::New`], with a unique token. The claim expires
    /// after `lease`, in case its owner dies.
    ///
    /// # Errors
    /// If the store cannot be used now. The message waits and is then handed back, without a failure counted.
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn StdError + Send + Sync>>;

    /// Records that the work is done, for `keep`. This holds even if the claim has expired and the key is claimed by
    /// another.
    ///
    /// # Errors
    /// If the store cannot be used now. It is asked again while the lease lasts; then the message fails, and its work is done again.
    async fn done(&self, token: &Token, keep: Duration) -> Result<(), Box<dyn StdError + Send + Sync>>;

    /// Frees the key after failed work, if this claim still has it. Compare the owner and delete atomically, so that an
    /// expired claim changes neither a later claim nor finished work.
    ///
    /// # Errors
    /// An error is logged, and the claim expires.
    async fn release(&self, token: &Token) -> Result<(), Box<dyn StdError + Send + Sync>>;
}

#[async_trait]
impl<S: KeyStore + ?Sized> KeyStore for Arc<S> {
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn StdError + Send + Sync>> {
        (**self).claim(key, lease).await
    }

    async fn done(&self, token: &Token, keep: Duration) -> Result<(), Box<dyn StdError + Send + Sync>> {
        (**self).done(token, keep).await
    }

    async fn release(&self, token: &Token) -> Result<(), Box<dyn StdError + Send + Sync>> {
        (**self).release(token).await
    }
}

type KeyFn = dyn Fn(&Delivery) -> Option<String> + Send + Sync;

/// Acknowledges a message without a call of the handler if the work of its key has succeeded before.
///
/// Use it for duplicates, which are different messages with the same key. (The worker itself recognises redeliveries of
/// one message.) A key is stored only after success. While another message with the same key is in progress, a message
/// waits for at most half of its remaining lease and is then [deferred](HandlerError::defer). Messages without a key
/// are always handled.
///
/// While the store cannot be used, no message with a key is handled, and none uses up an attempt: each waits for at most half of its
/// lease and is then [handed back](HandlerError::release).
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
    /// The attribute that has the key, if one has it.
    attribute: Option<Arc<str>>,
    store: Arc<dyn KeyStore>,
    keep: Duration,
    health: Arc<StoreHealth>,
}

/// Whether the store works, for the log and to find out whether an error is about one key alone. All clones of a layer share it.
#[derive(Debug, Default)]
struct StoreHealth {
    /// The number of claims that the store has answered.
    answers: AtomicU64,
    is_down: AtomicBool,
}

/// The error of a store.
#[derive(Debug, thiserror::Error)]
#[error("the store of deduplication keys cannot be used: {0}")]
struct StoreFailed(#[source] Box<dyn StdError + Send + Sync>);

impl StoreHealth {
    /// Notes the answer of a call. Of many messages that find the store down, and of those that find it back, one says so.
    fn note<T>(&self, answer: Result<T, Box<dyn StdError + Send + Sync>>, queue: &str) -> Result<T, StoreFailed> {
        match answer {
            Ok(answer) => {
                self.answers.fetch_add(1, Relaxed);
                if self.is_down.load(Relaxed) && self.is_down.swap(false, Relaxed) {
                    tracing::info!(queue, "the store of deduplication keys works again");
                }
                Ok(answer)
            }
            Err(error) => {
                if !self.is_down.swap(true, Relaxed) {
                    tracing::warn!(
                        queue,
                        error,
                        "the store of deduplication keys cannot be used: messages wait for it, and no failure is counted"
                    );
                }
                Err(StoreFailed(error))
            }
        }
    }
}

impl Deduplicate {
    /// Deduplicates by the key that `key` returns. `store` keeps it for `keep` after success.
    pub fn new(
        key: impl Fn(&Delivery) -> Option<String> + Send + Sync + 'static,
        store: impl KeyStore,
        keep: Duration,
    ) -> Self {
        Self { key: Arc::new(key), attribute: None, store: Arc::new(store), keep, health: Arc::default() }
    }

    /// Deduplicates by the text of an attribute. Refused over ROMA Connect MQS, whose messages have no attributes.
    pub fn by_attribute(name: impl Into<String>, store: impl KeyStore, keep: Duration) -> Self {
        let name: Arc<str> = name.into().into();
        let attribute = Some(Arc::clone(&name));
        let key = move |delivery: &Delivery| delivery.attributes().text(&name).map(Cow::into_owned);
        Self { attribute, ..Self::new(key, store, keep) }
    }

    /// Deduplicates by the text or number at a JSON pointer into the body, such as `/order/id`.
    pub fn by_pointer(pointer: impl Into<String>, store: impl KeyStore, keep: Duration) -> Self {
        let pointer = pointer.into();
        let key = move |delivery: &Delivery| json::text_at(delivery.body().as_str(), &pointer).map(Cow::into_owned);
        Self::new(key, store, keep)
    }

    /// Claims the key; `None` if its work is done.
    async fn claim(&self, key: String, delivery: &Delivery) -> Result<Option<Claimed>, HandlerError> {
        let least_remaining = delivery.remaining() / 2;
        let mut answers = None;
        loop {
            let is_early = delivery.remaining() > least_remaining;
            match self.health.note(self.store.claim(&key, delivery.remaining()).await, delivery.queue()) {
                Ok(Claim::New(token)) => return Ok(Some(Claimed { store: self.store.clone(), token: Some(token) })),
                Ok(Claim::Done) => return Ok(None),
                Ok(Claim::InProgress) if is_early => sleep(POLL_INTERVAL).await,
                Ok(Claim::InProgress) => return Err(HandlerError::defer(DEFER_DELAY)),
                Err(_) if is_early => {
                    answers.get_or_insert_with(|| self.health.answers.load(Relaxed));
                    sleep(STORE_PAUSE).await;
                }
                // The store answered other messages meanwhile: the error is about this one, which may be poison.
                Err(error) if answers.is_some_and(|answers| answers != self.health.answers.load(Relaxed)) => {
                    return Err(HandlerError::retry(error));
                }
                Err(error) => return Err(HandlerError::release(error)),
            }
        }
    }

    /// Records that the work is done. A store that fails is asked again until `until`, because without its answer the work is done
    /// again.
    async fn done(&self, mut claimed: Claimed, queue: &str, until: Instant) -> Result<(), HandlerError> {
        let Some(token) = &claimed.token else { return Ok(()) };
        while let Err(error) = self.health.note(self.store.done(token, self.keep).await, queue) {
            if Instant::now() + STORE_PAUSE >= until {
                return Err(HandlerError::retry(error));
            }
            sleep(STORE_PAUSE).await;
        }
        claimed.token = None;
        Ok(())
    }
}

impl fmt::Debug for Deduplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deduplicate").field("keep", &self.keep).finish_non_exhaustive()
    }
}

/// A claimed key. It is released if this is dropped before the work is done (after a failure, a panic or the deadline).
struct Claimed {
    store: Arc<dyn KeyStore>,
    token: Option<Token>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the claim expires.
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
        self.attribute.iter().for_each(|name| needs_attribute(name));
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
        let (queue, deadline) = (delivery.queue().to_owned(), delivery.deadline());
        inner.deliver(delivery).await?;
        let now = Instant::now();
        self.done(claimed, &queue, now + deadline.saturating_duration_since(now) / 2).await
    }
}
