//! The operations of operators on a cluster: showing it, and moving shards.

use super::ClusterBroker;
use crate::{
    broker::{BrokerError, ClusterMember, ClusterShard, ClusterStandby, ClusterStatus},
    store::postgres::{
        PostgresError,
        cluster_view::{ClusterView, Peer, ShardView},
        duty::OwnerStatus,
        member::Standby,
    },
};

/// The shortest piece of an id that names a server.
const SHORT_ID: usize = 4;

impl ClusterBroker {
    /// The servers and the shards.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(super) async fn status(&self) -> Result<ClusterStatus, BrokerError> {
        let member = self.shared.member();
        let (cluster, standbys) = member.inspect().await.map_err(failed)?;
        let shards = cluster.shards.iter().map(shard_of).collect();
        let members = cluster.members.iter().map(|peer| member_of(peer, &cluster)).collect();
        let standbys = standbys.into_iter().map(standby_of).collect();
        Ok(ClusterStatus { this: member.id.clone(), members, shards, standbys })
    }

    /// Has a shard handed over to a server, or to the one with the fewest shards. Returns that server's id.
    ///
    /// # Errors
    /// When there is no such shard or server, or PostgreSQL fails.
    pub(super) async fn hand_over(&self, shard: u32, to: Option<&str>) -> Result<String, BrokerError> {
        let member = self.shared.member();
        let (cluster, _) = member.inspect().await.map_err(failed)?;
        let number = i32::try_from(shard).unwrap_or(i32::MAX);
        let view = cluster.shard(number).ok_or_else(|| {
            BrokerError::NotAvailable(format!("there is no shard {shard}: there are {}", self.shared.shards).into())
        })?;
        let to = match to {
            Some(named) => find(&cluster, named)?,
            None => least(&cluster, view)?,
        };
        if !to.takes_shards() || to.url.is_empty() {
            return Err(BrokerError::NotAvailable(format!("the server {} takes no shards now", to.name).into()));
        }
        member.want(number, &to.id).await.map_err(failed)?;
        Ok(to.id.clone())
    }

    /// Has a server give its shards away, or take shards again. Returns its id.
    ///
    /// # Errors
    /// When there is no such server, or PostgreSQL fails.
    pub(super) async fn set_draining(&self, server: Option<&str>, is_draining: bool) -> Result<String, BrokerError> {
        let member = self.shared.member();
        let (cluster, _) = member.inspect().await.map_err(failed)?;
        let id = match server {
            Some(named) => find(&cluster, named)?.id.clone(),
            None => member.id.clone(),
        };
        let has_other = cluster.members.iter().any(|peer| peer.id != id && peer.takes_shards());
        if is_draining && !has_other {
            let text = "there is no other server that could take its shards: start one first";
            return Err(BrokerError::NotAvailable(text.into()));
        }
        member.set_draining(&id, is_draining).await.map_err(failed)?;
        Ok(id)
    }
}

/// The server with this id, beginning of an id, name or URL.
fn find<'a>(cluster: &'a ClusterView, named: &str) -> Result<&'a Peer, BrokerError> {
    let is_short = named.len() >= SHORT_ID;
    let fits = |peer: &&Peer| {
        peer.name == named || peer.url == named || (is_short && peer.id.starts_with(named)) || peer.id == named
    };
    let mut found = cluster.members.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(BrokerError::NotAvailable(format!("there is no server {named:?} in the cluster").into())),
        (Some(_), Some(_)) => Err(BrokerError::NotAvailable(
            format!("{named:?} is the name of several servers: give the id of one").into(),
        )),
    }
}

/// The server with the fewest shards, without the owner.
fn least<'a>(cluster: &'a ClusterView, view: &ShardView) -> Result<&'a Peer, BrokerError> {
    let others = cluster.members.iter().filter(|peer| peer.takes_shards() && !view.is_of(&peer.id));
    let load = |peer: &&Peer| cluster.shards.iter().filter(|view| view.is_of(&peer.id)).count();
    let none = || BrokerError::NotAvailable("there is no other server that could take it: start one first".into());
    others.min_by_key(load).ok_or_else(none)
}

fn member_of(peer: &Peer, cluster: &ClusterView) -> ClusterMember {
    let owns = |view: &&ShardView| view.is_of(&peer.id);
    let state = match peer {
        Peer { is_silent: true, .. } => "silent",
        Peer { is_draining: true, .. } => "draining",
        _ => "serving",
    };
    ClusterMember {
        id: peer.id.clone(),
        name: peer.name.clone(),
        url: peer.url.clone(),
        state: state.to_owned(),
        shards: cluster.shards.iter().filter(owns).map(|view| number(view.shard)).collect(),
    }
}

fn shard_of(view: &ShardView) -> ClusterShard {
    let state = match view.status {
        OwnerStatus::Alive => "owned",
        OwnerStatus::Free => "free",
        OwnerStatus::Dead => "dead",
    };
    ClusterShard {
        shard: number(view.shard),
        owner: view.owner.id.clone(),
        epoch: view.owner.epoch,
        state: state.to_owned(),
        wanted: view.wanted.clone(),
        pinned: view.is_pinned,
    }
}

fn standby_of(standby: Standby) -> ClusterStandby {
    ClusterStandby { name: standby.name, sync_state: standby.sync_state, lag_bytes: standby.lag_bytes }
}

fn number(shard: i32) -> u32 {
    u32::try_from(shard).unwrap_or(0)
}

pub(super) fn failed(error: PostgresError) -> BrokerError {
    BrokerError::Store(std::sync::Arc::new(error))
}
