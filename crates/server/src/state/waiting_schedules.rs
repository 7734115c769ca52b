//! [`WaitingSchedules`]: the schedules of the configuration that are not in force, because their queue is missing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::auth::project::StartSchedule;
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

/// The schedules of the configuration that are not in force. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct WaitingSchedules(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    schedules: Mutex<Vec<WaitingSchedule>>,
    /// Notified when there are any.
    added: Notify,
}

impl WaitingSchedules {
    /// Replaces the waiting schedules of these projects.
    pub(crate) fn set(&self, projects: &[ProjectId], waiting: Vec<WaitingSchedule>) {
        let mut schedules = self.lock();
        schedules.retain(|schedule| !projects.contains(&schedule.project));
        schedules.extend(waiting);
        if !schedules.is_empty() {
            self.0.added.notify_one();
        }
    }

    pub(crate) fn all(&self) -> Vec<WaitingSchedule> {
        self.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
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
        self.lock().retain(|waiting| waiting != schedule);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<WaitingSchedule>> {
        self.0.schedules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
