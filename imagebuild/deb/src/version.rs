//! Versions of packages and their order (Debian Policy §5.6.12), borrowed from the text.
//!
//! It refuses texts with other signs than versions have, so that comparing never meets a surprise.

use std::cmp::Ordering;
use std::fmt;

/// A version: `[epoch:]upstream[-revision]`.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    text: &'a str,
    epoch: u32,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Version<'a> {
    /// Parses a version; `None` when it is none.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) if epoch.bytes().all(|digit| digit.is_ascii_digit()) => {
                (epoch.parse().ok()?, rest)
            }
            Some(_) => return None,
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        let plain = rest
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".+~:-_".contains(&byte));
        (plain && !upstream.is_empty()).then_some(Self {
            text,
            epoch,
            upstream,
            revision,
        })
    }

    /// Returns the version as it was written.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.text
    }
}

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare(self.upstream, other.upstream))
            .then_with(|| compare(self.revision, other.revision))
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version<'_> {}

/// Compares by turns what is no number, sign by sign, and what is one, by value.
fn compare(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while !one.is_empty() || !other.is_empty() {
        loop {
            let (a, b) = (one.first().copied(), other.first().copied());
            if [a, b]
                .into_iter()
                .flatten()
                .all(|sign| sign.is_ascii_digit())
            {
                break;
            }
            match weight(a).cmp(&weight(b)) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
            one = one.get(1..).unwrap_or_default();
            other = other.get(1..).unwrap_or_default();
        }
        let (a, b) = (take_number(&mut one), take_number(&mut other));
        match a.len().cmp(&b.len()).then_with(|| a.cmp(b)) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    Ordering::Equal
}

/// `~` sorts before the end, the end and digits before letters, letters before all other signs.
fn weight(sign: Option<u8>) -> i32 {
    match sign {
        Some(b'~') => -1,
        None => 0,
        Some(sign) if sign.is_ascii_digit() => 0,
        Some(sign) if sign.is_ascii_alphabetic() => i32::from(sign),
        Some(sign) => i32::from(sign) + 256,
    }
}

/// Takes leading digits, without leading zeroes.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeroes = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeroes..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version<'_> {
        Version::parse(text).unwrap()
    }

    #[test]
    fn versions_are_ordered_as_policy_says() {
        let rising = [
            "1.0~~",
            "1.0~~a",
            "1.0~",
            "1.0",
            "1.0-1",
            "1.0-1+b2",
            "1.0-1+deb13u1",
            "1.0-2",
            "1.0-10",
            "1.0a",
            "1.0+",
            "1.0.1",
            "1.2",
            "1.10",
            "2",
            "1:0.1",
        ];
        for pair in rising.windows(2) {
            assert!(
                version(pair[0]) < version(pair[1]),
                "{} < {}",
                pair[0],
                pair[1]
            );
            assert!(
                version(pair[1]) > version(pair[0]),
                "{} > {}",
                pair[1],
                pair[0]
            );
        }
        for (one, other) in [
            ("1.0", "1.00"),
            ("0:1", "1"),
            ("1.0", "1.0-0"),
            ("1.", "1.0"),
            ("1.001", "1.1"),
        ] {
            assert_eq!(version(one), version(other), "{one} = {other}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "a:1", "-1", "1 2", "1:", "é", "1_é", "99999999999:1"] {
            assert!(Version::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_another_implementation(
            one in "([0-9]:)?[0-9][0-9a-z.+~]{0,6}[0-9](-[0-9a-z.~]{0,3}[1-9])?",
            other in "([0-9]:)?[0-9][0-9a-z.+~]{0,6}[0-9](-[0-9a-z.~]{0,3}[1-9])?",
        ) {
            // It takes a missing number for less than zero, which dpkg does not: those are left out.
            let parse = |text: &str| text.parse::<debversion::Version>();
            let ours = version(&one).cmp(&version(&other));
            prop_assert_eq!(ours, version(&other).cmp(&version(&one)).reverse());
            if let (Ok(theirs), Ok(others)) = (parse(&one), parse(&other))
                && !ours.is_eq() && !one.contains('0') && !other.contains('0')
            {
                prop_assert_eq!(ours, theirs.cmp(&others), "{} {}", one, other);
            }
        }
    }
}
