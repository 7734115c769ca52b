//! Secrets are never shown: not in logs, errors, `config show`, answers of the admin endpoint, or `Debug`.

use std::{
    fmt::Debug,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::Output,
    sync::mpsc::{Receiver, channel},
};

use dms_server::{Project, ServerConfig};
use dms_worker::{
    Client,
    auth::{IamCredentials, Scope},
};
use dms_worker_cli::config::{Request, load};

use super::Program;

/// What every planted secret contains.
const PLANTED: &str = "pl4nted";

#[track_caller]
fn clean(what: &str, text: &str) {
    let line = text.lines().find(|line| line.contains(PLANTED));
    assert!(line.is_none(), "{what} shows a secret: {line:?}");
}

#[track_caller]
fn clean_output(what: &str, output: &Output) {
    clean(what, &String::from_utf8_lossy(&output.stdout));
    clean(what, &String::from_utf8_lossy(&output.stderr));
}

/// A sidecar that has a secret in every place of the embedded server, its worker and its admin endpoint.
const EVERY_SECRET: &str = "\
server:
  listen: 127.0.0.1:0
  auth:
    access_keys: [{access_key: AK, secret_key: pl4nted-sk, security_token: pl4nted-st}]
    users: [{user: u, password: pl4nted-pw}]
  queues: [{name: q, groups: [g]}]
dms: {auth: {access_key: AK, secret_key: pl4nted-sk, security_token: pl4nted-st}}
workers:
  - {queue: q, group: g, handler: {http: {url: 'URL', signature_key: pl4nted-hmac}}}
publishers: [{queue: q, listen: '127.0.0.1:0'}]
admin: {listen: '127.0.0.1:0', token: pl4nted-admin}
";

/// Answers one request after the other, and returns what it read. `answer` sees the request's head.
fn peer(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).is_ok_and(|read| read > 0) {
                let last = head.lines().last().unwrap_or_default().to_lowercase();
                length = last.strip_prefix("content-length: ").and_then(|n| n.parse().ok()).unwrap_or(length);
            }
            let mut body = vec![0; length];
            if head.is_empty() || stream.read_exact(&mut body).is_err() {
                continue;
            }
            let text = answer(&head);
            // Before the answer, because a caller that has its answer looks for the request at once.
            let is_seen = sender.send(head + &String::from_utf8_lossy(&body)).is_ok();
            stream.get_mut().write_all(text.as_bytes()).unwrap();
            if !is_seen {
                return;
            }
        }
    });
    (url, requests)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_sidecar_that_logs_everything_shows_no_secret() {
    let program = Program::new();
    let (app, deliveries) = peer(|_| answer("204 No Content", "", ""));
    let file = program.file("config.yaml", &EVERY_SECRET.replace("URL", &app));
    let mut command = program.command(&["run", "-c", &file]);
    command.env("RUST_LOG", "trace").stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let sidecar = super::Running::start(&mut command);
    let (admin, publisher) = (sidecar.url("admin on "), sidecar.url("publisher on "));

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str, token: &str| {
        let request = client.get(format!("{admin}{path}")).bearer_auth(token);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        assert_eq!(client.post(&publisher).body("{\"body\":1}").send().await.unwrap().status(), 200);
        // The secrets are in use: the delivery is signed with the one, and control needs the other.
        let delivery = deliveries.iter().find(|request| request.starts_with("POST")).unwrap();
        assert!(delivery.to_lowercase().contains("dms-signature: "), "{delivery}");
        for path in ["/status", "/metrics", "/scale", "/readyz"] {
            let (status, text) = get(path, "pl4nted-admin").await;
            assert_eq!(status, 200, "{path}: {text}");
            clean(path, &text);
        }
        let (status, text) = get("/status", "pl4nted-wrong").await;
        assert_eq!(status, 401);
        clean("the refusal", &text);
    });
    clean("the announcement", &sidecar.announced);
    sidecar.signal("TERM");
    let (status, log) = sidecar.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("TRACE"), "nothing was traced");
    clean("the log", &log);
}

/// Workers whose applications refuse, are not there and hang up; with secrets in URLs and headers.
const COMPOSITE: &str = "\
server:
  listen: 127.0.0.1:0
  queues: [{name: q, max_consume_count: 1, groups: [refused, gone, hung_up, batch]}, {name: parked, groups: [g]}]
workers:
  - {queue: q, group: refused, on_reject: {park: parked}, handler: {http: {url: 'REFUSING', HEADERS}}}
  - {queue: q, group: batch, handler: {http: {url: 'REFUSING', batch: consumed, HEADERS}}}
  - {queue: q, group: gone, handler: {http: {url: 'GONE', health_url: 'GONE', HEADERS}}}
  - {queue: q, group: hung_up, handler: {http: {url: 'HANGING_UP', HEADERS}}}
admin: {listen: '127.0.0.1:0'}
";

const HEADERS: &str = "\
headers: {Authorization: Bearer pl4nted-bearer, Proxy-Authorization: Basic pl4nted-proxy, X-Auth-Token: pl4nted-token, \
Cookie: session=pl4nted-cookie, X-Api-Key: pl4nted-key}, header_files: {X-From-File: 'FILE'}, signature_key: pl4nted-hmac";

/// `http://127.0.0.1:1` with a user and a query that are secrets.
fn with_credentials(url: &str) -> String {
    format!("{}/in?key=pl4nted-query&pl4nted-more", url.replace("http://", "http://pl4nted-user:pl4nted-password@"))
}

fn composite(program: &Program, refusing: &str, hanging_up: &str) -> String {
    let value = program.file("value", "pl4nted-file\n");
    let yaml = COMPOSITE
        .replace("HEADERS", &HEADERS.replace("FILE", &value))
        .replace("REFUSING", &with_credentials(refusing))
        .replace("HANGING_UP", &with_credentials(hanging_up))
        .replace("GONE", &with_credentials("http://127.0.0.1:1"));
    program.file("composite.yaml", &yaml)
}

/// What a GET is answered with.
fn get(url: &str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = async { client.get(url).send().await.unwrap().text().await.unwrap() };
    tokio::runtime::Runtime::new().unwrap().block_on(answer)
}

/// An application that repeats the head of each request, and refuses its message for good.
fn refusing() -> (String, Receiver<String>) {
    peer(|head| answer("422 Unprocessable Entity", "", head))
}

/// An application that closes each connection at the first byte.
fn hanging_up() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(|stream| drop(stream.unwrap().read(&mut [0]))));
    url
}

#[test]
fn secrets_inside_urls_and_headers_are_shown_nowhere() {
    let program = Program::new();
    let (app, deliveries) = refusing();
    let file = composite(&program, &app, &hanging_up());
    let mut command = program.command(&["run", "-c", &file]);
    command.env("RUST_LOG", "trace").env("OTEL_EXPORTER_OTLP_ENDPOINT", with_credentials("http://127.0.0.1:1"));
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=pl4nted-collector");
    let sidecar = super::Running::start(command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()));
    let (admin, url) = (sidecar.url("admin on "), sidecar.url("server on "));
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat()).ok();
    dms(&["send", "q", "1"]);

    let used = deliveries.iter().find(|request| request.starts_with("POST")).unwrap().to_lowercase();
    for secret in ["pl4nted-query", "pl4nted-bearer", "pl4nted-cookie", "pl4nted-file", "authorization: "] {
        assert!(used.contains(secret), "{secret} was not used: {used}");
    }
    let parked = dms(&["receive", "--ack", "parked", "g", "--wait", "20s", "--max", "1"]);
    assert!(parked.contains("dms-error") && parked.contains("X-Auth-Token".to_lowercase().as_str()), "{parked}");
    clean("dms-error", &parked);
    for group in ["batch", "hung_up"] {
        let dead = dms(&["receive", "--ack", "q", group, "--dead-letters", "--wait", "20s", "--max", "1"]);
        assert!(dead.contains("\"body\":1"), "{group}: {dead}");
        clean(group, &dead);
    }
    for path in ["/status", "/metrics", "/readyz", "/startupz", "/scale"] {
        clean(path, &get(&format!("{admin}{path}")));
    }
    sidecar.signal("HUP");
    sidecar.signal("TERM");
    let (_, log) = sidecar.wait();
    assert!(log.contains("TRACE"), "nothing was traced");
    clean("the log", &log);
}

#[test]
fn secrets_that_are_rotated_are_used_after_sighup() {
    const CONFIG: &str = "\
server:
  listen: 127.0.0.1:0
  auth: {access_keys: [{access_key: AK, secret_key_file: key}]}
  queues: [{name: q, groups: [g]}]
dms: {auth: {access_key: AK, secret_key_file: key}}
workers:
  - {queue: q, group: g, handler: {http: {url: 'URL', header_files: {X-Api-Key: header}, signature_key_file: hmac}}}
publishers: [{queue: q, listen: '127.0.0.1:0', token_file: publisher}]
admin: {listen: '127.0.0.1:0', token_file: admin}
";
    let program = Program::new();
    let write = |generation: &str| {
        for name in ["header", "hmac", "publisher", "admin"] {
            program.file(name, &format!("{name}-{generation}\n"));
        }
    };
    program.file("key", "secret\n");
    write("old");
    let (app, deliveries) = peer(|head| answer("422 Unprocessable Entity", "", head));
    let file = program.file("config.yaml", &CONFIG.replace("URL", &app));
    let mut sidecar = program.start(&["run", "-c", &file]);
    let (admin, publisher) = (sidecar.url("admin on "), sidecar.url("publisher on "));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let status =
        |request: reqwest::RequestBuilder| runtime.block_on(async { request.send().await.unwrap().status().as_u16() });
    let publish = |token: &str| status(client.post(&publisher).bearer_auth(token).body("{\"body\":1}"));
    let ask = |token: &str| status(client.get(format!("{admin}/status")).bearer_auth(token));
    let delivered = || deliveries.iter().find(|request| request.starts_with("POST")).unwrap().to_lowercase();
    assert_eq!((publish("publisher-old"), ask("admin-old")), (200, 200));
    assert!(delivered().contains("x-api-key: header-old"));

    write("new");
    // Of the server in this process and its client, both.
    program.file("key", "another\n");
    sidecar.signal("HUP");
    sidecar.until("the new secrets are in use");
    sidecar.until("the configuration was read again");
    assert_eq!((publish("publisher-old"), ask("admin-old")), (401, 401));
    assert_eq!((publish("publisher-new"), ask("admin-new")), (200, 200));
    let request = loop {
        // The one before may be redelivered meanwhile.
        let request = delivered();
        if request.contains("header-new") {
            break request;
        }
    };
    let (time, mac) = request.split_once("dms-signature: t=").unwrap().1.split_once(",v1=").unwrap();
    assert_eq!(&mac[..64], hmac("hmac-new", &format!("{time}.1")));

    // Of one that is missing, or empty, the secret in force stays, and the others are taken.
    std::fs::remove_file(program.dir().join("hmac")).unwrap();
    program.file("header", "\n");
    program.file("admin", "admin-newer\n");
    sidecar.signal("HUP");
    sidecar.until("its current secret stays in use");
    sidecar.until("the configuration was read again");
    assert_eq!((publish("publisher-new"), ask("admin-new"), ask("admin-newer")), (200, 401, 200));
    assert!(delivered().contains("x-api-key: header-new"));
    sidecar.signal("TERM");
    let (_, log) = sidecar.wait();
    assert!(!log.contains("need a restart"), "{log}");
    for secret in ["header-", "hmac-", "publisher-new", "admin-new"] {
        assert!(!log.contains(secret), "{log}");
    }
}

/// The HMAC-SHA256 of a text in hex.
fn hmac(key: &str, text: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_configuration_with_secrets_in_urls_and_headers_is_shown_without_them() {
    let program = Program::new();
    let file = composite(&program, "http://127.0.0.1:1", "http://127.0.0.1:2");
    for args in [&["config", "show", "--origin"][..], &["config", "show", "-o", "json"], &["check"], &["check", "-v"]] {
        let output = program.command(&[args, &["-c", &file]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        clean_output(&format!("{args:?}"), &output);
    }
    let shown = program.run(&["config", "show", "-c", &file]).ok();
    assert!(shown.contains("http://***@127.0.0.1:1/in?***"), "{shown}");
    let loaded = load(&Request::new().file(std::path::PathBuf::from(&file))).unwrap();
    clean("Debug", &format!("{:?} {:#?} {:?}", loaded, loaded.config, loaded.settings()));
    clean("Debug", &format!("{:?}", Client::builder(with_credentials("http://127.0.0.1:1"), "p")));
}

#[test]
fn mistakes_in_urls_and_headers_show_no_secret() {
    let program = Program::new();
    let http = |http: &str| format!("workers: [{{queue: q, group: g, handler: {{http: {http}}}}}]\n");
    let url = |url: &str| http(&format!("{{url: {url}}}"));
    let headers = |headers: &str| http(&format!("{{url: 'http://127.0.0.1:1', headers: {headers}}}"));
    let wrong = [
        url("'ftp://u:pl4nted@h/?pl4nted'"),
        url("'u:pl4nted@h'"),
        url("'http:/u:pl4nted@h'"),
        url("'http://u:pl4/pl4nted@h'"),
        url("'http://u:${pl4nted@h'"),
        url("'http://u:${pl4nted !}@h'"),
        url("{pl4nted: pl4nted}"),
        url("'http://127.0.0.1:1', health_url: 'ftp://u:pl4nted@h#pl4nted'"),
        url("'http://127.0.0.1:1', timeout: 'http://u:pl4nted@h'"),
        url("'http://127.0.0.1:1', format: 'http://u:pl4nted@h'"),
        http("'http://u:pl4nted@h/?pl4nted'"),
        headers("'Authorization: pl4nted'"),
        headers("[pl4nted]"),
        headers("{Authorization: [pl4nted]}"),
        headers("{Authorization: {pl4nted: pl4nted}}"),
        headers("{Authorization: \"pl4nted\\npl4nted\"}"),
        headers("{Authorization: 'pl4nted ${pl4nted'}"),
        headers("{Authorization: pl4nted}, header_files: {authorization: /nonexistent}"),
        headers("{? {Authorization: pl4nted} : x}"),
        "dms: {endpoint: 'ftp://u:pl4nted@h'}".to_owned(),
        "dms: {endpoint: 'http://u:pl4nted@h/?pl4nted'}".to_owned(),
        "dms: {endpoint: 'http://h', auth: {iam: {endpoint: 'u:pl4nted@h', user: u, domain: d, password: pl4nted}}}".to_owned(),
        "dms: {endpoint: 'http://h', auth: {iam: {endpoint: 'http://u:pl4nted@h', user: u, domain: d, password: pl4nted}}}".to_owned(),
        "admin: {listen: 'http://u:pl4nted@h'}".to_owned(),
    ];
    for text in &wrong {
        let file = program.file("c.yaml", text);
        for format in [&["check", "-v", "-c", &file][..], &["-o", "json", "check", "-c", &file]] {
            let output = program.command(format).output().unwrap();
            assert_ne!(output.status.code(), Some(0), "{text}");
            let shown = String::from_utf8(output.stderr).unwrap();
            // A key of a map is a key, whatever it is called.
            clean(text, &shown.replace("url.pl4nted", "").replace("Authorization.pl4nted", ""));
        }
    }
    let nowhere = "http://u:pl4nted@127.0.0.1:1/?pl4nted";
    for args in [
        &["--endpoint", nowhere, "-v", "queue", "list"][..],
        &["health", "-v", nowhere],
        &["bench", "--against", nowhere],
    ] {
        let output = program.command(args).output().unwrap();
        assert_ne!(output.status.code(), Some(0), "{args:?}");
        clean_output(&format!("{args:?}"), &output);
    }
}

#[test]
fn a_client_that_logs_everything_shows_no_secret() {
    let program = Program::new();
    // IAM and DMS in one, which gives out a token that is a secret too.
    let (url, requests) = peer(|head| match head.starts_with("POST /v3/auth/tokens") {
        true => answer(
            "201 Created",
            "X-Subject-Token: pl4nted-token\r\n",
            "{\"token\":{\"expires_at\":\"2099-01-01T00:00:00.000000Z\"}}",
        ),
        false => answer("401 Unauthorized", "", "{\"error_code\":\"APIGW.0301\",\"error_msg\":\"no\"}"),
    });
    let iam = format!("iam: {{endpoint: '{url}', user: u, password: pl4nted-pw, domain: d}}");
    let key = "access_key: AK, secret_key: pl4nted-sk, security_token: pl4nted-st".to_owned();
    let token = "token: pl4nted-fixed".to_owned();
    for (auth, sent) in [(iam, "pl4nted-token"), (key, "pl4nted-st"), (token, "pl4nted-fixed")] {
        let file = program.file("c.yaml", &format!("dms: {{endpoint: '{url}', auth: {{{auth}}}}}\n"));
        let mut command = program.command(&["queue", "list", "-c", &file]);
        let output = command.env("RUST_LOG", "trace").output().unwrap();
        assert_eq!(output.status.code(), Some(77), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("TRACE"), "nothing was traced");
        clean_output("a refused call", &output);
        assert!(requests.try_iter().any(|request| request.contains(sent)), "the secret was not used");
        for args in
            [&["config", "show", "--origin"][..], &["config", "show", "-o", "json"], &["check"], &["check", "--online"]]
        {
            clean_output(&format!("{args:?}"), &program.command(&[args, &["-c", &file]].concat()).output().unwrap());
        }
    }
}

#[test]
fn mistakes_next_to_a_secret_do_not_show_it() {
    let program = Program::new();
    let wrong = [
        "secret_key: 'x${pl4nted'",
        "secret_key: '${pl4nted !}'",
        "secret_key: [pl4nted]",
        "secret_key: {pl4nted: pl4nted}",
        "secret_key: pl4nted, token: pl4nted",
        "secret_key: pl4nted, secret_key_file: /nonexistent",
        "security_token: pl4nted",
    ];
    for text in wrong {
        let file = program
            .file("c.yaml", &format!("dms: {{endpoint: 'http://127.0.0.1:1', auth: {{access_key: AK, {text}}}}}\n"));
        let output = program.command(&["check", "-v", "-c", &file]).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{text}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        // A key of a map is a key, whatever it is called.
        clean(text, &stderr.replace("secret_key.pl4nted", ""));
    }
}

#[test]
fn debug_shows_no_secret() {
    fn check(value: &impl Debug) {
        clean("Debug", &format!("{value:?} {value:#?}"));
    }
    let program = Program::new();
    let file = program.file("c.yaml", &EVERY_SECRET.replace("URL", "http://127.0.0.1:1"));
    let loaded = load(&Request::new().file(std::path::PathBuf::from(&file))).unwrap();
    check(&loaded.config);
    check(&Request::new().variables([("DMS_WORKER_DMS__AUTH__SECRET_KEY".to_owned(), "pl4nted".to_owned())]));
    check(&loaded);
    check(&loaded.settings());
    let builder = || Client::builder("http://127.0.0.1:1", "p");
    check(&builder().access_key("AK", "pl4nted-sk").security_token("pl4nted-st"));
    check(&builder().token("pl4nted-token"));
    check(&builder().access_key("AK", "pl4nted-sk").build().unwrap());
    let iam = IamCredentials::new("http://127.0.0.1:1", Scope::ProjectName("p".to_owned()));
    let iam = iam.user("u", "d").password("pl4nted-pw");
    check(&builder().iam(iam).build().unwrap());
    let project = Project::new("p").access_key("AK", "pl4nted-sk").user("u", "pl4nted-pw", "d");
    check(&ServerConfig::default().projects(vec![project]));
}

/// Programs of `command` do not inherit what the sidecar itself is trusted with, and everything else.
#[test]
fn programs_do_not_inherit_the_secrets_of_the_sidecar() {
    for mode in ["per_message", "json_lines"] {
        let program = Program::new();
        let yaml = "\
server: {listen: '127.0.0.1:0', queues: [{name: q, groups: [g, g2]}]}
workers:
  - {queue: q, group: g, handler: {command: {run: [sh, -c, 'env > seen.tmp && mv seen.tmp seen; sleep 0.1'], mode: MODE}}}
  - {queue: q, group: g2, handler: {http: {url: 'http://u:${APP_PASSWORD}@localhost:9/', headers: {Authorization: 'Bearer ${APP_TOKEN}'}}}}
publishers: [{queue: q, listen: '127.0.0.1:0', token: '${PUBLISHER_TOKEN}'}]
admin: {listen: '127.0.0.1:0'}
";
        let file = program.file("sidecar.yaml", &yaml.replace("MODE", mode));
        let mut command = program.command(&["run", "-c", &file]);
        for name in [
            "APP_PASSWORD",
            "APP_TOKEN",
            "PUBLISHER_TOKEN",
            "DMS_WORKER_ADMIN__TOKEN",
            "DMS_WORKER_WORKERS__1__HANDLER__HTTP__SIGNATURE_KEY",
            "DMS_WORKER_WORKERS__1__HANDLER__HTTP__HEADERS__X_KEY",
            "HUAWEICLOUD_SDK_AK",
            "HUAWEICLOUD_SDK_SK",
            "HUAWEICLOUD_SDK_SECURITY_TOKEN",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ] {
            command.env(name, format!("{PLANTED}={name}"));
        }
        command.env("ITS_OWN_TOKEN", "for the program").env("DMS_WORKER_LOG__FILTER", "info");
        let sidecar =
            super::Running::start(command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()));
        program.run(&["--endpoint", &sidecar.url("server on "), "send", "q", "1"]).ok();
        let seen = program.dir().join("seen");
        while !seen.exists() {
            std::thread::yield_now();
        }
        let seen = std::fs::read_to_string(seen).unwrap();
        clean(&format!("the environment of a program ({mode})"), &seen);
        assert!(seen.contains("ITS_OWN_TOKEN=for the program") && seen.contains("PATH="), "{seen}");
        assert!(seen.contains("DMS_WORKER_LOG__FILTER=info"), "{seen}");
    }
}
