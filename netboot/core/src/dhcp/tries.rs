//! What each host did on its last tries: how many offers of a loader it ignored.
//!
//! It refuses to remember more than a number a host.

use std::collections::HashMap;
use std::sync::Arc;

/// Offers of a loader that led to nothing, by host.
///
/// The shell counts an offer when it is sent and clears the count when the host asks for the
/// loader, by [`crate::boot::Event`]s: see [`Tries::note`].
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

    /// Counts an offer of a loader.
    pub fn offered(&mut self, host: &Arc<str>) {
        let count = self.ignored.entry(Arc::clone(host)).or_default();
        *count = count.saturating_add(1);
    }

    /// Clears the count: the host asked for its loader.
    pub fn reached(&mut self, host: &str) {
        self.ignored.remove(host);
    }
}
