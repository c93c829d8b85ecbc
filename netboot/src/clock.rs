//! The clock, which only the shell reads.

use std::time::{SystemTime, UNIX_EPOCH};

use netboot_core::Timestamp;

/// Returns the time now.
#[must_use]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
}
