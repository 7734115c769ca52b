//! The handlers of a run: each message takes its time and ends as its plan says; what they see is written down.

use std::{
    collections::HashMap,
    panic::resume_unwind,
    sync::{Arc, Mutex},
};

use dms_worker::worker::{Delivery, HandlerError};
use tokio::time::sleep;

use super::{
    history::{Entry, History, How, Process},
    scenario::{Failure, Fate, Plan},
};

/// What handlers are to do.
pub(super) struct Script {
    plans: Vec<Plan>,
    history: Arc<History>,
    /// How often a flaky message has failed.
    failed: Mutex<HashMap<u64, u32>>,
}

/// A run of a handler; one that is dropped was cancelled.
struct Run {
    history: Arc<History>,
    number: usize,
    how: How,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.history.note(Entry::Ended { run: self.number, how: self.how });
    }
}

impl Script {
    pub(super) fn new(plans: Vec<Plan>, history: Arc<History>) -> Self {
        Self { plans, history, failed: Mutex::default() }
    }

    /// The handler.
    pub(super) async fn handle(self: Arc<Self>, process: Process, delivery: Delivery) -> Result<(), HandlerError> {
        let message: u64 = delivery.json()?;
        let sequence = delivery.sequence().unwrap();
        let deadline = self.history.at(delivery.deadline());
        let number = self.history.add(|run| Entry::Begun { run, process, message, sequence, deadline });
        let mut run = Run { history: self.history.clone(), number, how: How::Cancelled };
        let work = self.work(message);
        tokio::pin!(work);
        let failure = tokio::select! {
            biased;
            failure = &mut work => failure,
            () = delivery.cancelled() => {
                self.history.note(Entry::Noticed { run: number });
                work.await
            }
        };
        match failure {
            None => {
                run.how = How::Ok;
                Ok(())
            }
            Some(Failure::Panic) => {
                run.how = How::Panicked;
                // Contained by the worker; without the hook, which would fill the output.
                resume_unwind(Box::new("a panic of the simulation"))
            }
            Some(Failure::Reject) => {
                run.how = How::Failed;
                Err(HandlerError::reject("rejected by the simulation"))
            }
            Some(Failure::Error | Failure::Hang) => {
                run.how = How::Failed;
                Err(HandlerError::retry("failed by the simulation"))
            }
        }
    }

    /// Does the work, and says how it fails, if it does.
    async fn work(&self, message: u64) -> Option<Failure> {
        let plan = self.plans[usize::try_from(message).unwrap()];
        let failure = match plan.fate {
            Fate::Good => None,
            Fate::Poison(how) => Some(how),
            Fate::Flaky(times, how) => {
                let mut failed = self.failed.lock().unwrap();
                let failed = failed.entry(message).or_default();
                (*failed < times).then(|| {
                    *failed += 1;
                    how
                })
            }
        };
        if failure == Some(Failure::Hang) {
            std::future::pending::<()>().await;
        }
        if !plan.takes.is_zero() {
            sleep(plan.takes).await;
        }
        failure
    }
}
