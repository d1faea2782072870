//! Where a Redis is, and who calls.

use std::{fmt, time::Duration};

use redis::{
    Client, ConnectionAddr, IntoConnectionInfo as _, RedisError, TlsCertificates,
    io::tcp::TcpSettings,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::Tokens;

/// After so long without a sign of the other side, a connection counts as lost.
const DEAD: Duration = Duration::from_secs(5);

/// Why a Redis can't be used as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Not a URL, or not one of a Redis.
    #[error(
        "the Redis URL is not valid: {0}; use redis://host:port, or rediss://host:port for TLS"
    )]
    Url(String),
    /// Not certificates.
    #[error(
        "the certificate authorities can't be used: {0}; give one or more certificates in PEM form"
    )]
    Authorities(String),
    /// Authorities are for TLS.
    #[error(
        "certificate authorities are given, but the URL is not one for TLS: use rediss://, or give none"
    )]
    AuthoritiesWithoutTls,
    /// Tokens go over TLS only.
    #[error("access tokens are sent over TLS only: use rediss:// in the URL")]
    TokensWithoutTls,
    /// The URL and the tokens both say who calls.
    #[error(
        "the URL has a user or a password, but access tokens say who calls: take them out of the URL, or don't use tokens"
    )]
    TokensAndPassword,
}

/// A Redis, and who calls. Nothing is connected by it yet.
#[derive(Clone)]
pub struct RedisTarget {
    pub(crate) client: Client,
    pub(crate) tokens: Option<Tokens>,
}

impl RedisTarget {
    /// The Redis at `redis://user:password@host:port`, or over TLS at `rediss://…`, both without
    /// user, or without user and password. The server's certificate is checked against the
    /// authorities of the system, or of `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// When the URL can't be understood.
    pub fn new(url: &str) -> Result<Self, BadTarget> {
        let bad = |err: RedisError| BadTarget::Url(err.to_string());
        let info = url.into_connection_info().map_err(bad)?;
        let settings = TcpSettings::default()
            .set_nodelay(true)
            .set_user_timeout(DEAD);
        let client = Client::open(info.set_tcp_settings(settings)).map_err(bad)?;
        Ok(Self {
            client,
            tokens: None,
        })
    }

    /// Checks the server's certificate against these authorities, one or more certificates in PEM
    /// form, and no others.
    ///
    /// # Errors
    /// When the URL is not one for TLS, or these are no certificates.
    pub fn with_authorities(self, pem: &[u8]) -> Result<Self, BadTarget> {
        if !self.has_tls() {
            return Err(BadTarget::AuthoritiesWithoutTls);
        }
        if CertificateDer::pem_slice_iter(pem).next().is_none() {
            let none = "there is no certificate in it".to_owned();
            return Err(BadTarget::Authorities(none));
        }
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(pem.to_vec()),
        };
        let info = self.client.get_connection_info().clone();
        let client = Client::build_with_tls(info, certificates)
            .map_err(|err| BadTarget::Authorities(err.to_string()))?;
        Ok(Self { client, ..self })
    }

    /// Calls as the user `default` with access tokens for passwords.
    ///
    /// # Errors
    /// When the URL is not one for TLS, or has a user or a password itself.
    pub fn with_tokens(self, tokens: Tokens) -> Result<Self, BadTarget> {
        let redis = self.client.get_connection_info().redis_settings();
        if redis.username().is_some() || redis.password().is_some() {
            return Err(BadTarget::TokensAndPassword);
        }
        if !self.has_tls() {
            return Err(BadTarget::TokensWithoutTls);
        }
        Ok(Self {
            tokens: Some(tokens),
            ..self
        })
    }

    pub(crate) fn has_tls(&self) -> bool {
        let address = self.client.get_connection_info().addr();
        matches!(address, ConnectionAddr::TcpTls { .. })
    }

    /// Where it is, `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL: it may hold a password.
        f.debug_struct("RedisTarget")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}
