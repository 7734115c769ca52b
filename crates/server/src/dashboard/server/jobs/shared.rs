//! Jobs in a cluster: each is kept in PostgreSQL. When its server is gone, another one goes on with a redrive, and reports a discard.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    broker::{Broker, BrokerError, KeptJob},
    dashboard::{
        access::gate::Gate,
        server::jobs::{Elsewhere, Job, Jobs, Kind, Order, State},
    },
    state::AppState,
};

/// How often a server looks for jobs whose server is gone.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The stored state of a job, from which another server continues it.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    #[serde(flatten)]
    order: Order,
    /// Whether it may have changed something. The servers of an earlier version did not say.
    #[serde(default = "may_have_begun")]
    has_begun: bool,
}

fn may_have_begun() -> bool {
    true
}

impl Jobs {
    /// Looks after the jobs of the cluster until the server stops.
    pub(in crate::dashboard::server) async fn watch(self: &Arc<Self>, app: &Arc<AppState>, gate: &Gate) {
        let look = async {
            let mut ticks = interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if let Err(error) = self.look(app, gate).await {
                    tracing::debug!(%error, "the redrives of the cluster could not be read");
                }
            }
        };
        app.stopping.run_until_cancelled(look).await;
    }

    /// Goes on with jobs whose server is gone, and leaves those that another server has taken.
    async fn look(self: &Arc<Self>, app: &Arc<AppState>, gate: &Gate) -> Result<(), BrokerError> {
        // Read before the rows, so that a job that begins meanwhile is not missed among them.
        let open: Vec<_> = self.all().into_iter().filter(|job| job.is_open() && job.is_shared.load(Relaxed)).collect();
        let kept = app.broker.kept_jobs().await?;
        for job in open {
            if !kept.iter().any(|row| row.id == job.order.id && row.server.is_none()) {
                tracing::info!(
                    job = job.order.id,
                    on = job.order.label,
                    "another server goes on with a redrive of this one, or ends a discard of it"
                );
                job.leave();
            }
        }
        let mut elsewhere = Vec::new();
        for KeptJob { id, facts, server } in kept {
            let facts = serde_json::from_str::<Facts>(&facts).ok();
            match (facts, server) {
                (Some(facts), Some(server)) => elsewhere.push(Elsewhere { order: facts.order, server }),
                (Some(facts), None) => match self.find(&id) {
                    // It was left to a server that is gone, too.
                    Some(job) if job.has_moved() => self.take_over(app, gate, facts).await?,
                    // The row of a job that has ended is still there if PostgreSQL failed at that moment.
                    Some(job) if !job.is_open() => app.broker.forget_job(&id).await?,
                    Some(_) => {}
                    None => self.take_over(app, gate, facts).await?,
                },
                // A later version wrote it.
                (None, _) => {}
            }
        }
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = elsewhere;
        Ok(())
    }

    async fn take_over(self: &Arc<Self>, app: &Arc<AppState>, gate: &Gate, facts: Facts) -> Result<(), BrokerError> {
        let Facts { order, has_begun } = facts;
        match order.kind {
            Kind::Redrive => self.go_on(app, gate, order),
            Kind::Discard => {
                app.broker.forget_job(&order.id).await?;
                self.remove(&order.id);
                self.interrupt(gate, order, has_begun);
            }
        }
        Ok(())
    }

    fn go_on(self: &Arc<Self>, app: &Arc<AppState>, gate: &Gate, order: Order) {
        tracing::info!(job = order.id, on = order.label, "a redrive of a server that is gone goes on here");
        let job = Job::new(order, true);
        job.is_shared.store(true, Relaxed);
        self.remove(&job.order.id);
        self.spawn(app, gate, job);
    }

    fn remove(&self, id: &str) {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).retain(|job| job.order.id != id);
    }
}

impl Job {
    /// Stores the job's present state where other servers find it. If one of them has taken the job over already, it is left to that
    /// server. Returns false if the state could not be stored, so that an older one may be there.
    pub(super) async fn share(&self, broker: &dyn Broker) -> bool {
        let facts = Facts { order: self.order.clone(), has_begun: self.state() == State::Running };
        let facts = serde_json::to_string(&facts).unwrap_or_default();
        match broker.keep_job(&self.order.id, &facts).await {
            Ok(true) => self.is_shared.store(true, Relaxed),
            Ok(false) => self.leave(),
            Err(error) => {
                tracing::warn!(
                    %error,
                    job = self.order.id,
                    on = self.order.label,
                    "a redrive or discard could not be kept: no other server knows how far it is if this one stops, so look at it then"
                );
                return false;
            }
        }
        true
    }

    /// Ends what [`share`](Self::share) began.
    pub(super) async fn unshare(&self, broker: &dyn Broker) {
        if self.is_shared.load(Relaxed)
            && let Err(error) = broker.forget_job(&self.order.id).await
        {
            tracing::debug!(%error, job = self.order.id, "the row of a job that has ended is deleted later");
        }
    }
}
