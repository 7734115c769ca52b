//! The relays of `outboxes`.

use crate::{config::Config, sidecar::error::SidecarError};
use dms_worker::{client::Client, runtime::RuntimeBuilder};

/// The relays of a configuration, which send rows of applications' tables as messages.
#[derive(Debug)]
pub(crate) struct Relays(#[cfg(feature = "postgres")] Vec<dms_worker::postgres::Relay>);

impl Relays {
    /// Sets up the relays. Nothing is connected yet.
    ///
    /// # Errors
    /// If a connection string or a certificate is unusable.
    #[cfg(feature = "postgres")]
    pub(crate) fn new(config: &Config, client: &Client) -> Result<Self, SidecarError> {
        let relays = config.outboxes.iter().enumerate().map(|(place, outbox)| {
            let database = crate::config::open_database(&outbox.postgres);
            let database = database.map_err(|error| SidecarError::Outbox(place, error.to_string()))?;
            let relay = dms_worker::postgres::Outbox::new(database).relay(client.clone());
            Ok(relay.poll_interval(outbox.poll_interval.get()))
        });
        Ok(Self(relays.collect::<Result<_, SidecarError>>()?))
    }

    /// A configuration with outboxes was refused before.
    #[cfg(not(feature = "postgres"))]
    pub(crate) fn new(_: &Config, _: &Client) -> Result<Self, SidecarError> {
        Ok(Self())
    }

    /// Runs the relays until the runtime stops.
    pub(crate) fn add_to(self, runtime: RuntimeBuilder) -> RuntimeBuilder {
        #[cfg(feature = "postgres")]
        return self.0.into_iter().fold(runtime, |runtime, relay| {
            runtime.task("outbox", |runtime| async move {
                let report = relay.run(runtime.stop_token().cancelled_owned()).await;
                tracing::info!(sent = report.sent, refused = report.refused, "the relay of an outbox has ended");
            })
        });
        #[cfg(not(feature = "postgres"))]
        runtime
    }
}
