//! Which servers are used, and which are refused.

use super::{proxy::Proxy, *};
use crate::store::{
    Store,
    postgres::{
        cluster_view::{self, ClusterView},
        connect::Connector,
        error::PostgresError,
    },
};

fn join(config: &PostgresConfig) -> Result<Node, PostgresError> {
    let runtime = Arc::new(Runtime::start().unwrap());
    let member = runtime.block_on(Member::join(config, runtime.clone()))?;
    Ok(Node { member, runtime })
}

#[test]
fn a_server_without_fsync_is_refused() {
    let Some(server) = PgServer::start("fsync = off") else { return };
    let refused = join(&config(&server.url())).map(drop).unwrap_err();
    assert!(matches!(refused, PostgresError::NoFsync), "{refused}");
}

#[test]
fn asynchronous_commits_are_switched_on_whatever_the_server_is_set_to() {
    let Some(server) = PgServer::start("synchronous_commit = off") else { return };
    let node = join(&config(&server.url())).unwrap();
    let set = node.runtime.block_on(async {
        let session = node.member.connector.connect().await.unwrap();
        session.query("SELECT current_setting('synchronous_commit')", &[]).await.unwrap()[0].get::<_, String>(0)
    });
    assert_eq!(set, "on");
}

#[test]
fn tables_of_a_later_version_are_refused_and_left_alone() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    owning.store.release(true).unwrap();
    server.psql("postgres", &format!("UPDATE {}.cluster SET version = 99", config.schema)).unwrap();
    let refused = join(&config).map(drop).unwrap_err();
    assert!(matches!(refused, PostgresError::Newer { found: 99, .. }), "{refused}");
    assert_eq!(count(server, &config, "version FROM cluster"), 99);
}

/// Servers are replaced one after the other: a standby of the old version must not take over what the new one has written.
#[test]
fn a_standby_takes_nothing_over_once_a_later_version_migrated_the_tables() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    let standby = Node::join(&config);
    owning.store.release(true).unwrap();
    server.psql("postgres", &format!("UPDATE {}.cluster SET version = 99", config.schema)).unwrap();
    let view = standby.runtime.block_on(standby.member.look());
    let refused = standby.runtime.block_on(standby.member.take(&view)).map(drop).unwrap_err();
    assert!(refused.to_string().contains("has version 99"), "{refused}");
    assert_eq!(count(server, &config, "epoch FROM shard WHERE id = 0"), u64::try_from(view.owner.epoch).unwrap());
}

/// Servers are upgraded one after the other: one of the version before goes on with what it owns, and hands it over. The columns stand for a
/// later migration, which adds to the tables and changes nothing that is there.
#[test]
fn an_owner_goes_on_and_hands_over_once_a_later_version_migrated_the_tables() {
    let Some(server) = PgServer::shared() else { return };
    let (config, owning) = owning(server);
    owning.store.commit(&[appended(1)]).unwrap();
    let tables = ["cluster", "member", "shard", "journal", "image", "queue", "stream", "reader", "leased", "chunk_0_0"];
    let migration: String = tables.iter().map(|table| format!("ALTER TABLE {table} ADD later text; ")).collect();
    let version = |sql: &str, number| {
        let all = format!("SET search_path = {}; {sql} UPDATE cluster SET version = {number}", config.schema);
        server.psql("postgres", &all).unwrap();
    };
    version(&migration, 8);
    owning.store.commit(&[appended(2)]).unwrap();
    assert_eq!(owning.store.read(STREAM, 1, ALL).unwrap().messages.len(), 2);
    owning.store.write_image().unwrap();
    owning.store.commit(&[appended(3)]).unwrap();
    owning.store.release(true).unwrap();
    // This program stands for the later version.
    version("", 7);
    assert_eq!(Node::join(&config).take().store.read(STREAM, 1, ALL).unwrap().messages.len(), 3);
}

/// The tables of the first version served one server at a time.
#[test]
fn tables_of_the_first_version_are_migrated() {
    let Some(server) = PgServer::shared() else { return };
    let (config, first) = owning(server);
    first.store.commit(&[appended(1)]).unwrap();
    first.store.release(true).unwrap();
    let undo = format!(
        "SET search_path = {}; DROP TABLE leased; DROP TABLE sent_keys; DROP TABLE schedule; DROP TABLE job; DROP TABLE queue_elsewhere; ALTER TABLE cluster DROP importing; ALTER TABLE member DROP draining; ALTER TABLE shard DROP wanted, DROP pinned;
         ALTER TABLE chunk_0_0 RENAME TO chunk_0; UPDATE cluster SET version = 1",
        config.schema
    );
    server.psql("postgres", &undo).unwrap();
    let next = Node::join(&config).take();
    assert_eq!(count(server, &config, "version FROM cluster"), 7);
    assert_eq!(next.store.read(STREAM, 1, ALL).unwrap().messages.len(), 1);
}

#[test]
fn servers_that_start_together_make_the_tables_once() {
    let Some(server) = PgServer::shared() else { return };
    let config = config(&server.url());
    let logs: Vec<u32> = std::thread::scope(|scope| {
        let joins: Vec<_> = (0..4).map(|_| scope.spawn(|| join(&config).unwrap().member.tables.log)).collect();
        joins.into_iter().map(|join| join.join().unwrap()).collect()
    });
    assert!(logs.iter().all(|log| *log == logs[0]));
    assert_eq!(count(server, &config, "count(*) FROM cluster"), 1);
}

/// A server that is stopped accepts connections and says nothing.
#[test]
fn a_host_that_hangs_does_not_keep_from_the_one_that_answers() {
    let Some(server) = PgServer::shared() else { return };
    let hanging = Proxy::to(server.socket());
    hanging.losses.set(true, true);
    let working = Proxy::to(server.socket());
    let url = format!("host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname=postgres", hanging.port, working.port);
    let owning = Node::join(&config(&url)).take();
    owning.store.commit(&[Record::QueueCreated(queue(1))]).unwrap();
}

#[test]
fn whether_postgresql_has_a_synchronous_standby_is_seen() {
    let Some(server) = PgServer::start("") else { return };
    let node = Node::join(&config(&server.url()));
    // Its beats would wait for the standby.
    node.member.freeze();
    let sees = || {
        node.runtime.block_on(async {
            let session = node.member.connector.connect().await.unwrap();
            cluster_view::read(&session).await.unwrap().seen_by(&ClusterView::default()).is_replicated
        })
    };
    let set = |sql: &str| {
        server.psql("postgres", sql).unwrap();
        server.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    };
    assert!(!sees());
    set("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    while !sees() {}
    set("ALTER SYSTEM RESET synchronous_standby_names");
    while sees() {}
}

/// Two hosts may be names of one server, which is slow and not an old primary.
#[test]
fn a_session_is_overtaken_by_another_server_and_not_by_another_name_of_its_own() {
    let (Some(server), Some(other)) = (PgServer::shared(), PgServer::start("")) else { return };
    let runtime = Runtime::start().unwrap();
    let same = Proxy::to(server.socket());
    let (here, there) = (server.socket_dir().display(), other.socket_dir().display());
    let connector = |hosts: String, ports: String| {
        let url = format!("host={hosts} port={ports} user=postgres dbname=postgres");
        Connector::new(&config(&url), "dms/test").unwrap()
    };
    let looks = |connector: Connector| {
        runtime.block_on(async move {
            let session = connector.connect().await.unwrap();
            let (every, patience) = (Duration::from_millis(5), Duration::from_millis(500));
            tokio::time::timeout(patience, connector.overtaken(&session, every)).await.is_ok()
        })
    };
    assert!(looks(connector(format!("{here},{there}"), "5432,5432".to_owned())));
    assert!(!looks(connector(format!("{here},127.0.0.1"), format!("5432,{}", same.port))));
}

#[test]
fn what_cannot_be_reached_is_named_without_the_password() {
    let config = PostgresConfig::new("postgres://dms:geheim@127.0.0.1:1/x".to_owned().into());
    let error = join(&config).map(drop).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1") && !error.contains("geheim"), "{error}");
}

/// A commit that waits for the standby is repeated on a new connection: PostgreSQL must not keep the old one.
#[test]
fn postgresql_notices_connections_that_were_given_up() {
    let Some(server) = PgServer::shared() else { return };
    let (_config, owning) = owning(server);
    let shown = owning.node.runtime.block_on(async {
        let session = owning.node.member.connector.connect().await.unwrap();
        let rows = session.query("SELECT current_setting('client_connection_check_interval')", &[]).await.unwrap();
        rows[0].get::<_, String>(0)
    });
    assert_eq!(shown, "2s");
}
