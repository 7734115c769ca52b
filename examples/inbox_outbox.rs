//! Inbox and outbox: an order and its message are committed together, and so are the message's key and its effect. Kill this program at any
//! moment, and start it again: each order is charged once.
//!
//! ```text
//! dms-worker serve --data-dir ./dms-data                      # in a second terminal
//! cargo run --example inbox_outbox -- postgres://postgres@127.0.0.1/postgres
//! ```

use std::{error::Error, sync::Arc, time::Duration};

use dms_worker::{
    Client, Delivery, HandlerError, Message, NewQueue, State, Worker, handler_fn,
    postgres::{
        Inbox, Outbox, Postgres,
        tokio_postgres::{self, NoTls},
    },
    worker::attributes::DEDUPLICATION_KEY,
};
use tokio::sync::Mutex;

/// The database of the consumer: its tables, and the keys of handled messages.
#[derive(Clone)]
struct Shop {
    database: Arc<Mutex<tokio_postgres::Client>>,
    inbox: Inbox,
}

async fn connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Adds an order and its message, or neither.
async fn order(database: &mut tokio_postgres::Client, outbox: &Outbox) -> Result<i64, Box<dyn Error>> {
    let transaction = database.transaction().await?;
    let row = transaction.query_one("INSERT INTO orders DEFAULT VALUES RETURNING id", &[]).await?;
    let id: i64 = row.get(0);
    outbox.send(&transaction, "orders", &Message::json(&id)?).await?;
    transaction.commit().await?;
    Ok(id)
}

/// Charges an order once, however often its message is delivered.
async fn charge(delivery: Delivery, State(shop): State<Shop>) -> Result<(), HandlerError> {
    let id: i64 = delivery.json()?;
    let key = delivery.attribute(DEDUPLICATION_KEY).ok_or_else(|| HandlerError::reject("no key"))?;
    let mut database = shop.database.lock().await;
    let transaction = database.transaction().await?;
    if shop.inbox.claim(&transaction, &key).await? {
        transaction.execute("UPDATE orders SET charges = charges + 1 WHERE id = $1", &[&id]).await?;
        transaction.commit().await?;
        println!("order {id} is charged");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("the first argument is the URL of a PostgreSQL database")?;
    let endpoint = std::env::var("DMS_WORKER_DMS__ENDPOINT").unwrap_or("http://127.0.0.1:9400".into());
    let client = Client::builder(endpoint, "local").build()?;
    match client.create_queue(NewQueue::new("orders").dead_letters_after(5)).await {
        Ok(queue) => drop(client.create_groups(&queue.id, &["billing"]).await?),
        Err(error) if error.is_exists() => {}
        Err(error) => return Err(error.into()),
    }
    let mut database = connect(&url).await?;
    let tables = "CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, charges int NOT NULL DEFAULT 0)";
    database.batch_execute(tables).await?;

    let postgres = Postgres::builder(&url).build()?;
    let (outbox, inbox) = (Outbox::new(postgres.clone()), Inbox::new(postgres).scope("billing"));
    let relay = tokio::spawn(outbox.relay(client.clone()).run(std::future::pending()));
    let shop = Shop { database: Arc::new(Mutex::new(connect(&url).await?)), inbox };
    let worker = Worker::builder(client).queue("orders").group("billing");
    let worker = worker.handler(handler_fn(charge).with_state(shop)).build()?;
    let worker = tokio::spawn(worker.run(async { drop(tokio::signal::ctrl_c().await) }));
    while !worker.is_finished() {
        println!("order {} is committed", order(&mut database, &outbox).await?);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    relay.abort();
    let wrong = "SELECT count(*) FROM orders WHERE charges > 1";
    println!("{} orders were charged twice", database.query_one(wrong, &[]).await?.get::<_, i64>(0));
    Ok(())
}
