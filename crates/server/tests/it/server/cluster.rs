//! Several servers on one PostgreSQL: each answers every request, also for queues that another server owns.

use std::time::{Duration, Instant};

use dms_protocol::queue::NewQueue;
use dms_server::{
    PeerTlsFiles, Project, Server, ServerConfig, StartQueue,
    broker::{NewSchedule, Quotas, ScheduledMessage, embedded::PostgresConfig},
};
use dms_worker_postgres_fixture::PgServer;
use futures_util::future::join_all;
use http::Request;
use serde_json::{Value, json};

use super::{
    Api, PROJECT,
    admin::{get, json as answer},
};
use crate::pki::Pki;

/// A configuration of one server; all servers of a test use the same schema.
pub(super) fn settings(server: &PgServer, schema: &str, quotas: Quotas) -> ServerConfig {
    let mut postgres = PostgresConfig::new(server.url().into());
    schema.clone_into(&mut postgres.schema);
    postgres.takeover_after = Duration::from_millis(1_000);
    postgres.listen = Some("127.0.0.1:0".parse().unwrap());
    let mut project = Project::new(PROJECT);
    project.quotas = Some(quotas);
    ServerConfig::default().postgres(postgres).projects(vec![project])
}

pub(super) fn schema() -> String {
    format!("dms_{}", uuid::Uuid::new_v4().simple())
}

/// Servers on the tables of one schema.
struct Cluster {
    servers: Vec<Api>,
    schema: String,
}

impl std::ops::Deref for Cluster {
    type Target = Vec<Api>;

    fn deref(&self) -> &Vec<Api> {
        &self.servers
    }
}

impl Cluster {
    /// Ends the last server as a crash does. A crash takes no time, so this waits until nothing of the server works any more: a change
    /// that reached it before has an unknown outcome.
    async fn crash(&mut self, server: &PgServer) {
        let sql = format!(
            "SELECT count(DISTINCT application_name) FROM pg_stat_activity JOIN {}.member ON application_name = 'dms/' || id",
            self.schema
        );
        drop(self.servers.pop());
        let began = Instant::now();
        while server.psql("postgres", &sql).unwrap().pop().unwrap() != self.servers.len().to_string() {
            assert!(began.elapsed() < Duration::from_secs(20), "a dropped server goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Three servers of which each owns a shard at least.
async fn three(server: &PgServer, quotas: Quotas) -> Cluster {
    let schema = schema();
    let servers = join_all((0..3).map(|_| Api::with(settings(server, &schema, quotas)))).await;
    await_owners(server, &schema, "3").await;
    Cluster { servers, schema }
}

async fn await_owners(server: &PgServer, schema: &str, count: &str) {
    let sql = format!("SELECT count(DISTINCT owner) FROM {schema}.shard");
    let began = Instant::now();
    while server.psql("postgres", &sql).unwrap().pop().unwrap() != count {
        assert!(began.elapsed() < Duration::from_secs(20), "the shards are not spread");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) fn many() -> Quotas {
    Quotas::default().queues(100).tags_per_queue(20)
}

async fn make(api: &Api, name: &str) -> (String, String) {
    let created = api.post("/queues", &json!({ "name": name }).to_string()).await.expect(201);
    let queue = format!("/queues/{}", created["id"].as_str().unwrap());
    let made = api.post(&format!("{queue}/groups"), r#"{"groups": [{"name": "g"}]}"#).await.expect(201);
    let group = format!("{queue}/groups/{}", made["groups"][0]["id"].as_str().unwrap());
    (queue, group)
}

async fn send(api: &Api, queue: &str, body: &str) {
    let messages = json!({ "messages": [{ "body": body }] }).to_string();
    api.post(&format!("{queue}/messages"), &messages).await.expect(201);
}

fn bodies(leased: &Value) -> Vec<&str> {
    leased.as_array().unwrap().iter().map(|message| message["message"]["body"].as_str().unwrap()).collect()
}

async fn ack(api: &Api, group: &str, leased: &Value) -> Value {
    let handled = |message: &Value| json!({ "handler": message["handler"], "status": "success" });
    let messages: Vec<_> = leased.as_array().unwrap().iter().map(handled).collect();
    api.post(&format!("{group}/ack"), &json!({ "message": messages }).to_string()).await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_answers_for_every_queue() {
    let Some(server) = PgServer::shared() else { return };
    let servers = three(server, many()).await;
    let mut made = Vec::new();
    for number in 0..8 {
        made.push(make(&servers[number % 3], &format!("queue-{number}")).await);
    }
    let list = |listed: Value| -> Vec<String> {
        listed["queues"].as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut lists = Vec::new();
    for api in servers.iter() {
        lists.push(list(api.get("/queues").await.expect(200)));
    }
    assert_eq!(lists[0].len(), 8);
    assert!(lists.iter().all(|names| *names == lists[0]), "{lists:?}");
    for (number, (queue, group)) in made.iter().enumerate() {
        let [one, two, three] = [0, 1, 2].map(|turn| &servers[(number + turn) % 3]);
        let body = format!("message {number}");
        send(one, queue, &body).await;
        let leased = two.get(&format!("{group}/messages")).await.expect(200);
        assert_eq!(bodies(&leased), [body.as_str()]);
        assert_eq!(ack(three, group, &leased).await["success"], 1);
        assert_eq!(one.consume(group, "").await, json!([]), "acknowledged");
        let taken = json!({ "name": format!("queue-{number}") }).to_string();
        assert_eq!(two.post("/queues", &taken).await.status, 400, "the name is taken everywhere");
    }
    for (number, (queue, _)) in made.iter().enumerate() {
        assert_eq!(servers[(number + 1) % 3].call("DELETE", queue, "").await.status, 204);
    }
    assert_eq!(servers[2].get("/queues").await.expect(200)["total"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_with_certificates_pass_calls_on_encrypted() {
    let Some(server) = PgServer::shared() else { return };
    let (pki, schema) = (Pki::new(), schema());
    let encrypted = || {
        let mut settings = settings(server, &schema, many());
        let postgres = settings.postgres.as_mut().unwrap();
        postgres.tls = Some(PeerTlsFiles::new(pki.files(), pki.path("ca.pem")));
        settings
    };
    let servers = [Api::with(encrypted()).await, Api::with(encrypted()).await];
    await_owners(server, &schema, "2").await;
    let urls = server.psql("postgres", &format!("SELECT url FROM {schema}.member")).unwrap();
    assert!(urls.iter().all(|url| url.starts_with("https://127.0.0.1:")), "{urls:?}");
    for number in 0..8 {
        let (queue, group) = make(&servers[number % 2], &format!("queue-{number}")).await;
        send(&servers[0], &queue, "hello").await;
        let leased = servers[1].get(&format!("{group}/messages?time_wait=3")).await.expect(200);
        assert_eq!(bodies(&leased), ["hello"]);
    }
    // So a reload of the certificates finds it.
    let authorities: Vec<_> = servers[0].server.certificates().filter_map(|tls| tls.ca_file()).collect();
    assert_eq!(authorities, [pki.path("ca.pem")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_waits_at_the_owner_and_leases_nothing_when_its_caller_leaves() {
    let Some(server) = PgServer::shared() else { return };
    let servers = three(server, many()).await;
    for number in 0..4 {
        let (queue, group) = make(&servers[0], &format!("queue-{number}")).await;
        for poller in servers.iter() {
            let poll = format!("{group}/messages?time_wait=20");
            let left = tokio::time::timeout(Duration::from_millis(300), poller.get(&poll)).await;
            assert!(left.is_err(), "a poll of an empty queue waits");
            let sent = async {
                // Long enough for the poll to wait, and for the earlier one to be gone.
                tokio::time::sleep(Duration::from_millis(200)).await;
                send(&servers[number % 3], &queue, "hello").await;
            };
            let (leased, ()) = tokio::join!(poller.get(&poll), sent);
            let leased = leased.expect(200);
            assert_eq!(bodies(&leased), ["hello"]);
            ack(poller, &group, &leased).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_create_queues_together_keep_to_the_quota() {
    let Some(server) = PgServer::shared() else { return };
    let servers = three(server, many().queues(5)).await;
    let create = |number: usize| {
        let (api, body) = (&servers[number % 3], json!({ "name": format!("queue-{number}") }).to_string());
        async move { api.post("/queues", &body).await.status.as_u16() }
    };
    let statuses = join_all((0..12).map(create)).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 5, "{statuses:?}");
    assert_eq!(servers[1].get("/queues").await.expect(200)["total"], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_whose_configurations_change_together_create_a_queue_once() {
    let Some(server) = PgServer::shared() else { return };
    let servers = three(server, many()).await;
    let mut project = Project::new(PROJECT);
    for number in 0..8 {
        let mut start = StartQueue::new(NewQueue::new(format!("queue-{number}")));
        start.groups = vec!["a".to_owned(), "b".to_owned()];
        project = project.queue(start);
    }
    let projects = [project];
    let handles: Vec<_> = servers.iter().map(|api| api.server.handle()).collect();
    for created in join_all(handles.iter().map(|handle| handle.create_missing_queues(&projects))).await {
        created.unwrap();
    }
    let found = servers[0].get("/queues").await.expect(200);
    assert_eq!(found["total"], 8);
    assert!(found["queues"].as_array().unwrap().iter().all(|queue| queue["group_count"] == 2), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_on_while_a_server_stops_in_order_and_after_another_one_crashed() {
    let Some(server) = PgServer::shared() else { return };
    let mut servers = three(server, many()).await;
    let mut made = Vec::new();
    for number in 0..8 {
        made.push(make(&servers[0], &format!("queue-{number}")).await);
    }
    let leaving = servers.servers.pop().unwrap();
    let closed = async {
        leaving.server.close().await;
        drop(leaving);
    };
    let sent = async {
        for round in 0..5 {
            for (number, (queue, _)) in made.iter().enumerate() {
                send(&servers[number % 2], queue, &format!("message {round}")).await;
            }
        }
    };
    tokio::join!(closed, sent);
    servers.crash(server).await;
    // Each call waits until the shards of the dead server are taken over.
    for (queue, group) in &made {
        let leased = servers[0].get(&format!("{group}/messages?max_msgs=10")).await.expect(200);
        assert_eq!(bodies(&leased), ["message 0", "message 1", "message 2", "message 3", "message 4"]);
        ack(&servers[0], group, &leased).await;
        send(&servers[0], queue, "still here").await;
    }
}

/// The owner that PostgreSQL names accepts connections and never answers. A send that could not reach it was not made, and is made
/// by the next owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_did_not_reach_the_owner_is_made_by_the_next_one() {
    let Some(server) = PgServer::shared() else { return };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let schema = schema();
    let mut config = settings(server, &schema, many());
    config.postgres.as_mut().unwrap().shards = Some(1);
    let api = Api::with(config).await;
    let (queue, group) = make(&api, "orders").await;
    let sql = format!(
        "SET search_path = {schema}; BEGIN; DELETE FROM member; INSERT INTO member VALUES ('silent', 'silent', 'http://{}', 1); \
         UPDATE shard SET owner = 'silent', epoch = epoch + 1; COMMIT",
        silent.local_addr().unwrap()
    );
    server.psql("postgres", &sql).unwrap();
    let began = Instant::now();
    // The server that is still there notices that it was declared dead, and registers again.
    let registered = format!("SELECT count(*) FROM {schema}.member");
    while server.psql("postgres", &registered).unwrap().pop().unwrap() != "2" {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not register again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    send(&api, &queue, "once").await;
    let leased = api.get(&format!("{group}/messages?max_msgs=10")).await.expect(200);
    assert_eq!(bodies(&leased), ["once"]);
}

/// Keys are stored with the messages of a shard, so the next owner knows them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deduplication_key_counts_at_every_server_and_after_one_crashed() {
    let Some(server) = PgServer::shared() else { return };
    let mut servers = three(server, many()).await;
    let mut made = Vec::new();
    for number in 0..8 {
        made.push(make(&servers[0], &format!("queue-{number}")).await);
    }
    let body = r#"{"messages":[{"body":"once","deduplication_key":"k"},{"body":"each"}],"return_id":true}"#;
    let send = async |api: &Api, queue: &str| {
        let sent = api.post(&format!("{queue}/messages"), body).await.expect(201);
        (sent["messages"][0]["id"].clone(), sent["messages"][0]["duplicate"] == true)
    };
    let mut ids = Vec::new();
    for (queue, _) in &made {
        let sent = join_all(servers.iter().map(|api| send(api, queue))).await;
        assert_eq!(sent.iter().filter(|(_, duplicate)| *duplicate).count(), 2, "{sent:?}");
        assert!(sent.iter().all(|(id, _)| *id == sent[0].0), "{sent:?}");
        ids.push(sent[0].0.clone());
    }
    servers.crash(server).await;
    for ((queue, group), id) in made.iter().zip(ids) {
        assert_eq!(send(&servers[0], queue).await, (id, true));
        let leased = servers[0].get(&format!("{group}/messages?max_msgs=10")).await.expect(200);
        let mut stored = bodies(&leased);
        stored.sort_unstable();
        assert_eq!(stored, ["each", "each", "each", "each", "once"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_number_of_shards_is_refused() {
    let Some(server) = PgServer::shared() else { return };
    let schema = schema();
    let with = |shards: Option<u32>| {
        let mut config = settings(server, &schema, many());
        config.postgres.as_mut().unwrap().shards = shards;
        async move { dms_server::Server::bind(config).await }
    };
    let first = with(Some(3)).await.unwrap();
    let refused = with(Some(4)).await.unwrap_err().to_string();
    assert!(refused.contains("server.cluster.shards to 3"), "{refused}");
    drop(with(None).await.unwrap());
    drop(first);
}

/// A user's token is good at every server, and no longer once the password has changed there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_one_server_is_accepted_by_the_others() {
    let Some(server) = PgServer::shared() else { return };
    let schema = schema();
    let with = |password: &str| {
        let mut config = settings(server, &schema, many());
        config.projects[0] = Project::new(PROJECT).user("u", password, "d");
        Api::with(config)
    };
    let (one, two, changed) = (with("pass").await, with("pass").await, with("word").await);
    let user = json!({ "name": "u", "password": "pass", "domain": { "name": "d" } });
    let identity = json!({ "methods": ["password"], "password": { "user": user } });
    let login = json!({ "auth": { "identity": identity, "scope": { "project": { "id": PROJECT } } } }).to_string();
    let login = Request::builder().method("POST").uri("/v3/auth/tokens").body(login.into()).unwrap();
    let answer = one.raw(login).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let token = answer.headers["x-subject-token"].to_str().unwrap().to_owned();
    let list = async |api: &Api, token: &str| {
        let request = Request::builder().uri(format!("/v2/{PROJECT}/queues")).header("X-Auth-Token", token);
        api.raw(request.body("".into()).unwrap()).await
    };
    for api in [&one, &two, &two] {
        list(api, &token).await.expect(200);
    }
    list(&changed, &token).await.refused(401, "DMS.10240101");
    list(&two, &token.replace("dms1.", "dms1.A")).await.refused(401, "DMS.10240101");
}

/// The id alone does not say which shard has the message: all are searched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_found_retried_and_discarded_through_every_server() {
    let Some(server) = PgServer::shared() else { return };
    let servers = three(server, many()).await;
    for number in 0..4 {
        let [one, two, three] = [0, 1, 2].map(|turn| &servers[(number + turn) % 3]);
        let deadly = json!({ "name": format!("queue-{number}"), "redrive_policy": "enable", "max_consume_count": 1 });
        let queue = one.queue(&deadly.to_string()).await;
        let group = one.group(&queue, "g").await;
        let body = r#"{"messages":[{"body":"hello"}],"return_id":true}"#;
        let sent = two.post(&format!("{queue}/messages"), body).await.expect(201);
        let message = format!("/messages/{}", sent["messages"][0]["id"].as_str().unwrap());
        let leased = three.consume(&group, "").await;
        one.ack(&group, &leased, "fail").await.expect(200);
        let found = two.get(&message).await.expect(200);
        let places: Vec<_> = found["places"].as_array().unwrap().iter().map(|place| &place["place"]).collect();
        assert_eq!(places, ["queue", "dead_letters"], "{found}");
        assert_eq!(found["places"][1]["message"]["body"], "hello");
        assert_eq!(three.post(&format!("{message}/retry"), "").await.expect(200)["retried"], 1);
        assert_eq!(one.post(&format!("{message}/discard"), "").await.expect(200)["discarded"], 1);
        assert_eq!(two.consume(&group, "").await, json!([]));
    }
}

/// A load balancer brings a worker's last request to any server: it ends the calls that wait at another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_end_at_whichever_server_they_wait() {
    let Some(server) = PgServer::shared() else { return };
    let servers = three(server, many()).await;
    let (_, group) = make(&servers[0], "orders").await;
    for (number, poller) in servers.iter().enumerate() {
        let other = &servers[(number + 1) % 3];
        let id = format!("poll-{number}");
        let poll = Request::builder().uri(format!("/v2/{PROJECT}{group}/messages?time_wait=20"));
        let poll = poller.raw(poll.header("X-Dms-Poll", &id).body("".into()).unwrap());
        let body = json!({ "polls": [id] }).to_string();
        // The poll may not have arrived yet; then its name is remembered.
        let ended = other.post("/polls/end", &body);
        let began = Instant::now();
        let (leased, ended) = tokio::join!(poll, ended);
        ended.expect(200);
        assert_eq!(leased.expect(200), json!([]));
        assert!(began.elapsed() < Duration::from_secs(10), "{number} waited {:?}", began.elapsed());
    }
}

/// A rolling restart: consumers keep their leases, and acknowledge with the receipts that they have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_pass_to_the_next_owner_when_a_server_stops_in_order() {
    let Some(server) = PgServer::shared() else { return };
    let mut servers = three(server, many()).await;
    let mut leases = Vec::new();
    for number in 0..8 {
        // One failure would make a dead letter, and a lease of a FIFO queue blocks its group.
        let queue = json!({ "name": format!("queue-{number}"), "queue_mode": "FIFO", "redrive_policy": "enable", "max_consume_count": 1 });
        let queue = servers[0].queue(&queue.to_string()).await;
        let group = servers[0].group(&queue, "g").await;
        for body in ["settled", "one", "two", "three"] {
            send(&servers[0], &queue, body).await;
        }
        let settled = servers[1].get(&format!("{group}/messages?max_msgs=1")).await.expect(200);
        ack(&servers[1], &group, &settled).await;
        let leased = servers[2].get(&format!("{group}/messages?max_msgs=2")).await.expect(200);
        assert_eq!(bodies(&leased), ["one", "two"]);
        leases.push((group, leased));
    }
    // The first servers stop one after the other; the last one owns everything then.
    for _ in 0..2 {
        let stopping = servers.servers.remove(0);
        stopping.server.close().await;
    }
    let left = &servers[0];
    let resumed = leases.iter().map(async |(group, leased)| {
        let blocked = left.get(&format!("{group}/messages?time_wait=1")).await.expect(200);
        assert_eq!(blocked, json!([]), "the group is blocked");
        assert_eq!(ack(left, group, leased).await, json!({ "success": 2, "fail": 0 }));
        let next = left.get(&format!("{group}/messages?max_msgs=10")).await.expect(200);
        assert_eq!(bodies(&next), ["three"]);
        ack(left, group, &next).await;
        let dead = left.get(&format!("{group}/deadletters?time_wait=1")).await.expect(200);
        assert_eq!(dead, json!([]), "nothing failed");
    });
    join_all(resumed).await;
}

/// Every server lists, pauses and removes the schedules of all; the owner of the queue drives them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_are_reached_through_every_server_and_driven_by_one() {
    let Some(server) = PgServer::shared() else { return };
    let schema = schema();
    let settings = || {
        let message = ScheduledMessage::parse("\"tick\"").unwrap();
        let mut settings = settings(server, &schema, many()).admin(Some(([127, 0, 0, 1], 0).into()));
        for number in 0..6 {
            let name = format!("queue-{number}");
            let queue = StartQueue::new(NewQueue::new(&name)).group("g");
            let every_second = NewSchedule::new(format!("schedule-{number}"), "* * * * * *", message.clone());
            settings.projects[0] = settings.projects[0].clone().queue(queue).schedule(name, every_second);
        }
        settings
    };
    let (mut admins, mut running) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let server = Server::bind(settings()).await.unwrap();
        admins.push(server.admin_addr().unwrap());
        running.push(tokio::spawn(server.run(std::future::pending::<()>())));
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let all = async |admin| {
        let (status, text) = get(admin, "/admin/schedules", "").await;
        if status == 200 { answer(&text).as_array().unwrap().clone() } else { Vec::new() }
    };
    let began = Instant::now();
    for admin in &admins {
        while all(*admin).await.iter().filter(|one| one["sent_messages"].as_u64() > Some(2)).count() < 6 {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", all(*admin).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for (number, admin) in [(0, 1), (1, 0), (2, 1), (3, 0)] {
        let url = format!("http://{}/admin/schedules/schedule-{number}/pause", admins[admin]);
        assert_eq!(client.post(url).send().await.unwrap().status(), 200);
    }
    for admin in &admins {
        let paused = all(*admin).await.iter().filter(|one| one["paused"] == true).count();
        assert_eq!(paused, 4);
    }
    // The name is taken in another shard, too.
    let url = format!("http://{}/admin/schedules", admins[0]);
    let taken = json!({"name": "schedule-0", "cron": "@daily", "queue": "queue-5", "message": 1}).to_string();
    let refused = client.post(url).body(taken).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("has a schedule schedule-0 of queue queue-0 already"));
    // One dies: the other one goes on with every schedule.
    running.pop().unwrap().abort();
    let sent = |all: &[Value]| -> Vec<u64> {
        all.iter().filter_map(|one| one["sent_messages"].as_u64().filter(|_| one["paused"] == false)).collect()
    };
    let before = sent(&all(admins[0]).await);
    assert_eq!(before.len(), 2);
    let began = Instant::now();
    let go_on = |now: &[u64]| now.len() == 2 && now.iter().zip(&before).all(|(now, before)| *now > before + 5);
    while !go_on(&sent(&all(admins[0]).await)) {
        assert!(began.elapsed() < Duration::from_secs(60), "the schedule stands still");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    running.into_iter().for_each(|running| running.abort());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_without_its_queue_waits_at_every_server_and_starts_when_the_queue_is_made() {
    let Some(server) = PgServer::shared() else { return };
    let schema = schema();
    let start = async || {
        let message = ScheduledMessage::parse("\"tick\"").unwrap();
        let mut settings = settings(server, &schema, many()).admin(Some(([127, 0, 0, 1], 0).into()));
        let nightly = NewSchedule::new("nightly", "@daily", message);
        settings.projects[0] = settings.projects[0].clone().schedule("reports", nightly);
        let server = Server::bind(settings).await.unwrap();
        let (admin, broker) = (server.admin_addr().unwrap(), server.broker().clone());
        (admin, broker, tokio::spawn(server.run(std::future::pending::<()>())))
    };
    let servers = [start().await, start().await];
    let await_state = async |state: &str| {
        for (admin, ..) in &servers {
            let began = Instant::now();
            loop {
                let (status, text) = get(*admin, "/admin/schedules", "").await;
                let all = if status == 200 { answer(&text) } else { Value::Null };
                if all.as_array().is_some_and(|all| all.len() == 1) && all[0]["state"] == state {
                    assert_eq!((&all[0]["name"], &all[0]["queue"]), (&json!("nightly"), &json!("reports")));
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(60), "not {state}: {status} {text}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    await_state("waiting").await;
    for (admin, ..) in &servers {
        let (status, text) = get(*admin, "/readyz", "").await;
        assert!(status == 200 && text.contains("schedule nightly of queue reports in project"), "{text}");
    }
    servers[0].1.create_queue(&PROJECT.into(), NewQueue::new("reports")).await.unwrap();
    await_state("active").await;
    servers.into_iter().for_each(|(.., running)| running.abort());
}
