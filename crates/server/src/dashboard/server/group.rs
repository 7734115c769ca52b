//! `/ui/queues/{queue}` and `/ui/queues/{queue}/{group}`: one queue, and one group with its charts.

use axum::{
    extract::{RawPathParams, State},
    response::{IntoResponse, Response},
};
use http::header;
use maud::{Markup, html};

use crate::{
    broker::QueueOverview,
    dashboard::{
        form::Form,
        html::{
            charts::charts,
            format::{bytes, foreign, number, span, time},
            frame::{Ui, notice},
            live::Live,
        },
        series::Range,
        server::{
            Pages,
            find::{self, Found},
            request::PageRequest,
            schedules, tags,
        },
        text::fill,
    },
};

/// The tabs of a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Charts,
    Messages,
    Leases,
    DeadLetters,
    Consume,
}

/// The heading of the pages of a group.
pub(super) fn heading(ui: &Ui<'_>, found: &Found, here: Tab) -> Markup {
    let (t, base) = (ui.t, base(found));
    let dead = found.group.group.available_dead_letters.unwrap_or(0);
    let tabs = [
        (Tab::Charts, "", t.charts.to_owned()),
        (Tab::Messages, "/messages", t.messages.to_owned()),
        (Tab::Leases, "/leases", format!("{} ({})", t.in_flight_now, number(found.group.in_flight))),
        (Tab::DeadLetters, "/dead", format!("{} ({})", t.dead_letters, number(dead))),
        (Tab::Consume, "/consume", t.how_to_consume.to_owned()),
    ];
    let tabs =
        tabs.into_iter().filter(|(tab, ..)| *tab != Tab::DeadLetters || found.queue.queue.dead_letters == Some(true));
    html! {
        div.head {
            h1 { a href=(ui.url(&queue_base(found))) { (found.queue.queue.name) } " / " (found.group.group.name) }
            (ui.freshness(""))
        }
        nav.tabs aria-label=(found.group.group.name) {
            @for (tab, path, name) in tabs {
                a href=(ui.url(&format!("{base}{path}"))) aria-current=[(tab == here).then_some("page")] { (name) }
            }
        }
    }
}

/// The path of a queue's page, by its id, which is unique.
pub(super) fn queue_base(found: &Found) -> String {
    format!("/queues/{}", found.queue.queue.id)
}

/// The path of a group's page.
pub(super) fn base(found: &Found) -> String {
    format!("/queues/{}/{}", found.queue.queue.id, found.group.group.id)
}

/// `GET /ui/queues/{queue}/{group}`.
pub(super) async fn show(request: PageRequest<Found>) -> Response {
    let (ui, PageRequest { pages, visitor, target: found, form: query }) = (request.ui(), &request);
    let (t, id) = (ui.t, &found.group.group.id);
    let snapshot = pages.snapshot().await;
    let mut live = Live::default();
    pages.group_live(&found.queue, &found.group, &snapshot, t, &mut live);
    let (data, began) = (format!("{}/history", base(found)), pages.dashboard.history.began_ms());
    let body = html! {
        (heading(&ui, found, Tab::Charts))
        (figures(&ui, found, &live))
        (charts(&ui, &data, query, began, &[
            (t.backlog, &[("ready", t.ready), ("leased", t.leased), ("delayed", t.delayed), ("dead", t.dead)]),
            (t.rates, &[("in", t.entering), ("out", t.settling)]),
            (t.oldest_seconds, &[("oldest", t.oldest), ("polls", t.consumers)]),
        ]))
        (settings(&ui, found))
        @if visitor.acts() { (dangers(&ui, found)) }
    };
    ui.live_page(&found.label(), "/queues", &format!("/events?group={id}"), &body)
}

fn figures(ui: &Ui<'_>, found: &Found, live: &Live) -> Markup {
    let (t, id) = (ui.t, &found.group.group.id);
    let tiles = [
        (t.ready, "ready", ""),
        (t.leased, "leased", ""),
        (t.dead, "dead", ""),
        (t.oldest, "oldest", ""),
        (t.entering, "in", "/s"),
        (t.settling, "out", "/s"),
        (t.consumers, "polls", ""),
        (t.outlook, "trend", ""),
    ];
    html! {
        section.tiles.dense aria-label=(t.now) {
            @for (name, key, unit) in tiles {
                div.tile { span.name { (name) } span.value { (live.cell(&format!("{id}.{key}"))) small { (unit) } } }
            }
        }
    }
}

fn settings(ui: &Ui<'_>, found: &Found) -> Markup {
    let (t, queue, group) = (ui.t, &found.queue.queue, &found.group);
    let limit = queue
        .max_consume_count
        .map_or_else(|| t.no_dead_letters.to_owned(), |count| fill(t.dead_after, &[&count.to_string()]));
    let rows = [
        (t.mode, html! { (queue.mode.as_str()) }),
        (t.dead_letters, html! { (limit) }),
        (
            t.retention,
            html! { (span(found.queue.retention, t)) @if found.queue.delete_when_settled { ", " (t.delete_when_settled) } },
        ),
        (t.largest_message, html! { (bytes(queue.max_message_bytes)) }),
        (t.created, time(queue.created_ms)),
        (t.entered_total, html! { (number(found.queue.entered)) }),
        (t.settled_total, html! { (number(group.group.consumed_messages)) }),
        (t.died_total, html! { (number(group.group.produced_dead_letters.unwrap_or(0))) }),
        (t.expired_unread, html! { (number(group.expired_unread)) }),
        (t.ids, html! { code { (queue.id) } " / " code { (group.group.id) } }),
    ];
    html! {
        h2 { (t.settings) }
        dl.facts { @for (name, value) in rows { div { dt { (name) } dd { (value) } } } }
    }
}

/// Forms that delete something. The name has to be typed.
fn dangers(ui: &Ui<'_>, found: &Found) -> Markup {
    let (t, base) = (ui.t, base(found));
    let name = &found.group.group.name;
    let form = |action: &str, title: &str, help: &str| {
        html! {
            form.danger method="post" action=(ui.url(&format!("{base}/{action}"))) {
                h3 { (title) } p.muted { (help) }
                label for=(format!("confirm-{action}")) { (fill(t.type_name, &[name])) }
                input #(format!("confirm-{action}")) name="confirm" required autocomplete="off" pattern=(name);
                button.bad type="submit" { (title) }
            }
        }
    };
    html! {
        h2 { (t.dangers) }
        div.dangers {
            (form("purge", t.purge_group, t.purge_group_help))
            (form("delete", t.delete_group, t.delete_group_help))
        }
    }
}

/// `GET /ui/queues/{queue}/{group}/history?range=…`: the values of the charts.
pub(super) async fn history(State(pages): State<Pages>, params: RawPathParams, query: Form) -> Response {
    let Some(found) = find::group(&pages, &params, &query).await else {
        return http::StatusCode::NOT_FOUND.into_response();
    };
    let range = query.first("range").and_then(Range::parse).unwrap_or_default();
    let now_ms = pages.app.authenticator.clock().now_ms();
    let chart = pages.dashboard.history.chart(&found.group.group.id, range, now_ms);
    ([(header::CONTENT_TYPE, "application/json")], chart).into_response()
}

/// `GET /ui/queues/{queue}/{group}/consume`: how to consume from exactly this group.
pub(super) async fn consume(request: PageRequest<Found>) -> Response {
    let (ui, found) = (request.ui(), &request.target);
    let (queue, group) = (&found.queue.queue, &found.group.group);
    let project = &found.queue.project;
    let url = format!("$ENDPOINT/v2/{project}/queues/{}/groups/{}", queue.id, group.id);
    let examples = [
        (ui.t.command_line, format!("dms-worker receive {} {} --ack --follow", queue.name, group.name)),
        (
            ui.t.configuration,
            format!(
                "workers:\n  - name: {0}\n    queue: {0}\n    group: {1}\n    handler:\n      http: {{url: \"http://127.0.0.1:8080/{0}\"}}",
                queue.name, group.name
            ),
        ),
        (
            "curl",
            format!(
                "ENDPOINT=http://127.0.0.1:9400\ncurl \"{url}/messages?max_msgs=10&time_wait=20\"\ncurl -X POST \"{url}/ack\" -H 'Content-Type: application/json' \\\n  -d '{{\"message\":[{{\"handler\":\"HANDLER\",\"status\":\"success\"}}]}}'"
            ),
        ),
        (
            "Rust",
            format!(
                "Worker::builder(client).queue(\"{}\").group(\"{}\")\n    .handler(handler_fn(|delivery: Delivery| async move {{ Ok(()) }}))\n    .build()?.run(shutdown_signal()).await?;",
                queue.name, group.name
            ),
        ),
    ];
    let body = html! {
        (heading(&ui, found, Tab::Consume))
        @for (place, (name, text)) in examples.into_iter().enumerate() {
            h2 { (name) }
            div.code { pre #(format!("example-{place}")) tabindex="0" { code { (text) } } (ui.copy(&format!("example-{place}"))) }
        }
        p.muted { (ui.t.consume_note) }
    };
    ui.page(&found.label(), "/queues", &body)
}

/// `GET /ui/queues/{queue}`: the first group of a queue, or a page that says that there is none.
pub(super) async fn queue(request: PageRequest<QueueOverview>) -> Response {
    let (ui, PageRequest { pages, visitor, target: queue, form: query }) = (request.ui(), &request);
    let (t, base) = (ui.t, format!("/queues/{}", queue.queue.id));
    let (schedules, tags) = (schedules::section(&ui, pages, queue).await, tags::section(&ui, pages, queue).await);
    let body = html! {
        h1 { (queue.queue.name) " " small.muted { (queue.queue.mode.as_str()) } }
        @if !queue.queue.description.is_empty() { p { (foreign(&queue.queue.description)) } }
        (notice(&ui, query))
        h2 { (t.groups) }
        @if queue.groups.is_empty() { p.muted { (t.no_groups) } }
        ul.cards {
            @for group in &queue.groups {
                li { a href=(ui.url(&format!("{base}/{}", group.group.id))) { strong { (group.group.name) } }
                    " " span.muted { (number(group.group.available_messages)) " " (t.ready) ", " (number(group.in_flight)) " " (t.leased) } }
            }
        }
        @if visitor.acts() {
            form.inline method="post" action=(ui.url(&format!("{base}/groups"))) {
                label for="group-name" { (t.new_group) }
                input #group-name name="name" required maxlength="32" autocomplete="off";
                button.primary type="submit" { (t.create) }
            }
        }
        p { a.button href=(ui.url(&format!("/send?queue={}", queue.queue.id))) { (t.send_message) } }
        (schedules)
        (tags)
        @if visitor.acts() {
            h2 { (t.dangers) }
            div.dangers {
                @for (action, title, help) in [("purge", t.purge_queue, t.purge_queue_help), ("delete", t.delete_queue, t.delete_queue_help)] {
                    form.danger method="post" action=(ui.url(&format!("{base}/{action}"))) {
                        h3 { (title) } p.muted { (help) }
                        label for=(format!("confirm-{action}")) { (fill(t.type_name, &[&queue.queue.name])) }
                        input #(format!("confirm-{action}")) name="confirm" required autocomplete="off";
                        button.bad type="submit" { (title) }
                    }
                }
            }
        }
    };
    ui.page(&queue.queue.name, "/queues", &body)
}
