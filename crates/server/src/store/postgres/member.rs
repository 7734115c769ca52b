//! A server among others: it beats each second, watches the owners of the shards, and takes a shard when it may.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::error::SqlState;

use crate::store::postgres::{
    cluster_view::{self, ClusterView, Rows, ShardView, Watches},
    config::PostgresConfig,
    connect::{Connector, LOOK_AROUND, Link, OVERTAKEN, Session},
    duty::{Duty, Moment, OwnerStatus},
    error::{PostgresError, within},
    runtime::Runtime,
    schema::{self, Tables},
    spare_session::SpareSession,
};
use dms_protocol::queue::{ProjectId, QueueId};

/// A fifth of the time after which others take over: 1 s of 5 s. A server beats once in it. The owner stops serving that much
/// earlier, and others, who look once in it, wait that much longer.
const FIFTHS: u32 = 5;
/// How long giving up the shard, or ending the registration, may take.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long registering may take, making the tables included. A primary that is stopped, or that waits for a standby that is gone,
/// never answers, and the connection stays open.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a take-over may take, its tries included.
pub(super) const TAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a take-over tries to get the row from a session of the dead owner.
const TAKE_TRIES: usize = 3;
/// How long each of them waits.
const TAKE: &str = "SET lock_timeout = '2s'";

/// The counters of a server, through all its registrations.
#[derive(Debug, Default)]
pub(crate) struct MemberCounters {
    /// Beats that PostgreSQL did not answer in time.
    pub(crate) missed_beats: AtomicU64,
    /// Commits that were repeated, because it was not known whether they took effect.
    pub(crate) unsure_commits: AtomicU64,
    /// Shards that were taken from a server that had died.
    pub(crate) takeovers: AtomicU64,
}

/// One incarnation of a server: from its registration until it leaves or is declared dead.
#[derive(Debug)]
pub(crate) struct Member {
    /// Random, never used again.
    pub(crate) id: String,
    pub(crate) connector: Arc<Connector>,
    pub(crate) runtime: Arc<Runtime>,
    /// The settings that are stored in the tables.
    pub(crate) tables: Tables,
    pub(super) beats: Link,
    /// The session for the next guard.
    pub(super) spare: SpareSession,
    pub(crate) counts: Arc<MemberCounters>,
    takeover_after: Duration,
    /// The export that this program imports.
    importing: Option<String>,
    /// Whether another server with the same address was seen.
    has_twin: AtomicBool,
    state: Mutex<MemberState>,
    cluster: watch::Sender<ClusterView>,
    task: Mutex<Option<AbortHandle>>,
}

/// An imported queue whose id belongs to another shard than its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueElsewhere {
    pub(crate) project: ProjectId,
    pub(crate) name: String,
    pub(crate) shard: i32,
    pub(crate) id: QueueId,
}

/// The registration of this server, as of the last beat.
#[derive(Debug)]
struct MemberState {
    /// When the last answered beat was sent.
    beaten: Moment,
    /// The periods of ownership by their shards.
    duties: BTreeMap<i32, Arc<Duty>>,
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
        Self::join_again(config, runtime, Arc::default()).await
    }

    /// The same for a server that was registered before.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn join_again(
        config: &PostgresConfig,
        runtime: Arc<Runtime>,
        counts: Arc<MemberCounters>,
    ) -> Result<Arc<Self>, PostgresError> {
        let (config, on) = (config.clone(), runtime.clone());
        // The timeout begins on that runtime, whose clock is never paused.
        let joined = on.run(async move { within(JOIN_TIMEOUT, Self::register(config, runtime, counts)).await });
        let member = Arc::new(joined.await?);
        // A weak reference: a server that is dropped must stop beating, or nobody would take its shards over.
        let task = member.runtime.spawn(run(Arc::downgrade(&member)));
        *member.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        Ok(member)
    }

    async fn register(
        config: PostgresConfig,
        runtime: Arc<Runtime>,
        counts: Arc<MemberCounters>,
    ) -> Result<Self, PostgresError> {
        let id = uuid::Uuid::new_v4().to_string();
        let connector = Arc::new(Connector::new(&config, &application(&id))?);
        // A separate session, because a failed migration has to end with its transaction.
        let tables = schema::prepare(&connector.connect().await?, &config.schema, config.shards).await?;
        tables.refuse_half_imported(&config.schema, config.importing.as_deref())?;
        let beats = Link::new(connector.clone());
        let session = beats.get().await?;
        // Before the row is sent, as for each beat: others may see it at once, and count from then on.
        let sent = Moment::now();
        let insert = "INSERT INTO member (id, name, url, beat) VALUES ($1, $2, $3, 0)";
        session.execute(insert, &[&id, &config.name, &config.advertise.unwrap_or_default()]).await?;
        let state =
            Mutex::new(MemberState { beaten: sent, duties: BTreeMap::new(), is_dead: false, is_unanswered: false });
        let (cluster, takeover_after) = (watch::Sender::default(), config.takeover_after);
        let task = Mutex::default();
        let importing = config.importing;
        let spare = SpareSession::default();
        Ok(Self {
            id,
            connector,
            runtime,
            tables,
            beats,
            spare,
            counts,
            takeover_after,
            importing,
            has_twin: AtomicBool::new(false),
            state,
            cluster,
            task,
        })
    }

    /// Subscribes to what this server sees with each beat.
    pub(crate) fn views(&self) -> watch::Receiver<ClusterView> {
        self.cluster.subscribe()
    }

    /// Whether others declared this server dead: it has to join again.
    pub(crate) fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    fn state(&self) -> MutexGuard<'_, MemberState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when this server may serve after a beat that was sent then.
    fn until(&self, sent: Moment) -> Moment {
        sent.after(self.takeover_after - self.beat_interval())
    }

    /// The time between two beats: several may be lost before another server takes over.
    fn beat_interval(&self) -> Duration {
        self.takeover_after / FIFTHS
    }

    /// Beats once, and judges the other servers by what PostgreSQL answers.
    async fn beat(&self, watches: &mut Watches) {
        let sent = Moment::now();
        // A later answer would be worth nothing: a beat lets this server serve for this long after it was sent.
        let limit = self.beat_interval() * (FIFTHS - 1);
        match timeout(limit, self.beat_once()).await {
            Ok(Ok(Some(rows))) => {
                // From the sending on, because others may have read the beat at once and wait from then on.
                self.answered(sent);
                // PostgreSQL may be hanging for everyone: the owner's beats, too.
                if Moment::now().since(sent) >= self.beat_interval() {
                    watches.restart();
                }
                let now = Moment::now();
                let cluster = watches.look(&self.id, rows, now);
                self.warn_of_twin(watches, &cluster);
                self.sweep(watches, &cluster, now).await;
                self.cluster.send_replace(cluster);
            }
            Ok(Ok(None)) => self.declared_dead(),
            failed => {
                watches.restart();
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

    /// Reports once that another server has the same address: calls for one of the two reach the other.
    fn warn_of_twin(&self, watches: &Watches, cluster: &ClusterView) {
        if let Some(twin) = watches.twin(&self.id, cluster)
            && !self.has_twin.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                address = twin.url,
                member = twin.id,
                "another server of the cluster has the same address, so requests for the queues of one of them fail with 503; give each its own \
                 server.cluster.advertise"
            );
        }
    }

    /// Beats, then reads who owns the shards. `None` where this server is not registered any more.
    async fn beat_once(&self) -> Result<Option<Rows>, PostgresError> {
        let session = self.beats.get().await?;
        let warnings = session.warnings();
        let is_known = tokio::select! {
            beaten = beat(&session, &self.id) => beaten?,
            () = self.connector.overtaken(&session, LOOK_AROUND) => {
                return Err(PostgresError::Failed(OVERTAKEN.to_owned()));
            }
        };
        if !is_known {
            return Ok(None);
        }
        // After a failover the other servers would not know the beat, and take over while this one still serves.
        if session.warnings() != warnings {
            return Err(PostgresError::Failed("PostgreSQL warned that the beat may not be replicated".to_owned()));
        }
        Ok(Some(cluster_view::read(&session).await?))
    }

    /// Deletes the rows of servers that crashed and own nothing any more.
    async fn sweep(&self, watches: &Watches, cluster: &ClusterView, now: Moment) {
        for peer in watches.crashed(cluster, now) {
            if cluster.shards.iter().any(|view| view.is_of(&peer.id)) {
                continue;
            }
            let swept = async {
                // Checked once more in the statement: since the view was read, it may have beaten, or taken a shard.
                let delete = "DELETE FROM member WHERE id = $1 AND beat = $2 \
                              AND NOT EXISTS (SELECT 1 FROM shard WHERE owner = $1)";
                let session = self.beats.get().await?;
                session.execute(delete, &[&peer.id, &peer.beat]).await.map_err(PostgresError::from)
            };
            match within(self.beat_interval(), swept).await {
                Ok(_) => tracing::info!(member = peer.name, "the registration of a server that crashed was deleted"),
                Err(error) => tracing::debug!(%error, "the registration of a server that crashed was not deleted yet"),
            }
        }
    }

    /// Warns once per outage, not each second.
    fn unanswered(&self, reason: &str) {
        self.counts.missed_beats.fetch_add(1, Ordering::Relaxed);
        if std::mem::replace(&mut self.state().is_unanswered, true) {
            tracing::debug!(reason, "PostgreSQL still does not answer the beats of this server");
        } else {
            tracing::warn!(
                reason,
                "PostgreSQL did not answer a beat of this server; until it answers one, no messages are handed out"
            );
        }
    }

    /// A beat that was sent at `sent` was answered: all shards of this server may be served for longer.
    fn answered(&self, sent: Moment) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_unanswered) {
            tracing::info!("PostgreSQL answers the beats of this server again");
        }
        state.beaten = sent;
        state.duties.values().for_each(|duty| duty.extend(self.until(sent)));
    }

    /// Gives up all shards at once, because other servers may own them by now.
    fn declared_dead(&self) {
        let mut state = self.state();
        state.is_dead = true;
        std::mem::take(&mut state.duties).values().for_each(|duty| duty.lose());
        tracing::warn!("other servers declared this one dead, because it was silent for too long; it registers again");
    }

    /// Waits until the first shard can be taken, and takes it. Returns `None` if this server was declared dead meanwhile: it has to
    /// join again.
    ///
    /// # Errors
    /// When PostgreSQL failed in a take-over.
    pub(crate) async fn own(self: &Arc<Self>) -> Result<Option<Arc<Duty>>, PostgresError> {
        let mut views = self.views();
        loop {
            // Marked as seen before it is judged, so that a view that arrives meanwhile ends the wait below at once.
            let view = views.borrow_and_update().shards.first().cloned();
            if self.is_dead() {
                return Ok(None);
            }
            if let Some(view) = view.filter(|view| view.status != OwnerStatus::Alive)
                && let Some(duty) = self.take_away(&view).await?
            {
                return Ok(Some(duty));
            }
            // The sender is in `self`.
            let _ = views.changed().await;
        }
    }

    /// [`Member::take`] from any runtime.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn take_away(self: &Arc<Self>, view: &ShardView) -> Result<Option<Arc<Duty>>, PostgresError> {
        let (this, view) = (Arc::clone(self), view.clone());
        self.runtime.run(async move { within(TAKE_TIMEOUT, this.take(&view)).await }).await
    }

    /// Takes a shard that has no owner, or whose owner the watch found dead. Returns `None` if another server was faster, or the
    /// owner is alive after all.
    ///
    /// # Errors
    /// When PostgreSQL failed. The shard may be this server's then: the next view says that it is free, and it is taken again.
    pub(crate) async fn take(&self, view: &ShardView) -> Result<Option<Arc<Duty>>, PostgresError> {
        // A separate session: the take-over may wait for seconds for the lock of the row, and must not delay the beats.
        let session = self.connector.connect().await?;
        // Servers of a later version may have migrated the tables since this one joined, and written what this one cannot read.
        schema::refuse_unusable(&session, &self.connector.schema, self.importing.as_deref()).await?;
        session.batch(TAKE).await?;
        let mut tries = 0;
        let epoch = loop {
            tries += 1;
            match self.take_once(&session, view).await {
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) && tries < TAKE_TRIES => {}
                taken => break taken?,
            }
        };
        let Some(epoch) = epoch else { return Ok(None) };
        let mut state = self.state();
        // Declared dead meanwhile: the shard's row names a registration that is gone, so every server sees the shard as free.
        if state.is_dead {
            return Ok(None);
        }
        if view.owner.id.as_ref().is_some_and(|id| *id != self.id) {
            self.counts.takeovers.fetch_add(1, Ordering::Relaxed);
        }
        // From the last answered beat and not from now, because the other servers count from the beats that they see.
        let duty = Arc::new(Duty::new(view.shard, epoch, self.until(state.beaten)));
        if let Some(earlier) = state.duties.insert(view.shard, duty.clone()) {
            // The earlier period has a lower epoch, so none of its commits can take effect any more.
            earlier.lose();
        }
        Ok(Some(duty))
    }

    /// Tries to become the owner of a shard, and returns the epoch of the period that begins. `None` if another server was faster, the
    /// owner is alive after all, or the standby may lack the change.
    async fn take_once(&self, session: &Session, view: &ShardView) -> Result<Option<i64>, tokio_postgres::Error> {
        let (owner, is_dead) = (&view.owner, view.status == OwnerStatus::Dead);
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
        // The first of several servers raises the epoch, and the others then change no row.
        // What an operator wants holds while that server is there, also if the shard is on its way to another one just now.
        let update = "UPDATE shard SET owner = $1, epoch = epoch + 1, \
                      pinned = pinned AND EXISTS (SELECT 1 FROM member WHERE id = shard.wanted), \
                      wanted = CASE WHEN pinned AND EXISTS (SELECT 1 FROM member WHERE id = shard.wanted) THEN wanted END \
                      WHERE id = $2 AND epoch = $3 RETURNING epoch";
        // Ending sessions that have just ended is worth a warning, too, of another take-over at the same moment.
        let warnings = session.warnings();
        let taken = session.query(update, &[&self.id, &view.shard, &owner.epoch]).await?;
        if session.warnings() != warnings {
            // The row may not have reached the standby.
            return Ok(None);
        }
        taken.first().map(|row| row.try_get(0)).transpose()
    }

    /// Ends a period of ownership at this server.
    pub(crate) fn lose(&self, duty: &Duty) {
        duty.lose();
        self.state().duties.retain(|_, own| !std::ptr::eq(&**own, duty));
    }

    /// Gives a shard up, so that another server takes it at once.
    ///
    /// # Errors
    /// When PostgreSQL failed: others take over when this server has been silent for long enough.
    pub(crate) async fn release(&self, duty: &Duty) -> Result<(), PostgresError> {
        // Before PostgreSQL is asked: from the update on another server may serve the shard, and never two at a time.
        self.lose(duty);
        let given_up = async {
            let session = self.beats.get().await?;
            let update = "UPDATE shard SET owner = NULL, wanted = COALESCE($4, wanted), \
                          pinned = pinned AND ($4 IS NULL OR wanted = $4) WHERE id = $1 AND epoch = $2 AND owner = $3";
            session.execute(update, &[&duty.shard, &duty.epoch, &self.id, &duty.next.get()]).await?;
            Ok::<_, PostgresError>(())
        };
        within(LEAVE_TIMEOUT, given_up).await
    }

    /// Notes who takes a shard when it is given up.
    pub(crate) fn hand_over_to(&self, shard: i32, to: String) {
        if let Some(duty) = self.state().duties.get(&shard) {
            // The first hand-over counts.
            let _ = duty.next.set(to);
        }
    }

    /// Asks the other servers to take what this one gives up from now on.
    pub(crate) async fn drain(self: &Arc<Self>) {
        if let Err(error) = self.set_draining(&self.id, true).await {
            tracing::debug!(%error, "this server could not say that it stops");
        }
    }

    /// The cluster as of the last beat of this server, with the current owners of the shards, and the standbys of PostgreSQL.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) async fn inspect(self: &Arc<Self>) -> Result<(ClusterView, Vec<Standby>), PostgresError> {
        let this = Arc::clone(self);
        let read = async move {
            let session = this.connector.connect().await?;
            let rows = cluster_view::read(&session).await?;
            let seen = this.cluster.borrow().clone();
            Ok::<_, PostgresError>((rows.seen_by(&seen), standbys(&session).await?))
        };
        self.runtime.run(async move { within(LEAVE_TIMEOUT, read).await }).await
    }

    /// The queues that are not in the shard of their name, with their shard.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) async fn queues_elsewhere(self: &Arc<Self>) -> Result<Vec<QueueElsewhere>, PostgresError> {
        let this = Arc::clone(self);
        let read = async move { read_elsewhere(&this.connector.connect().await?).await };
        self.runtime.run(async move { within(TAKE_TIMEOUT, read).await }).await
    }

    /// Forgets a queue that was deleted.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) async fn forget_elsewhere(self: &Arc<Self>, queue: &QueueId) -> Result<(), PostgresError> {
        let (this, queue) = (Arc::clone(self), queue.clone());
        let forgotten = async move {
            let delete = "DELETE FROM queue_elsewhere WHERE id = $1";
            this.connector.connect().await?.execute(delete, &[&queue.as_str()]).await.map_err(PostgresError::from)
        };
        self.runtime.run(async move { within(LEAVE_TIMEOUT, forgotten).await }).await.map(drop)
    }

    /// Has the owner of a shard hand it over to a server, where it stays.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) async fn want(self: &Arc<Self>, shard: i32, to: &str) -> Result<(), PostgresError> {
        let (this, to) = (Arc::clone(self), to.to_owned());
        let written = async move {
            let update = "UPDATE shard SET wanted = $2, pinned = true WHERE id = $1";
            this.beats.get().await?.execute(update, &[&shard, &to]).await.map_err(PostgresError::from)
        };
        self.runtime.run(async move { within(LEAVE_TIMEOUT, written).await }).await.map(drop)
    }

    /// Has a server give its shards away, or take shards again.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub(crate) async fn set_draining(self: &Arc<Self>, id: &str, is_draining: bool) -> Result<(), PostgresError> {
        let (this, id) = (Arc::clone(self), id.to_owned());
        let written = async move {
            let update = "UPDATE member SET draining = $2 WHERE id = $1";
            this.beats.get().await?.execute(update, &[&id, &is_draining]).await.map_err(PostgresError::from)
        };
        self.runtime.run(async move { within(LEAVE_TIMEOUT, written).await }).await.map(drop)
    }

    /// Whether PostgreSQL has answered the last beat.
    pub(crate) fn is_answered(&self) -> bool {
        let state = self.state();
        !state.is_dead && !state.is_unanswered
    }

    /// Ends the registration. Nothing is answered after this.
    pub(crate) async fn leave(self: &Arc<Self>) {
        // Before the row is deleted: a beat that finds no row would report that others declared this server dead.
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

    /// The first shard as PostgreSQL has it now, judged without a watch: an owner that is registered is alive.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) async fn look(&self) -> ShardView {
        let session = self.connector.connect().await.unwrap();
        let rows = cluster_view::read(&session).await.unwrap();
        Watches::new(self.takeover_after).look(&self.id, rows, Moment::now()).shards[0].clone()
    }

    /// Stops beating, as a process that is killed does.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        let mut state = self.state();
        state.is_dead = true;
        std::mem::take(&mut state.duties).values().for_each(|duty| duty.lose());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Beats until the server is declared dead, or the last reference to it is dropped.
async fn run(member: Weak<Member>) {
    let Some(beat) = member.upgrade().map(|member| member.beat_interval()) else { return };
    let mut ticks = interval(beat);
    // After a pause one beat is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watches = Watches::new(beat * (FIFTHS + 1));
    loop {
        ticks.tick().await;
        let Some(member) = member.upgrade() else { return };
        member.beat(&mut watches).await;
        member.spare.close_unused();
        if member.is_dead() {
            // Wakes the tasks that wait for the next view, which see that the server was declared dead.
            member.cluster.send_replace(ClusterView::default());
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

/// A standby of PostgreSQL.
#[derive(Debug)]
pub(crate) struct Standby {
    pub(crate) name: String,
    /// None where PostgreSQL's user may not see it.
    pub(crate) sync_state: Option<String>,
    /// How much it has not made durable yet.
    pub(crate) lag_bytes: Option<i64>,
}

/// The standbys that PostgreSQL streams to.
async fn standbys(session: &Session) -> Result<Vec<Standby>, PostgresError> {
    let asked = "SELECT COALESCE(application_name, ''), sync_state, \
                 pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::bigint FROM pg_stat_replication ORDER BY 1";
    let rows = session.query(asked, &[]).await?;
    let standby = |row: &tokio_postgres::Row| {
        Ok(Standby { name: row.try_get(0)?, sync_state: row.try_get(1)?, lag_bytes: row.try_get(2)? })
    };
    rows.iter().map(standby).collect()
}

/// Reads which queues are not in the shard of their name.
///
/// # Errors
/// When PostgreSQL fails.
pub(super) async fn read_elsewhere(session: &Session) -> Result<Vec<QueueElsewhere>, PostgresError> {
    let rows = session.query("SELECT project, name, shard, id FROM queue_elsewhere", &[]).await?;
    let row = |row: &tokio_postgres::Row| {
        let text = |column| row.try_get::<_, &str>(column);
        let (project, id) = (ProjectId::from(text(0)?), QueueId::from(text(3)?));
        Ok(QueueElsewhere { project, name: text(1)?.to_owned(), shard: row.try_get(2)?, id })
    };
    rows.iter().map(row).collect::<Result<_, tokio_postgres::Error>>().map_err(PostgresError::from)
}

/// Whether a server is registered.
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
