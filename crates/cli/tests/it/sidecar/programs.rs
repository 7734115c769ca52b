//! Delivery to a program: one process per message, or one that stays.

use dms_worker::{message::Message, queue::ConsumerGroup};
use serde_json::json;

use super::{Running, worker};

/// A shell script in a separate directory, to which it can write.
struct Script {
    dir: tempfile::TempDir,
}

impl Script {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("handle.sh"), text).unwrap();
        Self { dir }
    }

    fn path(&self) -> String {
        self.dir.path().join("handle.sh").display().to_string()
    }

    /// The lines that it has written to `seen`.
    fn seen(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("seen")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn body(code: u32) -> Message {
    Message::json(&json!({ "code": code })).unwrap()
}

#[tokio::test]
async fn the_exit_code_is_the_answer() {
    let script = Script::new(
        "read -r line; echo \"$line\" >> \"$(dirname \"$0\")/seen\"; exit \"$(echo \"$line\" | sed 's/.*\"code\":\\([0-9]*\\).*/\\1/')\"\n",
    );
    let handler = format!("{{command: [sh, '{}']}}", script.path());
    let sidecar = Running::start(2, &worker(&handler, "on_reject: discard")).await;
    for (code, settled) in [(0, 1), (65, 2), (75, 3), (1, 4)] {
        sidecar.send(&[body(code).tag("red")]).await;
        sidecar.until(|group| group.consumed_messages + group.produced_dead_letters.unwrap_or(0) >= settled).await;
    }
    assert_eq!(sidecar.group().await.produced_dead_letters, Some(2));
    sidecar.stop().await;
    let seen = script.seen();
    assert_eq!(seen.len(), 6, "done and rejected once, the others twice: {seen:?}");
    let line: serde_json::Value = serde_json::from_str(&seen[0]).unwrap();
    assert_eq!(
        (&line["queue"], &line["group"], &line["body"]),
        (&json!("orders"), &json!("billing"), &json!({"code": 0}))
    );
    assert_eq!((&line["tags"], &line["attempt"]), (&json!(["red"]), &json!(1)));
    assert!(line["deadline_ms"].as_u64().is_some_and(|left| left > 20_000));
}

#[tokio::test]
async fn a_program_that_disappears_costs_no_attempt() {
    use std::os::unix::fs::PermissionsExt;
    let script = Script::new("#!/bin/sh\nexit 0\n");
    std::fs::set_permissions(script.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // In an order without delays a failure would be counted, and make a dead letter at the second one.
    let yaml = worker(&format!("{{command: ['{}']}}", script.path()), "") + "admin: {listen: '127.0.0.1:0'}\n";
    let sidecar = Running::with("mode: FIFO, max_consume_count: 2", &yaml).await;
    std::fs::remove_file(script.path()).unwrap();
    sidecar.send(&[body(0)]).await;
    sidecar.until_handled("released", 1).await;
    assert_eq!(sidecar.group().await.available_messages, 1);
    let report = sidecar.stop().await.workers[0].report;
    assert_eq!((report.released, report.failed, report.redelivered), (1, 0, 0));
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_at_its_timeout() {
    let handler = "{command: {run: [sleep, '600'], timeout: 200ms}}";
    let sidecar = Running::start(1, &worker(handler, "")).await;
    sidecar.send(&[body(0)]).await;
    sidecar.until(|group| group.produced_dead_letters == Some(1)).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_program_that_stays_answers_line_by_line() {
    let script = Script::new(
        r#"echo started >> "$(dirname "$0")/seen"
while read -r line; do
  id=$(echo "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
  case "$line" in
    *'"code":0'*) echo "{\"id\":$id,\"outcome\":\"done\"}" ;;
    *'"code":65'*) echo "{\"id\":$id,\"outcome\":\"reject\",\"error\":\"no\"}" ;;
    *'"code":9'*) exit 9 ;;
  esac
done
"#,
    );
    let handler = format!("{{command: {{run: [sh, '{}'], mode: json_lines}}}}", script.path());
    let sidecar = Running::start(1, &worker(&handler, "on_reject: discard")).await;
    sidecar.send(&[body(0), body(65), body(0)]).await;
    sidecar.until(|group| group.consumed_messages == 3).await;
    assert_eq!(script.seen().len(), 1, "one process for all");
    // It ends over a message: that one fails, and the program is started again for the next.
    sidecar.send(&[body(9)]).await;
    sidecar.until(|group| group.produced_dead_letters == Some(1)).await;
    sidecar.send(&[body(0)]).await;
    sidecar.until(|group| group.available_messages == 0 && group.consumed_messages >= 4).await;
    assert_eq!(script.seen().len(), 2);
    sidecar.stop().await;
}

/// A message that ends the program (9), or stops it (7), while it has others.
const ENDS_AND_HANGS: &str = r#"
while read -r line; do
  id=$(echo "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
  code=$(echo "$line" | sed 's/.*"code":\([0-9]*\).*/\1/')
  echo "$code" >> "$(dirname "$0")/seen"
  case "$code" in
    9) exit 9 ;;
    7) exec sleep 600 ;;
    *) echo "{\"id\":$id,\"outcome\":\"done\"}" ;;
  esac
done
"#;

/// Gives a program 30 messages in batches of their own, so that each failure counts, with `poison` among them: it alone dies.
async fn only_poison_dies(poison: u32, times: u32, queue: &str, extra: &str) {
    let script = Script::new(ENDS_AND_HANGS);
    let handler = format!("{{command: {{run: [sh, '{}'], mode: json_lines, timeout: 1s}}}}", script.path());
    let sidecar = Running::with(queue, &worker(&handler, extra)).await;
    let codes: Vec<u32> = (100..130).map(|number| if number == 104 { poison } else { number }).collect();
    for codes in codes.chunks(10) {
        let messages: Vec<_> = codes.iter().map(|code| body(*code)).collect();
        sidecar.send(&messages).await;
    }
    let done = |group: &ConsumerGroup| group.produced_dead_letters > Some(0) && group.consumed_messages >= 29;
    let group = sidecar.until(done).await;
    assert_eq!((group.consumed_messages, group.produced_dead_letters), (29, Some(1)));
    sidecar.stop().await;
    let seen = script.seen();
    let tries = seen.iter().filter(|code| **code == poison.to_string()).count();
    assert!((times as usize..=times as usize + 1).contains(&tries), "{tries} tries: {seen:?}");
    for code in codes {
        assert!(seen.contains(&code.to_string()), "{code} was given to the program");
    }
}

#[tokio::test]
async fn a_message_that_ends_the_program_fails_and_its_other_messages_do_not() {
    only_poison_dies(9, 1, "max_consume_count: 1", "max_messages: 1").await;
}

#[tokio::test]
async fn a_message_that_keeps_ending_the_program_affects_no_other_message() {
    only_poison_dies(9, 3, "max_consume_count: 3", "max_messages: 1").await;
}

#[tokio::test]
async fn a_message_that_hangs_the_program_fails_and_later_ones_do_not() {
    only_poison_dies(7, 1, "max_consume_count: 1", "max_messages: 1").await;
}

#[tokio::test]
async fn a_message_that_ends_the_program_fails_alone_with_ordering() {
    only_poison_dies(9, 2, "mode: FIFO, max_consume_count: 2", "").await;
}
