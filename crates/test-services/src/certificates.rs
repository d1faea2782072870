//! Certificates for servers of tests.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A certificate authority that only one test knows.
#[derive(Debug)]
pub struct Authority {
    /// Its own certificate, PEM.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a server shows, and the key to it, both PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub pem: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        Ok(Self {
            pem: params.self_signed(&key)?.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// A certificate for a host's name or address.
    ///
    /// # Errors
    /// When the host is neither.
    pub fn certify(&self, host: &str) -> Result<Certificate, rcgen::Error> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([host.to_owned()])?;
        let signed = params.signed_by(&key, &self.issuer)?;
        Ok(Certificate {
            pem: signed.pem(),
            key: key.serialize_pem(),
        })
    }
}
