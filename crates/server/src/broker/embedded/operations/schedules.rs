//! Adding, listing, pausing and removing schedules.

use crate::broker::{
    BrokerError, NewSchedule, ScheduleOverview, ScheduleSource,
    embedded::{
        command::AdminCommand,
        core::Core,
        state::{BrokerState, schedules::Schedule},
    },
};
use crate::store::ScheduleRow;
use dms_protocol::queue::{ProjectId, QueueId};

/// The number of next ticks that an overview shows.
const NEXT_TICKS: usize = 3;

impl Core {
    pub(crate) async fn set_schedule(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        schedule: NewSchedule,
        source: ScheduleSource,
    ) -> Result<ScheduleOverview, BrokerError> {
        schedule.check()?;
        let queue_name = self.open()?.queue(project, queue)?.row.name.clone();
        let NewSchedule { name, cron, timezone, message, missed } = schedule;
        let (body, attributes, tags) = message.into_parts();
        let row = ScheduleRow {
            name: name.clone(),
            cron: cron.clone(),
            timezone: timezone.clone(),
            missed,
            source,
            paused: false,
            body,
            attributes,
            tags,
            created_ms: 0,
        };
        let before = self.lock().schedules.get(queue, &name).map(|schedule| schedule.row.clone());
        self.change(AdminCommand::SetSchedule(queue.clone(), Box::new(row), self.wall.now_ms())).await?;
        let shown = self.schedule(queue, &name)?;
        if before != self.lock().schedules.get(queue, &name).map(|schedule| schedule.row.clone()) {
            let (schedule, source) = (&name, source.as_str());
            tracing::info!(%project, queue = queue_name, schedule, cron, timezone, source, "a schedule was set");
        }
        Ok(shown)
    }

    pub(crate) async fn remove_schedule(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        name: &str,
        source: ScheduleSource,
    ) -> Result<(), BrokerError> {
        let queue_name = self.open()?.queue(project, queue)?.row.name.clone();
        self.change(AdminCommand::RemoveSchedule(queue.clone(), name.to_owned(), source)).await?;
        tracing::info!(%project, queue = queue_name, schedule = name, "a schedule was removed");
        Ok(())
    }

    pub(crate) async fn pause_schedule(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        name: &str,
        is_paused: bool,
    ) -> Result<ScheduleOverview, BrokerError> {
        let queue_name = self.open()?.queue(project, queue)?.row.name.clone();
        let change = AdminCommand::PauseSchedule(queue.clone(), name.to_owned(), is_paused, self.wall.now_ms());
        self.change(change).await?;
        let what = if is_paused { "a schedule was paused" } else { "a schedule was resumed" };
        tracing::info!(%project, queue = queue_name, schedule = name, "{what}");
        self.schedule(queue, name)
    }

    /// All schedules, by project and name.
    pub(crate) fn schedules(&self) -> Result<Vec<ScheduleOverview>, BrokerError> {
        let now_ms = self.wall.now_ms();
        let state = self.open()?;
        let shown = state.schedules.iter().map(|(queue, schedule)| state.show_schedule(queue, schedule, now_ms));
        let mut all: Vec<_> = shown.flatten().collect();
        drop(state);
        all.sort_by(|a, b| (&a.project, &a.schedule.name).cmp(&(&b.project, &b.schedule.name)));
        Ok(all)
    }

    fn schedule(&self, queue: &QueueId, name: &str) -> Result<ScheduleOverview, BrokerError> {
        let state = self.open()?;
        let now_ms = self.wall.now_ms();
        let found = state.schedules.get(queue, name);
        let found = found.and_then(|schedule| state.show_schedule(queue, schedule, now_ms));
        // It was removed in the same moment.
        found.ok_or_else(|| BrokerError::NotAvailable(format!("the queue has no schedule {name}").into()))
    }
}

impl BrokerState {
    fn show_schedule(&self, id: &QueueId, schedule: &Schedule, now_ms: i64) -> Option<ScheduleOverview> {
        let queue = &self.queues.get(id)?.row;
        Some(ScheduleOverview {
            project: queue.project.clone(),
            queue: id.clone(),
            queue_name: queue.name.clone(),
            schedule: schedule.show(),
            source: schedule.row.source,
            is_paused: schedule.row.paused,
            created_ms: schedule.row.created_ms,
            next_ms: schedule.next(NEXT_TICKS),
            last: schedule.progress.last,
            sent: schedule.progress.sent,
            missed: schedule.progress.missed,
            is_late: schedule.is_late(now_ms),
        })
    }
}
