//! Certificates for tests.

use dms_server::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority, and the files of a certificate for 127.0.0.1 that it signed; also for the name that the servers of the manifests share.
pub(crate) struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let pki = Self { dir: tempfile::tempdir().unwrap() };
        pki.renew();
        pki
    }

    /// Writes another authority and another certificate over the ones that are there.
    pub(crate) fn renew(&self) {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["127.0.0.1", "localhost", "dms-hop"].map(str::to_owned);
        let leaf = CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        self.write("ca.pem", &authority.pem());
        self.write("tls.key", &key.serialize_pem());
        self.write("tls.crt", &leaf.pem());
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles { certificate: self.path("tls.crt"), key: self.path("tls.key") }
    }
}
