//! The dashboard: pages for a browser, at `/ui/` of an admin address.
//!
//! | file | contents |
//! |---|---|
//! | `access` | who may use it, and for what |
//! | `middleware` | lets callers in before every page |
//! | `login` | the login page, the end of a session, the choice of language and theme |
//! | `text` | the texts in all languages |
//! | `html` | what the pages share |
//! | `series` | the numbers of the last day |
//! | `assets` | script, style and charts |
//! | `server` | the pages of a server |
//!
//! Pages are rendered here and work without a script, which only adds live numbers and charts. Nothing is inline, so that the
//! content security policy can forbid it.

pub(crate) mod access;
mod assets;
mod cookie;
pub(crate) mod form;
pub(crate) mod html;
mod login;
mod middleware;
pub(crate) mod options;
pub(crate) mod product;
pub(crate) mod series;
pub(crate) mod server;
pub(crate) mod text;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{get, post},
};

use self::{
    access::gate::Gate,
    middleware::{closed, open},
};

/// Adds what every dashboard has to its `pages`: the gate before them, the login, and the files.
///
/// The paths in `pages` begin at `/ui`. All of it is also served below the base path, for proxies that do not cut it off.
pub fn behind_gate(gate: &Gate, pages: Router<()>) -> Router<()> {
    let state = |router: Router<Gate>| router.with_state(gate.clone());
    let open_pages = state(
        Router::new()
            .route("/ui/login", get(login::show).post(login::login))
            .route("/ui/logout", post(login::logout))
            .route("/ui/preferences", post(login::preferences))
            .route("/ui/assets/{hash}/{name}", get(assets::serve)),
    );
    // Around routes only: a path that is no page is answered by the rules of the listener.
    let open_pages = open_pages.route_layer(from_fn_with_state(gate.clone(), open));
    let pages = pages.route_layer(from_fn_with_state(gate.clone(), closed));
    let all = open_pages.merge(pages);
    match gate.options().base() {
        "" => all,
        base => Router::new().nest(base, all.clone()).merge(all),
    }
}
