//! [`Ui`]: the frame around every page.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use maud::{DOCTYPE, Markup, html};

use crate::dashboard::{
    access::{
        gate::Gate,
        visitor::{Role, Theme, Visitor},
    },
    assets,
    form::Form,
    html::format::foreign,
    product::Product,
    text::Texts,
};

/// The frame of the pages for one visitor.
#[derive(Clone, Copy, Debug)]
pub struct Ui<'a> {
    /// The dashboard.
    pub gate: &'a Gate,
    /// The caller.
    pub visitor: &'a Visitor,
    /// The texts in the visitor's language.
    pub t: &'static Texts,
}

impl<'a> Ui<'a> {
    /// The frame for this visitor.
    pub fn new(gate: &'a Gate, visitor: &'a Visitor) -> Self {
        Self { gate, visitor, t: visitor.language.texts() }
    }

    /// The URL path of a page.
    pub fn url(&self, path: &str) -> String {
        self.gate.url(path)
    }

    /// A page with the navigation.
    pub fn page(&self, title: &str, here: &str, body: &Markup) -> Response {
        self.document(title, Some(&self.navigation(here)), None, body)
    }

    /// A page whose numbers change while it is open. `events` is the path of their stream.
    pub fn live_page(&self, title: &str, here: &str, events: &str, body: &Markup) -> Response {
        self.document(title, Some(&self.navigation(here)), Some(&self.url(events)), body)
    }

    fn navigation(&self, here: &str) -> Markup {
        html! {
            nav.main aria-label=(self.t.pages) {
                @for (path, name) in self.sections() {
                    a href=(self.url(path)) aria-current=[(path == here).then_some("page")] { (name) }
                }
            }
        }
    }

    /// A page without the navigation, for visitors that have not logged in.
    pub(crate) fn bare_page(&self, title: &str, body: &Markup) -> Response {
        self.document(title, None, None, body)
    }

    fn sections(&self) -> Vec<(&'static str, &'static str)> {
        match self.gate.product() {
            Product::Server => vec![
                ("/", self.t.overview),
                ("/queues", self.t.queues),
                ("/dead", self.t.dead_letters),
                ("/search", self.t.search),
                ("/jobs", self.t.jobs),
                ("/send", self.t.send),
                ("/schedules", self.t.schedules),
                ("/storage", self.t.storage),
                ("/access", self.t.access),
                ("/activity", self.t.activity),
            ],
            Product::Worker => {
                vec![
                    ("/", self.t.workers),
                    ("/publishers", self.t.publishers),
                    ("/config", self.t.configuration_page),
                    ("/activity", self.t.activity),
                ]
            }
        }
    }

    fn document(&self, title: &str, nav: Option<&Markup>, events: Option<&str>, body: &Markup) -> Response {
        let product = match self.gate.product() {
            Product::Server => self.t.server,
            Product::Worker => self.t.worker,
        };
        let language = self.visitor.language;
        html_answer(html! {
            (DOCTYPE)
            html lang=(language.tag()) data-theme=(self.visitor.theme.as_str()) {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " · dms-worker " (product) }
                    link rel="icon" href=(assets::url(self.gate, "icon.svg"));
                    link rel="stylesheet" href=(assets::url(self.gate, "uplot-1.6.32.min.css"));
                    link rel="stylesheet" href=(assets::url(self.gate, "dashboard.css"));
                    script type="module" src=(assets::url(self.gate, "dashboard.js")) {}
                }
                body data-events=[events] data-uplot=(assets::url(self.gate, "uplot-1.6.32.min.js")) {
                    a.skip href="#main" { (self.t.skip) }
                    header.top {
                        a.brand href=(self.url("/")) { "dms-worker" span { (product) } }
                        @if let Some(nav) = nav { (nav) }
                        (self.controls(nav.is_some()))
                    }
                    main #main tabindex="-1" { (body) }
                    @if nav.is_some() { (self.keys()) }
                }
            }
        })
    }

    /// The state of the live numbers, and a link for when the page is out of date.
    pub fn freshness(&self, version: &str) -> Markup {
        let t = self.t;
        html! {
            div.freshness #freshness data-version=(version) data-live-text=(t.live) data-paused-text=(t.paused) data-lost-text=(t.lost) hidden {
                button.quiet #pause type="button" aria-pressed="false" { (t.live) }
                a #outdated href=(self.visitor.here) hidden { (t.outdated) }
            }
        }
    }

    /// A button that copies the text of an element.
    pub fn copy(&self, id: &str) -> Markup {
        html! { button.quiet.copy type="button" data-copy=(id) data-done=(self.t.copied) hidden { (self.t.copy) } }
    }

    /// The help for keys, which `?` shows.
    fn keys(&self) -> Markup {
        let t = self.t;
        let keys = [
            ("/", t.key_search),
            ("g o", t.overview),
            ("g q", t.queues),
            ("g d", t.dead_letters),
            ("p", t.key_pause),
            ("?", t.key_help),
        ];
        html! {
            dialog #keys aria-labelledby="keys-title" {
                h2 #keys-title { (t.keys) }
                dl.facts { @for (key, name) in keys { div { dt { kbd { (key) } } dd { (name) } } } }
                form method="dialog" { button { (t.close) } }
            }
        }
    }

    /// The answer for paths without a page.
    pub fn not_found(&self) -> Response {
        let body = html! { h1 { (self.t.not_found) } p { a href=(self.url("/")) { (self.t.overview) } } };
        (StatusCode::NOT_FOUND, self.page(self.t.not_found, "", &body)).into_response()
    }

    /// The answer if a form cannot be read.
    pub fn bad_form(&self) -> Response {
        (StatusCode::BAD_REQUEST, self.message(self.t.bad_form)).into_response()
    }

    /// The answer if something was not done, with the reason.
    pub fn refused(&self, reason: &str) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, self.message(reason)).into_response()
    }

    /// The answer if the broker failed.
    pub(crate) fn failed(&self, error: &crate::broker::BrokerError) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, self.message(&error.to_string())).into_response()
    }

    fn message(&self, text: &str) -> Response {
        let body = html! { h1 { (self.t.not_done) } p.alert.bad role="alert" { (foreign(text)) } p { a href=(self.url("/")) { (self.t.overview) } } };
        self.page(self.t.not_done, "", &body)
    }

    /// The badges and buttons at the end of the header.
    fn controls(&self, inside: bool) -> Markup {
        let (t, other) = (self.t, self.visitor.language.other());
        let (theme, theme_name) = match self.visitor.theme {
            Theme::System => (Theme::Dark, t.dark),
            Theme::Dark => (Theme::Light, t.light_theme),
            Theme::Light => (Theme::System, t.system_theme),
        };
        html! {
            div.controls {
                @if inside && self.gate.product() == Product::Server {
                    form.find method="get" action=(self.url("/find")) role="search" aria-label=(t.find_message) {
                        label.hidden for="find-id" { (t.find_message) }
                        input #find-id name="id" placeholder=(t.message_id) autocomplete="off" required;
                    }
                }
                @if inside && !self.visitor.acts() { span.badge { (t.read_only) } }
                form method="post" action=(self.url("/preferences")) {
                    input type="hidden" name="back" value=(self.visitor.here);
                    button.quiet name="language" value=(other.tag()) lang=(other.tag()) { (other.name()) }
                    button.quiet name="theme" value=(theme.as_str()) { (theme_name) }
                }
                @if inside && self.visitor.access.is_some_and(|access| access.session.is_some()) {
                    form method="post" action=(self.url("/logout")) { button.quiet { (t.log_out) } }
                }
            }
        }
    }
}

/// The refusal of a change.
pub(crate) fn read_only(gate: &Gate, visitor: &Visitor) -> Response {
    let ui = Ui::new(gate, visitor);
    let is_local = visitor.access.is_none_or(|access| access.role == Role::Local);
    let text = if is_local { ui.t.denied_open } else { ui.t.denied_reader };
    let body = html! { h1 { (ui.t.denied_title) } p { (text) } };
    (StatusCode::FORBIDDEN, ui.page(ui.t.denied_title, "", &body)).into_response()
}

/// What the last form did, as its query parameter says.
pub fn notice(ui: &Ui<'_>, query: &Form) -> Markup {
    let (class, text) = match query.first("notice") {
        Some("created") => ("good", ui.t.notice_created),
        Some("done") => ("good", ui.t.notice_done),
        Some("retried") => ("good", ui.t.notice_retried),
        Some("discarded") => ("good", ui.t.notice_discarded),
        Some("edited") => ("good", ui.t.notice_edited),
        Some("not-available") => ("bad", ui.t.notice_not_available),
        _ => return html! {},
    };
    html! { p.alert.(class) role="status" { (text) } }
}

/// A page as an answer.
fn html_answer(page: Markup) -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

/// The way to another page after a form.
pub fn see_other(to: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, to.to_owned())]).into_response()
}
