//! `dms_worker::testing` as its users use it: handlers, leases and faults under the paused clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use dms_server::{
    Operation, ServerConfig,
    broker::Quotas,
    broker::embedded::EmbeddedConfig,
    faults::{Fault, FaultRule},
};
use dms_worker::{
    client::ConsumeOptions,
    message::Message,
    queue::{NewQueue, QueueMode, SourcePath},
    testing::TestServer,
    worker::{Delivery, HandlerError, handler_fn},
};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// A handler that takes 40 s on a lease of 30 s is stopped, and its message is redelivered.
#[tokio::test(start_paused = true)]
async fn a_handler_that_outlasts_its_lease_is_stopped_and_its_message_redelivered() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders").dead_letters_after(2), "billing").await;
    orders.send(["slow", "quick"]).await;
    let finished = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&finished);
    let handler = handler_fn(move |delivery: Delivery| {
        let count = Arc::clone(&count);
        async move {
            if delivery.json::<String>()? == "slow" {
                sleep(SECOND * 40).await;
            }
            count.fetch_add(1, Relaxed);
            Ok(())
        }
    });
    let report = orders.run_worker(orders.worker(handler).ack_wait(SECOND * 30)).await;
    assert_eq!(report.timed_out, 2, "{report:?}");
    orders.assert_dead_lettered(["slow"]).await;
    orders.assert_acked_count(1).await;
}

/// Three days pass in no time: a delayed message, then a retention.
#[tokio::test(start_paused = true)]
async fn days_pass_in_milliseconds() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders"), "billing").await;
    orders.send_messages([Message::text("tomorrow").delay(SECOND * 86_400)]).await;
    assert_eq!(orders.counts().await.delayed, 1);
    let begun = Instant::now();
    let other = server.further_group(orders.queue_id(), "archive").await;
    let report = orders.run(handler_fn(|| async { Ok(()) })).await;
    assert_eq!(report.done, 1);
    assert!((86_400..86_402).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(other.waiting::<String>().await, ["tomorrow"], "another group has not read it");
    sleep(SECOND * 86_400 * 3 + SECOND * 60).await;
    assert!(other.counts().await.is_idle(), "72 hours after it was due it is gone");
}

/// The same seed gives the same faults, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn many_kinds_of_faults_lose_nothing() {
    let mut reports = Vec::new();
    for _ in 0..2 {
        let plan = "seed=11,latency=50ms:0.2,error:0.1,throttle:0.05,lost:0.1,reset:0.1,expired:0.05,partial:0.1";
        let server = TestServer::start().await;
        let orders = server.group(NewQueue::new("orders").mode(QueueMode::Fifo), "billing").await;
        orders.send(0..100).await;
        for rule in plan.parse::<dms_server::faults::FaultPlan>().unwrap().rules {
            server.faults().add(rule);
        }
        let report = orders.run(handler_fn(|| async { Ok(()) })).await;
        server.faults().clear();
        orders.assert_acked_count(100).await;
        assert!(report.received >= 100);
        reports.push(report);
    }
    assert_eq!(reports[0], reports[1]);
}

/// A scripted lost answer to an acknowledgement: the worker reports its result as unknown, and the message was settled.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_an_acknowledgement_loses_nothing() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders"), "billing").await;
    orders.send(["one"]).await;
    server.faults().next(Operation::Ack, Fault::LostAnswer);
    let report = orders.run(handler_fn(|| async { Ok(()) })).await;
    assert_eq!((report.received, report.done), (1, 1), "{report:?}");
    orders.assert_acked_count(1).await;
}

/// Messages are redelivered when their lease ends during the run; handlers have to cope with it.
#[tokio::test(start_paused = true)]
async fn messages_of_ended_leases_are_redelivered() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders"), "billing").await;
    orders.send(["one"]).await;
    server.faults().next(Operation::Ack, Fault::ExpiredLease);
    let report = orders.run(handler_fn(|| async { Ok(()) })).await;
    assert_eq!((report.received, report.late), (2, 1), "{report:?}");
    orders.assert_acked_count(1).await;
}

/// Failed assertions show the actual state.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "the dead letters should be [String(\"bad\")], and are []")]
async fn a_wrong_expectation_shows_what_is_there() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders").dead_letters_after(5), "billing").await;
    orders.assert_dead_lettered(["bad"]).await;
}

/// A group that never falls idle ends the test with its counts.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "the group is not idle after 60s: Counts { acknowledged: 0, available: 1")]
async fn a_group_that_stays_busy_is_reported() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders"), "billing").await;
    orders.send(["nobody reads this"]).await;
    orders.until_idle(SECOND * 60).await;
}

/// Other settings: quotas, and faults from the first request on.
#[tokio::test(start_paused = true)]
async fn a_test_server_can_have_other_settings() {
    let quotas = Quotas::default().queues(1);
    let broker = EmbeddedConfig::default().quotas(quotas);
    let server = TestServer::with(ServerConfig::default().broker(broker)).await.unwrap();
    server.group(NewQueue::new("orders"), "billing").await;
    let refused = server.client().create_queue(NewQueue::new("more")).await.unwrap_err();
    assert_eq!(refused.code().map(|code| code.to_string()), Some("DMS.10240020".to_owned()), "{refused}");
    server.faults().add(FaultRule::new(Fault::Throttled, 1.0).on(Operation::Quotas));
    assert!(server.client().quotas().await.is_err_and(|error| error.is_throttled()));
}

/// A handler that rejects, beside one that defers, as the runtime treats them.
#[tokio::test(start_paused = true)]
async fn rejected_messages_become_dead_letters() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders").dead_letters_after(2), "billing").await;
    orders.send([1, 2, 3]).await;
    let report = orders
        .run(handler_fn(|delivery: Delivery| async move {
            if delivery.json::<u32>()? == 2 { Err(HandlerError::reject("not an order")) } else { Ok(()) }
        }))
        .await;
    assert_eq!((report.rejected, report.acknowledged, report.dead_lettered), (1, 3, 1), "{report:?}");
    orders.assert_dead_lettered([2]).await;
    orders.assert_dead_letter(2, "rejected").await;
    assert_eq!(orders.dead_letters::<u32>().await, [2]);
    let deaths = orders.deaths::<u32>().await;
    let [(2, info)] = deaths.as_slice() else { panic!("{deaths:?}") };
    assert_eq!((info.error.as_deref(), info.attempts), (Some("not an order"), 1));
    // A client receives the same, because the service has announced this extension.
    let source = SourcePath::dead_letters(orders.queue_id().clone(), orders.group_id().clone());
    let dead = server.client().consume(&source, &ConsumeOptions::default()).await.unwrap();
    assert_eq!(dead[0].dead_letter.as_ref(), Some(info));
}

/// The result of each message can be asserted, and a failed assertion shows the calls of the handlers.
#[tokio::test(start_paused = true)]
async fn assertions_show_the_history() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders").dead_letters_after(2), "billing").await;
    orders.send(["good", "bad"]).await;
    orders
        .run(handler_fn(|delivery: Delivery| async move {
            if delivery.json::<String>()? == "bad" { Err(HandlerError::retry("no such account")) } else { Ok(()) }
        }))
        .await;
    orders.assert_acked(["good"]).await;
    orders.assert_redelivered("good", 0);
    orders.assert_redelivered("bad", 1);
    orders.assert_dead_lettered(["bad"]).await;
    let others = orders.clone();
    let wrong = tokio::spawn(async move { orders.assert_acked(["bad"]).await });
    let panic = wrong.await.unwrap_err().into_panic();
    let text = panic.downcast_ref::<String>().unwrap();
    let wrong = tokio::spawn(async move { others.assert_dead_lettered(["good"]).await });
    let panic = wrong.await.unwrap_err().into_panic();
    let died = panic.downcast_ref::<String>().unwrap();
    assert!(died.contains(r#""bad": failed: no such account (worker"#) && died.contains("attempt 2)"), "{died}");
    assert!(text.contains(r#""bad" should be acknowledged; left are [String("bad")]"#), "{text}");
    assert!(text.contains(r#""bad", attempt 2, retry 0: Retry, no such account, after 0ns"#), "{text}");
}

/// A lease ends while the counts are taken: its message is leased or available, and never in neither place.
#[tokio::test(start_paused = true)]
async fn counts_miss_no_message_whose_lease_ends_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let config = ServerConfig::default().data_dir(dir.path().to_owned());
    let server = TestServer::with(config).await.unwrap();
    let orders = server.group(NewQueue::new("orders"), "billing").await;
    orders.send(["one"]).await;
    let source = SourcePath::messages(orders.queue_id().clone(), orders.group_id().clone());
    let options = ConsumeOptions::new().ack_wait(SECOND * 15);
    assert_eq!(server.client().consume(&source, &options).await.unwrap().len(), 1);
    let begun = Instant::now();
    sleep(SECOND * 15 - Duration::from_millis(5)).await;
    let mut seen = Vec::new();
    while begun.elapsed() < SECOND * 15 + Duration::from_millis(5) {
        let counts = orders.counts().await;
        assert_eq!(counts.available + counts.leased, 1, "{counts:?} at {:?}", begun.elapsed());
        seen.push(counts.leased);
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((seen.first(), seen.last()), (Some(&1), Some(&0)), "{seen:?}");
}
