//! Batches in order, and order by key.

use super::*;

/// Ordering by batch: one message after the other, and none is started after a failure.
#[tokio::test(start_paused = true)]
async fn an_ordered_batch_stops_at_its_first_failure() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let settings = Settings { ordering: Ordering::Batch, ..Settings::default() };
    let (running, order) = Running::in_order(&script, settings, "b");
    running.after(SECOND * 5).await;
    assert_eq!(*order.lock().unwrap(), ["a", "b"]);
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
    assert_eq!(running.stop().await.skipped, 1);
}

/// Ordering by key: the messages of a key run one at a time across batches, other keys concurrently. A failure stops
/// its own key.
#[tokio::test(start_paused = true)]
async fn a_failure_stops_its_own_key_only() {
    let script = Script::new(&[&["a1", "b1", "a2"], &["a3", "b2"]]);
    let settings = Settings { ordering: Ordering::by_attribute("key"), ..Settings::default() };
    let (running, order) = Running::in_order(&script, settings, "a1");
    running.after(SECOND * 5).await;
    let order = order.lock().unwrap().clone();
    assert_eq!(order, ["a1", "b1", "b2"], "a2 and a3 are redelivered after a1");
    let acks = script.acks();
    assert!(acks.contains(&list(&[("a1", FAIL)])) && acks.contains(&list(&[("a3", FAIL)])), "{acks:?}");
    running.stop().await;
}
