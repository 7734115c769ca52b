//! `/ui/config` and `/ui/activity`.

use axum::{Extension, extract::State, response::Response};
use maud::html;
use serde_json::Value;

use crate::sidecar::dashboard::Pages;
use dms_server::internal::dashboard::{Ui, Visitor, activity_page, foreign};

/// `GET /ui/config`: the effective configuration, with `***` for secrets.
pub(super) async fn config(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>) -> Response {
    let ui = Ui::new(&pages.gate, &visitor);
    let (t, mut rows) = (ui.t, Vec::new());
    collect("", &serde_json::to_value(&*pages.config).unwrap_or_default(), &mut rows);
    let body = html! {
        h1 { (t.configuration) }
        p.muted { (t.configuration_help) }
        div.table-box { table.wide {
            thead { tr { th scope="col" { (t.setting) } th scope="col" { (t.value) } } }
            tbody { @for (key, value) in rows { tr {
                td data-label=(t.setting) { code { (key) } } td.body data-label=(t.value) { code { (foreign(&value)) } }
            } } }
        } }
    };
    ui.page(t.configuration, "/config", &body)
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
