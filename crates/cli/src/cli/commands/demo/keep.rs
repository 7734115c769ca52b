//! `demo --keep`: after the tour the server, a worker and the dashboard go on, to be looked at.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{GROUP, Order, QUEUE, Tour};
use crate::cli::support::failure::Failure;
use dms_protocol::{message::Message, queue::NewQueue};
use dms_worker::{
    client::Client,
    worker::{Delivery, HandlerError, Worker, handler_fn},
};

/// The time between two orders.
const PAUSE: Duration = Duration::from_millis(40);
/// The number of messages in the queue that nothing consumes.
const UNREAD: usize = 40;

/// Sends and handles orders until the process is stopped. Some fail in different ways and become dead letters, and a second queue
/// has no consumer, so that every page of the dashboard has something to show.
pub(super) async fn go_on(tour: &Tour) -> Result<(), Failure> {
    let client = &tour.client;
    let mail = client.create_queue(NewQueue::new("mail").dead_letters_after(5)).await?.id;
    client.create_groups(&mail, &["smtp"]).await?;
    for id in 0..UNREAD {
        client.send(&mail, &[order(id)?]).await?;
    }
    let worker = Worker::builder(client.clone()).queue(QUEUE).group(GROUP).handler(handler_fn(handle));
    let worker = worker.concurrency(16).build().map_err(|error| Failure::new(error.to_string()))?;
    let worker = tokio::spawn(worker.run(std::future::pending::<()>()));
    tokio::select! {
        sent = send(client, tour) => sent,
        _ = worker => Err(Failure::new("the worker ended")),
    }
}

async fn send(client: &Client, tour: &Tour) -> Result<(), Failure> {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for id in 0.. {
        ticks.tick().await;
        client.send(&tour.queue, &[order(id)?]).await?;
    }
    Ok(())
}

fn order(id: usize) -> Result<Message, Failure> {
    Message::json(&Order::new(id)).map_err(|error| Failure::new(error.to_string()))
}

/// A handler that needs some time, and fails on a few orders.
async fn handle(delivery: Delivery) -> Result<(), HandlerError> {
    let order: Order = delivery.json()?;
    sleep(Duration::from_millis(5 + u64::try_from(order.id % 40).unwrap_or(0))).await;
    match order.id % 200 {
        37 => Err(HandlerError::retry(format!("{} has no account", order.customer))),
        118 => Err(HandlerError::retry("connection refused: billing-db:5432")),
        163 => Err(HandlerError::reject("the amount is negative")),
        _ => Ok(()),
    }
}
