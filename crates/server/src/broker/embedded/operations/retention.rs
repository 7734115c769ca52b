//! Setting how long a queue keeps its messages.

use crate::broker::{
    BrokerError, RetentionChange,
    embedded::{command::AdminCommand, config::EffectiveRetention, core::Core, state::QueueState},
};
use dms_protocol::queue::{ProjectId, QueueId};

impl Core {
    /// Changes how long a queue keeps messages. The committer applies the change to the policy, so that another change made at the
    /// same time is not lost.
    pub(crate) async fn change_retention(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        change: RetentionChange,
    ) -> Result<(), BrokerError> {
        {
            let state = self.open()?;
            let queue = state.queue(project, queue)?;
            let (configured, set) = (self.config.configured(&queue.row), queue.retention);
            if configured.retention.is_some() && change.retention.is_some_and(|new| new != set.retention) {
                return Err(BrokerError::Configured("retention".into()));
            }
            let settled = change.delete_when_settled;
            if configured.delete_when_settled.is_some() && settled.is_some_and(|new| new != set.delete_when_settled) {
                return Err(BrokerError::Configured("delete_when_settled".into()));
            }
        }
        self.change(AdminCommand::ChangeRetention(queue.clone(), change)).await
    }

    /// How long a queue keeps messages now.
    pub(crate) fn retention(&self, queue: &QueueState) -> EffectiveRetention {
        self.config.retention_of(&queue.row, queue.retention)
    }
}
