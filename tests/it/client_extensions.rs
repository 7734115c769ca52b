//! The client and the extensions of this project's server, against literal documents: the client uses announced extensions, and
//! never sends anything of the others.

use dms_worker::{
    ApiVersion, Client,
    client::{ConsumeOptions, Extensions, PollId},
    message::{AckHandle, AckLine, AckStatus, FailureReport, MessageId},
    queue::SourcePath,
};

use crate::script::{Play, Script};

const ALL: &str = "end-poll, release, reject, reason, overview, peek, message-id, messages, deduplication, long-delay";

fn source() -> SourcePath {
    SourcePath::messages("q1", "g-1")
}

fn announcing(status: u16, body: &'static str, list: &'static str) -> Play {
    Play::With(status, body, "x-dms-extensions", list)
}

fn failure() -> FailureReport {
    FailureReport {
        reason: "rejected".into(),
        error: "no such account".to_owned(),
        worker: "orders".to_owned(),
        first_failure_ms: Some(1_795_550_351_698),
        last_failure_ms: Some(1_795_550_352_000),
    }
}

/// A success, a reject and a release.
async fn acknowledge(client: &Client) {
    let handles = ["a", "b", "c"].map(AckHandle::new);
    let failure = failure();
    let lines = [
        AckLine::new(&handles[0], AckStatus::Success),
        AckLine::new(&handles[1], AckStatus::Reject).failure(&failure),
        AckLine::new(&handles[2], AckStatus::Release),
    ];
    client.acknowledge_lines(&source(), &lines).await.unwrap();
}

#[tokio::test]
async fn announced_extensions_are_used() {
    for (version, prefix) in [(ApiVersion::V2, "/v2/p1"), (ApiVersion::V1_0, "/v1.0/p1")] {
        let counts = r#"{"success":2,"fail":1}"#;
        let script = Script::new([
            announcing(200, "[]", ALL),
            announcing(200, "[]", ALL),
            announcing(200, r#"{"ended":1}"#, ALL),
            announcing(200, counts, ALL),
        ]);
        let client = script.builder().api_version(version).build().unwrap();
        let poll = PollId::new("poll-1").unwrap();
        assert_eq!(client.extensions(), Extensions::NONE, "nothing is known before the first answer");
        client.consume_as(&source(), &ConsumeOptions::default(), &poll).await.unwrap();
        assert_eq!(client.extensions(), Extensions::ALL);
        client.consume_as(&source(), &ConsumeOptions::default(), &poll).await.unwrap();
        assert_eq!(client.end_polls(&[poll, PollId::new("poll_2").unwrap()]).await.unwrap(), 1);
        acknowledge(&client).await;
        let requests = script.requests();
        assert_eq!(requests[2], format!(r#"POST {prefix}/polls/end {{"polls":["poll-1","poll_2"]}}"#));
        assert_eq!(
            requests[3],
            format!(
                "POST {prefix}/queues/q1/groups/g-1/ack {}",
                r#"{"message":[{"handler":"a","status":"success"},{"handler":"b","status":"reject","reason":"rejected","error":"no such account","worker":"orders","first_failure":1795550351698,"last_failure":1795550352000},{"handler":"c","status":"release"}]}"#
            )
        );
        assert_eq!(script.header("x-dms-poll"), [None, Some("poll-1".to_owned()), None, None]);
        assert_eq!(script.header("x-dms-extensions"), [None, Some("message-id".to_owned()), None, None]);
    }
}

/// An overview of many queues has pages. If the queue that a page follows was deleted meanwhile, it is begun again.
#[tokio::test]
async fn an_overview_is_read_page_by_page() {
    let gone = r#"{"error_code":"DMS.10540014","error_msg":"marker","request_id":"r"}"#;
    let page = |text| announcing(200, text, ALL);
    let script = Script::new([
        page("[]"),
        page(r#"{"time":1,"queues":[{"id":"q1","name":"a"}],"next_marker":"q1"}"#),
        announcing(400, gone, ALL),
        page(r#"{"time":1,"queues":[{"id":"q2","name":"b"}],"next_marker":"q2"}"#),
        page(r#"{"time":1,"queues":[{"id":"q3","name":"c"}]}"#),
    ]);
    let client = script.builder().build().unwrap();
    let overview =
        client.consume(&source(), &ConsumeOptions::default()).await.map(|_| client.overview()).unwrap().await;
    let names: Vec<_> = overview.unwrap().into_iter().map(|queue| queue.queue.name).collect();
    assert_eq!(names, ["b", "c"]);
    let asked: Vec<_> = script.requests().iter().skip(1).map(|line| line.trim_end().to_owned()).collect();
    let overview = "GET /v2/p1/overview";
    let after = |marker| format!("{overview}?marker={marker}");
    assert_eq!(asked, [overview.to_owned(), after("q1"), overview.to_owned(), after("q2")]);
}

#[tokio::test]
async fn unannounced_extensions_are_never_sent() {
    let script =
        Script::new([Play::Answer(200, "[]"), Play::Answer(200, "[]"), Play::Answer(200, r#"{"success":1,"fail":2}"#)]);
    let client = script.client();
    let poll = PollId::unique();
    for _ in 0..2 {
        client.consume_as(&source(), &ConsumeOptions::default(), &poll).await.unwrap();
    }
    assert_eq!(client.end_polls(&[poll]).await.unwrap(), 0, "it is not asked");
    acknowledge(&client).await;
    let requests = script.requests();
    assert_eq!(requests.len(), 3);
    assert!(
        requests[2].ends_with(r#"{"message":[{"handler":"a","status":"success"},{"handler":"b","status":"fail"}]}"#),
        "{}",
        requests[2]
    );
    assert_eq!(script.header("x-dms-poll"), [None, None, None]);
    assert_eq!(script.header("x-dms-extensions"), [None, None, None]);
}

/// A service that was replaced by one without extensions, and an error that a proxy answers.
#[tokio::test]
async fn the_last_announcement_of_extensions_counts() {
    let script = Script::new([
        announcing(200, "[]", "release, something-new"),
        Play::Answer(400, "a proxy's error page"),
        Play::Answer(200, "[]"),
    ]);
    let client = script.client();
    let consume = async || client.consume(&source(), &ConsumeOptions::default()).await.is_ok();
    assert!(consume().await);
    assert!(client.extensions().release() && !client.extensions().reject());
    assert!(!consume().await);
    assert!(client.extensions().release());
    assert!(consume().await);
    assert_eq!(client.extensions(), Extensions::NONE);
}

#[tokio::test]
async fn ids_are_asked_for_with_the_reasons_of_dead_letters() {
    let answer = r#"[{"message":{"body":1,"attributes":{}},"handler":"h","id":"m_RjkDiiQaIPJBFSAAAAAAAR","dead_letter":{"reason":"failed","attempts":1}}]"#;
    let script = Script::new([announcing(200, "[]", ALL), announcing(200, answer, ALL)]);
    let (client, dead) = (script.client(), SourcePath::dead_letters("q1", "g-1"));
    client.consume(&dead, &ConsumeOptions::default()).await.unwrap();
    let received = client.consume(&dead, &ConsumeOptions::default()).await.unwrap();
    assert_eq!(received[0].message_id(), Some(MessageId::new("m_RjkDiiQaIPJBFSAAAAAAAR")));
    assert_eq!(received[0].dead_letter.as_ref().unwrap().reason, "failed");
    assert_eq!(script.header("x-dms-extensions"), [None, Some("message-id, reason".to_owned())]);
}

#[tokio::test]
async fn an_invalid_reason_is_refused_before_it_is_sent() {
    let script = Script::new([]);
    let handle = AckHandle::new("a");
    let failure = FailureReport { reason: "No such account".into(), ..failure() };
    let line = AckLine::new(&handle, AckStatus::Reject).failure(&failure);
    let error = script.client().acknowledge_lines(&source(), &[line]).await.unwrap_err().to_string();
    assert!(error.contains("No such account") && error.contains("a-z 0-9 _ -"), "{error}");
}
