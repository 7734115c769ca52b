//! The pages of a server.

mod overview;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::State,
    response::{IntoResponse, Redirect, Response},
    routing::{any, get},
};
use http::StatusCode;
use maud::html;

use crate::{
    dashboard::{
        access::{gate::Gate, visitor::Visitor},
        behind_gate,
        html::frame::Ui,
    },
    state::AppState,
};

/// The parts that the pages share.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    app: Arc<AppState>,
    gate: Gate,
}

/// The routes of the dashboard.
pub(crate) fn router(app: &Arc<AppState>, gate: &Gate) -> Router {
    let pages = Pages { app: Arc::clone(app), gate: gate.clone() };
    let home = gate.url("/");
    let routes = Router::new()
        .route("/", get(async move || Redirect::to(&home)))
        .route("/ui", get(overview::show))
        .route("/ui/", get(overview::show))
        .route("/ui/{*rest}", any(not_found));
    behind_gate(gate, routes.with_state(pages))
}

/// The answer for paths without a page.
async fn not_found(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>) -> Response {
    let ui = Ui::new(&pages.gate, &visitor);
    let body = html! { h1 { (ui.t.not_found) } p { a href=(ui.url("/")) { (ui.t.overview) } } };
    (StatusCode::NOT_FOUND, ui.page(ui.t.not_found, "", &body)).into_response()
}
