//! [`Broker`] over all shards: an operation on a queue goes to its shard, one on a project to all of them.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use tokio::time::timeout;

use super::{
    ClusterBroker,
    admin::failed,
    call::{Call, Reply},
    hop::client::HopError,
};
use crate::{
    broker::{
        Ack, AckCounts, Appended, BackedUp, Broker, BrokerError, BrokerStats, ClusterCounters, ClusterStatus,
        DamagedMessage, FoundMessage, GroupList, GroupPath, KeptJob, LeaseRequest, LeasedMessage, MessageOrigin,
        NewMessage, NewSchedule, OverviewPage, Peeked, Purged, QueueChange, QueueOverview, Quotas, ScheduleOverview,
        ScheduleSource, StorageTrouble, Stream, Usage,
    },
    net::tls::Tls,
    store::postgres::{PeerUrl, duty::OwnerStatus, guard::Guard, jobs::JobRow, member::QueueElsewhere, shards},
};
use dms_protocol::{
    queue::{CreatedQueue, GroupId, NewQueue, ProjectId, ProjectTag, Queue, QueueId, QueueTag},
    secret::Secret,
};

/// How long other servers may take to end the polls that wait there: a client that stops waits for it.
const END_POLLS_WITHIN: Duration = Duration::from_secs(1);

/// The contents of the reply that a call has.
macro_rules! reply {
    ($reply:expr, $shape:pat => $value:expr) => {
        match $reply {
            $shape => Ok($value),
            // A server of another version, which sent a reply of another kind.
            _ => Err(BrokerError::Unavailable),
        }
    };
}

impl ClusterBroker {
    /// Makes a call at the owner of a queue.
    async fn at(&self, queue: &QueueId, call: Call) -> Result<Reply, BrokerError> {
        self.shared.call(shards::of_queue(queue, self.shared.shards), call).await
    }

    fn by_shard(&self, queues: &[QueueId]) -> BTreeMap<i32, Vec<QueueId>> {
        let mut by_shard = BTreeMap::<_, Vec<_>>::new();
        for queue in queues {
            by_shard.entry(shards::of_queue(queue, self.shared.shards)).or_default().push(queue.clone());
        }
        by_shard
    }

    /// Makes a call at the owners of all shards, and returns the replies in the order of the shards.
    async fn everywhere(&self, call: impl Fn() -> Call) -> Result<Vec<Reply>, BrokerError> {
        let shards = i32::try_from(self.shared.shards).unwrap_or(i32::MAX);
        try_join_all((0..shards).map(|shard| self.shared.call(shard, call()))).await
    }

    /// Refuses a name that an imported queue in another shard has. While this is looked up, nobody else creates a queue of the project.
    async fn refuse_imported(
        &self,
        project: &ProjectId,
        name: &str,
        elsewhere: &[QueueElsewhere],
    ) -> Result<(), BrokerError> {
        let Some(found) = elsewhere.iter().find(|found| found.project == *project && found.name == name) else {
            return Ok(());
        };
        match self.at(&found.id, Call::Queue { project: project.clone(), queue: found.id.clone() }).await {
            // It was deleted, so its name is free.
            Err(BrokerError::QueueNotFound) => self.shared.member().forget_elsewhere(&found.id).await.map_err(failed),
            Err(error) => Err(error),
            Ok(_) => Err(BrokerError::QueueExists(name.to_owned())),
        }
    }

    /// The overviews of the owners of all shards, oldest queue first.
    async fn overviews(&self, call: impl Fn() -> Call) -> Result<Vec<QueueOverview>, BrokerError> {
        let mut queues: Vec<QueueOverview> = Vec::new();
        for reply in self.everywhere(call).await? {
            queues.extend(reply!(reply, Reply::Overview(part) => part)?.into_iter().map(QueueOverview::from));
        }
        // Stable, as in `queues`: a page begins where the one before ended.
        queues.sort_by_key(|queue| queue.queue.created_ms);
        Ok(queues)
    }
}

impl crate::broker::sealed::Sealed for ClusterBroker {}

#[async_trait]
impl Broker for ClusterBroker {
    async fn create_queue(&self, project: &ProjectId, queue: NewQueue) -> Result<CreatedQueue, BrokerError> {
        // Servers that create queues of one project at the same moment must not exceed its quota together.
        let guard = Guard::take(&self.shared.member(), project.as_str()).await.map_err(failed)?;
        let elsewhere = guard.queues_elsewhere().await.map_err(failed)?;
        let usage = self.usage(project).await?;
        let alike = if queue.mode.is_kafka() { usage.kafka_queues } else { usage.queues };
        let quota = self.quotas(project).queues;
        let shard = shards::of_name(project, &queue.name, self.shared.shards);
        if alike >= quota {
            // As on one server, a name that is taken is reported first.
            let there = reply!(self.shared.call(shard, Call::Queues { project: project.clone() }).await?, Reply::Queues(queues) => queues)?;
            let is_taken = there.into_iter().map(Queue::from).any(|other| other.name == queue.name);
            return Err(if is_taken { BrokerError::QueueExists(queue.name) } else { BrokerError::QueueQuota(quota) });
        }
        self.refuse_imported(project, &queue.name, &elsewhere).await?;
        let call = Call::CreateQueue { project: project.clone(), queue: queue.into() };
        reply!(self.shared.call(shard, call).await?, Reply::Created(id, name, topic) => CreatedQueue::new(id, name, topic))
    }

    async fn queues(&self, project: &ProjectId) -> Result<Vec<Queue>, BrokerError> {
        let mut queues: Vec<Queue> = Vec::new();
        for reply in self.everywhere(|| Call::Queues { project: project.clone() }).await? {
            queues.extend(reply!(reply, Reply::Queues(part) => part)?.into_iter().map(Queue::from));
        }
        // Stable: the queues of a shard stay in the order of their creation.
        queues.sort_by_key(|queue| std::cmp::Reverse(queue.created_ms));
        Ok(queues)
    }

    async fn queue(&self, project: &ProjectId, queue: &QueueId) -> Result<Queue, BrokerError> {
        let call = Call::Queue { project: project.clone(), queue: queue.clone() };
        reply!(self.at(queue, call).await?, Reply::Queue(queue) => queue.into())
    }

    async fn delete_queue(&self, project: &ProjectId, queue: &QueueId) -> Result<(), BrokerError> {
        let call = Call::DeleteQueue { project: project.clone(), queue: queue.clone() };
        reply!(self.at(queue, call).await?, Reply::Done => ())
    }

    async fn create_groups(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        names: &[String],
    ) -> Result<Vec<GroupId>, BrokerError> {
        let call = Call::CreateGroups { project: project.clone(), queue: queue.clone(), names: names.to_vec() };
        reply!(self.at(queue, call).await?, Reply::GroupIds(ids) => ids)
    }

    async fn groups(&self, project: &ProjectId, queue: &QueueId) -> Result<GroupList, BrokerError> {
        let call = Call::Groups { project: project.clone(), queue: queue.clone() };
        reply!(self.at(queue, call).await?, Reply::Groups(groups) => groups.into())
    }

    async fn delete_group(&self, path: &GroupPath) -> Result<(), BrokerError> {
        reply!(self.at(&path.queue, Call::DeleteGroup { path: path.clone() }).await?, Reply::Done => ())
    }

    async fn append(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        messages: Vec<NewMessage>,
    ) -> Result<Appended, BrokerError> {
        let messages = messages.into_iter().map(Into::into).collect();
        let call = Call::Append { project: project.clone(), queue: queue.clone(), messages };
        reply!(self.at(queue, call).await?, Reply::Appended(appended) => appended)
    }

    async fn lease(
        &self,
        path: &GroupPath,
        stream: Stream,
        request: LeaseRequest,
    ) -> Result<Vec<LeasedMessage>, BrokerError> {
        let call = Call::Lease { path: path.clone(), stream: stream.into(), request };
        reply!(self.at(&path.queue, call).await?, Reply::Leased(messages) => messages.into_iter().map(Into::into).collect())
    }

    async fn ack(&self, path: &GroupPath, stream: Stream, acks: Vec<Ack>) -> Result<AckCounts, BrokerError> {
        let call = Call::Ack { path: path.clone(), stream: stream.into(), acks };
        reply!(self.at(&path.queue, call).await?, Reply::Acked(counts) => counts)
    }

    async fn put_tags(&self, project: &ProjectId, queue: &QueueId, tags: Vec<QueueTag>) -> Result<(), BrokerError> {
        let call = Call::PutTags { project: project.clone(), queue: queue.clone(), tags };
        reply!(self.at(queue, call).await?, Reply::Done => ())
    }

    async fn tags(&self, project: &ProjectId, queue: &QueueId) -> Result<Vec<QueueTag>, BrokerError> {
        let call = Call::Tags { project: project.clone(), queue: queue.clone() };
        reply!(self.at(queue, call).await?, Reply::Tags(tags) => tags)
    }

    async fn delete_tags(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        tags: Vec<(String, Option<String>)>,
    ) -> Result<(), BrokerError> {
        let call = Call::DeleteTags { project: project.clone(), queue: queue.clone(), tags };
        reply!(self.at(queue, call).await?, Reply::Done => ())
    }

    async fn project_tags(&self, project: &ProjectId) -> Result<Vec<ProjectTag>, BrokerError> {
        let mut tags: Vec<ProjectTag> = Vec::new();
        for reply in self.everywhere(|| Call::ProjectTags { project: project.clone() }).await? {
            for part in reply!(reply, Reply::ProjectTags(tags) => tags)? {
                match tags.iter_mut().find(|tag| tag.key == part.key) {
                    Some(tag) => {
                        for value in part.values {
                            if !tag.values.contains(&value) {
                                tag.values.push(value);
                            }
                        }
                    }
                    None => tags.push(part),
                }
            }
        }
        Ok(tags)
    }

    async fn usage(&self, project: &ProjectId) -> Result<Usage, BrokerError> {
        let mut usage = Usage::default();
        for reply in self.everywhere(|| Call::Usage { project: project.clone() }).await? {
            let part = reply!(reply, Reply::Usage(usage) => usage)?;
            usage.queues += part.queues;
            usage.kafka_queues += part.kafka_queues;
        }
        Ok(usage)
    }

    fn quotas(&self, project: &ProjectId) -> Quotas {
        self.shared.config().quotas_of(project)
    }

    fn overview(&self) -> Vec<QueueOverview> {
        self.shared.seats.own().iter().flat_map(|broker| broker.overview()).collect()
    }

    async fn overview_of_all(&self) -> Result<Vec<QueueOverview>, BrokerError> {
        self.overviews(|| Call::Overview).await
    }

    async fn oldest(&self) -> HashMap<GroupId, i64> {
        let own = self.shared.seats.own();
        join_all(own.iter().map(|broker| broker.oldest())).await.into_iter().flatten().collect()
    }

    async fn project_overview(
        &self,
        project: &ProjectId,
        page: OverviewPage<'_>,
    ) -> Result<Vec<QueueOverview>, BrokerError> {
        page.of(self.overviews(|| Call::ProjectOverview { project: project.clone() }).await?, project)
    }

    async fn oldest_in(&self, queues: &[QueueId]) -> Result<HashMap<GroupId, i64>, BrokerError> {
        let by_shard = self.by_shard(queues).into_iter();
        let mut oldest = HashMap::new();
        for reply in
            try_join_all(by_shard.map(|(shard, queues)| self.shared.call(shard, Call::OldestIn { queues }))).await?
        {
            oldest.extend(reply!(reply, Reply::Oldest(part) => part)?);
        }
        Ok(oldest)
    }

    async fn ready(&self) -> Result<(), BrokerError> {
        // A shard that moves is waited for by requests: the other servers would not serve them sooner.
        if self.shared.is_reachable {
            return match self.shared.member().is_answered() {
                true => Ok(()),
                false => Err(BrokerError::Unavailable),
            };
        }
        self.usage(&ProjectId::new("readiness")).await.map(drop)
    }

    fn stats(&self) -> BrokerStats {
        let mut stats = self.shared.retired.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.shared.seats.own().iter().for_each(|broker| stats.add(&broker.stats()));
        stats
    }

    fn storage_troubles(&self) -> Vec<StorageTrouble> {
        let mut troubles: Vec<StorageTrouble> = Vec::new();
        for trouble in self.shared.seats.own().iter().flat_map(|broker| broker.storage_troubles()) {
            match troubles.iter_mut().find(|known| known.part == trouble.part) {
                Some(known) => {
                    known.since_ms = known.since_ms.min(trouble.since_ms);
                    known.refused += trouble.refused;
                }
                None => troubles.push(trouble),
            }
        }
        troubles
    }

    async fn peek(&self, path: &GroupPath, stream: Stream, from: u64, max: usize) -> Result<Vec<Peeked>, BrokerError> {
        let call = Call::Peek { path: path.clone(), stream: stream.into(), from, max };
        reply!(self.at(&path.queue, call).await?, Reply::Peeked(messages) => messages.into_iter().map(Into::into).collect())
    }

    async fn find_message(
        &self,
        project: &ProjectId,
        queues: &[QueueId],
        id: MessageOrigin,
    ) -> Result<FoundMessage, BrokerError> {
        let find = |(shard, queues)| self.shared.call(shard, Call::Find { project: project.clone(), queues, id });
        let mut found = FoundMessage { complete: true, places: Vec::new() };
        for reply in try_join_all(self.by_shard(queues).into_iter().map(find)).await? {
            let part: FoundMessage = reply!(reply, Reply::Found(found) => found.into())?;
            found.complete &= part.complete;
            found.places.extend(part.places);
        }
        // As one server finds them: in the order of the queues.
        found.places.sort_by_key(|place| queues.iter().position(|queue| *queue == place.queue));
        Ok(found)
    }

    async fn retry_dead_letter(&self, path: &GroupPath, sequence: u64, id: MessageOrigin) -> Result<(), BrokerError> {
        let call = Call::RetryDeadLetter { path: path.clone(), sequence, id };
        reply!(self.at(&path.queue, call).await?, Reply::Done => ())
    }

    async fn edit_dead_letter(
        &self,
        path: &GroupPath,
        sequence: u64,
        id: MessageOrigin,
        copy: NewMessage,
    ) -> Result<(), BrokerError> {
        let call = Call::EditDeadLetter { path: path.clone(), sequence, id, copy: Box::new(copy.into()) };
        reply!(self.at(&path.queue, call).await?, Reply::Done => ())
    }

    async fn discard_message(&self, path: &GroupPath, stream: Stream, sequence: u64) -> Result<(), BrokerError> {
        let call = Call::Discard { path: path.clone(), stream: stream.into(), sequence };
        reply!(self.at(&path.queue, call).await?, Reply::Done => ())
    }

    fn damaged(&self) -> Vec<DamagedMessage> {
        self.shared.seats.own().iter().flat_map(|broker| broker.damaged()).collect()
    }

    async fn skip_damaged(&self, which: &DamagedMessage) -> Result<(), BrokerError> {
        reply!(self.at(&which.queue, Call::SkipDamaged { which: which.clone() }).await?, Reply::Done => ())
    }

    async fn purge(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        group: Option<&GroupId>,
    ) -> Result<Purged, BrokerError> {
        let call = Call::Purge { project: project.clone(), queue: queue.clone(), group: group.cloned() };
        reply!(self.at(queue, call).await?, Reply::Purged(purged) => purged)
    }

    async fn change_queue(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        change: QueueChange,
    ) -> Result<Queue, BrokerError> {
        let call = Call::ChangeQueue { project: project.clone(), queue: queue.clone(), change: change.into() };
        reply!(self.at(queue, call).await?, Reply::Queue(queue) => queue.into())
    }

    async fn set_schedule(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        schedule: NewSchedule,
        source: ScheduleSource,
    ) -> Result<ScheduleOverview, BrokerError> {
        // Servers that add schedules of one project at the same moment must not give two queues the same name.
        let _guard = Guard::take(&self.shared.member(), project.as_str()).await.map_err(failed)?;
        let is_taken = |other: &ScheduleOverview| {
            other.project == *project && other.schedule.name == schedule.name && other.queue != *queue
        };
        if let Some(other) = self.schedules().await?.into_iter().find(is_taken) {
            let (name, queue) = (other.schedule.name, other.queue_name);
            let text = format!(
                "the project has a schedule {name} of queue {queue} already: remove it first, or use another name"
            );
            return Err(BrokerError::NotAvailable(text.into()));
        }
        let call = Call::SetSchedule { project: project.clone(), queue: queue.clone(), schedule, source };
        reply!(self.at(queue, call).await?, Reply::Schedule(schedule) => *schedule)
    }

    async fn remove_schedule(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        name: &str,
        source: ScheduleSource,
    ) -> Result<(), BrokerError> {
        let (project, name) = (project.clone(), name.to_owned());
        let call = Call::RemoveSchedule { project, queue: queue.clone(), name, source };
        reply!(self.at(queue, call).await?, Reply::Done => ())
    }

    async fn pause_schedule(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        name: &str,
        is_paused: bool,
    ) -> Result<ScheduleOverview, BrokerError> {
        let (project, name) = (project.clone(), name.to_owned());
        let call = Call::PauseSchedule { project, queue: queue.clone(), name, is_paused };
        reply!(self.at(queue, call).await?, Reply::Schedule(schedule) => *schedule)
    }

    async fn schedules(&self) -> Result<Vec<ScheduleOverview>, BrokerError> {
        let mut all = Vec::new();
        for reply in self.everywhere(|| Call::Schedules).await? {
            all.extend(reply!(reply, Reply::Schedules(part) => part)?);
        }
        all.sort_by(|a, b| (&a.project, &a.schedule.name).cmp(&(&b.project, &b.schedule.name)));
        Ok(all)
    }

    async fn back_up(&self, _to: &Path) -> Result<BackedUp, BrokerError> {
        Err(BrokerError::NoBackup("the messages are in PostgreSQL: back that up with pg_basebackup".to_owned()))
    }

    fn shared_secret(&self) -> Option<Secret> {
        Some(self.shared.secret.clone())
    }

    fn peer_certificate(&self) -> Option<Tls> {
        self.shared.tls.clone().map(Tls::from)
    }

    async fn end_polls_elsewhere(&self, project: &ProjectId, names: &[String]) -> usize {
        let member = self.shared.member();
        let cluster = member.views().borrow().clone();
        let others = cluster.members.iter().filter(|peer| peer.id != member.id && !peer.is_silent);
        let end = async |address: &str| {
            let address = address.into();
            let ask = async || {
                let call = Call::EndPolls { project: project.clone(), names: names.to_vec() };
                // No shard is asked, so none is named.
                self.shared.hop.connect(&address).await?.call(-1, call).await
            };
            let end = async {
                match ask().await {
                    // The connection was not open any more; the server there may be.
                    Err(HopError::Broken | HopError::NotSent(_)) => ask().await,
                    ended => ended,
                }
            };
            match timeout(END_POLLS_WITHIN, end).await {
                Ok(Ok(Reply::Ended(ended))) => ended,
                // The calls end by themselves when their time is over.
                _ => 0,
            }
        };
        join_all(others.filter_map(|peer| PeerUrl::normal(&peer.url)).map(end)).await.into_iter().sum()
    }

    fn cluster_counters(&self) -> Option<ClusterCounters> {
        let member = self.shared.member();
        let cluster = member.views().borrow().clone();
        let counts = &member.counts;
        Some(ClusterCounters {
            members: cluster.members.iter().filter(|peer| !peer.is_silent).count() as u64,
            shards: self.shared.seats.own().len() as u64,
            missed_beats: counts.missed_beats.load(Ordering::Relaxed),
            unsure_commits: counts.unsure_commits.load(Ordering::Relaxed),
            takeovers: counts.takeovers.load(Ordering::Relaxed),
            is_replicated: cluster.is_replicated,
            unowned_shards: cluster.shards.iter().filter(|view| view.status != OwnerStatus::Alive).count() as u64,
        })
    }

    async fn keep_job(&self, id: &str, facts: &str) -> Result<bool, BrokerError> {
        self.shared.member().keep_job(id, facts).await.map_err(failed)
    }

    async fn forget_job(&self, id: &str) -> Result<(), BrokerError> {
        self.shared.member().forget_job(id).await.map_err(failed)
    }

    async fn kept_jobs(&self) -> Result<Vec<KeptJob>, BrokerError> {
        let rows = self.shared.member().kept_jobs().await.map_err(failed)?;
        Ok(rows.into_iter().map(|JobRow { id, facts, server }| KeptJob { id, facts, server }).collect())
    }

    async fn cluster(&self) -> Result<ClusterStatus, BrokerError> {
        self.status().await
    }

    async fn move_shard(&self, shard: u32, to: Option<&str>) -> Result<String, BrokerError> {
        self.hand_over(shard, to).await
    }

    async fn drain(&self, server: Option<&str>, is_draining: bool) -> Result<String, BrokerError> {
        self.set_draining(server, is_draining).await
    }

    async fn close(&self) {
        self.shared.stop.cancel();
        if let Some(supervisor) = self.supervisor.lock().await.take() {
            // The task ends now that the runtime stops. A panic was reported when it happened.
            let _ = supervisor.await;
        }
        drop(self.hops.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
