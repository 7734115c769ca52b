//! [`ClusterBroker`]: one of several servers on the same PostgreSQL. Each owns some of the shards, and all answer every request.
//!
//! | file | contents |
//! |---|---|
//! | `supervisor` | keeps this server registered, and acts with each beat |
//! | `balance` | which shards this server takes and gives away |
//! | `shard_task` | one shard at this server, from taking it to giving it up |
//! | `seats` | who answers for each shard now |
//! | `broker` | [`Broker`](crate::broker::Broker) over all shards |
//! | `admin` | what operators see, and moving shards |
//! | `route` | a call on its way to the owner of its shard, tried again while the shard moves |
//! | `call`, `shape` | a call and its reply as values |
//! | `hop` | calls to other servers |

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{hop::client::HopClient, seats::Seats, supervisor::Supervisor};
use crate::{
    auth::project::Project,
    broker::{
        Broker, BrokerStats,
        embedded::{EmbeddedBroker, EmbeddedConfig},
    },
    clock::Clock,
    net::peer_tls::PeerTls,
    state::endable_polls::EndablePolls,
    store::postgres::{PeerUrl, PostgresConfig, PostgresError, member::Member, runtime::Runtime},
};
use dms_protocol::secret::Secret;

mod admin;
mod balance;
mod broker;
mod call;
mod hop;
mod route;
mod seats;
mod shape;
mod shard_task;
mod supervisor;

/// A broker over PostgreSQL that several servers share.
///
/// Dropping it stops it as a crash would: others take over within 1.6 times `takeover_after`. [`Broker::close`] is the orderly way,
/// after which they take over at once.
#[derive(Debug)]
pub(crate) struct ClusterBroker {
    shared: Arc<Shared>,
    /// Until it is closed.
    supervisor: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    /// Calls of other servers; none where there is no address for them.
    hops: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// The parts of a server that its tasks share.
#[derive(Debug)]
struct Shared {
    seats: Seats,
    /// The options of all brokers; replaced when the configuration changes.
    config: RwLock<Arc<EmbeddedConfig>>,
    projects: Vec<Project>,
    clock: Clock,
    stop: CancellationToken,
    /// The registration of the moment.
    member: RwLock<Arc<Member>>,
    /// How many shards there are.
    shards: u32,
    /// The secret of the servers of the cluster.
    secret: Secret,
    /// Encrypts the connections between servers.
    tls: Option<PeerTls>,
    hop: HopClient,
    /// Whether requests for shards of other servers are passed on.
    is_reachable: bool,
    /// The consume calls that wait at this server and can be ended by name.
    polls: Arc<EndablePolls>,
    /// The counters of brokers whose shards this server gave up.
    retired: Mutex<BrokerStats>,
}

impl Shared {
    fn member(&self) -> Arc<Member> {
        self.member.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn joined(&self, member: &Arc<Member>) {
        *self.member.write().unwrap_or_else(PoisonError::into_inner) = member.clone();
    }

    fn config(&self) -> Arc<EmbeddedConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the counters of a broker that no longer serves.
    fn retire(&self, broker: &EmbeddedBroker) {
        let mut stats = broker.stats();
        // Another server has its schedules now.
        (stats.schedules.active, stats.schedules.paused, stats.schedules.late) = (0, 0, 0);
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).add(&stats);
    }
}

impl ClusterBroker {
    /// Takes other settings while it runs; see [`EmbeddedBroker::reconfigure`]. Other servers keep theirs.
    pub(crate) fn reconfigure(&self, config: &EmbeddedConfig) {
        *self.shared.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config.clone());
        self.shared.seats.own().iter().for_each(|broker| broker.reconfigure(config.clone()));
    }

    /// Joins the servers on a PostgreSQL, and takes its part of the shards. The missing queues of `projects` are created by the
    /// servers that own their shards.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or used, or the address for other servers is in use.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) async fn join(
        mut postgres: PostgresConfig,
        config: EmbeddedConfig,
        projects: Vec<Project>,
        clock: Clock,
        polls: Arc<EndablePolls>,
    ) -> Result<Self, PostgresError> {
        postgres.check()?;
        let tls = postgres.tls.clone().map(PeerTls::load).transpose()?;
        let listener = listen(&mut postgres).await?;
        if let Some(tls) = &tls {
            check_certificate(tls, &postgres)?;
        }
        let runtime = Arc::new(Runtime::start()?);
        let member = Member::join(&postgres, runtime.clone()).await?;
        let secret = member.tables.secret.clone();
        let shared = Arc::new(Shared {
            seats: Seats::new(),
            config: RwLock::new(Arc::new(config)),
            projects,
            clock,
            stop: CancellationToken::new(),
            shards: member.tables.shards,
            hop: HopClient::new(secret.clone(), tls.clone()),
            secret,
            tls,
            is_reachable: listener.is_some(),
            polls,
            member: RwLock::new(member.clone()),
            retired: Mutex::default(),
        });
        let hops =
            listener.map(|listener| AbortOnDropHandle::new(tokio::spawn(hop::server::serve(listener, shared.clone()))));
        let supervisor = Supervisor { shared: shared.clone(), postgres, runtime };
        let supervisor = tokio::sync::Mutex::new(Some(tokio::spawn(supervisor.run(member))));
        Ok(Self { shared, supervisor, hops: Mutex::new(hops) })
    }
}

impl Drop for ClusterBroker {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.get_mut().take() {
            supervisor.abort();
        }
    }
}

/// Listens for other servers, and fills in where they reach this one.
async fn listen(postgres: &mut PostgresConfig) -> Result<Option<TcpListener>, PostgresError> {
    let Some(address) = postgres.listen else { return Ok(None) };
    let failed = |error: std::io::Error| PostgresError::Setting {
        setting: "listen",
        reason: format!("{address} cannot be listened on: {error}"),
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let scheme = if postgres.tls.is_some() { "https" } else { "http" };
    postgres.advertise.get_or_insert_with(|| format!("{scheme}://{bound}"));
    Ok(Some(listener))
}

/// Refuses a certificate that no other server would ever accept. One that is out of date is only warned about, because the server
/// still serves its own queues, and the file may be replaced while it runs.
fn check_certificate(tls: &PeerTls, postgres: &PostgresConfig) -> Result<(), PostgresError> {
    let Some(url) = postgres.advertise.as_deref().and_then(PeerUrl::parse) else { return Ok(()) };
    match tls.check(url.host) {
        Err(refused) if !refused.is_about_time => Err(refused.error.into()),
        Err(refused) => {
            tracing::warn!(error = %refused.error, "no other server will accept this one until its certificate is replaced");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
