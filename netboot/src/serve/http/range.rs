//! Byte ranges (RFC 9110 §14).
//!
//! It refuses to send several ranges in one answer: a request for them gets the whole file, as §14.2 allows.

/// What a request for a range means for a file of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ranged {
    /// No range, or one that is to be ignored: status 200.
    Whole,
    /// Part of the file: status 206.
    Part {
        /// Its first byte.
        first: u64,
        /// Its last byte.
        last: u64,
    },
    /// A range that the file does not have: status 416.
    Unsatisfiable,
}

impl Ranged {
    /// Reads the value of a `Range` field. What is malformed is ignored (RFC 9110 §14.2).
    pub(super) fn parse(value: &str, size: u64) -> Self {
        Self::single(value, size).unwrap_or(Self::Whole)
    }

    fn single(value: &str, size: u64) -> Option<Self> {
        let (unit, set) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let mut ranges = set
            .split(',')
            .map(str::trim)
            .filter(|range| !range.is_empty());
        let (range, None) = (ranges.next()?, ranges.next()) else {
            return None;
        };
        let (first, last) = range.split_once('-')?;
        if first.is_empty() {
            return Some(Self::suffix(number(last)?, size));
        }
        let first = number(first)?;
        let last = if last.is_empty() {
            u64::MAX
        } else {
            number(last)?
        };
        if first > last {
            return None;
        }
        if first >= size {
            return Some(Self::Unsatisfiable);
        }
        let last = last.min(size - 1);
        Some(Self::Part { first, last })
    }

    fn suffix(length: u64, size: u64) -> Self {
        match (length, size) {
            (0, _) => Self::Unsatisfiable,
            // §14.1.2: satisfiable, but no `Content-Range` can name a part of nothing.
            (_, 0) => Self::Whole,
            _ => Self::Part {
                first: size.saturating_sub(length),
                last: size - 1,
            },
        }
    }
}

/// Reads a position. One too large for 64 bits lies behind every file.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(first: u64, last: u64) -> Ranged {
        Ranged::Part { first, last }
    }

    #[test]
    fn ranges_mean_what_the_rfc_says() {
        let cases = [
            ("bytes=0-499", 10_000, part(0, 499)),
            ("bytes=500-999", 10_000, part(500, 999)),
            ("bytes=9500-", 10_000, part(9500, 9999)),
            ("bytes=-500", 10_000, part(9500, 9999)),
            ("bytes=0-0", 10_000, part(0, 0)),
            ("bytes=9999-20000", 10_000, part(9999, 9999)),
            ("bytes=-20000", 10_000, part(0, 9999)),
            ("BYTES= 1-2 ", 10_000, part(1, 2)),
            ("bytes=1-2,", 10_000, part(1, 2)),
            ("bytes=0-99999999999999999999", 10_000, part(0, 9999)),
            ("bytes=10000-", 10_000, Ranged::Unsatisfiable),
            ("bytes=99999999999999999999-", 10_000, Ranged::Unsatisfiable),
            ("bytes=-0", 10_000, Ranged::Unsatisfiable),
            ("bytes=0-", 0, Ranged::Unsatisfiable),
            ("bytes=-1", 0, Ranged::Whole),
            ("bytes=2-1", 10_000, Ranged::Whole),
            ("bytes=0-1,3-4", 10_000, Ranged::Whole),
            ("bytes=a-b", 10_000, Ranged::Whole),
            ("bytes=+1-2", 10_000, Ranged::Whole),
            ("bytes=-", 10_000, Ranged::Whole),
            ("bytes=", 10_000, Ranged::Whole),
            ("lines=0-1", 10_000, Ranged::Whole),
            ("0-1", 10_000, Ranged::Whole),
        ];
        for (value, size, expected) in cases {
            assert_eq!(Ranged::parse(value, size), expected, "{value} of {size}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_in_the_file(value in "(bytes=)?[0-9]{0,20}-?[0-9]{0,20}(,[0-9-]{0,5})?", size: u64) {
            if let Ranged::Part { first, last } = Ranged::parse(&value, size) {
                prop_assert!(first <= last && last < size);
            }
        }

        #[test]
        fn any_text_is_a_value(value: String, size: u64) {
            let _: Ranged = Ranged::parse(&value, size);
        }
    }
}
