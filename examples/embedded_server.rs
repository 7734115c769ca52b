//! A DMS server inside your own program: `cargo run --example embedded_server [ADDRESS]`.
//!
//! It has two projects with keys and users and one queue, and keeps everything in memory. Stop it with Ctrl-C.

use std::{env, error::Error};

use dms_server::{AccessKey, Project, Rights, Server, ServerConfig, StartQueue};
use dms_worker::queue::NewQueue;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9400".to_owned());
    let mut project = Project::new("b78a90ae2a134b4b8b2ba30acab4e23a")
        .access_key("EXAMPLEKEY", "example-secret")
        .user("user", "password", "domain");
    project.name = "eu-de".to_owned();
    project.access_keys.push(AccessKey {
        access_key: "TEMPORARYKEY".to_owned(),
        secret_key: "temporary-secret".into(),
        security_token: Some("security-token".into()),
        rights: Rights::default(),
    });
    let orders = NewQueue::new("orders").dead_letters_after(3);
    project.queues.push(StartQueue { queue: orders, groups: vec!["billing".to_owned()] });

    let server = Server::bind(ServerConfig {
        listen: Some(address.parse()?),
        projects: vec![project, Project::new("other-project").access_key("OTHERKEY", "other-secret")],
        region: "eu-de".to_owned(),
        ..ServerConfig::default()
    })
    .await?;
    if let Some(address) = server.local_addr() {
        println!("listening on http://{address}");
    }
    server.run(async { drop(tokio::signal::ctrl_c().await) }).await?;
    Ok(())
}
