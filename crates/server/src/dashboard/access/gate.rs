//! [`Gate`]: who may see the pages of a dashboard and act there.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, request::Parts};
use sha2::{Digest, Sha256};

use crate::{
    clock::Clock,
    dashboard::{
        access::{
            activity::Activity,
            invitation::Invitations,
            origin,
            session::{Hash, Sessions},
            visitor::{Access, Role, Visitor},
            wrong_tokens::WrongTokens,
        },
        cookie::cookie,
        options::DashboardOptions,
        product::Product,
    },
    http::{
        bearer::{BearerAuth, given},
        host_check::HostCheck,
    },
};
use dms_protocol::trace_context::TraceContext;

/// The settings of a [`Gate`].
#[derive(Clone, Debug)]
pub struct GateParts {
    /// The token of the admin address.
    pub token: BearerAuth,
    /// Its read token.
    pub read_token: BearerAuth,
    /// Whether the read token shows bodies and attributes of messages.
    pub reader_sees_bodies: bool,
    /// The names of the admin address.
    pub host_check: HostCheck,
    /// The settings of the dashboard.
    pub options: DashboardOptions,
    /// The process that the dashboard shows.
    pub product: Product,
    /// The port of the admin address. Browsers share cookies between the ports of a host.
    pub port: u16,
    /// The wall clock, for the activities.
    pub clock: Clock,
}

/// Decides who may see the pages of a dashboard and act there, and refuses requests of foreign web pages. Clones share the
/// sessions.
#[derive(Clone, Debug)]
pub struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    parts: GateParts,
    cookie: String,
    sessions: Sessions,
    invitations: Invitations,
    wrong_tokens: WrongTokens,
    activity: Activity,
}

impl Gate {
    /// The gate of a dashboard.
    pub fn new(parts: GateParts) -> Self {
        let cookie = format!("dms-session-{}", parts.port);
        let (sessions, wrong_tokens, activity) = (Sessions::default(), WrongTokens::new(), Activity::default());
        let invitations = Invitations::default();
        Self(Arc::new(GateState { parts, cookie, sessions, invitations, wrong_tokens, activity }))
    }

    /// The URL path of a page, such as `/queues`.
    pub fn url(&self, path: &str) -> String {
        format!("{}/ui{path}", self.0.parts.options.base())
    }

    /// The path and query of a request as the browser sees them. A proxy may have cut off the base path.
    pub(in crate::dashboard) fn here(&self, head: &Parts) -> String {
        let (base, here) = (self.options().base(), head.uri.path_and_query().map_or("/", |here| here.as_str()));
        format!("{base}{}", here.strip_prefix(base).unwrap_or(here))
    }

    /// The process that the dashboard shows.
    pub(crate) fn product(&self) -> Product {
        self.0.parts.product
    }

    /// The settings of the dashboard.
    pub(crate) fn options(&self) -> &DashboardOptions {
        &self.0.parts.options
    }

    /// Whether callers log in.
    pub(crate) fn asks(&self) -> bool {
        self.0.parts.token.asks()
    }

    /// The URL path of a page that logs in as the token does, once and within ten minutes. `None` if callers need not log in.
    ///
    /// The code is behind the `#`, so neither the browser nor a proxy sends it with the request for the page.
    pub fn invite(&self) -> Option<String> {
        let code = self.asks().then(|| self.0.invitations.issue())??;
        Some(self.url(&format!("/login#{code}")))
    }

    /// The role of a login by the code of a link or by a token, and the hash of the token whose replacement ends the session.
    pub(in crate::dashboard) fn enter(&self, code: Option<&str>, token: &str) -> Option<(Role, Hash)> {
        match code {
            Some(code) if self.0.invitations.accept(code) => Some((Role::Operator, self.0.parts.token.hash()?)),
            Some(_) => None,
            None => Some((self.role_of(token)?, Sha256::digest(token).into())),
        }
    }

    /// The address of a trace in the tracing system, if the configuration names one.
    pub fn trace(&self, context: &TraceContext) -> Option<String> {
        self.options().trace(context)
    }

    /// The current time, in Unix milliseconds.
    pub(crate) fn now_ms(&self) -> i64 {
        self.0.parts.clock.now_ms()
    }

    /// The actions through the dashboard.
    pub fn activity(&self) -> &Activity {
        &self.0.activity
    }

    /// Logs an action of a visitor, and keeps a row of it.
    pub fn record(&self, visitor: &Visitor, action: &'static str, target: &str, outcome: Result<&str, &str>) {
        self.activity().record(&self.0.parts.clock, Some(visitor), action, target, outcome);
    }

    /// Logs something that the dashboard does on its own behalf, such as the end of a job.
    pub fn record_own(&self, action: &'static str, target: &str, outcome: Result<&str, &str>) {
        self.activity().record(&self.0.parts.clock, None, action, target, outcome);
    }

    pub(in crate::dashboard) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    pub(in crate::dashboard) fn wrong_tokens(&self) -> &WrongTokens {
        &self.0.wrong_tokens
    }

    pub(in crate::dashboard) fn cookie(&self) -> &str {
        &self.0.cookie
    }

    /// The role that a token has.
    pub(in crate::dashboard) fn role_of(&self, token: &str) -> Option<Role> {
        match () {
            () if self.0.parts.token.is(token) => Some(Role::Operator),
            () if self.0.parts.read_token.is(token) => Some(Role::Reader),
            () => None,
        }
    }

    /// The rights of a caller with this role.
    fn access(&self, role: Role, session: Option<u32>) -> Access {
        let options = self.options();
        let (acts, sees_bodies) = match role {
            Role::Operator => (true, true),
            Role::Reader => (false, self.0.parts.reader_sees_bodies),
            Role::Local => (options.actions, true),
        };
        Access { role, acts, sees_bodies, session }
    }

    /// The access of a request by its bearer token, its session, or because there is no token.
    pub(in crate::dashboard) fn admit(&self, head: &Parts) -> Option<Access> {
        if !self.asks() {
            return Some(self.access(Role::Local, None));
        }
        if let Some(role) = self.by_bearer(&head.headers) {
            return Some(self.access(role, None));
        }
        let session = cookie(&head.headers, self.cookie()).and_then(|id| self.sessions().find(id))?;
        // A replaced token ends the sessions that began with it.
        let is_current = match session.role {
            Role::Operator => self.0.parts.token.is_hash(&session.token),
            Role::Reader => self.0.parts.read_token.is_hash(&session.token),
            Role::Local => false,
        };
        is_current.then(|| self.access(session.role, Some(session.number)))
    }

    fn by_bearer(&self, headers: &HeaderMap) -> Option<Role> {
        given(headers).and_then(|token| self.role_of(token))
    }

    /// Refuses foreign hosts and pages. A bearer token proves that the request is none of a page.
    pub(in crate::dashboard) fn check_origin(&self, head: &Parts) -> Result<(), Box<Response>> {
        let refuse = |status: StatusCode, text: String| Err(Box::new((status, format!("{text}\n")).into_response()));
        if let Err(refusal) = self.0.parts.host_check.check_host(head) {
            return refuse(refusal.status, refusal.text);
        }
        let must_be_own = !self.asks() || origin::changes(&head.method) && self.by_bearer(&head.headers).is_none();
        if must_be_own && !origin::is_own(head) {
            let text = "the request comes from another web page, or the browser does not say where it comes from";
            return refuse(StatusCode::FORBIDDEN, text.to_owned());
        }
        Ok(())
    }
}
