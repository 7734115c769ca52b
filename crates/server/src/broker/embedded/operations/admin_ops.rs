//! Administration: queues, groups, tags and quotas are created, listed and deleted (API reference 5.1, 5.2, 5.4, 5.5).

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    broker::{
        BrokerError, GroupList, GroupOverview, GroupPath, OverviewPage, QueueChange, QueueOverview, Usage,
        embedded::{
            command::{AdminCommand, Command},
            core::Core,
            state::{BrokerState, QueueState, cursor::Cursor, stream::Stream},
        },
    },
    store::{GroupRow, QueueRow},
};
use dms_protocol::{
    limits,
    queue::{ConsumerGroup, CreatedQueue, GroupId, NewQueue, ProjectId, ProjectTag, Queue, QueueId, QueueTag},
};

/// The number of queues that are looked at while the state is locked.
pub(crate) const LOCK_STEP: usize = 64;

impl Core {
    pub(crate) async fn create_queue(&self, project: &ProjectId, queue: NewQueue) -> Result<CreatedQueue, BrokerError> {
        drop(self.open()?);
        let id = self.new_queue_id();
        let row = QueueRow {
            number: 0,
            id: id.clone(),
            project: project.clone(),
            name: queue.name.clone(),
            mode: queue.mode,
            description: queue.description.unwrap_or_default(),
            // Kafka queues have no dead letters, and only they have `retention_hours`.
            max_consume_count: queue.max_consume_count.filter(|_| !queue.mode.is_kafka()),
            retention_hours: queue.retention_hours.filter(|_| queue.mode.is_kafka()),
            created_ms: self.clock.now_ms(),
        };
        let kafka_topic = kafka_topic(&row);
        self.change(AdminCommand::CreateQueue(row)).await?;
        tracing::info!(%project, queue = queue.name, queue_id = %id, "a queue was created");
        Ok(CreatedQueue::new(id, queue.name, kafka_topic))
    }

    /// A random id that the store takes: of N shards, about every Nth id belongs to this one.
    fn new_queue_id(&self) -> QueueId {
        loop {
            let id = QueueId::new(Uuid::new_v4().to_string());
            if self.store.takes_queue(&id) {
                return id;
            }
        }
    }

    pub(crate) fn queues(&self, project: &ProjectId) -> Result<Vec<Queue>, BrokerError> {
        let state = self.open()?;
        let mut own: Vec<_> = state.queues.values().filter(|queue| queue.row.project == *project).collect();
        own.sort_unstable_by_key(|queue| std::cmp::Reverse(queue.row.number));
        Ok(own.into_iter().map(|queue| self.show(&state, queue)).collect())
    }

    pub(crate) fn queue(&self, project: &ProjectId, queue: &QueueId) -> Result<Queue, BrokerError> {
        let state = self.open()?;
        Ok(self.show(&state, state.queue(project, queue)?))
    }

    pub(crate) async fn change_queue(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        change: QueueChange,
    ) -> Result<Queue, BrokerError> {
        self.open()?.queue(project, queue)?;
        self.change(AdminCommand::ChangeQueue(queue.clone(), change)).await?;
        let changed = {
            // Not by `open`: the change is made, also if the broker is closed by now, and a refusal would say that it is not.
            let state = self.lock();
            self.show(&state, state.queue(project, queue)?)
        };
        let (description, max_consume_count) = (&changed.description, changed.max_consume_count);
        tracing::info!(%project, queue = changed.name, queue_id = %queue, description, max_consume_count, "a queue was changed");
        Ok(changed)
    }

    pub(crate) async fn delete_queue(&self, project: &ProjectId, queue: &QueueId) -> Result<(), BrokerError> {
        let name = self.open()?.queue(project, queue)?.row.name.clone();
        self.change(AdminCommand::DeleteQueue(queue.clone())).await?;
        tracing::info!(%project, queue = name, queue_id = %queue, "a queue was deleted");
        Ok(())
    }

    pub(crate) async fn create_groups(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        names: &[String],
    ) -> Result<Vec<GroupId>, BrokerError> {
        let queue_name = self.open()?.queue(project, queue)?.row.name.clone();
        let ids: Vec<_> = names.iter().map(|_| GroupId::new(format!("g-{}", Uuid::new_v4()))).collect();
        let groups = ids.iter().cloned().zip(names.iter().cloned()).collect();
        self.change(AdminCommand::CreateGroups(queue.clone(), groups)).await?;
        for (group, group_id) in names.iter().zip(&ids) {
            tracing::info!(%project, queue = queue_name, group, %group_id, "a group was created");
        }
        Ok(ids)
    }

    pub(crate) fn groups(&self, project: &ProjectId, queue: &QueueId) -> Result<GroupList, BrokerError> {
        let state = self.open()?;
        let queue = state.queue(project, queue)?;
        Ok(GroupList {
            queue_name: queue.row.name.clone(),
            dead_letters: queue.row.max_consume_count.is_some(),
            groups: queue.groups.iter().map(|group| state.show_group(queue, group)).collect(),
        })
    }

    pub(crate) async fn delete_group(&self, path: &GroupPath) -> Result<(), BrokerError> {
        let (queue, group) = {
            let state = self.open()?;
            let queue = state.queue(&path.project, &path.queue)?;
            (queue.row.name.clone(), queue.group(&path.group)?.name.clone())
        };
        self.change(AdminCommand::DeleteGroup(path.queue.clone(), path.group.clone())).await?;
        tracing::info!(project = %path.project, queue, group, group_id = %path.group, "a group was deleted");
        Ok(())
    }

    pub(crate) async fn put_tags(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        tags: Vec<QueueTag>,
    ) -> Result<(), BrokerError> {
        self.open()?.queue(project, queue)?;
        self.change(AdminCommand::PutTags(queue.clone(), tags)).await
    }

    pub(crate) async fn delete_tags(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        tags: Vec<(String, Option<String>)>,
    ) -> Result<(), BrokerError> {
        self.open()?.queue(project, queue)?;
        self.change(AdminCommand::DeleteTags(queue.clone(), tags)).await
    }

    pub(crate) fn tags(&self, project: &ProjectId, queue: &QueueId) -> Result<Vec<QueueTag>, BrokerError> {
        Ok(self.open()?.queue(project, queue)?.tags.clone())
    }

    pub(crate) fn project_tags(&self, project: &ProjectId) -> Result<Vec<ProjectTag>, BrokerError> {
        let state = self.open()?;
        let mut own: Vec<_> = state.queues.values().filter(|queue| queue.row.project == *project).collect();
        own.sort_unstable_by_key(|queue| queue.row.number);
        let mut tags: Vec<ProjectTag> = Vec::new();
        for QueueTag { key, value } in own.into_iter().flat_map(|queue| &queue.tags) {
            match tags.iter_mut().find(|tag| tag.key == *key) {
                Some(tag) if tag.values.contains(value) => {}
                Some(tag) => tag.values.push(value.clone()),
                None => tags.push(ProjectTag { key: key.clone(), values: vec![value.clone()] }),
            }
        }
        Ok(tags)
    }

    pub(crate) fn usage(&self, project: &ProjectId) -> Result<Usage, BrokerError> {
        let mut usage = Usage::default();
        for queue in self.open()?.queues.values().filter(|queue| queue.row.project == *project) {
            if queue.row.mode.is_kafka() {
                usage.kafka_queues += 1;
            } else {
                usage.queues += 1;
            }
        }
        Ok(usage)
    }

    pub(crate) async fn change(&self, change: AdminCommand) -> Result<(), BrokerError> {
        self.submit(Command::Admin(change)).outcome().await
    }

    pub(crate) fn overview(&self) -> Vec<QueueOverview> {
        let Ok(queues) = self.queue_ids(|_| true) else { return Vec::new() };
        self.overviews(&queues)
    }

    /// A page of the queues of a project.
    pub(crate) fn project_overview(
        &self,
        project: &ProjectId,
        page: &OverviewPage<'_>,
    ) -> Result<Vec<QueueOverview>, BrokerError> {
        let after = match page.after {
            Some(after) => Some(self.open()?.queue(project, after)?.row.number),
            None => None,
        };
        let mut queues = self.queue_ids(|row| {
            after.is_none_or(|after| row.number > after)
                && row.project == *project
                && (page.is_shown)(&row.id, &row.name)
        })?;
        queues.truncate(page.max);
        Ok(self.overviews(&queues))
    }

    /// The ids of queues, oldest first.
    pub(crate) fn queue_ids(&self, wanted: impl Fn(&QueueRow) -> bool) -> Result<Vec<QueueId>, BrokerError> {
        let state = self.open()?;
        let mut rows: Vec<_> = state.queues.values().map(|queue| &queue.row).filter(|row| wanted(row)).collect();
        rows.sort_unstable_by_key(|row| row.number);
        Ok(rows.into_iter().map(|row| row.id.clone()).collect())
    }

    /// The overviews of these queues. Those that were deleted meanwhile are left out.
    fn overviews(&self, queues: &[QueueId]) -> Vec<QueueOverview> {
        let mut overviews = Vec::with_capacity(queues.len());
        for some in queues.chunks(LOCK_STEP) {
            // Sends and consume calls wait for this lock, so it is held for a few queues at a time.
            let state = self.lock();
            let now = Instant::now();
            let some = some.iter().filter_map(|queue| state.queues.get(queue));
            overviews.extend(some.map(|queue| self.queue_overview(&state, queue, now)));
        }
        overviews
    }

    fn queue_overview(&self, state: &BrokerState, queue: &QueueState, now: Instant) -> QueueOverview {
        let delay_queue = state.delay_queues.get(&queue.row.delay_queue());
        let retention = state.retention_of(queue);
        QueueOverview {
            project: queue.row.project.clone(),
            queue: self.show(state, queue),
            entered: state.entered(queue),
            entered_per_second: state.rates.entered(now, queue.row.stream(), state.entered(queue)),
            delayed: delay_queue.map_or(0, |delay_queue| delay_queue.count),
            retention: retention.retention(),
            delete_when_settled: retention.when_settled,
            retention_set: queue.retention,
            damaged_delayed: delay_queue.map_or(0, |delay_queue| delay_queue.set_aside.len()),
            groups: queue.groups.iter().map(|group| state.group_overview(queue, group, now)).collect(),
        }
    }

    fn show(&self, state: &BrokerState, queue: &QueueState) -> Queue {
        let row = &queue.row;
        let mut shown = Queue::new(row.id.clone(), &row.name, row.mode);
        shown.description.clone_from(&row.description);
        shown.created_ms = row.created_ms;
        shown.reservation_minutes = state.retention_of(queue).minutes();
        shown.max_message_bytes = limits::MAX_BYTES as u64;
        shown.produced_messages = state.produced(queue);
        shown.group_count = u32::try_from(queue.groups.len()).unwrap_or(u32::MAX);
        shown.dead_letters = Some(row.max_consume_count.is_some());
        shown.max_consume_count = row.max_consume_count;
        shown.kafka_topic = kafka_topic(row);
        shown
    }
}

impl BrokerState {
    /// The number of messages of a queue, including delayed ones.
    fn produced(&self, queue: &QueueState) -> u64 {
        let in_stream = self.streams.get(&queue.row.stream()).map_or(0, |stream| stream.len());
        in_stream + self.delay_queues.get(&queue.row.delay_queue()).map_or(0, |delay_queue| delay_queue.count)
    }

    /// The number of messages that ever entered a queue.
    fn entered(&self, queue: &QueueState) -> u64 {
        self.streams.get(&queue.row.stream()).map_or(0, Stream::entered)
    }

    fn group_overview(&self, queue: &QueueState, group: &GroupRow, now: Instant) -> GroupOverview {
        let cursor = self.cursors.get(&group.cursor());
        let consumed = cursor.map_or(0, |cursor| cursor.consumed);
        let dead = self.cursors.get(&group.dead_letter_cursor());
        let leased = |cursor: &Cursor| cursor.leases.values().map(|lease| lease.entries.len() as u64).sum();
        GroupOverview {
            group: self.show_group(queue, group),
            in_flight: cursor.map_or(0, leased),
            leases: cursor.map_or(0, |cursor| cursor.leases.len() as u64),
            consumed_per_second: self.rates.consumed(now, group.cursor(), consumed),
            polls: cursor.map_or(0, |cursor| cursor.polls as u64),
            damaged: cursor.map_or(0, |cursor| cursor.set_aside.len()),
            expired_unread: cursor.map_or(0, |cursor| cursor.expired_unread),
            expired_dead_letters: dead.map_or(0, |cursor| cursor.expired_unread),
            damaged_dead_letters: dead.map_or(0, |cursor| cursor.set_aside.len()),
        }
    }

    fn show_group(&self, queue: &QueueState, group: &GroupRow) -> ConsumerGroup {
        let cursor = self.cursors.get(&group.cursor());
        let available = |cursor: Option<&Cursor>| {
            cursor.and_then(|cursor| Some(cursor.available(self.streams.get(&cursor.stream)?))).unwrap_or(0)
        };
        let ever_dead = self.streams.get(&group.dead_letters()).map_or(0, |stream| stream.next - 1);
        let mut shown = ConsumerGroup::new(group.id.clone(), &group.name);
        shown.produced_messages = self.produced(queue);
        shown.consumed_messages = cursor.map_or(0, |cursor| cursor.consumed);
        shown.available_messages = available(cursor);
        shown.produced_dead_letters = Some(ever_dead);
        shown.available_dead_letters = Some(available(self.cursors.get(&group.dead_letter_cursor())));
        shown
    }
}

/// The name of the topic for native Kafka clients (API reference 5.1.1).
fn kafka_topic(queue: &QueueRow) -> Option<String> {
    queue.mode.is_kafka().then(|| format!("k-{}-{}", queue.project, queue.id))
}
