//! The handlers of a run: each message takes the time and has the result of its plan; the handlers record their calls.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::pending,
    panic::resume_unwind,
    pin::pin,
    sync::{Arc, Mutex},
};

use dms_worker::worker::{Delivery, FailureKind, HandlerError};
use futures_util::future::{Either, join_all, select, select_all};
use tokio::time::sleep;

use super::{
    history::{Entry, History, How, Process},
    scenario::{Behavior, Failure, Plan},
};

/// The plans of the handlers.
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
    message: u64,
    how: How,
}

/// A run that has its result.
struct Performed {
    run: Run,
    answer: Result<(), HandlerError>,
}

impl Performed {
    fn ended(mut self) -> Result<(), HandlerError> {
        self.run.how = match &self.answer {
            Ok(()) => How::Ok,
            Err(error) if error.kind() == FailureKind::Reject => How::Rejected,
            Err(_) => How::Failed,
        };
        self.answer
    }
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
        let run = self.begin(process, &delivery);
        let told = self.told(run.number, &delivery);
        match select(pin!(self.perform(run)), pin!(told)).await {
            Either::Left((performed, _)) => performed.ended(),
            Either::Right((never, _)) => match never {},
        }
    }

    /// The handler of several messages, side by side. A run ends with its call: work done before the panic of another one counts
    /// as nothing.
    pub(super) async fn handle_batch(
        self: Arc<Self>,
        process: Process,
        deliveries: Vec<Delivery>,
    ) -> Result<Vec<Result<(), HandlerError>>, HandlerError> {
        let runs: Vec<_> = deliveries.iter().map(|delivery| self.begin(process, delivery)).collect();
        let told = runs.iter().zip(&deliveries).map(|(run, delivery)| Box::pin(self.told(run.number, delivery)));
        let told = select_all(told.collect::<Vec<_>>());
        let performed = join_all(runs.into_iter().map(|run| self.perform(run)));
        match select(performed, told).await {
            Either::Left((performed, _)) => Ok(performed.into_iter().map(Performed::ended).collect()),
            Either::Right(((never, ..), _)) => match never {},
        }
    }

    fn begin(&self, process: Process, delivery: &Delivery) -> Run {
        let message: u64 = delivery.json().unwrap();
        // A service that tells no places: each message has its own number.
        let sequence = delivery.sequence().unwrap_or(message);
        let deadline = self.history.at(delivery.deadline());
        let number = self.history.add(|run| Entry::Begun { run, process, message, sequence, deadline });
        Run { history: self.history.clone(), number, message, how: How::Cancelled }
    }

    /// Records when a run is asked to stop.
    async fn told(&self, run: usize, delivery: &Delivery) -> Infallible {
        delivery.cancelled().await;
        self.history.note(Entry::Noticed { run });
        pending().await
    }

    /// Runs a message to its answer; its end is not recorded yet, unless it is a panic.
    async fn perform(&self, mut run: Run) -> Performed {
        let answer = match self.work(run.message).await {
            None => Ok(()),
            Some(Failure::Panic) => {
                run.how = How::Panicked;
                // Contained by the worker; without the hook, which would fill the output.
                resume_unwind(Box::new("a panic of the simulation"))
            }
            Some(Failure::Reject) => Err(HandlerError::reject("rejected by the simulation")),
            Some(Failure::Error | Failure::Hang) => Err(HandlerError::retry("failed by the simulation")),
        };
        Performed { run, answer }
    }

    /// Does the work, and returns its failure, if any.
    async fn work(&self, message: u64) -> Option<Failure> {
        let plan = self.plans[usize::try_from(message).unwrap()];
        let failure = match plan.behavior {
            Behavior::Good => None,
            Behavior::Poison(how) => Some(how),
            Behavior::Flaky(times, how) => {
                let mut failed = self.failed.lock().unwrap();
                let failed = failed.entry(message).or_default();
                (*failed < times).then(|| {
                    *failed += 1;
                    how
                })
            }
        };
        if failure == Some(Failure::Hang) {
            pending::<()>().await;
        }
        if !plan.takes.is_zero() {
            sleep(plan.takes).await;
        }
        failure
    }
}
