//! [`PeerTls`]: TLS between the servers of a cluster. Each end shows a certificate, and checks the other's against the same authority.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        CertificateError, ClientConfig, Error, RootCertStore, ServerConfig,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        crypto::aws_lc_rs,
        pki_types::{ServerName, UnixTime},
        server::WebPkiClientVerifier,
        version::TLS13,
    },
};

use crate::net::tls_files::{TlsError, TlsFiles, certificates, key};
use dms_protocol::internal::current::Current;

/// The protocol inside of TLS, so that neither end takes another listener for a server of the cluster.
const PROTOCOL: &[u8] = b"dms-hop";

/// The files with which the servers of a cluster check each other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerTlsFiles {
    /// The certificate that this server shows to the others, and its key.
    pub own: TlsFiles,
    /// The certificates of the authorities that issue the certificates of the servers, as PEM.
    pub ca_file: PathBuf,
    /// The name that every server's certificate has. By default a certificate has the host of its server's
    /// [`advertise`](crate::PostgresConfig::advertise).
    pub server_name: Option<String>,
}

impl PeerTlsFiles {
    /// Certificates for the hosts that the servers advertise.
    pub fn new(own: TlsFiles, ca_file: impl Into<PathBuf>) -> Self {
        Self { own, ca_file: ca_file.into(), server_name: None }
    }

    /// The name by which a server with this host is checked.
    pub(crate) fn name<'a>(&'a self, host: &'a str) -> &'a str {
        self.server_name.as_deref().unwrap_or(host)
    }
}

/// Both ends of TLS between servers. Clones share them, so a reload of one is seen by all.
#[derive(Clone)]
pub(crate) struct PeerTls {
    files: PeerTlsFiles,
    current: Current<Ends>,
}

/// TLS 1.3 for connections from others and to others.
struct Ends {
    accepts: Arc<ServerConfig>,
    connects: Arc<ClientConfig>,
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl PeerTls {
    /// Loads the files.
    ///
    /// # Errors
    /// When a file cannot be read or is not PEM, or when the certificate and its key do not belong together.
    pub(crate) fn load(files: PeerTlsFiles) -> Result<Self, TlsError> {
        let current = Current::new(ends(&files)?);
        Ok(Self { files, current })
    }

    /// Reloads the files. Open connections continue.
    ///
    /// # Errors
    /// As [`load`](Self::load). The old certificates stay in use.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        self.current.set(ends(&self.files)?);
        Ok(())
    }

    pub(crate) fn files(&self) -> &PeerTlsFiles {
        &self.files
    }

    /// The acceptor of the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current.get().accepts.clone().into()
    }

    /// The connector of the next connection.
    pub(crate) fn connector(&self) -> TlsConnector {
        self.current.get().connects.clone().into()
    }

    /// The certificate as the other servers judge it.
    ///
    /// # Errors
    /// When they would refuse it from a server with this host: it has another name, another authority, or its time is over.
    pub(crate) fn check(&self, host: &str) -> Result<(), OwnCertificateError> {
        let name = self.files.name(host);
        check(&self.files, name).map_err(|error| OwnCertificateError {
            is_about_time: is_about_time(&error),
            error: TlsError::Peer {
                file: self.files.own.certificate.clone(),
                ca_file: self.files.ca_file.clone(),
                name: name.to_owned(),
                reason: error.to_string(),
            },
        })
    }
}

/// Why the other servers refuse the certificate of this one.
#[derive(Debug)]
pub(crate) struct OwnCertificateError {
    pub(crate) error: TlsError,
    /// Whether the certificate is right except for the time in which it is valid, which passes while servers run.
    pub(crate) is_about_time: bool,
}

fn is_about_time(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let Error::InvalidCertificate(why) = error else { return false };
    matches!(why, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

fn check(files: &PeerTlsFiles, name: &str) -> Result<(), Error> {
    let general = |error: TlsError| Error::General(error.to_string());
    let chain = certificates(&files.own.certificate).map_err(general)?;
    let Some((own, intermediates)) = chain.split_first() else { return Err(Error::NoCertificatesPresented) };
    let roots = roots(&files.ca_file).map_err(general)?;
    let server_name = ServerName::try_from(name.to_owned()).map_err(|error| Error::General(error.to_string()))?;
    let (provider, now) = (Arc::new(aws_lc_rs::default_provider()), UnixTime::now());
    let built = |error: &dyn fmt::Display| Error::General(error.to_string());
    let of_server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
    of_server.map_err(|error| built(&error))?.verify_server_cert(own, intermediates, &server_name, &[], now)?;
    let of_client = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
    of_client.map_err(|error| built(&error))?.verify_client_cert(own, intermediates, now)?;
    Ok(())
}

fn ends(files: &PeerTlsFiles) -> Result<Ends, TlsError> {
    let pair = |error: Error| TlsError::Pair { files: files.own.clone(), reason: error.to_string() };
    let roots = roots(&files.ca_file)?;
    let own = || Ok::<_, TlsError>((certificates(&files.own.certificate)?, key(&files.own.key)?));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| pair(Error::General(error.to_string())))?;
    let (chain, secret) = own()?;
    let mut accepts = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain, secret))
        .map_err(pair)?;
    accepts.alpn_protocols = vec![PROTOCOL.to_vec()];
    let (chain, secret) = own()?;
    let mut connects = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, secret))
        .map_err(pair)?;
    connects.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Ends { accepts: accepts.into(), connects: connects.into() })
}

fn roots(file: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|_| TlsError::Content { file: file.to_owned(), expected: "certificate of an authority" })?;
    }
    Ok(roots.into())
}
