//! Inspects dead letters, corrects them, and sends them again.
//!
//! ```text
//! cargo run --example dead_letter_reprocessing
//! ```

use std::{error::Error, future::pending, net::SocketAddr};

use dms_server::{Server, ServerConfig};
use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::{AckStatus, Message},
    queue::{NewQueue, SourcePath},
    redrive::Redrive,
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(ServerConfig::default().listen(SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    let endpoint = format!("http://{}", server.local_addr().ok_or("no address")?);
    tokio::spawn(server.run(pending()));
    let client = Client::builder(endpoint, "local").build()?;
    let queue = client.create_queue(NewQueue::new("orders").dead_letters_after(1)).await?.id;
    let group = client.create_groups(&queue, &["billing"]).await?.remove(0).0;
    let orders = SourcePath::messages(queue.clone(), group.clone());
    let dead = SourcePath::dead_letters(queue.clone(), group);

    // Three orders whose amount is a text. Each fails once and becomes a dead letter.
    for (id, cents) in [(1, "250"), (2, "1,000"), (3, "a dozen")] {
        let order = Message::json(&json!({"id": id, "cents": cents}))?.attribute("shop", "north");
        client.send(&queue, &[order]).await?.remove(0)?;
        let received = client.consume(&orders, &ConsumeOptions::default()).await?;
        client.acknowledge(&orders, &[(received[0].handle.clone(), AckStatus::Fail)]).await?;
    }

    // A dry run shows what a redrive would do, and sends nothing.
    let mendable = |order: Value| order["cents"].as_str().and_then(|text| text.replace(',', "").parse::<u64>().ok());
    let redrive = || {
        Redrive::new(client.clone(), dead.clone())
            .attribute("shop", "north")
            .only(move |message| message.body.parse().ok().and_then(mendable).is_some())
    };
    let report = redrive().dry_run(true).run(pending()).await?;
    println!("{} can be mended, {} cannot", report.redriven, report.filtered);

    // Each copy is corrected and sent; only then is the original acknowledged.
    let mend = move |message: Message| {
        let Ok(mut order) = message.body.parse::<Value>() else { return message };
        order["cents"] = mendable(order.clone()).into();
        Message::json(&order).map(|mended| Message { body: mended.body, ..message.clone() }).unwrap_or(message)
    };
    let report = redrive().map(mend).run(pending()).await?;
    println!("{} sent again, {} left, {} perhaps twice", report.redriven, report.filtered, report.doubled);

    for message in client.consume(&orders, &ConsumeOptions::default()).await? {
        println!("mended: {} {:?}", message.body.as_str(), message.attributes.get_u64("dms-redriven"));
    }
    Ok(())
}
