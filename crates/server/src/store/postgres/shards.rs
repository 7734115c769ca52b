//! The shard of a queue: a pure function of its id, and of its project and name. No table has to be read for it.
//!
//! A queue is created in the shard of its name, so that the owner of that shard alone judges whether the name is free. Its id is
//! drawn until it gives the same shard.

use dms_protocol::queue::{ProjectId, QueueId};

/// The maximum number of shards. Each has its own tables.
pub(crate) const MAX_SHARDS: u32 = 256;
/// The number of shards of new tables where the configuration names none.
pub(crate) const DEFAULT_SHARDS: u32 = 4;

/// The shard of a queue that exists.
pub(crate) fn of_queue(queue: &QueueId, shards: u32) -> i32 {
    shard_of(&[queue.as_str()], shards)
}

/// The shard in which a queue of this name is created.
pub(crate) fn of_name(project: &ProjectId, name: &str, shards: u32) -> i32 {
    shard_of(&[project.as_str(), name], shards)
}

/// The shard of a text of several parts. The function is part of the stored format: it must never change.
fn shard_of(parts: &[&str], shards: u32) -> i32 {
    // FNV-1a over the parts, each ended by a byte that is in no UTF-8 text.
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The low bits of FNV-1a are weak, and the remainder uses them.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    i32::try_from((mixed >> 33) % u64::from(shards.max(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored queues are found by these values.
    #[test]
    fn the_function_never_changes() {
        let of = |text: &str, shards| shard_of(&[text], shards);
        let texts = ["", "a", "0f8fad5b-d9cb-469f-a165-70867728950e", "7c9e6679-7425-40de-944b-e07fc1f90ae7"];
        assert_eq!(texts.map(|text| of(text, 1)), [0; 4]);
        assert_eq!(texts.map(|text| of(text, 256)), [191, 221, 85, 145]);
        assert_ne!(shard_of(&["ab", "c"], 256), shard_of(&["a", "bc"], 256));
    }

    #[test]
    fn queues_are_spread_evenly() {
        let mut counts = [0_u32; 4];
        for number in 0..4_000 {
            let shard = of_name(&"project".into(), &format!("queue-{number}"), 4);
            counts[usize::try_from(shard).unwrap_or(0)] += 1;
        }
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }
}
