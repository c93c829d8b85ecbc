//! TLS of the appliance: its own authority, the certificate that its listeners show, and when it is renewed.
//!
//! It refuses to write the server's key to disk: each start makes a new one, and hosts and operators trust the
//! authority. It refuses to go on with half of an authority: a certificate without its key is an error, not a
//! reason to make another one that nobody trusts.

mod authority;
mod given;
mod served;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use image_manifest::Digest;
use netboot_core::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;

use self::authority::Authority;
use self::served::Served;

pub use self::given::Given;

/// Name of the authority's certificate in the data directory, for those who are to trust it.
pub const CA_FILE: &str = "ca.pem";

/// How long a server certificate of ours is good, and how long before its end a new one is made.
const VALID: Duration = Duration::from_hours(90 * 24);
const RENEW_BEFORE: Duration = Duration::from_hours(30 * 24);

/// How often it is looked at: a certificate that an operator replaces is served after this time at most, and one that a
/// clock without battery made in 1970 is of use no longer once the clock is set.
pub(crate) const LOOK_EVERY: Duration = Duration::from_mins(1);

/// What the certificate is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Addresses of the listeners.
    pub addresses: BTreeSet<IpAddr>,
    /// Names by which they are reached.
    pub names: BTreeSet<String>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read a key.
    #[error("`{}` can be read by others (mode {mode:04o}); chmod it to 0600", path.display())]
    Open {
        /// The key.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file holds something else than it should.
    #[error("`{}` holds no {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// The authority's certificate is there, its key is not.
    #[error("`{}` is missing, but its certificate `{}` is there", key.display(), certificate.display())]
    KeyMissing {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// Certificate and key are not of each other.
    #[error("the key in `{}` is not that of the certificate in `{}`", key.display(), certificate.display())]
    Mismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// A certificate or key could not be made.
    #[error("failed to make {what}")]
    Make {
        /// What was to be made.
        what: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// The TLS library refused the certificate.
    #[error("failed to set up TLS with the certificate")]
    Setup(#[source] rustls::Error),
}

impl TlsError {
    /// Returns what may help.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::KeyMissing { .. } => Some(
                "restore the key from a backup; or remove both to make a new authority, which every operator must \
                 then be given and every running host boots again to learn",
            ),
            Self::Open { .. } => Some(
                "if others had a look, remove key and certificate to make a new authority: whoever has the key can \
                 pass for the appliance",
            ),
            Self::Mismatch { .. } => Some("give the files that were made together"),
            Self::Content { .. } => Some(
                "PEM is expected; a certificate file holds the server's certificate first and its authority's last",
            ),
            _ => None,
        }
    }
}

/// The appliance's TLS.
#[derive(Debug)]
pub struct Tls {
    source: Source,
    served: Arc<Served>,
    made: Mutex<Made>,
    config: Arc<ServerConfig>,
    ca_der: Vec<u8>,
}

/// Where certificates come from.
#[derive(Debug)]
enum Source {
    Own(Box<Authority>),
    Given(Given),
}

/// What the served certificate was made for.
#[derive(Debug)]
struct Made {
    names: Names,
    at: Timestamp,
}

impl Tls {
    /// Opens or makes the authority of a data directory, and a certificate for these names; or takes the given one.
    ///
    /// The authority's certificate then stands in [`CA_FILE`], whichever it is.
    ///
    /// # Errors
    /// When files cannot be read, written or used.
    pub fn open(
        data: &Path,
        names: Names,
        given: Option<Given>,
        now: Timestamp,
    ) -> Result<Arc<Self>, TlsError> {
        let (source, key, ca_der) = match given {
            None => {
                let authority = Authority::open(data)?;
                let key = authority.certify(&names, now, VALID)?;
                let der = authority.der().to_vec();
                (Source::Own(Box::new(authority)), key, der)
            }
            Some(given) => {
                let key = given.load()?;
                let der = key.cert.last().map(|last| last.to_vec());
                let der = der.unwrap_or_default();
                authority::publish(data, &der)?;
                (Source::Given(given), key, der)
            }
        };
        let served = Arc::new(Served::new(key));
        let config = config(Arc::clone(&served))?;
        let made = Mutex::new(Made { names, at: now });
        Ok(Arc::new(Self {
            source,
            served,
            made,
            config,
            ca_der,
        }))
    }

    /// Returns the digest of the authority's certificate (DER), which hosts are told before they ask anything.
    #[must_use]
    pub fn ca_hash(&self) -> Digest {
        Digest::of(&self.ca_der)
    }

    /// Returns what listeners are set up with; renewed certificates reach them without a restart.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Makes the certificate good for other names, as a changed site needs.
    ///
    /// # Errors
    /// When it cannot be made: the old one stays.
    pub fn rename(&self, names: Names, now: Timestamp) -> Result<(), TlsError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.names == names {
            return Ok(());
        }
        self.replace(&mut made, names, now)
    }

    /// Renews the certificate when its time comes, or when the given files hold another one.
    ///
    /// # Errors
    /// When it cannot be made or read: the old one stays.
    pub fn renew(&self, now: Timestamp) -> Result<(), TlsError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match &self.source {
            Source::Given(_) => true,
            // A clock that was set back makes the certificate look as if it were from the future.
            Source::Own(_) => {
                now < made.at || now.since(made.at) > VALID.saturating_sub(RENEW_BEFORE)
            }
        };
        if !due {
            return Ok(());
        }
        let names = made.names.clone();
        self.replace(&mut made, names, now)
    }

    fn replace(&self, made: &mut Made, names: Names, now: Timestamp) -> Result<(), TlsError> {
        let key: CertifiedKey = match &self.source {
            Source::Own(authority) => authority.certify(&names, now, VALID)?,
            Source::Given(given) => {
                let key = given.load()?;
                if key.cert.last().map(AsRef::as_ref) != Some(&*self.ca_der) {
                    tracing::warn!(
                        "the given certificate is of another authority; restart to serve it"
                    );
                    return Ok(());
                }
                key
            }
        };
        *made = Made { names, at: now };
        if self.served.replace(key) {
            tracing::info!("certificate renewed");
        }
        Ok(())
    }
}

fn config(served: Arc<Served>) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A handshake of P-256 costs 0.1 ms; what is not remembered needs no bound.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
