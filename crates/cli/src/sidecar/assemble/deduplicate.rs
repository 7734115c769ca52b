//! The layer that does the work of each key once, from the configuration.

use dms_worker::layers::Deduplicate;

use crate::config::{self, UnusableStore};

/// The layer of a worker, if it deduplicates. Nothing is connected before the first message.
///
/// # Errors
/// If the connection string or a certificate is unusable.
pub(crate) fn layer(worker: &config::Worker) -> Result<Option<Deduplicate>, UnusableStore> {
    let Some(settings) = &worker.deduplicate else { return Ok(None) };
    let scope = settings.scope.clone().unwrap_or_else(|| format!("{}/{}", worker.queue, worker.group));
    let store = config::open_key_store(&settings.store, &scope)?;
    let (key, keep) = (settings.key.clone(), settings.keep.get());
    if key.starts_with('/') {
        return Ok(Some(Deduplicate::by_pointer(key, store, keep)));
    }
    Ok(Some(Deduplicate::by_attribute(key, store, keep)))
}
