//! Waits for ownership, serves while it lasts, and waits again.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Role, Seat};
use crate::{
    auth::project::Project,
    broker::{
        Broker,
        embedded::{EmbeddedBroker, EmbeddedConfig},
    },
    clock::Clock,
    server::startup::create_missing,
    store::postgres::{
        PgStore, PostgresConfig, PostgresError,
        duty::Duty,
        member::{Member, View},
        runtime::Runtime,
    },
};

/// How long to wait after PostgreSQL failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How often the queues of the configuration are tried to be created.
const CREATE_ATTEMPTS: u32 = 3;
/// How long an orderly end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Decides what this server does.
pub(super) struct Supervisor {
    pub(super) seat: Arc<Seat>,
    pub(super) postgres: PostgresConfig,
    pub(super) config: EmbeddedConfig,
    pub(super) projects: Vec<Project>,
    pub(super) clock: Clock,
    pub(super) runtime: Arc<Runtime>,
    pub(super) stop: CancellationToken,
}

impl Supervisor {
    /// Runs until the server stops.
    pub(super) async fn run(self, mut member: Arc<Member>) {
        while !self.stop.is_cancelled() {
            let taken = tokio::select! {
                taken = member.own(|view| self.stand_by(view)) => taken,
                () = self.stop.cancelled() => break,
            };
            match taken {
                Ok(Some(duty)) => self.serve(&member, &duty).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "this server could not take over; it tries again");
                    self.pause().await;
                }
            }
            if member.is_dead() {
                match self.rejoin().await {
                    Some(joined) => member = joined,
                    None => return,
                }
            }
        }
        member.leave().await;
    }

    fn stand_by(&self, view: &View) {
        let owner = view.owner.as_ref().and_then(|owner| owner.name.as_deref());
        let why = match owner {
            Some(name) => format!("{name} owns the messages"),
            None => "no server owns the messages yet".to_owned(),
        };
        self.seat.set(Role::Standby(why.into()));
    }

    /// Serves until ownership is lost or the server stops.
    async fn serve(&self, member: &Arc<Member>, duty: &Arc<Duty>) {
        // PostgreSQL may not answer for long, and a stop or another owner does not wait for it.
        let opened = tokio::select! {
            opened = self.open(member, duty) => opened,
            () = duty.lost() => Err(PostgresError::NotOwner),
            () = self.stop.cancelled() => Err(PostgresError::NotOwner),
        };
        let broker = match opened {
            Ok(broker) => broker,
            Err(_) if self.stop.is_cancelled() => {
                self.give_up(member, duty).await;
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the messages could not be opened; another server may try, and this one does so again");
                self.give_up(member, duty).await;
                self.pause().await;
                return;
            }
        };
        tracing::info!(epoch = duty.epoch, "this server serves now");
        self.seat.set(Role::Active(broker.clone()));
        tokio::select! {
            () = duty.lost() => {
                self.seat.set(Role::Standby("another server has taken over".into()));
                tracing::warn!(epoch = duty.epoch, "this server does not own the messages any more and stands by");
                broker.abort().await;
            }
            () = self.stop.cancelled() => {
                // Calls that wait are answered, and what was accepted is committed, before others may take over.
                if timeout(CLOSE_TIMEOUT, broker.close()).await.is_err() {
                    tracing::warn!("PostgreSQL does not answer: requests that wait for it stay unanswered, and others take over later");
                    broker.abort().await;
                }
                self.seat.set(Role::Standby("the server is stopping".into()));
            }
        }
    }

    async fn give_up(&self, member: &Arc<Member>, duty: &Arc<Duty>) {
        let (asked, duty) = (Arc::clone(member), Arc::clone(duty));
        if let Err(error) = member.runtime.run(async move { asked.release(&duty).await }).await {
            tracing::debug!(%error, "ownership could not be given up; others take over later");
        }
    }

    async fn open(&self, member: &Arc<Member>, duty: &Arc<Duty>) -> Result<Arc<EmbeddedBroker>, PostgresError> {
        let (store, snapshot) = PgStore::open(member, duty).await?;
        let broker = Arc::new(EmbeddedBroker::start(Arc::new(store), snapshot, self.config.clone(), self.clock));
        for attempt in 1..=CREATE_ATTEMPTS {
            match create_missing(&*broker, &self.projects).await {
                Ok(()) => break,
                // The other queues are served all the same, and the next take-over tries again.
                Err(error) if attempt == CREATE_ATTEMPTS => {
                    tracing::error!(%error, "a queue of the configuration could not be created");
                }
                Err(error) => {
                    tracing::warn!(%error, "a queue of the configuration could not be created yet");
                    self.pause().await;
                }
            }
        }
        Ok(broker)
    }

    /// Registers again. `None` where the server stops meanwhile.
    async fn rejoin(&self) -> Option<Arc<Member>> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            let joined = tokio::select! {
                joined = Member::join(&self.postgres, self.runtime.clone()) => joined,
                () = self.stop.cancelled() => return None,
            };
            match joined {
                Ok(member) => return Some(member),
                Err(error) => {
                    tracing::warn!(%error, "this server could not register again; it tries again");
                    self.pause().await;
                }
            }
        }
    }

    async fn pause(&self) {
        tokio::select! {
            () = sleep(AFTER_FAILURE) => {}
            () = self.stop.cancelled() => {}
        }
    }
}
