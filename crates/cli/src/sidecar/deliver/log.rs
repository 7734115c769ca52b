//! Delivery to the log: one line per message, always successful.

use async_trait::async_trait;

use crate::config::LogHandler;
use dms_worker::worker::{Delivery, Handler, HandlerError};

/// Logs messages.
#[derive(Debug)]
pub(crate) struct LogDelivery {
    settings: LogHandler,
}

impl LogDelivery {
    /// A handler that logs as `settings` say.
    pub(crate) fn new(settings: LogHandler) -> Self {
        Self { settings }
    }
}

#[async_trait]
impl Handler for LogDelivery {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let (queue, group, bytes) = (delivery.queue(), delivery.group(), delivery.body().len());
        let tags = delivery.tags().join(",");
        match self.settings.body {
            true => tracing::info!(queue, group, tags, bytes, body = delivery.body().as_str(), "message"),
            false => tracing::info!(queue, group, tags, bytes, "message"),
        }
        Ok(())
    }
}
