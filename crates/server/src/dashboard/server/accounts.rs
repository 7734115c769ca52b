//! `/ui/access`: who may use the server, and for what. Secrets are never shown.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use axum::response::Response;
use maud::{Markup, html};
use tokio::time::Instant;

use crate::{
    auth::{
        caller::CallerName,
        login_throttle::Slowed,
        project::{Project, User},
        rights::Rights,
    },
    dashboard::{
        html::{
            format::{foreign, number, span, time},
            frame::{Ui, notice},
        },
        server::{
            Pages,
            request::{PageRequest, Posted},
        },
        text::{Texts, fill},
    },
    http::codes,
};

/// The maximum number of rows of refused requests.
const MAX_REFUSED: usize = 50;

/// A key or a user.
struct Caller<'a> {
    project: &'a Project,
    kind: &'static str,
    name: String,
    rights: &'a Rights,
    last_use_ms: Option<i64>,
}

/// A key, a user or a network whose wrong credentials are answered later or otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Slow {
    Key { access_key: String, peer: Option<IpAddr>, left: Duration },
    User { user: String, domain: String, slowed: Slowed },
    Peer { peer: Option<IpAddr>, slowed: Slowed },
}

/// `GET /ui/access`.
pub(super) async fn show(request: PageRequest) -> Response {
    let (ui, pages) = (request.ui(), &request.pages);
    let t = ui.t;
    let body = html! {
        h1 { (t.access) }
        (notice(&ui, &request.form))
        p.muted { (t.access_help) }
        h2 { (t.callers) }
        (callers(&ui, pages))
        h2 { (t.slowed_down) }
        (slow(&ui, &pages.slow()))
        h2 { (t.refused_calls) }
        (refused(&ui, pages))
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
            let accounts = &accounts;
            let keys = project.access_keys.iter().map(move |key| {
                let kind = if key.security_token.is_some() { t.temporary_key } else { t.access_key };
                let last_use_ms = accounts.last_use_ms(&CallerName::Key(key.access_key.clone()));
                Caller { project, kind, name: key.access_key.clone(), rights: &key.rights, last_use_ms }
            });
            let users = project.users.iter().map(move |user: &User| {
                let name = format!("{} @ {}", user.user, user.domain);
                let caller = CallerName::User { user: user.user.clone(), domain: user.domain.clone() };
                let last_use_ms = accounts.last_use_ms(&caller);
                Caller { project, kind: t.user, name, rights: &user.rights, last_use_ms }
            });
            keys.chain(users)
        })
        .collect();
    html! {
        @if accounts.is_open() { p.alert.warn { (t.server_is_open) } } @else {
            div.table-box { table.wide {
                thead { tr {
                    th scope="col" { (t.name) } th scope="col" { (t.kind) } th scope="col" { (t.project) }
                    th scope="col" { (t.may_send) } th scope="col" { (t.may_consume) } th scope="col" { (t.may_manage) } th scope="col" { (t.last_use) }
                } }
                tbody { @for caller in &callers { tr {
                    th scope="row" data-label=(t.name) { code { (foreign(&caller.name)) } }
                    td data-label=(t.kind) { (caller.kind) }
                    td data-label=(t.project) { (caller.project.id.as_str()) }
                    @let Rights { send, consume, manage, .. } = caller.rights;
                    @for (name, patterns) in [(t.may_send, send), (t.may_consume, consume), (t.may_manage, manage)] {
                        td.body data-label=(name) { (queues(ui, patterns)) }
                    }
                    td data-label=(t.last_use) { @if let Some(at) = caller.last_use_ms { (time(at)) } @else { span.muted { (t.not_used) } } }
                } } }
            } }
            p.muted { (t.last_use_help) }
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

impl Pages {
    /// Everybody whose wrong credentials are answered later or otherwise now.
    fn slow(&self) -> Vec<Slow> {
        let (authenticator, now) = (&self.app.authenticator, Instant::now());
        let accounts = authenticator.accounts();
        let keys = accounts.keys.locked(now).into_iter();
        let mut slow: Vec<_> =
            keys.map(|(key, peer, left)| Slow::Key { access_key: key.to_owned(), peer, left }).collect();
        let users: BTreeSet<_> = accounts
            .projects
            .iter()
            .flat_map(|project| &project.users)
            .map(|user| (&user.user, &user.domain))
            .collect();
        slow.extend(users.into_iter().filter_map(|(user, domain)| {
            let slowed = authenticator.logins.user(user, domain)?;
            Some(Slow::User { user: user.clone(), domain: domain.clone(), slowed })
        }));
        slow.extend(authenticator.logins.peers().into_iter().map(|(peer, slowed)| Slow::Peer { peer, slowed }));
        slow
    }
}

impl Slow {
    /// As a form names it.
    fn fields(&self) -> [(&'static str, String); 4] {
        let of = |kind: &str, name: &str, domain: &str, peer: Option<IpAddr>| {
            [
                ("kind", kind.to_owned()),
                ("name", name.to_owned()),
                ("domain", domain.to_owned()),
                ("peer", peer.map(|peer| peer.to_string()).unwrap_or_default()),
            ]
        };
        match self {
            Self::Key { access_key, peer, .. } => of("key", access_key, "", *peer),
            Self::User { user, domain, .. } => of("user", user, domain, None),
            Self::Peer { peer, .. } => of("peer", "", "", *peer),
        }
    }

    /// In words, for the log.
    fn describe(&self) -> String {
        match self {
            Self::Key { access_key, peer, .. } => format!("key {access_key} from {}", shown(*peer)),
            Self::User { user, domain, .. } => format!("user {user} @ {domain}"),
            Self::Peer { peer, .. } => format!("peer {}", shown(*peer)),
        }
    }
}

fn shown(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string())
}

fn slow(ui: &Ui<'_>, slow: &[Slow]) -> Markup {
    let t = ui.t;
    let delayed = |slowed: &Slowed| fill(t.slowed_by, &[&slowed.wrong.to_string(), &span(slowed.delay, t)]);
    html! {
        p.muted { (t.slowed_down_help) }
        @if slow.is_empty() { p.muted { (t.nobody_slowed) } } @else {
            div.table-box { table.wide {
                thead { tr {
                    th scope="col" { (t.kind) } th scope="col" { (t.name) } th scope="col" { (t.peer) } th scope="col" { (t.state) }
                    @if ui.visitor.acts() { th scope="col" { (t.action) } }
                } }
                tbody { @for one in slow { tr {
                    @let (kind, name, peer, state) = match one {
                        Slow::Key { access_key, peer, left } => (t.access_key, access_key.clone(), shown(*peer), fill(t.locked_for, &[&span(*left, t)])),
                        Slow::User { user, domain, slowed } => (t.user, format!("{user} @ {domain}"), "–".to_owned(), delayed(slowed)),
                        Slow::Peer { peer, slowed } => (t.peer, "–".to_owned(), shown(*peer), delayed(slowed)),
                    };
                    td data-label=(t.kind) { (kind) }
                    td.body data-label=(t.name) { code { (foreign(&name)) } }
                    td data-label=(t.peer) { code { (peer) } }
                    td data-label=(t.state) { span.chip.delayed { (state) } }
                    @if ui.visitor.acts() { td data-label=(t.action) {
                        form.inline method="post" action=(ui.url("/access/unlock")) {
                            @for (name, value) in one.fields() { input type="hidden" name=(name) value=(value); }
                            button type="submit" aria-label=(format!("{} {}", t.lift, one.describe())) { (t.lift) }
                        }
                    } }
                } } }
            } }
        }
    }
}

/// The requests that were answered with 401.
fn refused(ui: &Ui<'_>, pages: &Pages) -> Markup {
    let (t, (total, rows)) = (ui.t, pages.app.authenticator.refused.rows());
    html! {
        p { (fill(t.refused_in_all, &[&number(total)])) }
        @if !rows.is_empty() {
            div.table-box { table.wide {
                thead { tr {
                    th scope="col" { (t.peer) } th scope="col" { (t.reason) } th.num scope="col" { (t.count) } th scope="col" { (t.last) }
                } }
                tbody { @for (peer, code, refusal) in rows.iter().take(MAX_REFUSED) { tr {
                    td data-label=(t.peer) { code { (shown(*peer)) } }
                    td.body data-label=(t.reason) { code { (code) } " " span.muted { (reason(code, t)) } }
                    td.num.main data-label=(t.count) { (number(refusal.count)) }
                    td data-label=(t.last) { (time(refusal.last_ms)) }
                } } }
            } }
        }
    }
}

/// Why a request was refused, in plain words.
fn reason(code: &str, t: &'static Texts) -> &'static str {
    match code {
        code if code == codes::SIGNATURE.name => t.refused_signature,
        code if code == codes::TOKEN_MISSING.name => t.refused_without,
        code if code == codes::TOKEN_EXPIRED.name => t.refused_expired,
        code if code == codes::TOKEN_INVALID.name => t.refused_token,
        code if code == codes::CREDENTIALS.name => t.refused_password,
        _ => "",
    }
}

/// `POST /ui/access/unlock`: wrong credentials that were counted are forgotten.
pub(super) async fn unlock(Posted(request): Posted) -> Response {
    let form = &request.form;
    let field = |name| form.first(name).unwrap_or_default().to_owned();
    let (kind, name, domain) = (field("kind"), field("name"), field("domain"));
    let peer: Option<IpAddr> = form.filled("peer").and_then(|peer| peer.parse().ok());
    let authenticator = &request.pages.app.authenticator;
    let (target, done) = match kind.as_str() {
        "key" => (format!("key {name} from {}", shown(peer)), authenticator.accounts().keys.unlock(&name, peer)),
        "user" => (format!("user {name} @ {domain}"), authenticator.logins.forget_user(&name, &domain)),
        "peer" => (format!("peer {}", shown(peer)), authenticator.logins.forget_peer(peer)),
        _ => return request.ui().bad_form(),
    };
    let text = request.ui().t.nothing_to_lift;
    let outcome = if done { Ok("wrong credentials are forgotten".to_owned()) } else { Err(text.to_owned()) };
    request.ended("unlock", &target, outcome, "/access")
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
