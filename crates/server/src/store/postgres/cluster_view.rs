//! [`ClusterView`]: the servers and shards as one server sees them with each beat. It has the registered servers, the owners of the
//! shards, and which of them are dead.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::store::postgres::{
    connect::Session,
    duty::{Moment, Owner, OwnerStatus, Watch},
    error::PostgresError,
};

/// A registered server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Where other servers reach it; empty if they cannot.
    pub(crate) url: String,
    /// How often it has beaten.
    pub(crate) beat: i64,
    /// Whether it gives its shards away and takes none.
    pub(crate) is_draining: bool,
    /// Whether it has not beaten for the time after which its shards are taken over.
    pub(crate) is_silent: bool,
}

impl Peer {
    /// Whether it may be given shards.
    pub(crate) fn takes_shards(&self) -> bool {
        !self.is_draining && !self.is_silent
    }
}

/// A shard and the latest judgement of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardView {
    /// The shard.
    pub(crate) shard: i32,
    /// The owner as it was last read.
    pub(crate) owner: Owner,
    /// Whether the shard can be taken, and why.
    pub(crate) status: OwnerStatus,
    /// The server that is to own the shard next.
    pub(crate) wanted: Option<String>,
    /// Whether it stays there: an operator moved it.
    pub(crate) is_pinned: bool,
}

impl ShardView {
    /// Whether the server with this id owns the shard.
    pub(crate) fn is_of(&self, id: &str) -> bool {
        self.owner.id.as_deref() == Some(id)
    }
}

/// The registered servers and the shards, as of one beat. Empty before the first one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterView {
    /// The registered servers by their ids.
    pub(crate) members: Arc<[Peer]>,
    /// The shards in order.
    pub(crate) shards: Arc<[ShardView]>,
    /// Whether PostgreSQL waits for a standby before it answers a commit.
    pub(crate) is_replicated: bool,
}

impl ClusterView {
    /// A registered server.
    pub(crate) fn member(&self, id: &str) -> Option<&Peer> {
        self.members.iter().find(|peer| peer.id == id)
    }

    /// A shard.
    pub(crate) fn shard(&self, shard: i32) -> Option<&ShardView> {
        self.shards.iter().find(|view| view.shard == shard)
    }
}

/// The watches over all servers and shards.
#[derive(Debug)]
pub(crate) struct Watches {
    dead_after: Duration,
    shards: HashMap<i32, Watch>,
    /// The last beat of each server and when it was first seen, and whether the server has beaten since it was seen first.
    members: HashMap<String, (i64, Moment, bool)>,
}

/// The rows of a beat, before they are judged.
#[derive(Debug)]
pub(crate) struct Rows {
    members: Vec<Peer>,
    shards: Vec<ShardView>,
    is_replicated: bool,
}

impl Watches {
    /// Creates watches that declare a server dead after `dead_after` without a beat.
    pub(crate) fn new(dead_after: Duration) -> Self {
        Self { dead_after, shards: HashMap::new(), members: HashMap::new() }
    }

    /// See [`Watch::restart`].
    pub(crate) fn restart(&mut self) {
        self.shards.values_mut().for_each(Watch::restart);
        self.members.clear();
    }

    /// Compares the rows that were read at `now` with earlier ones, and decides which owners and servers are dead.
    pub(crate) fn look(&mut self, me: &str, mut rows: Rows, now: Moment) -> ClusterView {
        for view in &mut rows.shards {
            let watch = self.shards.entry(view.shard).or_insert_with(|| Watch::new(self.dead_after));
            view.status = watch.look(me, &view.owner, now);
        }
        // A server that registers again has a new id, so the old ones would collect here.
        self.members.retain(|id, _| rows.members.iter().any(|peer| peer.id == *id));
        for peer in &mut rows.members {
            // The time begins when this server sees the other for the first time, because it cannot know how long ago
            // the beat was.
            let (beat, since, has_beaten) = self.members.entry(peer.id.clone()).or_insert((peer.beat, now, false));
            if *beat != peer.beat {
                (*beat, *since, *has_beaten) = (peer.beat, now, true);
            }
            // Never this server itself: that it reads the rows shows that it is alive.
            peer.is_silent = peer.id != me && now.since(*since) >= self.dead_after;
        }
        ClusterView { members: rows.members.into(), shards: rows.shards.into(), is_replicated: rows.is_replicated }
    }

    /// A living server with the same address as this one. Not the registration that this one had before it was restarted: that one beats no more.
    pub(crate) fn twin<'a>(&self, me: &str, cluster: &'a ClusterView) -> Option<&'a Peer> {
        let own = cluster.member(me).filter(|own| !own.url.is_empty())?;
        let beats = |peer: &Peer| self.members.get(&peer.id).is_some_and(|(.., has_beaten)| *has_beaten);
        cluster.members.iter().find(|peer| peer.id != me && peer.url == own.url && !peer.is_silent && beats(peer))
    }

    /// The servers whose rows can be deleted, because they have been silent for much longer than a take-over takes.
    pub(crate) fn crashed<'a>(&self, cluster: &'a ClusterView, now: Moment) -> Vec<&'a Peer> {
        let is_long = |peer: &&Peer| {
            self.members.get(&peer.id).is_some_and(|(_, since, _)| now.since(*since) >= self.dead_after * 3)
        };
        cluster.members.iter().filter(|peer| peer.is_silent).filter(is_long).collect()
    }
}

impl Rows {
    /// Keeps the statuses of an earlier view.
    pub(crate) fn seen_by(mut self, cluster: &ClusterView) -> ClusterView {
        for view in &mut self.shards {
            let earlier =
                cluster.shards.iter().find(|seen| seen.shard == view.shard && seen.owner.epoch == view.owner.epoch);
            view.status = match (&view.owner.id, earlier) {
                (None, _) => OwnerStatus::Free,
                // Judged dead in the same epoch: a new owner has a new epoch, and nothing is known about its life
                // yet.
                (Some(_), Some(seen)) if seen.status == OwnerStatus::Dead => OwnerStatus::Dead,
                _ => OwnerStatus::Alive,
            };
        }
        for peer in &mut self.members {
            peer.is_silent = cluster.member(&peer.id).is_some_and(|seen| seen.is_silent);
        }
        ClusterView { members: self.members.into(), shards: self.shards.into(), is_replicated: self.is_replicated }
    }
}

/// Reads the shards, then the servers. In the other order the new owner of a shard could be missing among the servers.
///
/// # Errors
/// When PostgreSQL fails.
pub(crate) async fn read(session: &Session) -> Result<Rows, PostgresError> {
    let asked = "SELECT s.id, s.owner, s.epoch, m.beat, m.name, s.wanted, s.pinned, \
                 current_setting('synchronous_standby_names') <> '' FROM shard s LEFT JOIN member m ON m.id = s.owner ORDER BY s.id";
    let (mut shards, mut is_replicated) = (Vec::new(), false);
    for row in &session.query(asked, &[]).await? {
        let owner = Owner { id: row.try_get(1)?, epoch: row.try_get(2)?, beat: row.try_get(3)?, name: row.try_get(4)? };
        let (shard, wanted, is_pinned) = (row.try_get(0)?, row.try_get(5)?, row.try_get(6)?);
        is_replicated = row.try_get(7)?;
        shards.push(ShardView { shard, owner, status: OwnerStatus::Alive, wanted, is_pinned });
    }
    let mut members = Vec::new();
    for row in &session.query("SELECT id, name, url, beat, draining FROM member ORDER BY id", &[]).await? {
        members.push(Peer {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            url: row.try_get(2)?,
            beat: row.try_get(3)?,
            is_draining: row.try_get(4)?,
            is_silent: false,
        });
    }
    Ok(Rows { members, shards, is_replicated })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(peers: &[(&str, &str, i64)]) -> Rows {
        let peer = |(id, url, beat): &(&str, &str, i64)| Peer {
            id: (*id).to_owned(),
            name: (*id).to_owned(),
            url: (*url).to_owned(),
            beat: *beat,
            is_draining: false,
            is_silent: false,
        };
        Rows { members: peers.iter().map(peer).collect(), shards: Vec::new(), is_replicated: true }
    }

    #[test]
    fn another_server_with_the_same_address_is_noticed_and_an_earlier_registration_is_not() {
        let mut watches = Watches::new(Duration::from_secs(6));
        let mut twin = |peers: &[(&str, &str, i64)]| {
            let cluster = watches.look("me", rows(peers), Moment::now());
            watches.twin("me", &cluster).map(|peer| peer.id.clone())
        };
        let (here, there) = ("http://here:1", "http://there:1");
        assert_eq!(twin(&[("me", here, 1), ("before", here, 7), ("other", there, 1)]), None);
        assert_eq!(twin(&[("me", here, 2), ("before", here, 7), ("other", there, 2)]), None);
        assert_eq!(twin(&[("me", here, 3), ("copy", here, 1), ("other", there, 3)]), None, "it may be an earlier one");
        assert_eq!(twin(&[("me", here, 4), ("copy", here, 2), ("other", there, 4)]).as_deref(), Some("copy"));
        assert_eq!(twin(&[("me", "", 5), ("copy", "", 3)]), None, "without an address nobody is called");
    }
}
