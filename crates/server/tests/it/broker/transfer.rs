//! Exports and imports: from a directory into PostgreSQL and back, killed anywhere, damaged, or onto something else.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dms_protocol::queue::{NewQueue, QueueMode, QueueTag, TagMode};
use dms_server::{
    broker::{
        AckStatus, Broker, Deduplication, FailureCause, NewSchedule, QueueChange, RetentionPolicy, ScheduleSource,
        ScheduledMessage, Stream, embedded::EmbeddedConfig,
    },
    clock::Clock,
    store::transfer::{StoreLocation, Summary, TransferError, export, import},
};

use super::stage::{Home, Stage, acks, all_done, epoch, message, say, take, take_by, texts};

const DELAY: Duration = Duration::from_secs(3_600);

impl Home {
    fn place(&self) -> StoreLocation {
        match self {
            Self::Memory => panic!("nothing is kept"),
            Self::Dir(dir) => StoreLocation::Directory(dir.path().join("data")),
            #[cfg(feature = "postgres")]
            Self::Postgres(config) => {
                let mut config = config.clone();
                // As the broker of these tests opens it.
                config.shards = Some(1);
                StoreLocation::Postgres(config)
            }
        }
    }

    fn directory() -> Self {
        Self::Dir(Arc::new(tempfile::tempdir().unwrap()))
    }

    /// Opens what an import has made.
    async fn imported(&self, clock: Clock) -> dms_server::broker::embedded::EmbeddedBroker {
        let config = EmbeddedConfig::default();
        match self {
            Self::Dir(dir) => {
                dms_server::broker::embedded::EmbeddedBroker::open(&dir.path().join("data"), config, clock)
                    .await
                    .unwrap()
            }
            other => other.open(&config, clock).await,
        }
    }
}

/// Blocking work beside the paused clock.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn export_all(from: &Home, to: &Path) -> Result<Summary, TransferError> {
    let from = from.place();
    on_a_thread(|| export(&from, to, false, &mut |_| true))
}

fn import_all(from: &Path, to: &Home) -> Result<Summary, TransferError> {
    let to = to.place();
    on_a_thread(|| import(from, &to, &mut |_| true))
}

/// Ends the work at its Nth step; tells whether it was ended.
fn killed_at(
    step: usize,
    work: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<Summary, TransferError>,
) -> ControlFlow<()> {
    let mut left = step;
    let mut goes_on = || {
        left = left.wrapping_sub(1);
        left < usize::MAX / 2
    };
    match work(&mut goes_on) {
        Err(TransferError::Interrupted) => ControlFlow::Continue(()),
        done => {
            done.unwrap();
            ControlFlow::Break(())
        }
    }
}

fn numbered(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("m{number}")).collect()
}

async fn send(stage: &Stage, texts: &[String]) {
    for part in texts.chunks(100) {
        stage.send_all(part.iter().map(|text| message(text, &[], Duration::ZERO)).collect()).await;
    }
}

/// A queue in the middle of its life: expired messages, gaps in what a group acknowledged, failures, dead letters, delayed messages, a
/// fixed label rule, deduplication keys, tags, a schedule. Returns what its directory is called.
async fn lived(home: &Home, messages: usize) -> Stage {
    let clock = Clock::following_tokio(epoch());
    let broker = home.imported_or_new(clock).await;
    let project = "p".into();
    let queue = NewQueue::new("orders").dead_letters_after(2).description("of shops");
    let queue = broker.create_queue(&project, queue).await.unwrap().id;
    let names = ["a".to_owned(), "b".to_owned()];
    let groups = broker.create_groups(&project, &queue, &names).await.unwrap();
    let s = Stage { broker, project, queue, groups };
    // The first ten are purged, so that nothing begins at 1.
    s.send_all(vec![message("old delayed", &[], Duration::from_secs(5))]).await;
    send(&s, &numbered(0, 10)).await;
    s.broker.purge(&s.project, &s.queue, None).await.unwrap();
    s.broker
        .put_tags(&s.project, &s.queue, vec![QueueTag { key: "team".to_owned(), value: "shop".to_owned() }])
        .await
        .unwrap();
    let retention = RetentionPolicy { retention: Some(Duration::from_secs(7 * 86_400)), delete_when_settled: None };
    let change = QueueChange::from(dms_server::broker::RetentionChange::from(retention));
    s.broker.change_queue(&s.project, &s.queue, change).await.unwrap();
    let daily = ScheduledMessage::parse(r#"{"report":"daily"}"#).unwrap();
    let schedule = NewSchedule::new("nightly", "0 2 * * *", daily);
    s.broker.set_schedule(&s.project, &s.queue, schedule, ScheduleSource::Command).await.unwrap();
    s.send(&["poison", "first", "second", "third", "fourth"]).await;
    send(&s, &numbered(10, 10 + messages)).await;
    // A dead letter with a reason.
    for _ in 0..2 {
        let batch = s.take(1).await;
        let cause = FailureCause {
            reason: Some("broken".to_owned()),
            error: Some("of \"it\"\n".to_owned()),
            ..FailureCause::default()
        };
        s.settle(say(&batch, [AckStatus::Fail(Some(cause.into()))])).await.unwrap();
    }
    // Two leases: the later one is acknowledged, the earlier one is open when the server stops. Then one failure.
    let open = s.take(1).await;
    assert_eq!(texts(&open), ["first"]);
    let done = s.take(2).await;
    assert_eq!(texts(&done), ["second", "third"]);
    s.settle(all_done(&done)).await.unwrap();
    let failed = s.take(1).await;
    s.settle(acks(&failed, &[false])).await.unwrap();
    // A group with a rule.
    assert!(s.lease(1, Stream::Messages, take_by(&["red"], TagMode::Or)).await.unwrap().is_empty());
    s.send_all(vec![message("later", &["red"], DELAY), message("latest", &[], 2 * DELAY)]).await;
    s.send_all(vec![once()]).await;
    s
}

fn once() -> dms_server::broker::NewMessage {
    let mut once = message("once", &["red"], Duration::ZERO);
    once.deduplication = Some(Box::new(Deduplication::new("order-1", Duration::from_secs(7_200))));
    once
}

impl Home {
    async fn imported_or_new(&self, clock: Clock) -> dms_server::broker::embedded::EmbeddedBroker {
        self.imported(clock).await
    }
}

/// The stage goes on at another home.
async fn moved(s: &Stage, home: &Home) -> Stage {
    let broker = home.imported(Clock::following_tokio(epoch())).await;
    Stage { broker, project: s.project.clone(), queue: s.queue.clone(), groups: s.groups.clone() }
}

fn ids(batch: &[dms_server::broker::LeasedMessage]) -> Vec<String> {
    batch.iter().map(|message| format!("{} {} {:?}", message.sequence, message.entered_ms, message.origin)).collect()
}

/// What everyone can see of the queue without consuming.
async fn visible(s: &Stage) -> String {
    let queue = s.broker.queue(&s.project, &s.queue).await.unwrap();
    let groups = s.broker.groups(&s.project, &s.queue).await.unwrap();
    let tags = s.broker.tags(&s.project, &s.queue).await.unwrap();
    let schedules = s.broker.schedules().await.unwrap();
    let mut peeked = Vec::new();
    for (group, stream) in [(0, Stream::Messages), (1, Stream::Messages), (0, Stream::DeadLetters)] {
        let found = s.broker.peek(&s.group(group), stream, 0, 20).await.unwrap();
        peeked.extend(found.iter().map(|one| format!("{one:?}")));
    }
    format!("{queue:#?}{:#?}{tags:?}{schedules:?}{peeked:#?}", groups.groups)
}

/// The group continues: what was open comes first, then the rest in order; the failed one is dead after one more failure.
async fn goes_on(s: &Stage, messages: usize) {
    let batch = s.take(2).await;
    assert_eq!(texts(&batch), ["first", "fourth"]);
    s.settle(acks(&batch, &[true, false])).await.unwrap();
    let dead = s.take_dead(10).await;
    assert_eq!(texts(&dead), ["poison", "fourth"]);
    let info = dead[0].dead_letter.as_ref().unwrap();
    assert_eq!((info.reason.as_str(), info.error.as_deref()), ("broken", Some("of \"it\"\n")));
    let mut rest = Vec::new();
    loop {
        let batch = s.take(100).await;
        if batch.is_empty() {
            break;
        }
        s.settle(all_done(&batch)).await.unwrap();
        rest.extend(texts(&batch));
    }
    let mut expected = numbered(10, 10 + messages);
    expected.push("once".to_owned());
    assert_eq!(rest, expected);
    // The key is known.
    let sent = s.broker.append(&s.project, &s.queue, vec![once()]).await.unwrap();
    assert!(format!("{sent:?}").contains("duplicates: [(0,"), "{sent:?}");
    // The clock of each broker begins anew, before the times at which the messages were sent.
    tokio::time::sleep(DELAY + Duration::from_secs(600)).await;
    let later = s.take(10).await;
    assert_eq!(texts(&later), ["later"]);
    let other = s.lease(1, Stream::Messages, take_by(&["red"], TagMode::Or)).await.unwrap();
    assert_eq!(texts(&other), ["once", "later"]);
    assert!(s.lease(1, Stream::Messages, take(10)).await.is_err(), "the rule of the group is fixed");
    tokio::time::sleep(DELAY).await;
    s.settle(all_done(&later)).await.ok();
    assert!(texts(&s.take(10).await).contains(&"latest".to_owned()));
}

/// Everything that can be seen is the same after each move, and the group goes on at the end.
#[tokio::test(start_paused = true)]
async fn a_queue_moves_to_postgres_and_back() {
    let Some(postgres) = Home::postgres() else { return };
    let (source, target, files) = (Home::directory(), Home::directory(), tempfile::tempdir().unwrap());
    let s = lived(&source, 4_500).await;
    s.broker.close().await;
    let s = moved(&s, &source).await;
    let before = visible(&s).await;
    s.broker.close().await;

    let (first, second) = (files.path().join("1"), files.path().join("2"));
    let made = export_all(&source, &first).unwrap();
    assert_eq!((made.queues, made.groups, made.counts.delayed, made.counts.dead_letters), (1, 2, 2, 1));
    assert_eq!(import_all(&first, &postgres).unwrap().counts, made.counts);
    let at_postgres = moved(&s, &postgres).await;
    assert_eq!(visible(&at_postgres).await, before);
    let leased = at_postgres.take(2).await;
    assert_eq!(texts(&leased), ["first", "fourth"]);
    let leased = ids(&leased);
    at_postgres.broker.close().await;
    assert_eq!(export_all(&postgres, &second).unwrap().counts, made.counts);
    assert_eq!(import_all(&second, &target).unwrap().counts, made.counts);
    let back = moved(&s, &target).await;
    assert_eq!(visible(&back).await, before);
    let again = back.take(2).await;
    assert_eq!(ids(&again), leased, "ids are kept");
    back.broker.release_leases().await.unwrap();
    goes_on(&back, 4_500).await;
    back.broker.close().await;
}

/// A complete export is described as it was when it was made, and none is made inside of its source.
#[tokio::test(start_paused = true)]
async fn a_complete_export_is_described_again() {
    let (source, files) = (Home::directory(), tempfile::tempdir().unwrap());
    let s = lived(&source, 4_500).await;
    s.broker.close().await;
    let dest = files.path().join("1");
    let made = export_all(&source, &dest).unwrap();
    let again = export_all(&source, &dest).unwrap();
    assert_eq!((again.already, again.groups, again.counts), (1, made.groups, made.counts));
    let Home::Dir(dir) = &source else { return };
    let dir = dir.path().join("data");
    let refused = export_all(&source, &dir.join("export")).unwrap_err();
    assert!(matches!(&refused, TransferError::Inside { .. }), "{refused}");
    assert!(!dir.join("export").exists());
}

/// Whether the process is killed after any of its steps, the same call completes what it began.
#[tokio::test(start_paused = true)]
async fn a_move_that_is_killed_anywhere_is_continued() {
    let (source, files) = (Home::directory(), tempfile::tempdir().unwrap());
    let s = lived(&source, 4_500).await;
    s.broker.close().await;
    let s = moved(&s, &source).await;
    let before = visible(&s).await;
    s.broker.close().await;
    let mut steps = 0;
    loop {
        let to = files.path().join(format!("export-{steps}"));
        let from = source.place();
        let killed = on_a_thread(|| killed_at(steps, |goes_on| export(&from, &to, false, &mut |_| goes_on())));
        if killed.is_continue() {
            assert!(matches!(import_all(&to, &Home::directory()), Err(TransferError::Unfinished { .. })));
        }
        export_all(&source, &to).unwrap();
        assert_eq!(export_all(&source, &to).unwrap().already, 1, "a complete one is left alone");
        if killed.is_break() {
            break;
        }
        steps += 1;
    }
    assert!(steps > 3, "{steps} steps");
    let files_of = |number: usize| files.path().join(format!("export-{number}"));
    let bytes = |number| std::fs::read(files_of(number).join("queues/000001-orders.dms")).unwrap();
    assert!((0..steps).all(|number| bytes(number) == bytes(steps)), "each export has the same messages");

    let mut homes = vec![(Home::directory as fn() -> Home, 1)];
    if Home::postgres().is_some() {
        // Each take-over from a process that was killed takes a while.
        homes.push((|| Home::postgres().unwrap(), 3));
    }
    for (new, stride) in homes {
        let mut step = 0;
        loop {
            let (home, from) = (new(), files_of(steps));
            let to = home.place();
            let killed = on_a_thread(|| killed_at(step, |goes_on| import(&from, &to, &mut |_| goes_on())));
            if killed.is_continue() && step > 1 {
                assert!(is_refused(&home).await, "half of an import was opened after step {step}");
            }
            import_all(&from, &home).unwrap();
            assert_eq!(import_all(&from, &home).unwrap().already, 1, "a complete one is left alone");
            let there = moved(&s, &home).await;
            assert_eq!(visible(&there).await, before, "killed at step {step}");
            if killed.is_break() || step % 4 == 2 {
                goes_on(&there, 4_500).await;
            }
            there.broker.close().await;
            if killed.is_break() {
                break;
            }
            step += stride;
        }
        assert!(step > 3, "{step} steps");
    }
}

async fn is_refused(home: &Home) -> bool {
    use dms_server::broker::embedded::EmbeddedBroker;
    let clock = Clock::following_tokio(epoch());
    match home {
        Home::Dir(dir) => EmbeddedBroker::open(&dir.path().join("data"), EmbeddedConfig::default(), clock)
            .await
            .is_err_and(|error| error.to_string().contains("data import")),
        #[cfg(feature = "postgres")]
        Home::Postgres(config) => EmbeddedBroker::on_postgres(config, EmbeddedConfig::default(), clock)
            .await
            .is_err_and(|error| error.to_string().contains("data import")),
        Home::Memory => false,
    }
}

async fn exported(messages: usize) -> (Stage, Home, tempfile::TempDir, PathBuf) {
    let (source, files) = (Home::directory(), tempfile::tempdir().unwrap());
    let s = lived(&source, messages).await;
    s.broker.close().await;
    let to = files.path().join("export");
    export_all(&source, &to).unwrap();
    (s, source, files, to)
}

/// Whichever byte of a file changes, and wherever it ends: it is refused with the file and the place before anything is written.
#[tokio::test(start_paused = true)]
async fn a_damaged_export_changes_nothing() {
    let (_, _, _files, dir) = exported(3).await;
    let file = dir.join("queues/000001-orders.dms");
    let whole = std::fs::read(&file).unwrap();
    let target = Home::directory();
    let refused = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let error = import_all(&dir, &target).unwrap_err().to_string();
        assert!(error.contains("000001-orders.dms is damaged at byte"), "{error}");
    };
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        refused(&bytes);
    }
    for end in (0..whole.len()).step_by(41) {
        refused(&whole[..end]);
    }
    // Whole records that are missing or doubled.
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    refused(&[&whole[..second], &whole[..]].concat());
    std::fs::remove_file(&file).unwrap();
    assert!(import_all(&dir, &target).unwrap_err().to_string().contains("000001-orders.dms"));
    let Home::Dir(target) = &target else { panic!() };
    assert!(!target.path().join("data").exists(), "something was written");
}

#[tokio::test(start_paused = true)]
async fn exports_of_other_versions_and_other_directories_are_refused() {
    let (_, source, _files, dir) = exported(3).await;
    let list = dir.join("export.json");
    let known = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, known.replace("\"version\": 1", "\"version\": 2")).unwrap();
    let error = import_all(&dir, &Home::directory()).unwrap_err().to_string();
    assert!(error.contains("has version 2 of the format, and this program reads version 1"), "{error}");
    std::fs::write(&list, "{\"format\": \"of others\", \"version\": 1}").unwrap();
    assert!(matches!(import_all(&dir, &Home::directory()), Err(TransferError::NoExport { .. })));
    std::fs::write(&list, known).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let error = import_all(empty.path(), &Home::directory()).unwrap_err().to_string();
    assert!(error.contains("it has no export.json"), "{error}");
    std::fs::write(empty.path().join("other"), "").unwrap();
    let error = export_all(&source, empty.path()).unwrap_err().to_string();
    assert!(error.contains("has other in it"), "{error}");
}

/// A queue that went on, or another one of its name, is not written over. Others are left alone.
#[tokio::test(start_paused = true)]
async fn a_queue_with_other_contents_is_not_written_over() {
    for home in Home::durable() {
        let (s, _, _files, dir) = exported(3).await;
        let home = if let Home::Dir(_) = home { Home::directory() } else { home };
        let broker = home.imported_or_new(Clock::following_tokio(epoch())).await;
        broker.create_queue(&s.project, NewQueue::new("other").mode(QueueMode::Fifo)).await.unwrap();
        broker.close().await;
        import_all(&dir, &home).unwrap();
        let there = moved(&s, &home).await;
        assert_eq!(there.broker.queues(&s.project).await.unwrap().len(), 2);
        goes_on(&there, 3).await;
        there.broker.close().await;
        let error = import_all(&dir, &home).unwrap_err().to_string();
        assert!(error.contains("has a queue orders of project p already, with other contents"), "{error}");

        let there = moved(&s, &home).await;
        there.broker.delete_queue(&s.project, &s.queue).await.unwrap();
        there.broker.create_queue(&s.project, NewQueue::new("orders")).await.unwrap();
        there.broker.close().await;
        let error = import_all(&dir, &home).unwrap_err().to_string();
        assert!(error.contains("its id is"), "{error}");
        let there = moved(&s, &home).await;
        assert_eq!(there.broker.queues(&s.project).await.unwrap().len(), 2, "a refused import marks nothing");
        there.broker.close().await;
    }
}

/// A server that runs is not exported, nor imported into.
#[tokio::test(start_paused = true)]
async fn places_in_use_are_refused() {
    let (_, _, _files, dir) = exported(3).await;
    for home in Home::durable() {
        let home = if let Home::Dir(_) = home { Home::directory() } else { home };
        let broker = home.imported_or_new(Clock::following_tokio(epoch())).await;
        let error = import_all(&dir, &home).unwrap_err().to_string();
        assert!(error.contains("in use by another process") || error.contains("stop all of them first"), "{error}");
        let error = export_all(&home, &dir.join("elsewhere")).unwrap_err().to_string();
        assert!(error.contains("in use by another process") || error.contains("stop all of them first"), "{error}");
        broker.close().await;
    }
}

/// A damaged message is named; with the option its place is passed over by every group.
#[tokio::test(start_paused = true)]
async fn damaged_messages_are_left_out_on_request() {
    let (source, files) = (Home::directory(), tempfile::tempdir().unwrap());
    let s = lived(&source, 5).await;
    s.broker.close().await;
    let Home::Dir(dir) = &source else { panic!() };
    let log = dir.path().join("data/log/0000000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(5).position(|window| window == b"\"m12\"").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let to = files.path().join("export");
    let error = export_all(&source, &to).unwrap_err().to_string();
    assert!(error.contains("of queue orders (messages) is damaged") && error.contains("--skip-damaged"), "{error}");
    let from = source.place();
    let made = on_a_thread(|| export(&from, &to, true, &mut |_| true)).unwrap();
    assert_eq!(made.counts.lost, 1);
    let target = Home::directory();
    import_all(&to, &target).unwrap();
    let there = moved(&s, &target).await;
    there.take(2).await;
    assert_eq!(texts(&there.take(10).await), ["m10", "m11", "m13", "m14", "once"]);
    there.broker.close().await;
}
