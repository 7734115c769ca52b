//! The MQS dialect against the literal documents of the ROMA Connect developer guide (pages 3012 to 3014), and beside the DMS
//! API on the same queues.

use base64::{Engine, engine::general_purpose::STANDARD};
use dms_server::{AccessKey, MqsConfig, Project, Rights, Server, ServerConfig, StartQueue, queue::NewQueue};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Api, ApiResponse, PROJECT, guarded, vector_clock};
use crate::log::Log;

/// The request of page 3012.
const PRODUCE: &str = r#"{"messages":[{"content":"hello roma-1","id":"1"},{"content":"hello roma-2","id":"2"}]}"#;

async fn bound(config: ServerConfig, mqs: MqsConfig) -> (Api, Api) {
    let dms = Api::with(config.clock(vector_clock()).mqs(mqs)).await;
    let mqs = Api {
        service: dms.server.mqs_service().unwrap(),
        prefix: "/v1/topic".into(),
        server: std::sync::Arc::clone(&dms.server),
    };
    (dms, mqs)
}

/// A server with one project, as both of its APIs.
async fn start() -> (Api, Api) {
    bound(ServerConfig::default().projects(vec![Project::new(PROJECT)]), MqsConfig::new()).await
}

fn handlers(consumed: &Value) -> Vec<&str> {
    consumed.as_array().unwrap().iter().map(|message| message["handler"].as_str().unwrap()).collect()
}

fn contents(consumed: &Value) -> Vec<String> {
    let content = |message: &Value| STANDARD.decode(message["message"]["content"].as_str().unwrap()).unwrap();
    consumed.as_array().unwrap().iter().map(|message| String::from_utf8(content(message)).unwrap()).collect()
}

async fn ack(api: &Api, path: &str, lines: &[(&str, &str)]) -> ApiResponse {
    let lines: Vec<_> = lines.iter().map(|(handler, status)| json!({"handler": handler, "status": status})).collect();
    api.post(path, &json!({ "messages": lines }).to_string()).await
}

/// Pages 3012, 3013 and 3014, one after the other.
#[tokio::test(start_paused = true)]
async fn the_documented_bodies_go_through() {
    let (_, mqs) = start().await;
    let produced = mqs.post("/T/messages", PRODUCE).await;
    assert_eq!(produced.text, r#"[{"state":"success","id":"1"},{"state":"success","id":"2"}]"#);
    assert!(!produced.headers.contains_key("x-dms-extensions"));
    produced.expect(200);

    let consumed = mqs.get("/T/group/G/messages?ack_wait=15&time_wait=3&max_msgs=10").await;
    let first = consumed.json()[0].clone();
    let exact = json!({"handler": first["handler"], "message": {"content": "ImhlbGxvIHJvbWEtMSI="}});
    assert_eq!(first, exact, "the content is the JSON text, with its quotes, in Base64; nothing else comes back");
    assert!(consumed.text.starts_with(r#"[{"handler":""#), "{}", consumed.text);
    let consumed = consumed.expect(200);
    assert_eq!(contents(&consumed), [r#""hello roma-1""#, r#""hello roma-2""#]);

    let handlers = handlers(&consumed);
    let acked = ack(&mqs, "/T/group/G/messages", &[(handlers[0], "success"), (handlers[1], "success")]).await;
    assert_eq!(acked.text, r#"{"success":2,"fail":0}"#);
    acked.expect(200);
    assert_eq!(mqs.get("/T/group/G/messages?time_wait=1").await.expect(200), json!([]), "an empty array is nothing");
}

/// Contents of every JSON type come back with the bytes that were sent.
#[tokio::test(start_paused = true)]
async fn any_json_is_a_content() {
    let (_, mqs) = start().await;
    let contents_sent = [r#"{ "a": 1.50e2 }"#, "[1, null]", "null", "true", "-0.0", r#""é\u00e9""#];
    for (place, content) in contents_sent.iter().enumerate() {
        let body = format!(r#"{{"messages":[{{"id":"{place}","content":{content}}}]}}"#);
        mqs.post("/t/messages", &body).await.expect(200);
    }
    let consumed = mqs.get("/t/group/g/messages").await.expect(200);
    assert_eq!(contents(&consumed), contents_sent);
}

/// A failed message and everything behind it in its batch is redelivered, without end.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_counts_up_to_the_first_failure() {
    let (_, mqs) = start().await;
    mqs.post("/t/messages", PRODUCE).await.expect(200);
    for _ in 0..20 {
        let consumed = mqs.get("/t/group/g/messages").await.expect(200);
        let handlers = handlers(&consumed);
        assert_eq!(handlers.len(), 2);
        let acked = ack(&mqs, "/t/group/g/messages", &[(handlers[0], "fail"), (handlers[1], "success")]).await;
        assert_eq!(acked.expect(200), json!({"success": 0, "fail": 2}));
    }
}

/// `ack_wait` is 15 s by default and 1 s at least.
#[tokio::test(start_paused = true)]
async fn a_lease_lasts_as_long_as_ack_wait_says() {
    let (_, mqs) = start().await;
    mqs.post("/t/messages", PRODUCE).await.expect(200);
    let late = mqs.get("/t/group/g/messages?ack_wait=1").await.expect(200);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let text = ack(&mqs, "/t/group/g/messages", &[(handlers(&late)[0], "success")]).await.refused(400, "DMS.10542209");
    assert!(text.contains(" messages[0].handler "), "{text}");
    let by_default = mqs.get("/t/group/g/messages").await.expect(200);
    assert_eq!(handlers(&by_default).len(), 2);
    tokio::time::sleep(std::time::Duration::from_millis(14_800)).await;
    let nothing = mqs.get("/t/group/g/messages?time_wait=1&max_msgs=1").await.expect(200);
    assert_eq!(handlers(&nothing).len(), 1, "15 s have passed during the wait");
}

/// Every group receives every message, also those that were produced before it existed.
#[tokio::test(start_paused = true)]
async fn topics_and_groups_are_made_when_they_are_named() {
    let (log, _guard) = Log::capture();
    let (dms, mqs) = start().await;
    mqs.post("/orders/messages", PRODUCE).await.expect(200);
    for group in ["billing", "mail"] {
        let path = format!("/orders/group/{group}/messages");
        assert_eq!(contents(&mqs.get(&path).await.expect(200)).len(), 2);
    }
    assert_eq!(mqs.get("/empty/group/g/messages?time_wait=1").await.expect(200), json!([]));
    let names = |listed: &Value| -> Vec<String> {
        listed["queues"].as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap().into()).collect()
    };
    let listed = dms.get("/queues").await.expect(200);
    assert_eq!(names(&listed), ["empty", "orders"]);
    let logged = log.text();
    assert!(
        logged.contains("create_queue") && logged.contains("create_groups") && logged.contains("billing"),
        "{logged}"
    );
    // An acknowledgement creates nothing.
    ack(&mqs, "/other/group/g/messages", &[("h", "success")]).await.refused(404, "DMS.10240401");
    ack(&mqs, "/orders/group/other/messages", &[("h", "success")]).await.refused(404, "DMS.10240405");
}

/// A request with a mistake is refused, and leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_wrong_request_creates_no_topic_and_no_group() {
    let (dms, mqs) = start().await;
    for body in [r#"{"messages":[]}"#, "{}", r#"{"messages":[{"id":"1"}]}"#, "no JSON"] {
        let refused = mqs.post("/t/messages", body).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text);
    }
    mqs.get("/t/group/g/messages?max_msgs=0").await.refused(400, "DMS.10240014");
    assert_eq!(dms.get("/queues").await.expect(200)["queues"], json!([]));
    mqs.post("/t/messages", PRODUCE).await.expect(200);
}

/// Without `auto_create` only the queues that exist are topics.
#[tokio::test(start_paused = true)]
async fn topics_have_to_exist_without_auto_create() {
    let project = Project::new(PROJECT).queue(StartQueue::new(NewQueue::new("orders")));
    let config = ServerConfig::default().projects(vec![project]);
    let (_, mqs) = bound(config, MqsConfig::new().auto_create(false)).await;
    mqs.post("/orders/messages", PRODUCE).await.expect(200);
    assert_eq!(contents(&mqs.get("/orders/group/new/messages").await.expect(200)).len(), 2);
    let text = mqs.post("/other/messages", PRODUCE).await.refused(404, "DMS.10240401");
    assert_eq!(text, r#"There is no topic "other": create a queue of this name."#);
    mqs.get("/other/group/g/messages").await.refused(404, "DMS.10240401");
}

/// The ids of a topic are looked up again after its queue or its group was deleted.
#[tokio::test(start_paused = true)]
async fn a_deleted_topic_is_made_again() {
    let (dms, mqs) = start().await;
    mqs.post("/t/messages", PRODUCE).await.expect(200);
    mqs.get("/t/group/g/messages").await.expect(200);
    let listed = dms.get("/queues").await.expect(200);
    let queue = format!("/queues/{}", listed["queues"][0]["id"].as_str().unwrap());
    let groups = dms.get(&format!("{queue}/groups")).await.expect(200);
    let group = groups["groups"][0]["id"].as_str().unwrap();
    dms.call("DELETE", &format!("{queue}/groups/{group}"), "").await.expect(204);
    assert_eq!(contents(&mqs.get("/t/group/g/messages").await.expect(200)).len(), 2, "a new group of that name");
    dms.call("DELETE", &queue, "").await.expect(204);
    mqs.post("/t/messages", PRODUCE).await.expect(200);
    assert_eq!(contents(&mqs.get("/t/group/g/messages").await.expect(200)).len(), 2);
}

/// Clients of both APIs share a queue. Attributes and labels are absent from the answers of MQS.
#[tokio::test(start_paused = true)]
async fn clients_of_both_apis_share_a_queue() {
    let (dms, mqs) = start().await;
    let (queue, group) = dms.queue_and_group("shared").await;
    dms.send(&queue, r#"{"body":{"n":1},"attributes":{"a":"b"},"tags":["t"]}"#).await;
    mqs.post("/shared/messages", r#"{"messages":[{"content":{"n":2},"id":"x"}]}"#).await.expect(200);
    let seen = dms.consume(&group, "max_msgs=10").await;
    assert_eq!((&seen[0]["message"]["body"]["n"], &seen[1]["message"]["body"]["n"]), (&json!(1), &json!(2)));
    assert_eq!(seen[1]["message"]["attributes"], json!({}));
    let consumed = mqs.get("/shared/group/other/messages").await.expect(200);
    assert_eq!(contents(&consumed), [r#"{"n":1}"#, r#"{"n":2}"#]);
    // The group of the DMS client is a group of the topic.
    let handler = seen[0]["handler"].as_str().unwrap();
    let text = ack(&mqs, "/shared/group/other/messages", &[(handler, "success")]).await;
    assert_eq!(text.status, 400, "a handler of another group");
    let second = seen[1]["handler"].as_str().unwrap();
    let acked = ack(&mqs, "/shared/group/g/messages", &[(handler, "success"), (second, "success")]).await;
    assert_eq!(acked.expect(200), json!({"success": 2, "fail": 0}));
}

/// The ranges of pages 3012 to 3014.
#[tokio::test(start_paused = true)]
async fn values_beyond_the_documented_limits_are_refused() {
    let (_, mqs) = start().await;
    for (query, code) in [
        ("ack_wait=0", "DMS.10542206"),
        ("ack_wait=301", "DMS.10542206"),
        ("time_wait=0", "DMS.10240021"),
        ("time_wait=31", "DMS.10240021"),
        ("max_msgs=0", "DMS.10240014"),
        ("max_msgs=11", "DMS.10240014"),
        ("max_bytes=0", "DMS.00400062"),
        ("max_bytes=2097153", "DMS.00400062"),
    ] {
        let text = mqs.get(&format!("/t/group/g/messages?{query}")).await.refused(400, code);
        assert!(!text.contains("15-300") && !text.contains("1-60"), "{text}");
    }
    mqs.get("/t/group/g/messages?ack_wait=300&time_wait=30&max_msgs=1&max_bytes=2097152").await.expect(200);

    let eleven: Vec<_> = (0..11).map(|id| json!({"content": id, "id": id.to_string()})).collect();
    for (body, code) in [
        (json!({ "messages": eleven }).to_string(), "DMS.10540010"),
        (json!({ "messages": [] }).to_string(), "DMS.10540010"),
        (r#"{"messages":[{"content":1}]}"#.to_owned(), "DMS.10540010"),
        (r#"{"messages":[{"id":"1"}]}"#.to_owned(), "DMS.10540010"),
        (r#"{"messages":[{"content":1,"id":1}]}"#.to_owned(), "DMS.10540010"),
        (r#"{"messages":[{"content":1,"id":"1"},{"content":2,"id":"1"}]}"#.to_owned(), "DMS.10540010"),
        (r#"{"messages":[{"content":1,"id":"1"}"#.to_owned(), "DMS.10540012"),
        (String::new(), "DMS.00400004"),
    ] {
        mqs.post("/t/messages", &body).await.refused(400, code);
    }
    for lines in [vec![], vec![("h", "success"); 11]] {
        let text = ack(&mqs, "/t/group/g/messages", &lines).await.refused(400, "DMS.10540010");
        assert!(text.contains("1 to 10 are allowed"), "{text}");
    }
    for status in ["reject", "release", "", "SUCCESS"] {
        ack(&mqs, "/t/group/g/messages", &[("h", status)]).await.refused(400, "DMS.10540003");
    }
    let body = r#"{"message":[{"handler":"h","status":"success"}]}"#;
    mqs.post("/t/group/g/messages", body).await.refused(400, "DMS.10540010");
}

/// 2 MB in one request, which is four times the limit of the DMS API; `max_bytes` bounds an answer.
#[tokio::test(start_paused = true)]
async fn a_request_holds_two_megabytes() {
    let (_, mqs) = start().await;
    let half = "x".repeat((2_097_152 / 2) - 2);
    let entry = |content: &str, id: &str| json!({"content": content, "id": id});
    let body =
        |extra: &str| json!({ "messages": [entry(&half, "1"), entry(&format!("{half}{extra}"), "2")] }).to_string();
    mqs.post("/t/messages", &body("")).await.expect(200);
    mqs.post("/t/messages", &body("x")).await.refused(400, "DMS.10540011");
    let whole = |consumed: &Value| contents(consumed).iter().map(String::len).sum::<usize>();
    assert_eq!(whole(&mqs.get("/t/group/a/messages").await.expect(200)), 1 << 20, "the first one, whatever its size");

    for id in 0..6 {
        let body = json!({ "messages": [entry(&"y".repeat(200_000), &id.to_string())] }).to_string();
        mqs.post("/small/messages", &body).await.expect(200);
    }
    let count = async |group: &str, query: &str| {
        contents(&mqs.get(&format!("/small/group/{group}/messages?{query}")).await.expect(200)).len()
    };
    assert_eq!(count("a", "").await, 2, "524,288 bytes by default");
    assert_eq!(count("b", "max_bytes=1").await, 1);
    assert!(count("c", "max_bytes=2097152").await > 2);
}

/// Names: a group has up to 249 characters, a topic is the name of a queue.
#[tokio::test(start_paused = true)]
async fn names_have_the_documented_characters() {
    let (_, mqs) = start().await;
    let get = async |group: &str| mqs.get(&format!("/t/group/{group}/messages?time_wait=1")).await;
    get(&"g".repeat(249)).await.expect(200);
    get(&"g".repeat(250)).await.refused(400, "DMS.10240012");
    let text = get("").await.refused(400, "DMS.10240012");
    assert!(text.contains("The name of the group is \"\""), "{text}");
    ack(&mqs, "/t/group//messages", &[("h", "success")]).await.refused(400, "DMS.10240012");
    get("a.b").await.refused(400, "DMS.10240007");
    get("%2e").await.refused(400, "DMS.10240007");
    mqs.post("/a.b/messages", PRODUCE).await.refused(400, "DMS.10240007");
    mqs.post(&format!("/{}/messages", "t".repeat(65)), PRODUCE).await.refused(400, "DMS.10240011");
}

/// Each API has its own paths, and 405 names the methods of a path.
#[tokio::test(start_paused = true)]
async fn the_apis_do_not_mix() {
    let (dms, mqs) = start().await;
    dms.on("/v1/topic").get("/t/group/g/messages").await.refused(404, "DMS.10240406");
    let refused = mqs.call("DELETE", "/t/group/g/messages", "").await;
    assert_eq!(refused.headers["allow"], "GET,POST");
    refused.refused(405, "DMS.00405001");
    for path in [format!("/v2/{PROJECT}/queues"), "/v3/auth/tokens".into(), "/v1/topic/t".into()] {
        let request = Request::builder().method(Method::POST).uri(path).body("{}".into()).unwrap();
        mqs.raw(request).await.refused(404, "DMS.10240406");
    }
}

/// The SASL user and password are an access key of the server: without a signature nobody gets in, and rights apply by name.
#[tokio::test(start_paused = true)]
async fn keys_and_their_rights_apply() {
    let (_, mqs) = bound(guarded(), MqsConfig::new()).await;
    mqs.post("/t/messages", PRODUCE).await.refused(401, "DMS.10240103");

    let sender = AccessKey::new("SENDER", "secret").rights(Rights::none().send(vec!["orders-*".to_owned()]));
    let mut config = guarded();
    config.projects[0].access_keys.push(sender);
    config.projects[0].queues.push(StartQueue::new(NewQueue::new("orders-eu")));
    let (_, mqs) = bound(config, MqsConfig::new()).await;
    let signed = async |method: &str, path: &str, body: &str| {
        let request = super::auth::signed_by(["SENDER", "secret"], method, &format!("/v1/topic{path}"), body);
        mqs.raw(request).await
    };
    signed("POST", "/orders-eu/messages", PRODUCE).await.expect(200);
    signed("POST", "/mail/messages", PRODUCE).await.refused(403, "DMS.10240311");
    signed("GET", "/orders-eu/group/g/messages", "").await.refused(403, "DMS.10240311");
    let text = signed("POST", "/orders-us/messages", PRODUCE).await.refused(403, "DMS.10240311");
    assert!(text.contains("manage"), "creating the topic needs another right: {text}");
}

/// The listener is one of the server: a socket of its own, closed with the others.
#[tokio::test]
async fn the_listener_has_its_own_address() {
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let config = ServerConfig::default().projects(vec![Project::new(PROJECT)]).mqs(MqsConfig::new().listen(local));
    let server = Server::bind(config).await.unwrap();
    let address = server.mqs_addr().unwrap();
    assert_eq!(server.mqs_url(), Some(format!("http://{address}")));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let head =
        format!("POST /v1/topic/t/messages HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n", PRODUCE.len());
    socket.write_all(format!("{head}Connection: close\r\n\r\n{PRODUCE}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"state":"success","id":"2"}]"#), "{answer}");
    // The host rule of an open server holds here too.
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket
        .write_all(b"GET /v1/topic/t/group/g/messages HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();

    let open = MqsConfig::new().listen(std::net::SocketAddr::from(([0, 0, 0, 0], 0)));
    let refused = Server::bind(ServerConfig::default().mqs(open)).await.unwrap_err();
    assert!(refused.to_string().contains("mqs.listen: `0.0.0.0:0` can be reached from outside"), "{refused}");
}
