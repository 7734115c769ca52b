//! How a runtime ended.

use crate::{
    producer::ProducerReport,
    worker::{WorkerError, WorkerReport},
};

/// What [`Runtime::run`](super::Runtime::run) ends with.
#[derive(Debug)]
#[non_exhaustive]
pub struct RuntimeReport {
    /// The workers, in the order in which they were added.
    pub workers: Vec<WorkerEnd>,
    /// The producers, in the order in which they were added.
    pub producers: Vec<ProducerEnd>,
    /// Whether everything that had begun was finished within the grace period: handlers, tasks, and what producers had taken.
    pub drained: bool,
}

/// How a worker ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct WorkerEnd {
    /// Its name.
    pub name: String,
    /// Its counts, or why it could not go on.
    pub result: Result<WorkerReport, WorkerError>,
}

/// How a producer ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProducerEnd {
    /// Its name.
    pub name: String,
    /// What became of its messages.
    pub report: ProducerReport,
}

impl RuntimeReport {
    /// The first worker that failed for good, and why.
    pub fn failure(&self) -> Option<(&str, &WorkerError)> {
        self.workers.iter().find_map(|end| end.result.as_ref().err().map(|error| (end.name.as_str(), error)))
    }
}
