//! Keeps this server registered, and decides with each beat which shards it takes and gives away.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Shared,
    balance::{self, Act},
    shard_task::{AFTER_FAILURE, ShardTask},
};
use crate::store::postgres::{
    PostgresConfig, cluster_view::ClusterView, duty::OwnerStatus, member::Member, runtime::Runtime,
};

/// Decides what this server does.
pub(super) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) postgres: PostgresConfig,
    pub(super) runtime: Arc<Runtime>,
}

/// The shards of one registration.
#[derive(Default)]
struct Held {
    tasks: HashMap<i32, (AbortOnDropHandle<()>, CancellationToken)>,
    /// For how many beats a shard has had no owner.
    waited: HashMap<i32, u32>,
}

impl Supervisor {
    /// Runs until the server stops.
    pub(super) async fn run(self, mut member: Arc<Member>) {
        loop {
            let mut held = Held::default();
            self.serve(&member, &mut held).await;
            held.end().await;
            if self.shared.stop.is_cancelled() {
                break;
            }
            match self.rejoin().await {
                Some(joined) => {
                    member = joined;
                    self.shared.joined(&member);
                }
                None => return,
            }
        }
        member.leave().await;
    }

    /// Serves until the server stops, or others declared it dead.
    async fn serve(&self, member: &Arc<Member>, held: &mut Held) {
        let mut views = member.views();
        loop {
            let cluster = views.borrow_and_update().clone();
            if member.is_dead() {
                return;
            }
            self.act(member, held, &cluster).await;
            tokio::select! {
                // The sender is in `member`.
                _ = views.changed() => {}
                () = self.shared.stop.cancelled() => {
                    // Shards that are given up from here on go to others.
                    member.drain().await;
                    return;
                }
            }
        }
    }

    async fn act(&self, member: &Arc<Member>, held: &mut Held, cluster: &ClusterView) {
        held.reap();
        held.count(cluster);
        self.shared.seats.observe(&member.id, cluster, |shard| held.tasks.contains_key(&shard));
        let shards: BTreeSet<i32> = held.tasks.keys().copied().collect();
        let acts = balance::decide(&member.id, cluster, &shards, |shard| held.waited.get(&shard).copied().unwrap_or(0));
        for act in acts {
            match act {
                Act::Take(view) => {
                    tracing::info!(
                        shard = view.shard,
                        verdict = view.status.as_str(),
                        "this server takes a shard over"
                    );
                    let (shard, give) = (view.shard, CancellationToken::new());
                    let (shared, member) = (Arc::clone(&self.shared), Arc::clone(member));
                    let task = ShardTask { shared, member, view, give: give.clone() };
                    held.tasks.insert(shard, (AbortOnDropHandle::new(tokio::spawn(task.run())), give));
                }
                Act::Give { shard, to } => {
                    if let Some((_, give)) = held.tasks.get(&shard).filter(|(_, give)| !give.is_cancelled()) {
                        tracing::info!(shard, to, "this server hands a shard over");
                        member.hand_over_to(shard, to);
                        give.cancel();
                    }
                }
            }
        }
    }

    /// Registers again. `None` where the server stops meanwhile.
    async fn rejoin(&self) -> Option<Arc<Member>> {
        let counts = self.shared.member().counts.clone();
        loop {
            if self.shared.stop.is_cancelled() {
                return None;
            }
            let joined = tokio::select! {
                joined = Member::join_again(&self.postgres, self.runtime.clone(), counts.clone()) => joined,
                () = self.shared.stop.cancelled() => return None,
            };
            match joined {
                Ok(member) => return Some(member),
                Err(error) => {
                    tracing::warn!(%error, "this server could not register again; it tries again");
                    tokio::select! {
                        () = sleep(AFTER_FAILURE) => {}
                        () = self.shared.stop.cancelled() => {}
                    }
                }
            }
        }
    }
}

impl Held {
    /// Forgets the shards that this server no longer has.
    fn reap(&mut self) {
        self.tasks.retain(|_, (task, _)| !task.is_finished());
    }

    fn count(&mut self, cluster: &ClusterView) {
        for view in &*cluster.shards {
            let waited = self.waited.entry(view.shard).or_default();
            *waited = if view.status == OwnerStatus::Alive { 0 } else { *waited + 1 };
        }
    }

    /// Gives up everything that is left, at once.
    async fn end(self) {
        // All are cancelled before the first is waited for, so that they end at the same time.
        for (_, give) in self.tasks.values() {
            give.cancel();
        }
        for (task, _) in self.tasks.into_values() {
            // A panic of it was reported when it happened.
            let _ = task.await;
        }
    }
}
