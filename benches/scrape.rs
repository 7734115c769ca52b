//! Scrapes of a server with 5,000 queues, each with a group and a message, over a socket. Prints the time and the size of a scrape, and
//! whether the time is within the budget.
//!
//! ```text
//! cargo bench --bench scrape         5,000 queues
//! SCRAPE_QUEUES=20000 cargo bench --bench scrape
//! ```
//!
//! The budget holds for a release build on a machine that does nothing else, so the verdict is printed and ends nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use dms_server::{
    Server, ServerConfig,
    broker::{Broker, NewMessage, Quotas},
};
use dms_worker::queue::{NewQueue, ProjectId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The longest time of a scrape. Prometheus gives up after 10 s.
const BUDGET: Duration = Duration::from_millis(100);
const SCRAPES: usize = 21;

#[tokio::main]
async fn main() {
    let queues = std::env::var("SCRAPE_QUEUES").ok().map_or(5_000, |text| text.parse().expect("a number of queues"));
    let mut config = ServerConfig::default().admin(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.broker.quotas = Quotas::default().queues(queues);
    config.metrics_max_groups = queues;
    let server = Server::bind(config).await.expect("a free port");
    let admin = server.admin_addr().expect("the admin address");
    fill(&**server.broker(), queues).await;
    tokio::spawn(server.run(std::future::pending()));

    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..SCRAPES {
        let started = Instant::now();
        let text = scrape(admin).await;
        times.push(started.elapsed());
        bytes = text.len();
        assert!(text.starts_with("HTTP/1.1 200"), "{}", &text[..text.len().min(200)]);
        let backlogs = text.lines().filter(|line| line.starts_with("dms_server_group_dead_letters_total{")).count();
        assert_eq!(backlogs, queues, "each group has its own metrics");
    }
    times.sort_unstable();
    let (fastest, median, slowest) = (times[0], times[SCRAPES / 2], times[SCRAPES - 1]);
    let verdict = if median < BUDGET { "within" } else { "ABOVE" };
    println!("scrapes of {queues} queues with a group each, {SCRAPES} times, {} KiB each", bytes / 1024);
    println!("fastest {fastest:.1?}, median {median:.1?}, slowest {slowest:.1?}");
    println!("the median is {verdict} the budget of {BUDGET:?}");
}

async fn fill(broker: &dyn Broker, queues: usize) {
    let project = ProjectId::new("local");
    let json = Bytes::from_static(br#"{"body":1,"attributes":{}}"#);
    for number in 0..queues {
        let queue = broker.create_queue(&project, NewQueue::new(format!("queue-{number}"))).await.expect("a queue").id;
        broker.create_groups(&project, &queue, &["workers".to_owned()]).await.expect("a group");
        let (json, tags, delay) = (json.clone(), Vec::new(), Duration::ZERO);
        let message = NewMessage { json, body_bytes: 1, tags, delay, origin: None, deduplication: None };
        broker.append(&project, &queue, vec![message]).await.expect("room");
    }
}

/// One complete scrape on a separate connection.
async fn scrape(admin: SocketAddr) -> String {
    let mut connection = TcpStream::connect(admin).await.expect("the server listens");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("a request");
    let mut text = String::new();
    connection.read_to_string(&mut text).await.expect("an answer");
    text
}
