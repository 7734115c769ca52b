//! [`Tls`]: the certificate and the key of a listener, from two files that can be reloaded while connections are open.

use std::{fmt, path::Path, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, crypto::aws_lc_rs},
};

#[cfg(feature = "postgres")]
use crate::net::peer_tls::PeerTls;
use crate::net::tls_files::{TlsError, TlsFiles, certificates, key};
use dms_protocol::internal::current::Current;

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

#[cfg(feature = "postgres")]
impl From<PeerTls> for Tls {
    /// The certificate of the address for the other servers of a cluster.
    fn from(peers: PeerTls) -> Self {
        Self { files: peers.files().own.clone(), current: Certificates::Peers(peers) }
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
