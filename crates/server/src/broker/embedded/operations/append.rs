//! Sending (API reference 5.3.1).

use crate::broker::{
    Appended, BrokerError, NewMessage,
    embedded::{command::Command, core::Core},
};
use dms_protocol::queue::{ProjectId, QueueId};

/// Stores messages, all or none.
pub(crate) async fn append(
    core: &Core,
    project: &ProjectId,
    queue: &QueueId,
    messages: Vec<NewMessage>,
) -> Result<Appended, BrokerError> {
    let pending = {
        let state = core.open()?;
        let row = &state.queue(project, queue)?.row;
        if row.mode.is_kafka() {
            if messages.iter().any(|message| !message.delay.is_zero()) {
                return Err(BrokerError::KafkaDelay);
            }
            if messages.iter().any(|message| !message.tags.is_empty()) {
                return Err(BrokerError::KafkaLabels);
            }
        }
        core.submit(Command::Append(queue.clone(), messages))
    };
    pending.appended().await
}
