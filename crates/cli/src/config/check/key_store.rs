//! The stores of `deduplicate` and the databases of `outboxes`, made from their settings.

use std::sync::Arc;

use dms_worker::layers::{self, MemoryStore};

use crate::config::schema::deduplicate::{KeyStore, PostgresKeys, RedisKeys};
#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::config::schema::values::Secret;

/// The number of keys that the store in memory holds.
const MEMORY_KEYS: usize = 100_000;

/// A setting of a store that is unusable.
#[derive(Debug, thiserror::Error)]
#[error("{store}.{key}: {reason}")]
pub(crate) struct UnusableStore {
    pub(crate) store: &'static str,
    pub(crate) key: &'static str,
    pub(crate) reason: String,
}

type Store = Result<Arc<dyn layers::KeyStore>, UnusableStore>;

/// Makes a store. Nothing is connected before the first claim.
///
/// # Errors
/// If the connection string or the certificates are unusable.
pub(crate) fn open(store: &KeyStore, scope: &str) -> Store {
    match store {
        KeyStore::Memory => Ok(Arc::new(MemoryStore::new(MEMORY_KEYS))),
        KeyStore::Postgres(keys) => postgres(keys, scope),
        KeyStore::Redis(keys) => redis(keys, scope),
    }
}

#[cfg(feature = "postgres")]
fn postgres(keys: &PostgresKeys, scope: &str) -> Store {
    Ok(Arc::new(layers::PostgresStore::new(database(keys)?).scope(scope)))
}

/// The PostgreSQL of an application. Nothing is connected before it is used.
///
/// # Errors
/// If the connection string or the certificates are unusable.
#[cfg(feature = "postgres")]
pub(crate) fn database(keys: &PostgresKeys) -> Result<dms_worker::postgres::Postgres, UnusableStore> {
    use dms_worker::postgres::{Postgres, PostgresError};
    let unusable = |key, reason| UnusableStore { store: "postgres", key, reason };
    let mut builder = Postgres::builder(keys.url.as_ref().map_or("", Secret::expose)).schema(&keys.schema);
    if let Some(file) = &keys.ca_file {
        builder = builder.ca_file(file);
    }
    builder.build().map_err(|error| match error {
        PostgresError::Setting { setting, reason } => unusable(setting, reason),
        error => unusable("ca_file", error.to_string()),
    })
}

#[cfg(not(feature = "postgres"))]
fn postgres(keys: &PostgresKeys, _: &str) -> Store {
    database(keys).map(|()| Arc::new(MemoryStore::new(1)) as Arc<dyn layers::KeyStore>)
}

/// Refuses a PostgreSQL.
///
/// # Errors
/// Always.
#[cfg(not(feature = "postgres"))]
pub(crate) fn database(_: &PostgresKeys) -> Result<(), UnusableStore> {
    let reason = "this program was built without the feature `postgres`".to_owned();
    Err(UnusableStore { store: "postgres", key: "url", reason })
}

#[cfg(feature = "redis")]
fn redis(keys: &RedisKeys, scope: &str) -> Store {
    use dms_worker::layers::RedisStore;
    let unusable = |key, reason| UnusableStore { store: "redis", key, reason };
    let url = keys.url.as_ref().map_or("", Secret::expose).trim();
    let made = match &keys.ca_file {
        None => RedisStore::new(url),
        Some(_) if !url.starts_with("rediss://") => {
            return Err(unusable("ca_file", "needs a `url` that begins with rediss://, which encrypts".to_owned()));
        }
        Some(file) => match std::fs::read(file) {
            Ok(pem) => RedisStore::with_authorities(url, &pem),
            Err(error) => return Err(unusable("ca_file", format!("`{}` cannot be read: {error}", file.display()))),
        },
    };
    let store = made.map_err(|error| unusable("url", error.to_string()))?;
    Ok(Arc::new(store.prefix(format!("{}{scope}:", keys.prefix))))
}

#[cfg(not(feature = "redis"))]
fn redis(_: &RedisKeys, _: &str) -> Store {
    let reason = "this program was built without the feature `redis`".to_owned();
    Err(UnusableStore { store: "redis", key: "url", reason })
}
