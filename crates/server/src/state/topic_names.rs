//! [`TopicNames`]: the ids of the queues and groups that callers of the MQS dialect named.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use dms_protocol::queue::{GroupId, ProjectId, QueueId};

/// The most topics that are remembered, and the most groups of one. A full table is emptied, because the broker knows the rest.
const MAX_KNOWN: usize = 10_000;

/// The ids of topics and groups by their names. They are not checked: the queue or the group may have been deleted since.
#[derive(Debug)]
pub(crate) struct TopicNames {
    /// The project of callers without credentials.
    pub(crate) project: ProjectId,
    /// Whether missing topics are created.
    pub(crate) auto_create: bool,
    known: RwLock<HashMap<String, HashMap<String, Topic>>>,
}

#[derive(Clone, Debug)]
struct Topic {
    queue: QueueId,
    groups: HashMap<String, GroupId>,
}

/// The ids of a topic and of one of its groups.
#[derive(Clone, Debug)]
pub(crate) struct TopicPlace {
    /// The queue.
    pub(crate) queue: QueueId,
    /// The group, for requests that name one.
    pub(crate) group: Option<GroupId>,
}

impl TopicPlace {
    /// The ids as the parameters of a path.
    pub(crate) fn params(&self) -> [&str; 2] {
        [self.queue.as_str(), self.group.as_ref().map_or("", GroupId::as_str)]
    }
}

impl TopicNames {
    /// Knows no names yet.
    pub(crate) fn new(project: ProjectId, auto_create: bool) -> Self {
        Self { project, auto_create, known: RwLock::default() }
    }

    /// The ids of a topic and, if one is named, of a group; `None` if one of the names is unknown.
    pub(crate) fn get(&self, project: &str, topic: &str, group: Option<&str>) -> Option<TopicPlace> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let topic = known.get(project)?.get(topic)?;
        let group = match group {
            Some(group) => Some(topic.groups.get(group)?.clone()),
            None => None,
        };
        Some(TopicPlace { queue: topic.queue.clone(), group })
    }

    /// Remembers the ids of a topic and of a group. Groups of another queue that had the name are forgotten.
    pub(crate) fn remember(&self, project: &ProjectId, topic: &str, group: Option<&str>, place: &TopicPlace) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.values().map(HashMap::len).sum::<usize>() >= MAX_KNOWN {
            known.clear();
        }
        let topics = known.entry(project.to_string()).or_default();
        let new = || Topic { queue: place.queue.clone(), groups: HashMap::new() };
        let topic = topics.entry(topic.to_owned()).or_insert_with(new);
        if topic.queue != place.queue || topic.groups.len() >= MAX_KNOWN {
            *topic = new();
        }
        if let Some((name, id)) = group.zip(place.group.clone()) {
            topic.groups.insert(name.to_owned(), id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(queue: &str, group: Option<&str>) -> TopicPlace {
        TopicPlace { queue: QueueId::new(queue), group: group.map(GroupId::new) }
    }

    #[test]
    fn a_name_leads_to_the_ids_that_were_remembered_last() {
        let (names, project) = (TopicNames::new(ProjectId::new("p"), true), ProjectId::new("p"));
        let found = |group| names.get("p", "t", group).map(|place| place.params().map(str::to_owned));
        let ids = |queue: &str, group: &str| Some([queue.to_owned(), group.to_owned()]);
        assert_eq!(found(None), None);
        names.remember(&project, "t", Some("g"), &place("q1", Some("g1")));
        assert_eq!((found(None), found(Some("g")), found(Some("h"))), (ids("q1", ""), ids("q1", "g1"), None));
        names.remember(&project, "t", None, &place("q2", None));
        assert_eq!((found(None), found(Some("g"))), (ids("q2", ""), None), "the group was one of the deleted queue");
        assert!(names.get("other", "t", None).is_none());
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let (names, project) = (TopicNames::new(ProjectId::new("p"), true), ProjectId::new("p"));
        for number in 0..=MAX_KNOWN {
            names.remember(&project, &number.to_string(), None, &place("q", None));
        }
        assert!(names.get("p", "0", None).is_none());
        assert!(names.get("p", &MAX_KNOWN.to_string(), None).is_some());
    }
}
