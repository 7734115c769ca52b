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
    text::Texts,
};

/// The process that a dashboard shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// A server.
    Server,
    /// A process with workers.
    Worker,
}

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
        let nav = html! {
            nav aria-label=(title) {
                @for (path, name) in self.sections() {
                    a href=(self.url(path)) aria-current=[(path == here).then_some("page")] { (name) }
                }
            }
        };
        self.document(title, Some(&nav), body)
    }

    /// A page without the navigation, for visitors that have not logged in.
    pub(crate) fn bare_page(&self, title: &str, body: &Markup) -> Response {
        self.document(title, None, body)
    }

    fn sections(&self) -> Vec<(&'static str, &'static str)> {
        match self.gate.product() {
            Product::Server => vec![("/", self.t.overview)],
            Product::Worker => vec![("/", self.t.overview)],
        }
    }

    fn document(&self, title: &str, nav: Option<&Markup>, body: &Markup) -> Response {
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
                    link rel="stylesheet" href=(assets::url(self.gate, "dashboard.css"));
                    script type="module" src=(assets::url(self.gate, "dashboard.js")) {}
                }
                body {
                    a.skip href="#main" { (self.t.skip) }
                    header.top {
                        a.brand href=(self.url("/")) { "dms-worker" span { (product) } }
                        @if let Some(nav) = nav { (nav) }
                        (self.controls(nav.is_some()))
                    }
                    main #main tabindex="-1" { (body) }
                }
            }
        })
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

/// A page as an answer.
fn html_answer(page: Markup) -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

/// The way to another page after a form.
pub fn see_other(to: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, to.to_owned())]).into_response()
}
