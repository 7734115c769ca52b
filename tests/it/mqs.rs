//! The client, the producer and the worker over ROMA Connect MQS: the documents of its developer guide (pages 3012 to 3014)
//! against a script, and this project's server at the other end.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use dms_server::{AccessKey, MqsConfig, Project, Rights, Server, ServerConfig, clock::Clock};
use dms_worker::{
    ApiVersion, Client, ClientBuilder, Dialect, Producer, ProducerBuilder, Redrive, SendOptions,
    auth::{IamCredentials, Scope},
    client::ConsumeOptions,
    message::{AckHandle, AckStatus, Message},
    queue::{NewQueue, QueueId, SourcePath, TagFilter},
    redrive::Sweep,
    transport::{InProcess, Transport, TransportError},
    worker::{
        Batching, Delivery, HandlerError, MaxMessages, OnFailure, OnReject, OnStuck, OnUndecodable, Ordering, Rate,
        Republish, Worker, WorkerBuilder, batch_handler_fn, handler_fn,
    },
};
use http::{Request, Response};
use serde_json::{Value, json};

use crate::{
    log::Log,
    script::{Play, Script},
};

fn topic() -> QueueId {
    QueueId::from("T")
}

fn source() -> SourcePath {
    SourcePath::messages("T", "G")
}

fn mqs(script: &Script) -> Client {
    script.builder().dialect(Dialect::Mqs).build().unwrap()
}

/// The documented request and answer of each call.
#[tokio::test]
async fn the_documented_calls_are_made() {
    let produced = r#"[{"state":"success","id":"1"},{"state":"success","id":"2"}]"#;
    let consumed = r#"[{"handler":"NCMxMDAjMTgjMA==","message":{"content":"ImhlbGxvIGh1YXdlaWNsb3VkLTIi"}}]"#;
    let script = Script::new([
        Play::Answer(200, produced),
        Play::Answer(200, consumed),
        Play::Answer(200, r#"{"success":1,"fail":0}"#),
    ]);
    let client = mqs(&script);
    let sent = client.send(&topic(), &[Message::text("hello roma-1"), Message::text("hello roma-2")]).await.unwrap();
    assert!(
        sent.len() == 2 && sent.iter().all(|outcome| outcome.as_ref().is_ok_and(|sent| sent.id.is_none())),
        "{sent:?}"
    );
    let options = ConsumeOptions::new().ack_wait(Duration::from_secs(15));
    let received = client.consume(&source(), &options).await.unwrap();
    assert_eq!(received[0].body.as_str(), r#""hello huaweicloud-2""#);
    let acks = [(received[0].handle.clone(), AckStatus::Success)];
    let outcome = client.acknowledge(&source(), &acks).await.unwrap();
    assert_eq!((outcome.success, outcome.fail), (1, 0));
    assert_eq!(
        script.requests(),
        [
            r#"POST /v1/topic/T/messages {"messages":[{"content":"hello roma-1","id":"1"},{"content":"hello roma-2","id":"2"}]}"#,
            "GET /v1/topic/T/group/G/messages?max_msgs=10&time_wait=3&ack_wait=15",
            r#"POST /v1/topic/T/group/G/messages {"messages":[{"handler":"NCMxMDAjMTgjMA==","status":"success"}]}"#,
        ]
    );
}

/// One message of a request may fail. It was not stored, and may be sent again.
#[tokio::test]
async fn a_message_that_was_not_stored_is_an_error_of_its_own() {
    let script = Script::new([Play::Answer(200, r#"[{"state":"fail","id":"1"},{"state":"success","id":"2"}]"#)]);
    let sent = mqs(&script).send(&topic(), &[Message::text("a"), Message::text("b")]).await.unwrap();
    let error = sent[0].as_ref().unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("state: fail"), "{error}");
    assert!(sent[1].is_ok());
}

/// The documents name no codes, so errors are judged by their status.
#[tokio::test(start_paused = true)]
async fn unknown_errors_are_judged_by_their_status() {
    let body = r#"{"error_code":"MQS.0001","error_msg":"busy","request_id":"r-1"}"#;
    let script = Script::new([Play::Answer(503, body), Play::Answer(200, "[]"), Play::Answer(403, body)]);
    let client = mqs(&script);
    assert!(client.consume(&source(), &ConsumeOptions::new()).await.is_ok_and(|received| received.is_empty()));
    let error = client.consume(&source(), &ConsumeOptions::new()).await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("busy"), "{error}");
}

/// What MQS would lose is refused before anything is sent, with the alternative.
#[tokio::test]
async fn what_mqs_cannot_carry_is_refused() {
    let script = Script::new([]);
    let client = mqs(&script);
    for (message, expected) in [
        (Message::text("a").attribute("n", 1), "attributes"),
        (Message::text("a").tag("red"), "labels"),
        (Message::text("a").delay(Duration::from_secs(1)), "delay"),
    ] {
        let error = client.send(&topic(), &[message]).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("ROMA Connect MQS"), "{error}");
    }
    let error =
        client.send_with(&topic(), &[Message::text("a")], SendOptions::new().return_ids(true)).await.unwrap_err();
    assert!(error.to_string().contains("return_ids"), "{error}");
    let labels = TagFilter { tags: vec!["red".to_owned()], ..TagFilter::default() };
    for (source, options) in [
        (source(), ConsumeOptions::new().filter(labels)),
        (SourcePath::dead_letters("T", "G"), ConsumeOptions::new()),
        (source(), ConsumeOptions::new().poll_wait(Duration::from_secs(31))),
        (source(), ConsumeOptions::new().ack_wait(Duration::ZERO)),
    ] {
        client.consume(&source, &options).await.unwrap_err();
    }
    for error in [
        client.queues().await.unwrap_err(),
        client.create_queue(NewQueue::new("q")).await.unwrap_err(),
        client.groups(&topic()).await.unwrap_err(),
        client.quotas().await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("has no such call") && !error.is_retryable(), "{error}");
    }
    assert_eq!(script.requests(), [""; 0], "nothing was sent");
}

/// Extensions of this project's server are neither asked for nor believed.
#[tokio::test]
async fn a_failure_is_plain() {
    let script = Script::new([
        Play::With(200, "[]", "x-dms-extensions", "release, reject, reason, message-id, end-poll"),
        Play::Answer(200, r#"{"success":0,"fail":1}"#),
    ]);
    let client = mqs(&script);
    client.consume(&source(), &ConsumeOptions::new()).await.unwrap();
    client.acknowledge(&source(), &[(AckHandle::new("h"), AckStatus::Reject)]).await.unwrap();
    assert!(
        script.requests()[1].ends_with(r#"{"messages":[{"handler":"h","status":"fail"}]}"#),
        "{:?}",
        script.requests()
    );
}

async fn server() -> (Server, Client) {
    let clock = Clock::following_tokio(SystemTime::now());
    let project = Project::new("p1").access_key("sasl-user", "sasl-password");
    let config = ServerConfig::default().projects(vec![project]).clock(clock).mqs(MqsConfig::new());
    let server = Server::bind(config).await.unwrap();
    let transport = Arc::new(InProcess::new(server.mqs_service().unwrap()));
    let client = Client::builder("http://mqs.test", "").dialect(Dialect::Mqs).transport(transport);
    let client = client.access_key("sasl-user", "sasl-password").build().unwrap();
    (server, client)
}

/// A message that is rejected goes to the parking topic, with its history in the body. The others are handled once, in the leases
/// of MQS, and none is lost.
#[tokio::test(start_paused = true)]
async fn a_worker_runs_over_the_dialect() {
    let (server, client) = server().await;
    let producer = Producer::builder(client.clone(), "orders").build().unwrap();
    for number in 0..50 {
        producer.send(Message::json(&number).unwrap()).await.unwrap();
    }
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        handler_fn(move |delivery: Delivery| {
            let seen = Arc::clone(&seen);
            async move {
                let number: u64 = delivery.json()?;
                if number == 7 {
                    return Err(HandlerError::reject("seven"));
                }
                seen.lock().unwrap().push(number);
                Ok(())
            }
        })
    };
    let worker = Worker::builder(client.clone())
        .queue("orders")
        .group("billing")
        .handler(handler)
        .ack_wait(Duration::from_secs(1))
        .poll_wait(Duration::from_secs(5))
        .on_reject(OnReject::Park("parked".to_owned()))
        .build()
        .unwrap();
    let handle = worker.handle();
    let running = tokio::spawn(worker.run(std::future::pending()));
    while seen.lock().unwrap().len() < 49 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let parked = client.consume(&SourcePath::messages("parked", "ops"), &ConsumeOptions::new()).await.unwrap();
    let parked: Value = parked[0].body.parse().unwrap();
    assert_eq!((&parked["body"], &parked["attributes"]["dms-reason"]), (&json!(7), &json!("rejected")));
    assert!(parked["attributes"]["dms-error"].as_str().is_some_and(|error| error.contains("seven")), "{parked}");
    handle.stop();
    running.await.unwrap().unwrap();
    let mut handled = std::mem::take(&mut *seen.lock().unwrap());
    handled.sort_unstable();
    handled.dedup();
    assert_eq!(handled.len(), 49, "each of the others was handled");
    let left = client.consume(&SourcePath::messages("orders", "billing"), &ConsumeOptions::new()).await.unwrap();
    assert_eq!(left.len(), 0, "everything was acknowledged");
    server.close().await;
}

/// A failed message is redelivered until it succeeds, and its neighbours with it at most once more.
#[tokio::test(start_paused = true)]
async fn a_failure_is_redelivered_over_the_dialect() {
    let (server, client) = server().await;
    for number in 0..5 {
        client.send(&QueueId::from("t"), &[Message::json(&number).unwrap()]).await.unwrap();
    }
    let calls: Arc<Mutex<Vec<u64>>> = Arc::default();
    let handler = {
        let calls = Arc::clone(&calls);
        handler_fn(move |delivery: Delivery| {
            let calls = Arc::clone(&calls);
            async move {
                let number: u64 = delivery.json()?;
                let failures = {
                    let mut calls = calls.lock().unwrap();
                    calls.push(number);
                    calls.iter().filter(|call| **call == number).count()
                };
                if number == 2 && failures < 4 { Err(HandlerError::retry("not yet")) } else { Ok(()) }
            }
        })
    };
    let worker = Worker::builder(client.clone()).queue("t").group("g").handler(handler);
    let worker = worker.max_messages(MaxMessages::Fixed(5)).poll_wait(Duration::from_secs(1)).build().unwrap();
    let handle = worker.handle();
    let running = tokio::spawn(worker.run(std::future::pending()));
    while calls.lock().unwrap().iter().filter(|call| **call == 2).count() < 4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    handle.stop();
    running.await.unwrap().unwrap();
    let left = client.consume(&SourcePath::messages("t", "g"), &ConsumeOptions::new()).await.unwrap();
    assert_eq!(left.len(), 0, "everything was acknowledged");
    server.close().await;
}

/// Runs a worker of topic `t` until `is_over`, and returns the numbers that its handler was called with, in order.
async fn run_until(
    client: &Client,
    set: impl FnOnce(WorkerBuilder) -> WorkerBuilder,
    handle: impl Fn(u64, &Delivery) -> Result<(), HandlerError> + Send + Sync + 'static,
    is_over: impl Fn(&[u64]) -> bool,
) -> Vec<u64> {
    let calls: Arc<Mutex<Vec<u64>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let handler = handler_fn(move |delivery: Delivery| {
        let number: Value = delivery.json().unwrap();
        let number = number["n"].as_u64().unwrap();
        seen.lock().unwrap().push(number);
        let outcome = handle(number, &delivery);
        async move { outcome }
    });
    let builder = Worker::builder(client.clone()).queue("t").group("g").poll_wait(Duration::from_secs(5));
    let worker = set(builder.handler(handler)).build().unwrap();
    let handle = worker.handle();
    let running = tokio::spawn(worker.run(std::future::pending()));
    while !is_over(&calls.lock().unwrap()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Long enough for acknowledgements and further attempts.
    tokio::time::sleep(Duration::from_secs(120)).await;
    handle.stop();
    running.await.unwrap().unwrap();
    std::mem::take(&mut *calls.lock().unwrap())
}

async fn left(client: &Client, topic: &str, group: &str) -> Vec<Value> {
    let received = client.consume(&SourcePath::messages(topic, group), &ConsumeOptions::new()).await.unwrap();
    received.iter().map(|message| message.body.parse().unwrap()).collect()
}

/// MQS redelivers without end and counts nothing. The worker counts, keeps growing pauses, and parks the message with its history.
#[tokio::test(start_paused = true)]
async fn a_poison_message_is_parked_after_its_attempts() {
    for (set, attempts) in [(None, 5), (Some(3), 3)] {
        let (server, client) = server().await;
        for n in 0..20 {
            client.send(&QueueId::from("t"), &[Message::json(&json!({"n": n})).unwrap()]).await.unwrap();
        }
        let began = tokio::time::Instant::now();
        let last = Arc::new(Mutex::new(began));
        let ended = Arc::clone(&last);
        let calls = run_until(
            &client,
            |builder| {
                let builder = builder.on_reject(OnReject::Park("parked".to_owned()));
                match set {
                    Some(attempts) => builder.max_attempts(attempts),
                    None => builder,
                }
            },
            move |n, delivery| {
                if n != 7 {
                    return Ok(());
                }
                *ended.lock().unwrap() = tokio::time::Instant::now();
                Err(HandlerError::retry(format!("attempt {}", delivery.attempt())))
            },
            |calls| calls.iter().filter(|n| **n == 7).count() == attempts,
        )
        .await;
        assert_eq!(calls.iter().filter(|n| **n == 7).count(), attempts, "the attempts end");
        assert!((0..20).all(|n| calls.contains(&n)), "{calls:?}");
        let pauses = Duration::from_secs((1 << (attempts - 1)) - 1);
        assert!(*last.lock().unwrap() - began >= pauses, "pauses grow from 1 s");
        let parked = left(&client, "parked", "ops").await;
        let [parked] = &parked[..] else { panic!("{parked:?}") };
        assert_eq!(parked["body"], json!({"n": 7}));
        let history = &parked["attributes"];
        assert_eq!((&history["dms-attempts"], &history["dms-reason"]), (&json!(attempts), &json!("failed")));
        assert_eq!(history["dms-error"], json!(format!("attempt {attempts}")));
        assert_eq!(history["dms-origin"], json!("t"));
        assert_eq!(left(&client, "t", "g").await, [json!(null); 0], "nothing is left");
        server.close().await;
    }
}

/// A message whose copy is refused is redelivered, and the log says why. It does not ask for a parking topic, which is set.
#[tokio::test(start_paused = true)]
async fn a_refused_copy_does_not_ask_for_what_is_set() {
    let (log, _guard) = Log::capture();
    let only = vec!["t".to_owned()];
    let rights = Rights::none().send(only.clone()).consume(only.clone()).manage(only);
    let mut project = Project::new("p1");
    project.access_keys.push(AccessKey::new("sasl-user", "sasl-password").rights(rights));
    let config = ServerConfig::default().projects(vec![project]).mqs(MqsConfig::new());
    let server = Server::bind(config.clock(Clock::following_tokio(SystemTime::now()))).await.unwrap();
    let transport = Arc::new(InProcess::new(server.mqs_service().unwrap()));
    let client = Client::builder("http://mqs.test", "").dialect(Dialect::Mqs).transport(transport);
    let client = client.access_key("sasl-user", "sasl-password").build().unwrap();
    client.send(&QueueId::new("t"), &[Message::json(&json!({"n": 0})).unwrap()]).await.unwrap();
    let calls = run_until(
        &client,
        |builder| builder.on_reject(OnReject::Park("parked".to_owned())),
        |_, _| Err(HandlerError::reject("never")),
        |calls| calls.len() >= 3,
    )
    .await;
    assert!(calls.len() >= 3, "it is not lost");
    let text = log.text();
    assert!(text.contains("the copy of a failed message could not be sent") && text.contains("DMS.10240311"), "{text}");
    assert!(!text.contains("set on_reject to park"), "{text}");
    server.close().await;
}

/// Without a place for it, the message is redelivered at growing intervals and never lost.
#[tokio::test(start_paused = true)]
async fn a_poison_message_without_a_parking_topic_is_kept() {
    let (server, client) = server().await;
    client.send(&QueueId::from("t"), &[Message::json(&json!({"n": 1})).unwrap()]).await.unwrap();
    let calls =
        run_until(&client, |builder| builder, |_, _| Err(HandlerError::retry("no")), |calls| calls.len() >= 6).await;
    assert!(calls.len() < 16, "{} attempts in two minutes: pauses grow", calls.len());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(left(&client, "t", "g").await, [json!({"n": 1})]);
    server.close().await;
}

/// MQS has no delays, so the lease keeps a deferred message back. It is no failure, so it is never parked.
#[tokio::test(start_paused = true)]
async fn a_deferred_message_waits_within_its_lease() {
    let (server, client) = server().await;
    client.send(&QueueId::from("t"), &[Message::json(&json!({"n": 1})).unwrap()]).await.unwrap();
    let calls: Arc<Mutex<Vec<tokio::time::Instant>>> = Arc::default();
    let times = Arc::clone(&calls);
    run_until(
        &client,
        |builder| builder.on_reject(OnReject::Park("parked".to_owned())),
        move |_, _| {
            let mut times = times.lock().unwrap();
            times.push(tokio::time::Instant::now());
            if times.len() > 7 { Ok(()) } else { Err(HandlerError::defer(Duration::from_secs(10))) }
        },
        |calls| calls.len() > 7,
    )
    .await;
    let times = std::mem::take(&mut *calls.lock().unwrap());
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(10)), "{times:?}");
    assert_eq!((left(&client, "t", "g").await.len(), left(&client, "parked", "ops").await.len()), (0, 0));
    server.close().await;
}

/// Messages of a key are handled one after the other, by a place in the body. Finished work is known by another place.
#[tokio::test(start_paused = true)]
async fn keys_are_read_from_the_body() {
    let (server, client) = server().await;
    for n in 0..24 {
        let message = Message::json(&json!({"n": n, "customer": {"id": n % 3}})).unwrap();
        client.send(&QueueId::from("t"), &[message]).await.unwrap();
    }
    let failed = std::sync::atomic::AtomicBool::new(false);
    let calls = run_until(
        &client,
        |builder| builder.ordering(Ordering::by_pointer("/customer/id")).unique_pointer("/n"),
        move |n, _| match n == 4 && !failed.swap(true, std::sync::atomic::Ordering::Relaxed) {
            true => Err(HandlerError::retry("once")),
            false => Ok(()),
        },
        |calls| calls.len() >= 25,
    )
    .await;
    for key in 0..3 {
        let of_key: Vec<u64> = calls.iter().copied().filter(|n| n % 3 == key).collect();
        let mut in_order: Vec<u64> = (0..24).filter(|n| n % 3 == key).collect();
        if key == 1 {
            in_order.insert(1, 4);
        }
        assert_eq!(of_key, in_order, "a second run only of the message that failed");
    }
    server.close().await;
}

/// Parked documents go back to their topics as the messages that they have; a redrive that would repeat itself ends.
#[tokio::test(start_paused = true)]
async fn parked_messages_are_redriven_from_their_documents() {
    let (server, client) = server().await;
    for n in 0..30 {
        client.send(&QueueId::from("t"), &[Message::json(&json!({"n": n})).unwrap()]).await.unwrap();
    }
    let park = |builder: WorkerBuilder| builder.on_reject(OnReject::Park("parked".to_owned()));
    run_until(&client, park, |_, _| Err(HandlerError::reject("no")), |calls| calls.len() >= 30).await;
    let other = Message::json(&json!({"of": "others"})).unwrap();
    client.send(&QueueId::from("parked"), &[other]).await.unwrap();
    let parked = SourcePath::messages("parked", "ops");
    let redrive = || Redrive::new(client.clone(), parked.clone());
    let dry = redrive().dry_run(true).run(std::future::pending()).await.unwrap();
    assert_eq!((dry.redriven, dry.refused), (31, 0));
    let only = redrive().only(|message| message.attributes.get_str("dms-origin").as_deref() == Some("t"));
    let report =
        only.attribute("dms-reason", "rejected").sweep(|sweep| sweep.max(10)).run(std::future::pending()).await;
    assert_eq!(report.unwrap().redriven, 10);
    let report = redrive().run(std::future::pending()).await.unwrap();
    assert_eq!((report.redriven, report.refused), (20, 1), "the other message came from nowhere");
    let calls = run_until(&client, park, |_, _| Ok(()), |calls| calls.len() >= 30).await;
    assert_eq!(calls.iter().collect::<BTreeSet<_>>().len(), 30, "{calls:?}");
    assert_eq!(left(&client, "parked", "ops").await, [json!({"of": "others"})], "it stays");
    server.close().await;
}

/// A network on which 15 % of the requests fail: lost on the way there or back, or answered with an error.
#[derive(Debug)]
struct Faulty {
    server: InProcess,
    dice: Mutex<fastrand::Rng>,
    calm: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Transport for Faulty {
    async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, TransportError> {
        let calm = self.calm.load(std::sync::atomic::Ordering::Relaxed);
        let roll = if calm { 100 } else { self.dice.lock().unwrap().u8(..100) };
        match roll {
            0..5 => Err(TransportError::unsure("the request was lost")),
            5..10 => {
                let _ = self.server.send(request, timeout).await;
                Err(TransportError::unsure("the answer was lost"))
            }
            10..15 => Ok(Response::builder().status(503).body(Bytes::from_static(b"busy")).unwrap()),
            _ => self.server.send(request, timeout).await,
        }
    }
}

/// Every message is handled or parked, and attempts end as configured, although each sixth or seventh request fails.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_on_a_bad_network() {
    const MESSAGES: u64 = 120;
    for seed in 0..8 {
        fastrand::seed(seed);
        let (server, calm) = server().await;
        let faulty = Arc::new(Faulty {
            server: InProcess::new(server.mqs_service().unwrap()),
            dice: Mutex::new(fastrand::Rng::with_seed(seed)),
            calm: false.into(),
        });
        let client = Client::builder("http://mqs.test", "").dialect(Dialect::Mqs).transport(faulty.clone());
        let client = client.access_key("sasl-user", "sasl-password").build().unwrap();
        let producer = Producer::builder(client.clone(), "t").allow_duplicates(true).build().unwrap();
        for n in 0..MESSAGES {
            producer.send(Message::json(&json!({"n": n})).unwrap()).await.unwrap();
        }
        let is_poison = |n: u64| n % 20 == 7;
        let calls = run_until(
            &client,
            |builder| builder.on_reject(OnReject::Park("parked".to_owned())).ack_wait(Duration::from_secs(4)),
            move |n, _| if is_poison(n) { Err(HandlerError::retry("no")) } else { Ok(()) },
            |calls| {
                (0..MESSAGES)
                    .all(|n| calls.iter().filter(|call| **call == n).count() >= if is_poison(n) { 5 } else { 1 })
            },
        )
        .await;
        faulty.calm.store(true, std::sync::atomic::Ordering::Relaxed);
        // Leases that were lost with an answer.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(left(&calm, "t", "g").await, [json!(null); 0], "seed {seed}: everything is settled");
        let mut parked = std::collections::BTreeMap::<u64, u32>::new();
        loop {
            let source = SourcePath::messages("parked", "ops");
            let batch = calm.consume(&source, &ConsumeOptions::new()).await.unwrap();
            if batch.is_empty() {
                break;
            }
            for message in &batch {
                let document: Value = message.body.parse().unwrap();
                *parked.entry(document["body"]["n"].as_u64().unwrap()).or_default() += 1;
            }
            let acks: Vec<_> = batch.iter().map(|message| (message.handle.clone(), AckStatus::Success)).collect();
            calm.acknowledge(&source, &acks).await.unwrap();
        }
        assert_eq!(
            parked.keys().copied().collect::<Vec<_>>(),
            (0..MESSAGES).filter(|n| is_poison(*n)).collect::<Vec<_>>()
        );
        for n in (0..MESSAGES).filter(|n| is_poison(*n)) {
            let attempts = calls.iter().filter(|call| **call == n).count();
            // A copy whose answer was lost, and one that was stored twice, have attempts of their own.
            assert!((5..=40).contains(&attempts), "seed {seed}: {attempts} attempts of message {n}");
        }
        server.close().await;
    }
}

/// A setting and how one sets it; for one that cannot work, also the name in the refusal.
type Setting<B> = (&'static str, Option<&'static str>, fn(B) -> B);

/// Whether every public method of a builder, beside `others`, is in a table of settings.
#[track_caller]
fn all_are_listed<B>(builder: &str, settings: &[Setting<B>], others: &[&str]) {
    let apis = ["/api/dms-worker.txt", "/api/dms-protocol.txt"];
    let api = apis.map(|api| std::fs::read_to_string(env!("CARGO_MANIFEST_DIR").to_owned() + api).unwrap()).concat();
    let method = |line: &str| {
        let (_, rest) = line.split('(').next()?.split_once(&format!("::{builder}::"))?;
        Some(rest.split('<').next()?.to_owned())
    };
    let methods: BTreeSet<String> = api.lines().filter(|line| line.starts_with("pub fn ")).filter_map(method).collect();
    let listed = settings.iter().map(|(name, ..)| *name).chain(others.iter().copied());
    assert_eq!(methods, listed.map(str::to_owned).collect(), "a new setting of {builder} needs a line here");
}

#[test]
fn every_setting_of_a_worker_works_or_is_refused() {
    struct Deaf;
    impl dms_worker::worker::Observer for Deaf {
        fn observe(&self, _: &dms_worker::worker::Origin, _: &dms_worker::worker::Event<'_>) {}
    }
    let settings: &[Setting<WorkerBuilder>] = &[
        ("ack_wait", None, |builder| builder.ack_wait(Duration::from_secs(1))),
        ("ack_wait", Some("ack_wait"), |builder| builder.ack_wait(Duration::from_secs(301))),
        ("batching", None, |builder| builder.batching(Batching::Consumed).batch_handler(batch_handler_fn(done))),
        ("batch_handler", None, |builder| builder.batch_handler(batch_handler_fn(done))),
        ("concurrency", None, |builder| builder.concurrency(3)),
        ("dead_letters", Some("dead_letters"), WorkerBuilder::dead_letters),
        ("group", None, |builder| builder.group("g-2")),
        ("handler", None, |builder| builder.handler(handler_fn(|| async { Ok(()) }))),
        ("handler_timeout", None, |builder| builder.handler_timeout(Duration::from_secs(5))),
        ("layer", None, |builder| builder.layer(dms_worker::layers::RateLimit::new(rate()))),
        ("max_attempts", None, |builder| builder.max_attempts(3).on_reject(OnReject::Park("parked".to_owned()))),
        ("max_attempts", Some("max_attempts"), |builder| builder.max_attempts(3)),
        ("max_attempts", Some("max_attempts"), |builder| builder.max_attempts(0).on_reject(OnReject::Discard)),
        ("max_in_flight_bytes", None, |builder| builder.max_in_flight_bytes(10_000_000)),
        ("max_messages", None, |builder| builder.max_messages(MaxMessages::Fixed(5))),
        ("name", None, |builder| builder.name("w")),
        ("observer", None, |builder| builder.observer(Arc::new(Deaf))),
        ("on_failure", None, |builder| builder.on_failure(OnFailure::Redeliver)),
        ("on_failure", Some("republish"), |builder| builder.on_failure(OnFailure::Republish(Republish::default()))),
        ("on_reject", None, |builder| builder.on_reject(OnReject::Discard)),
        ("on_stuck", None, |builder| builder.on_stuck(OnStuck::FreePermit)),
        ("on_undecodable", None, |builder| builder.on_undecodable(OnUndecodable::Own(OnReject::Discard))),
        ("ordering", None, |builder| builder.ordering(Ordering::by_pointer("/customer"))),
        ("ordering", Some("ordering"), |builder| builder.ordering(Ordering::by_pointer("customer"))),
        ("ordering", Some("ordering"), |builder| builder.ordering(Ordering::by_attribute("customer"))),
        ("poll_wait", None, |builder| builder.poll_wait(Duration::from_secs(30))),
        ("poll_wait", Some("poll_wait"), |builder| builder.poll_wait(Duration::from_secs(31))),
        ("pollers", None, |builder| builder.pollers(2)),
        ("queue", None, |builder| builder.queue("t-2")),
        ("rate_limit", None, |builder| builder.rate_limit(rate())),
        ("remember_finished", None, |builder| builder.remember_finished(false)),
        ("shutdown_grace", None, |builder| builder.shutdown_grace(Duration::from_secs(1))),
        ("tags", Some("tags"), |builder| {
            builder.tags(TagFilter { tags: vec!["red".to_owned()], ..TagFilter::default() })
        }),
        ("unique_attribute", Some("unique_attribute"), |builder| builder.unique_attribute("id")),
        ("unique_pointer", None, |builder| builder.unique_pointer("/order/id")),
        ("unique_pointer", Some("unique_pointer"), |builder| builder.unique_pointer("id")),
        ("weight", None, |builder| builder.weight(2)),
    ];
    all_are_listed("WorkerBuilder", settings, &["build", "fmt"]);
    let client = Client::builder("http://mqs.test", "").dialect(Dialect::Mqs).build().unwrap();
    for (name, refused, set) in settings {
        let builder = Worker::builder(client.clone()).queue("t").group("g");
        let builder = match *name {
            "batching" | "batch_handler" => builder,
            _ => builder.handler(handler_fn(|| async { Ok(()) })),
        };
        let built = set(builder).build().map(drop).map_err(|error| {
            let settings: Vec<_> = error.all().iter().map(|one| one.setting().to_owned()).collect();
            assert!(refused.is_some(), "{name}: {error}");
            settings
        });
        assert_eq!(built, refused.map_or(Ok(()), |setting| Err(vec![setting.to_owned()])), "{name}");
    }
}

async fn done(deliveries: Vec<Delivery>) -> Result<Vec<Result<(), HandlerError>>, HandlerError> {
    Ok(deliveries.iter().map(|_| Ok(())).collect())
}

fn rate() -> Rate {
    Rate::try_new(10, Duration::from_secs(1)).unwrap()
}

#[tokio::test]
async fn every_setting_of_a_producer_works_or_is_refused() {
    let settings: &[Setting<ProducerBuilder>] = &[
        ("allow_duplicates", None, |builder| builder.allow_duplicates(true)),
        ("delivery_timeout", None, |builder| builder.delivery_timeout(Duration::from_secs(5))),
        ("linger", None, |builder| builder.linger(Duration::from_millis(5))),
        ("max_in_flight", None, |builder| builder.max_in_flight(2)),
        ("max_pending", None, |builder| builder.max_pending(10, 10_000_000)),
        ("metrics", None, |builder| builder.metrics(&dms_worker::ProducerMetrics::new())),
        ("ordered", None, |builder| builder.ordered(true)),
        ("retry", None, |builder| builder.retry(dms_worker::retry::RetryPolicy::default())),
        ("return_ids", Some("return_ids"), |builder| builder.return_ids(true)),
        ("trace_context", Some("trace_context"), |builder| builder.trace_context(|| None)),
    ];
    all_are_listed("ProducerBuilder", settings, &["build", "clone", "fmt", "of"]);
    let client = Client::builder("http://mqs.test", "").dialect(Dialect::Mqs).build().unwrap();
    for (name, refused, set) in settings {
        match (refused, set(Producer::builder(client.clone(), "t")).build()) {
            (None, built) => drop(built.unwrap_or_else(|error| panic!("{name}: {error}"))),
            (Some(setting), built) => assert_eq!(built.unwrap_err().what, *setting),
        }
    }
}

#[test]
fn every_setting_of_a_client_works_or_is_refused() {
    let settings: &[Setting<ClientBuilder>] = &[
        ("access_key", None, |builder| builder.access_key("user", "password")),
        ("api_version", Some("leave out api_version"), |builder| builder.api_version(ApiVersion::V1_0)),
        ("connect_timeout", None, |builder| builder.connect_timeout(Duration::from_secs(1))),
        ("content", None, |builder| builder.content(dms_worker::Content::default())),
        ("dialect", None, |builder| builder.dialect(Dialect::Mqs)),
        ("iam", Some("SASL user and password"), |builder| {
            let iam = IamCredentials::new("https://iam.test", Scope::ProjectName("p".to_owned()));
            builder.iam(iam.user("u", "d").password("p"))
        }),
        ("insecure_skip_verify", None, |builder| builder.insecure_skip_verify(true)),
        ("pool_size", None, |builder| builder.pool_size(3)),
        ("project_name", Some("has no projects"), |builder| {
            builder.access_key("a", "s").project_name("p", "https://iam.test")
        }),
        ("retry", None, |builder| builder.retry(dms_worker::retry::RetryPolicy::default())),
        ("security_token", Some("leave out security_token"), |builder| {
            builder.access_key("a", "s").security_token("t")
        }),
        ("timeout", None, |builder| builder.timeout(Duration::from_secs(5))),
        ("token", Some("SASL user and password"), |builder| builder.token("t")),
        ("transport", None, |builder| builder.transport(Arc::new(Script::new([])))),
    ];
    // The environment and files are set by other tests; what they have is judged as if it were set here.
    all_are_listed("ClientBuilder", settings, &["build", "fmt", "ca_file", "credentials_from_env"]);
    for (name, refused, set) in settings {
        let built = set(Client::builder("https://mqs.test:9292", "").dialect(Dialect::Mqs)).build();
        match refused {
            None => drop(built.unwrap_or_else(|error| panic!("{name}: {error}"))),
            Some(text) => {
                let error = built.unwrap_err().to_string();
                assert!(error.contains(text) && error.contains("ROMA Connect MQS"), "{name}: {error}");
            }
        }
    }
}

/// What a redrive of parked messages was asked for, and could not do, is refused before anything is consumed.
#[tokio::test(start_paused = true)]
async fn every_setting_of_a_redrive_works_or_is_refused() {
    let settings: &[Setting<Redrive>] = &[
        ("attribute", None, |redrive| redrive.attribute("dms-reason", "failed")),
        ("attribute", Some("attribute is"), |redrive| redrive.attribute("tenant", 7).unchanged(true)),
        ("dry_run", None, |redrive| redrive.dry_run(true)),
        ("edited_originals", Some("edited_originals is"), |redrive| redrive.edited_originals(true)),
        ("journal", None, |redrive| redrive.journal(std::env::temp_dir().join(format!("mqs-{}", std::process::id())))),
        ("map", None, |redrive| redrive.map(|copy| copy)),
        ("max_redrives", Some("max_redrives is 3"), |redrive| redrive.max_redrives(3)),
        ("only", None, |redrive| redrive.only(|message| message.body.as_str().contains('7'))),
        ("skip_filtered", None, |redrive| redrive.skip_filtered(true)),
        ("sweep", None, |redrive| redrive.sweep(|sweep| sweep.max(1))),
        ("tag", Some("tag is red"), |redrive| redrive.tag("red")),
        ("to", None, |redrive| redrive.to("elsewhere")),
        ("to_service", None, |redrive| {
            redrive.to_service(Client::builder("http://dms.test", "p").build().unwrap(), "elsewhere")
        }),
        ("unchanged", None, |redrive| redrive.unchanged(true)),
    ];
    all_are_listed("Redrive", settings, &["new", "fmt"]);
    let (server, client) = server().await;
    for (name, refused, set) in settings {
        let source = SourcePath::messages("parked", "ops");
        refused_alone(name, *refused, set(Redrive::new(client.clone(), source)).run(std::future::pending()).await);
    }
    let dead = Redrive::new(client.clone(), SourcePath::dead_letters("t", "g")).run(std::future::pending()).await;
    refused_alone("dead letters", Some("park messages in another topic"), dead);

    let settings: &[Setting<Sweep>] = &[
        ("ack_wait", None, |sweep| sweep.ack_wait(Duration::from_secs(15))),
        ("at_least", None, |sweep| sweep.at_least(Duration::from_secs(1))),
        ("filter", Some("labels is red"), |sweep| {
            sweep.filter(TagFilter { tags: vec!["red".to_owned()], ..TagFilter::default() })
        }),
        ("linger", None, |sweep| sweep.linger(Duration::from_secs(1))),
        ("max", None, |sweep| sweep.max(1)),
        ("on_progress", None, |sweep| sweep.on_progress(|_| {})),
        ("parked", None, |sweep| sweep.parked(true)),
        ("rate", None, |sweep| sweep.rate(5.0)),
    ];
    all_are_listed("Sweep", settings, &["new", "lease", "fmt"]);
    for (name, refused, set) in settings {
        let redrive = Redrive::new(client.clone(), SourcePath::messages("parked", "ops")).sweep(set);
        refused_alone(name, *refused, redrive.run(std::future::pending()).await);
    }
    server.close().await;
}

/// Whether a result is the expected refusal, or none.
#[track_caller]
fn refused_alone<T: std::fmt::Debug>(name: &str, refused: Option<&str>, result: Result<T, impl ToString>) {
    match (refused, result.map_err(|error| error.to_string())) {
        (None, Ok(_)) => {}
        (Some(text), Err(error)) if error.contains(text) && error.contains("ROMA Connect MQS") => {}
        (_, result) => panic!("{name}: {result:?}"),
    }
}

#[tokio::test]
async fn every_part_of_a_message_and_every_option_of_a_call_works_or_is_refused() {
    let script = Script::new([]);
    let client = mqs(&script);
    let parts: &[Setting<Message>] = &[
        ("attribute", Some("attributes"), |message| message.attribute("n", 1)),
        ("tag", Some("labels"), |message| message.tag("red")),
        ("trace_context", Some("attributes"), |message| {
            let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            message.trace_context(&dms_worker::trace_context::TraceContext::parse(parent, None).unwrap())
        }),
        ("deduplication_key", Some("deduplication key"), |message| message.deduplication_key("k")),
        ("deduplication_window", Some("deduplication key"), |message| {
            message.deduplication_window(Duration::from_secs(9))
        }),
        ("delay", Some("delay"), |message| message.delay(Duration::from_secs(1))),
    ];
    all_are_listed("Message", parts, &["new", "json", "text", "clone", "eq", "fmt"]);
    for (name, refused, set) in parts {
        refused_alone(name, *refused, client.send(&topic(), &[set(Message::text("a"))]).await);
    }
    let options: &[Setting<SendOptions>] = &[
        ("allow_duplicates", None, |options| options.allow_duplicates(true)),
        ("return_ids", Some("return_ids"), |options| options.return_ids(true)),
    ];
    all_are_listed("SendOptions", options, &["new", "clone", "default", "eq", "fmt"]);
    let options: &[Setting<ConsumeOptions>] = &[
        ("ack_wait", None, |options| options.ack_wait(Duration::from_secs(1))),
        ("filter", Some("labels"), |options| {
            options.filter(TagFilter { tags: vec!["red".to_owned()], ..TagFilter::default() })
        }),
        ("max_messages", None, |options| options.max_messages(3)),
        ("poll_wait", None, |options| options.poll_wait(Duration::from_secs(30))),
    ];
    all_are_listed("ConsumeOptions", options, &["check", "check_for", "new", "clone", "default", "eq", "fmt"]);
    for (name, refused, set) in options {
        refused_alone(name, *refused, set(ConsumeOptions::new()).check_for(Dialect::Mqs));
    }
    assert_eq!(script.requests(), [""; 0], "nothing was sent");
}

/// A layer that looks for its key in an attribute would do nothing, also inside a stack of layers.
#[test]
fn every_layer_works_or_is_refused() {
    use dms_worker::layers::{Chaos, CircuitBreaker, Deduplicate, MemoryStore, RateLimit, Retry, Timeout};
    let day = Duration::from_secs(86_400);
    let by_attribute = || Deduplicate::by_attribute("order_id", MemoryStore::new(10), day);
    let client = Client::builder("http://mqs.test", "").dialect(Dialect::Mqs).build().unwrap();
    let of = |client: &Client| {
        Worker::builder(client.clone()).queue("t").group("g").handler(handler_fn(|| async { Ok(()) }))
    };
    let builder = || of(&client);
    let own = Client::builder("http://dms.test", "p").build().unwrap();
    of(&own).layer(by_attribute()).build().unwrap();
    let refused = Some("Deduplicate::by_pointer");
    let layers = [
        ("Chaos", None, builder().layer(Chaos::new(1))),
        ("CircuitBreaker", None, builder().layer(CircuitBreaker::new(3, Duration::from_secs(1)))),
        ("Deduplicate", None, builder().layer(Deduplicate::by_pointer("/order/id", MemoryStore::new(10), day))),
        ("Deduplicate", refused, builder().layer(by_attribute())),
        ("Deduplicate", refused, builder().layer(tower::layer::util::Stack::new(by_attribute(), Timeout::new(day)))),
        ("RateLimit", None, builder().layer(RateLimit::new(rate()))),
        ("Retry", None, builder().layer(Retry::new(dms_worker::retry::RetryPolicy::default()))),
        ("Timeout", None, builder().layer(Timeout::new(Duration::from_secs(1)))),
    ];
    let api = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/api/dms-worker.txt")).unwrap();
    let name = |line: &str| Some(line.split_once("Layer<S> for dms_worker::layers::")?.1.to_owned());
    let all: BTreeSet<_> = api.lines().filter_map(name).filter(|name| !name.starts_with("AroundLayer")).collect();
    let listed = layers.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(all, listed, "a new layer needs a line here");
    for (name, refused, builder) in layers {
        refused_alone(name, refused, builder.build().map(drop));
    }
}
