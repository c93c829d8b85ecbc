//! A simulated Redfish service: strict where clients are careless, and odd where vendors are.
//!
//! It speaks TLS only, keeps sessions and ETags, refuses what it does not offer, and behaves like a vendor if it
//! is told to. It refuses to know what our client does: DMTF's validator judges it.

mod answer;
mod boot;
mod certificate;
mod hardware;
mod log;
mod manners;
mod resources;
mod route;
mod server;
mod state;

use std::time::Duration;

use secrecy::SecretString;

pub use certificate::{CertificateError, Tls};
pub use manners::{Manner, manners};
pub use server::serve;

/// How a simulated service is set up.
#[derive(Clone)]
pub struct Config {
    /// The account's name.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// What the service calls its vendor.
    pub vendor: String,
    /// In what it is odd.
    pub manners: Vec<Manner>,
    /// How many sessions it has.
    pub sessions: usize,
    /// How long a session lives without being used.
    pub idle: Duration,
    /// Resets become tasks that take this long.
    pub tasks: Option<Duration>,
    /// How many systems there are; all but the first are bare.
    pub systems: usize,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Config")
            .field("user", &self.user)
            .field("vendor", &self.vendor)
            .field("manners", &self.manners)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// A service without oddities.
    #[must_use]
    pub fn new(user: &str, password: SecretString) -> Self {
        Self {
            user: user.to_owned(),
            password,
            vendor: "Contoso".to_owned(),
            manners: Vec::new(),
            sessions: 16,
            idle: Duration::from_mins(30),
            tasks: None,
            systems: 1,
        }
    }

    /// The same with the name and all the oddities of a vendor, as [`crate::vendor::named`] calls it.
    #[must_use]
    pub fn vendor(mut self, vendor: &str) -> Self {
        vendor.clone_into(&mut self.vendor);
        self.manners = manners(vendor).collect();
        self
    }
}
