//! The identity service, as far as DMS clients use it: version, tokens by password, projects (API reference 3.1, 3.2).

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts, uri::Scheme};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    auth::{
        accounts::Accounts,
        caller::Principal,
        checks::is_project_id,
        login_throttle::{Attempt, DelayedResponse},
        project::Project,
        sender::Sender,
    },
    handlers::request::ApiRequest,
    http::{
        codes,
        error::ApiError,
        json::{self, Json},
    },
    state::AppState,
};
use dms_protocol::auth::canonical::hex;

/// The header with a new token.
const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

/// The body of a token request.
#[derive(Debug, Deserialize)]
struct TokenRequest {
    auth: Auth,
}

#[derive(Debug, Deserialize)]
struct Auth {
    identity: Identity,
    #[serde(default)]
    scope: Scope,
}

#[derive(Debug, Deserialize)]
struct Identity {
    methods: Vec<String>,
    password: Option<Password>,
}

#[derive(Debug, Deserialize)]
struct Password {
    user: UserLogin,
}

#[derive(Deserialize)]
struct UserLogin {
    name: String,
    password: String,
    #[serde(default)]
    domain: NameOrId,
}

/// A token request: the user and the scope.
struct Login {
    user: UserLogin,
    scope: Scope,
}

/// The result of a successful login.
struct Granted {
    /// The project of the token, if it has one.
    project: Option<Project>,
    /// Its user; `None` on an open server.
    owner: Option<Arc<Principal>>,
}

impl Login {
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        let Auth { identity, scope } = json::parse::<TokenRequest>(body)?.auth;
        match (identity.methods.iter().any(|method| method == "password"), identity.password) {
            (true, Some(Password { user })) => Ok(Self { user, scope }),
            _ => Err(codes::BODY_FORMAT.because("auth.identity: only the method \"password\" is supported.")),
        }
    }
}

impl UserLogin {
    /// The name of the domain, or its id if the name is missing.
    fn domain_name(&self) -> &str {
        self.domain.name.as_deref().or(self.domain.id.as_deref()).unwrap_or_default()
    }
}

impl std::fmt::Debug for UserLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserLogin").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
struct Scope {
    project: Option<NameOrId>,
    domain: Option<NameOrId>,
}

/// A reference by id, by name, or both.
#[derive(Debug, Default, Deserialize)]
struct NameOrId {
    id: Option<String>,
    name: Option<String>,
}

/// `GET /v3`: the version document, which clients read first.
pub(crate) async fn version(request: &ApiRequest<'_>) -> Result<Json<Value>, ApiError> {
    let link = format!("{}/v3/", base_url(request.head()));
    Ok(Json(json!({ "version": {
        "id": "v3.14",
        "status": "stable",
        "links": [{ "rel": "self", "href": link }],
        "media-types": [{ "base": "application/json", "type": "application/vnd.openstack.identity-v3+json" }],
    }})))
}

/// `POST /v3/auth/tokens`: a token for a project by a user's password (API reference 3.2).
pub(crate) async fn create_token(request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    let ApiRequest { app, sender, body, .. } = *request;
    let Login { user: login, scope } = Login::read(body).map_err(ApiError::identity)?;
    // The accounts are locked until the token is stored, because a token that was issued for an old password must be known when
    // passwords change.
    let accounts = app.authenticator.accounts();
    let Granted { project, owner } = match log_in(&accounts, &login, &scope) {
        Ok(granted) => granted,
        Err(error) if error.code() == codes::CREDENTIALS => return Ok(refused(app, sender, &login, error)),
        Err(error) => return Err(error.identity()),
    };
    let token = app.authenticator.grant(&accounts, owner)?;
    let mut value = HeaderValue::try_from(token).map_err(|_| codes::INTERNAL.plain())?;
    value.set_sensitive(true);
    let document = document(app, &login, project.as_ref(), &base_url(sender.parts));
    Ok((StatusCode::CREATED, [(SUBJECT_TOKEN, value)], Json(document)).into_response())
}

/// `GET /v3/projects`: the projects of the caller, or the one with the name in `name`.
pub(crate) async fn projects(request: &ApiRequest<'_>) -> Result<Json<Value>, ApiError> {
    let (base, query) = (base_url(request.head()), request.query()?);
    let wanted = query.first("name");
    let accounts = request.app.authenticator.accounts();
    let shown = accounts
        .projects
        .iter()
        .filter(|project| request.caller.sees(&project.id) && wanted.is_none_or(|name| project.name == name));
    let view = |project: &Project| {
        json!({
            "id": project.id.as_str(),
            "name": project.name,
            "domain_id": domain_id(project.users.first().map_or("", |user| &user.domain)),
            "is_domain": false,
            "enabled": true,
            "description": "",
            "links": { "self": format!("{base}/v3/projects/{}", project.id) },
        })
    };
    let projects: Vec<Value> = shown.map(view).collect();
    let links = json!({ "self": format!("{base}/v3/projects"), "next": null, "previous": null });
    Ok(Json(json!({ "projects": projects, "links": links })))
}

/// The answer to a wrong login. It is delayed longer with each wrong login from this peer or for this user.
fn refused(app: &AppState, sender: Sender<'_>, login: &UserLogin, error: ApiError) -> Response {
    let attempt = Attempt { user: &login.name, domain: login.domain_name(), peer: sender.peer };
    let delay = app.authenticator.logins.refuse(attempt);
    app.metrics.refused_login();
    let mut response = error.identity().into_response();
    response.extensions_mut().insert(DelayedResponse(delay));
    response
}

/// Checks a login. A scope of a domain gives a token without a project.
fn log_in(accounts: &Accounts, user: &UserLogin, scope: &Scope) -> Result<Granted, ApiError> {
    let project_scope = scope.project.as_ref().filter(|project| project.id.is_some() || project.name.is_some());
    if accounts.is_open() {
        return Ok(Granted { project: open_project(&accounts.projects, project_scope)?, owner: None });
    }
    let own = accounts.projects_of(&user.name, user.domain_name(), &user.password);
    let refused = || codes::CREDENTIALS.plain();
    let project = match project_scope {
        Some(scope) => Some(own.into_iter().find(|project| scope.names(project)).ok_or_else(refused)?.clone()),
        None if own.is_empty() => return Err(refused()),
        // Without a scope, a user with one project gets a token for it.
        None if own.len() == 1 && scope.domain.is_none() => own.first().copied().cloned(),
        None => None,
    };
    let id = project.as_ref().map(|project| &project.id);
    let owner = accounts.user(&user.name, user.domain_name(), id).ok_or_else(refused)?;
    Ok(Granted { project, owner: Some(owner) })
}

/// The project of a token of an open server.
fn open_project(projects: &[Project], scope: Option<&NameOrId>) -> Result<Option<Project>, ApiError> {
    let Some(scope) = scope else { return Ok(projects.first().cloned()) };
    let known = projects.iter().find(|project| scope.names(project)).cloned();
    let made = || {
        let id = scope.id.as_deref().or(scope.name.as_deref()).filter(|id| is_project_id(id))?;
        Some(Project::new(id))
    };
    known.or_else(made).map(Some).ok_or_else(|| codes::PROJECT_FORMAT.plain())
}

impl NameOrId {
    fn names(&self, project: &Project) -> bool {
        match (&self.id, &self.name) {
            (Some(id), _) => id == project.id.as_str(),
            (None, Some(name)) => *name == project.name,
            (None, None) => false,
        }
    }
}

fn document(app: &AppState, login: &UserLogin, project: Option<&Project>, base: &str) -> Value {
    let now = app.authenticator.clock().now_ms();
    let expires = now.saturating_add(crate::clock::whole_ms(app.authenticator.tokens.lifetime()));
    let name = login.domain_name();
    let domain = json!({ "id": domain_id(name), "name": name });
    let url = format!("{base}/v1.0");
    // Clients look up the region that they are configured with. In the cloud projects are named after regions, so the name of
    // the project is listed as a region too.
    let mut regions: Vec<&String> = std::iter::once(&app.region).chain(project.map(|project| &project.name)).collect();
    regions.dedup();
    let endpoint = |region: &&String| {
        json!({
            "id": format!("dms-public-{region}"),
            "interface": "public",
            "region": region,
            "region_id": region,
            "url": url,
        })
    };
    let endpoints: Vec<Value> = regions.iter().map(endpoint).collect();
    let mut document = json!({ "token": {
        "methods": ["password"],
        "issued_at": date(now),
        "expires_at": date(expires),
        "user": { "id": domain_id(&login.name), "name": login.name, "domain": domain },
        "roles": [{ "id": "te_admin", "name": "te_admin" }],
        "catalog": [{
            "id": "dms",
            "name": "dms",
            "type": "dms",
            // The URL does not contain the project, because clients append it.
            "endpoints": endpoints,
        }],
    }});
    if let Some(project) = project {
        document["token"]["project"] = json!({ "id": project.id.as_str(), "name": project.name, "domain": domain });
    }
    document
}

/// A stable id for a name that has none in the configuration.
fn domain_id(name: &str) -> String {
    hex(name.as_bytes())
}

fn date(millis: i64) -> String {
    let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The URL by which the caller reached the server or its proxy.
fn base_url(parts: &Parts) -> String {
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let scheme = match text(HeaderName::from_static("x-forwarded-proto")) {
        Some("https") => "https",
        // Callers in the same process have no scheme.
        _ => parts.extensions.get::<Scheme>().map_or("http", Scheme::as_str),
    };
    format!("{scheme}://{}", text(header::HOST).unwrap_or("127.0.0.1"))
}
