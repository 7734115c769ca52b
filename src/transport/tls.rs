//! [`client_config`]: which servers a client trusts.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::{HttpOptions, TransportError};
use crate::text;

/// A file of certificate authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("CA file {}: {problem}", file.display())]
pub struct UnusableAuthorities {
    file: PathBuf,
    problem: String,
}

impl UnusableAuthorities {
    pub(super) fn new(file: &Path, problem: String) -> Self {
        Self { file: file.to_owned(), problem }
    }
}

/// Reads the certificate authorities of a PEM file.
///
/// # Errors
/// When the file cannot be read, or has no certificate; the error names the file.
pub(super) fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, UnusableAuthorities> {
    let unusable = |problem| UnusableAuthorities::new(file, problem);
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let pem = text::without_mark(&pem).map_err(|error| unusable(error.to_string()))?;
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| unusable(format!("it is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(unusable("it has no certificate".to_owned()));
    }
    Ok(found)
}

/// The TLS of a client with these options, for HTTP/1.1.
///
/// # Errors
/// When the certificate authorities cannot be read, or TLS is needed and the system has none.
pub(super) fn client_config(options: &HttpOptions) -> Result<ClientConfig, TransportError> {
    // The provider is named, because a program that also links another one has no default.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TransportError::not_sent)?;
    let builder = if options.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else if let Some(file) = &options.ca_file {
        builder.with_root_certificates(roots(file).map_err(TransportError::not_sent)?)
    } else if options.tls {
        builder.with_platform_verifier().map_err(TransportError::not_sent)?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(file: &Path) -> Result<RootCertStore, UnusableAuthorities> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in (1..).zip(authorities(file)?) {
        let unusable = |error| format!("its certificate number {at} cannot be used: {error}");
        roots.add(certificate).map_err(|error| UnusableAuthorities::new(file, unusable(error)))?;
    }
    Ok(roots)
}

/// Accepts any certificate, of any name.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // The peer still has to hold the key of its certificate, which costs nothing to check.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
