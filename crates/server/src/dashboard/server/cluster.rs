//! `/ui/cluster`: the servers that share the queues, and the shards that each of them owns.

use axum::response::Response;
use maud::{Markup, html};

use crate::{
    broker::ClusterStatus,
    dashboard::{
        html::{
            format::{bytes, foreign, number},
            frame::Ui,
        },
        server::request::PageRequest,
        text::Texts,
    },
};

/// `GET /ui/cluster`.
pub(super) async fn show(request: PageRequest) -> Response {
    let ui = request.ui();
    let (t, app) = (ui.t, &request.pages.app);
    let body = match app.broker.cluster_counters() {
        None => html! { h1 { (t.cluster) } p.empty { (t.no_cluster) } },
        Some(counters) => {
            let status = match app.broker.cluster().await {
                Ok(status) => status,
                Err(error) => return ui.failed(&error),
            };
            let facts = [
                (t.missed_beats, counters.missed_beats),
                (t.takeovers, counters.takeovers),
                (t.unsure_commits, counters.unsure_commits),
            ];
            html! {
                h1 { (t.cluster) }
                p.muted { (t.cluster_help) }
                h2 { (t.servers) }
                (members(&ui, &status))
                dl.facts { @for (name, count) in facts { div { dt { (name) } dd { (number(count)) } } } }
                h2 { (t.shards) }
                (shards(&ui, &status))
                h2 { (t.standbys) }
                (standbys(&ui, &status))
            }
        }
    };
    ui.page(t.cluster, "/storage", &body)
}

/// The word for the state of a server or a shard.
fn state<'a>(state: &'a str, t: &'a Texts) -> &'a str {
    match state {
        "serving" => t.state_serving,
        "draining" => t.state_draining,
        "silent" => t.state_silent,
        "owned" => t.state_owned,
        "free" => t.state_free,
        "dead" => t.state_dead,
        other => other,
    }
}

fn members(ui: &Ui<'_>, status: &ClusterStatus) -> Markup {
    let t = ui.t;
    let class = |state: &str| match state {
        "serving" => "ready",
        "draining" => "delayed",
        _ => "bad",
    };
    html! { div.table-box { table.wide {
        thead { tr {
            th scope="col" { (t.server) } th scope="col" { (t.state) } th.num scope="col" { (t.shards) } th scope="col" { (t.address) } th scope="col" { (t.ids) }
        } }
        tbody { @for member in &status.members { tr {
            th scope="row" data-label=(t.server) { (foreign(&member.name)) @if member.id == status.this { " " small.muted { (t.this_server) } } }
            td data-label=(t.state) { span.chip.(class(&member.state)) { (state(&member.state, t)) } }
            td.num data-label=(t.shards) { (member.shards.len()) }
            td.body data-label=(t.address) { @if member.url.is_empty() { span.muted { (t.not_reachable) } } @else { (foreign(&member.url)) } }
            td data-label=(t.ids) { code { (foreign(&member.id)) } }
        } } }
    } } }
}

fn shards(ui: &Ui<'_>, status: &ClusterStatus) -> Markup {
    let t = ui.t;
    // Servers may have the same name. The beginning of the id names one in `dms-worker cluster`, too.
    let name = |id: &str| {
        status
            .members
            .iter()
            .find(|member| member.id == *id)
            .map_or_else(|| id.to_owned(), |member| format!("{} ({})", member.name, id.get(..4).unwrap_or(id)))
    };
    let shown = |id: Option<&String>| id.map_or_else(|| "–".to_owned(), |id| name(id));
    html! { div.table-box { table.wide {
        thead { tr {
            th.num scope="col" { (t.shard) } th scope="col" { (t.owner) } th scope="col" { (t.state) } th.num scope="col" { (t.epoch) } th scope="col" { (t.next_owner) }
        } }
        tbody { @for shard in &status.shards { tr {
            td.num data-label=(t.shard) { (shard.shard) }
            td data-label=(t.owner) { (foreign(&shown(shard.owner.as_ref()))) }
            td data-label=(t.state) { span.chip.(if shard.state == "owned" { "ready" } else { "bad" }) { (state(&shard.state, t)) } @if shard.pinned { " " (t.pinned) } }
            td.num data-label=(t.epoch) { (shard.epoch) }
            td data-label=(t.next_owner) { (foreign(&shown(shard.wanted.as_ref()))) }
        } } }
    } } }
}

fn standbys(ui: &Ui<'_>, status: &ClusterStatus) -> Markup {
    let t = ui.t;
    let lag = |bytes_behind: Option<i64>| {
        bytes_behind.and_then(|lag| u64::try_from(lag).ok()).map_or_else(|| "–".to_owned(), bytes)
    };
    html! {
        @if status.standbys.is_empty() { p.alert.warn { (t.no_standbys) } } @else {
            div.table-box { table.wide {
                thead { tr { th scope="col" { (t.name) } th scope="col" { (t.state) } th.num scope="col" { (t.lag) } } }
                tbody { @for standby in &status.standbys { tr {
                    th scope="row" data-label=(t.name) { (foreign(&standby.name)) }
                    td data-label=(t.state) { (standby.sync_state.as_deref().unwrap_or("–")) }
                    td.num data-label=(t.lag) { (lag(standby.lag_bytes)) }
                } } }
            } }
        }
    }
}
