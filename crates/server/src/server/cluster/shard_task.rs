//! One shard at this server: taken, opened, served until ownership is lost or handed over.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    seats::{Seat, Seats},
};
use crate::{
    broker::{Broker, embedded::EmbeddedBroker},
    server::configured::create_missing,
    store::postgres::{
        PgStore, PostgresError,
        cluster_view::ShardView,
        duty::Duty,
        member::{Member, QueueElsewhere},
        shards,
    },
};

/// How long to wait after PostgreSQL failed.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How often the queues of the configuration are tried to be created.
const CREATE_ATTEMPTS: u32 = 3;
/// How long changes that were submitted before the shard was lost may take to be refused by PostgreSQL. Requests wait meanwhile.
const FENCED_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an orderly end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// A shard that this server takes.
pub(super) struct ShardTask {
    pub(super) shared: Arc<Shared>,
    pub(super) member: Arc<Member>,
    pub(super) view: ShardView,
    /// Cancelled when the shard is to be given up in order.
    pub(super) give: CancellationToken,
}

impl ShardTask {
    /// Runs until this server no longer owns the shard.
    pub(super) async fn run(self) {
        let taken = tokio::select! {
            taken = self.member.take_away(&self.view) => taken,
            () = self.give.cancelled() => return,
        };
        match taken {
            Ok(Some(duty)) => self.serve(&duty).await,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, shard = self.view.shard, "this server could not take a shard over; it tries again");
                self.pause().await;
            }
        }
    }

    /// Serves until ownership is lost or given up.
    async fn serve(&self, duty: &Arc<Duty>) {
        let shard = duty.shard;
        // PostgreSQL may not answer for long, and a stop or another owner does not wait for it.
        let opened = tokio::select! {
            opened = self.open(duty) => opened,
            () = duty.lost() => Err(PostgresError::NotOwner),
            () = self.give.cancelled() => Err(PostgresError::NotOwner),
        };
        let broker = match opened {
            Ok(broker) => broker,
            Err(_) if self.give.is_cancelled() => return self.give_up(duty).await,
            Err(error) => {
                tracing::error!(%error, shard, "a shard could not be opened; another server may try, and this one does so again");
                self.give_up(duty).await;
                return self.pause().await;
            }
        };
        tracing::info!(shard, epoch = duty.epoch, "this server serves a shard now");
        self.seats().set(shard, Seat::Local(broker.clone()));
        // The settings may have changed while the shard was opened.
        broker.reconfigure(self.shared.config().as_ref().clone());
        tokio::select! {
            biased;
            () = duty.lost() => {
                self.seats().set(shard, Seat::Nobody("another server has taken over".into()));
                tracing::warn!(shard, epoch = duty.epoch, "this server does not own a shard any more");
                broker.abort_after(FENCED_TIMEOUT).await;
            }
            () = self.give.cancelled() => {
                // From here on new calls wait for the next owner. Calls that are waiting already get an answer, and accepted
                // changes are committed, before others may take over.
                self.seats().set(shard, Seat::Nobody("the shard is handed over".into()));
                if timeout(CLOSE_TIMEOUT, broker.close()).await.is_err() {
                    tracing::warn!(shard, "PostgreSQL does not answer: requests that wait for it stay unanswered, and others take over later");
                    broker.abort().await;
                } else {
                    tracing::info!(shard, epoch = duty.epoch, "this server gave a shard up in order");
                }
            }
        }
        self.shared.retire(&broker);
    }

    async fn give_up(&self, duty: &Arc<Duty>) {
        let (asked, duty) = (Arc::clone(&self.member), Arc::clone(duty));
        if let Err(error) = self.member.runtime.run(async move { asked.release(&duty).await }).await {
            tracing::debug!(%error, "ownership could not be given up; others take over later");
        }
    }

    async fn open(&self, duty: &Arc<Duty>) -> Result<Arc<EmbeddedBroker>, PostgresError> {
        let (store, snapshot) = PgStore::open(&self.member, duty).await?;
        let (config, clock) = (self.shared.config().as_ref().clone(), self.shared.clock);
        let broker = Arc::new(EmbeddedBroker::resume(Arc::new(store), snapshot, config, clock).await);
        let elsewhere = self.member.queues_elsewhere().await?;
        self.create_queues(&broker, duty.shard, &elsewhere).await;
        Ok(broker)
    }

    /// Creates the missing queues of the configuration that belong to the shard. Imported queues may be in another one than new ones
    /// of their name.
    async fn create_queues(&self, broker: &EmbeddedBroker, shard: i32, elsewhere: &[QueueElsewhere]) {
        let mut projects = self.shared.projects.clone();
        for project in &mut projects {
            let id = project.id.clone();
            let is_here = |name: &str| {
                let found = elsewhere.iter().find(|found| found.project == id && found.name == name);
                let by_name = || shards::of_name(&id, name, self.member.tables.shards);
                found.map_or_else(by_name, |found| found.shard) == shard
            };
            project.queues.retain(|start| is_here(&start.queue.name));
            project.schedules.retain(|start| is_here(&start.queue));
        }
        for attempt in 1..=CREATE_ATTEMPTS {
            match create_missing(broker, &projects).await {
                // Schedules without their queue were logged, and each server looks for their queues.
                Ok(_waiting) => return,
                // The other queues are served anyway, and the next take-over tries again.
                Err(error) if attempt == CREATE_ATTEMPTS => {
                    tracing::error!(%error, "a queue of the configuration could not be created");
                }
                Err(error) => {
                    tracing::warn!(%error, "a queue of the configuration could not be created yet");
                    self.pause().await;
                }
            }
        }
    }

    fn seats(&self) -> &Seats {
        &self.shared.seats
    }

    async fn pause(&self) {
        tokio::select! {
            () = sleep(AFTER_FAILURE) => {}
            () = self.give.cancelled() => {}
        }
    }
}
