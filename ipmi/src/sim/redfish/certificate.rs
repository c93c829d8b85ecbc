//! The certificate of a simulated BMC, made when it starts, as BMCs make themselves one.
//!
//! It refuses to keep the key: it lives as long as the simulator.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::bmc::Fingerprint;
use crate::tls;

/// A self-signed certificate and the way to serve with it.
#[derive(Clone, Debug)]
pub struct Tls {
    /// What a server needs.
    pub config: Arc<ServerConfig>,
    /// What a client may trust (PEM).
    pub pem: String,
    /// What a client may pin.
    pub fingerprint: Fingerprint,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It could not be made.
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
    /// It could not be served.
    #[error("failed to serve with the certificate")]
    Serve(#[from] rustls::Error),
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] crate::Error),
}

impl Tls {
    /// Makes a certificate for these names and addresses.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn generate(names: &[&str]) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)?.self_signed(&key)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            pem: certificate.pem(),
            fingerprint: tls::fingerprint(certificate.der())?,
        })
    }
}
