//! Which calls the client retries, which messages it refuses to send, and how it authenticates.

use std::time::Duration;

use dms_worker::{
    auth::{IamCredentials, Scope},
    client::{ConsumeOptions, ErrorCode, SendOptions},
    limits::MAX_BYTES,
    message::{AckHandle, AckStatus, Body, Message},
    queue::{NewQueue, ProjectId, QueueId, QueueMode, SourcePath, Stream, TagFilter, TagMode},
};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::script::{Play, Script};

const SENT: Play = Play::Answer(201, r#"{"messages":[{"error":null,"error_code":null,"state":0,"id":"m1"}]}"#);
const EMPTY: Play = Play::Answer(200, "[]");
const NO_QUEUES: Play = Play::Answer(200, r#"{"total":0,"queues":[]}"#);
const ACKED: Play = Play::Answer(200, r#"{"success":1,"fail":0}"#);
const LEASE_LOST: Play =
    Play::Answer(400, r#"{"error_code":"DMS.10542209","error_msg":"The handler does not exist."}"#);
const THROTTLED: Play =
    Play::Answer(404, r#"{"error_code":"DMS.10240407","error_msg":"The request is too frequent."}"#);
const FAULT: Play = Play::Answer(500, r#"{"error_code":"DMS.10250002","error_msg":"Internal service error."}"#);
const MISSING: Play = Play::Answer(404, r#"{"error_code":"DMS.10240401","error_msg":"The queue ID is incorrect."}"#);
const BAD_SIGNATURE: Play = Play::Answer(
    401,
    r#"{"error_code":"APIGW.0301","error_msg":"Incorrect IAM authentication information: verify aksk signature fail","request_id":"r9"}"#,
);

fn queue() -> QueueId {
    QueueId::from("q1")
}

fn source() -> SourcePath {
    SourcePath::messages("q1", "g-1")
}

fn acks() -> Vec<(AckHandle, AckStatus)> {
    vec![(AckHandle::new("h1"), AckStatus::Success)]
}

fn one_message() -> Vec<Message> {
    vec![Message::text("x")]
}

#[tokio::test(start_paused = true)]
async fn a_read_is_retried_after_every_temporary_error() {
    let script = Script::new([Play::Refuse, Play::Lose, FAULT, NO_QUEUES]);
    assert!(script.client().queues().await.unwrap().is_empty());
    assert_eq!(script.requests().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_is_followed_by_no_wait_and_its_error_is_returned() {
    let script = Script::new([FAULT, FAULT, FAULT, FAULT]);
    let started = Instant::now();
    let error = script.client().queues().await.unwrap_err();
    assert!(error.is_retryable() && !error.is_unsure());
    assert_eq!(error.code().unwrap().to_string(), "DMS.10250002");
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_send_is_not_repeated_after_an_unsure_answer() {
    for play in [Play::Lose, Play::Hang, FAULT] {
        let script = Script::new([play.clone()]);
        let error = script.client().send(&queue(), &one_message()).await.unwrap_err();
        assert!(error.is_unsure() && error.is_retryable(), "{play:?}: {error}");
        assert!(error.to_string().contains("may have taken effect"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_send_is_retried_when_it_was_certainly_not_stored() {
    let script = Script::new([Play::Refuse, THROTTLED, SENT]);
    let outcomes = script.client().send(&queue(), &one_message()).await.unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap().id.as_ref().unwrap().as_str(), "m1");
    assert_eq!(script.requests()[0], r#"POST /v2/p1/queues/q1/messages {"messages":[{"body":"x"}]}"#);
}

#[tokio::test(start_paused = true)]
async fn a_send_that_may_duplicate_is_repeated() {
    let script = Script::new([Play::Lose, FAULT, SENT]);
    let options = SendOptions::new().allow_duplicates(true).return_ids(true);
    script.client().send_with(&queue(), &one_message(), options).await.unwrap();
    assert_eq!(script.requests().len(), 3);
    assert!(script.requests()[0].contains(r#""return_id":true"#));
}

#[tokio::test(start_paused = true)]
async fn one_message_of_a_send_may_fail_alone() {
    let script = Script::new([Play::Answer(
        201,
        r#"{"messages":[{"state":0},{"state":1,"error":"The message size is 600000","error_code":"DMS.10540011"}]}"#,
    )]);
    let outcomes = script.client().send(&queue(), &[Message::text("a"), Message::text("b")]).await.unwrap();
    assert!(outcomes[0].as_ref().unwrap().id.is_none());
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TOO_LARGE));
    assert!(!error.is_retryable() && !error.is_unsure());
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_another_number_of_results_leaves_the_send_unsure() {
    let script = Script::new([Play::Answer(201, r#"{"messages":[]}"#)]);
    assert!(script.client().send(&queue(), &one_message()).await.unwrap_err().is_unsure());
}

/// Answers with status 200 from a captive portal, a maintenance page, or a truncated connection.
const NO_ANSWERS: [&str; 4] = ["<html>Please sign in</html>", "", r#"{"messages":["#, "null"];

#[tokio::test(start_paused = true)]
async fn an_unreadable_answer_is_a_temporary_error() {
    for page in NO_ANSWERS {
        let script = Script::new([Play::Answer(200, page), NO_QUEUES]);
        assert!(script.client().queues().await.unwrap().is_empty(), "a read is repeated");

        let script = Script::new([Play::Answer(200, page)]);
        let error = script.client().consume(&source(), &ConsumeOptions::default()).await.unwrap_err();
        assert!(error.is_retryable() && error.is_unsure(), "{error}");
        let shown = "the answer (200 OK) cannot be read";
        assert!(error.to_string().contains(shown) && error.to_string().contains(&format!("{page:?}")), "{error}");

        let script = Script::new([Play::Answer(201, page)]);
        let error = script.client().send(&queue(), &one_message()).await.unwrap_err();
        assert!(error.is_retryable() && error.is_unsure(), "{error}");

        let script = Script::new([Play::Answer(200, page), LEASE_LOST]);
        let error = script.client().acknowledge(&source(), &acks()).await.unwrap_err();
        assert!(error.is_unsure() && !error.is_lost_lease(), "it may have counted: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_beginning_of_an_unreadable_answer_is_shown() {
    let page: &str = format!("<html>{}", "x".repeat(100_000)).leak();
    let error = Script::new([Play::Answer(200, page)]).client().consume(&source(), &ConsumeOptions::default()).await;
    let text = error.unwrap_err().to_string();
    assert!(text.len() < 400 && text.contains("<html>xxx") && text.contains('…'), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_consume_is_not_repeated_when_messages_may_have_been_leased() {
    let script = Script::new([Play::Lose]);
    let error = script.client().consume(&source(), &ConsumeOptions::default()).await.unwrap_err();
    assert!(error.is_unsure());
    let script = Script::new([FAULT, THROTTLED, EMPTY]);
    assert!(script.client().consume(&source(), &ConsumeOptions::default()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_consume_includes_its_poll_wait() {
    let script = Script::new([EMPTY, EMPTY]);
    let filter = TagFilter { tags: vec!["a".into(), "b".into()], mode: TagMode::And };
    let options = ConsumeOptions::new()
        .max_messages(3)
        .poll_wait(Duration::from_millis(19_001))
        .ack_wait(Duration::from_secs(60))
        .filter(filter);
    let client = script.client();
    client.consume(&source(), &options).await.unwrap();
    let options = options.filter(TagFilter::default());
    client.consume(&SourcePath { stream: Stream::DeadLetters, ..source() }, &options).await.unwrap();
    assert_eq!(
        script.requests(),
        [
            "GET /v2/p1/queues/q1/groups/g-1/messages?max_msgs=3&time_wait=20&ack_wait=60&tag=a&tag=b&tag_type=and",
            "GET /v2/p1/queues/q1/groups/g-1/deadletters?max_msgs=3&time_wait=20&ack_wait=60",
        ]
    );
    assert!(script.timeouts()[0] > Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_after_an_unsure_acknowledgement_is_unknown_and_not_failed() {
    let script = Script::new([Play::Lose, LEASE_LOST]);
    let error = script.client().acknowledge(&source(), &acks()).await.unwrap_err();
    assert!(error.is_unsure() && !error.is_lost_lease());

    let script = Script::new([LEASE_LOST]);
    let error = script.client().acknowledge(&source(), &acks()).await.unwrap_err();
    assert!(error.is_lost_lease() && !error.is_unsure());
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_is_tried_until_its_deadline() {
    let script = Script::new(std::iter::repeat_n(Play::Refuse, 8).chain([ACKED]));
    let deadline = Instant::now() + Duration::from_secs(40);
    let outcome = script.client().acknowledge_until(&source(), &acks(), deadline).await.unwrap();
    assert_eq!((outcome.success, outcome.fail), (1, 0));

    let script = Script::new(std::iter::repeat_n(Play::Refuse, 50));
    let deadline = Instant::now() + Duration::from_secs(5);
    assert!(script.client().acknowledge_until(&source(), &acks(), deadline).await.is_err());
    assert!(Instant::now() < deadline);

    let script = Script::new([Play::Hang]);
    let deadline = Instant::now() + Duration::from_secs(2);
    let error = script.client().acknowledge_until(&source(), &acks(), deadline).await.unwrap_err();
    assert!(error.is_unsure() && error.is_timeout());
    assert_eq!(script.timeouts(), [Duration::from_secs(2)]);
    assert!(script.client().acknowledge_until(&source(), &acks(), deadline).await.unwrap_err().is_timeout());
    assert_eq!(script.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn limits_are_checked_before_anything_is_sent() {
    let script = Script::default();
    let client = script.client();
    let large = Message::text(&"x".repeat(MAX_BYTES));
    let half = Message::text(&"x".repeat(MAX_BYTES / 2));
    for (messages, expected) in [
        (vec![], "number of messages is 0"),
        (vec![Message::text(""); 11], "number of messages is 11"),
        (vec![large], "message 0: size of the messages is 524290 bytes"),
        (vec![half.clone(), half], "size of the messages is"),
        (vec![Message::text(""), Message::text("").tag("a b")], "message 1: label is \"a b\""),
        (vec![Message::text("").delay(Duration::from_secs(366 * 86_400 + 1))], "message 0: delay is"),
    ] {
        let error = client.send(&queue(), &messages).await.unwrap_err();
        assert!(error.is_limit() && error.to_string().contains(expected), "{error}");
    }
    for options in [
        ConsumeOptions::new().max_messages(0),
        ConsumeOptions::new().poll_wait(Duration::from_millis(60_001)),
        ConsumeOptions::new().ack_wait(Duration::from_secs(14)),
    ] {
        assert!(client.consume(&source(), &options).await.unwrap_err().is_limit());
    }
    let kafka = NewQueue::new("k").mode(QueueMode::KafkaHa).dead_letters_after(3);
    for bad in
        [NewQueue::new(""), NewQueue::new("q").dead_letters_after(101), NewQueue::new("q").retention_hours(3), kafka]
    {
        assert!(client.create_queue(bad).await.unwrap_err().is_limit());
    }
    assert!(client.acknowledge(&source(), &[]).await.unwrap_err().is_limit());
    assert!(client.create_groups(&queue(), &["a b"]).await.unwrap_err().is_limit());
    assert_eq!(script.requests(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_id_cannot_name_another_resource() {
    let script = Script::new([Play::Answer(204, "")]);
    let client = script.client();
    for id in ["", ".", ".."] {
        assert!(client.delete_queue(&QueueId::from(id)).await.is_err(), "{id:?}");
    }
    client.delete_queue(&QueueId::from("a/../b?c")).await.unwrap();
    assert_eq!(script.requests(), ["DELETE /v2/p1/queues/a%2F..%2Fb%3Fc"]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_was_just_created_is_waited_for() {
    let created = Play::Answer(201, r#"{"id":"q1","name":"orders"}"#);
    let creating = Play::Answer(400, r#"{"error_code":"DMS.10240032","error_msg":"The queue is being created."}"#);
    let script = Script::new([created, creating, MISSING, MISSING, SENT]);
    let client = script.client();
    let created = client.create_queue(NewQueue::new("orders")).await.unwrap();
    client.send(&created.id, &one_message()).await.unwrap();

    let script = Script::new([MISSING]);
    let error = script.client().send(&created.id, &one_message()).await.unwrap_err();
    assert!(error.is_not_found());
}

#[tokio::test(start_paused = true)]
async fn a_creation_whose_answer_was_lost_is_found_by_its_name() {
    let exists = Play::Answer(400, r#"{"error_code":"DMS.10240017","error_msg":"The queue already exists."}"#);
    let list = Play::Answer(200, r#"{"total":1,"queues":[{"id":"q7","name":"orders","queue_mode":"NORMAL"}]}"#);
    let script = Script::new([Play::Lose, exists.clone(), list.clone()]);
    assert_eq!(script.client().create_queue(NewQueue::new("orders")).await.unwrap().id, QueueId::from("q7"));

    let fifo = NewQueue::new("orders").mode(QueueMode::Fifo);
    let script = Script::new([Play::Lose, exists.clone(), list]);
    assert!(script.client().create_queue(fifo).await.unwrap_err().is_exists());

    let script = Script::new([exists]);
    assert!(script.client().create_queue(NewQueue::new("orders")).await.unwrap_err().is_exists());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_whose_answer_was_lost_worked_if_nothing_is_there() {
    let script = Script::new([Play::Lose, MISSING]);
    script.client().delete_queue(&queue()).await.unwrap();
    let script = Script::new([MISSING]);
    assert!(script.client().delete_queue(&queue()).await.unwrap_err().is_not_found());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_is_reported_with_the_existing_ones() {
    let list = Play::Answer(200, r#"{"queues":[{"id":"q1","name":"orders"},{"id":"q2","name":"bills"}]}"#);
    let script = Script::new([list.clone(), list]);
    let client = script.client();
    assert_eq!(client.find_queue("bills").await.unwrap().id, QueueId::from("q2"));
    let error = client.find_queue("other").await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), r#"find queue: there is no queue "other"; there are orders, bills"#);
}

#[tokio::test(start_paused = true)]
async fn a_refused_signature_stops_all_clones_of_the_client() {
    let script = Script::new([BAD_SIGNATURE]);
    let client = script.builder().access_key("AK1", "S3CRET").build().unwrap();
    let error = client.queues().await.unwrap_err();
    assert!(error.is_auth());
    assert_eq!(error.request_id(), Some("r9"));
    let clone = client.clone();
    let later = join_all((0..5).map(|_| clone.queues())).await;
    assert!(later.into_iter().all(|result| result.is_err_and(|error| error.is_auth())));
    let error = clone.queues().await.unwrap_err();
    assert!(error.is_auth() && error.to_string().contains("nothing is sent any more"), "{error}");
    assert_eq!(script.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_callers_with_a_wrong_key_do_not_lock_it() {
    let script = Script::new(std::iter::repeat_n(BAD_SIGNATURE, 64));
    let client = script.builder().access_key("AK1", "S3CRET").build().unwrap();
    let results = join_all((0..64).map(|_| client.queues())).await;
    assert!(results.into_iter().all(|result| result.is_err_and(|error| error.is_auth())));
    assert!(script.requests().len() < 5, "{} bad signatures", script.requests().len());
}

#[tokio::test(start_paused = true)]
async fn an_accepted_key_delays_no_caller() {
    let script = Script::new([MISSING, Play::Hang].into_iter().chain(std::iter::repeat_n(NO_QUEUES, 40)));
    let client = script.builder().access_key("AK1", "S3CRET").build().unwrap();
    assert!(client.queue(&queue()).await.unwrap_err().is_not_found());
    let started = Instant::now();
    let id = queue();
    let slow = client.delete_queue(&id);
    let (_, results) = tokio::join!(slow, async {
        let results = join_all((0..38).map(|_| client.queues())).await;
        (results, started.elapsed())
    });
    assert!(results.0.iter().all(Result::is_ok) && results.1 < Duration::from_secs(1));
}

/// After a refusal of a key that has worked, nothing is sent for a while, then one request of any caller.
#[tokio::test(start_paused = true)]
async fn a_key_that_has_worked_is_tried_again_by_one_request() {
    let refusals = std::iter::repeat_n(BAD_SIGNATURE, 3);
    let script = Script::new([NO_QUEUES].into_iter().chain(refusals).chain(std::iter::repeat_n(NO_QUEUES, 10)));
    let client = script.builder().access_key("AK1", "S3CRET").build().unwrap();
    client.queues().await.unwrap();
    let mut last = Duration::ZERO;
    for sent in 2..5 {
        let error = client.queues().await.unwrap_err();
        assert!(error.is_auth() && error.is_retryable() && !error.is_unsure(), "{error}");
        assert!(error.to_string().contains("then tries again"), "{error}");
        let pause = error.retry_after().unwrap();
        assert!((Duration::from_secs(30)..=Duration::from_secs(300)).contains(&pause) && pause > last, "{pause:?}");
        last = pause;
        tokio::time::advance(pause - Duration::from_millis(1)).await;
        for result in join_all((0..10).map(|_| client.queues())).await {
            let error = result.unwrap_err();
            assert!(error.is_auth() && error.to_string().contains("nothing was sent"), "{error}");
        }
        assert_eq!(script.requests().len(), sent);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let results = join_all((0..10).map(|_| client.queues())).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "one request tries");
    assert_eq!(script.requests().len(), 5);
    client.queues().await.unwrap();
}

/// A trial that is abandoned, or says nothing about the key, is followed by the next request.
#[tokio::test(start_paused = true)]
async fn a_trial_without_a_verdict_is_followed_by_another() {
    let script = Script::new([NO_QUEUES, BAD_SIGNATURE, Play::Hang, Play::Refuse, FAULT, NO_QUEUES]);
    let builder = script.builder().access_key("AK1", "S3CRET").retry(dms_worker::retry::RetryPolicy::never());
    let client = builder.build().unwrap();
    client.queues().await.unwrap();
    let pause = client.queues().await.unwrap_err().retry_after().unwrap();
    tokio::time::advance(pause).await;
    assert!(tokio::time::timeout(Duration::from_secs(1), client.queues()).await.is_err());
    assert!(client.queues().await.unwrap_err().is_connect());
    assert_eq!(client.queues().await.unwrap_err().status().unwrap(), 500);
    client.queues().await.unwrap();
}

/// Requests in transit when the key was refused say nothing about later ones, and lengthen no pause.
#[tokio::test(start_paused = true)]
async fn requests_refused_together_are_one_refusal() {
    let refusals = std::iter::repeat_n(BAD_SIGNATURE, 20);
    let script = Script::new([NO_QUEUES].into_iter().chain(refusals).chain([NO_QUEUES]));
    let client = script.builder().access_key("AK1", "S3CRET").build().unwrap();
    client.queues().await.unwrap();
    for result in join_all((0..20).map(|_| client.queues())).await {
        let error = result.unwrap_err();
        assert!(error.is_retryable() && error.retry_after().unwrap() < Duration::from_secs(38), "{error}");
    }
    tokio::time::advance(Duration::from_secs(38)).await;
    client.queues().await.unwrap();
}

/// A locked key and a wrong clock are temporary, also for a key that never worked.
#[tokio::test(start_paused = true)]
async fn a_locked_key_and_a_wrong_clock_are_waited_for_from_the_start() {
    const LOCKED: &str = r#"{"error_code":"APIGW.0301","error_msg":"AK access failed to reach the limit,forbidden"}"#;
    const EXPIRED: &str = r#"{"error_code":"APIGW.0301","error_msg":"calc ak sk signature fail:signature expired"}"#;
    for (text, remedy) in [(LOCKED, "find out who uses this key"), (EXPIRED, "set the clock of this machine")] {
        let script = Script::new([Play::Answer(401, text), NO_QUEUES]);
        let client = script.builder().access_key("AK1", "S3CRET").build().unwrap();
        let error = client.queues().await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains(remedy), "{error}");
        tokio::time::advance(error.retry_after().unwrap()).await;
        client.queues().await.unwrap();
    }
}

/// An acknowledgement that has a deadline waits for the key within it.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_waits_for_the_key_within_its_deadline() {
    let script = Script::new([NO_QUEUES, BAD_SIGNATURE, ACKED]);
    let client = script.builder().access_key("AK1", "S3CRET").build().unwrap();
    client.queues().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    client.acknowledge_until(&source(), &acks(), deadline).await.unwrap();
    let script = Script::new([NO_QUEUES, BAD_SIGNATURE]);
    let client = script.builder().access_key("AK1", "S3CRET").build().unwrap();
    client.queues().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let error = client.acknowledge_until(&source(), &acks(), deadline).await.unwrap_err();
    assert!(error.is_auth() && !error.is_unsure(), "{error}");
}

/// A proxy's own answers do not prove a key: a wrong one still stops the client.
#[tokio::test(start_paused = true)]
async fn only_the_service_proves_a_key() {
    let script = Script::new([Play::Answer(404, "not here"), BAD_SIGNATURE]);
    let client = script.builder().access_key("AK1", "S3CRET").build().unwrap();
    assert!(client.queues().await.unwrap_err().is_not_found());
    assert!(!client.queues().await.unwrap_err().is_retryable());
    assert!(client.queues().await.unwrap_err().to_string().contains("nothing is sent any more"));
}

/// The password of an IAM user that is refused later: the token is used while it is valid, then the client waits.
#[tokio::test(start_paused = true)]
async fn a_password_that_has_worked_is_waited_for() {
    let wrong = Play::Answer(401, r#"{"error":{"code":401,"message":"The username or password is wrong."}}"#);
    let script = Script::new(
        [token("t1"), NO_QUEUES, wrong.clone(), NO_QUEUES, NO_QUEUES, wrong]
            .into_iter()
            .chain([token("t2"), NO_QUEUES]),
    );
    let client = script.builder().iam(iam()).build().unwrap();
    client.queues().await.unwrap();
    tokio::time::advance(Duration::from_secs(23 * 3600)).await;
    client.queues().await.unwrap();
    client.queues().await.unwrap();
    tokio::time::advance(Duration::from_secs(3600)).await;
    let error = client.queues().await.unwrap_err();
    assert!(error.is_auth() && error.is_retryable(), "{error}");
    tokio::time::advance(error.retry_after().unwrap()).await;
    client.queues().await.unwrap();
    assert_eq!(script.requests().len(), 8);
}

/// A token that cannot be renewed is waited for too once it has worked: it may be accepted again.
#[tokio::test(start_paused = true)]
async fn a_fixed_token_that_has_worked_is_waited_for() {
    let script = Script::new([BAD_SIGNATURE, NO_QUEUES, BAD_SIGNATURE]);
    let client = script.builder().token("T").build().unwrap();
    assert!(!client.queues().await.unwrap_err().is_retryable());
    client.queues().await.unwrap();
    assert!(client.queues().await.unwrap_err().is_retryable());
    assert!(client.queues().await.unwrap_err().to_string().contains("nothing was sent"));
}

#[tokio::test(start_paused = true)]
async fn an_unsigned_client_is_not_stopped_by_a_refusal() {
    let script = Script::new([BAD_SIGNATURE, NO_QUEUES]);
    let client = script.client();
    assert!(client.queues().await.unwrap_err().is_auth());
    client.queues().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_signed_request_has_the_headers_that_it_signs() {
    let script = Script::new([NO_QUEUES]);
    let client = script.builder().access_key("AK1", "S3CRET").security_token("T0KEN").build().unwrap();
    client.queues().await.unwrap();
    let authorization = script.header("authorization")[0].clone().unwrap();
    assert!(
        authorization.starts_with(
            "SDK-HMAC-SHA256 Access=AK1, SignedHeaders=content-type;host;x-project-id;x-sdk-date;x-security-token, "
        ),
        "{authorization}"
    );
    assert_eq!(script.header("x-security-token"), [Some("T0KEN".to_owned())]);
    assert_eq!(script.header("host"), [Some("dms.test".to_owned())]);
}

const TOKEN: &str = r#"{"token":{"issued_at":"2026-11-22T20:00:00.000000Z","expires_at":"2026-11-23T20:00:00.000000Z",
    "project":{"id":"p-of-token","name":"eu-de"}}}"#;

fn token(text: &'static str) -> Play {
    Play::With(201, TOKEN, "x-subject-token", text)
}

fn iam() -> IamCredentials {
    IamCredentials::new("https://iam.test/v3/", Scope::ProjectName("eu-de".into())).user("u", "d").password("pw")
}

#[tokio::test(start_paused = true)]
async fn one_token_is_fetched_for_many_callers_and_names_the_project() {
    let script = Script::new([token("t1")].into_iter().chain(std::iter::repeat_n(NO_QUEUES, 20)));
    let transport = std::sync::Arc::new(script.clone());
    let client = dms_worker::Client::builder("http://dms.test", "").transport(transport).iam(iam()).build().unwrap();
    let results = join_all((0..20).map(|_| client.queues())).await;
    assert!(results.iter().all(Result::is_ok));
    let requests = script.requests();
    assert!(requests[0].starts_with("POST /v3/auth/tokens "), "{}", requests[0]);
    assert!(requests[1].starts_with("GET /v2/p-of-token/queues"), "{}", requests[1]);
    assert_eq!(requests.len(), 21);
    assert_eq!(script.header("x-auth-token")[1..], vec![Some("t1".to_owned()); 20]);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_ends_and_once_after_a_refusal() {
    let expired = Play::Answer(401, r#"{"error_code":"APIGW.0307","error_msg":"The token must be updated."}"#);
    let script = Script::new([token("t1"), NO_QUEUES, token("t2"), NO_QUEUES, expired.clone(), token("t3"), NO_QUEUES]);
    let client = script.builder().iam(iam()).build().unwrap();
    client.queues().await.unwrap();
    tokio::time::advance(Duration::from_secs(23 * 3600)).await;
    client.queues().await.unwrap();
    client.queues().await.unwrap();
    let tokens: Vec<_> = script.header("x-auth-token").into_iter().flatten().collect();
    assert_eq!(tokens, ["t1", "t2", "t2", "t3"]);

    let script = Script::new([token("t1"), expired.clone(), token("t2"), expired]);
    let client = script.builder().iam(iam()).build().unwrap();
    assert!(client.queues().await.unwrap_err().is_auth());
    assert!(client.queues().await.unwrap_err().is_auth());
    assert_eq!(script.requests().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_tried_once() {
    let script =
        Script::new([Play::Answer(401, r#"{"error":{"code":401,"message":"The username or password is wrong."}}"#)]);
    let client = script.builder().iam(iam()).build().unwrap();
    let error = client.queues().await.unwrap_err();
    assert!(error.is_auth());
    assert!(error.to_string().contains("The username or password is wrong"), "{error}");
    assert!(client.queues().await.unwrap_err().is_auth());
    assert_eq!(script.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn temporary_errors_of_iam_are_retried() {
    let script = Script::new([Play::Refuse, Play::Answer(503, ""), token("t1"), NO_QUEUES]);
    script.builder().iam(iam()).build().unwrap().queues().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_project_is_looked_up_by_its_name_once() {
    let projects = Play::Answer(200, r#"{"projects":[{"id":"p-9","name":"cn-north-4"}]}"#);
    let script = Script::new([projects, NO_QUEUES, NO_QUEUES]);
    let client = dms_worker::Client::builder("http://dms.test", ProjectId::from(""))
        .transport(std::sync::Arc::new(script.clone()))
        .access_key("AK1", "S3CRET")
        .project_name("cn-north-4", "https://iam.test")
        .build()
        .unwrap();
    client.queues().await.unwrap();
    client.queues().await.unwrap();
    assert_eq!(script.requests()[0], "GET /v3/projects?name=cn-north-4");
    assert!(script.requests()[2].starts_with("GET /v2/p-9/queues"));
    assert!(script.header("authorization")[0].is_some());
}

#[tokio::test(start_paused = true)]
async fn a_body_is_sent_byte_for_byte() {
    let script = Script::new([SENT]);
    let body = Body::raw(r#"{"big":12345678901234567890123, "x" : [1,2]}"#).unwrap();
    script.client().send(&queue(), &[Message::new(body)]).await.unwrap();
    assert!(script.requests()[0].ends_with(r#"{"messages":[{"body":{"big":12345678901234567890123, "x" : [1,2]}}]}"#));
}

/// A rotated key is used at once, by all clones, and also after the previous one was refused. A wrong key in place of one that has
/// worked is waited out.
#[tokio::test(start_paused = true)]
async fn a_rotated_key_replaces_the_previous_one() {
    let script = Script::new([NO_QUEUES, BAD_SIGNATURE, NO_QUEUES]);
    let with_key = |key: &str| script.builder().access_key(key, "S3CRET").build().unwrap();
    let client = with_key("AK1");
    let clone = client.clone();
    client.queues().await.unwrap();
    client.authorize_as(&with_key("AK2"));
    let error = clone.queues().await.unwrap_err();
    assert!(error.is_auth() && error.is_retryable() && error.to_string().contains("then tries again"), "{error}");
    client.authorize_as(&with_key("AK3"));
    clone.queues().await.unwrap();
    let key = |header: Option<String>| header?.split("Access=").nth(1)?.split(',').next().map(str::to_owned);
    let keys: Vec<_> = script.header("authorization").into_iter().filter_map(key).collect();
    assert_eq!(keys, ["AK1", "AK2", "AK3"]);
}
