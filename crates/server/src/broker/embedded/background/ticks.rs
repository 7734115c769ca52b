//! Sends the messages of schedules whose ticks are due.

use crate::broker::{
    BrokerError,
    embedded::{
        command::{Command, Tick},
        core::Core,
        reply::Pending,
        state::due_ticks::due_ticks,
    },
};

/// The maximum number of schedules that tick in one step.
const MAX_SCHEDULES: usize = 500;
/// The maximum number of messages of one schedule in one commit, and of their bytes.
const MAX_MESSAGES: usize = 50;
const MAX_BYTES: usize = 1024 * 1024;

/// Sends the messages of due ticks, a bounded number of them. The others stay due.
pub(crate) async fn send_due(core: &Core) -> Result<(), BrokerError> {
    let now_ms = core.wall.now_ms();
    let due = core.lock().schedules.due(now_ms, MAX_SCHEDULES);
    let mut pending: Vec<Pending> = Vec::with_capacity(due.len());
    for (queue, schedule) in due {
        let from_ms = schedule.progress.done_ms;
        // Without the lock: a schedule that was not served for long has many ticks to go through.
        let found =
            schedule.timetable.and_then(|timetable| due_ticks(&timetable, from_ms, now_ms, schedule.row.missed));
        let Some(mut due) = found else { continue };
        let size = schedule.row.body.len() + schedule.row.attributes.len() + 200;
        due.truncate(MAX_MESSAGES.min(MAX_BYTES / size));
        let bytes = size * due.planned.len();
        pending.push(core.submit(Command::Tick(Tick { queue, name: schedule.row.name, from_ms, due, bytes })));
    }
    let mut outcome = Ok(());
    for tick in pending {
        outcome = outcome.and(tick.outcome().await);
    }
    outcome
}
