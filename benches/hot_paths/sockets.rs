//! Paths with sockets, on one thread with both ends: HTTP and HTTPS. One run sends, receives and acknowledges a batch.

use std::{fs, net::SocketAddr};

use dms_server::{Server, ServerConfig, TlsFiles};
use dms_worker::{Client, client::ClientBuilder};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{
    canned::PROJECT,
    paths::{Run, cycle, new_group, runtime},
};

/// Over HTTP.
pub(crate) fn http_cycle() -> Run {
    over_sockets(local(), |builder| builder)
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
    let run = over_sockets(local().tls(files), |builder| builder.ca_file(trusted));
    // Needed until both ends have read their files.
    drop(folder);
    run
}

fn local() -> ServerConfig {
    ServerConfig::default().listen(Some(SocketAddr::from(([127, 0, 0, 1], 0))))
}

fn over_sockets(config: ServerConfig, setting: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Run {
    let runtime = runtime();
    let (client, source) = runtime.block_on(async {
        let server = Server::bind(config).await.expect("a server");
        let client = setting(Client::builder(server.url().expect("an address"), PROJECT)).build().expect("a client");
        tokio::spawn(server.run(std::future::pending()));
        let source = new_group(&client).await;
        (client, source)
    });
    cycle(runtime, client, source)
}
