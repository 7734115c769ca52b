//! Two ends with certificates of all kinds. Each test says which of the pairs trust each other.

#![allow(clippy::unwrap_used)]

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{PeerTlsFiles, TlsFiles};

/// An authority.
type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The files of one server.
struct Files(tempfile::TempDir);

impl Files {
    fn new(authority: &Authority) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(authority, "127.0.0.1", |_| ());
        files
    }

    /// Writes the authority, and a certificate of it.
    fn write(&self, authority: &Authority, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::new([name.to_owned()]).unwrap());
        change(&mut params);
        let own = params.signed_by(&key, authority).unwrap();
        let write = |name: &str, text: &str| std::fs::write(self.0.path().join(name), text).unwrap();
        write("ca.pem", &authority.pem());
        write("own.key", &key.serialize_pem());
        write("own.crt", &own.pem());
    }

    fn paths(&self) -> PeerTlsFiles {
        let path = |name: &str| self.0.path().join(name);
        PeerTlsFiles::new(TlsFiles { certificate: path("own.crt"), key: path("own.key") }, path("ca.pem"))
    }

    fn load(&self) -> PeerTls {
        PeerTls::load(self.paths()).unwrap()
    }
}

/// Connects one end to the other, and passes a word on. Returns why each end failed.
async fn meet(
    scheme: &str,
    asks: (&str, Option<&PeerTls>),
    answers: (&str, Option<&PeerTls>),
) -> [Result<(), String>; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    let text = |error: io::Error| error.to_string();
    let connects = async {
        let secret = Secret::from(asks.0);
        let (mut from, mut to) = connect(PeerUrl::parse(&url).unwrap(), &secret, asks.1).await?;
        to.write_all(b"ping").await?;
        to.flush().await?;
        let mut word = [0; 4];
        from.read_exact(&mut word).await?;
        assert_eq!(&word, b"pong");
        Ok(())
    };
    let accepts = async {
        let (stream, secret) = (listener.accept().await?.0, Secret::from(answers.0));
        let (mut from, mut to) = accept(stream, &secret, answers.1).await?;
        let mut word = [0; 4];
        from.read_exact(&mut word).await?;
        to.write_all(b"pong").await?;
        to.flush().await?;
        Ok(())
    };
    let connects = async { connects.await.map_err(text) };
    // An end that was never called does not wait forever.
    let accepts = async { timeout(HANDSHAKE_TIMEOUT, accepts).await.unwrap_or(Ok(())).map_err(text) };
    let (connected, accepted) = tokio::join!(connects, accepts);
    [connected, accepted]
}

const SECRET: &str = "secret";

#[tokio::test]
async fn servers_with_certificates_of_one_authority_encrypt() {
    let authority = authority();
    let (one, two) = (Files::new(&authority).load(), Files::new(&authority).load());
    assert_eq!(meet("https", (SECRET, Some(&one)), (SECRET, Some(&two))).await, [Ok(()), Ok(())]);
    assert_eq!(meet("http", (SECRET, None), (SECRET, None)).await, [Ok(()), Ok(())]);
}

#[tokio::test]
async fn certificates_do_not_replace_the_secret() {
    let authority = authority();
    let (one, two) = (Files::new(&authority).load(), Files::new(&authority).load());
    let [asks, answers] = meet("https", (SECRET, Some(&one)), ("another", Some(&two))).await;
    assert!(asks.unwrap_err().contains("does not belong to this cluster"));
    assert!(answers.is_err());
}

/// The secret alone does not let a server in, whichever of the two ends has the wrong certificate.
#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_both_ends() {
    let authority_of_one = authority();
    let (one, two) = (Files::new(&authority_of_one), Files::new(&authority()));
    let [asks, answers] = meet("https", (SECRET, Some(&one.load())), (SECRET, Some(&two.load()))).await;
    assert!(asks.unwrap_err().contains("invalid peer certificate"));
    assert!(answers.is_err());
    // A server that trusts the other's authority and has no certificate of it.
    let own_authority = authority();
    one.write(&own_authority, "127.0.0.1", |_| ());
    std::fs::write(one.paths().ca_file, own_authority.pem() + &authority_of_one.pem()).unwrap();
    two.write(&authority_of_one, "127.0.0.1", |_| ());
    let [asks, answers] = meet("https", (SECRET, Some(&one.load())), (SECRET, Some(&two.load()))).await;
    assert!(asks.is_err() && answers.unwrap_err().contains("invalid peer certificate"));
}

#[tokio::test]
async fn a_certificate_is_refused_that_is_over_or_has_another_name_or_is_for_servers_alone() {
    let authority = authority();
    let (right, wrong) = (Files::new(&authority), Files::new(&authority));
    let right = right.load();
    let check = |files: &Files| files.load().check("127.0.0.1");
    assert!(right.check("127.0.0.1").is_ok());

    wrong.write(&authority, "127.0.0.1", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let refused = check(&wrong).unwrap_err();
    assert!(refused.is_about_time && refused.error.to_string().contains("expired"), "{}", refused.error);
    let [asks, answers] = meet("https", (SECRET, Some(&right)), (SECRET, Some(&wrong.load()))).await;
    assert!(asks.unwrap_err().contains("expired") && answers.is_err());
    let [asks, answers] = meet("https", (SECRET, Some(&wrong.load())), (SECRET, Some(&right))).await;
    assert!(asks.is_err() && answers.unwrap_err().contains("expired"));

    wrong.write(&authority, "dms-servers", |_| ());
    let refused = check(&wrong).unwrap_err();
    assert!(!refused.is_about_time && refused.error.to_string().contains("127.0.0.1"), "{}", refused.error);
    let [asks, answers] = meet("https", (SECRET, Some(&right)), (SECRET, Some(&wrong.load()))).await;
    assert!(asks.unwrap_err().contains("not valid for name") && answers.is_err());
    // The same certificate is right where all of them have this name.
    let named = PeerTlsFiles { server_name: Some("dms-servers".to_owned()), ..wrong.paths() };
    let named = PeerTls::load(named).unwrap();
    assert!(named.check("127.0.0.1").is_ok());
    assert_eq!(meet("https", (SECRET, Some(&named)), (SECRET, Some(&named))).await, [Ok(()), Ok(())]);

    wrong.write(&authority, "127.0.0.1", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
    });
    assert!(!check(&wrong).unwrap_err().is_about_time);
    let [asks, answers] = meet("https", (SECRET, Some(&wrong.load())), (SECRET, Some(&right))).await;
    assert!(asks.is_err() && answers.is_err());
}

#[tokio::test]
async fn a_server_that_encrypts_and_one_that_does_not_refuse_each_other_and_say_why() {
    let tls = Files::new(&authority()).load();
    let remedy = "set server.cluster.tls at every server, or at none";
    for (scheme, asks, answers) in [("http", None, Some(&tls)), ("https", Some(&tls), None)] {
        // As if the URL of the other one was wrong, so that its address is reached.
        let [asked, answered] = meet(scheme, (SECRET, asks), (SECRET, answers)).await;
        assert!(asked.is_err(), "{scheme}");
        assert!(answered.unwrap_err().contains(remedy), "{scheme}");
    }
    for (scheme, asks) in [("https", None), ("http", Some(&tls))] {
        let [asked, _] = meet(scheme, (SECRET, asks), (SECRET, None)).await;
        assert!(asked.unwrap_err().contains(remedy), "{scheme}");
    }
}

#[tokio::test]
async fn replaced_files_are_used_by_the_next_connection() {
    let (old, new) = (authority(), authority());
    let (one, two) = (Files::new(&old), Files::new(&old));
    let (first, second) = (one.load(), two.load());
    one.write(&new, "127.0.0.1", |_| ());
    first.reload().unwrap();
    let [asks, _] = meet("https", (SECRET, Some(&first)), (SECRET, Some(&second))).await;
    assert!(asks.is_err(), "the other one has the old authority");
    two.write(&new, "127.0.0.1", |_| ());
    second.reload().unwrap();
    assert_eq!(meet("https", (SECRET, Some(&first)), (SECRET, Some(&second))).await, [Ok(()), Ok(())]);
    // A file that cannot be used leaves the old ones in force.
    std::fs::write(one.paths().ca_file, "no certificate").unwrap();
    assert!(first.reload().unwrap_err().to_string().contains("ca.pem"));
    assert_eq!(meet("https", (SECRET, Some(&first)), (SECRET, Some(&second))).await, [Ok(()), Ok(())]);
}
