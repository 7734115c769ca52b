//! The stores of `layers::Deduplicate`, each against a real server: one set of tests for all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use dms_worker::{
    Handler, HandlerError, handler_fn,
    layers::{Claim, Deduplicate, KeyStore, MemoryStore, PostgresStore, RedisStore, Token},
    postgres::Postgres,
    worker::{DeliveryBuilder, HandlerService, ServiceHandler},
};
use dms_worker_postgres_fixture::PgServer;
use dms_worker_redis_fixture::RedisServer;
use tower::Layer;

use crate::pki::Pki;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);
/// A claim that expires during a test.
const SHORT: Duration = Duration::from_millis(30);

/// One store as two processes see it.
struct Pair {
    name: &'static str,
    here: Arc<dyn KeyStore>,
    there: Arc<dyn KeyStore>,
}

/// Every store, with the keys of one test alone.
fn stores(test: &str) -> Vec<Pair> {
    let memory = MemoryStore::new(1000);
    let mut pairs = vec![Pair { name: "memory", here: Arc::new(memory.clone()), there: Arc::new(memory) }];
    if let Some(server) = PgServer::shared() {
        let store = || Arc::new(PostgresStore::new(Postgres::builder(server.url()).build().unwrap()).scope(test));
        pairs.push(Pair { name: "PostgreSQL", here: store(), there: store() });
    }
    if let Some(server) = RedisServer::shared() {
        let store = || Arc::new(RedisStore::new(&server.url()).unwrap().prefix(format!("{test}:")));
        pairs.push(Pair { name: "Redis", here: store(), there: store() });
    }
    pairs
}

async fn claimed(store: &Arc<dyn KeyStore>, key: &str, lease: Duration) -> Token {
    match store.claim(key, lease).await.unwrap() {
        Claim::New(token) => token,
        other => panic!("{key} is taken: {other:?}"),
    }
}

/// Claims a key as soon as its claim has expired.
async fn claimed_later(store: &Arc<dyn KeyStore>, key: &str, lease: Duration) -> Token {
    let asking = async {
        loop {
            match store.claim(key, lease).await.unwrap() {
                Claim::New(token) => return token,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(SECOND * 20, asking).await.unwrap()
}

#[tokio::test]
async fn a_key_is_claimed_by_one_process_and_done_for_all() {
    for Pair { name, here, there } in stores("one") {
        let token = claimed(&here, "a", LONG).await;
        assert_eq!(token.key(), "a");
        assert_eq!(there.claim("a", LONG).await.unwrap(), Claim::InProgress, "{name}");
        here.done(&token, LONG).await.unwrap();
        for store in [&here, &there] {
            assert_eq!(store.claim("a", LONG).await.unwrap(), Claim::Done, "{name}");
        }
        claimed(&there, "b", LONG).await;
    }
}

#[tokio::test]
async fn a_released_key_is_free_for_others() {
    for Pair { here, there, .. } in stores("released") {
        let token = claimed(&here, "a", LONG).await;
        here.release(&token).await.unwrap();
        claimed(&there, "a", LONG).await;
    }
}

#[tokio::test]
async fn the_claim_of_a_process_that_died_expires() {
    for Pair { name, here, there } in stores("died") {
        let late = claimed(&here, "a", SHORT).await;
        let current = claimed_later(&there, "a", LONG).await;
        assert_ne!(late.owner(), current.owner(), "{name}");
        here.release(&late).await.unwrap();
        assert_eq!(here.claim("a", LONG).await.unwrap(), Claim::InProgress, "{name}: the second claim still has it");
        there.release(&current).await.unwrap();
        claimed(&here, "a", LONG).await;
    }
}

#[tokio::test]
async fn finished_work_is_forgotten_after_its_time() {
    for Pair { here, there, .. } in stores("window") {
        let token = claimed(&here, "a", LONG).await;
        here.done(&token, SHORT).await.unwrap();
        claimed_later(&there, "a", LONG).await;
    }
}

/// The work of a claim that expired was done all the same.
#[tokio::test]
async fn work_that_was_done_late_is_done_whichever_process_has_the_key() {
    for Pair { name, here, there } in stores("late") {
        let late = claimed(&here, "a", SHORT).await;
        let current = claimed_later(&there, "a", LONG).await;
        here.done(&late, LONG).await.unwrap();
        for token in [&late, &current] {
            there.release(token).await.unwrap();
        }
        assert_eq!(there.claim("a", LONG).await.unwrap(), Claim::Done, "{name}: no release frees finished work");
    }
}

#[tokio::test]
async fn of_many_claims_at_once_one_succeeds() {
    for Pair { name, here, there } in stores("race") {
        for round in 0..20 {
            let key = format!("order-{round}");
            let claims = (0..8).map(|number| {
                let (store, key) = (if number % 2 == 0 { here.clone() } else { there.clone() }, key.clone());
                tokio::spawn(async move { matches!(store.claim(&key, LONG).await.unwrap(), Claim::New(_)) })
            });
            let mut winners = 0;
            for claim in claims.collect::<Vec<_>>() {
                winners += u32::from(claim.await.unwrap());
            }
            assert_eq!(winners, 1, "{name}");
        }
    }
}

#[tokio::test]
async fn any_text_is_a_key_and_any_time_a_window() {
    for Pair { name, here, there } in stores("texts") {
        for key in ["", "'; DROP TABLE keys; --", "naïve 鍵", "a\0b", &"x".repeat(100_000)] {
            let token = claimed(&here, key, Duration::MAX).await;
            here.done(&token, Duration::MAX).await.unwrap();
            assert_eq!(there.claim(key, SECOND).await.unwrap(), Claim::Done, "{name}: {key:.20}");
        }
        let other = format!("{}y", "x".repeat(99_999));
        claimed(&here, &other, SECOND).await;
    }
}

/// Two replicas of a worker whose layers share a store.
#[tokio::test]
async fn replicas_do_the_work_of_a_key_once() {
    for Pair { name, here, there } in stores("replicas") {
        let runs = Arc::new(AtomicU32::new(0));
        let replica = |store: Arc<dyn KeyStore>| {
            let runs = runs.clone();
            let handler = handler_fn(move || {
                let run = runs.fetch_add(1, SeqCst);
                async move { if run == 0 { Err(HandlerError::retry("not yet")) } else { Ok(()) } }
            });
            let layer = Deduplicate::by_attribute("order", store, LONG);
            ServiceHandler::new(layer.layer(HandlerService::new(handler)))
        };
        let (one, two) = (replica(here), replica(there));
        let order = || DeliveryBuilder::json("order").unwrap().attribute("order", "7").build();
        one.handle(order()).await.unwrap_err(); // the failure frees the key
        let both = tokio::join!(two.handle(order()), one.handle(order()));
        both.0.and(both.1).unwrap();
        assert_eq!(runs.load(SeqCst), 2, "{name}: a failure and a success");
    }
}

#[tokio::test]
async fn a_store_survives_the_end_of_its_connections() {
    if let Some(server) = PgServer::start("") {
        let store: Arc<dyn KeyStore> = Arc::new(PostgresStore::new(Postgres::builder(server.url()).build().unwrap()));
        let token = claimed(&store, "a", LONG).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dms-worker'";
        server.psql("postgres", end).unwrap();
        store.done(&token, LONG).await.unwrap();
        server.psql("postgres", end).unwrap();
        assert_eq!(store.claim("a", LONG).await.unwrap(), Claim::Done);
    }
    if let Some(server) = RedisServer::start() {
        let store: Arc<dyn KeyStore> = Arc::new(RedisStore::new(&server.url()).unwrap());
        let token = claimed(&store, "a", LONG).await;
        server.command("CLIENT KILL TYPE normal").unwrap();
        // The command that finds out that the connection is gone fails, and its message is redelivered.
        while store.done(&token, LONG).await.is_err() {}
        assert_eq!(store.claim("a", LONG).await.unwrap(), Claim::Done);
    }
}

#[tokio::test]
async fn expired_keys_are_deleted_from_the_database() {
    let Some(server) = PgServer::start("") else { return };
    let url = server.url();
    let store = || PostgresStore::new(Postgres::builder(&url).schema("shop").build().unwrap());
    store().set_up().await.unwrap();
    let fill = "INSERT INTO shop.keys SELECT '', 'old-' || i, 'x', true, now() FROM generate_series(1, 12000) AS i";
    server.psql("postgres", fill).unwrap();
    let here: Arc<dyn KeyStore> = Arc::new(store());
    claimed(&here, "new", LONG).await;
    let purged = async {
        while server.psql("postgres", "SELECT count(*) FROM shop.keys").unwrap() != ["1"] {
            claimed_later(&here, "another", SHORT / 30).await;
            server.psql("postgres", "DELETE FROM shop.keys WHERE key = 'another'").unwrap();
        }
    };
    tokio::time::timeout(SECOND * 20, purged).await.unwrap();
}

#[tokio::test]
async fn the_error_of_a_database_that_is_down_says_so() {
    let nowhere = tempfile::tempdir().unwrap();
    let socket = nowhere.path().display();
    let postgres = PostgresStore::new(Postgres::builder(format!("host={socket} user=shop")).build().unwrap());
    let error = postgres.claim("a", SECOND).await.unwrap_err().to_string();
    assert!(error.starts_with("PostgreSQL cannot be reached: "), "{error}");
    let redis = RedisStore::new(&format!("redis+unix://{socket}/redis.sock")).unwrap();
    let error = redis.claim("a", SECOND).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("Redis at {socket}/redis.sock: ")), "{error}");
}

#[tokio::test]
async fn connections_are_encrypted_and_the_server_is_checked() {
    let (pki, others) = (Pki::new(), Pki::new());
    let files = pki.files();
    let Some(server) = RedisServer::with_tls(&files.certificate, &files.key) else { return };
    let url = server.tls_url().unwrap();
    let with = |pki: &Pki| RedisStore::with_authorities(&url, &std::fs::read(pki.path("ca.pem")).unwrap()).unwrap();
    let store = with(&pki);
    store.set_up().await.unwrap();
    let store: Arc<dyn KeyStore> = Arc::new(store);
    claimed(&store, "a", LONG).await;
    with(&others).set_up().await.unwrap_err();
}
