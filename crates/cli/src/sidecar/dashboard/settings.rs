//! `/ui/config` and `/ui/activity`.

use axum::{Extension, extract::State, response::Response};
use maud::{Markup, html};
use serde_json::Value;

use crate::sidecar::{dashboard::pages::Pages, observe::configuration::ConfigurationView};
use dms_server::internal::dashboard::{Texts, Ui, Visitor, activity_page, foreign, time};

/// `GET /ui/config`: the configuration in force, after the last reload, with `***` for secrets.
pub(super) async fn config(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>) -> Response {
    let ui = Ui::new(&pages.gate, &visitor);
    let (t, mut rows) = (ui.t, Vec::new());
    let view = pages.admin.configuration.view();
    // A process that never reloads runs with what it started with.
    let config = view.as_ref().map_or(&pages.config, |view| &view.config);
    collect("", &serde_json::to_value(&**config).unwrap_or_default(), &mut rows);
    let body = html! {
        h1 { (t.configuration_page) }
        @if let Some(view) = &view {
            p.lead {
                (t.in_force_since) " " (time(view.since.as_millisecond()))
                @if let Some(file) = &view.file { " · " code { (foreign(&file.display().to_string())) } }
            }
            @if !view.pending_restart.is_empty() {
                p.alert.warn { (t.restart_needed) " " @for key in &view.pending_restart { code { (foreign(key)) } " " } }
            }
            @if let Some((at, error)) = &view.last_error {
                p.alert.bad { (t.reload_refused) " " (time(at.as_millisecond())) br; code { (foreign(error)) } }
            }
        }
        @for warning in warnings(&pages, view.as_ref()) { p.alert.warn { (foreign(&warning)) } }
        p.muted { (t.configuration_help) }
        div.table-box { table.wide {
            thead { tr { th scope="col" { (t.setting) } th scope="col" { (t.value) } @if view.is_some() { th scope="col" { (t.set_in) } } } }
            tbody { @for (key, value) in rows { tr {
                td data-label=(t.setting) { code { (key) } } td.body data-label=(t.value) { code { (foreign(&value)) } }
                @if let Some(view) = &view { td.body data-label=(t.set_in) { (origin(view.sources.origin(&key), t)) } }
            } } }
        } }
    };
    ui.page(t.configuration_page, "/config", &body)
}

/// The warnings about the configuration, and about each worker on its queue.
fn warnings(pages: &Pages, view: Option<&ConfigurationView>) -> Vec<String> {
    let own = view.iter().flat_map(|view| view.sources.warnings.iter().cloned()).collect::<Vec<_>>();
    let workers = pages.admin.parts.workers();
    let of_workers = workers.iter().flat_map(|watch| {
        let warnings = watch.throttle.worker().warnings().into_iter();
        warnings.map(|warning| format!("worker {}: {warning}", watch.name)).collect::<Vec<_>>()
    });
    own.into_iter().chain(of_workers).collect()
}

/// The origin of a value. Defaults are set back, so that the others stand out.
fn origin(origin: &str, t: &Texts) -> Markup {
    html! { @if origin == "default" { span.muted { (t.default_value) } } @else { code { (foreign(origin)) } } }
}

/// The values that are set, by their keys.
fn collect(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            collect(&path, value, rows);
        }),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().for_each(|(place, value)| collect(&format!("{path}[{place}]"), value, rows));
        }
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => rows.push((path.to_owned(), text.clone())),
        other => rows.push((path.to_owned(), other.to_string())),
    }
}

/// `GET /ui/activity`.
pub(super) async fn activity(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>) -> Response {
    activity_page(&Ui::new(&pages.gate, &visitor))
}
