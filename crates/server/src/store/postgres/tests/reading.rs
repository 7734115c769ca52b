//! Messages that are damaged, large, or in tables that go.

use std::{collections::BTreeSet, thread};

use super::{super::slots::SLOT_MS, *};
use crate::store::{ReadBatch, ReadLimit, Store, StoreError};

#[test]
fn a_damaged_message_is_reported_and_its_neighbours_are_read() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    let records: Vec<Record> = (1..=5).map(appended).collect();
    owning.store.commit(&records).unwrap();
    let spoil = format!(
        "UPDATE {schema}.chunk_0_0 SET payload = set_byte(payload, octet_length(payload) - 1, 0)",
        schema = config.schema
    );
    server.psql("postgres", &spoil).unwrap();
    let found = owning.store.read(STREAM, 1, ALL).unwrap();
    assert_eq!(found.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(found.damaged.iter().map(|damaged| damaged.seq).collect::<Vec<_>>(), [5]);
    assert!(found.damaged[0].file.contains("chunk_0_0"), "{:?}", found.damaged[0]);
    let these = owning.store.read_these(STREAM, &[2, 5], usize::MAX).unwrap();
    assert_eq!((these.messages.len(), these.damaged.len()), (1, 1));
}

#[test]
fn messages_that_are_missing_are_reported_and_not_passed_over() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    (1..=4).for_each(|seq| owning.store.commit(&[appended(seq)]).unwrap());
    let delete = |first| {
        server.psql("postgres", &format!("DELETE FROM {}.chunk_0_0 WHERE first = {first}", config.schema)).unwrap()
    };
    delete(2);
    let found = owning.store.read(STREAM, 1, ALL).unwrap();
    assert_eq!(found.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(found.damaged.iter().map(|damaged| damaged.seq).collect::<Vec<_>>(), [2]);
    let these = owning.store.read_these(STREAM, &[2, 3], usize::MAX).unwrap();
    assert_eq!(these.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [3]);
    assert_eq!(these.damaged.iter().map(|damaged| damaged.seq).collect::<Vec<_>>(), [2]);
    delete(4);
    assert_eq!(owning.store.read(STREAM, 1, ALL).unwrap().damaged.len(), 2);
    owning.node.member.freeze();
    let next = Node::join(&config);
    let view = ShardView { status: OwnerStatus::Dead, ..next.runtime.block_on(next.member.look()) };
    let duty = next.runtime.block_on(next.member.take(&view)).unwrap().unwrap();
    let refused = next.runtime.block_on(PgStore::open(&next.member, &duty)).unwrap_err().to_string();
    assert!(refused.contains("message 4 of stream 1"), "{refused}");
}

#[test]
fn a_short_read_passes_over_messages_that_are_missing() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    (1..=5).for_each(|seq| owning.store.commit(&[appended(seq)]).unwrap());
    server.psql("postgres", &format!("DELETE FROM {}.chunk_0_0 WHERE first IN (2, 3)", config.schema)).unwrap();
    let found = owning.store.read(STREAM, 2, ReadLimit { messages: 1, ..ALL }).unwrap();
    assert_eq!(found.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [4]);
    assert_eq!(found.damaged.iter().map(|damaged| damaged.seq).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn when_messages_of_many_streams_entered_is_read_at_once() {
    let Some(server) = PgServer::shared() else { return };
    let (_config, owning) = owning(server);
    // Two rows in the tables of two slots: three messages that share a row, and one that is alone.
    let at = |seq: u64, entered_ms: i64| Record::Appended(STREAM, message(seq, 10, entered_ms));
    owning.store.commit(&[at(1, 10), at(2, 20), at(3, 30)]).unwrap();
    owning.store.commit(&[at(4, SLOT_MS + 5)]).unwrap();
    let asked = [(STREAM, 4), (STREAM, 2), (STREAM, 5), (STREAM, 1), (STREAM, 3), (StreamId(77), 1)];
    let found = owning.store.entered_each(&asked).unwrap();
    assert_eq!(found, [Some(SLOT_MS + 5), Some(20), None, Some(10), Some(30), None]);
}

/// A primary that was paused while another one took its place: it lacks the latest commits, and answers reads but no writes.
#[test]
fn an_old_primary_that_answers_reads_sets_nothing_aside() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    owning.store.commit(&[appended(1)]).unwrap();
    assert_eq!(owning.store.read(STREAM, 1, ALL).unwrap().messages.len(), 1, "the connection is proven, so far");
    (2..=3).for_each(|seq| owning.store.commit(&[appended(seq)]).unwrap());
    owning.store.commit(&[Record::Delayed(StreamId(2), message(1, 100, 1))]).unwrap();
    let sql = |sql: &str| server.psql("postgres", &format!("SET search_path = {}; {sql}", config.schema)).unwrap();
    sql("CREATE TABLE kept AS SELECT * FROM chunk_0_0; CREATE TABLE commits AS SELECT * FROM journal");
    sql("DELETE FROM chunk_0_0 WHERE first > 1; DELETE FROM journal WHERE commit_no > 2");
    // Its standby has left it: nothing that is written there is answered.
    let hold = format!("BEGIN; LOCK TABLE {}.member IN EXCLUSIVE MODE; SELECT pg_sleep(60)", config.schema);
    let writes = thread::spawn(move || PgServer::shared().unwrap().psql("postgres", &hold));
    let locked =
        "SELECT count(*) FROM pg_locks WHERE relation = 'member'::regclass AND mode = 'ExclusiveLock' AND granted";
    while sql(locked).pop().unwrap() != "1" {
        thread::sleep(Duration::from_millis(10));
    }
    let reads: [&dyn Fn() -> Result<ReadBatch, StoreError>; 3] =
        [&|| owning.store.read(STREAM, 1, ALL), &|| owning.store.read_these(STREAM, &[2, 3], usize::MAX), &|| {
            owning.store.first_due(StreamId(2), ALL, &BTreeSet::new())
        }];
    for read in reads {
        let refused = read();
        assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    }
    sql(
        "DELETE FROM chunk_0_0; INSERT INTO chunk_0_0 SELECT * FROM kept; DELETE FROM journal; INSERT INTO journal SELECT * FROM commits",
    );
    for (read, count) in reads.into_iter().zip([3, 2, 1]) {
        let found = read().unwrap();
        assert_eq!((found.messages.len(), found.damaged.len()), (count, 0));
    }
    let lock = "relation = 'member'::regclass AND mode = 'ExclusiveLock'";
    sql(&format!("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE {lock}"));
    assert!(writes.join().unwrap().is_err(), "it held the lock until now");
}

/// What was lost for good is found by a read, too: a queue to which nobody sends would not be served otherwise.
#[test]
fn a_read_that_finds_answered_commits_gone_gives_the_shard_up() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    (1..=3).for_each(|seq| owning.store.commit(&[appended(seq)]).unwrap());
    let schema = &config.schema;
    server.psql("postgres", &format!("DELETE FROM {schema}.journal WHERE commit_no > 2")).unwrap();
    server.psql("postgres", &format!("DELETE FROM {schema}.chunk_0_0 WHERE first > 1")).unwrap();
    let lost = owning.store.read(STREAM, 1, ALL);
    assert!(matches!(lost, Err(StoreError::Lost(_))), "{lost:?}");
    assert!(!owning.store.may_serve());
}

#[test]
fn a_large_message_is_read_back_and_costs_no_read_of_entry_times() {
    let Some(server) = PgServer::shared() else { return };
    let (_, owning) = owning(server);
    let large = message(1, 512 * 1024, 5);
    owning
        .store
        .commit(&[Record::Appended(STREAM, large.clone()), Record::Appended(STREAM, message(2, 10, 6))])
        .unwrap();
    assert_eq!(owning.store.read(STREAM, 1, ALL).unwrap().messages[0], large);
    assert_eq!(owning.store.entered(STREAM, 1, 10, 100).unwrap(), [(1, 5), (2, 6)]);
}

#[test]
fn a_table_is_dropped_when_its_last_message_has_expired_and_made_ahead_of_time() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    let maintain = || while owning.store.maintain().unwrap() {};
    let tables = || {
        count(
            server,
            &config,
            &format!("count(*) FROM pg_tables WHERE schemaname = '{}' AND tablename LIKE 'chunk%'", config.schema),
        )
    };
    for slot in 10..13_i64 {
        let seq = u64::try_from(slot).unwrap() - 9;
        owning.store.commit(&[Record::Appended(STREAM, message(seq, 10, slot * SLOT_MS))]).unwrap();
        maintain();
    }
    assert_eq!(tables(), 4, "10, 11 and 12, and 13 ahead of time");
    owning.store.commit(&[Record::Expired { stream: STREAM, low: 3, oldest: None }]).unwrap();
    maintain();
    assert_eq!(tables(), 2);
    assert_eq!(owning.store.read(STREAM, 1, ALL).unwrap().messages.len(), 1);
    owning.store.commit(&[Record::QueueDeleted(queue(1).id)]).unwrap();
    maintain();
    assert_eq!(tables(), 2, "the current one and the next stay");
}

#[test]
fn the_journal_is_emptied_and_a_take_over_replays_what_is_behind_the_image() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    (1..=20).for_each(|seq| owning.store.commit(&[appended(seq)]).unwrap());
    owning.store.write_image().unwrap();
    while owning.store.maintain().unwrap() {}
    assert_eq!(count(server, &config, "count(*) FROM journal"), 0);
    owning.store.commit(&[appended(21)]).unwrap();
    owning.node.member.freeze();
    let next = Node::join(&config).take();
    assert_eq!(next.snapshot.queues[0].stream.next, 22);
    next.store.commit(&[appended(22)]).unwrap();
    assert_eq!(next.store.read(STREAM, 20, ALL).unwrap().messages.len(), 3);
}

/// Deleted rows stay while another session keeps an old snapshot, so a deletion begins behind those before it: passing them would take
/// longer each time. The next owner knows of none.
#[test]
fn what_was_deleted_from_the_journal_is_not_looked_at_again_until_another_owner_does() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    let empty = |owning: &Owning| {
        owning.store.write_image().unwrap();
        while owning.store.maintain().unwrap() {}
    };
    let rows = || count(server, &config, "count(*) FROM journal");
    (1..=20).for_each(|seq| owning.store.commit(&[appended(seq)]).unwrap());
    empty(&owning);
    assert_eq!(rows(), 0);
    let sql = format!("INSERT INTO {}.journal VALUES (0, 3, 0, '')", config.schema);
    server.psql("postgres", &sql).unwrap();
    owning.store.commit(&[appended(21)]).unwrap();
    empty(&owning);
    assert_eq!(rows(), 1);
    owning.node.member.freeze();
    let next = Node::join(&config).take();
    next.store.commit(&[appended(22)]).unwrap();
    empty(&next);
    assert_eq!(rows(), 0);
}

/// `CREATE TABLE IF NOT EXISTS` fails in one of two sessions that make the same table at the same moment.
#[test]
fn a_table_that_maintenance_makes_at_the_same_moment_keeps_no_commit_from_its_place() {
    let Some(server) = PgServer::shared() else { return };
    let (_, owning) = owning(server);
    for (seq, slot) in (1..=40).zip(100_i64..) {
        std::thread::scope(|scope| {
            scope.spawn(|| owning.store.maintain().unwrap());
            owning.store.commit(&[Record::Appended(STREAM, message(seq, 10, slot * SLOT_MS))]).unwrap();
        });
    }
    assert_eq!(owning.store.read(STREAM, 1, ALL).unwrap().messages.len(), 40);
}
