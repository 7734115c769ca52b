//! The dashboard: who is let in, and what each caller may do.

use std::{sync::Arc, time::Duration};

use dms_protocol::{queue::TagFilter, secret::Secret};
use dms_server::{
    AccessKey, DashboardOptions, Project, Rights, Server, ServerConfig, StartQueue,
    broker::{Ack, AckStatus, Broker, FailureCause, GroupPath, LeaseRequest, NewMessage, Stream},
    queue::NewQueue,
};
use reqwest::{Client, Method, RequestBuilder, Response, redirect::Policy};
use tokio::sync::oneshot;

use super::admin;

const TOKEN: &str = "the token";
const READ_TOKEN: &str = "the read token";

/// A running server with a dashboard.
struct Running {
    server: String,
    client: Client,
    _stop: oneshot::Sender<()>,
}

impl Running {
    async fn start(config: ServerConfig) -> Self {
        let orders = StartQueue::new(NewQueue::new("orders").dead_letters_after(3)).group("billing");
        let config = config.projects(vec![Project::new("shop").queue(orders)]);
        let server = Server::bind(config).await.unwrap();
        let url = server.admin_url().unwrap();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(server.run(async { drop(stopped.await) }));
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { server: url, client, _stop: stop }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.server))
    }

    /// A request as a browser sends it for a page of the dashboard.
    fn browse(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).header("Sec-Fetch-Site", "same-origin").header("Accept", "text/html")
    }

    async fn get(&self, path: &str) -> Response {
        self.browse(Method::GET, path).send().await.unwrap()
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Response {
        self.browse(Method::POST, path).body(encoded(form)).send().await.unwrap()
    }

    /// Logs in and gives the cookie.
    async fn log_in(&self, token: &str) -> String {
        let answer = self.post("/ui/login", &[("token", token)]).await;
        assert_eq!(answer.status(), 303, "{}", answer.text().await.unwrap());
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        cookie.split(';').next().unwrap().to_owned()
    }
}

fn encoded(form: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
}

fn guarded() -> ServerConfig {
    admin::config().admin_token(Secret::from(TOKEN)).admin_read_token(Secret::from(READ_TOKEN))
}

fn open(actions: bool) -> ServerConfig {
    admin::config().dashboard(DashboardOptions::default().actions(actions))
}

/// The paths of all pages that read.
const PAGES: [&str; 28] = [
    "/ui",
    "/ui/",
    "/ui/queues",
    "/ui/queues/orders",
    "/ui/queues/orders/billing",
    "/ui/queues/orders/billing/history?range=3h",
    "/ui/queues/orders/billing/consume",
    "/ui/queues/orders/billing/messages?text=x&from=7",
    "/ui/queues/orders/billing/messages?since=2026-11-29T10:00&until=soon",
    "/ui/queues/orders/billing/leases",
    "/ui/queues/orders/billing/dead?reason=failed",
    "/ui/queues/orders/billing/dead/redrive",
    "/ui/queues/orders/billing/dead/discard",
    "/ui/dead",
    "/ui/jobs",
    "/ui/send?queue=orders",
    "/ui/search",
    "/ui/search?text=x&at=messages-nothing&from=7",
    "/ui/schedules",
    "/ui/schedules?queue=orders",
    "/ui/storage",
    "/ui/storage?range=24h",
    "/ui/storage/history?range=24h&used=kB&free=GB",
    "/ui/cluster",
    "/ui/access",
    "/ui/activity",
    "/ui/messages/not-an-id",
    "/ui/queues/orders/billing/dead/1/edit?there-is=not-an-id",
];
/// The paths of everything that changes something.
const ACTIONS: [&str; 21] = [
    "/ui/queues",
    "/ui/queues/orders/groups",
    "/ui/queues/orders/tags",
    "/ui/queues/orders/tags/delete",
    "/ui/queues/orders/purge",
    "/ui/queues/orders/delete",
    "/ui/queues/orders/billing/purge",
    "/ui/queues/orders/billing/delete",
    "/ui/queues/orders/billing/dead/redrive",
    "/ui/queues/orders/billing/dead/discard",
    "/ui/queues/orders/billing/dead/1/edit",
    "/ui/messages/not-an-id/retry",
    "/ui/messages/not-an-id/discard",
    "/ui/jobs/1/cancel",
    "/ui/send",
    "/ui/access/unlock",
    "/ui/schedules",
    "/ui/schedules/orders/nightly/pause",
    "/ui/schedules/orders/nightly/resume",
    "/ui/schedules/orders/nightly/remove",
    "/ui/nothing",
];

#[tokio::test]
async fn every_route_asks_for_the_token_it_needs() {
    let server = Running::start(guarded()).await;
    let (operator, reader) = (server.log_in(TOKEN).await, server.log_in(READ_TOKEN).await);
    for page in PAGES {
        let status = async |cookie: Option<&str>| {
            let request = server.browse(Method::GET, page);
            let request = match cookie {
                Some(cookie) => request.header("Cookie", cookie),
                None => request,
            };
            request.send().await.unwrap().status().as_u16()
        };
        let found = if page.ends_with("not-an-id") { 404 } else { 200 };
        assert_eq!(status(Some(&operator)).await, found, "{page}");
        assert_eq!(status(Some(&reader)).await, found, "{page}");
        assert_eq!(status(None).await, 303, "{page}");
        assert_eq!(status(Some("dms-session-1=made-up")).await, 303, "{page}");
        for (token, expected) in [(TOKEN, found), (READ_TOKEN, found), ("another", 401), ("", 401)] {
            let answer = server.request(Method::GET, page).bearer_auth(token).send().await.unwrap();
            assert_eq!(answer.status(), expected, "{page} with {token:?}");
        }
        assert_eq!(server.request(Method::GET, page).send().await.unwrap().status(), 401, "{page}");
    }
    for action in ACTIONS {
        let status = async |cookie: &str| {
            let request = server.browse(Method::POST, action).header("Cookie", cookie);
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(status("").await, 401, "{action}");
        assert_eq!(status(&reader).await, 403, "{action}");
        assert!(![401, 403].contains(&status(&operator).await), "{action}");
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_that_protect_it() {
    let server = Running::start(guarded()).await;
    let cookie = server.log_in(TOKEN).await;
    for path in ["/ui/", "/ui/login", "/ui/nothing", "/ui/assets/0/dashboard.css"] {
        let answer = server.browse(Method::GET, path).header("Cookie", &cookie).send().await.unwrap();
        let headers = answer.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(headers["x-frame-options"], "DENY", "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(headers.contains_key("cache-control"), "{path}");
    }
}

#[tokio::test]
async fn without_a_token_it_is_for_this_machine_and_reads_only() {
    let server = Running::start(open(false)).await;
    let page = server.get("/ui/").await;
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("read only"));
    // DNS rebinding: a name of a stranger that leads to this machine.
    let rebound = server.request(Method::GET, "/ui/").header("Host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status(), 421);
    for site in ["cross-site", "same-site"] {
        let foreign = server.request(Method::GET, "/ui/").header("Sec-Fetch-Site", site).send().await.unwrap();
        assert_eq!(foreign.status(), 403, "{site}");
    }
    assert_eq!(server.get("/").await.headers()["location"], "/ui/");
}

#[tokio::test]
async fn forms_of_other_pages_are_refused() {
    let server = Running::start(guarded()).await;
    let cookie = server.log_in(TOKEN).await;
    let logout = |name: &'static str, value: &str| {
        let request = server.request(Method::POST, "/ui/logout").header("Cookie", &cookie);
        request.header(name, value).send()
    };
    for (name, value) in [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site"), ("Origin", "null")] {
        assert_eq!(logout(name, value).await.unwrap().status(), 403, "{name}: {value}");
    }
    assert_eq!(logout("Origin", "http://evil.example").await.unwrap().status(), 403);
    assert_eq!(logout("X-Unrelated", "1").await.unwrap().status(), 403, "no header says where the form is from");
    assert_eq!(server.browse(Method::GET, "/ui/").header("Cookie", &cookie).send().await.unwrap().status(), 200);
    assert_eq!(logout("Origin", &server.server).await.unwrap().status(), 303);
    assert_eq!(server.browse(Method::GET, "/ui/").header("Cookie", &cookie).send().await.unwrap().status(), 303);
}

#[tokio::test]
async fn a_session_ends_when_its_token_is_replaced() {
    let server = Server::bind(guarded()).await.unwrap();
    let (handle, url) = (server.handle(), server.admin_url().unwrap());
    tokio::spawn(server.run(std::future::pending()));
    let (client, _stop) =
        (Client::builder().no_proxy().redirect(Policy::none()).build().unwrap(), oneshot::channel().0);
    let running = Running { server: url, client, _stop };
    let (operator, reader) = (running.log_in(TOKEN).await, running.log_in(READ_TOKEN).await);
    assert!(handle.renew_admin_token(Some("a new token")));
    let status = async |cookie: &str| {
        running.browse(Method::GET, "/ui/").header("Cookie", cookie).send().await.unwrap().status().as_u16()
    };
    assert_eq!((status(&operator).await, status(&reader).await), (303, 200));
    assert!(handle.renew_admin_read_token(Some("a new read token")));
    assert_eq!(status(&reader).await, 303);
}

/// Five wrong tokens are answered at once. The clock is not paused, so the sixth one is not waited for.
#[tokio::test]
async fn wrong_tokens_are_refused_and_answered_slowly_in_the_end() {
    let server = Running::start(guarded()).await;
    for _ in 0..5 {
        let answer = server.post("/ui/login", &[("token", "wrong")]).await;
        assert_eq!(answer.status(), 401);
        assert!(!answer.headers().contains_key("set-cookie"));
    }
    let slow = server.browse(Method::POST, "/ui/login").body(encoded(&[("token", "wrong")]));
    let slow = slow.timeout(Duration::from_millis(200)).send().await;
    assert!(slow.unwrap_err().is_timeout());
    server.log_in(TOKEN).await;
}

#[tokio::test]
async fn the_way_back_after_the_login_stays_in_the_dashboard() {
    let server = Running::start(guarded()).await;
    let login = server.get("/ui/?lang=zh").await.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(login, "/ui/login?next=%2Fui%2F%3Flang%3Dzh");
    assert!(server.get("/ui/login?lang=zh").await.text().await.unwrap().contains("登录"));
    for (next, expected) in [
        ("/ui/?lang=zh", "/ui/?lang=zh"),
        ("https://evil.example/", "/ui/"),
        ("//evil.example/ui/", "/ui/"),
        ("/ui/\r\nSet-Cookie: a=b", "/ui/"),
        ("/metrics", "/ui/"),
    ] {
        let answer = server.post("/ui/login", &[("token", TOKEN), ("next", next)]).await;
        assert_eq!(answer.headers()["location"], expected, "{next:?}");
    }
}

#[tokio::test]
async fn behind_a_proxy_its_paths_begin_with_the_base_path() {
    let options = DashboardOptions::default().base_path("/dms/");
    let server = Running::start(guarded().dashboard(options)).await;
    for path in ["/ui/", "/dms/ui/"] {
        let location = server.get(path).await.headers()["location"].to_str().unwrap().to_owned();
        assert_eq!(location, "/dms/ui/login?next=%2Fdms%2Fui%2F", "{path}");
    }
    let answer = server.post("/dms/ui/login", &[("token", TOKEN)]).await;
    assert!(answer.headers()["set-cookie"].to_str().unwrap().contains("Path=/dms/"), "{answer:?}");
    assert_eq!(answer.headers()["location"], "/dms/ui/");
    let page = server.get("/dms/ui/login").await.text().await.unwrap();
    assert!(page.contains("\"/dms/ui/assets/"), "{page}");

    let error = Server::bind(open(false).dashboard(DashboardOptions::default().base_path("dms"))).await.unwrap_err();
    assert!(error.to_string().contains("dashboard.base_path"), "{error}");
}

#[tokio::test]
async fn it_can_be_left_out() {
    let server = Running::start(open(false).dashboard(DashboardOptions::default().enabled(false))).await;
    for path in ["/ui/", "/"] {
        assert_eq!(server.get(path).await.status(), 404, "{path}");
    }
}

/// The read token reads the rest of the admin address, too, but for messages.
#[tokio::test]
async fn the_read_token_changes_nothing_at_the_admin_address() {
    let server = Running::start(guarded()).await;
    let messages = "/admin/queues/q/groups/g/messages";
    let status = async |server: &Running, method: Method, path: &str| {
        server.request(method, path).bearer_auth(READ_TOKEN).send().await.unwrap().status().as_u16()
    };
    for path in ["/metrics", "/admin/queues", "/admin/storage"] {
        assert_eq!(status(&server, Method::GET, path).await, 200, "{path}");
    }
    assert_eq!(status(&server, Method::GET, messages).await, 403);
    for path in ["/admin/queues/orders/purge", "/admin/backup?to=/nowhere", "/admin/damaged/skip?queue=orders"] {
        assert_eq!(status(&server, Method::POST, path).await, 403, "{path}");
    }
    let server = Running::start(guarded().admin_read_token_sees_bodies(true)).await;
    assert_eq!(status(&server, Method::GET, messages).await, 404);
}

#[tokio::test]
async fn a_read_token_needs_the_token_beside_it() {
    let alone = admin::config().admin_read_token(Secret::from(READ_TOKEN));
    let equal = guarded().admin_read_token(Secret::from(TOKEN));
    let blank = guarded().admin_read_token(Secret::from(" "));
    for (config, expected) in [(alone, "set both"), (equal, "another one"), (blank, "is empty")] {
        let error = Server::bind(config).await.unwrap_err().to_string();
        assert!(error.starts_with("admin_read_token: ") && error.contains(expected), "{error}");
    }
}

/// Every page in both languages: nothing inline, and ids that are unique, with a label for each field.
#[tokio::test]
async fn pages_have_nothing_inline() {
    let server = Running::start(open(true)).await;
    for page in PAGES.into_iter().filter(|page| !page.contains("history")) {
        for language in ["en", "zh-CN"] {
            let mark = if page.contains('?') { '&' } else { '?' };
            let text = server.get(&format!("{page}{mark}lang={language}")).await.text().await.unwrap();
            assert!(text.contains(&format!("lang=\"{language}\"")), "{page}");
            assert_eq!(
                text.matches("<script").count(),
                text.matches("<script type=\"module\" src=\"/ui/assets/").count(),
                "{page}"
            );
            for inline in ["<style", " style=\"", " onclick", " onerror", "javascript:", "http://", "https://"] {
                let text = text.split("<main").next().unwrap();
                assert!(!text.contains(inline), "{page}: {inline}");
            }
            let values = |name: &str| {
                let mark = format!(" {name}=\"");
                text.split(&mark).skip(1).map(|part| part.split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let ids = values("id");
            let unique: std::collections::BTreeSet<_> = ids.iter().collect();
            assert_eq!(unique.len(), ids.len(), "{page}: {ids:?}");
            for label in values("for") {
                assert!(ids.contains(&label), "{page}: a label for {label}");
            }
        }
    }
}

/// A dead letter on its way through the pages: shown, dry run, redriven by a job, and an activity for each step.
#[tokio::test]
async fn dead_letters_are_redriven_by_a_job_over_all_that_match() {
    let (running, broker, path) = with_dead_letters(open(true), 30).await;
    let page = format!("/ui/queues/{}/{}/dead", path.queue, path.group);
    let shown = running.get(&page).await.text().await.unwrap();
    assert!(shown.contains("no such account") && shown.contains("Redrive 30"), "{shown}");
    let dry = running.get(&format!("{page}/redrive?error=no+such+account")).await.text().await.unwrap();
    let field = |name: &str| {
        dry.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let (expected, up_to) = (field("expected"), field("up_to"));
    assert_eq!(expected, "30");
    let begin = async |typed: &str| {
        let form = [("expected", &*expected), ("up_to", &*up_to), ("typed", typed), ("error", "no such account")];
        running.post(&format!("{page}/redrive"), &form).await.headers()["location"].to_str().unwrap().to_owned()
    };
    assert!(begin("29").await.contains("wrong=1"));
    let job = begin("30").await;
    assert!(job.starts_with("/ui/jobs/"), "{job}");
    while !running.get(&job).await.text().await.unwrap().contains(">done<") {
        tokio::task::yield_now().await;
    }
    let group = broker.overview().remove(0).groups.remove(0).group;
    assert_eq!((group.available_messages, group.available_dead_letters), (30, Some(0)));
    let activity = running.get("/ui/activity").await.text().await.unwrap();
    assert!(activity.contains("begun: 30 dead letters") && activity.contains("30 of 30"), "{activity}");
}

/// The pages of a server with dead letters, for three handle.
async fn with_dead_letters(config: ServerConfig, count: usize) -> (Running, Arc<dyn Broker>, GroupPath) {
    let server = Server::bind(config).await.unwrap();
    let (broker, url) = (Arc::clone(server.broker()), server.admin_url().unwrap());
    tokio::spawn(server.run(std::future::pending()));
    let (client, _stop) =
        (Client::builder().no_proxy().redirect(Policy::none()).build().unwrap(), oneshot::channel().0);
    let path = dead_letters(&*broker, count).await;
    (Running { server: url, client, _stop }, broker, path)
}

/// Attempts with the times that the server knows, the trace with its link, and commands that a shell reads as they are meant.
#[tokio::test]
async fn a_message_shows_its_attempts_its_trace_and_commands() {
    let options = DashboardOptions::default().trace_url("https://jaeger.example/trace/{trace_id}?span={span_id}");
    let (server, broker, path) = with_dead_letters(guarded().dashboard(options), 0).await;
    let queue = broker.create_queue(&path.project, NewQueue::new("tries").dead_letters_after(3)).await.unwrap().id;
    let group = broker.create_groups(&path.project, &queue, &["g".to_owned()]).await.unwrap().remove(0);
    let path = GroupPath { queue, group, ..path };
    let json = "{\"body\":{\"name\":\"it's <b> $HOME \u{202e}\",\"n\":12345678901234567890},\
                \"attributes\":{\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"}}";
    let message = NewMessage {
        json: json.into(),
        body_bytes: json.len(),
        tags: vec![],
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    };
    broker.append(&path.project, &path.queue, vec![message]).await.unwrap();
    let lease = async || {
        let (wait, ack_wait) = (Duration::from_secs(1), Duration::from_secs(30));
        let request =
            LeaseRequest { max_messages: 1, max_bytes: 524_288, wait, ack_wait, filter: TagFilter::default() };
        broker.lease(&path, Stream::Messages, request).await.unwrap().remove(0)
    };
    let (receipt, error) = (lease().await.receipt, Some("no <i>such</i> account".into()));
    let cause = FailureCause { reason: Some("failed".into()), error, worker: Some("w-1".into()), ..Default::default() };
    broker
        .ack(&path, Stream::Messages, vec![Ack { receipt, status: AckStatus::Fail(Some(Arc::new(cause))) }])
        .await
        .unwrap();
    let released = Ack { receipt: lease().await.receipt, status: AckStatus::Release };
    broker.ack(&path, Stream::Messages, vec![released]).await.unwrap();
    lease().await;
    let id = broker.peek(&path, Stream::Messages, 0, 1).await.unwrap().remove(0).id;
    let read = async |cookie: String| {
        let request = server.browse(Method::GET, &format!("/ui/messages/{id}")).header("Cookie", cookie);
        request.send().await.unwrap().text().await.unwrap()
    };
    let page = read(server.log_in(TOKEN).await).await;
    for expected in [
        "handed out: 3",
        "failures so far: 1",
        "failed for the first time <time",
        "last failure",
        "no &lt;i&gt;such&lt;/i&gt; account",
        "w-1",
        ", failed <time",
        "handed back without a failure: <time",
        "leased since <time",
        "leased until <time",
        "href=\"https://jaeger.example/trace/4bf92f3577b34da6a3ce929d0e0e4736?span=00f067aa0ba902b7\"",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    assert!(page.contains(&format!("dms-worker message show {id}\n")), "{page}");
    let plain = page.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let command = plain.split("\nprintf ").nth(1).unwrap().split(" | dms-worker send tries -<").next().unwrap();
    assert!(!command.contains('\u{202e}'));
    let printed = std::process::Command::new("sh").arg("-c").arg(format!("printf {command}")).output().unwrap().stdout;
    let value = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap();
    assert_eq!(value(&printed), value(json.as_bytes()));
    assert!(
        plain.contains("curl -X POST \"$ENDPOINT/v2/") && plain.contains("X-Auth-Token") == page.contains("$TOKEN")
    );
    let page = read(server.log_in(READ_TOKEN).await).await;
    assert!(page.contains("dms-worker message show") && !page.contains("printf"), "{page}");
    assert!(!page.contains("4bf92f"), "{page}");

    let options = DashboardOptions::default().trace_url("https://jaeger.example/");
    let error = Server::bind(open(false).dashboard(options)).await.unwrap_err();
    assert!(error.to_string().contains("dashboard.trace_url"), "{error}");
}

/// Numbers stay as they were written, the original is kept beside the copy, and a redrive leaves it.
#[tokio::test]
async fn a_dead_letter_is_edited_and_sent_again() {
    let (server, broker, path) = with_dead_letters(open(true), 2).await;
    let dead = format!("/ui/queues/{}/{}/dead", path.queue, path.group);
    let message = broker.peek(&path, Stream::DeadLetters, 1, 1).await.unwrap().remove(0);
    let page = format!("{dead}/{}/edit", message.sequence);
    let shown = server.get(&page).await.text().await.unwrap();
    assert!(shown.contains("&quot;order&quot;: 1") && shown.contains("no such account"), "{shown}");
    let id = message.id.to_string();
    let edit = async |id: &str, body: &str, attributes: &str| {
        server.post(&page, &[("id", id), ("body", body), ("attributes", attributes)]).await
    };
    for (body, attributes) in [("no json", "{}"), ("1}],\"x\":[{", "{}"), ("1", "[]"), ("1", "{}},{\"body\":2")] {
        let refused = edit(&id, body, attributes).await;
        assert_eq!(refused.status(), 200, "{body}");
        let text = refused.text().await.unwrap();
        assert!(text.contains("alert bad") && text.contains("</textarea>"), "{body}: {text}");
    }
    let other = edit("m_RjkDiiQaIPJBFSAAAAAAAR", "1", "{}").await;
    assert!(other.headers()["location"].to_str().unwrap().ends_with("not-available"), "{other:?}");
    let body = "{\r\n  \"order\": 12345678901234567890,\r\n  \"price\": 1.10, \"s\": \"a  b\"}";
    let sent = edit(&id, body, "{\"n\": 98765432109876543210}").await;
    assert_eq!(sent.headers()["location"], format!("/ui/messages/{id}?notice=edited"));
    let copy = broker.peek(&path, Stream::Messages, 1, 10).await.unwrap();
    let expected =
        r#"{"body":{"order":12345678901234567890,"price":1.10,"s":"a  b"},"attributes":{"n":98765432109876543210}}"#;
    assert_eq!(copy.iter().map(|copy| (&*copy.json, copy.id)).collect::<Vec<_>>(), [(expected.as_bytes(), message.id)]);
    let both = server.get(&format!("/ui/messages/{id}")).await.text().await.unwrap();
    for expected in ["12345678901234567890", "&quot;order&quot;: 1\n", "failed: no such account", "edited"] {
        assert!(both.contains(expected), "{expected}: {both}");
    }
    let kept = server.get(&dead).await.text().await.unwrap();
    assert!(kept.contains("Redrive 1 ") && kept.contains("Discard 2 "), "{kept}");
    let dry = server.get(&format!("{dead}/redrive")).await.text().await.unwrap();
    assert!(dry.contains("1 dead letters would go back") && dry.contains("1 more match"), "{dry}");
    let asked = server.get(&format!("{dead}/redrive?reason=edited")).await.text().await.unwrap();
    assert!(asked.contains("1 dead letters would go back") && !asked.contains("1 more match"), "{asked}");
    // A button is for one of the two messages with this id.
    let original = broker.peek(&path, Stream::DeadLetters, 1, 10).await.unwrap().pop().unwrap();
    assert_eq!(original.id, message.id);
    let place = format!("dead-letters-{}", original.sequence);
    let form = [("queue", path.queue.as_str()), ("group", path.group.as_str()), ("place", &*place)];
    server.post(&format!("/ui/messages/{id}/discard"), &form).await;
    assert_eq!(broker.peek(&path, Stream::DeadLetters, 1, 10).await.unwrap().len(), 1);
    assert_eq!(broker.peek(&path, Stream::Messages, 1, 10).await.unwrap().len(), 1, "the copy was discarded, too");
    let activity = server.get("/ui/activity").await.text().await.unwrap();
    assert_eq!(activity.matches("an edited copy was sent").count(), 1, "{activity}");
    assert!(!activity.contains("1234567890"), "a body is in the activities");
}

#[tokio::test]
async fn the_read_token_neither_edits_nor_sees_what_would_be_edited() {
    let (server, broker, path) = with_dead_letters(guarded(), 1).await;
    let page = format!("/ui/queues/{}/{}/dead/1/edit", path.queue, path.group);
    let reader = server.log_in(READ_TOKEN).await;
    let shown = server.browse(Method::GET, &page).header("Cookie", &reader).send().await.unwrap();
    let shown = shown.text().await.unwrap();
    assert!(!shown.contains("order&quot;") && !shown.contains("<textarea"), "{shown}");
    let id = broker.peek(&path, Stream::DeadLetters, 1, 1).await.unwrap().remove(0).id.to_string();
    let edit =
        server.browse(Method::POST, &page).header("Cookie", &reader).body(encoded(&[("id", &id), ("body", "1")]));
    assert_eq!(edit.send().await.unwrap().status(), 403);
    assert!(broker.peek(&path, Stream::Messages, 1, 1).await.unwrap().is_empty());
}

/// Over all queues, their groups and dead letters, in steps that a link continues.
#[tokio::test]
async fn a_search_finds_messages_of_all_queues_in_steps() {
    let (server, broker, path) = with_dead_letters(guarded(), 3).await;
    let other = broker.create_queue(&path.project, NewQueue::new("mail")).await.unwrap().id;
    let groups = broker.create_groups(&path.project, &other, &["smtp".to_owned()]).await.unwrap();
    let json = |number: u64| format!(r#"{{"body":{{"order":{number}}},"attributes":{{"key":"k-{number}"}}}}"#);
    let message = |number| NewMessage {
        json: json(number).into(),
        body_bytes: 11,
        tags: vec![],
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    };
    broker.append(&path.project, &other, (0..120).map(message).collect()).await.unwrap();
    let operator = server.log_in(TOKEN).await;
    let search = async |query: &str| {
        let request = server.browse(Method::GET, &format!("/ui/search?{query}")).header("Cookie", &operator);
        request.send().await.unwrap().text().await.unwrap()
    };
    let found = search("pointer=/order%3D1").await;
    assert_eq!(found.matches("orders / g").count(), 3, "{found}");
    assert_eq!(found.matches("mail / smtp").count(), 1, "{found}");
    assert!(found.contains("of about 123 in all queues"), "{found}");
    assert!(search("attribute=key%3Dk-77").await.contains("&quot;order&quot;:77"));
    // A page of 50 rows, and links to the others.
    let (mut link, mut rows) = ("text=order".to_owned(), 0);
    loop {
        let page = search(&link).await;
        rows += page.matches("data-label=\"Place\"").count();
        let Some(next) = page.split("button primary\" href=\"/ui/search?").nth(1) else { break };
        link = next.split('"').next().unwrap().replace("&amp;", "&");
    }
    assert_eq!(rows, 123);
    let group = GroupPath { project: path.project.clone(), queue: other, group: groups[0].clone() };
    let id = broker.peek(&group, Stream::Messages, 1, 1).await.unwrap().remove(0).id;
    let request = server.browse(Method::GET, &format!("/ui/search?id={id}")).header("Cookie", &operator);
    let page = format!("/ui/messages/{id}").replace('_', "%5F").replace('-', "%2D");
    assert_eq!(request.send().await.unwrap().headers()["location"], page);
    // The read token searches by what it may see.
    let reader = server.log_in(READ_TOKEN).await;
    let request = server.browse(Method::GET, "/ui/search?text=order").header("Cookie", &reader);
    let shown = request.send().await.unwrap().text().await.unwrap();
    assert!(!shown.contains("mail / smtp") && !shown.contains("filter-text"), "{shown}");
}

/// Every server shows the queues of all shards, edits and finds dead letters of the others, and lists who owns what.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_of_a_cluster_shows_the_queues_of_all() {
    use super::{PROJECT, cluster};
    use dms_worker_postgres_fixture::PgServer;

    let Some(pg) = PgServer::shared() else { return };
    let schema = cluster::schema();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let config =
            cluster::settings(pg, &schema, cluster::many()).admin(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        let config = config.dashboard(DashboardOptions::default().actions(true));
        let server = Server::bind(config).await.unwrap();
        let (broker, url) = (Arc::clone(server.broker()), server.admin_url().unwrap());
        tokio::spawn(server.run(std::future::pending()));
        let (client, _stop) =
            (Client::builder().no_proxy().redirect(Policy::none()).build().unwrap(), oneshot::channel().0);
        servers.push((Running { server: url, client, _stop }, broker));
    }
    let sql = format!("SELECT count(DISTINCT owner) FROM {schema}.shard");
    while pg.psql("postgres", &sql).unwrap().pop().unwrap() != "2" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let project = PROJECT.into();
    for number in 0..6 {
        let queue = NewQueue::new(format!("queue-{number}")).dead_letters_after(1);
        let queue = servers[0].1.create_queue(&project, queue).await.unwrap().id;
        servers[0].1.create_groups(&project, &queue, &["billing".to_owned()]).await.unwrap();
    }
    for (server, broker) in &servers {
        let page = server.get("/ui/queues").await.text().await.unwrap();
        assert!((0..6).all(|number| page.contains(&format!(">queue-{number}<"))), "{page}");
        assert!(broker.overview().len() < 6, "one server owns everything, so the test shows nothing");
        let overview = server.get("/ui/").await.text().await.unwrap();
        assert!((0..6).all(|number| overview.contains(&format!(">queue-{number}<"))), "{overview}");
        let cluster = server.get("/ui/cluster").await.text().await.unwrap();
        assert_eq!(cluster.matches(">serving<").count(), 2, "{cluster}");
        assert!(cluster.contains(">owned<") && cluster.contains("this server"), "{cluster}");
        let all = broker.overview_of_all().await.unwrap();
        let elsewhere =
            all.into_iter().find(|queue| broker.overview().iter().all(|own| own.queue.id != queue.queue.id));
        let elsewhere = elsewhere.unwrap();
        let path = GroupPath {
            project: elsewhere.project,
            queue: elsewhere.queue.id,
            group: elsewhere.groups[0].group.id.clone(),
        };
        die(&**broker, &path, 1).await;
        let dead = broker.peek(&path, Stream::DeadLetters, 1, 1).await.unwrap().remove(0);
        let edit = format!("/ui/queues/{}/{}/dead/{}/edit", path.queue, path.group, dead.sequence);
        let sent = server.post(&edit, &[("id", &dead.id.to_string()), ("body", "12345678901234567890")]).await;
        assert_eq!(sent.status(), 303, "{}", sent.text().await.unwrap());
        let copy = broker.peek(&path, Stream::Messages, 1, 10).await.unwrap().remove(0);
        assert_eq!((copy.id, &*copy.json), (dead.id, &br#"{"body":12345678901234567890,"attributes":{}}"#[..]));
        broker.discard_message(&path, Stream::Messages, copy.sequence).await.unwrap();
    }
}

/// A server dies in the middle of a redrive, and another one goes on with it.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_of_a_cluster_goes_on_with_a_redrive() {
    use super::{PROJECT, cluster};
    use dms_worker_postgres_fixture::PgServer;

    let Some(pg) = PgServer::shared() else { return };
    let schema = cluster::schema();
    let start = async || {
        let config =
            cluster::settings(pg, &schema, cluster::many()).admin(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        let server = Server::bind(config.dashboard(DashboardOptions::default().actions(true))).await.unwrap();
        let (broker, url) = (Arc::clone(server.broker()), server.admin_url().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async { drop(stopped.await) }));
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        (Running { server: url, client, _stop: stop }, broker, running)
    };
    let (first, broker, running) = start().await;
    let (second, other, _running) = start().await;
    let project = PROJECT.into();
    let queue = broker.create_queue(&project, NewQueue::new("jobs").dead_letters_after(1)).await.unwrap().id;
    let group = broker.create_groups(&project, &queue, &["billing".to_owned()]).await.unwrap().remove(0);
    let path = GroupPath { project, queue, group };
    die(&*broker, &path, 12).await;
    let page = format!("/ui/queues/{}/{}/dead/redrive", path.queue, path.group);
    let form = [("expected", "12"), ("up_to", "12"), ("typed", "12"), ("rate", "4")];
    let job = first.post(&page, &form).await.headers()["location"].to_str().unwrap().to_owned();
    let sql = format!("SELECT count(*) FROM {schema}.job");
    let rows = || pg.psql("postgres", &sql).unwrap().pop().unwrap();
    let page = async |server: &Running, page: &str| server.get(page).await.text().await.unwrap();
    while rows() != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while !page(&second, "/ui/jobs").await.contains("running at") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(first);
    running.await.unwrap().unwrap();
    assert_eq!(rows(), "1", "the server ended and took the job along");
    while !page(&second, &job).await.contains(">done<") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rows(), "0");
    assert_eq!(other.peek(&path, Stream::DeadLetters, 1, 10).await.unwrap().len(), 0);
    assert_eq!(other.peek(&path, Stream::Messages, 1, 20).await.unwrap().len(), 12);
    assert!(page(&second, &job).await.contains("its server was restarted, or was gone"));
}

/// A discard whose server dies does not go on: another server says whether it had begun, and what it had not discarded stays.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_of_a_cluster_reports_a_discard_whose_server_died() {
    use super::{PROJECT, cluster};
    use dms_worker_postgres_fixture::PgServer;

    let Some(pg) = PgServer::shared() else { return };
    let schema = cluster::schema();
    let config = || {
        let admin = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let config = cluster::settings(pg, &schema, cluster::many()).admin(admin);
        config.dashboard(DashboardOptions::default().actions(true))
    };
    let client = || Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
    let server = Server::bind(config()).await.unwrap();
    let other = Arc::clone(server.broker());
    let second = Running { server: server.admin_url().unwrap(), client: client(), _stop: oneshot::channel().0 };
    let _running = tokio::spawn(server.run(std::future::pending()));
    let page = async |server: &Running, page: &str| server.get(page).await.text().await.unwrap();
    for (name, has_begun, shown) in
        [("waits", false, "Nothing was discarded"), ("runs", true, "What it had not discarded is still there")]
    {
        let (first, hurry, die_now) = doomed(config());
        let first = Running { server: first.await.unwrap(), client: client(), _stop: oneshot::channel().0 };
        let project = PROJECT.into();
        let queue = other.create_queue(&project, NewQueue::new(name).dead_letters_after(1)).await.unwrap().id;
        let group = other.create_groups(&project, &queue, &["billing".to_owned()]).await.unwrap().remove(0);
        let path = GroupPath { project, queue, group };
        die(&*other, &path, 12).await;
        let left = async || other.peek(&path, Stream::DeadLetters, 1, 20).await.unwrap().len();
        let dead = format!("/ui/queues/{}/{}/dead", path.queue, path.group);
        let form = [("expected", "12"), ("up_to", "12"), ("typed", "12"), ("rate", "4")];
        let job =
            first.post(&format!("{dead}/discard"), &form).await.headers()["location"].to_str().unwrap().to_owned();
        while !page(&second, "/ui/jobs").await.contains("running at") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if has_begun {
            hurry.send(()).unwrap();
            while left().await == 12 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        } else {
            drop(hurry);
        }
        die_now.send(()).unwrap();
        while !page(&second, &job).await.contains(shown) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let remain = left().await;
        assert!(if has_begun { 0 < remain && remain < 12 } else { remain == 12 }, "{remain} are left");
        assert!(page(&second, &dead).await.contains("The last discard of this group was not done"));
        let sql = format!("SELECT count(*) FROM {schema}.job");
        assert_eq!(pg.psql("postgres", &sql).unwrap(), ["0"]);
        // Who wants the rest to go begins a new one.
        let remain = remain.to_string();
        let form = [("expected", &*remain), ("up_to", "12"), ("typed", &*remain)];
        let job =
            second.post(&format!("{dead}/discard"), &form).await.headers()["location"].to_str().unwrap().to_owned();
        assert!(page(&second, &job).await.contains("begins in"));
        second.post(&format!("{job}/cancel"), &[]).await;
    }
}

/// A server that dies as a process does, with everything that it began. Returns its address, what lets a minute pass for it, and what
/// ends it.
#[cfg(feature = "postgres")]
fn doomed(config: ServerConfig) -> (oneshot::Receiver<String>, oneshot::Sender<()>, oneshot::Sender<()>) {
    let ((tell, told), (hurry, hurried), (die, died)) = (oneshot::channel(), oneshot::channel(), oneshot::channel());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::bind(config).await.unwrap();
            tell.send(server.admin_url().unwrap()).unwrap();
            tokio::spawn(server.run(std::future::pending()));
            if hurried.await.is_ok() {
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(61)).await;
                tokio::time::resume();
            }
            let _: Result<(), _> = died.await;
        });
    });
    (told, hurry, die)
}

#[tokio::test]
async fn a_link_logs_in_once() {
    let server = Server::bind(guarded()).await.unwrap();
    let link = server.dashboard_login_link().unwrap();
    let url = server.admin_url().unwrap();
    tokio::spawn(server.run(std::future::pending()));
    let (client, _stop) =
        (Client::builder().no_proxy().redirect(Policy::none()).build().unwrap(), oneshot::channel().0);
    let running = Running { server: url.clone(), client, _stop };
    let code = link.strip_prefix(&format!("{url}/ui/login#")).unwrap();
    assert_eq!(running.post("/ui/login", &[("code", "wrong"), ("token", "")]).await.status(), 401);
    let entered = running.post("/ui/login", &[("code", code), ("token", "")]).await;
    assert_eq!(entered.status(), 303);
    let cookie = entered.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = running.browse(Method::GET, "/ui/queues").header("Cookie", cookie).send().await.unwrap();
    assert!(page.text().await.unwrap().contains("new-name"), "it may act");
    let again = running.post("/ui/login", &[("code", code), ("token", "")]).await;
    assert_eq!(again.status(), 401);
    assert!(again.text().await.unwrap().contains("This link was used"));
    assert!(Server::bind(open(true)).await.unwrap().dashboard_login_link().is_none(), "nobody has to log in there");
}

#[tokio::test]
async fn the_page_of_access_shows_rights_and_no_secrets() {
    let rights = Rights::none().consume(vec!["orders-*".to_owned()]);
    let mut project =
        Project::new("shop").access_key("AK-ALL", "the secret key").user("ann", "the password", "shop-domain");
    project.access_keys.push(AccessKey::new("AK-WORKER", "another secret").rights(rights));
    let server = Server::bind(guarded().projects(vec![project])).await.unwrap();
    let url = server.admin_url().unwrap();
    tokio::spawn(server.run(std::future::pending()));
    let client = Client::builder().no_proxy().build().unwrap();
    let page = client.get(format!("{url}/ui/access")).bearer_auth(READ_TOKEN).send().await.unwrap();
    let page = page.text().await.unwrap();
    for expected in [
        "AK-ALL",
        "AK-WORKER",
        "ann @ shop-domain",
        "<code>orders-*</code>",
        "every queue",
        "reads everything but bodies",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    for secret in ["the secret key", "another secret", "the password", TOKEN, READ_TOKEN] {
        assert!(!page.contains(secret), "{secret}");
    }
}

/// Wrong passwords are counted by user and network. Lifting the delay is an action with a row in the activities.
#[tokio::test]
async fn last_uses_refusals_and_slowed_users_are_shown_and_lifted() {
    let project = Project::new("shop").access_key("AK-ALL", "the secret key").user("ann", "the password", "a domain");
    let server = Server::bind(guarded().projects(vec![project])).await.unwrap();
    let (api, url) = (server.url().unwrap(), server.admin_url().unwrap());
    tokio::spawn(server.run(std::future::pending()));
    let (client, _stop) =
        (Client::builder().no_proxy().redirect(Policy::none()).build().unwrap(), oneshot::channel().0);
    let log_in = async |password: &str| {
        let body = serde_json::json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user":
                {"name": "ann", "password": password, "domain": {"name": "a domain"}}}},
            "scope": {"project": {"name": "shop"}},
        }});
        client.post(format!("{api}/v3/auth/tokens")).body(body.to_string()).send().await.unwrap()
    };
    // Three wrong ones are answered at once.
    for _ in 0..3 {
        assert_eq!(log_in("wrong").await.status(), 401);
    }
    assert_eq!(client.get(format!("{api}/v2/shop/queues")).send().await.unwrap().status(), 401);
    let server = Running { server: url, client: client.clone(), _stop };
    let cookie = server.log_in(TOKEN).await;
    let page = async || {
        let request = server.browse(Method::GET, "/ui/access").header("Cookie", &cookie);
        request.send().await.unwrap().text().await.unwrap()
    };
    let shown = page().await;
    assert_eq!(shown.matches("3 wrong passwords: the answer to the next one takes 250 ms").count(), 2, "{shown}");
    for expected in ["refused for their credentials: 4", "IAM.0001", "DMS.10240103", "neither a token nor a signature"]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert_eq!(shown.matches("not used yet").count(), 2, "{shown}");
    let unlock = async |form: &[(&str, &str)]| {
        let request = server.browse(Method::POST, "/ui/access/unlock").header("Cookie", &cookie).body(encoded(form));
        request.send().await.unwrap().status().as_u16()
    };
    let ann = [("kind", "user"), ("name", "ann"), ("domain", "a domain")];
    assert_eq!((unlock(&ann).await, unlock(&ann).await), (303, 422));
    assert_eq!(unlock(&[("kind", "peer"), ("peer", "127.0.0.1")]).await, 303);
    assert_eq!(unlock(&[("kind", "key"), ("name", "AK-ALL"), ("peer", "127.0.0.1")]).await, 422, "it was not locked");
    let token = log_in("the password").await.headers()["x-subject-token"].clone();
    let queues = client.get(format!("{api}/v2/shop/queues")).header("X-Auth-Token", token).send().await.unwrap();
    assert_eq!(queues.status(), 200);
    let shown = page().await;
    assert!(shown.contains("Nobody is slowed down now") && shown.matches("not used yet").count() == 1, "{shown}");
    let activity = server.browse(Method::GET, "/ui/activity").header("Cookie", &cookie).send().await.unwrap();
    let activity = activity.text().await.unwrap();
    assert!(activity.contains("unlock") && activity.contains("user ann @ a domain"), "{activity}");
}

/// Nobody can undo a discard while the server is down, so the discard does not go on. The job, the page of the group and the activities
/// say so.
#[tokio::test]
async fn a_discard_that_waits_is_not_done_after_a_restart_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let config = || open(true).data_dir(directory.path().to_owned());
    let start = async || {
        let server = Server::bind(config()).await.unwrap();
        let (broker, url) = (Arc::clone(server.broker()), server.admin_url().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async { drop(stopped.await) }));
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        (Running { server: url, client, _stop: stop }, broker, running)
    };
    let (server, broker, running) = start().await;
    let path = dead_letters(&*broker, 3).await;
    let dead = format!("/ui/queues/{}/{}/dead", path.queue, path.group);
    let form = [("expected", "3"), ("up_to", "3"), ("typed", "3")];
    let job = server.post(&format!("{dead}/discard"), &form).await.headers()["location"].to_str().unwrap().to_owned();
    assert!(server.get(&job).await.text().await.unwrap().contains("begins in"));
    drop((server, broker));
    running.await.unwrap().unwrap();

    let (server, broker, running) = start().await;
    let read = async |page: &str| server.get(page).await.text().await.unwrap();
    while !read("/ui/jobs").await.contains("not done") {
        tokio::task::yield_now().await;
    }
    let shown = read(&job).await;
    assert!(shown.contains("Nothing was discarded") && !shown.contains("begins in"), "{shown}");
    assert!(read(&dead).await.contains("The last discard of this group was not done"));
    assert!(read("/ui/activity").await.contains("not done, because the server ended: nothing was discarded"));
    assert_eq!(broker.peek(&path, Stream::DeadLetters, 1, 10).await.unwrap().len(), 3);
    // A new job for the group is what the operator wanted to be reminded of.
    server.post(&format!("{dead}/discard"), &form).await;
    assert!(!read(&dead).await.contains("was not done"));
    drop((server, broker));
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn schedules_that_wait_for_their_queue_are_problems_with_a_remedy() {
    use dms_server::broker::{NewSchedule, ScheduledMessage};

    let message = ScheduledMessage::parse("1").unwrap();
    let project = Project::new("shop").schedule("reports", NewSchedule::new("nightly", "@daily", message));
    let server = Server::bind(open(true).projects(vec![project])).await.unwrap();
    let url = server.admin_url().unwrap();
    tokio::spawn(server.run(std::future::pending()));
    let client = Client::builder().no_proxy().build().unwrap();
    let read = async |language: &str| {
        client.get(format!("{url}/ui/?lang={language}")).send().await.unwrap().text().await.unwrap()
    };
    let shown = read("en").await;
    assert!(
        shown.contains("The schedule reports / nightly is not in force") && shown.contains("server.queues"),
        "{shown}"
    );
    assert!(read("zh").await.contains("定时任务 reports / nightly 未生效"));
}

#[tokio::test]
async fn tags_are_set_and_deleted() {
    let server = Running::start(open(true)).await;
    let set =
        async |key: &str, value: &str| server.post("/ui/queues/orders/tags", &[("key", key), ("value", value)]).await;
    assert_eq!(set("team", "payments").await.status(), 303);
    assert_eq!(set("a=b", "").await.status(), 422);
    let page = server.get("/ui/queues/orders").await.text().await.unwrap();
    assert!(page.contains("<code>team</code> = <code>payments</code>"), "{page}");
    server.post("/ui/queues/orders/tags/delete", &[("key", "team")]).await;
    assert!(!server.get("/ui/queues/orders").await.text().await.unwrap().contains("payments"));
    let activity = server.get("/ui/activity").await.text().await.unwrap();
    assert!(
        activity.contains("set-tag") && activity.contains("delete-tag") && activity.contains("orders: team"),
        "{activity}"
    );
}

/// A schedule is added, paused, resumed and removed, each with a row in the activities. One of the configuration cannot be removed.
#[tokio::test]
async fn schedules_are_added_paused_and_removed_except_those_of_the_configuration() {
    use dms_server::broker::{NewSchedule, ScheduleSource, ScheduledMessage};

    let (server, broker, path) = with_dead_letters(open(true), 0).await;
    let read = async |page: &str| server.get(page).await.text().await.unwrap();
    let add = async |cron: &str, message: &str| {
        let form = [("name", "nightly"), ("queue", path.queue.as_str()), ("cron", cron), ("timezone", "Asia/Shanghai")];
        server.post("/ui/schedules", &[&form[..], &[("message", message), ("missed", "all")]].concat()).await
    };
    let refused = add("0 25 * * *", "{\"total\": 12345678901234567890}").await;
    assert_eq!(refused.status(), 422);
    let refused = refused.text().await.unwrap();
    assert!(refused.contains("the hour is") && refused.contains("value=\"0 25 * * *\""), "{refused}");
    let page = format!("/ui/schedules/{}/nightly", path.queue);
    let added = add("0 2 * * *", "{\"total\": 12345678901234567890}").await;
    assert_eq!(added.headers()["location"], format!("{page}?notice=created"));
    let shown = read(&page).await;
    for expected in ["12345678901234567890", "Asia/Shanghai", "0 2 * * *", "added by command", "for the last 100"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert_eq!(shown.matches("T18:00:00Z").count(), 3, "02:00 in Shanghai, three times: {shown}");
    assert!(read(&format!("/ui/queues/{}", path.queue)).await.contains(&page));
    for (action, is_paused) in [("pause", true), ("resume", false)] {
        server.post(&format!("{page}/{action}"), &[]).await;
        assert_eq!(broker.schedules().await.unwrap()[0].is_paused, is_paused);
    }
    assert_eq!(server.post(&format!("{page}/remove"), &[("confirm", "night")]).await.status(), 422);
    assert_eq!(server.post(&format!("{page}/remove"), &[("confirm", "nightly")]).await.status(), 303);
    assert_eq!(broker.schedules().await.unwrap(), []);
    assert_eq!(server.get(&page).await.status(), 404);

    let configured = NewSchedule::new("hourly", "@hourly", ScheduledMessage::parse("1").unwrap());
    broker.set_schedule(&path.project, &path.queue, configured, ScheduleSource::Configuration).await.unwrap();
    let page = format!("/ui/schedules/{}/hourly", path.queue);
    let shown = read(&page).await;
    assert!(shown.contains("server.schedules") && !shown.contains("hourly/remove"), "{shown}");
    let refused = server.post(&format!("{page}/remove"), &[("confirm", "hourly")]).await;
    assert_eq!(refused.status(), 422);
    assert!(refused.text().await.unwrap().contains("server.schedules in the configuration"));
    assert_eq!(broker.schedules().await.unwrap().len(), 1);
    let activity = read("/ui/activity").await;
    for action in
        ["add-schedule", "pause-schedule", "resume-schedule", "remove-schedule", "orders/nightly", "orders/hourly"]
    {
        assert!(activity.contains(action), "{action}: {activity}");
    }
}

/// Makes dead letters in the first queue of a broker, whose messages may fail once, and gives the path of their group.
async fn dead_letters(broker: &dyn Broker, count: usize) -> GroupPath {
    let queue = broker.overview().remove(0);
    let path = GroupPath { project: queue.project, queue: queue.queue.id, group: queue.groups[0].group.id.clone() };
    die(broker, &path, count).await;
    path
}

/// Makes dead letters in a group, whose messages may fail once.
async fn die(broker: &dyn Broker, path: &GroupPath, count: usize) {
    let json = r#"{"body":{"order":1},"attributes":{}}"#;
    let message = NewMessage {
        json: json.into(),
        body_bytes: 11,
        tags: vec![],
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    };
    broker.append(&path.project, &path.queue, vec![message; count]).await.unwrap();
    for _ in 0..count {
        let (wait, ack_wait) = (Duration::from_secs(1), Duration::from_secs(30));
        let request =
            LeaseRequest { max_messages: 1, max_bytes: 524_288, wait, ack_wait, filter: TagFilter::default() };
        let leased = broker.lease(path, Stream::Messages, request).await.unwrap().remove(0);
        let cause = FailureCause {
            reason: Some("failed".into()),
            error: Some("no such account".into()),
            ..FailureCause::default()
        };
        let ack = Ack { receipt: leased.receipt, status: AckStatus::Fail(Some(Arc::new(cause))) };
        broker.ack(path, Stream::Messages, vec![ack]).await.unwrap();
    }
}
