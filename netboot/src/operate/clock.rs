//! The executor's time: the clock's, and how long a wait takes by it.
//!
//! It refuses to be read anywhere else: what decides gets the time as an argument.

use std::time::Duration;

use netboot_core::Timestamp;

/// The executor's time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// Tests live so many times faster.
    #[cfg(test)]
    speed: Option<u32>,
}

impl Clock {
    /// A clock that runs so many times faster.
    #[cfg(test)]
    pub(super) fn fast(speed: u32) -> Self {
        Self { speed: Some(speed) }
    }

    /// Returns the time now.
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, reason = "tests have one that is faster")
    )]
    pub(super) fn now(self) -> Timestamp {
        #[cfg(test)]
        if let Some(speed) = self.speed {
            let Timestamp(millis) = crate::clock::now();
            return Timestamp(millis.saturating_mul(speed.into()));
        }
        crate::clock::now()
    }

    /// Returns how long to wait for so long a time.
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, reason = "tests have one that is faster")
    )]
    pub(super) fn wait(self, time: Duration) -> Duration {
        #[cfg(test)]
        if let Some(speed) = self.speed {
            return time / speed;
        }
        time
    }
}
