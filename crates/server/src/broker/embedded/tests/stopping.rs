//! Stopping a broker while the store works: each caller learns whether its change may have been made.

use std::{pin::pin, sync::mpsc};

use futures_util::poll;
use tokio::sync::oneshot;

use super::*;

/// Keeps a commit from ending.
#[derive(Debug)]
pub(super) struct Hold {
    begun: oneshot::Sender<()>,
    may_end: mpsc::Receiver<()>,
}

impl Hold {
    pub(super) fn wait(self) {
        let _ = self.begun.send(());
        // An error says that the test has ended.
        let _ = self.may_end.recv();
    }
}

impl FlakyStore {
    /// Keeps the next commit from ending. Returns what says that it has begun, and what lets it end.
    fn hold_next(&self) -> (oneshot::Receiver<()>, mpsc::Sender<()>) {
        let ((begun, has_begun), (allow, may_end)) = (oneshot::channel(), mpsc::channel());
        *self.hold.lock().unwrap() = Some(Hold { begun, may_end });
        (has_begun, allow)
    }
}

/// The store may finish the first change after the broker is gone, so a cluster must not make it at another server, too. The second
/// one was not begun.
#[tokio::test]
async fn a_stop_leaves_the_change_that_is_being_stored_unknown_and_refuses_the_one_behind_it() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    let (has_begun, allow) = store.hold_next();
    let mut first = pin!(scene.send("1", NOW));
    assert!(poll!(first.as_mut()).is_pending());
    has_begun.await.unwrap();
    let mut second = pin!(scene.send("2", NOW));
    assert!(poll!(second.as_mut()).is_pending());
    scene.broker.abort().await;
    let (first, second) = (first.await, second.await);
    allow.send(()).unwrap();
    assert!(matches!(first, Err(BrokerError::Unsure(_))), "{first:?}");
    assert!(matches!(second, Err(BrokerError::Closed)), "{second:?}");
}

/// An orderly stop answers what was submitted before it.
#[tokio::test]
async fn an_orderly_stop_waits_for_the_change_that_is_being_stored() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    let (has_begun, allow) = store.hold_next();
    let mut sent = pin!(scene.send("1", NOW));
    assert!(poll!(sent.as_mut()).is_pending());
    has_begun.await.unwrap();
    let mut closed = pin!(scene.broker.close());
    assert!(poll!(closed.as_mut()).is_pending());
    let late = scene.send("2", NOW).await;
    assert!(matches!(late, Err(BrokerError::Closed)), "{late:?}");
    allow.send(()).unwrap();
    closed.await;
    sent.await.unwrap();
}

/// The next owner of the shard makes such a change, so the caller must not be told that its outcome is unknown.
#[tokio::test]
async fn a_change_that_the_store_refuses_for_its_owner_is_said_to_be_not_made() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    let (has_begun, allow) = store.hold_next();
    let mut first = pin!(scene.send("1", NOW));
    assert!(poll!(first.as_mut()).is_pending());
    has_begun.await.unwrap();
    let mut second = pin!(scene.send("2", NOW));
    assert!(poll!(second.as_mut()).is_pending());
    // Another server takes the store over while the first change is on its way.
    store.may_be_lost.store(true, Ordering::Relaxed);
    let mut ended = pin!(scene.broker.abort_after(Duration::from_secs(60)));
    assert!(poll!(ended.as_mut()).is_pending(), "the outcome of the first change is waited for");
    allow.send(()).unwrap();
    ended.await;
    for change in [first.await, second.await] {
        assert!(matches!(change, Err(BrokerError::Unavailable)), "{change:?}");
    }
}

/// The first try of a commit may have taken effect before another server took the store over. Told that the store failed, a caller
/// would send again, and the messages could be there twice.
#[tokio::test]
async fn a_change_whose_outcome_is_not_known_when_the_store_is_lost_is_not_said_to_have_failed() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    store.fail_with(Some(StoreError::unsure("another server owns the store")));
    let change = scene.send("1", NOW).await;
    assert!(matches!(change, Err(BrokerError::Unsure(_))), "{change:?}");
    // Nothing can come of a change that is begun after that.
    let later = scene.send("2", NOW).await;
    assert!(matches!(later, Err(BrokerError::Store(_))), "{later:?}");
}

/// A change that was not begun is not answered with the failure of the store, which might be taken for its own.
#[tokio::test]
async fn a_call_that_comes_after_the_store_was_lost_is_left_to_its_owner() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    store.may_be_lost.store(true, Ordering::Relaxed);
    scene.broker.core.lose(&StoreError::lost("another server owns the store"));
    let refused = scene.send("1", NOW).await;
    assert!(matches!(refused, Err(BrokerError::Unavailable)), "{refused:?}");
}
