//! Delivery to the log: one line per message, always successful.

use async_trait::async_trait;

use crate::config::LogHandler;
use dms_protocol::message::MessageId;
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
        let (tags, id, attempt) = (delivery.tags().join(","), delivery.id(), delivery.attempt());
        let message_id = id.as_ref().map(MessageId::as_str);
        match self.settings.body {
            true => tracing::info!(
                queue,
                group,
                message_id,
                attempt,
                tags,
                bytes,
                body = delivery.body().as_str(),
                "message"
            ),
            false => tracing::info!(queue, group, message_id, attempt, tags, bytes, "message"),
        }
        Ok(())
    }
}
