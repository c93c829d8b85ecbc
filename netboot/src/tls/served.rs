//! The certificate that listeners show, replaced while they run.
//!
//! It refuses to choose by name: clients know addresses, and one certificate is good for all of them.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificate of now.
#[derive(Debug)]
pub(super) struct Served(RwLock<Arc<CertifiedKey>>);

impl Served {
    pub(super) fn new(key: CertifiedKey) -> Self {
        Self(RwLock::new(Arc::new(key)))
    }

    /// Serves another certificate from the next handshake on; tells whether it is another one.
    pub(super) fn replace(&self, key: CertifiedKey) -> bool {
        let mut served = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let other = served.cert != key.cert;
        if other {
            *served = Arc::new(key);
        }
        other
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}
