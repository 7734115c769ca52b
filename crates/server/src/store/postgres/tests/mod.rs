//! The store in PostgreSQL against a real server; see the crate `dms-worker-postgres-fixture` for how it is started.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use dms_worker_postgres_fixture::PgServer;

use super::{
    PgStore, PostgresConfig,
    cluster_view::ShardView,
    duty::{Duty, OwnerStatus},
    member::Member,
    runtime::Runtime,
};
use crate::store::{GroupRow, Record, Snapshot, StreamId};

mod connections;
mod deciding;
mod model;
mod ownership;
mod proxy;
mod reading;

pub(super) use crate::store::test_model::{ALL, message, queue};
pub(super) const STREAM: StreamId = StreamId(1);

/// One of our servers, with its own runtime as in a process.
pub(super) struct Node {
    pub(super) member: Arc<Member>,
    pub(super) runtime: Arc<Runtime>,
}

/// A server that owns the messages.
pub(super) struct Owning {
    pub(super) node: Node,
    pub(super) duty: Arc<Duty>,
    pub(super) store: PgStore,
    pub(super) snapshot: Snapshot,
}

/// A schema that no other test has.
pub(super) fn config(url: &str) -> PostgresConfig {
    let mut config = PostgresConfig::new(url.to_owned().into());
    config.schema = format!("dms_{}", uuid::Uuid::new_v4().simple());
    config.takeover_after = Duration::from_millis(1_000);
    config.shards = Some(1);
    config
}

impl Node {
    pub(super) fn join(config: &PostgresConfig) -> Self {
        let runtime = Arc::new(Runtime::start().unwrap());
        let member = runtime.block_on(Member::join(config, runtime.clone())).unwrap();
        Self { member, runtime }
    }

    /// Takes the messages from their owner, as if the watch had found it dead.
    pub(super) fn take(self) -> Owning {
        for _ in 0..20 {
            let mut view = self.runtime.block_on(self.member.look());
            if view.status == OwnerStatus::Alive {
                view.status = OwnerStatus::Dead;
            }
            if let Some(duty) = self.runtime.block_on(self.member.take(&view)).unwrap() {
                return self.open(duty);
            }
        }
        panic!("the owner was alive twenty times");
    }

    pub(super) fn open(self, duty: Arc<Duty>) -> Owning {
        let (mut store, snapshot) = self.runtime.block_on(PgStore::open(&self.member, &duty)).unwrap();
        store.try_timeout = Duration::from_millis(400);
        Owning { node: self, duty, store, snapshot }
    }
}

/// A server that owns the messages of a new schema, with the queue of [`STREAM`].
pub(super) fn owning(server: &PgServer) -> (PostgresConfig, Owning) {
    let config = config(&server.url());
    let owning = Node::join(&config).take();
    crate::store::Store::commit(&owning.store, &[Record::QueueCreated(queue(1))]).unwrap();
    (config, owning)
}

/// Counts rows, as the superuser sees them.
pub(super) fn count(server: &PgServer, config: &PostgresConfig, what: &str) -> u64 {
    let sql = format!("SET search_path = {}; SELECT {what}", config.schema);
    server.psql("postgres", &sql).unwrap().pop().unwrap().parse().unwrap()
}

pub(super) fn group(number: u32, of: u32, start: u64) -> GroupRow {
    GroupRow {
        number,
        queue: queue(of).id,
        id: format!("g{number}").as_str().into(),
        name: format!("group{number}"),
        created_ms: 8,
        start,
    }
}

pub(super) fn appended(seq: u64) -> Record {
    Record::Appended(STREAM, message(seq, 100, 1_000))
}
