//! Quick handlers share a task, and messages do not wait for a handler that is slow for once.

use std::sync::mpsc;

use tokio::{sync::mpsc::unbounded_channel, task};

use super::*;

/// A first batch, after which handlers are known to be quick.
const FIRST: &[&str] = &["a"];

/// The task in which each message was handled.
type Tasks = Arc<Mutex<Vec<(String, task::Id)>>>;

/// The tasks of a batch whose handler waits for a second on `slow`, in the order in which handlers ended.
async fn tasks(batch: &[&'static str]) -> Vec<(String, task::Id)> {
    let script = Script::new(&[FIRST]);
    let tasks = Tasks::default();
    let seen = tasks.clone();
    let running = Running::start(&script, Settings::default(), move |name, _| {
        let seen = seen.clone();
        async move {
            if name == "slow" {
                tokio::time::sleep(SECOND).await;
            }
            seen.lock().unwrap().push((name, task::id()));
            Ok(())
        }
    });
    running.after(SECOND).await;
    tasks.lock().unwrap().clear();
    script.push(batch);
    running.after(SECOND * 5).await;
    assert_eq!(script.acks().pop().unwrap(), batch.iter().map(|&name| (name.to_owned(), OK)).collect::<Vec<_>>());
    running.stop().await;
    std::mem::take(&mut *tasks.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn quick_handlers_of_a_batch_share_a_task() {
    let tasks = tasks(&["b", "c", "d"]).await;
    assert!(tasks.len() == 3 && tasks.iter().all(|(_, task)| *task == tasks[0].1), "{tasks:?}");
}

#[tokio::test(start_paused = true)]
async fn messages_after_a_handler_that_waits_run_meanwhile() {
    let tasks = tasks(&["b", "slow", "c", "d"]).await;
    let names: Vec<_> = tasks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d", "slow"]);
    assert_eq!(tasks[0].1, tasks[3].1, "it keeps the task that it was begun in");
    assert!(tasks[1].1 == tasks[2].1 && tasks[1].1 != tasks[3].1, "the others have another one: {tasks:?}");
}

/// Reports when batches are settled.
struct Settled(tokio::sync::mpsc::UnboundedSender<()>);

impl Observer for Settled {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        if let Event::Settled { .. } = event {
            let _ = self.0.send(());
        }
    }
}

/// A handler that was quick until now blocks its thread until the others of its batch are done. They do not wait for
/// it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_after_a_handler_that_blocks_its_thread_run_elsewhere() {
    let script = Script::new(&[FIRST]);
    script.ends_polls();
    let (done, others) = mpsc::channel();
    let others = Mutex::new(others);
    let (settled, mut batches) = unbounded_channel();
    let running = Running::observed(&script, Settings::default(), Some(Arc::new(Settled(settled))), move |name, _| {
        let waited = match name.as_str() {
            "blocks" => (0..3).try_for_each(|_| others.lock().unwrap().recv_timeout(SECOND * 10)),
            "a" => Ok(()),
            _ => {
                done.send(()).unwrap();
                Ok(())
            }
        };
        async move { waited.map_err(HandlerError::retry) }
    });
    batches.recv().await.unwrap();
    script.push(&["blocks", "b", "c", "d"]);
    batches.recv().await.unwrap();
    assert_eq!(script.acks().pop().unwrap(), list(&[("blocks", OK), ("b", OK), ("c", OK), ("d", OK)]));
    running.stop().await;
}
