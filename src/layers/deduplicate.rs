//! [`Deduplicate`]: does the work of each key once.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::sleep;
use tower::Layer;

use super::around::{Around, AroundService};
use crate::{
    json,
    worker::{Delivery, DeliveryService, HandlerError, needs_attribute},
};

/// How often a key that is in progress elsewhere is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
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
    /// An error fails the message.
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn StdError + Send + Sync>>;

    /// Records that the work is done, for `keep`. This holds even if the claim has expired and the key is claimed by
    /// another.
    ///
    /// # Errors
    /// An error fails the message, whose work may then be done again.
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
}

impl Deduplicate {
    /// Deduplicates by the key that `key` returns. `store` keeps it for `keep` after success.
    pub fn new(
        key: impl Fn(&Delivery) -> Option<String> + Send + Sync + 'static,
        store: impl KeyStore,
        keep: Duration,
    ) -> Self {
        Self { key: Arc::new(key), attribute: None, store: Arc::new(store), keep }
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
        loop {
            match self.store.claim(&key, delivery.remaining()).await.map_err(HandlerError::retry)? {
                Claim::New(token) => return Ok(Some(Claimed { store: self.store.clone(), token: Some(token) })),
                Claim::Done => return Ok(None),
                Claim::InProgress if delivery.remaining() > least_remaining => sleep(POLL_INTERVAL).await,
                Claim::InProgress => return Err(HandlerError::defer(DEFER_DELAY)),
            }
        }
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
        inner.deliver(delivery).await?;
        claimed.done(self.keep).await
    }
}
