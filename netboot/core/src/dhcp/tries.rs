//! What each host did on its last tries: offers of a loader that it ignored, loaders that did not run.
//!
//! It refuses to remember more than two numbers a host.

use std::collections::HashMap;
use std::sync::Arc;

use super::Firmware;
use crate::boot::{Answer, File, Transfer, What};

/// What led to nothing, by host.
///
/// The shell shows it every event of every timeline: see [`Tries::note`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    hosts: HashMap<Arc<str>, Tried>,
}

/// What led to nothing on the last tries of one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Offers of a loader since the host last asked for one.
    pub ignored: u32,
    lost: u32,
    /// Whether it has fetched a loader that may still come to run.
    fetched: bool,
}

impl Tried {
    /// Returns how many loaders it fetched and did not run, if it asks again now.
    #[must_use]
    pub fn lost(self) -> u32 {
        self.lost.saturating_add(self.fetched.into())
    }
}

impl Tries {
    /// Makes the tries of hosts that never did anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what led to nothing on the last tries of a host.
    #[must_use]
    pub fn of(&self, host: &str) -> Tried {
        self.hosts.get(host).copied().unwrap_or_default()
    }

    /// Takes an event of a host's timeline.
    pub fn note(&mut self, host: &Arc<str>, what: &What) {
        match what {
            What::Dhcp {
                answer: Answer::Offer,
                firmware,
                form: Some(_),
                ..
            } if firmware.needs_loader() => {
                let tried = self.hosts.entry(Arc::clone(host)).or_default();
                tried.ignored = tried.ignored.saturating_add(1);
                // Its firmware is back, and what it fetched was never heard of.
                tried.lost = tried.lost();
                tried.fetched = false;
            }
            What::Dhcp {
                firmware: Firmware::Ipxe,
                ..
            } => {
                self.hosts.remove(host);
            }
            What::Fetch {
                file: File::Loader,
                transfer,
                ..
            } => {
                let tried = self.hosts.entry(Arc::clone(host)).or_default();
                tried.ignored = 0;
                tried.fetched |= matches!(transfer, Transfer::Done { .. });
            }
            _ => {}
        }
    }
}
