//! [`TlsFiles`]: a certificate and its key on disk, how they are read, and why they may be unusable.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use dms_protocol::internal::text;

/// The files of a certificate.
///
/// # Examples
/// ```
/// use dms_server::{ServerConfig, TlsFiles};
///
/// let files = TlsFiles { certificate: "/etc/dms/server.pem".into(), key: "/etc/dms/server.key".into() };
/// let config = ServerConfig::default().tls(files);
/// assert!(config.tls.is_some());
/// ```
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

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = || TlsError::Content { file: file.to_owned(), expected: "certificate" };
    let pem = read(file)?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, pem::Error>>().map_err(|_| content())?;
    if found.is_empty() { Err(content()) } else { Ok(found) }
}

/// The private key of a PEM file.
pub(crate) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let content = |_| TlsError::Content { file: file.to_owned(), expected: "private key without a passphrase" };
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(content)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error| TlsError::Read { file: file.to_owned(), error };
    let bytes = std::fs::read(file).map_err(unreadable)?;
    text::without_mark(&bytes).map(<[u8]>::to_vec).map_err(|error| unreadable(error.into()))
}
