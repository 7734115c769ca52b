//! A server among others: it beats each second, watches the owner of the shard, and takes the shard when it may.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::error::SqlState;

use crate::store::postgres::{
    SHARD,
    config::PostgresConfig,
    connect::{Connector, Link, Session},
    duty::{Duty, Moment, Owner, Verdict, Watch},
    error::{PostgresError, within},
    runtime::Runtime,
    schema,
};

/// A fifth of the time after which others take over: 1 s of 5 s. A server beats once in it. The owner stops serving that much
/// earlier, and others, who look once in it, wait that much longer.
const FIFTHS: u32 = 5;
/// How long giving up the shard, or ending the registration, may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long registering may take, making the tables included. A primary that is stopped, or that waits for a standby that is gone,
/// never answers, and the connection stays open.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a take-over may take, its tries included.
const TAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a take-over tries to get the row from a session of the dead owner.
const TAKE_TRIES: usize = 3;
/// How long each of them waits.
const TAKE: &str = "SET lock_timeout = '2s'";

/// The latest judgement of the owner.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The owner as it was last read.
    pub(crate) owner: Option<Owner>,
    /// Whether the shard can be taken, and why.
    pub(crate) verdict: Option<Verdict>,
}

/// One incarnation of a server: from its registration until it leaves or is declared dead.
#[derive(Debug)]
pub(crate) struct Member {
    /// Random, never used again.
    pub(crate) id: String,
    pub(crate) connector: Arc<Connector>,
    pub(crate) runtime: Arc<Runtime>,
    /// The number that begins checksums.
    pub(crate) log: u32,
    beats: Link,
    takeover_after: Duration,
    state: Mutex<State>,
    view: watch::Sender<View>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
struct State {
    /// When the last answered beat was sent.
    beaten: Moment,
    /// The period of ownership, if this server is the owner.
    duty: Option<Arc<Duty>>,
    /// Whether others declared this server dead, or it has stopped.
    is_dead: bool,
    /// Whether the last beat failed.
    is_unanswered: bool,
}

impl Member {
    /// Connects, makes or migrates the tables, registers, and begins to beat.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or used.
    pub(crate) async fn join(config: &PostgresConfig, runtime: Arc<Runtime>) -> Result<Arc<Self>, PostgresError> {
        let (config, on) = (config.clone(), runtime.clone());
        // The timeout begins on that runtime, whose clock is never paused.
        let joined = on.run(async move { within(JOIN_TIMEOUT, Self::register(config, runtime)).await });
        let member = Arc::new(joined.await?);
        let task = member.runtime.spawn(run(Arc::downgrade(&member)));
        *member.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        Ok(member)
    }

    async fn register(config: PostgresConfig, runtime: Arc<Runtime>) -> Result<Self, PostgresError> {
        let id = uuid::Uuid::new_v4().to_string();
        let connector = Arc::new(Connector::new(&config, &application(&id))?);
        // A separate session, because a failed migration has to end with its transaction.
        let log = schema::prepare(&connector.connect().await?, &config.schema).await?;
        let beats = Link::new(connector.clone());
        let session = beats.get().await?;
        let sent = Moment::now();
        let insert = "INSERT INTO member (id, name, url, beat) VALUES ($1, $2, '', 0)";
        session.execute(insert, &[&id, &config.name]).await?;
        let state = Mutex::new(State { beaten: sent, duty: None, is_dead: false, is_unanswered: false });
        let (view, takeover_after) = (watch::Sender::default(), config.takeover_after);
        let task = Mutex::default();
        Ok(Self { id, connector, runtime, log, beats, takeover_after, state, view, task })
    }

    /// Subscribes to the judgements of the owner.
    pub(crate) fn views(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Whether others declared this server dead: it has to join again.
    pub(crate) fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when this server may serve after a beat that was sent then.
    fn until(&self, sent: Moment) -> Moment {
        sent.after(self.takeover_after - self.beat_interval())
    }

    fn beat_interval(&self) -> Duration {
        self.takeover_after / FIFTHS
    }

    async fn beat(&self, watch: &mut Watch) {
        let sent = Moment::now();
        let limit = self.beat_interval() * (FIFTHS - 1);
        match timeout(limit, self.beat_once()).await {
            Ok(Ok((true, owner))) => {
                self.answered(sent);
                // PostgreSQL may be hanging for everyone: the owner's beats, too.
                if Moment::now().since(sent) >= self.beat_interval() {
                    watch.restart();
                }
                let verdict = owner.as_ref().map(|owner| watch.look(&self.id, owner, Moment::now()));
                self.view.send_replace(View { owner, verdict });
            }
            Ok(Ok((false, _))) => self.declared_dead(),
            failed => {
                watch.restart();
                let reason = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer within {limit:?}"),
                };
                self.unanswered(&reason);
                // A server that takes writes and never answers them may be an old primary: look for another one.
                self.beats.abandon().await;
            }
        }
    }

    /// Beats, then reads who owns the shard. False where this server is not registered any more.
    async fn beat_once(&self) -> Result<(bool, Option<Owner>), PostgresError> {
        let session = self.beats.get().await?;
        if !beat(&session, &self.id).await? {
            return Ok((false, None));
        }
        Ok((true, owner(&session).await?))
    }

    /// Warns once per outage, not each second.
    fn unanswered(&self, reason: &str) {
        if std::mem::replace(&mut self.state().is_unanswered, true) {
            tracing::debug!(reason, "PostgreSQL still does not answer the beats of this server");
        } else {
            tracing::warn!(
                reason,
                "PostgreSQL did not answer a beat of this server; until it answers one, no messages are handed out"
            );
        }
    }

    fn answered(&self, sent: Moment) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_unanswered) {
            tracing::info!("PostgreSQL answers the beats of this server again");
        }
        state.beaten = sent;
        if let Some(duty) = &state.duty {
            duty.extend(self.until(sent));
        }
    }

    fn declared_dead(&self) {
        let mut state = self.state();
        state.is_dead = true;
        if let Some(duty) = state.duty.take() {
            duty.lose();
        }
        tracing::warn!("other servers declared this one dead, because it was silent for too long; it registers again");
    }

    /// Waits until the shard can be taken, and takes it. `observe` is called with each view until then. Returns `None` if this server
    /// was declared dead meanwhile: it has to join again.
    ///
    /// # Errors
    /// When PostgreSQL failed in a take-over.
    pub(crate) async fn own(self: &Arc<Self>, observe: impl Fn(&View)) -> Result<Option<Arc<Duty>>, PostgresError> {
        let mut views = self.views();
        loop {
            let view = views.borrow_and_update().clone();
            if self.is_dead() {
                return Ok(None);
            }
            observe(&view);
            if matches!(view.verdict, Some(Verdict::Free | Verdict::Dead)) {
                tracing::info!(verdict = view.verdict.map(Verdict::as_str), "this server takes over the messages");
                if let Some(duty) = self.take_away(&view).await? {
                    return Ok(Some(duty));
                }
            }
            // The sender is in `self`.
            let _ = views.changed().await;
        }
    }

    /// [`Member::take`] from any runtime.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn take_away(self: &Arc<Self>, view: &View) -> Result<Option<Arc<Duty>>, PostgresError> {
        let (this, view) = (Arc::clone(self), view.clone());
        self.runtime.run(async move { within(TAKE_TIMEOUT, this.take(&view)).await }).await
    }

    /// Takes the shard from an owner that the watch found dead, or that is none. `None` where somebody else was faster, or the owner
    /// is alive after all.
    ///
    /// # Errors
    /// When PostgreSQL failed. The shard may be this server's then: the next view says that it is free, and it is taken again.
    pub(crate) async fn take(&self, view: &View) -> Result<Option<Arc<Duty>>, PostgresError> {
        let Some(owner) = &view.owner else { return Ok(None) };
        let session = self.connector.connect().await?;
        // Servers of a later version may have migrated the tables since this one joined, and written what this one cannot read.
        schema::refuse_newer(&session, &self.connector.schema).await?;
        session.batch(TAKE).await?;
        let is_dead = view.verdict == Some(Verdict::Dead);
        let mut tries = 0;
        let epoch = loop {
            tries += 1;
            match self.take_once(&session, owner, is_dead).await {
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) && tries < TAKE_TRIES => {}
                taken => break taken?,
            }
        };
        // A warning says that the row may not have reached the standby.
        let (Some(epoch), 0) = (epoch, session.warnings()) else { return Ok(None) };
        let mut state = self.state();
        if state.is_dead {
            return Ok(None);
        }
        let duty = Arc::new(Duty::new(epoch, self.until(state.beaten)));
        state.duty = Some(duty.clone());
        Ok(Some(duty))
    }

    async fn take_once(
        &self,
        session: &Session,
        owner: &Owner,
        is_dead: bool,
    ) -> Result<Option<i64>, tokio_postgres::Error> {
        let is_gone = is_dead || owner.beat.is_none();
        if let Some(id) = owner.id.as_ref().filter(|id| is_gone && **id != self.id) {
            // A process that is stopped in the middle of a commit leaves its backend with the lock on the shard's row, for as long as
            // its socket lives. Its registration may be gone already, if an earlier take-over ended half-way.
            end_sessions(session, id).await?;
            let delete = "DELETE FROM member WHERE id = $1 AND beat = $2";
            if is_dead && session.execute(delete, &[id, &owner.beat]).await? == 0 && owner_beats(session, id).await? {
                return Ok(None);
            }
        }
        let update = "UPDATE shard SET owner = $1, epoch = epoch + 1 WHERE id = $2 AND epoch = $3 RETURNING epoch";
        let taken = session.query(update, &[&self.id, &SHARD, &owner.epoch]).await?;
        taken.first().map(|row| row.try_get(0)).transpose()
    }

    /// Gives the shard up, so that another server takes it at once.
    ///
    /// # Errors
    /// When PostgreSQL failed: others take over when this server has been silent for long enough.
    pub(crate) async fn release(&self, duty: &Duty) -> Result<(), PostgresError> {
        duty.lose();
        self.state().duty = None;
        let given_up = async {
            let session = self.beats.get().await?;
            let update = "UPDATE shard SET owner = NULL WHERE id = $1 AND epoch = $2 AND owner = $3";
            session.execute(update, &[&SHARD, &duty.epoch, &self.id]).await?;
            Ok::<_, PostgresError>(())
        };
        within(LEAVE_TIMEOUT, given_up).await
    }

    /// Ends the registration. Nothing is answered after this.
    pub(crate) async fn leave(self: &Arc<Self>) {
        self.stop();
        let this = Arc::clone(self);
        let left = async move {
            let session = this.beats.get().await?;
            session.execute("DELETE FROM member WHERE id = $1", &[&this.id]).await.map_err(PostgresError::from)
        };
        if let Err(error) = self.runtime.run(async move { within(LEAVE_TIMEOUT, left).await }).await {
            tracing::debug!(%error, "this server could not end its registration; others delete it");
        }
    }

    /// Stops beating, as a process that is stopped does: it does not know that others may take over.
    #[cfg(test)]
    pub(crate) fn freeze(&self) {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).take().into_iter().for_each(|task| task.abort());
    }

    /// The owner as PostgreSQL has it now.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) async fn look(&self) -> Owner {
        let session = self.connector.connect().await.unwrap();
        owner(&session).await.unwrap().unwrap()
    }

    /// Stops beating, as a process that is killed does.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        let mut state = self.state();
        state.is_dead = true;
        if let Some(duty) = state.duty.take() {
            duty.lose();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Beats until the server is declared dead, or nobody has it any more.
async fn run(member: Weak<Member>) {
    let Some(beat) = member.upgrade().map(|member| member.beat_interval()) else { return };
    let mut ticks = interval(beat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::new(beat * (FIFTHS + 1));
    loop {
        ticks.tick().await;
        let Some(member) = member.upgrade() else { return };
        member.beat(&mut watch).await;
        if member.is_dead() {
            // Wakes those who wait for a view.
            member.view.send_replace(View::default());
            return;
        }
    }
}

/// The `application_name` of all sessions of a server.
pub(crate) fn application(id: &str) -> String {
    format!("dms/{id}")
}

/// Counts a beat. False where the server is not registered any more.
pub(crate) async fn beat(session: &Session, id: &str) -> Result<bool, tokio_postgres::Error> {
    Ok(session.execute("UPDATE member SET beat = beat + 1 WHERE id = $1", &[&id]).await? > 0)
}

async fn owner(session: &Session) -> Result<Option<Owner>, PostgresError> {
    let asked =
        "SELECT s.owner, s.epoch, m.beat, m.name FROM shard s LEFT JOIN member m ON m.id = s.owner WHERE s.id = $1";
    let rows = session.query(asked, &[&SHARD]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Owner { id: row.try_get(0)?, epoch: row.try_get(1)?, beat: row.try_get(2)?, name: row.try_get(3)? }))
}

async fn owner_beats(session: &Session, id: &str) -> Result<bool, tokio_postgres::Error> {
    Ok(!session.query("SELECT 1 FROM member WHERE id = $1", &[&id]).await?.is_empty())
}

/// Ends the sessions of a server that is taken for dead.
async fn end_sessions(session: &Session, id: &str) -> Result<(), tokio_postgres::Error> {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    session.query(end, &[&application(id)]).await?;
    // They end within milliseconds, and the lock is waited for in any case.
    sleep(Duration::from_millis(20)).await;
    Ok(())
}
