//! The relays of `outboxes`.

use std::sync::Arc;

use crate::{
    config::Outbox,
    sidecar::{
        error::SidecarError,
        running::{parts::RunningOutbox, shared::Shared},
    },
};
use dms_worker::runtime::RuntimeHandle;
use tokio_util::sync::CancellationToken;

/// A relay that is ready to start: it sends the rows of an application's table as messages.
#[derive(Debug)]
pub(crate) struct RelayUnit {
    #[cfg(feature = "postgres")]
    relay: dms_worker::postgres::Relay,
    pub(crate) running: Arc<RunningOutbox>,
}

impl RelayUnit {
    /// Sets up the relay of an outbox, which is the `place`th. Nothing is connected yet.
    ///
    /// # Errors
    /// If the connection string or a certificate is unusable.
    #[cfg(feature = "postgres")]
    pub(crate) fn new(place: usize, outbox: &Outbox, shared: &Shared) -> Result<Self, SidecarError> {
        let database = crate::config::open_database(&outbox.postgres);
        let database = database.map_err(|error| SidecarError::Outbox(place, error.to_string()))?;
        let relay =
            dms_worker::postgres::Outbox::new(database).relay(dms_worker::client::Client::clone(&shared.client.get()));
        let relay = relay.deduplication_window(outbox.deduplication_window.get());
        Ok(Self { relay: relay.poll_interval(outbox.poll_interval.get()), running: running(outbox, shared) })
    }

    /// A configuration with outboxes was refused before.
    #[cfg(not(feature = "postgres"))]
    pub(crate) fn new(_: usize, outbox: &Outbox, shared: &Shared) -> Result<Self, SidecarError> {
        Ok(Self { running: running(outbox, shared) })
    }

    /// Runs the relay until it is stopped, or the process ends.
    pub(crate) fn start(self, runtime: &RuntimeHandle) {
        #[cfg(feature = "postgres")]
        runtime.add_task("outbox", |_| async move {
            let _ended = self.running.ended.clone().drop_guard();
            let report = self.relay.run(self.running.stop.clone().cancelled_owned()).await;
            tracing::info!(sent = report.sent, refused = report.refused, "the relay of an outbox has ended");
        });
        #[cfg(not(feature = "postgres"))]
        let _ = runtime;
    }
}

fn running(outbox: &Outbox, shared: &Shared) -> Arc<RunningOutbox> {
    let (stop, ended) = (shared.stopping.child_token(), CancellationToken::new());
    Arc::new(RunningOutbox { settings: outbox.clone(), stop, ended })
}
