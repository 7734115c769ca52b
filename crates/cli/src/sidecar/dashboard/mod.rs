//! The dashboard of `run`: its workers, their failures and settings, at `/ui/` of the admin endpoint.
//!
//! | file | contents |
//! |---|---|
//! | `workers` | all workers, and one worker with its counts and errors |
//! | `live` | their numbers, as pages and events show them |
//! | `charts`, `in_flight` | the last day of a worker, and the messages that it handles now |
//! | `samples`, `published_rates` | the numbers of the charts, and the rates of publishers, sampled once a second |
//! | `pages` | what the pages share |
//! | `redelivered` | why its messages were redelivered |
//! | `publishers` | the endpoints that accept messages |
//! | `actions` | pause, resume, drain, concurrency |
//! | `settings` | the effective configuration, and recent actions |

mod actions;
mod charts;
mod in_flight;
mod live;
mod pages;
mod published_rates;
mod publishers;
mod redelivered;
mod samples;
mod settings;
mod workers;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::State,
    response::{Redirect, Response},
    routing::{any, get, post},
};

use self::{pages::Pages, samples::Charts};
use crate::{
    config::{Config, server_settings},
    sidecar::admin::state::AdminState,
};
use dms_server::{
    clock::Clock,
    internal::{
        dashboard::{Gate, GateParts, Product, Ui, Visitor, behind_gate},
        listener::Listener,
    },
};

/// The routes of the dashboard.
fn router(admin: &Arc<AdminState>, gate: &Gate, config: &Config) -> Router {
    let (admin, config) = (Arc::clone(admin), Arc::new(config.clone()));
    let charts = Charts::of(admin.parts.clone());
    let pages = Pages { admin, gate: gate.clone(), config, charts };
    let home = gate.url("/");
    let routes = Router::new()
        .route("/", get(async move || Redirect::to(&home)))
        .route("/ui", get(workers::list))
        .route("/ui/", get(workers::list))
        .route("/ui/events", get(live::events))
        .route("/ui/workers/{worker}", get(workers::show))
        .route("/ui/workers/{worker}/history", get(charts::history))
        .route("/ui/workers/{worker}/pause", post(actions::pause))
        .route("/ui/workers/{worker}/resume", post(actions::resume))
        .route("/ui/workers/{worker}/concurrency", post(actions::concurrency))
        .route("/ui/pause", post(actions::pause_all))
        .route("/ui/resume", post(actions::resume_all))
        .route("/ui/drain", post(actions::drain))
        .route("/ui/publishers", get(publishers::list))
        .route("/ui/config", get(settings::config))
        .route("/ui/activity", get(settings::activity))
        .route("/ui/{*rest}", any(not_found));
    behind_gate(gate, routes.with_state(pages))
}

async fn not_found(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>) -> Response {
    Ui::new(&pages.gate, &visitor).not_found()
}

/// Adds the dashboard to the routes of the admin endpoint, unless the configuration turns it off.
pub(super) fn add(router: Router, admin: &Arc<AdminState>, config: &Config, listener: &Listener) -> Router {
    let settings = &config.admin;
    if !settings.dashboard.enabled {
        return router;
    }
    let gate = Gate::new(GateParts {
        token: admin.guards.token.clone(),
        read_token: admin.guards.read_token.clone(),
        reader_sees_bodies: false,
        host_check: admin.host_check.clone(),
        options: server_settings::dashboard(
            settings.dashboard,
            settings.base_path.as_deref(),
            settings.trace_url.as_deref(),
        ),
        product: Product::Worker,
        port: listener.local_addr().map_or(0, |address| address.port()),
        clock: Clock::system(),
    });
    router.merge(self::router(admin, &gate, config))
}
