//! `tower` layers around a handler: each try has a timeout, failures are retried within the lease, and nothing is fetched while the
//! database is down.
//!
//! ```text
//! cargo run --example tower_layers
//! ```

use std::{error::Error, time::Duration};

use dms_worker::{
    layers::{CircuitBreaker, Retry, Timeout},
    queue::NewQueue,
    retry::RetryPolicy,
    testing::TestServer,
    worker::{Delivery, HandlerError, handler_fn},
};
use tokio::time::{Instant, sleep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // A server in this process. Its clock jumps ahead when all tasks wait.
    tokio::time::pause();
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders").dead_letters_after(3), "billing").await;
    orders.send(1..=20).await;

    let began = Instant::now();
    let handler = handler_fn(move |delivery: Delivery| async move {
        let order: u64 = delivery.json()?;
        println!("{:>3} s: order {order}, retry {}", began.elapsed().as_secs(), delivery.retry());
        if began.elapsed() < Duration::from_secs(60) {
            return Err(HandlerError::retry("the database is down"));
        }
        Ok(())
    });

    let breaker = CircuitBreaker::new(2, Duration::from_secs(20));
    let policy = RetryPolicy::try_new(Duration::from_millis(500), Duration::from_secs(5), 2.0, 0.5)?.max_attempts(2);
    let worker = orders
        .worker(handler)
        .layer(Timeout::new(Duration::from_secs(2)))
        .layer(Retry::new(policy))
        .layer(breaker.clone())
        .concurrency(4)
        .build()?;
    breaker.attach(worker.handle());

    let handle = worker.handle();
    let running = tokio::spawn(worker.run(std::future::pending()));
    while handle.status().counts.done < 20 {
        sleep(Duration::from_secs(1)).await;
    }
    handle.stop();
    let report = running.await??;
    println!("{} done, {} failed before the circuit opened or as a probe", report.done, report.failed);
    Ok(())
}
