//! Paths with sockets, on one thread with both ends: HTTP and HTTPS. One run sends, receives and acknowledges a batch.

use std::{fs, net::SocketAddr};

use dms_server::{Server, ServerConfig, TlsFiles};
use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::AckStatus,
    queue::{NewQueue, SourcePath},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{
    canned::PROJECT,
    paths::{Run, messages, runtime},
};

/// Over HTTP.
pub(crate) fn http_cycle() -> Run {
    cycle(local())
}

/// Over HTTPS, with TLS 1.3 on a connection that is kept.
pub(crate) fn https_cycle() -> Run {
    let folder = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority");
    let own_key = key();
    let own = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let own = own.signed_by(&own_key, &authority).expect("a certificate");
    let trusted = file("ca.pem", authority.pem());
    let files = TlsFiles { certificate: file("tls.crt", own.pem()), key: file("tls.key", own_key.serialize_pem()) };
    let run = cycle_with(local().tls(files), |builder| builder.ca_file(trusted));
    // Needed until both ends have read their files.
    drop(folder);
    run
}

fn local() -> ServerConfig {
    ServerConfig::default().listen(Some(SocketAddr::from(([127, 0, 0, 1], 0))))
}

fn cycle(config: ServerConfig) -> Run {
    cycle_with(config, |builder| builder)
}

fn cycle_with(
    config: ServerConfig,
    setting: impl FnOnce(dms_worker::client::ClientBuilder) -> dms_worker::client::ClientBuilder,
) -> Run {
    let (runtime, messages) = (runtime(), messages());
    let (client, source) = runtime.block_on(async {
        let server = Server::bind(config).await.expect("a server");
        let client = setting(Client::builder(server.url().expect("an address"), PROJECT)).build().expect("a client");
        tokio::spawn(server.run(std::future::pending()));
        let queue = client.create_queue(NewQueue::new("bench")).await.expect("a queue").id;
        let (group, _) = client.create_groups(&queue, &["bench"]).await.expect("a group").remove(0);
        (client, SourcePath::messages(queue, group))
    });
    Box::new(move |count| {
        runtime.block_on(async {
            for _ in 0..count {
                client.send(&source.queue, &messages).await.expect("an answer");
                let batch = client.consume(&source, &ConsumeOptions::default()).await.expect("a batch");
                let acks: Vec<_> = batch.into_iter().map(|one| (one.handle, AckStatus::Success)).collect();
                client.acknowledge(&source, &acks).await.expect("an answer");
            }
        });
    })
}
