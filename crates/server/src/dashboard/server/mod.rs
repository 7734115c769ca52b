//! The pages of a server.
//!
//! | file | contents |
//! |---|---|
//! | `overview`, `figures` | problems, rates, and the numbers of all groups |
//! | `queues`, `tags`, `group` | creating and deleting; tags; one group with its charts |
//! | `messages`, `leases`, `message`, `commands`, `send` | looking at messages, at those in flight, one message also as commands, sending one |
//! | `dead_overview`, `dead`, `edit`, `export` | dead letters by reason, edited and sent again, and as a file |
//! | `jobs`, `job_pages` | redrives and discards in the background |
//! | `storage`, `disk`, `cluster` | the store, its disk, the servers that share it, and what was done through the dashboard |
//! | `schedules`, `schedule_watch` | messages that are sent at planned times, and what is wrong with them |
//! | `accounts` | keys, users and tokens with their rights |
//! | `history`, `events` | samples of the last day, and live numbers |
//! | `request` | the visitor, the queue or group in the path, and the form of a request |
//! | `filter`, `scan`, `find` | which messages, in bounded steps, of which group |
//! | `search` | messages of all queues |

mod accounts;
mod cluster;
mod commands;
mod dead;
mod dead_overview;
mod disk;
mod edit;
mod events;
mod export;
mod figures;
mod filter;
mod find;
mod group;
mod history;
mod job_pages;
mod jobs;
mod leases;
mod message;
mod messages;
mod overview;
mod queues;
mod request;
mod scan;
mod schedule_watch;
mod schedules;
mod search;
mod send;
mod storage;
mod tags;

use std::sync::Arc;

use axum::{
    Router,
    response::{Redirect, Response},
    routing::{any, get, post},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::{
    disk::DiskHistory, events::LatestOverview, history::History, jobs::Jobs, request::PageRequest,
    schedule_watch::ScheduleWatch,
};
use crate::{
    dashboard::{access::gate::Gate, behind_gate},
    state::AppState,
};

/// The maximum size of a form, in bytes.
const MAX_FORM: usize = 64 << 10;
/// The number of requests that read messages at the same time. Each may hold 16 MiB of them.
const MAX_PEEKS: usize = 2;

/// The dashboard of a server.
#[derive(Debug)]
pub(crate) struct Dashboard {
    gate: Gate,
    history: History,
    disk: DiskHistory,
    schedules: ScheduleWatch,
    latest: LatestOverview,
    jobs: Arc<Jobs>,
    /// Places for open streams of events.
    streams: Arc<Semaphore>,
    /// Places for requests that read messages.
    peeks: Semaphore,
}

impl Dashboard {
    /// The dashboard behind this gate.
    pub(crate) fn new(gate: Gate) -> Arc<Self> {
        let (streams, peeks) = (Arc::new(Semaphore::new(events::MAX_STREAMS)), Semaphore::new(MAX_PEEKS));
        Arc::new(Self {
            gate,
            history: History::default(),
            disk: DiskHistory::default(),
            schedules: ScheduleWatch::default(),
            latest: LatestOverview::default(),
            jobs: Arc::default(),
            streams,
            peeks,
        })
    }

    /// The URL path of a page that logs in once.
    pub(crate) fn invite(&self) -> Option<String> {
        self.gate.invite()
    }

    /// The URL path of a page.
    pub(crate) fn url(&self, path: &str) -> String {
        self.gate.url(path)
    }

    /// Continues the redrives of the last process, and takes samples until the server ends.
    pub(crate) async fn run(&self, app: &Arc<AppState>, ended: &CancellationToken) {
        self.jobs.resume(app, &self.gate);
        let watch = async {
            if app.broker.cluster_counters().is_some() {
                self.jobs.watch(app, &self.gate).await;
            }
        };
        let disk = async {
            if let Some(directory) = &app.data_dir {
                ended.run_until_cancelled(self.disk.run(directory)).await;
            }
        };
        let schedules = ended.run_until_cancelled(self.schedules.run(app));
        tokio::join!(self.history.run(app, ended), watch, disk, schedules);
    }
}

/// The parts that the pages share.
#[derive(Clone, Debug)]
struct Pages {
    app: Arc<AppState>,
    dashboard: Arc<Dashboard>,
}

/// The routes of the dashboard.
pub(crate) fn router(app: &Arc<AppState>, dashboard: &Arc<Dashboard>) -> Router {
    let pages = Pages { app: Arc::clone(app), dashboard: Arc::clone(dashboard) };
    let home = dashboard.url("/");
    let routes = Router::new()
        .route("/", get(async move || Redirect::to(&home)))
        .route("/ui", get(overview::show))
        .route("/ui/", get(overview::show))
        .route("/ui/events", get(events::stream))
        .route("/ui/queues", get(queues::list).post(queues::create))
        .route("/ui/queues/{queue}", get(group::queue))
        .route("/ui/queues/{queue}/groups", post(queues::create_group))
        .route("/ui/queues/{queue}/tags", post(tags::put))
        .route("/ui/queues/{queue}/tags/delete", post(tags::delete))
        .route("/ui/queues/{queue}/purge", post(queues::purge))
        .route("/ui/queues/{queue}/delete", post(queues::delete))
        .route("/ui/queues/{queue}/{group}", get(group::show))
        .route("/ui/queues/{queue}/{group}/history", get(group::history))
        .route("/ui/queues/{queue}/{group}/consume", get(group::consume))
        .route("/ui/queues/{queue}/{group}/purge", post(queues::purge_group))
        .route("/ui/queues/{queue}/{group}/delete", post(queues::delete_group))
        .route("/ui/queues/{queue}/{group}/messages", get(messages::show))
        .route("/ui/queues/{queue}/{group}/leases", get(leases::show))
        .route("/ui/queues/{queue}/{group}/dead", get(dead::show))
        .route("/ui/queues/{queue}/{group}/dead/redrive", get(dead::dry_run).post(dead::redrive))
        .route("/ui/queues/{queue}/{group}/dead/discard", get(dead::prepare_discard).post(dead::discard))
        .route("/ui/queues/{queue}/{group}/dead/export", get(dead::export))
        .route("/ui/queues/{queue}/{group}/dead/{sequence}/edit", get(edit::show).post(edit::send))
        .route("/ui/find", get(message::find))
        .route("/ui/search", get(search::show))
        .route("/ui/messages/{id}", get(message::show))
        .route("/ui/messages/{id}/retry", post(message::retry))
        .route("/ui/messages/{id}/discard", post(message::discard))
        .route("/ui/dead", get(dead_overview::show))
        .route("/ui/jobs", get(job_pages::list))
        .route("/ui/jobs/{id}", get(job_pages::show))
        .route("/ui/jobs/{id}/cancel", post(job_pages::cancel))
        .route("/ui/send", get(send::show).post(send::send))
        .route("/ui/schedules", get(schedules::list).post(schedules::add))
        .route("/ui/schedules/{queue}/{name}", get(schedules::show))
        .route("/ui/schedules/{queue}/{name}/pause", post(schedules::pause))
        .route("/ui/schedules/{queue}/{name}/resume", post(schedules::resume))
        .route("/ui/schedules/{queue}/{name}/remove", post(schedules::remove))
        .route("/ui/storage", get(storage::storage))
        .route("/ui/storage/history", get(storage::history))
        .route("/ui/cluster", get(cluster::show))
        .route("/ui/access", get(accounts::show))
        .route("/ui/access/unlock", post(accounts::unlock))
        .route("/ui/activity", get(storage::activity))
        .route("/ui/{*rest}", any(not_found));
    behind_gate(&dashboard.gate, routes.with_state(pages))
}

/// The answer for paths without a page.
async fn not_found(request: PageRequest) -> Response {
    request.ui().not_found()
}
