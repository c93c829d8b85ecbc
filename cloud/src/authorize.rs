//! Who asks: requests get their signature or token right before they are sent, so that none expires on the way.
//!
//! It refuses to show a secret: none of these types prints one.

mod context;
pub mod github;

use std::fmt::Debug;
use std::time::Instant;

use hyper::http::request::Parts;
use reqsign_core::SigningCredential;

pub use context::context;

use crate::error::Error;
use crate::provider::Pending;

/// Signs requests.
pub trait Authorize: Debug + Send + Sync {
    /// Signs the head of a request.
    ///
    /// # Errors
    /// When there are no credentials.
    fn authorize<'a>(&'a self, head: &'a mut Parts) -> Pending<'a, Result<(), Error>>;

    /// A request that was signed before this instant was refused: the next one is made with credentials that are fresher,
    /// where they can be had.
    fn renew(&self, _signed: Instant) {}
}

/// Asks as nobody: for what anybody may see.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Authorize for Nobody {
    fn authorize<'a>(&'a self, _: &'a mut Parts) -> Pending<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// Signs by one of the kept signers.
#[derive(Debug)]
pub struct Signed<K: SigningCredential> {
    /// Which cloud, for errors.
    pub provider: &'static str,
    /// The signer, which caches credentials until they are near their end.
    pub signer: reqsign_core::Signer<K>,
}

impl<K: SigningCredential> Authorize for Signed<K> {
    fn authorize<'a>(&'a self, head: &'a mut Parts) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            let signed = self.signer.sign(head, None).await;
            signed.map_err(|error| Error::Credentials {
                provider: self.provider,
                reason: error.to_string(),
            })
        })
    }
}
