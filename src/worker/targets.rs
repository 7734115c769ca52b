//! [`Targets`]: the objects that the names in a worker's settings refer to.

use std::collections::BTreeMap;

use crate::{
    client::{Client, Error},
    queue::{Queue, QueueId, SourcePath, Stream},
    worker::settings::Settings,
};

/// The objects that a worker's names refer to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Targets {
    pub(crate) queue: Queue,
    pub(crate) path: SourcePath,
    /// The parking queues, by their names in the settings.
    pub(crate) parking: BTreeMap<String, QueueId>,
}

impl Targets {
    /// Looks up the queue, the group, and the parking queues that the settings name.
    pub(crate) async fn look_up(client: &Client, queue: &str, group: &str, settings: &Settings) -> Result<Self, Error> {
        let queue = client.find_queue(queue).await?;
        let group = client.find_group(&queue.id, group).await?;
        let mut parking = BTreeMap::new();
        for name in settings.parking_queues() {
            parking.insert(name.to_owned(), client.find_queue(name).await?.id);
        }
        let stream = if settings.dead_letters { Stream::DeadLetters } else { Stream::Messages };
        let path = SourcePath { queue: queue.id.clone(), group: group.id, stream };
        Ok(Self { queue, path, parking })
    }

    /// Whether a context that was assembled for the other targets can be kept.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let of = |targets: &Self| (targets.queue.mode, targets.path.clone());
        of(self) == of(other) && self.parking == other.parking
    }
}
