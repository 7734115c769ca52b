//! [`RecentKeys`]: the deduplication keys of messages whose window has not ended.

use std::collections::{BTreeMap, HashMap};

use crate::{
    clock::whole_ms,
    store::{KeyHash, MessageOrigin, SentKey, StreamId},
};
use dms_protocol::{limits::MAX_DEDUPLICATION_WINDOW, queue::ProjectId};

/// The maximum number of keys of a project. They take about 120 MB.
pub(crate) const MAX_KEYS: usize = 1_000_000;
/// Keys are looked through together whose windows end within this time, in milliseconds.
const SLOT_MS: i64 = 1_000;

/// The keys of all queues.
#[derive(Debug, Default)]
pub(crate) struct RecentKeys {
    queues: HashMap<StreamId, QueueKeys>,
    /// The number of keys of each project.
    counts: HashMap<ProjectId, usize>,
}

#[derive(Debug)]
struct QueueKeys {
    project: ProjectId,
    keys: HashMap<KeyHash, Sent>,
    /// The keys by the slot in which their window ends. A key that was sent again after its window is in two slots.
    slots: BTreeMap<i64, Vec<KeyHash>>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    id: MessageOrigin,
    /// When its window ends, in Unix milliseconds.
    until_ms: i64,
}

impl RecentKeys {
    /// The id of the message that was sent with this key, if its window has not ended.
    pub(crate) fn find(&self, queue: StreamId, key: KeyHash, now_ms: i64) -> Option<MessageOrigin> {
        let sent = self.queues.get(&queue)?.keys.get(&key)?;
        (sent.until_ms > now_ms).then_some(sent.id)
    }

    /// The number of keys of a project.
    pub(crate) fn count(&self, project: &ProjectId) -> usize {
        self.counts.get(project).copied().unwrap_or(0)
    }

    /// Adds a key. Of two windows of the same key, the later end counts.
    pub(crate) fn add(&mut self, project: &ProjectId, sent: &SentKey) {
        let SentKey { queue, key, id, until_ms } = *sent;
        let fresh = || QueueKeys { project: project.clone(), keys: HashMap::new(), slots: BTreeMap::new() };
        let queue = self.queues.entry(queue).or_insert_with(fresh);
        if queue.keys.get(&key).is_some_and(|known| known.until_ms >= until_ms) {
            return;
        }
        if queue.keys.insert(key, Sent { id, until_ms }).is_none() {
            *self.counts.entry(project.clone()).or_default() += 1;
        }
        queue.slots.entry(until_ms.div_euclid(SLOT_MS)).or_default().push(key);
    }

    /// Shortens windows that end later than any window that begins at `now_ms`: the wall clock was set back since.
    pub(crate) fn bounded(sent: SentKey, now_ms: i64) -> SentKey {
        let latest = now_ms.saturating_add(whole_ms(MAX_DEDUPLICATION_WINDOW));
        SentKey { until_ms: sent.until_ms.min(latest), ..sent }
    }

    /// Removes the keys whose window has ended.
    pub(crate) fn expire(&mut self, now_ms: i64) {
        let Self { queues, counts } = self;
        queues.retain(|_, queue| {
            let before = queue.keys.len();
            queue.expire(now_ms);
            subtract(counts, &queue.project, before - queue.keys.len());
            !queue.keys.is_empty()
        });
    }

    /// Removes the keys of a deleted queue.
    pub(crate) fn forget(&mut self, queue: StreamId) {
        if let Some(queue) = self.queues.remove(&queue) {
            subtract(&mut self.counts, &queue.project, queue.keys.len());
        }
    }
}

impl QueueKeys {
    fn expire(&mut self, now_ms: i64) {
        // A slot is looked at when all of it is over, so a key stays up to a second longer than its window.
        while let Some(slot) = self.slots.first_entry().filter(|slot| *slot.key() < now_ms.div_euclid(SLOT_MS)) {
            for key in slot.remove() {
                if self.keys.get(&key).is_some_and(|sent| sent.until_ms <= now_ms) {
                    self.keys.remove(&key);
                }
            }
        }
    }
}

fn subtract(counts: &mut HashMap<ProjectId, usize>, project: &ProjectId, gone: usize) {
    if gone > 0
        && let Some(count) = counts.get_mut(project)
    {
        *count -= gone;
        if *count == 0 {
            counts.remove(project);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FirstPlace;

    const QUEUE: StreamId = StreamId(1);

    fn sent(key: &str, seq: u64, until_ms: i64) -> SentKey {
        let id = MessageOrigin::new("9bf46390-38a2", FirstPlace::Queue, seq, 5);
        SentKey { queue: QUEUE, key: KeyHash::of(key), id, until_ms }
    }

    #[test]
    fn a_key_counts_until_its_window_ends() {
        let (project, mut keys) = (ProjectId::new("p"), RecentKeys::default());
        let (first, second) = (sent("a", 1, 10_000), sent("a", 2, 30_000));
        keys.add(&project, &first);
        assert_eq!(keys.find(QUEUE, first.key, 9_999), Some(first.id));
        assert_eq!(keys.find(QUEUE, first.key, 10_000), None);
        assert_eq!(keys.find(StreamId(3), first.key, 9_999), None);
        keys.add(&project, &second);
        // An older window, as a rebuilt index may have it.
        keys.add(&project, &first);
        keys.expire(20_000);
        assert_eq!((keys.find(QUEUE, first.key, 20_000), keys.count(&project)), (Some(second.id), 1));
        keys.expire(31_000);
        assert_eq!((keys.find(QUEUE, first.key, 0), keys.count(&project)), (None, 0));
        assert!(keys.queues.is_empty() && keys.counts.is_empty());
    }

    #[test]
    fn the_keys_of_a_deleted_queue_are_forgotten() {
        let (project, mut keys) = (ProjectId::new("p"), RecentKeys::default());
        ["a", "b"].iter().for_each(|key| keys.add(&project, &sent(key, 1, 10_000)));
        assert_eq!(keys.count(&project), 2);
        keys.forget(QUEUE);
        assert_eq!((keys.find(QUEUE, KeyHash::of("a"), 0), keys.count(&project)), (None, 0));
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_no_key_for_ever() {
        let week = whole_ms(MAX_DEDUPLICATION_WINDOW);
        assert_eq!(RecentKeys::bounded(sent("a", 1, i64::MAX), 5).until_ms, week + 5);
        assert_eq!(RecentKeys::bounded(sent("a", 1, 17), 5).until_ms, 17);
    }
}
