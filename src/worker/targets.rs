//! [`Targets`]: what the names in a worker's settings stand for.

use crate::{
    client::{Client, Error},
    queue::{Queue, QueueId, SourcePath, Stream},
    worker::{
        failure::policy::{OnFailure, OnReject, OnUndecodable},
        settings::Settings,
    },
};

/// What the names stand for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Targets {
    pub(crate) queue: Queue,
    pub(crate) path: SourcePath,
    pub(crate) reject_queue: Option<QueueId>,
    pub(crate) undecodable_queue: Option<QueueId>,
    pub(crate) exhausted_queue: Option<QueueId>,
}

impl Targets {
    /// Looks up the queue, the group, and the parking queues that the settings name.
    pub(crate) async fn look_up(client: &Client, queue: &str, group: &str, settings: &Settings) -> Result<Self, Error> {
        let queue = client.find_queue(queue).await?;
        let group = client.find_group(&queue.id, group).await?;
        let reject_queue = parking_queue(client, &settings.on_reject).await?;
        let undecodable_queue = match &settings.on_undecodable {
            OnUndecodable::Own(policy) => parking_queue(client, policy).await?,
            OnUndecodable::Reject | OnUndecodable::Retry => None,
        };
        let exhausted_queue = match &settings.on_failure {
            OnFailure::Republish(republish) => parking_queue(client, &republish.then).await?,
            OnFailure::Redeliver => None,
        };
        let stream = if settings.dead_letters { Stream::DeadLetters } else { Stream::Messages };
        let path = SourcePath { queue: queue.id.clone(), group: group.id, stream };
        Ok(Self { queue, path, reject_queue, undecodable_queue, exhausted_queue })
    }

    /// Whether a worker that was put together for the others can go on.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let of = |targets: &Self| (targets.queue.mode, targets.path.clone());
        let parking = |targets: &Self| {
            [&targets.reject_queue, &targets.undecodable_queue, &targets.exhausted_queue].map(Option::clone)
        };
        of(self) == of(other) && parking(self) == parking(other)
    }
}

async fn parking_queue(client: &Client, policy: &OnReject) -> Result<Option<QueueId>, Error> {
    match policy {
        OnReject::Park(queue) => client.find_queue(queue).await.map(|queue| Some(queue.id)),
        OnReject::Fail | OnReject::Discard => Ok(None),
    }
}
