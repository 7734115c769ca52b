//! `data`: a data directory is checked, repaired, copied while its server works, and verified.

use std::{
    io::{BufRead, Read, Write},
    net::TcpStream,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use serde_json::Value;

use super::{Program, Running};

/// A server with a queue `q` and a group `g` on the directory `data`.
fn server(program: &Program) -> Running {
    let server = program.serve(&["--admin", "127.0.0.1:0", "--data-dir", "data"]);
    let url = server.url("serving on ");
    let queues = program.run(&["--endpoint", &url, "-o", "json", "queue", "list"]).json();
    if queues == serde_json::json!([]) {
        program.run(&["--endpoint", &url, "queue", "create", "q", "--group", "g"]).ok();
    }
    server
}

/// Its admin address.
fn admin(server: &Running) -> String {
    server.url("admin on ").trim_end_matches(')').to_owned()
}

fn stop(server: Running) {
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

fn send(program: &Program, server: &Running, bodies: &[&str]) {
    for body in bodies {
        program.run(&["--endpoint", &server.url("serving on "), "send", "q", &format!("\"{body}\"")]).ok();
    }
}

fn receive(program: &Program, server: &Running) -> Vec<String> {
    let lines = program
        .run(&["--endpoint", &server.url("serving on "), "receive", "--ack", "q", "g", "--wait", "1s", "--max", "100"])
        .ok();
    let body = |line: &str| serde_json::from_str::<Value>(line).unwrap()["body"].as_str().unwrap().to_owned();
    lines.lines().map(body).collect()
}

/// Changes bytes of the first file of the log behind the first place where a text is.
fn damage(program: &Program, text: &str, bytes: usize) {
    let file = program.dir().join("data/log/0000000001.log");
    let mut log = std::fs::read(&file).unwrap();
    let at = log.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    log[at..at + bytes].iter_mut().for_each(|byte| *byte ^= 1);
    std::fs::write(file, log).unwrap();
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for folder in ["", "log"] {
        for entry in std::fs::read_dir(dir.join(folder)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                found.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Sends a message with this body on a new connection; returns whether it was stored.
fn send_one(api: &str, queue: &str, body: usize) -> bool {
    let Ok(mut stream) = TcpStream::connect(api) else { return false };
    let json = format!("{{\"messages\":[{{\"body\":\"m{body}\"}}]}}");
    let request = format!(
        "POST /v2/local/queues/{queue}/messages HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    );
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 201")
}

/// Under load: messages that were answered before the backup was requested are in it, and it opens.
#[test]
fn a_backup_is_made_while_messages_are_sent() {
    let program = Program::new();
    let server = server(&program);
    let (api, address) = (server.url("serving on http://"), admin(&server));
    let url = server.url("serving on ");
    let queue = program.run(&["--endpoint", &url, "-o", "json", "queue", "list"]).json()[0]["id"].clone();
    let (answered, next, over) = (Mutex::new(Vec::new()), AtomicUsize::new(0), AtomicBool::new(false));
    let before = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    let body = next.fetch_add(1, SeqCst);
                    match send_one(&api, queue.as_str().unwrap(), body) {
                        true => answered.lock().unwrap().push(body),
                        false => over.store(true, SeqCst),
                    }
                }
            });
        }
        let count = || answered.lock().unwrap().len();
        while count() < 200 && !over.load(SeqCst) {
            thread::yield_now();
        }
        let before = answered.lock().unwrap().clone();
        let made = program.run(&["-o", "json", "data", "backup", "data", "copy", "--admin", &address]);
        assert!(!over.swap(true, SeqCst), "a send failed");
        assert!(made.json()["commit"].as_u64().unwrap() > 50);
        before
    });
    let verified = program.run(&["-o", "json", "data", "verify", "copy"]).json();
    assert!(verified["condition"]["messages"].as_u64().unwrap() >= before.len() as u64, "{verified}");
    let dest = program.dir().join("copy");
    assert!(program.run(&["data", "backup", "data", "copy", "--admin", &address]).failed(1).contains("new directory"));
    let within = program.run(&["data", "backup", "data", "data/within", "--admin", &address]).failed(1);
    assert!(within.contains("is inside the data directory"), "{within}");
    let other = program.run(&["data", "backup", "elsewhere", "copy2", "--admin", &address]).failed(1);
    assert!(other.contains("This server's data directory is"), "another server's data would be copied: {other}");
    stop(server);

    let copy = program.serve(&["--data-dir", &dest.display().to_string()]);
    let endpoint = copy.url("serving on ");
    let max = answered.lock().unwrap().len().to_string();
    let got = program.run(&["--endpoint", &endpoint, "receive", "--ack", "q", "g", "--wait", "1s", "--max", &max]).ok();
    for body in &before {
        assert!(got.contains(&format!("{{\"body\":\"m{body}\",")), "m{body} is missing");
    }
    stop(copy);
    let said = program.run(&["data", "verify", "copy"]).failed(1);
    assert!(said.contains("backup.json") && said.contains("a server that opens the backup removes it"), "{said}");
}

/// Without a server; and a copy that changed, or was not finished, is none.
#[test]
fn a_backup_is_verified() {
    let program = Program::new();
    let first = server(&program);
    send(&program, &first, &["one", "two"]);
    let refused = program.run(&["data", "backup", "data", "copy"]).failed(2);
    assert!(refused.contains("--admin"), "{refused}");
    assert!(program.run(&["data", "check", "data"]).failed(1).contains("in use"));
    stop(first);

    program.run(&["data", "backup", "data", "copy"]).ok();
    assert!(program.run(&["data", "verify", "copy"]).ok().starts_with("2 messages and "));
    let log = program.dir().join("copy/log/0000000001.log");
    let whole = std::fs::read(&log).unwrap();
    let mut bytes = whole.clone();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let changed = program.run(&["data", "verify", "copy"]);
    assert_eq!(changed.code, Some(1));
    assert!(changed.stdout.contains("log/0000000001.log does not match its checksum"), "{}", changed.stdout);
    std::fs::write(&log, whole).unwrap();
    program.run(&["data", "verify", "copy"]).ok();
    std::fs::remove_file(program.dir().join("copy/backup.json")).unwrap();
    assert!(program.run(&["data", "verify", "copy"]).failed(1).contains("copy is no finished backup"));
}

/// A name that was mistyped makes no directory, and says what is there.
#[test]
fn what_is_no_data_directory_is_called_that() {
    let program = Program::new();
    std::fs::create_dir(program.dir().join("empty")).unwrap();
    std::fs::create_dir_all(program.dir().join("other/files")).unwrap();
    std::fs::write(program.dir().join("file"), "").unwrap();
    for command in [
        &["check"][..],
        &["verify"],
        &["repair"],
        &["repair", "--skip-commits", "--dropped", "lost"],
        &["backup"],
        &["rebuild-index"],
    ] {
        for (directory, found) in [
            ("missing", "it does not exist"),
            ("empty", "it is empty"),
            ("other", "it has neither dms.lock nor dms.db"),
            ("file", "it is a file"),
        ] {
            let mut arguments = vec!["data", command[0], directory];
            arguments.extend(&command[1..]);
            if command[0] == "backup" {
                arguments.push("copy");
            }
            let said = program.run(&arguments).failed(1);
            let expected = format!("{directory} is no data directory of dms-worker: {found}");
            assert!(said.contains(&expected), "{arguments:?}: {said}");
        }
    }
    assert!(!program.dir().join("missing").exists() && !program.dir().join("copy").exists());
}

/// A damaged message is found without changing the directory, reported by the server, and skipped on request.
#[test]
fn a_damaged_message_is_found_and_skipped() {
    let program = Program::new();
    let first = server(&program);
    send(&program, &first, &["one", "two", "three"]);
    stop(first);
    assert!(program.run(&["data", "check", "data"]).ok().starts_with("3 messages and "));
    damage(&program, "\"two\"", 1);
    let before = files(&program.dir().join("data"));
    let checked = program.run(&["-o", "json", "data", "check", "data"]);
    assert_eq!(checked.code, Some(1));
    let told: Value = serde_json::from_str(&checked.stdout).unwrap();
    let damaged = &told["condition"]["damaged"][0];
    assert_eq!((&damaged["queue"], &damaged["sequence"]), (&"q".into(), &2.into()), "{told}");
    let file = damaged["file"].as_str().unwrap();
    assert!(file.ends_with("data/log/0000000001.log"), "{file}");
    assert_eq!(told["condition"]["damaged_commits"].as_array().unwrap().len(), 1);
    let text = program.run(&["data", "check", "data"]).stdout;
    assert!(text.contains("The directory opens.") && text.contains("q, messages 2: "), "{text}");
    assert!(files(&program.dir().join("data")) == before, "checking changed something");

    let second = server(&program);
    let address = admin(&second);
    assert_eq!(receive(&program, &second), ["one", "three"]);
    let listed = program.run(&["data", "damaged", "--admin", &address]).ok();
    assert!(listed.contains("q") && listed.contains("0000000001.log"), "{listed}");
    assert_eq!(program.run(&["-o", "json", "data", "skip", "q", "--admin", &address]).json()["skipped"], 1);
    assert_eq!(program.run(&["-o", "json", "data", "damaged", "--admin", &address]).json(), serde_json::json!([]));
    stop(second);
    let third = server(&program);
    assert_eq!(receive(&program, &third), [""; 0]);
    let address = admin(&third);
    assert_eq!(program.run(&["-o", "json", "data", "damaged", "--admin", &address]).json(), serde_json::json!([]));
}

/// A commit that cannot be read keeps a directory from opening; it is given up when that is asked for, and its bytes are kept.
#[test]
fn an_unreadable_commit_is_given_up_on_request() {
    let program = Program::new();
    let first = server(&program);
    send(&program, &first, &["one", "two"]);
    program.run(&["--endpoint", &first.url("serving on "), "tag", "add", "q", "lost=tag"]).ok();
    send(&program, &first, &["three"]);
    first.signal("KILL");
    drop(first.wait());
    damage(&program, "\"lost\"", 5);
    let refused = program.run(&["data", "check", "data"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("does not open") && refused.stdout.contains("data repair"), "{}", refused.stdout);

    let log = || {
        files(&program.dir().join("data")).into_iter().filter(|(name, _)| name.contains("/log/")).collect::<Vec<_>>()
    };
    let before = log();
    let planned = program.run(&["data", "repair", "data"]);
    assert_eq!(planned.code, Some(1));
    assert!(
        planned.stdout.contains("1 commit from ") && planned.stdout.contains("--skip-commits"),
        "{}",
        planned.stdout
    );
    assert!(program.run(&["data", "repair", "data", "--skip-commits"]).failed(2).contains("--dropped"));
    let said = program.run(&["data", "repair", "data", "--skip-end", "--dropped", "lost.jsonl"]).failed(1);
    assert!(said.contains("--skip-commits gives them up"), "{said}");
    assert!(log() == before, "never without being asked");

    let done = program.run(&["data", "repair", "data", "--skip-commits", "--dropped", "lost.jsonl"]).ok();
    assert!(done.contains("1 commits were given up"), "{done}");
    let kept = std::fs::read_to_string(program.dir().join("lost.jsonl")).unwrap();
    assert!(serde_json::from_str::<Value>(&kept).unwrap()["hex"].as_str().unwrap().starts_with("444d5366"), "{kept}");
    program.run(&["data", "check", "data"]).ok();
    let second = server(&program);
    assert_eq!(receive(&program, &second), ["one", "two", "three"]);
}

/// The end of the log is lost; the rest opens after a repair.
#[test]
fn missing_commits_at_the_end_are_given_up_on_request() {
    let program = Program::new();
    let first = server(&program);
    send(&program, &first, &["one", "two", "three"]);
    first.signal("KILL");
    drop(first.wait());
    let file = program.dir().join("data/log/0000000001.log");
    let mut log = std::fs::read(&file).unwrap();
    let at = log.windows(5).position(|window| window == b"\"two\"").unwrap();
    let begin = log[..at].windows(4).rposition(|window| window == b"DMSf").unwrap();
    log[begin..].fill(0);
    std::fs::write(&file, log).unwrap();
    assert!(
        program.run(&["data", "check", "data"]).stdout.contains("the last 2 commits that were answered are missing")
    );
    let planned = program.run(&["data", "repair", "data"]);
    assert!(planned.stdout.contains("2 commits from ") && planned.stdout.contains("--skip-end"), "{}", planned.stdout);
    program.run(&["data", "repair", "data", "--skip-end", "--dropped", "lost.jsonl"]).ok();
    let second = server(&program);
    assert_eq!(receive(&program, &second), ["one"]);
}

/// The end of the log is lost, also after an orderly stop, when the index has all of it: what is left is served again after a repair.
#[test]
fn a_log_whose_end_is_lost_is_repaired() {
    type Lose = fn(&mut Vec<u8>, usize);
    let zeroed: Lose = |log, begin| log[begin..].fill(0);
    let cut: Lose = |log, begin| log.truncate(begin + 30);
    let cut_head: Lose = |log, _| log.truncate(10);
    for (signal, lose, cut_short, left) in
        [("TERM", zeroed, false, 1), ("KILL", cut, true, 1), ("TERM", cut, true, 1), ("TERM", cut_head, true, 0)]
    {
        let program = Program::new();
        let first = server(&program);
        send(&program, &first, &["one", "two", "three"]);
        first.signal(signal);
        drop(first.wait());
        let file = program.dir().join("data/log/0000000001.log");
        let mut log = std::fs::read(&file).unwrap();
        let at = log.windows(5).position(|window| window == b"\"two\"").unwrap();
        let begin = log[..at].windows(4).rposition(|window| window == b"DMSf").unwrap();
        lose(&mut log, begin);
        std::fs::write(&file, log).unwrap();

        let checked = program.run(&["data", "check", "data"]);
        assert!(checked.code == Some(1) && checked.stdout.contains("dms-worker data repair"), "{}", checked.stdout);
        let whole = checked.stdout.split(' ').next().unwrap();
        assert_eq!(whole == "0", left == 0, "commits before the damage: {}", checked.stdout);
        let planned = program.run(&["data", "repair", "data"]);
        assert_eq!(planned.code, Some(1), "{}{}", planned.stdout, planned.stderr);
        let lines: Vec<_> = planned.stdout.lines().collect();
        assert!(lines.iter().all(|line| line.starts_with("data/log/0000000001.log at byte ")), "{lines:?}");
        assert!(lines.iter().all(|line| line.contains("--skip-end")), "{lines:?}");
        assert_eq!(lines[0].contains("the file is cut short by "), cut_short, "{lines:?}");
        assert!(
            program
                .run(&["data", "repair", "data", "--skip-commits", "--dropped", "no"])
                .failed(1)
                .contains("--skip-end")
        );

        program.run(&["data", "repair", "data", "--skip-end", "--dropped", "lost.jsonl"]).ok();
        let kept = std::fs::read_to_string(program.dir().join("lost.jsonl")).unwrap();
        assert_eq!(kept.lines().count(), lines.len());
        assert!(program.run(&["data", "repair", "data"]).ok().contains("Nothing in the log"));
        let second = server(&program);
        send(&program, &second, &["four"]);
        let expected = [&["one"][..left], &["four"]].concat();
        assert_eq!(receive(&program, &second), expected, "{signal} {cut_short}");
        stop(second);
        let third = server(&program);
        assert_eq!(receive(&program, &third), [""; 0]);
    }
}

/// After a restore of half a backup the index is of a later state than the log. No message is set aside in silence: the directory is
/// refused and left as it is, and each of the remedies brings it back.
#[test]
fn an_index_of_a_later_state_than_the_log_is_refused_with_the_remedies() {
    let program = Program::new();
    let first = server(&program);
    send(&program, &first, &["one"]);
    let backup = ["data", "backup", "data", "copy", "--admin", &admin(&first)];
    program.run(&backup).ok();
    send(&program, &first, &["two", "three"]);
    stop(first);
    let path = |name: &str| program.dir().join(name);
    let copy = |from: &str, to: &str| {
        std::fs::create_dir_all(path(to).join("log")).unwrap();
        for (file, bytes) in files(&path(from)) {
            std::fs::write(path(to).join(Path::new(&file).strip_prefix(path(from)).unwrap()), bytes).unwrap();
        }
    };
    std::fs::remove_dir_all(path("data/log")).unwrap();
    std::fs::rename(path("copy/log"), path("data/log")).unwrap();
    copy("data", "other");

    let before = files(&path("data"));
    let is_refused = |said: &str| {
        assert!(said.contains("data has parts of two states: its index dms.db has "), "{said}");
        for remedy in ["restore dms.db and log from the same backup", "data rebuild-index", "data repair"] {
            assert!(said.contains(remedy), "{remedy}: {said}");
        }
    };
    is_refused(&program.run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"]).failed(1));
    let checked = program.run(&["data", "check", "data"]);
    assert_eq!(checked.code, Some(1));
    is_refused(&checked.stdout);
    let planned = program.run(&["data", "repair", "data"]);
    assert!(planned.stdout.contains(": 2 commits from ") && planned.stdout.contains("--skip-end"), "{planned:?}");
    let after = files(&path("data"));
    let lock = |(file, _): &&(String, Vec<u8>)| !file.ends_with("dms.lock") && !file.contains("dms.db-");
    assert!(before.iter().filter(lock).eq(after.iter().filter(lock)), "a refused directory is left as it is");

    program.run(&["data", "rebuild-index", "other"]).ok();
    std::fs::rename(path("data"), path("kept")).unwrap();
    std::fs::rename(path("other"), path("data")).unwrap();
    let rebuilt = server(&program);
    assert_eq!(receive(&program, &rebuilt), ["one"]);
    stop(rebuilt);

    std::fs::remove_dir_all(path("data")).unwrap();
    std::fs::rename(path("kept"), path("data")).unwrap();
    program.run(&["data", "repair", "data", "--skip-end", "--dropped", "lost.jsonl"]).ok();
    for (body, expected) in [("four", &["one", "four"][..]), ("five", &["five"])] {
        let server = server(&program);
        send(&program, &server, &[body]);
        assert_eq!(receive(&program, &server), expected);
        stop(server);
    }
    assert!(program.run(&["data", "repair", "data"]).ok().contains("Nothing in the log"));
}

/// Damage that no repair mends is not called harmless: the reason is named, without the path of a copy.
#[test]
fn what_a_repair_cannot_mend_is_said() {
    let program = Program::new();
    let first = server(&program);
    send(&program, &first, &["one"]);
    stop(first);
    let (file, away) = (program.dir().join("data/log/0000000001.log"), program.dir().join("away"));
    std::fs::rename(&file, &away).unwrap();
    let said = program.run(&["data", "repair", "data"]).failed(1);
    assert!(said.contains("data/log/0000000001.log") && said.contains("restore a backup"), "{said}");
    assert!(!said.contains("dms-worker-check"), "{said}");
    std::fs::rename(&away, &file).unwrap();

    // A lost lock file is no damage; a lost index has a remedy of its own.
    std::fs::remove_file(program.dir().join("data/dms.lock")).unwrap();
    program.run(&["data", "check", "data"]).ok();
    stop(server(&program));
    std::fs::write(program.dir().join("data/dms.db"), "no database").unwrap();
    for command in [
        &["data", "check", "data"][..],
        &["data", "repair", "data"],
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"],
    ] {
        let said = program.run(command);
        assert!(
            said.code == Some(1) && format!("{}{}", said.stdout, said.stderr).contains("data rebuild-index"),
            "{command:?}: {said:?}"
        );
    }
    program.run(&["data", "rebuild-index", "data"]).ok();
    let second = server(&program);
    assert_eq!(receive(&program, &second), ["one"]);
}

/// A damaged index is refused with the remedy, and rebuilt from the log.
#[test]
fn a_lost_index_is_rebuilt_from_the_log() {
    let program = Program::new();
    let first = server(&program);
    send(&program, &first, &["one", "two", "three"]);
    stop(first);
    let database = program.dir().join("data/dms.db");
    let mut index = std::fs::read(&database).unwrap();
    let at = index.windows(6).position(|window| window == b"NORMAL").unwrap();
    index[at] ^= 1;
    std::fs::write(&database, &index).unwrap();
    let refused = program.run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"]).failed(1);
    assert!(refused.contains("dms.db is damaged") && refused.contains("data rebuild-index"), "{refused}");
    assert!(program.run(&["data", "check", "data"]).stdout.contains("rebuild-index"));
    let made = program.run(&["data", "rebuild-index", "data"]).ok();
    assert!(made.contains("1 queues and 1 groups") && made.contains("data/dms.db.old-1"), "{made}");
    assert!(std::fs::read(program.dir().join("data/dms.db.old-1")).unwrap() == index, "the old one is kept");
    let second = server(&program);
    assert_eq!(receive(&program, &second), ["one", "two", "three"]);
}

/// As a user does it: from a directory into PostgreSQL and back, with kills in between.
#[cfg(feature = "postgres")]
#[test]
fn a_server_moves_to_postgres_and_back() {
    let Some(postgres) = dms_worker_postgres_fixture::PgServer::shared() else { return };
    let program = Program::new();
    let schema = format!("move_{}", std::process::id());
    let config = format!(
        "server:\n  postgres: {{url: \"{}\", schema: {schema}}}\n  cluster: {{takeover_after: 2s}}\n",
        postgres.url()
    );
    let config = program.file("cluster.yaml", &config);
    let first = server(&program);
    send(&program, &first, &["one", "two", "three"]);
    let url = first.url("serving on ");
    let others = ["r", "s", "t", "u"];
    for queue in others {
        program.run(&["--endpoint", &url, "queue", "create", queue]).ok();
    }
    program.run(&["--endpoint", &url, "receive", "--ack", "q", "g", "--wait", "1s", "--max", "1"]).ok();
    let in_use = program.run(&["data", "export", "move", "--data-dir", "data"]).failed(1);
    assert!(in_use.contains("in use by another process"), "{in_use}");
    stop(first);

    // Killed at once: the same command completes it.
    for arguments in [&["data", "export", "move", "--data-dir", "data"][..], &["data", "import", "move", "-c", &config]]
    {
        let mut killed = program.command(arguments).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(killed.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("all_messages"), "{line}");
        let _ = killed.kill();
        killed.wait().unwrap();
        let told = program.run(arguments).ok();
        assert!(told.contains("5 queues with 1 groups, 3 messages, 0 delayed messages and 0 dead letters"), "{told}");
    }
    let second = program.serve(&["-c", &config]);
    let url = second.url("serving on ");
    // The shard of an imported queue follows from its id, and most are not in the one of their name. No name is given twice.
    let queues = program.run(&["--endpoint", &url, "-o", "json", "queue", "list"]).json();
    assert_eq!(queues.as_array().unwrap().len(), 5, "{queues}");
    for queue in others {
        program.run(&["--endpoint", &url, "queue", "create", queue]).failed(1);
        program.run(&["--endpoint", &url, "queue", "delete", "--yes", queue]).ok();
        program.run(&["--endpoint", &url, "queue", "create", queue]).ok();
    }
    let lines = program.run(&["--endpoint", &url, "receive", "--ack", "q", "g", "--wait", "5s", "--max", "1"]).ok();
    assert!(lines.contains("\"two\""), "{lines}");
    program.run(&["--endpoint", &url, "send", "q", "\"four\""]).ok();
    let in_use = program.run(&["data", "export", "back", "-c", &config]).failed(1);
    assert!(in_use.contains("stop all of them first"), "{in_use}");
    stop(second);

    let told = program.run(&["-o", "json", "data", "export", "back", "-c", &config]).json();
    assert_eq!((&told["queues"], &told["counts"]["messages"]), (&5.into(), &4.into()), "{told}");
    let refused = program.run(&["data", "import", "back", "--data-dir", "data"]).failed(1);
    // Which queue is named depends on the shards, which follow from random ids.
    assert!(refused.contains("has a queue ") && refused.contains("with other contents"), "{refused}");
    std::fs::rename(program.dir().join("data"), program.dir().join("old")).unwrap();
    program.run(&["data", "import", "back", "--data-dir", "data"]).ok();
    assert!(program.run(&["data", "check", "data"]).ok().starts_with("4 messages and "));
    let third = server(&program);
    assert_eq!(receive(&program, &third), ["three", "four"]);
    stop(third);
    let nowhere = program.run(&["data", "import", "back"]).failed(2);
    assert!(nowhere.contains("--data-dir"), "{nowhere}");
}
