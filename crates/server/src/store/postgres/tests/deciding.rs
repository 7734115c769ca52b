//! Commits whose answer is missing.

use std::{sync::atomic::Ordering, thread, time::Instant};

use super::{proxy::Proxy, *};
use crate::store::{Store, StoreError};

/// A server that owns the messages of a new schema and speaks to PostgreSQL through a proxy.
fn behind_proxy(server: &PgServer) -> (PostgresConfig, Owning, Proxy) {
    let proxy = Proxy::to(server.socket());
    let config = config(&proxy.url());
    let owning = Node::join(&config).take();
    owning.store.commit(&[Record::QueueCreated(queue(1))]).unwrap();
    owning.store.commit(&[appended(1)]).unwrap();
    owning.node.member.freeze();
    (config, owning, proxy)
}

/// Where the messages of the stream are, each once and without a gap.
fn places(owning: &Owning) -> Vec<u64> {
    owning.store.read(STREAM, 1, ALL).unwrap().messages.iter().map(|message| message.seq).collect()
}

#[test]
fn a_commit_whose_answer_is_lost_is_decided_by_its_repetition() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning, proxy) = behind_proxy(server);
    let beats = || count(server, &config, "beat FROM member");
    let before = beats();
    proxy.losses.set(false, true);
    let losses = proxy.losses.clone();
    let mender = thread::spawn(move || {
        let seen = losses.connections.load(Ordering::SeqCst);
        while losses.connections.load(Ordering::SeqCst) == seen {
            thread::sleep(Duration::from_millis(5));
        }
        losses.set(false, false);
    });
    owning.store.commit(&[appended(2)]).unwrap();
    mender.join().unwrap();
    assert!(owning.store.unsure() >= 1);
    assert_eq!(beats(), before + 1, "confirmed by one later write");
    owning.store.commit(&[appended(3)]).unwrap();
    assert_eq!(places(&owning), [1, 2, 3]);
    assert_eq!(count(server, &config, "count(*) FROM journal"), 4);
}

/// An old primary takes a commit and never answers, because its standby has left it. The commit is repeated as soon as another server
/// takes writes, long before a try ends by itself.
#[test]
fn a_commit_leaves_an_old_primary_once_another_server_takes_writes() {
    let (Some(server), Some(other)) = (PgServer::shared(), PgServer::start("")) else { return };
    let (old, new) = (Proxy::to(server.socket()), Proxy::to(other.socket()));
    // Not yet.
    new.losses.set(true, true);
    let url = format!("host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname=postgres", old.port, new.port);
    let mut owning = Node::join(&config(&url)).take();
    owning.store.commit(&[Record::QueueCreated(queue(1))]).unwrap();
    owning.node.member.freeze();
    owning.store.try_timeout = Duration::from_secs(60);
    old.losses.set(false, true);
    new.losses.set(false, false);
    // The other server has no tables, so the first one is asked again.
    let losses = old.losses.clone();
    let mender = thread::spawn(move || {
        let seen = losses.connections.load(Ordering::SeqCst);
        while losses.connections.load(Ordering::SeqCst) == seen {
            thread::sleep(Duration::from_millis(5));
        }
        losses.set(false, false);
    });
    let began = Instant::now();
    owning.store.commit(&[appended(1)]).unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    mender.join().unwrap();
    assert!(owning.store.unsure() >= 1);
    assert_eq!(places(&owning), [1]);
}

#[test]
fn a_commit_that_never_arrived_is_done_by_its_repetition() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning, proxy) = behind_proxy(server);
    proxy.losses.set(true, false);
    let losses = proxy.losses.clone();
    let mender = thread::spawn(move || {
        thread::sleep(Duration::from_millis(600));
        losses.set(false, false);
    });
    owning.store.commit(&[appended(2)]).unwrap();
    mender.join().unwrap();
    assert!(owning.store.unsure() >= 1);
    assert_eq!(places(&owning), [1, 2]);
    assert_eq!(count(server, &config, "count(*) FROM journal"), 3);
}

/// The first try takes effect while the second one waits for it.
#[test]
fn a_try_that_takes_effect_late_is_not_done_twice() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    owning.store.commit(&[appended(1)]).unwrap();
    let lock = format!("BEGIN; LOCK TABLE {}.journal IN SHARE MODE; SELECT pg_sleep(1.5); COMMIT", config.schema);
    thread::scope(|scope| {
        scope.spawn(|| server.psql("postgres", &lock).unwrap());
        while count(
            server,
            &config,
            "count(*) FROM pg_locks WHERE mode = 'ShareLock' AND granted AND relation = 'journal'::regclass",
        ) == 0
        {
            thread::sleep(Duration::from_millis(5));
        }
        owning.store.commit(&[appended(2)]).unwrap();
    });
    assert!(owning.store.unsure() >= 1);
    assert_eq!(places(&owning), [1, 2]);
    assert_eq!(count(server, &config, "count(*) FROM journal"), 3);
}

/// The answer to the first try is lost, and another server owns the messages before the second one: the first may have taken effect.
#[test]
fn a_commit_that_is_unsure_when_the_messages_move_stays_unsure() {
    let Some(server) = PgServer::shared() else { return };
    for arrives in [true, false] {
        let (config, owning, proxy) = behind_proxy(server);
        proxy.losses.set(!arrives, true);
        let losses = proxy.losses.clone();
        let schema = config.schema.clone();
        let taker = thread::spawn(move || {
            let seen = losses.connections.load(Ordering::SeqCst);
            while losses.connections.load(Ordering::SeqCst) == seen {
                thread::sleep(Duration::from_millis(5));
            }
            server.psql("postgres", &format!("UPDATE {schema}.shard SET epoch = epoch + 1")).unwrap();
            losses.set(false, false);
        });
        let lost = owning.store.commit(&[appended(2)]);
        taker.join().unwrap();
        assert!(matches!(lost, Err(StoreError::Unsure(_))), "{lost:?}");
        assert!(owning.store.unsure() >= 1);
        assert_eq!(count(server, &config, "count(*) FROM journal"), if arrives { 3 } else { 2 });
        let later = owning.store.commit(&[appended(3)]);
        assert!(matches!(later, Err(StoreError::Lost(_))), "nothing of it was sent: {later:?}");
    }
}

/// PostgreSQL answers success, with a warning, when somebody cancels the wait for the standby.
#[test]
fn a_cancelled_wait_for_the_standby_is_no_answer() {
    let Some(server) = PgServer::start("") else { return };
    let (_, owning) = owning(&server);
    let set = |standby: &str| {
        server.psql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'")).unwrap();
        server.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    };
    set("nobody");
    // The setting takes effect a moment later: then the next beat waits.
    while server.psql("postgres", "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'").unwrap().is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    thread::scope(|scope| {
        let commit = scope.spawn(|| owning.store.commit(&[appended(1)]));
        let began = Instant::now();
        let mut cancelled = 0;
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        while began.elapsed() < Duration::from_millis(1_500) {
            cancelled += server.psql("postgres", cancel).unwrap().len();
            thread::sleep(Duration::from_millis(20));
        }
        assert!(cancelled > 0);
        assert!(!commit.is_finished(), "answered without a standby");
        assert!(!owning.duty.may_serve(), "a beat that no standby has extends nothing");
        set("");
        commit.join().unwrap().unwrap();
    });
    assert!(owning.store.unsure() >= 1);
    assert_eq!(places(&owning), [1]);
}

#[test]
fn a_commit_that_is_refused_changes_nothing_and_the_next_one_goes_on() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    let forbid = format!("ALTER TABLE {}.journal ADD CONSTRAINT small CHECK (length(payload) < 400)", config.schema);
    server.psql("postgres", &forbid).unwrap();
    let large = Record::Settled {
        cursor: crate::store::CursorId(5),
        lease: None,
        histories: Vec::new(),
        settlement: crate::store::Settlement { done: (1..200).collect(), ..Default::default() },
    };
    let refused = owning.store.commit(&[appended(1), large]);
    assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    assert!(places(&owning).is_empty());
    owning.store.commit(&[appended(1)]).unwrap();
    assert_eq!(places(&owning), [1]);
    assert_eq!(owning.store.unsure(), 0);
}

/// A failover to a standby that lacks the newest table: the next commit makes it again.
#[test]
fn a_table_that_a_failover_lost_is_made_again() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    owning.store.commit(&[appended(1)]).unwrap();
    let slot = owning.store.lock().slots.for_time(Some(1_000));
    let table = super::super::slots::table(0, slot);
    server.psql("postgres", &format!("DROP TABLE {}.{table}", config.schema)).unwrap();
    owning.store.commit(&[appended(2)]).unwrap();
    assert_eq!(count(server, &config, &format!("count(*) FROM {table}")), 1);
}

/// After an asynchronous failover the new primary lacks commits that the owner still has in memory.
#[test]
fn an_owner_whose_commits_are_gone_gives_the_shard_up_and_leaves_no_gap() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    for seq in 1..=3 {
        owning.store.commit(&[appended(seq)]).unwrap();
    }
    // What a primary without the last two commits has.
    let schema = &config.schema;
    server.psql("postgres", &format!("DELETE FROM {schema}.journal WHERE commit_no > 2")).unwrap();
    server.psql("postgres", &format!("DELETE FROM {schema}.chunk_0_0 WHERE first > 1")).unwrap();
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dms/{}'",
        owning.node.member.id
    );
    server.psql("postgres", &end).unwrap();
    let lost = owning.store.commit(&[appended(4)]);
    // It may have been sent before the end of the session was noticed.
    assert!(matches!(lost, Err(StoreError::Lost(_) | StoreError::Unsure(_))), "{lost:?}");
    assert!(!owning.store.may_serve());
    owning.node.member.freeze();
    let next = Node::join(&config).take();
    assert_eq!(next.snapshot.queues[0].stream.next, 2, "what PostgreSQL has can be opened");
    next.store.commit(&[appended(2)]).unwrap();
}

#[test]
fn new_work_is_refused_while_a_commit_hangs() {
    let Some(server) = PgServer::start("") else { return };
    let mut config = config(&server.url());
    config.takeover_after = Duration::from_secs(60);
    let owning = Node::join(&config).take();
    crate::store::Store::commit(&owning.store, &[Record::QueueCreated(queue(1))]).unwrap();
    server.signal("STOP");
    thread::scope(|scope| {
        let commit = scope.spawn(|| owning.store.commit(&[appended(1)]));
        let began = Instant::now();
        while owning.store.may_serve() {
            assert!(began.elapsed() < Duration::from_secs(10), "work piles up");
            thread::sleep(Duration::from_millis(20));
        }
        assert!(began.elapsed() > Duration::from_millis(1_500), "a slow commit is no failure");
        server.signal("CONT");
        commit.join().unwrap().unwrap();
    });
    assert!(owning.store.may_serve());
}
