//! A DMS server inside your own program: `cargo run --example embedded_server [ADDRESS]`.
//!
//! It has two projects with keys and users and one queue, and keeps everything in memory. Stop it with Ctrl-C.

use std::{env, error::Error, net::SocketAddr};

use dms_server::{AccessKey, Project, Server, ServerConfig, StartQueue};
use dms_worker::queue::NewQueue;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9400".to_owned());
    let mut project = Project::new("b78a90ae2a134b4b8b2ba30acab4e23a")
        .access_key("EXAMPLEKEY", "example-secret")
        .user("user", "password", "domain");
    project.name = "eu-de".to_owned();
    let temporary = AccessKey::new("TEMPORARYKEY", "temporary-secret");
    project.access_keys.push(temporary.security_token("security-token"));
    let orders = NewQueue::new("orders").dead_letters_after(3);
    let project = project.queue(StartQueue::new(orders).group("billing"));

    let other = Project::new("other-project").access_key("OTHERKEY", "other-secret");
    let config =
        ServerConfig::default().listen(address.parse::<SocketAddr>()?).projects(vec![project, other]).region("eu-de");
    let server = Server::bind(config).await?;
    if let Some(address) = server.local_addr() {
        println!("listening on http://{address}");
    }
    server.run(async { drop(tokio::signal::ctrl_c().await) }).await?;
    Ok(())
}
