//! Queues and groups by the names in a path.

use std::collections::HashMap;

use axum::extract::RawPathParams;

use crate::{
    broker::{GroupOverview, GroupPath, QueueOverview},
    dashboard::{form::Form, server::Pages},
};

/// A queue with one of its groups.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) queue: QueueOverview,
    pub(super) group: GroupOverview,
}

impl Found {
    /// The ids of both.
    pub(super) fn path(&self) -> GroupPath {
        GroupPath {
            project: self.queue.project.clone(),
            queue: self.queue.queue.id.clone(),
            group: self.group.group.id.clone(),
        }
    }

    /// The names of both, for the log.
    pub(super) fn label(&self) -> String {
        format!("{}/{}", self.queue.queue.name, self.group.group.name)
    }
}

/// The place of a dead letter.
#[derive(Clone, Debug)]
pub(super) struct DeadLetterPlace {
    pub(super) found: Found,
    pub(super) sequence: u64,
}

/// A parameter of a path.
pub(super) fn param<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

/// The queue in a path, by its name or id. `project` distinguishes queues with the same name.
pub(super) async fn queue(pages: &Pages, params: &RawPathParams, query: &Form) -> Option<QueueOverview> {
    let (wanted, project) = (param(params, "queue"), query.filled("project"));
    pages.queues().await.into_iter().find(|queue| {
        (queue.queue.id.as_str() == wanted || queue.queue.name == wanted)
            && project.is_none_or(|project| queue.project.as_str() == project)
    })
}

/// The queue and the group in a path.
pub(super) async fn group(pages: &Pages, params: &RawPathParams, query: &Form) -> Option<Found> {
    let (mut queue, wanted) = (queue(pages, params, query).await?, param(params, "group"));
    let is_it = |group: &GroupOverview| group.group.id.as_str() == wanted || group.group.name == wanted;
    let at = queue.groups.iter().position(is_it)?;
    let group = queue.groups.swap_remove(at);
    Some(Found { queue, group })
}

/// The paths below a queue that are no groups.
const TAKEN: [&str; 4] = ["groups", "tags", "purge", "delete"];

/// The path of a group's page below the one of its queue: by its name, unless an action of the queue has the same path.
pub(super) fn group_url(queue: &str, group: &GroupOverview) -> String {
    let name = group.group.name.as_str();
    let name = if TAKEN.contains(&name) { group.group.id.as_str() } else { name };
    format!("{queue}/{name}")
}

/// Each queue with the path of its page. Queues with a unique name are addressed by it.
pub(super) fn queue_urls(queues: &[QueueOverview]) -> impl Iterator<Item = (&QueueOverview, String)> {
    let mut counts = HashMap::<&str, usize>::new();
    queues.iter().for_each(|queue| *counts.entry(&queue.queue.name).or_default() += 1);
    queues.iter().map(move |queue| {
        let is_unique = counts.get(queue.queue.name.as_str()) == Some(&1);
        let name = if is_unique { &queue.queue.name } else { queue.queue.id.as_str() };
        (queue, format!("/queues/{name}"))
    })
}

#[cfg(test)]
mod tests {
    use dms_protocol::queue::{ConsumerGroup, GroupId};

    use super::*;

    #[test]
    fn a_group_with_the_name_of_an_action_has_a_page() {
        let url = |name: &str| {
            let group = ConsumerGroup::new(GroupId::from("g-1"), name);
            let group = GroupOverview {
                group,
                in_flight: 0,
                leases: 0,
                consumed_per_second: 0.0,
                polls: 0,
                expired_unread: 0,
                expired_dead_letters: 0,
                damaged: 0,
                damaged_dead_letters: 0,
            };
            group_url("/queues/orders", &group)
        };
        assert_eq!(
            (url("billing"), url("tags")),
            ("/queues/orders/billing".to_owned(), "/queues/orders/g-1".to_owned())
        );
    }
}
