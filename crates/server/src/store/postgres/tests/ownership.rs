//! Ownership: one server owns the messages, and no other one can change them.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use super::*;
use crate::store::{Store, StoreError, postgres::guard::Guard};

/// Waits until the watch of a server says this of the owner.
fn await_status(node: &Node, status: OwnerStatus, within: Duration) -> ShardView {
    let mut views = node.member.views();
    let awaited = views.wait_for(|cluster| cluster.shard(0).is_some_and(|view| view.status == status));
    let cluster = node.runtime.block_on(async { tokio::time::timeout(within, awaited).await });
    cluster.expect("no such status in time").unwrap().shards[0].clone()
}

fn takes(node: Node, view: &ShardView) -> Owning {
    let duty = node.runtime.block_on(node.member.take(view)).unwrap().expect("taken");
    node.open(duty)
}

#[test]
fn the_commit_of_an_earlier_owner_is_refused_and_changes_nothing() {
    let Some(server) = PgServer::shared() else { return };
    let (config, old) = owning(server);
    old.store.commit(&[appended(1)]).unwrap();
    old.node.member.freeze();
    let new = Node::join(&config).take();
    let refused = old.store.commit(&[appended(2)]);
    assert!(matches!(refused, Err(StoreError::Fenced(_))), "{refused:?}");
    assert!(old.store.read(STREAM, 1, ALL).is_err(), "nothing is answered from a state that may be old");
    assert!(!old.store.may_serve());
    new.store.commit(&[appended(2)]).unwrap();
    assert_eq!(count(server, &config, "count(*) FROM journal"), 3);
    assert_eq!(count(server, &config, "max(epoch) FROM journal"), 2);
}

/// A commit that has passed the fence when another server takes over belongs to the old owner: the new one waits for it.
#[test]
fn a_take_over_waits_for_the_commit_that_is_under_way() {
    let Some(server) = PgServer::shared() else { return };
    let (config, mut old) = owning(server);
    old.store.try_timeout = Duration::from_secs(10);
    let next = Node::join(&config);
    // Its sessions are not ended: an owner that is alive and slow.
    let view = ShardView { status: OwnerStatus::Free, ..next.runtime.block_on(next.member.look()) };
    let block = format!(
        "SET search_path = {}; BEGIN; INSERT INTO journal VALUES (0, 2, 0, ''); SELECT pg_sleep(1); ROLLBACK",
        config.schema
    );
    let waits = "count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'WITH fence%' AND application_name = 'dms/";
    let waits = format!("{waits}{}'", old.node.member.id);
    thread::scope(|scope| {
        scope.spawn(|| server.psql("postgres", &block).unwrap());
        let sleeping =
            "count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%pg_sleep(1); ROLLBACK%'";
        while count(server, &config, sleeping) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        let commit = scope.spawn(|| old.store.commit(&[appended(1)]));
        while count(server, &config, &waits) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        let new = takes(next, &view);
        let answered = commit.join().unwrap();
        let found = new.snapshot.queues[0].stream.next;
        assert_eq!(found, if answered.is_ok() { 2 } else { 1 }, "{answered:?}");
        assert!(answered.is_ok(), "{answered:?}");
    });
}

/// A client that is stopped in the middle of a commit leaves its backend with the lock on the shard's row.
struct Stuck(Child);

impl Stuck {
    fn of(server: &PgServer, config: &PostgresConfig, member: &Member) -> Self {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-U", "postgres", "-d", "postgres", "-h"]).arg(server.socket_dir());
        psql.env("PGAPPNAME", super::super::member::application(&member.id))
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut child = psql.stderr(Stdio::null()).spawn().unwrap();
        let sql = format!("SET search_path = {}; BEGIN; SELECT 1 FROM shard WHERE id = 0 FOR SHARE;\n", config.schema);
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), sql.as_bytes()).unwrap();
        let holds = format!(
            "count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND application_name = 'dms/{}'",
            member.id
        );
        while count(server, config, &holds) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stopped_owner_is_taken_over_each_time_whatever_its_sessions_hold() {
    let Some(server) = PgServer::shared() else { return };
    let (mut config, first) = owning(server);
    config.takeover_after = Duration::from_millis(500);
    // From here on all servers agree on the time.
    let mut old = Node::join(&config).take();
    drop(first);
    for turn in 1..=20 {
        old.store.commit(&[appended(turn)]).unwrap();
        let _stuck = Stuck::of(server, &config, &old.node.member);
        let next = Node::join(&config);
        await_status(&next, OwnerStatus::Alive, Duration::from_secs(5));
        old.node.member.freeze();
        let began = Instant::now();
        let view = await_status(&next, OwnerStatus::Dead, Duration::from_secs(10));
        let new = takes(next, &view);
        assert!(began.elapsed() < Duration::from_secs(3), "turn {turn}: {:?}", began.elapsed());
        assert!(!old.store.may_serve(), "turn {turn}: two owners serve");
        assert_eq!(new.snapshot.queues[0].stream.next, turn + 1);
        old = new;
    }
}

#[test]
fn an_owner_that_is_silent_stops_serving_before_others_take_over() {
    let Some(server) = PgServer::shared() else { return };
    let (config, old) = owning(server);
    let next = Node::join(&config);
    assert!(old.store.may_serve());
    old.node.member.freeze();
    await_status(&next, OwnerStatus::Dead, Duration::from_secs(10));
    assert!(!old.store.may_serve(), "it does not know that it is taken for dead");
    assert!(!old.duty.is_lost());
}

#[test]
fn an_owner_that_beats_is_never_taken_for_dead() {
    let Some(server) = PgServer::shared() else { return };
    let (config, old) = owning(server);
    let next = Node::join(&config);
    let mut views = next.member.views();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2_500) {
        next.runtime.block_on(views.changed()).unwrap();
        assert_ne!(views.borrow().shards[0].status, OwnerStatus::Dead);
        assert!(old.store.may_serve());
    }
}

#[test]
fn an_outage_of_postgresql_makes_nobody_dead_and_the_owner_waits() {
    let Some(server) = PgServer::start("") else { return };
    let (config, old) = owning(&server);
    let next = Node::join(&config);
    await_status(&next, OwnerStatus::Alive, Duration::from_secs(5));
    server.signal("STOP");
    thread::sleep(Duration::from_millis(2_500));
    assert!(!old.store.may_serve(), "nobody can say who the owner is");
    server.signal("CONT");
    let mut views = next.member.views();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2_000) {
        next.runtime.block_on(views.changed()).unwrap();
        assert_ne!(views.borrow().shards[0].status, OwnerStatus::Dead);
    }
    assert!(old.store.may_serve());
    old.store.commit(&[appended(1)]).unwrap();
}

#[test]
fn an_orderly_release_lets_the_next_server_take_over_at_once() {
    let Some(server) = PgServer::shared() else { return };
    let (config, old) = owning(server);
    let next = Node::join(&config);
    old.store.release(true).unwrap();
    let view = await_status(&next, OwnerStatus::Free, Duration::from_secs(5));
    let new = takes(next, &view);
    assert_eq!(count(server, &config, "commit_no FROM image"), 1, "nothing is left to replay");
    assert!(new.store.may_serve());
}

#[test]
fn of_two_that_take_at_once_one_gets_it() {
    let Some(server) = PgServer::shared() else { return };
    let (config, old) = owning(server);
    old.store.release(true).unwrap();
    let nodes = [Node::join(&config), Node::join(&config)];
    let view = nodes[0].runtime.block_on(nodes[0].member.look());
    let taken = thread::scope(|scope| {
        let takes =
            nodes.each_ref().map(|node| scope.spawn(|| node.runtime.block_on(node.member.take(&view)).unwrap()));
        takes.map(|take| take.join().unwrap())
    });
    assert_eq!(taken.iter().filter(|duty| duty.is_some()).count(), 1);
}

#[test]
fn a_server_that_was_declared_dead_knows_it_at_its_next_beat() {
    let Some(server) = PgServer::shared() else { return };
    let (config, old) = owning(server);
    server.psql("postgres", &format!("DELETE FROM {}.member", config.schema)).unwrap();
    old.node.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), old.duty.lost()).await }).unwrap();
    assert!(old.node.member.is_dead());
    assert!(!old.store.may_serve());
}

/// A take-over that failed half-way has deleted the registration of the dead owner, but its sessions may be back.
#[test]
fn the_sessions_of_an_owner_that_is_not_registered_any_more_do_not_keep_the_messages() {
    let Some(server) = PgServer::shared() else { return };
    let (config, old) = owning(server);
    old.node.member.freeze();
    server.psql("postgres", &format!("DELETE FROM {}.member", config.schema)).unwrap();
    let _stuck = Stuck::of(server, &config, &old.node.member);
    let next = Node::join(&config);
    let view = await_status(&next, OwnerStatus::Free, Duration::from_secs(5));
    let new = takes(next, &view);
    assert!(new.store.may_serve());
}

/// PostgreSQL that takes connections and never answers: a take-over must not wait for it without a limit.
#[test]
fn a_take_over_from_a_server_that_does_not_answer_ends() {
    let Some(server) = PgServer::start("") else { return };
    let (config, old) = owning(&server);
    let next = Node::join(&config);
    old.node.member.freeze();
    let view = await_status(&next, OwnerStatus::Dead, Duration::from_secs(10));
    server.signal("STOP");
    let taken = next
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), next.member.take_away(&view)).await });
    server.signal("CONT");
    assert!(matches!(taken, Ok(Err(_))), "{taken:?}");
}

/// A server that finds at a commit that one of its shards has another owner keeps beating, and keeps the others.
#[test]
fn losing_one_shard_ends_neither_the_registration_nor_the_other_shards() {
    let Some(server) = PgServer::shared() else { return };
    let mut config = config(&server.url());
    config.shards = Some(2);
    let node = Node::join(&config);
    let mut views = node.member.views();
    let cluster = node.runtime.block_on(views.wait_for(|cluster| !cluster.shards.is_empty())).unwrap().clone();
    let take = |view: &ShardView| node.runtime.block_on(node.member.take(view)).unwrap().expect("taken");
    let [one, two] = [take(&cluster.shards[0]), take(&cluster.shards[1])];
    let (lost, _) = node.runtime.block_on(PgStore::open(&node.member, &one)).unwrap();
    let (kept, _) = node.runtime.block_on(PgStore::open(&node.member, &two)).unwrap();
    server.psql("postgres", &format!("UPDATE {}.shard SET epoch = 9 WHERE id = 0", config.schema)).unwrap();
    assert!(matches!(lost.commit(&[Record::QueueCreated(queue(1))]), Err(StoreError::Fenced(_))));
    lost.release(false).unwrap();
    node.runtime.block_on(views.changed()).unwrap();
    node.runtime.block_on(views.changed()).unwrap();
    assert!(!node.member.is_dead() && kept.may_serve());
    kept.commit(&[Record::QueueCreated(queue(1))]).unwrap();
}

/// The process of PostgreSQL that holds an advisory lock for a server; 0 if none does.
fn holder(server: &PgServer, config: &PostgresConfig, node: &Node) -> u64 {
    let held =
        "coalesce(max(pid), 0) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted";
    count(server, config, &format!("{held} AND application_name = 'dms/{}'", node.member.id))
}

/// A session costs PostgreSQL a process, so that guards that follow each other share one.
#[test]
fn a_guard_holds_its_name_alone_and_leaves_its_session_to_the_next_one() {
    let Some(server) = PgServer::shared() else { return };
    let config = config(&server.url());
    let (one, other) = (Node::join(&config), Node::join(&config));
    let name = config.schema.as_str();
    let take = |node: &Node| node.runtime.block_on(Guard::take(&node.member, name)).unwrap();
    let is_free = || while holder(server, &config, &one) != 0 {};
    let guard = take(&one);
    let first = holder(server, &config, &one);
    assert_ne!(first, 0);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| take(&other));
        let waits = format!(
            "count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND application_name = 'dms/{}'",
            other.member.id
        );
        while count(server, &config, &waits) == 0 {}
        assert!(!waiting.is_finished(), "the name is held");
        drop(guard);
        drop(waiting.join().unwrap());
    });
    is_free();
    let again = take(&one);
    assert_eq!(holder(server, &config, &one), first, "the same session");
    drop(again);
    is_free();
    server.psql("postgres", &format!("SELECT pg_terminate_backend({first})")).unwrap();
    let _guard = take(&one);
    assert_ne!(holder(server, &config, &one), first, "another one, because that was ended");
}
