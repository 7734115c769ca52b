//! Setting how long a queue keeps its messages.

use crate::broker::{
    BrokerError, RetentionPolicy,
    embedded::{command::AdminCommand, config::EffectiveRetention, core::Core, state::QueueState},
};
use dms_protocol::queue::{ProjectId, QueueId};

impl Core {
    /// Sets how long a queue keeps messages.
    pub(crate) async fn set_retention(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        policy: RetentionPolicy,
    ) -> Result<(), BrokerError> {
        {
            let state = self.open()?;
            let queue = state.queue(project, queue)?;
            let (configured, set) = (self.config.configured(&queue.row), queue.retention);
            if configured.retention.is_some() && policy.retention != set.retention {
                return Err(BrokerError::Configured("retention"));
            }
            if configured.delete_when_settled.is_some() && policy.delete_when_settled != set.delete_when_settled {
                return Err(BrokerError::Configured("delete_when_settled"));
            }
        }
        self.change(AdminCommand::SetRetention(queue.clone(), policy)).await
    }

    /// How long a queue keeps messages now.
    pub(crate) fn retention(&self, queue: &QueueState) -> EffectiveRetention {
        self.config.retention_of(&queue.row, queue.retention)
    }
}
