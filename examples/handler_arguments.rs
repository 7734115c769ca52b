//! A handler whose arguments are taken from the delivery by their types: the decoded body, attributes, shared state, and
//! an extractor of this program.
//!
//! ```text
//! cargo run --example handler_arguments
//! ```

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use dms_worker::{
    Delivery, FromDelivery, HandlerError, Json, Message, NewQueue, State, handler_fn, testing::TestServer,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    cents: u64,
}

/// Stands for a database pool: cheap to clone.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<String, u64>>>);

/// The customer, from an attribute. A message without it is rejected.
struct Customer(String);

impl<S: Sync> FromDelivery<S> for Customer {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
        let customer = delivery.attribute("customer").ok_or_else(|| HandlerError::reject("no customer"))?;
        Ok(Self(customer.into_owned()))
    }
}

async fn charge(
    Json(order): Json<Order>,
    Customer(customer): Customer,
    State(ledger): State<Ledger>,
) -> Result<(), HandlerError> {
    println!("order {}: {customer} pays {} cents", order.id, order.cents);
    *ledger.0.lock().unwrap_or_else(PoisonError::into_inner).entry(customer).or_default() += order.cents;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // A server in this process. Its clock jumps ahead when all tasks wait.
    tokio::time::pause();
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders").dead_letters_after(3), "billing").await;
    let by =
        |customer: &str, id| Ok::<_, serde_json::Error>(Message::json(&order(id))?.attribute("customer", customer));
    orders.send_messages([by("alice", 1)?, by("bob", 2)?, by("alice", 3)?]).await;
    orders.send_messages([Message::json(&order(4))?, Message::text("no order").attribute("customer", "bob")]).await;

    let ledger = Ledger::default();
    let report = orders.run(handler_fn(charge).with_state(ledger.clone())).await;
    println!("{} done, {} rejected: {:?}", report.done, report.rejected, ledger.0);
    Ok(())
}

fn order(id: u64) -> Order {
    Order { id, cents: id * 250 }
}
