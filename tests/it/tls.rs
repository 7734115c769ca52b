//! TLS: what a caller of the server, of a publisher and of the admin endpoint sees, and the certificate's renewal.

use std::{path::Path, sync::Arc, time::Duration};

use dms_server::{HttpLimits, Server, ServerConfig, Tls, TlsError, TlsFiles};
use dms_worker::{Client, Error};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::{
    clock::{rest, takes},
    pki::Pki,
};

/// A server on a free port, and the means to end it.
struct Running {
    url: String,
    tls: Tls,
    _stop: oneshot::Sender<()>,
}

async fn serve(pki: &Pki) -> Running {
    let listen = Some(([127, 0, 0, 1], 0).into());
    let server = Server::bind(ServerConfig::default().listen(listen).tls(pki.files())).await.unwrap();
    let (url, tls) = (server.url().unwrap(), server.tls().unwrap().clone());
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(server.run(async { drop(stopped.await) }));
    Running { url, tls, _stop: stop }
}

impl Running {
    fn address(&self) -> &str {
        self.url.strip_prefix("https://").unwrap()
    }

    /// A call by a client that trusts the current contents of this file.
    async fn call(&self, ca: &Path) -> Result<(), Error> {
        Client::builder(&self.url, "p").ca_file(ca).build().unwrap().queues().await.map(drop)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }
}

#[tokio::test]
async fn a_client_with_the_authority_is_served_and_one_without_is_told_why_not() {
    let pki = Pki::new();
    let server = serve(&pki).await;
    server.call(&pki.path("ca.pem")).await.unwrap();
    let stranger = Pki::new();
    let error = server.call(&stranger.path("ca.pem")).await.unwrap_err();
    assert!(error.is_connect(), "{error}");
    let mut causes = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    assert!(causes.join(": ").contains("invalid peer certificate"), "{causes:?}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_a_broken_one_is_not() {
    let pki = Pki::new();
    let server = serve(&pki).await;
    server.call(&pki.path("ca.pem")).await.unwrap();
    pki.renew();
    assert!(
        server.call(&pki.path("ca.pem")).await.unwrap_err().is_connect(),
        "the files were read without being asked"
    );
    server.tls.reload().unwrap();
    server.call(&pki.path("ca.pem")).await.unwrap();

    pki.write("tls.crt", "-----BEGIN NOTHING-----\n");
    let error = server.tls.reload().unwrap_err();
    assert!(matches!(&error, TlsError::Content { expected: "certificate", .. }), "{error}");
    server.call(&pki.path("ca.pem")).await.unwrap();
}

#[tokio::test]
async fn http_1_1_is_negotiated_and_the_catalogue_names_https() {
    let pki = Pki::new();
    let server = serve(&pki).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, server.connect().await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream.write_all(b"GET /v3 HTTP/1.1\r\nHost: dms.localhost:9400\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\"href\":\"https://dms.localhost:9400/v3/\""), "{answer}");
}

/// A caller that sends nothing, or plain HTTP, holds no connection for longer than a head may take.
#[tokio::test(start_paused = true)]
async fn a_missing_handshake_is_cut_off() {
    let pki = Pki::new();
    let server = serve(&pki).await;
    let mut silent = server.connect().await;
    let answer = takes(HttpLimits::default().head_timeout, server.call(&pki.path("ca.pem")), rest(&mut silent)).await;
    assert_eq!(answer, "");

    let mut plain = server.connect().await;
    plain.write_all(b"GET /v3 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert, and the end: the order of a reset and of the alert is the system's.
    let _ = timeout(Duration::from_secs(60), plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn unusable_certificate_files_are_named() {
    let pki = Pki::new();
    let missing = TlsFiles { certificate: "/nonexistent/tls.crt".into(), ..pki.files() };
    assert!(Tls::load(missing).unwrap_err().to_string().starts_with("`/nonexistent/tls.crt` cannot be read: "));
    let swapped = TlsFiles { certificate: pki.path("tls.crt"), key: pki.path("tls.crt") };
    let error = Tls::load(swapped).unwrap_err().to_string();
    assert!(error.ends_with("tls.crt` has no private key without a passphrase: a PEM file is needed"), "{error}");
    let other = Pki::new();
    let error = Tls::load(TlsFiles { key: other.path("tls.key"), ..pki.files() }).unwrap_err();
    assert!(matches!(error, TlsError::Pair { .. }) && error.to_string().contains("KeyMismatch"), "{error}");
}
