//! `/ui/queues/{queue}/{group}/dead`: the dead letters of a group by reason and error, and what can be done with all that match.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use maud::{Markup, html};

use crate::{
    broker::{BrokerError, PeekState, Peeked, Stream},
    dashboard::{
        html::{
            format::{foreign, number, time},
            frame::{Ui, read_only, see_other},
        },
        server::{
            Pages, export,
            filter::{Filter, cause},
            find::Found,
            group::{Tab, base, heading},
            jobs::{Kind, Order},
            message::reason,
            messages::{ROWS, filter_form, further, readable, table},
            request::{PageRequest, Posted},
            scan::{Scan, Seen},
        },
        text::fill,
    },
};
use dms_protocol::internal::text::cut;

/// The maximum number of reasons with errors that are listed.
const MAX_CAUSES: usize = 50;
/// The maximum length of an error in a row, in bytes.
const MAX_ERROR: usize = 200;

/// Dead letters with the same reason and error.
#[derive(Debug)]
struct Cause {
    count: u64,
    first_ms: i64,
    last_ms: i64,
    example: String,
}

/// What a look at all dead letters that match found.
#[derive(Debug, Default)]
struct Survey {
    causes: BTreeMap<(String, String), Cause>,
    /// The number that match.
    count: u64,
    /// The number that consumers hold.
    leased: u64,
    /// The number that a redrive leaves, because an edited copy was sent.
    spared: u64,
    /// The last sequence number that matches.
    last: u64,
    rows: Vec<Peeked>,
    scan: Scan,
}

impl Pages {
    /// Looks at the dead letters that match, from `from` on, in one step.
    async fn survey(&self, found: &Found, filter: &Filter, from: u64) -> Result<Survey, BrokerError> {
        let mut survey = Survey::default();
        let _place = self.dashboard.peeks.acquire().await;
        let path = found.path();
        let scan = Scan::step(&*self.app.broker, &path, Stream::DeadLetters, from, filter, |message| {
            survey.spared += u64::from(filter.spares(&message));
            survey.add(message);
            Seen::More
        });
        survey.scan = scan.await?;
        Ok(survey)
    }
}

impl Survey {
    /// The number that a job would be for.
    fn count_for(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Redrive => self.count.saturating_sub(self.spared),
            Kind::Discard => self.count,
        }
    }

    fn add(&mut self, message: Peeked) {
        self.count += 1;
        self.leased += u64::from(message.state != PeekState::Available);
        self.last = self.last.max(message.sequence);
        let (reason, error) = cause(&message);
        let key = (reason.to_owned(), error.to_owned());
        if self.causes.len() < MAX_CAUSES || self.causes.contains_key(&key) {
            let new = || Cause { count: 0, first_ms: i64::MAX, last_ms: i64::MIN, example: message.id.to_string() };
            let cause = self.causes.entry(key).or_insert_with(new);
            cause.count += 1;
            cause.first_ms = cause.first_ms.min(message.entered_ms);
            cause.last_ms = cause.last_ms.max(message.entered_ms);
        }
        if self.rows.len() < ROWS {
            self.rows.push(message);
        }
    }
}

/// `GET /ui/queues/{queue}/{group}/dead`.
pub(super) async fn show(request: PageRequest<Found>) -> Response {
    let (ui, PageRequest { pages, visitor, target: found, form: query }) = (request.ui(), &request);
    let filter = readable(visitor, Filter::of(query));
    let from = query.number("from").unwrap_or(0);
    let survey = match pages.survey(found, &filter, from).await {
        Ok(survey) => survey,
        Err(error) => return ui.failed(&error),
    };
    let (t, url) = (ui.t, ui.url(&format!("{}/dead", base(found))));
    let running = pages.dashboard.jobs.open_for(&found.path());
    let body = html! {
        (heading(&ui, found, Tab::DeadLetters))
        @if let Some(job) = running {
            p.alert.note { a href=(ui.url(&format!("/jobs/{}", job.order.id))) { (t.job_running) } }
        }
        @if let Some(job) = pages.dashboard.jobs.interrupted_for(&found.path()) {
            p.alert.warn { a href=(ui.url(&format!("/jobs/{}", job.order.id))) { (t.discard_was_interrupted) } }
        }
        (causes(&ui, &url, &survey, &filter))
        (filter_form(&ui, &url, &filter, false))
        @if survey.count > 0 { (actions(&ui, &url, &filter, &survey)) }
        @if survey.rows.is_empty() { p.empty { (t.no_dead_letters_here) } } @else { (table(&ui, &survey.rows, true)) }
        @if survey.count > ROWS as u64 { p.muted { (fill(t.first_rows, &[&ROWS.to_string(), &number(survey.count)])) } }
        (further(&ui, &url, &filter, from, &survey.scan))
    };
    ui.page(&found.label(), "/dead", &body)
}

fn causes(ui: &Ui<'_>, url: &str, survey: &Survey, filter: &Filter) -> Markup {
    let t = ui.t;
    let mut causes: Vec<_> = survey.causes.iter().collect();
    causes.sort_by_key(|(_, cause)| std::cmp::Reverse(cause.count));
    let link = |reason: &str, error: &str| {
        let filter = Filter { reason: reason.to_owned(), error: error.to_owned(), ..filter.clone() };
        format!("{url}?{}", filter.query())
    };
    html! {
        @if !causes.is_empty() {
            h2 { (t.by_reason) }
            div.table-box { table.wide {
                thead { tr {
                    th.num scope="col" { (t.count) } th scope="col" { (t.reason) } th scope="col" { (t.error) }
                    th scope="col" { (t.first) } th scope="col" { (t.last) } th scope="col" { (t.example) }
                } }
                tbody { @for ((code, error), cause) in causes {
                    tr {
                        td.num.main data-label=(t.count) { a href=(link(code, error)) { (number(cause.count)) } }
                        td data-label=(t.reason) { div { strong { (foreign(code)) } br; small.muted { (reason(code, t)) } } }
                        td.body data-label=(t.error) { code { (foreign(cut(error, MAX_ERROR))) } }
                        td data-label=(t.first) { (time(cause.first_ms)) }
                        td data-label=(t.last) { (time(cause.last_ms)) }
                        td data-label=(t.example) { a href=(ui.url(&format!("/messages/{}", cause.example))) { (t.show) } }
                    }
                } }
            } }
            @if !filter.reason.is_empty() { p { a href=(url) { (t.all_reasons) } } }
        }
    }
}

/// Links to the dry run, the discard, and the export of everything that matches.
fn actions(ui: &Ui<'_>, url: &str, filter: &Filter, survey: &Survey) -> Markup {
    let (t, query) = (ui.t, filter.query());
    let count = |kind| {
        let count = number(survey.count_for(kind));
        if survey.scan.next.is_none() { count } else { format!("{count}+") }
    };
    html! {
        p.actions {
            @if ui.visitor.acts() {
                a.button.primary href=(format!("{url}/redrive?{query}")) { (fill(t.redrive_count, &[&count(Kind::Redrive)])) }
                " " a.button.bad href=(format!("{url}/discard?{query}")) { (fill(t.discard_count, &[&count(Kind::Discard)])) } " "
            }
            @if ui.visitor.sees_bodies() { a.button href=(format!("{url}/export?{query}")) { (t.export) } }
        }
    }
}

/// `GET …/dead/redrive`: the dry run.
pub(super) async fn dry_run(request: PageRequest<Found>) -> Response {
    prepare(&request, Kind::Redrive).await
}

/// `GET …/dead/discard`.
pub(super) async fn prepare_discard(request: PageRequest<Found>) -> Response {
    prepare(&request, Kind::Discard).await
}

async fn prepare(request: &PageRequest<Found>, kind: Kind) -> Response {
    let (ui, PageRequest { pages, visitor, target: found, form: query }) = (request.ui(), request);
    let filter = readable(visitor, Filter::of(query));
    let survey = match pages.count(found, &filter).await {
        Ok(survey) => survey,
        Err(error) => return ui.failed(&error),
    };
    confirmation(&ui, found, &filter, &survey, kind, query.first("wrong").is_some())
}

impl Pages {
    /// Counts everything that matches, in as many steps as it takes.
    async fn count(&self, found: &Found, filter: &Filter) -> Result<Survey, BrokerError> {
        let mut all = self.survey(found, filter, 0).await?;
        while let Some(next) = all.scan.next {
            let further = self.survey(found, filter, next).await?;
            all.count += further.count;
            all.leased += further.leased;
            all.spared += further.spared;
            all.last = all.last.max(further.last);
            all.scan.next = further.scan.next;
        }
        Ok(all)
    }
}

/// What a job would do. The number has to be typed, so that nobody acts on more than they think.
fn confirmation(ui: &Ui<'_>, found: &Found, filter: &Filter, survey: &Survey, kind: Kind, wrong: bool) -> Response {
    let (t, url) = (ui.t, ui.url(&format!("{}/dead", base(found))));
    let count = survey.count_for(kind);
    let free = count.saturating_sub(survey.leased);
    let (title, text, action) = match kind {
        Kind::Redrive => (t.redrive, fill(t.would_redrive, &[&number(free), &found.label()]), "redrive"),
        Kind::Discard => (t.discard, fill(t.would_discard, &[&number(free), &found.label()]), "discard"),
    };
    let body = html! {
        h1 { (title) }
        p.lead { (text) }
        @if count < survey.count { p { (fill(t.edited_stay, &[&number(survey.spared)])) } }
        @if survey.leased > 0 { p { (fill(t.held_by_consumers, &[&number(survey.leased)])) } }
        p.muted { (t.filter) ": " code { (foreign(&filter.shown(t.all))) } }
        p { @if kind == Kind::Redrive { (t.redrive_explained) } @else { (t.discard_explained) } }
        @if kind == Kind::Discard && ui.visitor.sees_bodies() {
            p { a.button href=(format!("{url}/export?{}", filter.query())) { (t.export_first) } }
        }
        @if wrong { p.alert.bad role="alert" { (t.wrong_number) } }
        @if ui.visitor.acts() {
            form.confirm method="post" action=(format!("{url}/{action}")) {
                @for (name, value) in filter.fields() { input type="hidden" name=(name) value=(value); }
                input type="hidden" name="up_to" value=(survey.last);
                input type="hidden" name="expected" value=(count);
                @if kind == Kind::Redrive {
                    label for="rate" { (t.rate_limit) }
                    input #rate name="rate" type="number" min="0" max="100000" value="0";
                }
                label for="typed" { (fill(t.type_number, &[&count.to_string()])) }
                input #typed name="typed" required inputmode="numeric" autocomplete="off" autofocus;
                div.buttons {
                    button type="submit" class=(if kind == Kind::Redrive { "primary" } else { "bad" }) { (title) }
                    a href=(format!("{url}?{}", filter.query())) { (t.back) }
                }
            }
        } @else { p.alert.note { (t.denied_reader) } }
    };
    ui.page(title, "/dead", &body)
}

/// `POST …/dead/redrive`.
pub(super) async fn redrive(Posted(request): Posted<Found>) -> Response {
    begin(&request, Kind::Redrive)
}

/// `POST …/dead/discard`.
pub(super) async fn discard(Posted(request): Posted<Found>) -> Response {
    begin(&request, Kind::Discard)
}

fn begin(request: &PageRequest<Found>, kind: Kind) -> Response {
    let (ui, PageRequest { pages, visitor, target: found, form }) = (request.ui(), request);
    let (filter, action) = (Filter::of(form), if kind == Kind::Redrive { "redrive" } else { "discard" });
    let url = ui.url(&format!("{}/dead", base(found)));
    let (Some(expected), Some(up_to)) = (form.number("expected"), form.number("up_to")) else { return ui.bad_form() };
    let typed = form.filled("typed").map(|typed| typed.replace([',', ' '], ""));
    if typed.as_deref() != Some(&expected.to_string()) || expected == 0 {
        return see_other(&format!("{url}/{action}?{}&wrong=1", filter.query()));
    }
    if let Some(open) = pages.dashboard.jobs.open_for(&found.path()) {
        return see_other(&ui.url(&format!("/jobs/{}", open.order.id)));
    }
    let path = found.path();
    if let Some(other) = pages.dashboard.jobs.elsewhere().into_iter().find(|other| other.order.path() == path) {
        return ui.refused(&format!("{} {}", ui.t.job_running, fill(ui.t.job_at_server, &[&other.server])));
    }
    let order = Order {
        id: format!("{:08x}", fastrand::u32(..)),
        kind,
        project: path.project.to_string(),
        queue: path.queue.to_string(),
        group: path.group.to_string(),
        label: found.label(),
        page: format!("{}/dead", base(found)),
        up_to,
        expected,
        rate: form.number("rate").and_then(|rate| u32::try_from(rate).ok()).unwrap_or(0).min(100_000),
        who: visitor.access.map(|access| access.to_string()).unwrap_or_default(),
        began_ms: pages.app.authenticator.clock().now_ms(),
        filter,
    };
    let target = format!("{} ({})", order.label, order.filter.describe());
    pages.dashboard.gate.record(
        visitor,
        action,
        &target,
        Ok(&format!("begun: {expected} dead letters, job {}", order.id)),
    );
    let job = pages.dashboard.jobs.begin(&pages.app, &pages.dashboard.gate, order);
    see_other(&ui.url(&format!("/jobs/{}", job.order.id)))
}

/// `GET …/dead/export`: everything that matches, as JSON lines of the command line.
pub(super) async fn export(request: PageRequest<Found>) -> Response {
    let PageRequest { pages, visitor, target: found, form: query } = request;
    if !visitor.sees_bodies() {
        return read_only(&pages.dashboard.gate, &visitor);
    }
    let filter = Filter::of(&query);
    pages.dashboard.gate.record(&visitor, "export", &found.label(), Ok(&filter.describe()));
    let name = format!("attachment; filename=\"{}-{}-dead.jsonl\"", found.queue.queue.name, found.group.group.name);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::CONTENT_DISPOSITION, HeaderValue::try_from(name).unwrap_or(HeaderValue::from_static("attachment"))),
    ];
    (headers, Body::from_stream(export::lines(pages, found, filter))).into_response()
}
