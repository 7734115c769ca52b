//! Sending (API reference 5.3.1).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{core::Core, work::Work};
use crate::{
    message::MessageId,
    queue::{ProjectId, QueueId},
    server::{
        broker::{BrokerError, NewMessage},
        store::StoreError,
    },
};

/// Stores messages, all or none, and gives their ids in order.
pub(super) async fn append(
    core: &Core,
    project: &ProjectId,
    queue: &QueueId,
    messages: Vec<NewMessage>,
) -> Result<Vec<MessageId>, BrokerError> {
    let ids = ids(messages.len())?;
    let pending = {
        let state = core.open()?;
        let row = &state.queue(project, queue, &core.at())?.row;
        if row.mode.is_kafka() {
            if messages.iter().any(|message| !message.delay.is_zero()) {
                return Err(BrokerError::KafkaDelay);
            }
            if messages.iter().any(|message| !message.tags.is_empty()) {
                return Err(BrokerError::KafkaLabels);
            }
        }
        core.submit(Work::Append(queue.clone(), messages))
    };
    pending.outcome().await?;
    Ok(ids)
}

/// Ids that nothing can be read from: random for the request, then the place in it.
fn ids(count: usize) -> Result<Vec<MessageId>, BrokerError> {
    let mut id = [0; 18];
    getrandom::fill(&mut id[..16]).map_err(|error| BrokerError::Store(StoreError::new(error).0))?;
    let place = |place: u16| {
        id[16..].copy_from_slice(&place.to_be_bytes());
        MessageId::new(URL_SAFE_NO_PAD.encode(id))
    };
    Ok((0..=u16::MAX).take(count).map(place).collect())
}
