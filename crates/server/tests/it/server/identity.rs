//! The identity service: the requests of keystoneauth, openstacksdk and the vendor's SDK (API reference 3.1, 3.2).

use std::time::Duration;

use dms_server::{Project, ServerConfig};
use futures_util::future::join_all;
use http::Request;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Api, ApiResponse, PROJECT, guarded};
use crate::log::Log;

fn login(user: &str, password: &str, domain: &str, scope: &Value) -> String {
    let user = json!({ "name": user, "password": password, "domain": { "name": domain } });
    json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": user } }, "scope": scope } })
        .to_string()
}

async fn post_login(api: &Api, body: String) -> ApiResponse {
    let request = Request::builder()
        .method("POST")
        .uri("/v3/auth/tokens")
        .header("Host", "127.0.0.1:9301")
        .header("Content-Type", "application/json")
        .body(body.into())
        .unwrap();
    api.raw(request).await
}

async fn with_token(api: &Api, path: &str, token: &str) -> ApiResponse {
    api.raw(Request::builder().uri(path).header("X-Auth-Token", token).body("".into()).unwrap()).await
}

/// The request of API reference 3.2, scoped by the project's name; the answer as keystoneauth reads it.
#[tokio::test(start_paused = true)]
async fn a_token_by_password() {
    let mut config = guarded();
    config.projects[0].name = "cn-north-1".to_owned();
    config.region = "cn-north-1".to_owned();
    let api = Api::with(config).await;
    let answer = post_login(&api, login("u", "pass", "d", &json!({ "project": { "name": "cn-north-1" } }))).await;
    assert_eq!(answer.status, 201);
    let token = answer.headers["x-subject-token"].to_str().unwrap().to_owned();
    assert_eq!(token.len(), 64);
    let document = answer.expect(201);
    let shown = &document["token"];
    assert_eq!(shown["methods"], json!(["password"]));
    assert_eq!(shown["issued_at"], "2026-11-22T20:33:00.000000Z");
    assert_eq!(shown["expires_at"], "2026-11-23T20:33:00.000000Z");
    assert_eq!((&shown["user"]["name"], &shown["user"]["domain"]["name"]), (&json!("u"), &json!("d")));
    assert_eq!((&shown["project"]["id"], &shown["project"]["name"]), (&json!(PROJECT), &json!("cn-north-1")));
    let entry = &shown["catalog"][0];
    assert_eq!((&entry["type"], &entry["endpoints"][0]["interface"]), (&json!("dms"), &json!("public")));
    assert_eq!(entry["endpoints"][0]["url"], "http://127.0.0.1:9301/v1.0");
    assert_eq!(entry["endpoints"][0]["region"], "cn-north-1");

    for version in ["v2", "v1.0"] {
        with_token(&api, &format!("/{version}/{PROJECT}/queues"), &token).await.expect(200);
    }
    with_token(&api, "/v2/other/queues", &token).await.refused(401, "DMS.10240104");
}

/// A token is good for 24 hours, then DMS.10240102; a new one does not end the old one.
#[tokio::test(start_paused = true)]
async fn tokens_expire() {
    let api = Api::with(guarded()).await;
    let body = login("u", "pass", "d", &json!({ "project": { "id": PROJECT } }));
    let token = async || post_login(&api, body.clone()).await.headers["x-subject-token"].to_str().unwrap().to_owned();
    let (old, path) = (token().await, format!("/v2/{PROJECT}/queues"));
    tokio::time::advance(Duration::from_secs(86_399)).await;
    let new = token().await;
    assert_ne!(old, new);
    with_token(&api, &path, &old).await.expect(200);
    tokio::time::advance(Duration::from_secs(1)).await;
    with_token(&api, &path, &old).await.refused(401, "DMS.10240102");
    with_token(&api, &path, &new).await.expect(200);
}

/// Every wrong part gives the same 401 in Keystone's shape.
#[tokio::test(start_paused = true)]
async fn wrong_logins_are_refused() {
    let mut config = guarded();
    config.projects.push(Project::new("p2").user("u2", "pass2", "d"));
    let api = Api::with(config).await;
    let scope = json!({ "project": { "id": PROJECT } });
    for body in [
        login("u", "wrong", "d", &scope),
        login("x", "pass", "d", &scope),
        login("u", "pass", "x", &scope),
        login("u", "pass", "d", &json!({ "project": { "id": "p2" } })),
        login("u", "pass", "d", &json!({ "project": { "name": "nowhere" } })),
        login("u2", "pass2", "d", &scope),
    ] {
        let json = post_login(&api, body).await.expect(401);
        assert_eq!((&json["error"]["code"], &json["error"]["title"]), (&json!(401), &json!("Unauthorized")));
        assert!(json["error"]["message"].as_str().unwrap().contains("wrong"), "{json}");
    }
    for body in ["", "{}", r#"{"auth":{"identity":{"methods":["token"],"token":{"id":"x"}}}}"#] {
        post_login(&api, body.to_owned()).await.expect(400);
    }
    // Without a scope there is the one project the user has.
    let unscoped = login("u2", "pass2", "d", &json!({}));
    assert_eq!(post_login(&api, unscoped).await.expect(201)["token"]["project"]["id"], "p2");
}

/// Passwords cannot be tried quickly, in turn or side by side; a right one passes at once all the same, in any state.
#[tokio::test(start_paused = true)]
async fn wrong_passwords_are_answered_more_and_more_slowly_and_right_ones_at_once() {
    let (log, _guard) = Log::capture();
    let api = Api::with(guarded()).await;
    let scope = json!({ "project": { "id": PROJECT } });
    let try_out = async |user: &str, password: &str, status: u16| {
        let began = Instant::now();
        post_login(&api, login(user, password, "d", &scope)).await.expect(status);
        began.elapsed().as_millis()
    };
    let mut took = Vec::new();
    for _ in 0..10 {
        took.push(try_out("u", "wrong", 401).await);
        assert_eq!(try_out("u", "pass", 201).await, 0, "a right password waits for nothing");
    }
    assert_eq!(took, [0, 0, 0, 250, 500, 1_000, 2_000, 4_000, 8_000, 10_000]);
    assert_eq!(try_out("nobody", "wrong", 401).await, 10_000, "an unknown user is answered like a known one");

    let began = Instant::now();
    let (_, right) = tokio::join!(
        join_all((0..500).map(|number| try_out("u", ["wrong", ""][number % 2], 401))),
        try_out("u", "pass", 201)
    );
    assert_eq!((right, began.elapsed().as_secs()), (0, 10), "500 at once are answered no sooner");

    let text = log.text();
    let warnings: Vec<_> = text.lines().filter(|line| line.contains("WARN")).collect();
    assert!(warnings[0].contains("a login was refused") && warnings[0].contains("user=\"u\""), "{warnings:?}");
    assert_eq!(warnings.len(), 10, "at most ten in a minute, {warnings:?}");
    assert!(!text.contains("wrong\"") && !text.contains("\"pass"), "a password is in the log");
}

/// API reference 3.2: calls need a project's token; one for a domain opens no project.
#[tokio::test(start_paused = true)]
async fn a_token_for_a_domain_opens_no_project() {
    let api = Api::with(guarded()).await;
    let answer = post_login(&api, login("u", "pass", "d", &json!({ "domain": { "name": "d" } }))).await;
    let token = answer.headers["x-subject-token"].to_str().unwrap().to_owned();
    assert_eq!(answer.expect(201)["token"].get("project"), None);
    with_token(&api, &format!("/v2/{PROJECT}/queues"), &token).await.refused(401, "DMS.10240104");
    post_login(&api, login("u", "wrong", "d", &json!({ "domain": { "name": "d" } }))).await.expect(401);
}

/// `GET /v3`: what keystoneauth discovers by.
#[tokio::test(start_paused = true)]
async fn the_version_document() {
    let api = Api::with(guarded()).await;
    for path in ["/v3", "/v3/"] {
        let request = Request::builder().uri(path).header("Host", "127.0.0.1:9301").body("".into()).unwrap();
        let version = &api.raw(request).await.expect(200)["version"];
        assert_eq!((&version["id"], &version["status"]), (&json!("v3.14"), &json!("stable")));
        assert_eq!(version["links"][0]["href"], "http://127.0.0.1:9301/v3/");
    }
}

/// `GET /v3/projects?name=`: how the vendor's SDK finds its project id.
#[tokio::test(start_paused = true)]
async fn projects_of_the_caller() {
    let mut config = guarded();
    config.projects.push(Project::new("p2").user("u", "pass", "d"));
    let api = Api::with(config).await;
    let login = login("u", "pass", "d", &json!({ "project": { "id": "p2" } }));
    let token = post_login(&api, login).await.headers["x-subject-token"].to_str().unwrap().to_owned();
    let listed = with_token(&api, "/v3/projects", &token).await.expect(200);
    assert_eq!(listed["projects"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["projects"][0]["id"], "p2");
    let listed = with_token(&api, "/v3/projects?name=nothing", &token).await.expect(200);
    assert_eq!(listed["projects"], json!([]));
    with_token(&api, "/v3/projects", "stolen").await.refused(401, "DMS.10240101");
}

/// A server without keys and users gives anybody a token for any project, as it lets anybody in.
#[tokio::test(start_paused = true)]
async fn an_open_server_gives_tokens_to_anybody() {
    let api = Api::with(ServerConfig::default()).await;
    let answer = post_login(&api, login("any", "thing", "d", &json!({ "project": { "id": "mine" } }))).await;
    assert_eq!(answer.expect(201)["token"]["project"]["id"], "mine");
}
