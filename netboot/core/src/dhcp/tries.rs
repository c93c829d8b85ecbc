//! What each host did on its last tries: how many offers of a loader it ignored.
//!
//! It refuses to remember more than a number a host.

use std::collections::HashMap;
use std::sync::Arc;

use crate::boot::{Answer, File, What};

/// Offers of a loader that led to nothing, by host.
///
/// The shell shows it every event of every timeline: see [`Tries::note`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    ignored: HashMap<Arc<str>, u32>,
}

impl Tries {
    /// Makes the tries of hosts that never did anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many offers of a loader a host ignored since it last asked for one.
    #[must_use]
    pub fn ignored(&self, host: &str) -> u32 {
        self.ignored.get(host).copied().unwrap_or_default()
    }

    /// Takes an event of a host's timeline: an offer of a loader counts, and a host that asks for
    /// its loader begins anew.
    pub fn note(&mut self, host: &Arc<str>, what: &What) {
        match what {
            What::Dhcp {
                answer: Answer::Offer,
                firmware,
                form: Some(_),
                ..
            } if firmware.needs_loader() => {
                let count = self.ignored.entry(Arc::clone(host)).or_default();
                *count = count.saturating_add(1);
            }
            What::Fetch {
                file: File::Loader, ..
            } => {
                self.ignored.remove(host);
            }
            _ => {}
        }
    }
}
