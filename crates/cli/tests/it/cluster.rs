//! Three real servers on one PostgreSQL, all of which serve, under traffic through all of them: whichever is killed, stopped or
//! restarted, no answered message is lost, and none that was acknowledged comes back.
//!
//! `DMS_CLUSTER_FAULTS=200` makes as many faults; a few by default.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use dms_worker::queue::SourcePath;
use dms_worker_postgres_fixture::PgServer;
use serde_json::Value;

use crate::failover::{Books, Node, TAKEOVER, consume, produce};

const QUEUES: [&str; 4] = ["orders", "invoices", "mails", "events"];
/// By when all queues are served again: the take-over, and what opening the shards takes on a busy machine.
const SERVES_WITHIN: Duration = Duration::from_secs(10);

fn faults() -> usize {
    std::env::var("DMS_CLUSTER_FAULTS").ok().and_then(|count| count.parse().ok()).unwrap_or(3)
}

fn nodes(dir: &std::path::Path, postgres: &PgServer, schema: &str) -> Vec<Node> {
    let queues = QUEUES.map(|name| format!("{{name: {name}, groups: [all]}}")).join(", ");
    ["a", "b", "c"].map(|name| Node::new(dir, name, (&postgres.url(), schema), ", listen: 127.0.0.1:0", &queues)).into()
}

/// Waits until a server lists all queues: the owners of all shards have answered.
async fn await_queues(node: &Node, within: Duration) {
    let began = Instant::now();
    loop {
        let listed = tokio::time::timeout(Duration::from_secs(1), node.client().queues()).await;
        if listed.is_ok_and(|listed| listed.is_ok_and(|queues| queues.len() == QUEUES.len())) {
            return;
        }
        assert!(began.elapsed() < within, "{} does not have all queues: {}", node.address, node.last_words());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_lost_whichever_server_fails() {
    let Some(postgres) = PgServer::start("") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = nodes(dir.path(), &postgres, "dms");
    nodes.iter_mut().for_each(Node::start);
    for node in &nodes {
        await_queues(node, Duration::from_secs(30)).await;
    }
    let client = nodes[0].client();
    let mut sources = Vec::new();
    for queue in client.queues().await.unwrap() {
        let group = client.groups(&queue.id).await.unwrap().remove(0).id;
        sources.push((SourcePath::messages(queue.id, group), Arc::new(Books::default())));
    }
    let clients = |first: usize| (0..3).map(|number| nodes[(first + number) % 3].client()).collect::<Vec<_>>();
    let traffic: Vec<Vec<_>> = (0..)
        .zip(&sources)
        .map(|(number, (source, books))| {
            let produced = tokio::spawn(produce(clients(number), source.clone(), books.clone()));
            vec![produced, tokio::spawn(consume(clients(number + 1), source.clone(), books.clone()))]
        })
        .collect();
    for turn in 0..faults() {
        let victim = turn % 3;
        tokio::time::sleep(Duration::from_millis(500)).await;
        match turn / 3 % 3 + turn % 3 {
            0 | 3 => nodes[victim].kill(),
            1 | 4 => nodes[victim].signal("STOP"),
            _ => nodes[victim].stop().await,
        }
        for other in [1, 2].map(|step| (victim + step) % 3) {
            await_queues(&nodes[other], SERVES_WITHIN).await;
        }
        match turn / 3 % 3 + turn % 3 {
            1 | 4 => nodes[victim].signal("CONT"),
            _ => nodes[victim].start(),
        }
        await_queues(&nodes[victim], SERVES_WITHIN).await;
    }
    for ((source, books), traffic) in sources.iter().zip(traffic) {
        books.close(traffic).await;
        books.check(&nodes[0].client().groups(&source.queue).await.unwrap().remove(0));
    }
}

fn cluster(node: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dms-worker"));
    let asked = command.args(["cluster", "--admin", node, "-o", "json"]).args(arguments).output().unwrap();
    assert!(asked.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&asked.stderr));
    serde_json::from_slice(&asked.stdout).unwrap()
}

/// Operators see who owns what, move a shard, and empty a server before they stop it.
#[tokio::test(flavor = "multi_thread")]
async fn operators_move_shards_and_drain_a_server() {
    let Some(postgres) = PgServer::shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = nodes(dir.path(), postgres, "operators");
    nodes.truncate(2);
    let admins: Vec<_> = nodes.iter_mut().map(Node::with_admin).collect();
    nodes.iter_mut().for_each(Node::start);
    for node in &nodes {
        await_queues(node, Duration::from_secs(30)).await;
    }
    let status = || cluster(&admins[0], &["status"]);
    let owned = |status: &Value, id: &Value| -> usize {
        let members = status["members"].as_array().unwrap();
        members.iter().find(|member| member["id"] == *id).map_or(0, |one| one["shards"].as_array().unwrap().len())
    };
    let await_owned = async |id: &Value, count: usize| {
        let began = Instant::now();
        while owned(&status(), id) != count {
            assert!(began.elapsed() < TAKEOVER * 10, "{:#}", status());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let own = status()["this"].clone();
    // Nothing moves any more.
    let other =
        status()["members"].as_array().unwrap().iter().find(|member| member["id"] != own).unwrap()["id"].clone();
    await_owned(&other, 2).await;
    await_owned(&own, 2).await;
    let shard =
        status()["shards"].as_array().unwrap().iter().find(|shard| shard["owner"] != own).unwrap()["shard"].clone();
    cluster(&admins[1], &["move", &shard.to_string(), "--to", own.as_str().unwrap()]);
    let began = Instant::now();
    while status()["shards"][usize::try_from(shard.as_u64().unwrap()).unwrap()]["owner"] != own {
        assert!(began.elapsed() < TAKEOVER * 10, "{:#}", status());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let drained = cluster(&admins[0], &["drain"]);
    assert_eq!(drained["member"], own);
    assert_eq!(owned(&status(), &own), 0);
    await_queues(&nodes[0], SERVES_WITHIN).await;
    cluster(&admins[1], &["drain", own.as_str().unwrap(), "--undo"]);
    await_owned(&own, 2).await;
}
