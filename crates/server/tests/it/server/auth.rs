//! Signatures and tokens on requests (API reference 3.2; the signing guide; the four vectors computed with the vendor's
//! own signer).

use std::{net::SocketAddr, time::Duration};

use dms_protocol::auth::{
    RequestParts,
    signer::{self, DATE_HEADER},
};
use dms_server::{AccessKey, Project, Server};
use http::{Method, Request, Uri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use super::{Api, ApiResponse, PROJECT, guarded};
use crate::log::Log;

const AK: &str = "CONFORMANCEAK0000001";
const SK: &str = "ConformanceSecretKey0123456789abcdefghij";

/// A request of the vectors: their fixed headers, with this list of signed ones and this signature.
fn vector(method: &str, path: &str, signed: &str, signature: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("/v2/{PROJECT}{path}"))
        .header("Host", "127.0.0.1:9301")
        .header("X-Sdk-Date", "20261122T203300Z")
        .header("User-Agent", "dms-vector/1")
        .header("Content-Type", "application/json")
        .header("X-Project-Id", PROJECT)
        .header("Authorization", format!("SDK-HMAC-SHA256 Access={AK}, SignedHeaders={signed}, Signature={signature}"))
}

const SIGNED: &str = "content-type;host;user-agent;x-project-id;x-sdk-date";
const LIST: &str = "da64ac2444086e54ff434251bc2ba7b4a122a925dc55809273de4c5dfeb2effc";

async fn list_with(api: &Api, signature: &str) -> ApiResponse {
    api.raw(vector("GET", "/queues", SIGNED, signature).body("".into()).unwrap()).await
}

/// Vector 1: a GET without query and body.
#[tokio::test(start_paused = true)]
async fn signature_vector_1_lists_queues() {
    let api = Api::with(guarded()).await;
    let listed = list_with(&api, LIST).await.expect(200);
    assert_eq!(listed["total"], 0);
}

/// Vector 2: a repeated query key. Authentication passes, so the answer is about the queue.
#[tokio::test(start_paused = true)]
async fn signature_vector_2_consumes() {
    let api = Api::with(guarded()).await;
    let path = "/queues/075ae7da-6ce5-4966-940c-17c19fb5175e/groups/g-5ec247fd-d4a2-4d4f-9876-e4ff3280c461/messages\
                ?ack_wait=30&max_msgs=10&tag=tag1&tag=tag2&tag_type=or&time_wait=3";
    let signature = "ad6f834761a8444f305609cbb70380c8bd7ede60b6f2ad58747197dac7484074";
    api.raw(vector("GET", path, SIGNED, signature).body("".into()).unwrap()).await.refused(404, "DMS.10240401");
}

/// A recorded request that is sent again is refused with `reject_replays`; without it, the scheme lets it pass.
#[tokio::test(start_paused = true)]
async fn a_signature_is_good_once_where_replays_are_rejected() {
    let api = Api::with(guarded()).await;
    list_with(&api, LIST).await.expect(200);
    list_with(&api, LIST).await.expect(200);

    let mut config = guarded();
    config.projects[0].signatures.reject_replays = true;
    let api = Api::with(config).await;
    let wrong = LIST.replace("da", "ad");
    list_with(&api, &wrong).await.refused(401, "APIGW.0301");
    list_with(&api, LIST).await.expect(200);
    for _ in 0..10 {
        let message = list_with(&api, LIST).await.refused(404, "DMS.10240407");
        assert!(
            message.ends_with("This signature was used before: sign every request again, with another X-Sdk-Date.")
        );
    }
    list_with(&api, &wrong).await.refused(401, "APIGW.0301");
}

/// `Host` has to be signed, as the vendor's SDKs do, unless `require_signed_host` is off.
#[tokio::test(start_paused = true)]
async fn the_host_has_to_be_signed() {
    let names = "content-type;user-agent;x-project-id;x-sdk-date";
    let signature = "57918395f02227eccd9ef3ce08adc1b708117450f8eafa3a2538fa1e5faa1cb2";
    let request = || vector("GET", "/queues", names, signature).body("".into()).unwrap();
    let api = Api::with(guarded()).await;
    let message = api.raw(request()).await.refused(401, "APIGW.0301");
    assert!(message.ends_with("SignedHeaders does not have host"), "{message}");
    list_with(&api, LIST).await.expect(200);
    let mut config = guarded();
    config.projects[0].signatures.require_host = false;
    let api = Api::with(config).await;
    api.raw(request()).await.expect(200);
    list_with(&api, LIST).await.expect(200);
}

/// Vector 3: a UTF-8 body and temporary credentials.
#[tokio::test(start_paused = true)]
async fn signature_vector_3_creates_a_queue() {
    let mut project = Project::new(PROJECT);
    project.access_keys.push(AccessKey::new(AK, SK).security_token("SECTOKEN+/=abc"));
    let api = Api::with(guarded().projects(vec![project])).await;
    let body = r#"{"name": "queue-001", "description": "队列"}"#;
    let signed = format!("{SIGNED};x-security-token");
    let signature = "8f2eb9b27e1d716a9741722cdb377b71fdcee7db843ed95b314e0cfae1855559";
    let request = |token: Option<&str>, body: &str| {
        let request = vector("POST", "/queues", &signed, signature);
        let request = token.into_iter().fold(request, |request, token| request.header("X-Security-Token", token));
        request.body(body.to_owned().into()).unwrap()
    };
    api.raw(request(None, body)).await.refused(401, "APIGW.0301");
    api.raw(request(Some("SECTOKEN+/=abd"), body)).await.refused(401, "APIGW.0301");
    let changed = request(Some("SECTOKEN+/=abc"), &body.replace("001", "002"));
    let message = api.raw(changed).await.refused(401, "APIGW.0301");
    assert!(message.contains("canonical request") && !message.contains("SECTOKEN"), "{message}");
    let created = api.raw(request(Some("SECTOKEN+/=abc"), body)).await.expect(201);
    assert_eq!(created["name"], "queue-001");
}

/// Vector 4: a path and a query that need encoding.
#[tokio::test(start_paused = true)]
async fn signature_vector_4_encodes() {
    let api = Api::with(guarded()).await;
    let signature = "e6aaad6a05fde7bd6275ea41eadd56b7a4535dc949c09572d5e1c01477b9724d";
    let request = vector("GET", "/queues/a%20b~c?include_deadletter=true&x=a%20b%3Dc%2A", SIGNED, signature);
    api.raw(request.body("".into()).unwrap()).await.refused(400, "DMS.10240015");
}

/// A signed request with whatever is changed after signing.
fn signed(path: &str, change: impl FnOnce(&mut Request<axum::body::Body>)) -> Request<axum::body::Body> {
    let mut request = signed_by([AK, SK], "GET", path, "");
    change(&mut request);
    request
}

/// A request that is signed with this key and its secret.
pub(crate) fn signed_by(
    [access_key, secret]: [&str; 2],
    method: &str,
    path: &str,
    body: &str,
) -> Request<axum::body::Body> {
    let uri: Uri = path.parse().unwrap();
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "h")
        .header(DATE_HEADER, "20261122T203300Z")
        .body(body.to_owned().into())
        .unwrap();
    let parts = RequestParts {
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query().unwrap_or_default(),
        headers: request.headers(),
        body: body.as_bytes(),
    };
    let header = signer::sign(access_key, &secret.into(), &parts).unwrap();
    request.headers_mut().insert("authorization", header);
    request
}

fn queues() -> String {
    format!("/v2/{PROJECT}/queues")
}

/// Each way for a signature to be wrong, with the gateway's text.
#[tokio::test(start_paused = true)]
async fn wrong_signatures_are_refused() {
    let api = Api::with(guarded()).await;
    api.raw(signed(&queues(), |_| {})).await.expect(200);
    let set = |name: &'static str, value: &str| {
        let value = value.to_owned();
        signed(&queues(), move |request| drop(request.headers_mut().insert(name, value.parse().unwrap())))
    };
    let prefix = "Incorrect IAM authentication information: ";
    for (request, text) in [
        (set("host", "other"), "verify aksk signature fail"),
        (set("authorization", "Basic dTpw"), "verify aksk signature fail"),
        (set("authorization", "SDK-HMAC-SHA256 Access=, SignedHeaders=host, Signature=00"), "verify aksk signature"),
        (
            set("authorization", &format!("SDK-HMAC-SHA256 Access={AK}, SignedHeaders=host, Signature=00")),
            "verify aksk signature fail: the Authorization header is malformed: SignedHeaders does not have x-sdk-date",
        ),
        (
            set("authorization", "SDK-HMAC-SHA256 Access=NOBODY, SignedHeaders=x-sdk-date, Signature=00"),
            "Get secretKey failed,ak:NOBODY,err:ak not exist",
        ),
        (set("x-sdk-date", "yesterday"), "verify aksk signature fail"),
    ] {
        let message = api.raw(request).await.refused(401, "APIGW.0301");
        assert!(message.starts_with(&format!("{prefix}{text}")), "{message}");
    }
    let request = signed(&queues(), |request| *request.uri_mut() = format!("{}?x=1", queues()).parse().unwrap());
    api.raw(request).await.refused(401, "APIGW.0301");
    let request = signed(&queues(), |request| *request.method_mut() = Method::POST);
    api.raw(request).await.refused(401, "APIGW.0301");
}

/// 15 minutes either way.
#[tokio::test(start_paused = true)]
async fn a_signature_is_good_for_fifteen_minutes() {
    let api = Api::with(guarded()).await;
    tokio::time::advance(Duration::from_secs(900)).await;
    list_with(&api, LIST).await.expect(200);
    tokio::time::advance(Duration::from_secs(1)).await;
    let message = list_with(&api, LIST).await.refused(401, "APIGW.0301");
    assert!(message.contains("calc ak sk signature fail:signature expired"), "{message}");
}

/// A declared body hash must be the body's; an unsigned payload has no place in a JSON service.
#[tokio::test(start_paused = true)]
async fn the_declared_body_hash_is_compared() {
    let api = Api::with(guarded()).await;
    for hash in ["UNSIGNED-PAYLOAD", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"] {
        let request = signed(&queues(), |request| {
            request.headers_mut().insert("x-sdk-content-sha256", hash.parse().unwrap());
            *request.method_mut() = Method::POST;
            *request.body_mut() = r#"{"name":"q"}"#.into();
        });
        api.raw(request).await.refused(401, "APIGW.0301");
    }
}

/// After five bad signatures in a row, further bad ones are answered as by a locked key. A right one always passes,
/// because anybody can send bad ones, and clears the count.
#[tokio::test(start_paused = true)]
async fn wrong_signatures_never_lock_out_a_correct_one() {
    let api = Api::with(guarded()).await;
    let bad = LIST.replace("da", "ad");
    let is_locked = |message: &str| message.ends_with("AK access failed to reach the limit,forbidden");
    for _ in 0..2 {
        for _ in 0..5 {
            let message = list_with(&api, &bad).await.refused(401, "APIGW.0301");
            assert!(message.contains("verify aksk signature fail"), "{message}");
        }
        for _ in 0..3 {
            let message = list_with(&api, &bad).await.refused(401, "APIGW.0301");
            assert!(is_locked(&message), "{message}");
        }
        list_with(&api, LIST).await.expect(200);
    }
    for _ in 0..5 {
        assert!(!is_locked(&list_with(&api, &bad).await.refused(401, "APIGW.0301")));
    }
    tokio::time::advance(Duration::from_secs(299)).await;
    assert!(is_locked(&list_with(&api, &bad).await.refused(401, "APIGW.0301")));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!is_locked(&list_with(&api, &bad).await.refused(401, "APIGW.0301")));
}

/// Bad signatures are counted per peer; the operator hears of the key and the peer, but not of every one of them.
#[tokio::test]
async fn wrong_signatures_are_counted_per_peer_and_reported() {
    let (log, _guard) = Log::capture();
    let any = Some(([127, 0, 0, 1], 0).into());
    let server = Server::bind(guarded().listen(any).admin(any)).await.unwrap();
    let (address, admin) = (server.local_addr().unwrap(), server.admin_addr().unwrap());
    let running = tokio::spawn(server.run(std::future::pending()));

    let bad = LIST.replace("da", "ad");
    for _ in 0..40 {
        from("127.0.0.2", address, &bad).await;
    }
    let locked = "AK access failed to reach the limit,forbidden";
    assert!(from("127.0.0.2", address, &bad).await.contains(locked));
    assert!(!from("127.0.0.1", address, &bad).await.contains(locked));
    assert!(from("127.0.0.2", address, LIST).await.starts_with("HTTP/1.1 200"), "a right signature passes");
    let head = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let metrics = exchange("127.0.0.1", admin, &head.replace("GET /", "GET /metrics")).await;
    for line in [
        "dms_server_refused_signatures_total{reason=\"mismatch\"} 6",
        "dms_server_refused_signatures_total{reason=\"locked\"} 36",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    let text = log.text();
    let warnings = || text.lines().filter(|line| line.contains("WARN"));
    for (peer, what) in [("127.0.0.2", "refused"), ("127.0.0.2", "five wrong signatures"), ("127.0.0.1", "refused")] {
        let named = |line: &str| [peer, what, AK].iter().all(|part| line.contains(part));
        assert!(warnings().any(named), "{peer} {what}: {text}");
    }
    assert_eq!(warnings().count(), 3, "{text}");
    assert!(!text.contains(SK), "{text}");
    running.abort();
}

/// The answer to a request that lists queues with this signature, from a source address of this machine.
async fn from(source: &str, server: SocketAddr, signature: &str) -> String {
    let request = vector("GET", "/queues", SIGNED, signature).body(()).unwrap();
    let mut text = format!("GET {} HTTP/1.1\r\nConnection: close\r\n", request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    exchange(source, server, &(text + "\r\n")).await
}

async fn exchange(source: &str, server: SocketAddr, request: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    let mut stream = socket.connect(server).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A key opens its own project only.
#[tokio::test(start_paused = true)]
async fn the_project_of_another_key_is_refused() {
    let mut config = guarded();
    config.projects.push(Project::new("other").access_key("AK2", "SK2"));
    let api = Api::with(config).await;
    api.raw(signed("/v2/other/queues", |_| {})).await.refused(401, "DMS.10240104");
    api.raw(signed("/v1.0/other/queues", |_| {})).await.refused(401, "DMS.10240104");
    api.raw(signed(&queues(), |_| {})).await.expect(200);
}

/// No credentials or an empty token, an unknown token: DMS.10240103 and 101. A URL that does not exist is said to anybody.
#[tokio::test(start_paused = true)]
async fn missing_and_unknown_tokens_are_refused() {
    let api = Api::with(guarded()).await;
    api.get("/queues").await.refused(401, "DMS.10240103");
    for (token, code) in [("", "DMS.10240103"), ("stolen", "DMS.10240101")] {
        let request = Request::builder().uri(queues()).header("X-Auth-Token", token).body("".into()).unwrap();
        api.raw(request).await.refused(401, code);
    }
    api.get("/nothing").await.refused(404, "DMS.10240406");
}

/// Where a request has both, the signature counts: a wrong one is not saved by a token.
#[tokio::test(start_paused = true)]
async fn a_signature_takes_precedence_over_a_token() {
    let api = Api::with(guarded()).await;
    let with_token = |request: &mut Request<axum::body::Body>| {
        request.headers_mut().insert("x-auth-token", "stolen".parse().unwrap());
    };
    api.raw(signed(&queues(), with_token)).await.expect(200);
    api.raw(signed("/v2/other/queues", with_token)).await.refused(401, "DMS.10240104");
}

/// Requests that show nothing, or a token that nobody was given, are logged, and cannot fill the log.
#[tokio::test(start_paused = true)]
async fn requests_without_credentials_are_logged_within_bounds() {
    let api = Api::with(guarded()).await;
    let (log, _guard) = Log::capture();
    let lines = || log.text().lines().filter(|line| line.contains(" WARN ") && line.contains("credentials")).count();
    for _ in 0..30 {
        api.get("/queues").await.refused(401, "DMS.10240103");
    }
    assert_eq!(lines(), 10);
    tokio::time::advance(Duration::from_secs(60)).await;
    let request = Request::builder().uri(format!("/v2/{PROJECT}/queues")).header("X-Auth-Token", "unknown");
    api.raw(request.body("".into()).unwrap()).await.refused(401, "DMS.10240101");
    assert_eq!(lines(), 11);
    assert!(log.text().contains("suppressed=20"), "{}", log.text());
}
