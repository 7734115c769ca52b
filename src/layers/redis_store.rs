//! [`RedisStore`]: a store of keys in Redis, for [`Deduplicate`](super::Deduplicate).

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{
    Client, Cmd, FromRedisValue, RedisError, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::sync::OnceCell;

use super::deduplicate::{Claim, KeyStore, Token};

/// The time that connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that a command may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that is stored: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The value of a key whose work is done. The value of a claim is its owner, which is never this text.
const DONE: &str = "done";
/// Deletes a key that still has the claim of this owner, in one step.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// A store of keys in Redis or Valkey, which all replicas of a worker share.
///
/// Redis itself deletes expired keys. The store is as durable as the server: without `appendfsync always` a crash can
/// forget keys of finished work, as can a failover, and so can an eviction policy other than `noeviction`. Use
/// `PostgresStore` where that matters.
///
/// ```no_run
/// use std::time::Duration;
/// use dms_worker::layers::{Deduplicate, RedisStore};
///
/// let store = RedisStore::new("redis://127.0.0.1:6379")?.prefix("billing:");
/// let layer = Deduplicate::by_attribute("order_id", store, Duration::from_secs(86_400)); // for WorkerBuilder::layer
/// # let _ = layer;
/// # Ok::<(), dms_worker::layers::InvalidRedisUrl>(())
/// ```
#[derive(Clone)]
pub struct RedisStore {
    client: Client,
    prefix: String,
    connection: Arc<OnceCell<ConnectionManager>>,
}

/// The error of a URL or a certificate that Redis cannot be reached with. It does not contain the URL, which may contain a
/// password.
#[derive(Debug, thiserror::Error)]
#[error("Redis cannot be used with this URL: {0}")]
pub struct InvalidRedisUrl(String);

impl RedisStore {
    /// A store in the Redis at `url`: `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS with the
    /// authorities that the system trusts, or `redis+unix:///path`. Nothing is connected until the first claim.
    ///
    /// # Errors
    /// If the URL is unusable.
    pub fn new(url: &str) -> Result<Self, InvalidRedisUrl> {
        Client::open(url).map(Self::of).map_err(|error| invalid(&error))
    }

    /// A store in the Redis at a `rediss://` URL, whose certificate was issued by one of the authorities in `pem`.
    ///
    /// # Errors
    /// If the URL or the certificates are unusable.
    pub fn with_authorities(url: &str, pem: &[u8]) -> Result<Self, InvalidRedisUrl> {
        use_a_provider();
        let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
        Client::build_with_tls(url, certificates).map(Self::of).map_err(|error| invalid(&error))
    }

    fn of(client: Client) -> Self {
        Self { client, prefix: "dms_worker:".to_owned(), connection: Arc::default() }
    }

    /// Begins the names of all keys, to separate them from others in the same database. Default: `dms_worker:`.
    ///
    /// Give the workers of different queues or groups different prefixes, unless the work of a key is the same for all.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Connects, to find mistakes when the program starts. Claims do the same.
    ///
    /// # Errors
    /// If Redis cannot be reached, or refuses the credentials.
    pub async fn set_up(&self) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let _: Value = self.query(&redis::cmd("PING")).await?;
        Ok(())
    }

    /// The connection, which reconnects automatically. If the first attempt fails, the next call repeats it.
    async fn connection(&self) -> Result<ConnectionManager, RedisError> {
        let connect = || {
            use_a_provider();
            let config = ConnectionManagerConfig::new()
                .set_number_of_retries(1)
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(RESPONSE_TIMEOUT));
            ConnectionManager::new_with_config(self.client.clone(), config)
        };
        self.connection.get_or_try_init(connect).await.cloned()
    }

    /// Runs a command. The error names the address, which has no password in it.
    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Box<dyn StdError + Send + Sync>> {
        let answer = async { command.query_async(&mut self.connection().await?).await };
        let said = |error| format!("Redis at {}: {error}", self.client.get_connection_info().addr());
        answer.await.map_err(|error: RedisError| said(error).into())
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// Chooses the TLS library that this crate uses everywhere, unless the program has chosen one. `redis` has no option
/// for it, and panics in a program that links two.
fn use_a_provider() {
    use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
    if CryptoProvider::get_default().is_none() {
        // Another thread may have been faster, which is as good.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}

fn invalid(error: &RedisError) -> InvalidRedisUrl {
    InvalidRedisUrl(error.category().to_owned())
}

fn milliseconds(time: Duration) -> u64 {
    // Redis refuses an expiry of zero.
    u64::try_from(time.min(LONGEST).as_millis()).unwrap_or(u64::MAX).max(1)
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client's URL can contain a password.
        f.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for RedisStore {
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn StdError + Send + Sync>> {
        let (name, token) = (self.name(key), Token::random(key));
        let mut set = redis::cmd("SET");
        set.arg(&name).arg(token.owner()).arg("NX").arg("PX").arg(milliseconds(lease));
        if self.query::<Option<String>>(&set).await?.is_some() {
            return Ok(Claim::New(token));
        }
        let value: Option<String> = self.query(redis::cmd("GET").arg(&name)).await?;
        // A key that has expired since is claimed by the next call.
        Ok(if value.as_deref() == Some(DONE) { Claim::Done } else { Claim::InProgress })
    }

    async fn done(&self, token: &Token, keep: Duration) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let mut set = redis::cmd("SET");
        set.arg(self.name(token.key())).arg(DONE).arg("PX").arg(milliseconds(keep));
        self.query(&set).await
    }

    async fn release(&self, token: &Token) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let mut script = redis::cmd("EVAL");
        script.arg(RELEASE).arg(1).arg(self.name(token.key())).arg(token.owner());
        self.query(&script).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_unusable_url_is_an_error_that_does_not_show_it() {
        for url in ["redis://:geheim@host:port", "http://user:geheim@host", "geheim", ""] {
            let error = RedisStore::new(url).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
        assert!(!format!("{:?}", RedisStore::new("redis://:geheim@127.0.0.1").unwrap()).contains("geheim"));
    }

    #[test]
    fn redis_accepts_every_expiry() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_millis(1500)), 1500);
        assert_eq!(milliseconds(Duration::MAX), 3_153_600_000_000);
    }
}
