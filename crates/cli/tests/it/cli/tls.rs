//! HTTPS through the binary: listeners, clients, and the renewal on SIGHUP.

use super::Program;
use crate::pki::Pki;

/// A section `tls` of a configuration.
fn section(pki: &Pki) -> String {
    format!("tls: {{certificate: {}, key: {}}}", pki.path("tls.crt").display(), pki.path("tls.key").display())
}

/// The program, whose client trusts this authority.
fn queues(program: &Program, url: &str, ca: &str) -> std::process::Output {
    let mut command = program.command(&["--endpoint", url, "-o", "json", "queue", "list"]);
    command.env("DMS_WORKER_DMS__CA_FILE", ca).output().unwrap()
}

#[test]
fn a_renewed_certificate_is_used_after_sighup() {
    let (program, pki) = (Program::new(), Pki::new());
    let file = program.file("server.yaml", &format!("server: {{{}}}\nreload: {{watch: false}}\n", section(&pki)));
    let mut server = program.serve(&["-c", &file]);
    let (url, ca) = (server.url("serving on "), pki.path("ca.pem").display().to_string());
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    assert!(queues(&program, &url, &ca).status.success());
    let plain = program.run(&["--endpoint", &url, "queue", "list"]).failed(69);
    assert!(plain.contains("certificate"), "{plain}");

    pki.renew();
    assert_eq!(
        queues(&program, &url, &ca).status.code(),
        Some(69),
        "the new authority did not sign the old certificate"
    );
    server.signal("HUP");
    server.until("the configuration was read again");
    assert!(queues(&program, &url, &ca).status.success());

    std::fs::write(pki.path("tls.key"), "no key").unwrap();
    server.signal("HUP");
    server.until("the new certificate was rejected");
    assert!(queues(&program, &url, &ca).status.success());
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

/// The application is a publisher of another process: it answers a message with 200, over HTTPS.
#[test]
fn an_application_with_a_private_authority_is_trusted_by_name() {
    let (program, pki) = (Program::new(), Pki::new());
    let tls = section(&pki);
    let target = format!(
        "server: {{listen: '127.0.0.1:0', queues: [{{name: q, groups: [g]}}]}}\npublishers: [{{queue: q, listen: '127.0.0.1:0', {tls}}}]\n"
    );
    let target = program.start(&["run", "-c", &program.file("target.yaml", &target)]);
    let app = target.url("publisher on ");
    let yaml = |authority: &str| {
        format!(
            "server: {{listen: '127.0.0.1:0', queues: [{{name: q, groups: [g]}}]}}\nworkers:\n  - {{queue: q, group: g, poll_wait: 1s, handler: {{http: {{url: '{app}', {authority}}}}}}}\n"
        )
    };
    let trusting = format!("ca_file: '{}'", pki.path("ca.pem").display());
    let sidecar = program.start(&["run", "-c", &program.file("trusting.yaml", &yaml(&trusting))]);
    program.run(&["--endpoint", &sidecar.url("server on "), "send", "q", r#"{"body": 1}"#]).ok();
    let arrived =
        program.run(&["--endpoint", &target.url("server on "), "receive", "--ack", "q", "g", "--max", "1"]).ok();
    assert!(arrived.contains('1'), "{arrived}");

    let missing = program.file("missing.yaml", &yaml("ca_file: /nonexistent/ca.pem"));
    for command in ["check", "run"] {
        let stderr = program.run(&[command, "-c", &missing]).failed(78);
        assert!(
            stderr.contains("worker q/g: the HTTP client cannot be set up: CA file /nonexistent/ca.pem: "),
            "{stderr}"
        );
    }
    let plain = program.file("plain.yaml", &yaml(&trusting).replace("https:", "http:"));
    let stderr = program.run(&["check", "-c", &plain]).failed(78);
    assert!(
        stderr.contains("handler.http.ca_file") && stderr.contains("is never used: `url` is not https"),
        "{stderr}"
    );
}

#[test]
fn every_listener_can_serve_https() {
    let (program, pki) = (Program::new(), Pki::new());
    let tls = section(&pki);
    let yaml = |admin: &str| {
        format!(
            "server: {{listen: '127.0.0.1:0', queues: [{{name: q, groups: [g]}}], {tls}}}\npublishers: [{{queue: q, listen: '127.0.0.1:0', {tls}}}]\nadmin: {{listen: '{admin}', {tls}}}\n"
        )
    };
    let file = program.file("config.yaml", &yaml("127.0.0.1:0"));
    let sidecar = program.start(&["run", "-c", &file]);
    let ca = pki.path("ca.pem").display().to_string();
    assert!(queues(&program, &sidecar.url("server on "), &ca).status.success());
    let publisher = sidecar.url("publisher on ");
    let certificate = reqwest::Certificate::from_pem(&std::fs::read(&ca).unwrap()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap();
    let post = async { client.post(&publisher).body("{\"body\":1}").send().await.unwrap().status() };
    assert_eq!(tokio::runtime::Runtime::new().unwrap().block_on(post), 200);

    // The configured address is asked with any certificate, whatever authority signed it.
    let admin = sidecar.url("admin on ");
    assert!(admin.starts_with("https://"), "{admin}");
    let there = program.file("there.yaml", &yaml(admin.trim_start_matches("https://")));
    assert_eq!(program.run(&["health", "-c", &there]).ok(), "ready\n");
    // So is any address of this machine, unless an authority is named.
    assert_eq!(program.run(&["health", &admin]).ok(), "ready\n");
    assert_eq!(program.run(&["health", &admin, "--ca-file", &ca]).ok(), "ready\n");
    let others = Pki::new();
    let other = others.path("ca.pem").display().to_string();
    let said = program.run(&["health", &admin, "--ca-file", &other]).failed(69);
    assert!(said.contains("/readyz cannot be reached: the server's certificate is not accepted: "), "{said}");
    let said = program.run(&["health", &admin, "--ca-file", "/nonexistent"]).failed(69);
    assert!(said.contains("/nonexistent"), "{said}");
}

#[test]
fn a_certificate_that_is_not_accepted_is_told_in_words_and_once() {
    let (program, pki) = (Program::new(), Pki::new());
    let yaml = format!("server: {{listen: '127.0.0.1:0', {}}}\n", section(&pki));
    let server = program.start(&["serve", "-c", &program.file("server.yaml", &yaml)]);
    let said = program.run(&["queue", "list", "--endpoint", &server.url("serving on ")]).failed(69);
    assert!(said.contains("the server's certificate is not accepted: no trusted authority signed it"), "{said}");
    assert!(
        said.contains("ca_file") && !said.contains("UnknownIssuer") && !said.contains("is a service running"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn an_unusable_certificate_exits_with_78() {
    let (program, pki) = (Program::new(), Pki::new());
    let other = Pki::new();
    let yaml = |key: &str| {
        format!(
            "server: {{listen: '127.0.0.1:0', tls: {{certificate: {}, key: {key}}}}}\n",
            pki.path("tls.crt").display()
        )
    };
    let missing = program.file("missing.yaml", &yaml("/nonexistent/tls.key"));
    let stderr = program.run(&["check", "-c", &missing]).failed(78);
    assert!(stderr.contains("server.tls.key: `/nonexistent/tls.key` cannot be read"), "{stderr}");
    let wrong = program.file("wrong.yaml", &yaml(&other.path("tls.key").display().to_string()));
    for command in ["check", "serve"] {
        let stderr = program.run(&[command, "-c", &wrong]).failed(78);
        assert!(stderr.contains("TLS: the certificate") && stderr.contains("cannot be used with the key"), "{stderr}");
    }
}

#[test]
fn a_renewed_certificate_is_noticed_without_a_signal() {
    let (program, pki) = (Program::new(), Pki::new());
    let file = program.file("server.yaml", &format!("server: {{{}}}\n", section(&pki)));
    let mut server = program.serve(&["-c", &file]);
    let (url, ca) = (server.url("serving on "), pki.path("ca.pem").display().to_string());
    pki.renew();
    server.until("the certificate was read again");
    assert!(queues(&program, &url, &ca).status.success());
}

/// A server whose admin address asks for a token and speaks TLS, as the commands see it.
#[test]
fn the_admin_address_of_a_server_is_asked_with_its_token_over_https() {
    let (program, pki) = (Program::new(), Pki::new());
    let token = program.file("admin_token", "a token\n");
    let yaml = |admin: &str| {
        let tls = section(&pki).replacen("tls:", "admin_tls:", 1);
        format!(
            "server: {{listen: '127.0.0.1:0', admin: '{admin}', admin_token_file: {token}, {tls}}}\nreload: {{watch: false}}\n"
        )
    };
    let mut server = program.start(&["serve", "-c", &program.file("server.yaml", &yaml("127.0.0.1:0"))]);
    let admin = server.url("admin on ");
    assert!(admin.starts_with("https://127.0.0.1:"), "{admin}");
    let there = program.file("there.yaml", &yaml(admin.trim_start_matches("https://")));
    let run = |args: &[&str], trusting: bool| {
        let mut command = program.command(args);
        if trusting {
            command.env("DMS_WORKER_DMS__CA_FILE", pki.path("ca.pem"));
        }
        command.output().unwrap()
    };

    assert_eq!(program.run(&["health", "-c", &there]).ok(), "ready\n", "without token and authority");
    let ours = ["data", "damaged", "-c", &there];
    assert!(run(&ours, true).status.success(), "{:?}", run(&ours, true));
    let named = ["data", "damaged", "-c", &there, "--admin", &admin];
    assert!(run(&named, true).status.success(), "{:?}", run(&named, true));
    assert_eq!(run(&ours, false).status.code(), Some(69), "the token is shown to nobody who is not trusted");
    let without = run(&["data", "damaged", "--admin", &admin], true);
    let text = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(without.status.code() == Some(1) && text.contains("Send the token of server.admin_token"), "{text}");

    pki.renew();
    assert_eq!(run(&ours, true).status.code(), Some(69), "the new authority did not sign the old certificate");
    server.signal("HUP");
    server.until("the configuration was read again");
    assert!(run(&ours, true).status.success());
}

/// Only the other servers see this certificate, so nobody would notice a wrong one before a request has to be passed on.
#[test]
fn the_certificate_for_the_other_servers_of_a_cluster_is_judged_as_they_will() {
    let (program, pki, other) = (Program::new(), Pki::new(), Pki::new());
    let check = |advertise: &str, tls: &str| {
        let yaml = format!(
            "server: {{listen: '127.0.0.1:0', postgres: {{url: 'postgres://dms@127.0.0.1:1/dms'}}, cluster: {{listen: '127.0.0.1:9410', advertise: '{advertise}', {tls}}}}}\n"
        );
        program.run(&["check", "-c", &program.file("cluster.yaml", &yaml)])
    };
    let tls = |authority: &Pki, more: &str| {
        let path = |name: &str| pki.path(name).display().to_string();
        let (certificate, key, ca) = (path("tls.crt"), path("tls.key"), authority.path("ca.pem"));
        format!("tls: {{certificate: {certificate}, key: {key}, ca_file: {}{more}}}", ca.display())
    };
    check("https://127.0.0.1:9410", &tls(&pki, "")).ok();
    check("https://10.0.0.7:9410", &tls(&pki, ", server_name: localhost")).ok();
    for (advertise, tls, key, part) in [
        ("https://127.0.0.1:9410", "", "server.cluster.advertise", "needs a certificate: set cluster.tls"),
        ("http://127.0.0.1:9410", &*tls(&pki, ""), "server.cluster.advertise", "write https://"),
        ("https://dms.example:9410", &*tls(&pki, ""), "server.cluster.tls", "of `dms.example`"),
        ("https://127.0.0.1:9410", &*tls(&other, ""), "server.cluster.tls", "invalid peer certificate"),
        ("https://127.0.0.1:9410", &*tls(&pki, ", server_name: '-'"), "server.cluster.tls", "server_name `-`"),
        ("https://127.0.0.1:9410", "tls: {certificate: /no}", "server.cluster.tls.key", "is required and missing"),
    ] {
        let stderr = check(advertise, tls).failed(78);
        assert!(stderr.contains(key) && stderr.contains(part), "{advertise} {tls}: {stderr}");
    }
}

#[test]
fn the_authorities_of_postgresql_are_read_before_the_server_starts() {
    let (program, pki) = (Program::new(), Pki::new());
    let check = |file: &str| {
        let yaml = format!("server: {{postgres: {{url: 'postgres://dms@127.0.0.1:1/dms', ca_file: '{file}'}}}}\n");
        program.run(&["check", "-c", &program.file("postgres.yaml", &yaml)])
    };
    check(&pki.path("ca.pem").display().to_string()).ok();
    for (file, reason) in
        [("/no/ca.pem", "No such file"), (&*pki.path("tls.key").display().to_string(), "no certificate in it")]
    {
        let stderr = check(file).failed(78);
        let named = format!("server.postgres.ca_file: {file} cannot be used: ");
        assert!(stderr.contains(&named) && stderr.contains(reason), "{stderr}");
    }
}

/// A command that accepts any certificate says so, as `run` does in its log; `--quiet` knows it already.
#[test]
fn a_command_that_checks_no_certificate_warns_about_it() {
    let (program, pki) = (Program::new(), Pki::new());
    let file = program.file("server.yaml", &format!("server: {{{}}}\n", section(&pki)));
    let server = program.serve(&["-c", &file]);
    let url = server.url("serving on ");
    let file = program.file("client.yaml", &format!("dms: {{endpoint: '{url}', insecure_skip_verify: true}}\n"));
    let warned = |args: &[&str]| {
        let output = program.run(&[args, &["-c", &file]].concat());
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        output.stderr.matches("anybody on the way to the service can read and forge messages").count()
    };
    assert_eq!(warned(&["queue", "list"]), 1);
    assert_eq!(warned(&["check", "--online"]), 1);
    assert_eq!(warned(&["-q", "queue", "list"]), 0);
}
