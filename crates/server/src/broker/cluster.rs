//! [`ClusterStatus`]: the servers that share the queues, and the shards that each of them owns.

use serde::{Deserialize, Serialize};

/// The servers on the same PostgreSQL, as one of them sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// The id of the server that answers.
    pub this: String,
    /// The servers by their ids.
    pub members: Vec<ClusterMember>,
    /// The parts of the queues.
    pub shards: Vec<ClusterShard>,
    /// The standbys of PostgreSQL, as far as its user may see them.
    pub standbys: Vec<ClusterStandby>,
}

/// The counters of one server, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterCounters {
    /// The servers that are registered and not silent.
    pub members: u64,
    /// The shards that this one owns.
    pub shards: u64,
    /// Its beats that PostgreSQL did not answer in time.
    pub missed_beats: u64,
    /// Its commits that were repeated, because it was not known whether they took effect.
    pub unsure_commits: u64,
    /// The shards that it took from a server that had died.
    pub takeovers: u64,
    /// Whether PostgreSQL waits for a synchronous standby before it answers a commit.
    pub is_replicated: bool,
    /// The shards that no living server owns.
    pub unowned_shards: u64,
}

/// A server that is registered in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterMember {
    /// Its id, given at its start and never used again.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where other servers reach it; empty if they cannot.
    pub url: String,
    /// `serving`, `draining` (it gives its shards away) or `silent` (its shards are taken over).
    pub state: String,
    /// The shards that it owns.
    pub shards: Vec<u32>,
}

/// A shard: a part of the queues, which one server at a time owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterShard {
    /// Its number.
    pub shard: u32,
    /// The id of its owner; none while it moves.
    pub owner: Option<String>,
    /// How many owners it has had.
    pub epoch: i64,
    /// `owned`, or `free` or `dead` (it is about to be taken).
    pub state: String,
    /// The id of the server that takes it next.
    pub wanted: Option<String>,
    /// Whether it stays at its owner, because an operator moved it there.
    pub pinned: bool,
}

/// A standby of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClusterStandby {
    /// Its name.
    pub name: String,
    /// `sync`, `quorum`, `async` or `potential`; none where PostgreSQL's user may not see it.
    pub sync_state: Option<String>,
    /// How many bytes it has not made durable yet.
    pub lag_bytes: Option<i64>,
}

/// A job of a server, as the servers of a cluster keep it.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptJob {
    /// Its id.
    pub id: String,
    /// What a server needs to continue it.
    pub facts: String,
    /// The name of the server that works on it, with the beginning of its id; `None` for this one.
    pub server: Option<String>,
}
