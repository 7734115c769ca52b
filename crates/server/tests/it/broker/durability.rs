//! The data that survives a crash or a restart, and the directories that are refused.

use std::time::Duration;

use dms_protocol::queue::{NewQueue, QueueMode, QueueTag, TagMode};
use dms_server::broker::{Broker, BrokerError, LeasedMessage, QueueChange, Stream, embedded::OpenError};

use super::stage::{
    DataDir, Reopen, Stage, acks, all_done, message, on_disk, on_each_durable_store, take, take_by, texts, wait,
};

const NOTHING: [&str; 0] = [];

/// Answered changes are on disk; leases are lost and count as no failure, failures are kept.
#[tokio::test(start_paused = true)]
async fn a_crash_loses_leases_and_nothing_else() {
    on_each_durable_store(NewQueue::new("q").dead_letters_after(2), async |s: Stage, reopen: Reopen| {
        s.send(&["done", "failed", "leased", "new"]).await;
        let batch = s.take(3).await;
        s.settle(acks(&batch, &[true, false])).await.unwrap();
        let leased = s.take(2).await;
        assert_eq!(texts(&leased), ["failed", "leased"]);
        let s = reopen.crash(s).await;
        assert!(matches!(s.settle(all_done(&leased)).await, Err(BrokerError::UnknownReceipt(_))));
        let group = s.counters(0).await;
        assert_eq!((group.produced_messages, group.consumed_messages, group.available_messages), (4, 1, 3));
        assert_eq!(s.fail_first(10).await, ["failed", "leased", "new"]);
        assert_eq!(texts(&s.take(10).await), ["leased", "new"], "the second failure of two");
        assert_eq!(texts(&s.take_dead(10).await), ["failed"]);
    })
    .await;
}

/// Leases that went on after a restart in order are lost by a crash as all others are, even if nothing was changed between the two.
#[tokio::test(start_paused = true)]
async fn a_crash_loses_leases_that_a_restart_kept() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        s.send(&["1", "2"]).await;
        let leased = s.take(1).await;
        let s = reopen.restart(s).await;
        let s = reopen.crash(s).await;
        assert!(matches!(s.settle(all_done(&leased)).await, Err(BrokerError::UnknownReceipt(_))));
        assert_eq!(texts(&s.take(10).await), ["1", "2"]);
    })
    .await;
}

/// The same message is known by its place and its time; another one at the same place, after a restore from a backup, is not.
#[tokio::test(start_paused = true)]
async fn a_message_stored_after_a_restore_differs_from_the_lost_one() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        let identity = |batch: &[LeasedMessage]| (batch[0].sequence, batch[0].entered_ms);
        s.send(&["before"]).await;
        s.broker.close().await;
        let backup = dir.copy();

        let s = Stage { broker: dir.open().await.unwrap(), ..s };
        tokio::time::advance(Duration::from_millis(1)).await;
        s.send(&["lost"]).await;
        let (before, lost) = (identity(&s.take(1).await), identity(&s.take(1).await));
        s.broker.close().await;

        let s = Stage { broker: backup.open().await.unwrap(), ..s };
        tokio::time::advance(Duration::from_millis(1)).await;
        s.send(&["after"]).await;
        assert_eq!(identity(&s.take(1).await), before);
        let after = identity(&s.take(1).await);
        assert_eq!(after.0, lost.0, "the place is given again");
        assert_ne!(after, lost);
    })
    .await;
}

/// Everything that is not a message survives too.
#[tokio::test(start_paused = true)]
async fn queues_groups_tags_and_rules_survive() {
    let queue = NewQueue::new("q").mode(QueueMode::Fifo).dead_letters_after(5).description("a queue");
    on_each_durable_store(queue, async |s: Stage, reopen: Reopen| {
        let tags =
            vec![QueueTag { key: "k".into(), value: "v".into() }, QueueTag { key: "a".into(), value: "".into() }];
        s.broker.put_tags(&s.project, &s.queue, tags.clone()).await.unwrap();
        s.lease(0, Stream::Messages, take_by(&["x", "y"], TagMode::And)).await.unwrap();
        let kafka = NewQueue::new("k").mode(QueueMode::KafkaHt).retention_hours(9);
        s.broker.create_queue(&s.project, kafka).await.unwrap();
        let gone = s.broker.create_queue(&s.project, NewQueue::new("gone")).await.unwrap().id;
        s.broker.delete_queue(&s.project, &gone).await.unwrap();
        let before = (s.broker.queues(&s.project).await.unwrap(), s.broker.groups(&s.project, &s.queue).await.unwrap());
        let s = reopen.restart(reopen.crash(s).await).await;
        let after = (s.broker.queues(&s.project).await.unwrap(), s.broker.groups(&s.project, &s.queue).await.unwrap());
        assert_eq!(before, after);
        assert_eq!(s.broker.tags(&s.project, &s.queue).await.unwrap(), tags);
        let refused = s.lease(0, Stream::Messages, take(1)).await;
        assert!(matches!(refused, Err(BrokerError::FilterChanged(rule)) if rule == "x and y"));
        let again = s.broker.create_queue(&s.project, NewQueue::new("gone")).await.unwrap().id;
        assert_ne!(again, gone);
    })
    .await;
}

/// A changed description and number of failures are kept, and hold for messages that were there before.
#[tokio::test(start_paused = true)]
async fn changes_of_a_queue_survive() {
    on_each_durable_store(NewQueue::new("q").description("a queue"), async |s: Stage, reopen: Reopen| {
        s.send(&["1", "2"]).await;
        s.fail_first(1).await;
        let change = QueueChange { max_consume_count: Some(Some(2)), ..QueueChange::default() };
        let changed = s.broker.change_queue(&s.project, &s.queue, change).await.unwrap();
        assert_eq!((changed.max_consume_count, changed.description.as_str()), (Some(2), "a queue"));
        let change = QueueChange { description: Some("renamed".to_owned()), ..QueueChange::default() };
        s.broker.change_queue(&s.project, &s.queue, change).await.unwrap();
        let s = reopen.restart(reopen.crash(s).await).await;
        let queue = s.broker.queue(&s.project, &s.queue).await.unwrap();
        assert_eq!((queue.max_consume_count, queue.description.as_str()), (Some(2), "renamed"));
        s.fail_first(1).await;
        assert_eq!(texts(&s.take_dead(10).await), ["1"], "the second failure, one of them before the change");
        let off = || QueueChange { max_consume_count: Some(None), ..QueueChange::default() };
        let refused = s.broker.change_queue(&s.project, &s.queue, off()).await.unwrap_err();
        assert!(refused.to_string().contains("has dead letters"), "{refused}");
        let s = reopen.crash(s).await;
        let dead = s.take_dead(10).await;
        s.broker.ack(&s.group(0), Stream::DeadLetters, acks(&dead, &[true])).await.unwrap();
        let queue = s.broker.change_queue(&s.project, &s.queue, off()).await.unwrap();
        assert_eq!((queue.max_consume_count, queue.dead_letters), (None, Some(false)));
        for _ in 0..5 {
            s.fail_first(1).await;
        }
        assert_eq!(texts(&s.take(10).await), ["2"]);
    })
    .await;
}

/// Numbers of deleted queues and groups are not reused, so a new group does not find the dead letters of an old one.
#[tokio::test(start_paused = true)]
async fn deleted_queues_and_groups_stay_deleted() {
    on_each_durable_store(NewQueue::new("q").dead_letters_after(1), async |s: Stage, reopen: Reopen| {
        s.send(&["1", "2"]).await;
        s.fail_first(1).await;
        s.broker.delete_group(&s.group(1)).await.unwrap();
        s.broker.delete_group(&s.group(0)).await.unwrap();
        let mut s = reopen.crash(s).await;
        s.groups = s.broker.create_groups(&s.project, &s.queue, &["a".into(), "b".into()]).await.unwrap();
        assert_eq!(texts(&s.take_dead(10).await), NOTHING);
        assert_eq!(texts(&s.take(10).await), ["1", "2"]);
        let s = reopen.crash(s).await;
        assert_eq!(texts(&s.take(10).await), ["1", "2"]);
    })
    .await;
}

/// The messages of a deleted queue leave the index in the background.
#[tokio::test(start_paused = true)]
async fn deleted_messages_are_swept_in_the_background() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        for _ in 0..250 {
            s.send(&["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]).await;
        }
        s.broker.delete_queue(&s.project, &s.queue).await.unwrap();
        // Paused time moves on when nothing is left to do.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let file = rusqlite::Connection::open(dir.file("dms.db")).unwrap();
        let left: u64 = file.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
    })
    .await;
}

/// Closing twice at once: both return when it is done, and the directory or the shard is free.
#[tokio::test(start_paused = true)]
async fn closing_twice_waits_for_the_same_end() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        s.send(&["1"]).await;
        let second = async {
            s.broker.close().await;
            reopen.open().await;
        };
        tokio::join!(s.broker.close(), second);
    })
    .await;
}

/// The age of a group's backlog is that of its first message, which a new broker has to read.
#[tokio::test(start_paused = true)]
async fn the_age_of_each_backlog_survives() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        s.send(&["1"]).await;
        tokio::time::advance(Duration::from_secs(10)).await;
        s.send(&["2", "3"]).await;
        let first = s.take(1).await;
        s.settle(all_done(&first)).await.unwrap();
        let before = s.broker.oldest().await;
        assert_eq!(before[&s.groups[0]], before[&s.groups[1]] + 10_000);
        let s = reopen.crash(s).await;
        assert_eq!(s.broker.oldest().await, before);
    })
    .await;
}

/// Delays run on through a restart; what became due meanwhile comes at once.
#[tokio::test(start_paused = true)]
async fn delayed_messages_survive() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        let delayed = |text, seconds| message(text, &["x"], Duration::from_secs(seconds));
        s.send_all(vec![delayed("late", 100), delayed("soon", 10)]).await;
        s.broker.close().await;
        tokio::time::advance(Duration::from_secs(50)).await;
        let s = Stage { broker: reopen.open().await, ..s };
        assert_eq!(s.counters(0).await.produced_messages, 2);
        let soon = s.lease(0, Stream::Messages, wait(10, 5)).await.unwrap();
        assert_eq!(texts(&soon), ["soon"]);
        s.settle(all_done(&soon)).await.unwrap();
        let late = s.lease(0, Stream::Messages, wait(10, 60)).await.unwrap();
        assert_eq!((texts(&late), late[0].tags.to_vec()), (vec!["late".to_owned()], vec!["x".to_owned()]));
    })
    .await;
}

/// Pages of settled messages: acknowledged out of order across many pages, some of them whole.
#[tokio::test(start_paused = true)]
async fn scattered_acknowledgements_survive_a_restart() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        for number in 0..350 {
            let texts: Vec<_> = (0..10).map(|place| (number * 10 + place).to_string()).collect();
            s.send(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        let mut open = Vec::new();
        for number in 0..350 {
            let batch = s.take(10).await;
            if number % 100 == 7 {
                open.extend(texts(&batch));
            } else {
                s.settle(all_done(&batch)).await.unwrap();
            }
        }
        let s = reopen.restart(reopen.crash(s).await).await;
        assert_eq!(s.counters(0).await.available_messages, 40);
        let mut found = Vec::new();
        for _ in 0..4 {
            let batch = s.take(10).await;
            found.extend(texts(&batch));
            s.settle(all_done(&batch)).await.unwrap();
        }
        assert_eq!(found, open);
        let s = reopen.crash(s).await;
        assert_eq!(texts(&s.take(10).await), NOTHING);
        assert_eq!(s.counters(0).await.consumed_messages, 3_500);
    })
    .await;
}

/// Messages that a label rule skipped are not looked at again, and a group that begins at the end does not go back.
#[tokio::test(start_paused = true)]
async fn skipped_messages_stay_skipped() {
    on_each_durable_store(NewQueue::new("q"), async |s: Stage, reopen: Reopen| {
        for _ in 0..300 {
            s.send(&["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]).await;
        }
        s.send_all(vec![message("hit", &["x"], Duration::ZERO)]).await;
        let by = || take_by(&["x"], TagMode::Or);
        let batch = s.lease(0, Stream::Messages, by()).await.unwrap();
        s.settle(all_done(&batch)).await.unwrap();
        let s = reopen.crash(s).await;
        assert_eq!(s.counters(0).await.available_messages, 0);
        s.send_all(vec![message("next", &["x"], Duration::ZERO)]).await;
        let batch = s.lease(0, Stream::Messages, by()).await.unwrap();
        let s = reopen.crash(s).await;
        assert_eq!(texts(&batch), texts(&s.lease(0, Stream::Messages, by()).await.unwrap()));
    })
    .await;
}

/// A directory serves one process at a time, and says which.
#[tokio::test(start_paused = true)]
async fn a_directory_in_use_is_refused() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        let error = dir.open().await.unwrap_err();
        assert!(matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
        assert!(error.to_string().contains(dir.dir.path().to_str().unwrap()));
        s.broker.abort().await;
        dir.open().await.unwrap();
    })
    .await;
}

/// A file that is something else is refused, and left as it is.
#[tokio::test(start_paused = true)]
async fn a_foreign_file_is_refused() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        s.broker.close().await;
        let text = "this is not a database, but it is longer than the header of one: ".repeat(40);
        std::fs::write(dir.file("dms.db"), &text).unwrap();
        assert!(matches!(dir.open().await, Err(OpenError::Foreign { .. })));
        assert_eq!(std::fs::read_to_string(dir.file("dms.db")).unwrap(), text);
        std::fs::remove_file(dir.file("dms.db")).unwrap();
        let other = rusqlite::Connection::open(dir.file("dms.db")).unwrap();
        other.execute_batch("CREATE TABLE theirs (x)").unwrap();
        drop(other);
        assert!(matches!(dir.open().await, Err(OpenError::Foreign { .. })));
    })
    .await;
}

/// A file of a later version is refused.
#[tokio::test(start_paused = true)]
async fn a_newer_file_is_refused() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        s.broker.close().await;
        let file = rusqlite::Connection::open(dir.file("dms.db")).unwrap();
        file.pragma_update(None, "user_version", 99).unwrap();
        drop(file);
        assert!(matches!(dir.open().await, Err(OpenError::Newer { found: 99, known: 9, .. })));
    })
    .await;
}

/// Version 0.1.0 wrote version 2: its directories open as they are, and are of this version from then on.
#[tokio::test(start_paused = true)]
async fn a_directory_of_the_first_release_opens() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        s.send(&["1"]).await;
        s.broker.close().await;
        let version = |change: Option<u32>| {
            let file = rusqlite::Connection::open(dir.file("dms.db")).unwrap();
            if let Some(version) = change {
                // Those before the fifth had no checksums.
                let tables = "counter queues consumer_groups tags streams runs segments due readers settled garbage";
                let drop = |table| format!("ALTER TABLE {table} DROP COLUMN sum;");
                if version < 9 {
                    file.execute_batch("DROP TABLE schedules; DELETE FROM totals WHERE name = 'schedules'").unwrap();
                }
                if version < 8 {
                    file.execute_batch("DROP TABLE sent_keys").unwrap();
                }
                if version < 6 {
                    file.execute_batch("DROP TABLE retention; DELETE FROM totals WHERE name = 'retention'").unwrap();
                }
                if version < 5 {
                    file.execute_batch(&tables.split(' ').map(drop).collect::<String>()).unwrap();
                    file.execute_batch("DROP TABLE totals").unwrap();
                }
                file.pragma_update(None, "user_version", version).unwrap();
            }
            file.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)).unwrap()
        };
        let mut s = s;
        for before in [2, 3, 4, 5, 6, 7, 8] {
            assert_eq!(version(Some(before)), before);
            s = Stage { broker: dir.open().await.unwrap(), ..s };
            assert_eq!(texts(&s.take(1).await), ["1"]);
            s.broker.close().await;
            assert_eq!(version(None), 9);
        }
    })
    .await;
}

/// A file of before the first release is refused.
#[tokio::test(start_paused = true)]
async fn an_older_file_is_refused() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        s.broker.close().await;
        let file = rusqlite::Connection::open(dir.file("dms.db")).unwrap();
        file.pragma_update(None, "user_version", 1).unwrap();
        drop(file);
        assert!(matches!(dir.open().await, Err(OpenError::Older { found: 1, .. })));
    })
    .await;
}

/// A file cut short anywhere is refused or whole; it is never taken for a new one.
#[tokio::test(start_paused = true)]
async fn a_truncated_file_is_never_silently_emptied() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        for _ in 0..20 {
            s.send(&["x".repeat(3_000).as_str(), "y", "z"]).await;
        }
        s.broker.close().await;
        let whole = std::fs::read(dir.file("dms.db")).unwrap();
        let mut cuts: Vec<usize> = (0..whole.len()).step_by(8_111).collect();
        cuts.extend([1, 15, 16, 99, 100, whole.len() - 4_096, whole.len() - 1]);
        for cut in cuts {
            std::fs::write(dir.file("dms.db"), &whole[..cut]).unwrap();
            match dir.open().await {
                Err(OpenError::Damaged { .. } | OpenError::Foreign { .. }) => {}
                Err(other) => panic!("cut at {cut}: {other}"),
                Ok(_) => panic!("cut at {cut} of {}: opened", whole.len()),
            }
            assert_eq!(std::fs::read(dir.file("dms.db")).unwrap(), &whole[..cut], "cut at {cut}: changed");
        }
        std::fs::remove_file(dir.file("dms.db")).unwrap();
        assert!(matches!(dir.open().await, Err(OpenError::Damaged { .. })));
        std::fs::write(dir.file("dms.db"), &whole).unwrap();
        let s = Stage { broker: dir.open().await.unwrap(), ..s };
        assert_eq!(s.counters(0).await.available_messages, 60);
    })
    .await;
}

/// Whatever a crash leaves of the index's own log: all that was answered is there.
#[tokio::test(start_paused = true)]
async fn an_index_that_is_behind_is_completed_from_the_log() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        s.broker.close().await;
        let s = Stage { broker: dir.open().await.unwrap(), ..s };
        for _ in 0..10 {
            s.send(&["1"]).await;
        }
        // The index has none of it yet; reading delayed messages makes it take it in.
        s.send_all(vec![message("late", &[], Duration::from_secs(1))]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        s.broker.abort().await;
        let database = std::fs::read(dir.file("dms.db")).unwrap();
        let log = std::fs::read(dir.file("dms.db-wal")).unwrap();
        assert!(!log.is_empty());
        for cut in (0..log.len()).step_by(4_099).chain([log.len()]) {
            std::fs::write(dir.file("dms.db"), &database).unwrap();
            std::fs::write(dir.file("dms.db-wal"), &log[..cut]).unwrap();
            let _ = std::fs::remove_file(dir.file("dms.db-shm"));
            let broker = dir.open().await.unwrap();
            let found = broker.groups(&s.project, &s.queue).await.unwrap().groups[0].available_messages;
            assert_eq!(found, 11, "cut at {cut}");
            broker.abort().await;
        }
    })
    .await;
}

/// A snapshot of the file system of a running server opens in another directory (docs/storage.md), with the lock
/// file or without.
#[tokio::test(start_paused = true)]
async fn a_file_system_snapshot_opens_in_another_directory() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        s.send(&["1", "2"]).await;
        s.fail_first(1).await;
        let snapshots = [dir.copy(), dir.copy()];
        s.send(&["3"]).await;
        std::fs::remove_file(snapshots[1].file("dms.lock")).unwrap();
        let mut s = s;
        for snapshot in snapshots {
            s = Stage { broker: snapshot.open().await.unwrap(), ..s };
            assert_eq!(texts(&s.take(10).await), ["1", "2"]);
        }
    })
    .await;
}

/// A log that is gone, or a file of it, is a loss and not a beginning.
#[tokio::test(start_paused = true)]
async fn a_missing_log_is_refused() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        s.send(&["1"]).await;
        s.broker.close().await;
        std::fs::rename(dir.file("log"), dir.file("elsewhere")).unwrap();
        assert!(matches!(dir.open().await, Err(OpenError::Damaged { .. })));
        std::fs::create_dir(dir.file("log")).unwrap();
        let error = dir.open().await.unwrap_err();
        assert!(error.to_string().contains("0000000001.log"), "{error}");
        std::fs::remove_dir(dir.file("log")).unwrap();
        std::fs::rename(dir.file("elsewhere"), dir.file("log")).unwrap();
        let s = Stage { broker: dir.open().await.unwrap(), ..s };
        assert_eq!(texts(&s.take(10).await), ["1"]);
    })
    .await;
}

/// A directory that cannot be used is named.
#[tokio::test(start_paused = true)]
async fn an_unusable_directory_is_named() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        drop(s);
        std::fs::write(dir.file("file"), "").unwrap();
        let clock = dir.clock;
        let below = dir.file("file").join("below");
        let refused = dms_server::broker::embedded::EmbeddedBroker::open(&below, dir.config, clock).await;
        let error = refused.unwrap_err();
        assert!(matches!(error, OpenError::Directory { .. }));
        assert!(error.to_string().contains(below.to_str().unwrap()), "{error}");
    })
    .await;
}
