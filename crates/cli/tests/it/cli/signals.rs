//! How a busy process ends: in order, after the grace period, and at once.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
};

use super::{Program, Running};

/// A sidecar with a message that its application never answers.
struct Stuck {
    sidecar: Running,
    application: TcpStream,
}

impl Stuck {
    fn new(program: &Program, grace: &str) -> Self {
        let application = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = application.local_addr().unwrap();
        let yaml = format!(
            "server: {{listen: '127.0.0.1:0', queues: [{{name: q, groups: [g]}}]}}\nworkers:\n  - {{queue: q, group: g, handler: {{http: {{url: 'http://{address}/'}}}}}}\nshutdown: {{grace: {grace}}}\n"
        );
        let file = program.file("config.yaml", &yaml);
        let sidecar = program.start(&["run", "-c", &file]);
        program.run(&["--endpoint", &sidecar.url("server on "), "send", "q", "1"]).ok();
        Self { sidecar, application: delivery(&application) }
    }
}

/// The connection on which a message arrived. Connections that only probe the application are closed.
fn delivery(application: &TcpListener) -> TcpStream {
    loop {
        let mut stream = application.accept().unwrap().0;
        let mut start = [0; 4];
        if stream.read_exact(&mut start).is_ok() && &start == b"POST" {
            return stream;
        }
    }
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let program = Program::new();
        let mut stuck = Stuck::new(&program, "60s");
        stuck.sidecar.signal(signal);
        stuck.sidecar.until("stopping; a second signal stops at once");
        stuck.sidecar.signal(signal);
        let (status, log) = stuck.sidecar.wait();
        assert_eq!(status.code(), Some(code), "{log}");
        assert!(log.contains("messages in flight are redelivered"), "{log}");
    }
}

#[test]
fn a_drain_beyond_the_grace_period_exits_with_75() {
    let program = Program::new();
    let stuck = Stuck::new(&program, "100ms");
    stuck.sidecar.signal("TERM");
    let (status, log) = stuck.sidecar.wait();
    assert_eq!(status.code(), Some(75), "{log}");
    assert!(log.contains("error: not everything was finished within 100ms: the rest is redelivered"), "{log}");
}

#[test]
fn an_answer_during_the_drain_exits_with_0() {
    let program = Program::new();
    let mut stuck = Stuck::new(&program, "60s");
    stuck.sidecar.signal("TERM");
    stuck.sidecar.until("stopping; a second signal stops at once");
    stuck.application.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    let (status, log) = stuck.sidecar.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("q/g ended: 1 done, 0 failed, 1 acknowledged, 0 redelivered"), "{log}");
}

/// What was read is acknowledged although the command is ended, and what was not is handed back.
#[test]
fn receive_settles_what_was_read_when_it_is_ended() {
    for signal in ["INT", "TERM", "HUP"] {
        let program = Program::new();
        let server = program.serve(&[]);
        let url = server.url("serving on ");
        let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
        dms(&["queue", "create", "q", "--group", "g", "--max-consume-count", "1"]).ok();
        program.run_with(&["--endpoint", &url, "send", "q", "-"], "{\"body\":1}\n{\"body\":2}\n{\"body\":3}\n").ok();

        let mut command = program.command(&["--endpoint", &url, "receive", "q", "g", "--ack", "--follow"]);
        let mut receive = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = receive.stdout.take().unwrap();
        let mut first = [0];
        // One byte of the second line is read, not the whole.
        while first != *b"\n" {
            out.read_exact(&mut first).unwrap();
        }
        out.read_exact(&mut first).unwrap();
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(receive.id().to_string()).status();
        assert!(sent.unwrap().success());
        // The rest stays unread, and the pipe open.
        let ended = receive.wait_with_output().unwrap();
        drop(out);
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{signal}: {stderr}");
        assert!(stderr.contains("1 message received"), "{signal}: {stderr}");
        let rest = dms(&["receive", "q", "g", "--ack", "--wait", "1s"]).received();
        assert_eq!(rest, "{\"body\":2}\n{\"body\":3}\n", "{signal}");
    }
}
