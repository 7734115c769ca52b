//! `/ui/access`: who may use the server, and for what. Secrets are never shown.

use axum::response::Response;
use maud::{Markup, html};

use crate::{
    auth::{
        project::{Project, User},
        rights::Rights,
    },
    dashboard::{
        html::{format::foreign, frame::Ui},
        server::{Pages, request::PageRequest},
    },
};

/// A key or a user.
struct Caller<'a> {
    project: &'a Project,
    kind: &'static str,
    name: String,
    rights: &'a Rights,
}

/// `GET /ui/access`.
pub(super) async fn show(request: PageRequest) -> Response {
    let (ui, pages) = (request.ui(), &request.pages);
    let t = ui.t;
    let body = html! {
        h1 { (t.access) }
        p.muted { (t.access_help) }
        h2 { (t.callers) }
        (callers(&ui, pages))
        h2 { (t.admin_address) }
        (admin(&ui, pages))
    };
    ui.page(t.access, "/access", &body)
}

fn callers(ui: &Ui<'_>, pages: &Pages) -> Markup {
    let (t, accounts) = (ui.t, pages.app.authenticator.accounts());
    let callers: Vec<Caller<'_>> = accounts
        .projects
        .iter()
        .flat_map(|project| {
            let keys = project.access_keys.iter().map(move |key| {
                let kind = if key.security_token.is_some() { t.temporary_key } else { t.access_key };
                Caller { project, kind, name: key.access_key.clone(), rights: &key.rights }
            });
            let users = project.users.iter().map(move |user: &User| {
                let name = format!("{} @ {}", user.user, user.domain);
                Caller { project, kind: t.user, name, rights: &user.rights }
            });
            keys.chain(users)
        })
        .collect();
    html! {
        @if accounts.is_open() { p.alert.warn { (t.server_is_open) } } @else {
            div.table-box { table.wide {
                thead { tr {
                    th scope="col" { (t.name) } th scope="col" { (t.kind) } th scope="col" { (t.project) }
                    th scope="col" { (t.may_send) } th scope="col" { (t.may_consume) } th scope="col" { (t.may_manage) }
                } }
                tbody { @for caller in &callers { tr {
                    th scope="row" data-label=(t.name) { code { (foreign(&caller.name)) } }
                    td data-label=(t.kind) { (caller.kind) }
                    td data-label=(t.project) { (caller.project.id.as_str()) }
                    @let Rights { send, consume, manage, .. } = caller.rights;
                    @for (name, patterns) in [(t.may_send, send), (t.may_consume, consume), (t.may_manage, manage)] {
                        td.body data-label=(name) { (queues(ui, patterns)) }
                    }
                } } }
            } }
        }
    }
}

/// The queues that patterns allow.
fn queues(ui: &Ui<'_>, patterns: &[String]) -> Markup {
    html! {
        @if patterns.is_empty() { span.muted { (ui.t.none) } }
        @else if patterns.iter().any(|pattern| pattern == "*") { (ui.t.every_queue) }
        @else { @for pattern in patterns { code { (foreign(pattern)) } " " } }
    }
}

/// The tokens of the admin address.
fn admin(ui: &Ui<'_>, pages: &Pages) -> Markup {
    let (t, app) = (ui.t, &pages.app);
    let bodies = if app.reader_sees_bodies { t.reads_with_bodies } else { t.reads_without_bodies };
    let local = match (app.admin_auth.asks(), pages.dashboard.gate.options().actions) {
        (true, _) => t.nobody,
        (false, true) => t.everything,
        (false, false) => t.reads_with_bodies,
    };
    let is_set = |asks: bool| if asks { t.is_set } else { t.is_not_set };
    let rows = [
        ("server.admin.token", is_set(app.admin_auth.asks()), if app.admin_auth.asks() { t.everything } else { "–" }),
        (
            "server.admin.read_token",
            is_set(app.admin_read_auth.asks()),
            if app.admin_read_auth.asks() { bodies } else { "–" },
        ),
        (t.without_a_token, "–", local),
    ];
    html! {
        div.table-box { table.wide {
            thead { tr { th scope="col" { (t.who) } th scope="col" { (t.state) } th scope="col" { (t.rights) } } }
            tbody { @for (name, state, rights) in rows { tr {
                th scope="row" data-label=(t.who) { (name) } td data-label=(t.state) { (state) } td.body data-label=(t.rights) { (rights) }
            } } }
        } }
        p.muted { (t.access_changes) }
    }
}
