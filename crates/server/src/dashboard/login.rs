//! The login page, the end of a session, and the choice of language and theme.

use axum::{
    Extension,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, uri::Scheme};
use maud::html;

use crate::dashboard::{
    access::{
        gate::Gate,
        session,
        visitor::{Role, Theme, Visitor},
    },
    cookie::{LANGUAGE_COOKIE, THEME_COOKIE, cookie},
    form::Form,
    html::frame::{Ui, see_other},
    text::Language,
};
use std::sync::Arc;

use crate::net::connection_state::ConnectionState;

/// The maximum size of the forms of this file, in bytes.
const MAX_FORM: usize = 16 << 10;
/// How long a choice of language or theme lasts: a year.
const CHOICE_SECONDS: u32 = 365 * 24 * 3600;

/// `GET /ui/login`.
pub(crate) async fn show(State(gate): State<Gate>, Extension(visitor): Extension<Visitor>, query: Form) -> Response {
    let next = local(&gate, query.first("next"));
    match visitor.access {
        Some(_) => see_other(&next),
        None => page(&gate, &visitor, &next, None),
    }
}

/// `POST /ui/login`: begins a session.
pub(crate) async fn login(
    State(gate): State<Gate>,
    Extension(visitor): Extension<Visitor>,
    connection: Option<Extension<Arc<ConnectionState>>>,
    scheme: Option<Extension<Scheme>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Ok(form) = Form::read(body, MAX_FORM).await else { return StatusCode::BAD_REQUEST.into_response() };
    let (token, next) = (form.first("token").unwrap_or_default(), local(&gate, form.first("next")));
    let connection = connection.map(|Extension(connection)| connection);
    let code = form.filled("code");
    let Some((role, hash)) = gate.enter(code, token) else {
        let delay = gate.wrong_tokens().refuse(connection.as_ref().map(|connection| connection.peer()));
        if !delay.is_zero() {
            connection.iter().for_each(|connection| connection.hold_back());
            tokio::time::sleep(delay).await;
        }
        let (reason, text) = match code {
            Some(_) => ("a link that was used or is over", visitor.language.texts().login_link_over),
            None => ("wrong token", visitor.language.texts().login_wrong),
        };
        gate.record(&visitor, "login", "dashboard", Err(reason));
        return page(&gate, &visitor, &next, Some(text));
    };
    let Some(id) = gate.sessions().begin(role, hash) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let with = match role {
        _ if code.is_some() => "a link",
        Role::Operator => "token",
        _ => "read token",
    };
    gate.record(&visitor, "login", "dashboard", Ok(with));
    let lifetime = session::LIFETIME.as_secs();
    let attributes = attributes(&gate, scheme.as_ref().map(|Extension(scheme)| scheme), &headers);
    let session = format!("{}={id}; HttpOnly; Max-Age={lifetime}{attributes}", gate.cookie());
    with_cookies(see_other(&next), [session])
}

/// `POST /ui/logout`: ends the session.
pub(crate) async fn logout(State(gate): State<Gate>, headers: HeaderMap) -> Response {
    if let Some(id) = cookie(&headers, gate.cookie()) {
        gate.sessions().end(id);
    }
    let session = format!("{}=; HttpOnly; Max-Age=0{}", gate.cookie(), attributes(&gate, None, &headers));
    with_cookies(see_other(&gate.url("/login")), [session])
}

/// `POST /ui/preferences`: sets the language or the theme.
pub(crate) async fn preferences(State(gate): State<Gate>, headers: HeaderMap, body: Body) -> Response {
    let Ok(form) = Form::read(body, MAX_FORM).await else { return StatusCode::BAD_REQUEST.into_response() };
    let language = form.first("language").and_then(Language::parse).map(|language| (LANGUAGE_COOKIE, language.tag()));
    let theme = form.first("theme").and_then(Theme::parse).map(|theme| (THEME_COOKIE, theme.as_str()));
    let attributes = attributes(&gate, None, &headers);
    let cookies = language.into_iter().chain(theme);
    let cookies =
        cookies.map(|(name, value)| format!("{name}={value}; HttpOnly; Max-Age={CHOICE_SECONDS}{attributes}"));
    with_cookies(see_other(&local(&gate, form.first("back"))), cookies)
}

fn page(gate: &Gate, visitor: &Visitor, next: &str, refused: Option<&str>) -> Response {
    let ui = Ui::new(gate, visitor);
    let t = ui.t;
    let status = if refused.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    let body = html! {
        div.login {
            h1 { (t.login_title) }
            p.muted { (t.login_help) }
            @if let Some(refused) = refused { p.alert.bad role="alert" { (refused) } }
            form method="post" action=(gate.url("/login")) {
                input type="hidden" name="next" value=(next);
                // The script puts the code of a link here, and sends the form.
                input type="hidden" name="code" data-code;
                // Password managers keep the token under this name.
                input type="text" name="username" value="dms-worker" autocomplete="username" hidden;
                label for="token" { (t.login_token) }
                input #token type="password" name="token" required autofocus autocomplete="current-password";
                button.primary type="submit" { (t.login_submit) }
            }
        }
    };
    (status, ui.bare_page(t.login_title, &body)).into_response()
}

/// A path of this dashboard, from a request; the first page if it is another one.
fn local(gate: &Gate, wanted: Option<&str>) -> String {
    let home = gate.url("/");
    let is_local =
        |path: &&str| path.starts_with(&home) && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    wanted.filter(is_local).map_or(home.clone(), str::to_owned)
}

/// The attributes of every cookie. `Secure` is added where the browser uses TLS.
fn attributes(gate: &Gate, scheme: Option<&Scheme>, headers: &HeaderMap) -> String {
    let forwarded = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if forwarded || scheme == Some(&Scheme::HTTPS) { "; Secure" } else { "" };
    format!("; SameSite=Strict; Path={}/{secure}", gate.options().base())
}

fn with_cookies(mut response: Response, cookies: impl IntoIterator<Item = String>) -> Response {
    for cookie in cookies {
        if let Ok(value) = HeaderValue::try_from(cookie) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
    response
}
