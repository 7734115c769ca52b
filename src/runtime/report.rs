//! [`RuntimeReport`]: how a runtime ended.

use crate::{
    producer::ProducerReport,
    worker::{WorkerError, WorkerReport},
};

/// The result of [`Runtime::run`](super::Runtime::run).
#[derive(Debug)]
#[non_exhaustive]
pub struct RuntimeReport {
    /// The workers, in the order in which they were added.
    pub workers: Vec<WorkerEnd>,
    /// The producers, in the order in which they were added.
    pub producers: Vec<ProducerEnd>,
    /// Whether all handlers and tasks finished, and all messages of producers were sent, within the grace period.
    pub drained: bool,
}

/// How a worker ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct WorkerEnd {
    /// Its name.
    pub name: String,
    /// The worker's counts, or the error that ended it.
    pub result: Result<WorkerReport, WorkerError>,
}

/// How a producer ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProducerEnd {
    /// Its name.
    pub name: String,
    /// The results of its messages.
    pub report: ProducerReport,
}

impl RuntimeReport {
    /// The name and the error of the first worker that failed.
    pub fn failure(&self) -> Option<(&str, &WorkerError)> {
        self.workers.iter().find_map(|end| end.result.as_ref().err().map(|error| (end.name.as_str(), error)))
    }
}
