//! Decides which shards this server takes and which it gives away. Pure. Servers that see the same rows decide the same. If they
//! see different ones, PostgreSQL lets only one of them take a shard.

use std::collections::BTreeSet;

use crate::store::postgres::{
    cluster_view::{ClusterView, Peer, ShardView},
    duty::OwnerStatus,
};

/// The number of beats after which a server takes a shard without an owner although another server should take it.
const MAX_ORPHAN_BEATS: u32 = 4;

/// A decision about one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Take a shard without a living owner.
    Take(ShardView),
    /// Hand a shard over to another server.
    Give { shard: i32, to: String },
}

/// Decides for the server `me`, which holds the shards `held`. `waited` is for how many beats a shard has had no owner.
pub(super) fn decide(me: &str, cluster: &ClusterView, held: &BTreeSet<i32>, waited: impl Fn(i32) -> u32) -> Vec<Act> {
    let Some(own) = cluster.member(me) else { return Vec::new() };
    let mut plan = Plan::of(me, cluster, held);
    let mut acts = Vec::new();
    for view in cluster.shards.iter().filter(|view| is_orphan(view, me, held)) {
        let Some(taker) = plan.taker(view) else { continue };
        let is_mine = taker == me || (plan.has(me) && waited(view.shard) > MAX_ORPHAN_BEATS);
        plan.add(&taker);
        if is_mine && !held.contains(&view.shard) {
            acts.push(Act::Take(view.clone()));
        }
    }
    acts.extend(plan.gift(own, cluster, held));
    acts
}

fn is_orphan(view: &ShardView, me: &str, held: &BTreeSet<i32>) -> bool {
    let is_mine = view.is_of(me) && held.contains(&view.shard);
    view.status != OwnerStatus::Alive && !is_mine
}

/// The servers that may be given shards, with how many each has, in the order of their ids.
struct Plan<'a> {
    loads: Vec<(&'a Peer, usize)>,
    /// Whether one server has to own everything, because another one cannot be reached by requests.
    is_solo: bool,
    /// Whether all servers that are left give their shards away: they take them, because nobody else would serve them.
    is_last_resort: bool,
}

impl<'a> Plan<'a> {
    fn of(me: &str, cluster: &'a ClusterView, held: &BTreeSet<i32>) -> Self {
        let load = |peer: &Peer| {
            let owns = |view: &&ShardView| view.is_of(&peer.id) && !is_orphan(view, me, held);
            cluster.shards.iter().filter(owns).count()
        };
        let is_last_resort = !cluster.members.iter().any(Peer::takes_shards);
        let live = cluster.members.iter().filter(|peer| peer.takes_shards() || (is_last_resort && !peer.is_silent));
        let loads: Vec<_> = live.map(|peer| (peer, load(peer))).collect();
        let is_solo = cluster.members.iter().any(|peer| !peer.is_silent && peer.url.is_empty());
        Self { loads, is_solo, is_last_resort }
    }

    fn has(&self, id: &str) -> bool {
        self.loads.iter().any(|(peer, _)| peer.id == id)
    }

    /// The server that takes a shard without an owner.
    fn taker(&self, view: &ShardView) -> Option<String> {
        let wanted = view.wanted.as_ref().filter(|wanted| self.has(wanted));
        wanted.cloned().or_else(|| if self.is_solo { self.most() } else { self.least() })
    }

    fn least(&self) -> Option<String> {
        self.loads.iter().min_by_key(|(_, load)| *load).map(|(peer, _)| peer.id.clone())
    }

    /// The server with the most shards, and of several the first.
    fn most(&self) -> Option<String> {
        self.loads.iter().rev().max_by_key(|(_, load)| *load).map(|(peer, _)| peer.id.clone())
    }

    fn add(&mut self, id: &str) {
        if let Some((_, load)) = self.loads.iter_mut().find(|(peer, _)| peer.id == id) {
            *load += 1;
        }
    }

    /// The next shard to hand over, if any. One at a time, so that every server sees the effect of one before the next.
    fn gift(&self, own: &Peer, cluster: &ClusterView, held: &BTreeSet<i32>) -> Option<Act> {
        let owned: Vec<&ShardView> =
            cluster.shards.iter().filter(|view| view.is_of(&own.id) && held.contains(&view.shard)).collect();
        if self.is_last_resort {
            return None;
        }
        let is_there = |id: &&String| **id != own.id && self.has(id);
        for view in &owned {
            if let Some(to) = view.wanted.as_ref().filter(is_there) {
                return Some(Act::Give { shard: view.shard, to: to.clone() });
            }
        }
        let to = if self.is_solo { self.most() } else { self.least() }.filter(|to| *to != own.id)?;
        let least = self.loads.iter().find(|(peer, _)| peer.id == to).map_or(0, |(_, load)| *load);
        let has_too_many = !self.is_solo && owned.len() >= least + 2;
        if !own.is_draining && !has_too_many {
            return None;
        }
        let stays = |view: &&&ShardView| view.is_pinned && view.wanted.as_ref() == Some(&own.id) && !own.is_draining;
        let given = owned.iter().rev().find(|view| !stays(view))?;
        Some(Act::Give { shard: given.shard, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::duty::Owner;

    fn peer(id: &str) -> Peer {
        let (id, name, url) = (id.to_owned(), id.to_owned(), format!("http://{id}:1"));
        Peer { id, name, url, beat: 1, is_draining: false, is_silent: false }
    }

    fn view(shard: i32, owner: Option<&str>) -> ShardView {
        let id = owner.map(str::to_owned);
        let owner = Owner { name: id.clone(), beat: id.as_ref().map(|_| 1), id, epoch: 1 };
        let status = if owner.id.is_none() { OwnerStatus::Free } else { OwnerStatus::Alive };
        ShardView { shard, owner, status, wanted: None, is_pinned: false }
    }

    fn cluster(members: &[Peer], owners: &[Option<&str>]) -> ClusterView {
        let shards = (0..).zip(owners).map(|(shard, owner)| view(shard, *owner)).collect();
        ClusterView { members: members.to_vec().into(), shards, is_replicated: true }
    }

    /// Lets each server act once. Returns the cluster afterwards, and the number of acts.
    fn step(cluster: &ClusterView) -> (ClusterView, usize) {
        let mut shards = cluster.shards.to_vec();
        let mut count = 0;
        for member in &*cluster.members {
            let held = cluster.shards.iter().filter(|view| view.is_of(&member.id));
            let held = held.map(|view| view.shard).collect();
            for act in decide(&member.id, cluster, &held, |_| 0) {
                count += 1;
                match act {
                    Act::Take(taken) => {
                        assert_ne!(
                            shards[usize::try_from(taken.shard).unwrap_or(0)].status,
                            OwnerStatus::Alive,
                            "taken twice"
                        );
                        let place = usize::try_from(taken.shard).unwrap_or(0);
                        let (wanted, is_pinned) = (taken.wanted.filter(|_| taken.is_pinned), taken.is_pinned);
                        shards[place] = ShardView { wanted, is_pinned, ..view(taken.shard, Some(&member.id)) };
                    }
                    Act::Give { shard, to } => {
                        let place = usize::try_from(shard).unwrap_or(0);
                        let is_pinned = shards[place].is_pinned;
                        shards[place] = ShardView { wanted: Some(to), is_pinned, ..view(shard, None) };
                    }
                }
            }
        }
        (ClusterView { members: cluster.members.clone(), shards: shards.into(), ..*cluster }, count)
    }

    fn settled(mut cluster: ClusterView) -> ClusterView {
        for _ in 0..100 {
            let (next, count) = step(&cluster);
            if count == 0 {
                return next;
            }
            cluster = next;
        }
        cluster
    }

    fn loads(cluster: &ClusterView) -> Vec<usize> {
        let owns = |peer: &Peer| cluster.shards.iter().filter(|view| view.is_of(&peer.id)).count();
        cluster.members.iter().map(owns).collect()
    }

    #[test]
    fn shards_are_spread_over_the_servers_and_stay_there() {
        for (servers, shards) in [(1, 4), (2, 4), (3, 4), (3, 7), (4, 4), (5, 4), (3, 256)] {
            let members: Vec<_> = (0..servers).map(|number| peer(&format!("m{number}"))).collect();
            let end = settled(cluster(&members, &vec![None; shards]));
            let loads = loads(&end);
            assert_eq!(loads.iter().sum::<usize>(), shards);
            assert!(loads.iter().max() <= loads.iter().min().map(|least| least + 1).as_ref(), "{loads:?}");
            assert_eq!(step(&end).1, 0, "nothing moves without a reason");
        }
    }

    #[test]
    fn a_new_server_is_given_shards_and_the_shards_of_a_dead_one_are_shared() {
        let members = [peer("a"), peer("b")];
        assert_eq!(loads(&settled(cluster(&members, &[Some("a"); 6]))), [3, 3]);
        let mut dead = cluster(
            &[peer("a"), peer("b"), peer("c")],
            &[Some("a"), Some("a"), Some("b"), Some("b"), Some("c"), Some("c")],
        );
        dead.shards = dead
            .shards
            .iter()
            .map(|view| match view.owner.id.as_deref() {
                Some("c") => ShardView { status: OwnerStatus::Dead, ..view.clone() },
                _ => view.clone(),
            })
            .collect();
        dead.members = dead.members.iter().map(|peer| Peer { is_silent: peer.id == "c", ..peer.clone() }).collect();
        assert_eq!(loads(&settled(dead)), [3, 3, 0]);
    }

    #[test]
    fn a_draining_server_gives_everything_away_unless_it_is_alone() {
        let draining = Peer { is_draining: true, ..peer("a") };
        assert_eq!(loads(&settled(cluster(&[draining.clone(), peer("b")], &[Some("a"); 4]))), [0, 4]);
        assert_eq!(loads(&settled(cluster(&[draining], &[Some("a"); 4]))), [4]);
    }

    #[test]
    fn draining_servers_take_shards_only_while_no_other_server_is_left() {
        let draining = ["a", "b"].map(|id| Peer { is_draining: true, ..peer(id) });
        let alone = settled(cluster(&draining, &[None; 4]));
        assert_eq!(loads(&alone), [2, 2]);
        let dead = Peer { is_silent: true, ..peer("c") };
        assert_eq!(loads(&settled(cluster(&[&draining[..], &[dead]].concat(), &[None; 4]))), [2, 2, 0]);
        let joined = ClusterView { members: [&draining[..], &[peer("c")]].concat().into(), ..alone };
        assert_eq!(loads(&settled(joined)), [0, 0, 4]);
    }

    #[test]
    fn a_shard_that_was_moved_stays_where_it_is() {
        let mut moved = cluster(&[peer("a"), peer("b")], &[Some("a"), Some("a"), Some("b"), Some("b")]);
        moved.shards = moved
            .shards
            .iter()
            .map(|view| match view.shard {
                0 => ShardView { wanted: Some("b".to_owned()), is_pinned: true, ..view.clone() },
                _ => view.clone(),
            })
            .collect();
        let end = settled(moved);
        assert_eq!(end.shards[0].owner.id.as_deref(), Some("b"));
        assert_eq!(loads(&end), [2, 2], "another one goes back instead");
    }

    #[test]
    fn servers_that_cannot_reach_each_other_take_turns() {
        let members = ["a", "b"].map(|id| Peer { url: String::new(), ..peer(id) });
        assert_eq!(loads(&settled(cluster(&members, &[None; 4]))), [4, 0]);
        assert_eq!(loads(&settled(cluster(&members, &[None, Some("b"), Some("b"), None]))), [0, 4]);
    }

    #[test]
    fn a_shard_that_its_taker_does_not_take_is_taken_by_another() {
        let cluster = cluster(&[peer("a"), peer("b")], &[None]);
        assert_eq!(decide("b", &cluster, &BTreeSet::new(), |_| MAX_ORPHAN_BEATS), []);
        assert_eq!(decide("b", &cluster, &BTreeSet::new(), |_| MAX_ORPHAN_BEATS + 1), [Act::Take(view(0, None))]);
    }
}
