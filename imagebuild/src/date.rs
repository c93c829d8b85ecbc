//! Times as text, in UTC.
//!
//! It refuses to know what time it is.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Writes seconds since 1970 as RFC 3339 does; what no calendar has is the first of them.
#[must_use]
pub fn rfc3339(seconds: i64) -> String {
    let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    date.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(rfc3339(1_757_146_500), "2025-09-06T08:15:00Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00Z");
    }
}
