//! The rights of keys and users, and how both change while the server runs.

use std::time::Duration;

use dms_server::{Project, Rights};
use http::Request;
use serde_json::{Value, json};

use super::{Api, ApiResponse, PROJECT, guarded};
use crate::log::Log;

/// A user with this password; rights are patterns as in `send=orders*,dead consume=*`.
fn project(users: &[(&str, &str, &str)]) -> Project {
    let mut project = Project::new(PROJECT);
    for (name, password, rights) in users {
        project = project.user(*name, *password, "d");
        project.users.last_mut().unwrap().rights = read(rights);
    }
    project
}

fn read(rights: &str) -> Rights {
    let patterns = |right: &str| {
        let found = rights.split(' ').find_map(|part| part.strip_prefix(right)?.strip_prefix('='));
        found.map(|patterns| patterns.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    match rights {
        "all" => Rights::default(),
        _ => Rights::none().send(patterns("send")).consume(patterns("consume")).manage(patterns("manage")),
    }
}

async fn serve(users: &[(&str, &str, &str)]) -> Api {
    Api::with(guarded().projects(vec![project(users)])).await
}

async fn log_in(api: &Api, user: &str, password: &str) -> ApiResponse {
    let identity = json!({ "methods": ["password"], "password": { "user": { "name": user, "password": password, "domain": { "name": "d" } } } });
    let body = json!({ "auth": { "identity": identity, "scope": { "project": { "id": PROJECT } } } }).to_string();
    api.raw(Request::post("/v3/auth/tokens").body(body.into()).unwrap()).await
}

async fn token(api: &Api, user: &str) -> String {
    let answer = log_in(api, user, "pass").await;
    answer.headers["x-subject-token"].to_str().unwrap().to_owned()
}

async fn call(api: &Api, token: &str, call: &str, body: &str) -> ApiResponse {
    let (method, path) = call.split_once(' ').unwrap();
    let uri = format!("/v2/{PROJECT}{path}");
    let request = Request::builder().method(method).uri(uri).header("X-Auth-Token", token);
    api.raw(request.body(body.to_owned().into()).unwrap()).await
}

async fn create(api: &Api, token: &str, name: &str) -> (String, String) {
    let queue = call(api, token, "POST /queues", &format!(r#"{{"name":"{name}"}}"#)).await.expect(201);
    let queue = format!("/queues/{}", queue["id"].as_str().unwrap());
    let groups = call(api, token, &format!("POST {queue}/groups"), r#"{"groups":[{"name":"g"}]}"#).await.expect(201);
    let group = format!("{queue}/groups/{}", groups["groups"][0]["id"].as_str().unwrap());
    (queue, group)
}

fn names(list: &Value) -> Vec<&str> {
    list["queues"].as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap()).collect()
}

const SEND: &str = r#"{"messages":[{"body":1}]}"#;

/// Each operation needs its right on its queue: the refusal names who lacks which right on what queue.
#[tokio::test(start_paused = true)]
async fn each_operation_needs_its_right() {
    let users = [
        ("admin", "pass", "all"),
        ("sender", "pass", "send=orders*"),
        ("reader", "pass", "consume=orders"),
        ("manager", "pass", "manage=orders*"),
    ];
    let api = serve(&users).await;
    let (queue, group) = create(&api, &token(&api, "admin").await, "orders").await;
    let tags = queue.replace("/queues/", "/queue/");
    let calls = [
        ("sender", "send", format!("POST {queue}/messages"), SEND, 201),
        ("reader", "consume", format!("GET {group}/messages?ack_wait=15&time_wait=1"), "", 200),
        ("reader", "consume", format!("POST {group}/ack"), r#"{"message":[{"handler":"x","status":"success"}]}"#, 400),
        ("reader", "consume", format!("GET {group}/deadletters?time_wait=1"), "", 400),
        ("reader", "consume", format!("GET {group}/peek"), "", 200),
        (
            "reader",
            "consume",
            format!("POST {group}/deadletters/ack"),
            r#"{"message":[{"handler":"x","status":"fail"}]}"#,
            400,
        ),
        ("manager", "manage", format!("POST {queue}/groups"), r#"{"groups":[{"name":"h"}]}"#, 201),
        (
            "manager",
            "manage",
            format!("POST {tags}/tags/action"),
            r#"{"action":"create","tags":[{"key":"k","value":"v"}]}"#,
            204,
        ),
        ("manager", "manage", format!("POST {tags}/tags"), r#"{"tag":{"key":"l","value":"v"}}"#, 204),
        ("manager", "manage", format!("DELETE {tags}/tags/l"), "", 204),
        ("manager", "manage", format!("DELETE {group}"), "", 204),
        ("manager", "manage", format!("DELETE {queue}"), "", 204),
    ];
    for (allowed, right, path, body, status) in &calls {
        for (user, ..) in &users[1..] {
            let answer = call(&api, &token(&api, user).await, path, body).await;
            if user == allowed {
                assert_eq!(answer.status, *status, "{path}: {answer:?}");
            } else if answer.status != 404 {
                // After the last call there is no such group or queue any more, which the others hear too.
                let message = answer.refused(403, "DMS.10240311");
                let lacks = format!(
                    "The user \"{user}\" of the domain \"d\" does not have the right \"{right}\" on the queue \"orders\"."
                );
                assert!(message.ends_with(&lacks), "{path}: {message}");
            }
        }
    }
    let manager = token(&api, "manager").await;
    let message = call(&api, &manager, "POST /queues", r#"{"name":"other"}"#).await.refused(403, "DMS.10240311");
    assert!(message.ends_with("does not have the right \"manage\" on the queue \"other\"."), "{message}");
    create(&api, &manager, "orders-eu").await;
    let message = call(&api, &manager, "POST /polls/end", r#"{"polls":["x"]}"#).await.refused(403, "DMS.10240311");
    assert!(message.ends_with("does not have the right \"consume\" on any queue."), "{message}");
}

/// Lists, tags and single queues show what there is a right on.
#[tokio::test(start_paused = true)]
async fn queues_without_a_right_are_not_shown() {
    let api =
        serve(&[("admin", "pass", "all"), ("reader", "pass", "consume=orders"), ("none", "pass", "send=x")]).await;
    let (admin, reader) = (token(&api, "admin").await, token(&api, "reader").await);
    let mut paths = Vec::new();
    for name in ["orders", "payments"] {
        let (queue, group) = create(&api, &admin, name).await;
        let tags = format!("POST {}/tags", queue.replace("/queues/", "/queue/"));
        let tag = format!(r#"{{"tag":{{"key":"of","value":"{name}"}}}}"#);
        call(&api, &admin, &tags, &tag).await.expect(204);
        paths.push((queue, group));
    }
    assert_eq!(names(&call(&api, &admin, "GET /queues", "").await.expect(200)), ["payments", "orders"]);
    let seen = call(&api, &reader, "GET /queues", "").await.expect(200);
    assert_eq!(names(&call(&api, &reader, "GET /overview", "").await.expect(200)), names(&seen));
    assert_eq!((names(&seen), &seen["total"]), (vec!["orders"], &json!(1)));
    let tags = call(&api, &reader, "GET /queue/tags", "").await.expect(200);
    assert_eq!(tags, json!({ "tags": [{ "key": "of", "values": ["orders"] }] }));
    let found = call(&api, &reader, "POST /queue/resource_instances/action", r#"{"action":"count"}"#).await.expect(200);
    assert_eq!(found["total_count"], 1);
    let (orders, payments) = (&paths[0].0, &paths[1].0);
    for part in ["", "/groups"] {
        call(&api, &reader, &format!("GET {orders}{part}"), "").await.expect(200);
        let message = call(&api, &reader, &format!("GET {payments}{part}"), "").await.refused(403, "DMS.10240311");
        assert!(message.ends_with("does not have any right on the queue \"payments\"."), "{message}");
    }
    let none = token(&api, "none").await;
    assert_eq!(names(&call(&api, &none, "GET /queues", "").await.expect(200)), [""; 0]);
    assert_eq!(names(&call(&api, &none, "GET /overview", "").await.expect(200)), [""; 0]);
}

/// Users, passwords and rights change without a restart, and the tokens given out before with them.
#[tokio::test(start_paused = true)]
async fn callers_change_while_the_server_runs() {
    let (log, _guard) = Log::capture();
    let api = serve(&[("a", "pass", "all"), ("b", "pass", "all"), ("c", "pass", "all"), ("d", "pass", "all")]).await;
    let (queue, _) = create(&api, &token(&api, "a").await, "orders").await;
    let send = format!("POST {queue}/messages");
    let (a, b, c, d) = (token(&api, "a").await, token(&api, "b").await, token(&api, "c").await, token(&api, "d").await);
    let handle = api.server.handle();
    let new = [project(&[("a", "pass", "all"), ("b", "pass", "consume=*"), ("c", "new", "all"), ("e", "pass", "all")])];
    assert_eq!(handle.replace_callers(&new).unwrap(), 4);

    call(&api, &a, &send, SEND).await.expect(201);
    call(&api, &b, &send, SEND).await.refused(403, "DMS.10240311");
    call(&api, &c, &send, SEND).await.refused(401, "DMS.10240101");
    call(&api, &d, &send, SEND).await.refused(401, "DMS.10240101");
    log_in(&api, "c", "pass").await.expect(401);
    log_in(&api, "c", "new").await.expect(201);
    log_in(&api, "d", "pass").await.expect(401);
    log_in(&api, "e", "pass").await.expect(201);

    let text = log.text();
    for (action, user) in [("change_user", "b"), ("change_user", "c"), ("remove_user", "d"), ("add_user", "e")] {
        let line = format!("dms_worker::access: access action=\"{action}\" user=\"{user}\" domain=\"d\"");
        assert!(text.contains(&line), "{line}: {text}");
    }
}

/// Changes of queues and groups are logged with their caller, under a target that can be filtered, and without bodies.
#[tokio::test(start_paused = true)]
async fn changes_of_queues_and_groups_are_logged() {
    let (log, _guard) = Log::capture();
    let api = serve(&[("admin", "pass", "all"), ("reader", "pass", "consume=*")]).await;
    let (admin, reader) = (token(&api, "admin").await, token(&api, "reader").await);
    let (queue, group) = create(&api, &admin, "orders").await;
    let tags = format!("POST {}/tags", queue.replace("/queues/", "/queue/"));
    call(&api, &admin, &tags, r#"{"tag":{"key":"secret-key","value":"v"}}"#).await.expect(204);
    let with_id = SEND.replacen('{', r#"{"return_id":true,"#, 1);
    let sent = call(&api, &admin, &format!("POST {queue}/messages"), &with_id).await.expect(201);
    let id = sent["messages"][0]["id"].as_str().unwrap();
    call(&api, &reader, &format!("POST /messages/{id}/discard"), "").await.expect(200);
    call(&api, &reader, &format!("POST /messages/{id}/discard"), "").await.refused(404, "DMS.10240406");
    call(&api, &reader, &format!("DELETE {queue}"), "").await.refused(403, "DMS.10240311");
    call(&api, &admin, &format!("DELETE {group}"), "").await.expect(204);
    call(&api, &admin, &format!("DELETE {queue}"), "").await.expect(204);
    let text = log.text();
    let lines: Vec<_> = text.lines().filter_map(|line| line.split_once("dms_worker::access: access ")).collect();
    let who = |user: &str| format!("user=\"{user}\" domain=\"d\" project=\"{PROJECT}\"");
    let line = |action: &str, user: &str, rest: &str| format!("action=\"{action}\" {} {rest}", who(user));
    let expected = [
        line("create_queue", "admin", "queue=\"orders\" outcome=\"done\""),
        line("create_groups", "admin", "queue=\"orders\" group=\"g\" outcome=\"done\""),
        line("change_tags", "admin", "queue=\"orders\" outcome=\"done\""),
        line(
            "discard_message",
            "reader",
            &format!("queue=\"orders\" group=\"g\" message_id=\"{id}\" messages=1 outcome=\"done\""),
        ),
        line("discard_message", "reader", &format!("message_id=\"{id}\" outcome=\"refused\" code=\"DMS.10240406\"")),
        line("delete_queue", "reader", "queue=\"orders\" outcome=\"refused\" code=\"DMS.10240311\""),
        line("delete_group", "admin", "queue=\"orders\" group=\"g\" outcome=\"done\""),
        line("delete_queue", "admin", "queue=\"orders\" outcome=\"done\""),
    ];
    let found: Vec<_> = lines.iter().map(|(_, fields)| fields.trim().to_owned()).collect();
    assert_eq!(found, expected);
}

/// Accounts that contradict each other change nothing, and a server neither becomes open nor stops being open.
#[tokio::test(start_paused = true)]
async fn an_invalid_replacement_of_callers_changes_nothing() {
    let api = serve(&[("a", "pass", "all")]).await;
    let handle = api.server.handle();
    for (projects, text) in [
        (vec![project(&[("a", "", "all")])], "projects[0].users[0].password: is empty"),
        (vec![project(&[])], "needs a restart"),
        // Its users would be let in without being listed anywhere.
        (vec![Project::new("another").user("x", "y", "d")], "is missing: to remove a project"),
        (
            vec![Project::new(PROJECT).access_key("AK", "1").access_key("AK", "2")],
            "listed twice with different secrets",
        ),
    ] {
        let error = handle.replace_callers(&projects).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        log_in(&api, "a", "pass").await.expect(201);
    }
    let open = Api::start().await;
    assert!(
        open.server.handle().replace_callers(&[project(&[("a", "pass", "all")])]).is_ok_and(|changes| changes == 0)
    );
    drop(api);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(handle.replace_callers(&[]).unwrap_err().to_string().contains("has ended"));
}
