//! Tests that a handler is idempotent: its result stays the same with failures, lost acknowledgements, duplicates and delays.
//!
//! ```text
//! cargo run --example idempotence
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use dms_worker::{
    layers::Chaos,
    queue::NewQueue,
    testing::TestServer,
    worker::{Delivery, DeliveryBuilder, Handler, handler_fn},
};

/// The accounts by order. Charging an order again changes nothing.
type Charges = Arc<Mutex<BTreeMap<u64, u64>>>;

fn billing(charges: Charges) -> impl Handler {
    handler_fn(move |delivery: Delivery| {
        let charges = charges.clone();
        async move {
            let order: u64 = delivery.json()?;
            charges
                .lock()
                .map_err(|_| "poisoned")
                .map_err(dms_worker::worker::HandlerError::retry)?
                .insert(order, order * 250);
            Ok(())
        }
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In a test: #[tokio::test(start_paused = true)].
    tokio::time::pause();

    // One call, without a server.
    let charges = Charges::default();
    billing(charges.clone()).handle(DeliveryBuilder::json(&7)?.build()).await.map_err(|error| error.to_string())?;
    assert_eq!(charges.lock().map_err(|error| error.to_string())?.get(&7), Some(&1750));

    // Many deliveries with faults, on a server in this process.
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders"), "billing").await;
    orders.send(0..100_u64).await;
    let charges = Charges::default();
    let chaos = Chaos::new(7).failures(0.2).lost_successes(0.2).duplicates(0.2).delays(0.5, Duration::from_secs(3));
    let report = orders.run_worker(orders.worker(billing(charges.clone())).layer(chaos)).await;
    let sum: u64 = charges.lock().map_err(|error| error.to_string())?.values().sum();
    assert_eq!(sum, (0..100).map(|order| order * 250).sum::<u64>());
    println!("{} deliveries of 100 orders, {} failed: each order is charged once", report.received, report.failed);
    Ok(())
}
