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

/// The store may finish the first change after the broker is gone, so a cluster must not make it at another server, too. The second
/// one was not begun.
#[tokio::test]
async fn a_stop_leaves_the_change_that_is_being_stored_unknown_and_refuses_the_one_behind_it() {
    let store = Arc::new(FlakyStore::default());
    let scene = Scene::on(store.clone()).await;
    let ((begun, has_begun), (allow, may_end)) = (oneshot::channel(), mpsc::channel());
    *store.hold.lock().unwrap() = Some(Hold { begun, may_end });
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
    let ((begun, has_begun), (allow, may_end)) = (oneshot::channel(), mpsc::channel());
    *store.hold.lock().unwrap() = Some(Hold { begun, may_end });
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
