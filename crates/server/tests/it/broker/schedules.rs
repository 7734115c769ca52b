//! Schedules: one message for each tick, whatever restarts, and what happens to ticks that were missed.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use dms_protocol::{
    limits::MAX_SCHEDULES,
    queue::{NewQueue, ProjectId, QueueMode},
};
use dms_server::{
    broker::{
        Broker, BrokerError, GroupPath, LeasedMessage, MissedTicks, NewSchedule, ScheduleOverview, ScheduleSource,
        ScheduledMessage, Stream,
        embedded::{EmbeddedBroker, EmbeddedConfig},
    },
    clock::Clock,
};
use serde_json::{Value, json};

use super::stage::{Reopen, Stage, all_done, on_each_durable_store, on_each_store, take};

/// The first full minute after the time at which tests start, 2023-11-14T22:13:20Z.
const FIRST_MINUTE: u64 = 40;

fn schedule(name: &str, cron: &str) -> NewSchedule {
    NewSchedule::new(name, cron, ScheduledMessage::parse(r#"{"report":"daily"}"#).unwrap())
}

fn attributes(message: &LeasedMessage) -> Value {
    let value: Value = serde_json::from_slice(&message.json).unwrap();
    value["attributes"].clone()
}

/// For which times the messages of a batch were planned, without the date.
fn planned(batch: &[LeasedMessage]) -> Vec<String> {
    let time = |message: &LeasedMessage| attributes(message)["dms-scheduled-time"].as_str().unwrap()[11..].to_owned();
    batch.iter().map(time).collect()
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

impl Stage {
    async fn set_schedule(
        &self,
        schedule: NewSchedule,
        source: ScheduleSource,
    ) -> Result<ScheduleOverview, BrokerError> {
        self.broker.set_schedule(&self.project, &self.queue, schedule, source).await
    }

    async fn add(&self, schedule: NewSchedule) -> ScheduleOverview {
        self.set_schedule(schedule, ScheduleSource::Command).await.unwrap()
    }

    async fn pause(&self, name: &str, is_paused: bool) -> ScheduleOverview {
        self.broker.pause_schedule(&self.project, &self.queue, name, is_paused).await.unwrap()
    }

    async fn only(&self) -> ScheduleOverview {
        let mut all = self.broker.schedules().await.unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    /// Consumes and acknowledges everything.
    async fn drain(&self) -> Vec<LeasedMessage> {
        let mut all = Vec::new();
        loop {
            let batch = self.take(10).await;
            if batch.is_empty() {
                return all;
            }
            self.settle(all_done(&batch)).await.unwrap();
            all.extend(batch);
        }
    }
}

fn refusal(result: Result<ScheduleOverview, BrokerError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_tick_sends_its_message_at_its_time_and_names_it() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let message = r#"{"body":{"n":1.10},"attributes":{"a":1},"tags":["red"]}"#;
        let message = ScheduledMessage::parse(message).unwrap();
        let added = s.add(NewSchedule::new("five", "*/5 * * * *", message)).await;
        let first = 1_700_000_000_000 + 100_000;
        assert_eq!(added.next_ms, [first, first + 300_000, first + 600_000]);
        pass(99).await;
        assert_eq!(s.take(10).await.len(), 0, "a second early");
        pass(2).await;
        let batch = s.take(10).await;
        let own = r#""dms-schedule":"five","dms-scheduled-time":"2023-11-14T22:15:00Z""#;
        assert_eq!(batch.len(), 1);
        assert_eq!(batch[0].json, format!(r#"{{"body":{{"n":1.10}},"attributes":{{"a":1,{own}}},"tags":["red"]}}"#));
        let now = s.only().await;
        let last = now.last.unwrap();
        assert_eq!((last.planned_ms, last.id), (first, batch[0].id(&s.group(0), Stream::Messages)));
        assert!((first..first + 1_000).contains(&last.sent_ms), "{last:?}");
        assert_eq!((now.sent, now.missed, now.next_ms[0]), (1, 0, first + 300_000));
        assert_eq!(s.broker.stats().schedules.sent, 1);
        assert_eq!((now.queue_name.as_str(), now.source), ("q", ScheduleSource::Command));
    })
    .await;
}

/// The time zone counts: midnight in Shanghai is at 16:00 UTC.
#[tokio::test(start_paused = true)]
async fn a_cron_expression_is_read_in_its_time_zone() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let added = s.add(schedule("midnight", "@daily").timezone("Asia/Shanghai")).await;
        assert_eq!(added.next_ms[0], 1_700_064_000_000, "2023-11-15T16:00:00Z");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_tick_is_lost_or_repeated_by_crashes_and_restarts_of_less_than_a_minute() {
    for policy in [MissedTicks::Skip, MissedTicks::Once, MissedTicks::All] {
        on_each_durable_store(NewQueue::new("q"), async |mut s: Stage, reopen: Reopen| {
            s.add(schedule("ten", "*/10 * * * * *").missed(policy)).await;
            for round in 0..4 {
                pass(25).await;
                if round % 2 == 0 {
                    s.broker.abort().await;
                } else {
                    s.broker.close().await;
                }
                tokio::time::advance(Duration::from_secs(35)).await;
                s = Stage { broker: reopen.open().await, ..s };
            }
            pass(1).await;
            let times = planned(&s.drain().await);
            let expected: Vec<String> =
                (0..24).map(|tick| 810 + tick * 10).map(|s| format!("22:{:02}:{:02}Z", s / 60, s % 60)).collect();
            assert_eq!(times, expected);
            assert_eq!((s.only().await.sent, s.only().await.missed), (24, 0));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn ticks_of_a_longer_outage_are_missed_and_the_policy_says_what_they_send() {
    for (policy, expected, missed) in [
        (MissedTicks::Skip, vec!["22:14:00Z", "22:19:00Z"], 4),
        (MissedTicks::Once, vec!["22:14:00Z", "22:18:00Z", "22:19:00Z"], 3),
        (MissedTicks::All, vec!["22:14:00Z", "22:15:00Z", "22:16:00Z", "22:17:00Z", "22:18:00Z", "22:19:00Z"], 0),
    ] {
        on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
            s.add(schedule("minutely", "* * * * *").missed(policy)).await;
            pass(FIRST_MINUTE + 1).await;
            s.broker.abort().await;
            tokio::time::advance(Duration::from_secs(300)).await;
            let s = Stage { broker: reopen.open().await, ..s };
            pass(1).await;
            assert_eq!(planned(&s.drain().await), expected, "{policy:?}");
            assert_eq!(s.only().await.missed, missed, "{policy:?}");
            let s = reopen.crash(s).await;
            pass(1).await;
            assert_eq!(s.drain().await.len(), 0, "nothing is sent again");
            pass(60).await;
            assert_eq!(planned(&s.drain().await), ["22:20:00Z"]);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_schedule_sends_nothing_and_goes_on_from_when_it_is_resumed() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        s.add(schedule("minutely", "* * * * *").missed(MissedTicks::All)).await;
        let paused = s.pause("minutely", true).await;
        assert!(paused.is_paused && paused.next_ms.is_empty());
        pass(600).await;
        let s = reopen.restart(s).await;
        assert!(s.only().await.is_paused, "a restart resumes nothing");
        assert_eq!(s.drain().await.len(), 0);
        let resumed = s.pause("minutely", false).await;
        assert_eq!((resumed.is_paused, resumed.next_ms.len()), (false, 3));
        pass(61).await;
        assert_eq!(planned(&s.drain().await), ["22:24:00Z"]);
        assert_eq!(s.only().await.missed, 0, "ticks of a pause are not missed");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_schedules_of_a_queue_are_removed_with_it() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        s.add(schedule("a", "* * * * *")).await;
        s.add(schedule("b", "* * * * *")).await;
        s.broker.remove_schedule(&s.project, &s.queue, "b", ScheduleSource::Command).await.unwrap();
        assert_eq!(s.only().await.schedule.name, "a");
        s.broker.delete_queue(&s.project, &s.queue).await.unwrap();
        assert_eq!(s.broker.schedules().await.unwrap(), []);
        pass(120).await;
        let s = reopen.restart(s).await;
        assert_eq!(s.broker.schedules().await.unwrap(), []);
        let error = refusal(s.set_schedule(schedule("a", "* * * * *"), ScheduleSource::Command).await);
        assert_eq!(error, "the queue does not exist");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn wrong_schedules_are_refused_with_the_reason() {
    on_each_store(NewQueue::new("q"), async |s: Stage| {
        let by_command = async |schedule| refusal(s.set_schedule(schedule, ScheduleSource::Command).await);
        assert!(by_command(schedule("a", "0 25 * * *")).await.contains("the hour is \"25\""));
        assert!(by_command(schedule("a", "@daily").timezone("Mars/Base")).await.contains("no time zone"));
        assert!(by_command(schedule("a b", "@daily")).await.starts_with("name is \"a b\""));
        s.add(schedule("a", "@daily")).await;
        assert_eq!(s.add(schedule("a", "@daily")).await.schedule.name, "a", "the same again is no mistake");
        assert!(by_command(schedule("a", "@hourly")).await.contains("has a schedule a already"));
        let other = s.broker.create_queue(&s.project, NewQueue::new("other")).await.unwrap().id;
        let elsewhere = s.broker.set_schedule(&s.project, &other, schedule("a", "@daily"), ScheduleSource::Command);
        assert!(refusal(elsewhere.await).contains("has a schedule a already"));
        for number in 1..MAX_SCHEDULES {
            s.add(schedule(&format!("s{number}"), "@daily")).await;
        }
        assert!(by_command(schedule("more", "@daily")).await.contains("has 100 schedules"));
        let kafka = s.broker.create_queue(&s.project, NewQueue::new("k").mode(QueueMode::KafkaHt)).await.unwrap().id;
        let labelled = NewSchedule::new("l", "@daily", ScheduledMessage::parse(r#"{"body":1,"tags":["a"]}"#).unwrap());
        let refused = s.broker.set_schedule(&s.project, &kafka, labelled, ScheduleSource::Command).await;
        assert!(matches!(refused, Err(BrokerError::KafkaLabels)));
        let gone = s.broker.remove_schedule(&s.project, &s.queue, "x", ScheduleSource::Command).await;
        assert_eq!(gone.unwrap_err().to_string(), "the queue has no schedule x");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_of_the_configuration_is_changed_there_alone_and_can_be_paused() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        let configure =
            async |s: &Stage, schedule| s.set_schedule(schedule, ScheduleSource::Configuration).await.unwrap();
        configure(&s, schedule("minutely", "* * * * *").missed(MissedTicks::All)).await;
        let removed = s.broker.remove_schedule(&s.project, &s.queue, "minutely", ScheduleSource::Command).await;
        assert!(removed.unwrap_err().to_string().contains("server.schedules in the configuration"));
        let changed = refusal(s.set_schedule(schedule("minutely", "@daily"), ScheduleSource::Command).await);
        assert!(changed.contains("it is changed there, and can be paused here"), "{changed}");
        pass(FIRST_MINUTE + 1).await;
        s.pause("minutely", true).await;
        let s = reopen.restart(s).await;
        let same = configure(&s, schedule("minutely", "* * * * *").missed(MissedTicks::All)).await;
        assert!(same.is_paused, "a start resumes nothing");
        s.pause("minutely", false).await;
        s.broker.abort().await;
        tokio::time::advance(Duration::from_secs(180)).await;
        let s = Stage { broker: reopen.open().await, ..s };
        // Another message changes nothing of the ticks.
        let other = ScheduledMessage::parse("2").unwrap();
        configure(&s, NewSchedule::new("minutely", "* * * * *", other).missed(MissedTicks::All)).await;
        pass(1).await;
        assert_eq!(planned(&s.drain().await), ["22:14:00Z", "22:15:00Z", "22:16:00Z", "22:17:00Z"]);
        // Other times begin now.
        s.broker.abort().await;
        tokio::time::advance(Duration::from_secs(180)).await;
        let s = Stage { broker: reopen.open().await, ..s };
        pass(1).await;
        s.drain().await;
        configure(&s, schedule("minutely", "*/2 * * * *").missed(MissedTicks::All)).await;
        pass(1).await;
        assert_eq!(s.drain().await.len(), 0);
        s.broker.remove_schedule(&s.project, &s.queue, "minutely", ScheduleSource::Configuration).await.unwrap();
        assert_eq!(s.broker.schedules().await.unwrap(), []);
    })
    .await;
}

const DIR: &str = "DMS_WORKER_TEST_SCHEDULE_DIR";
const START: &str = "DMS_WORKER_TEST_SCHEDULE_START";
const ROUNDS: usize = 10;

async fn open(dir: &Path, clock: Clock) -> (EmbeddedBroker, GroupPath) {
    let broker = EmbeddedBroker::open(dir, EmbeddedConfig::default(), clock).await.unwrap();
    let project = ProjectId::new("p");
    if broker.queues(&project).await.unwrap().is_empty() {
        broker.create_queue(&project, NewQueue::new("q")).await.unwrap();
    }
    let queue = broker.queues(&project).await.unwrap().remove(0).id;
    if broker.groups(&project, &queue).await.unwrap().groups.is_empty() {
        broker.create_groups(&project, &queue, &["g".into()]).await.unwrap();
    }
    let group = broker.groups(&project, &queue).await.unwrap().groups.remove(0).id;
    (broker, GroupPath { project, queue, group })
}

/// The process that is killed. Its seconds pass as fast as its disk allows.
#[tokio::test(start_paused = true)]
#[ignore = "run by the test below, in a separate process"]
async fn victim() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let start = std::env::var(START).unwrap().parse().unwrap();
    let clock = Clock::following_tokio(UNIX_EPOCH + Duration::from_millis(start));
    let (broker, path) = open(Path::new(&dir), clock).await;
    let every_second = schedule("seconds", "* * * * * *");
    let set = broker.set_schedule(&path.project, &path.queue, every_second, ScheduleSource::Configuration).await;
    let mut sent = set.unwrap().sent;
    loop {
        pass(1).await;
        let now = broker.schedules().await.unwrap()[0].sent;
        (sent..now).for_each(|tick| println!("tick {tick}"));
        sent = now;
    }
}

/// A process is killed between a tick, its commit and the next one. It continues with the tick after the last one that was stored.
#[tokio::test(start_paused = true)]
async fn each_tick_has_one_message_whenever_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut start: u64 = 1_700_000_000_000;
    let mut seen: Vec<i64> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "broker::schedules::victim"])
            .env(DIR, dir.path())
            .env(START, start.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ticks = said.filter(|line| line.starts_with("tick")).take(3 + round * 4).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ticks, 3 + round * 4, "the process ended by itself");
        // A clock that stands still at the last tick: nothing is due.
        let clock = Clock::following_tokio(UNIX_EPOCH + Duration::from_millis(start));
        let (broker, path) = open(dir.path(), clock).await;
        let last = broker.schedules().await.unwrap().remove(0);
        let mut here = Vec::new();
        loop {
            let batch = broker.lease(&path, Stream::Messages, take(10)).await.unwrap();
            if batch.is_empty() {
                break;
            }
            broker.ack(&path, Stream::Messages, all_done(&batch)).await.unwrap();
            for message in &batch {
                let time: jiff::Timestamp =
                    attributes(message)["dms-scheduled-time"].as_str().unwrap().parse().unwrap();
                here.push(time.as_millisecond());
            }
        }
        seen.extend(here);
        assert_eq!(last.sent, seen.len() as u64);
        start = u64::try_from(last.last.unwrap().planned_ms).unwrap();
        broker.close().await;
    }
    let first = seen[0];
    let expected: Vec<i64> = (0..).map(|tick| first + tick * 1_000).take(seen.len()).collect();
    assert_eq!(seen, expected);
    assert!(seen.len() > ROUNDS * 15);
}

#[test]
fn an_overview_is_the_same_after_it_went_to_another_server() {
    let schedule = schedule("a", "@daily").missed(MissedTicks::All);
    let written = serde_json::to_value(&schedule).unwrap();
    assert_eq!(written["missed"], json!("all"));
    assert_eq!(serde_json::from_value::<NewSchedule>(written).unwrap(), schedule);
}
