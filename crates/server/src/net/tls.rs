//! [`Tls`]: the certificate and the key of a listener, from two files that can be reloaded while connections are open.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject},
        },
    },
};

#[cfg(feature = "postgres")]
use crate::net::peer_tls::PeerTls;
use dms_protocol::internal::{current::Current, text};

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate in PEM, followed by the intermediate certificates.
    pub certificate: PathBuf,
    /// Its private key in PEM: PKCS#8, PKCS#1 or SEC1, without a passphrase.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{}` cannot be read: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
    /// The other servers of the cluster would refuse the certificate.
    #[error(
        "the other servers refuse the certificate `{}` of `{name}`, by the authorities in `{}`: {reason}", file.display(), ca_file.display()
    )]
    Peer {
        /// The file of the certificate.
        file: PathBuf,
        /// The file of the authorities.
        ca_file: PathBuf,
        /// The name that the certificate has to have.
        name: String,
        /// The error of the TLS library.
        reason: String,
    },
    /// A file contains no certificate, or no key.
    #[error("`{}` has no {expected}: a PEM file is needed", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// The missing content.
        expected: &'static str,
    },
    /// The certificate and the key do not belong together, or TLS cannot use them.
    #[error("the certificate `{}` cannot be used with the key `{}`: {reason}", files.certificate.display(), files.key.display())]
    Pair {
        /// The files.
        files: TlsFiles,
        /// The error of the TLS library.
        reason: String,
    },
}

/// The certificate of a listener: TLS 1.2 and 1.3, without client certificates, except for the other servers of a cluster. Clones share it, so a reload of one is seen by all.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    current: Certificates,
}

#[derive(Clone)]
enum Certificates {
    Callers(Current<ServerConfig>),
    /// Of the address for other servers, and of the connections to them.
    #[cfg(feature = "postgres")]
    Peers(PeerTls),
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// The files that the certificate is read from.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Loads the files.
    ///
    /// # Errors
    /// When a file cannot be read or is not PEM, or when they do not belong together.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Certificates::Callers(Current::new(settings(&files)?));
        Ok(Self { files, current })
    }

    /// The certificate for the other servers of a cluster.
    #[cfg(feature = "postgres")]
    pub(crate) fn of_peers(peers: PeerTls) -> Self {
        Self { files: peers.files().own.clone(), current: Certificates::Peers(peers) }
    }

    /// The file of the authorities that issue the certificates of the other servers of a cluster; `None` for a certificate that is
    /// shown to callers.
    pub fn ca_file(&self) -> Option<&Path> {
        match &self.current {
            Certificates::Callers(_) => None,
            #[cfg(feature = "postgres")]
            Certificates::Peers(peers) => Some(&peers.files().ca_file),
        }
    }

    /// Reloads the files. New connections use the new certificate, open ones continue with the old one.
    ///
    /// # Errors
    /// As [`load`](Self::load). The old certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        match &self.current {
            Certificates::Callers(current) => current.set(settings(&self.files)?),
            #[cfg(feature = "postgres")]
            Certificates::Peers(peers) => peers.reload()?,
        }
        Ok(())
    }

    /// The acceptor of the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        match &self.current {
            Certificates::Callers(current) => current.get().into(),
            #[cfg(feature = "postgres")]
            Certificates::Peers(peers) => peers.acceptor(),
        }
    }
}

/// TLS 1.2 and 1.3, HTTP/1.1, without client certificates.
fn settings(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let certificates = certificates(&files.certificate)?;
    let key = key(&files.key)?;
    let pair = |error: rustls::Error| TlsError::Pair { files: files.clone(), reason: error.to_string() };
    let mut settings = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(pair)?;
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(settings)
}

pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = || TlsError::Content { file: file.to_owned(), expected: "certificate" };
    let pem = read(file)?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, pem::Error>>().map_err(|_| content())?;
    if found.is_empty() { Err(content()) } else { Ok(found) }
}

pub(crate) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let content = |_| TlsError::Content { file: file.to_owned(), expected: "private key without a passphrase" };
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(content)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error| TlsError::Read { file: file.to_owned(), error };
    let bytes = std::fs::read(file).map_err(unreadable)?;
    text::without_mark(&bytes).map(<[u8]>::to_vec).map_err(|error| unreadable(error.into()))
}
