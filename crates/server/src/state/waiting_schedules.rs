//! [`WaitingSchedules`]: the schedules of the configuration that are not in force, because their queue is missing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::{auth::project::StartSchedule, broker::ScheduleOverview};
use dms_protocol::queue::ProjectId;

/// A schedule of the configuration that is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WaitingSchedule {
    pub(crate) project: ProjectId,
    pub(crate) start: StartSchedule,
    /// Why it is not in force.
    pub(crate) reason: String,
}

impl WaitingSchedule {
    /// A line of `/readyz`.
    pub(crate) fn line(&self) -> String {
        let (name, queue) = (&self.start.schedule.name, &self.start.queue);
        format!(
            "schedule {name} of queue {queue} in project {} is not in force: {}; create the queue, or list it in server.queues\n",
            self.project, self.reason
        )
    }
}

/// Whether a schedule that is in force is this one of the configuration of a project.
pub(crate) fn is_of(there: &ScheduleOverview, project: &ProjectId, start: &StartSchedule) -> bool {
    there.project == *project && there.queue_name == start.queue && there.schedule.name == start.schedule.name
}

/// The schedules of the configuration that are not in force. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct WaitingSchedules(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    schedules: Mutex<Waiting>,
    /// Notified when there are any.
    added: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    all: Vec<WaitingSchedule>,
    /// Whether they were looked for.
    is_known: bool,
}

impl WaitingSchedules {
    /// Replaces the waiting schedules of these projects.
    pub(crate) fn set(&self, projects: &[ProjectId], waiting: Vec<WaitingSchedule>) {
        let mut schedules = self.lock();
        schedules.is_known = true;
        schedules.all.retain(|schedule| !projects.contains(&schedule.project));
        schedules.all.extend(waiting);
        if !schedules.all.is_empty() {
            self.0.added.notify_one();
        }
    }

    /// Sets what a look at the start found, unless another configuration has replaced the schedules meanwhile.
    pub(crate) fn set_first(&self, waiting: Vec<WaitingSchedule>) {
        let mut schedules = self.lock();
        if !schedules.is_known {
            (schedules.all, schedules.is_known) = (waiting, true);
            self.0.added.notify_one();
        }
    }

    /// Whether they were looked for.
    pub(crate) fn is_known(&self) -> bool {
        self.lock().is_known
    }

    pub(crate) fn all(&self) -> Vec<WaitingSchedule> {
        self.lock().all.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// Waits until there are any.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn any(&self) {
        while self.count() == 0 {
            self.0.added.notified().await;
        }
    }

    /// Removes a schedule that is in force now.
    pub(crate) fn remove(&self, schedule: &WaitingSchedule) {
        self.lock().all.retain(|waiting| waiting != schedule);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.schedules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
