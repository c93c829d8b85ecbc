//! Releases: the signed list of a suite's indexes, with their digests.
//!
//! It refuses a release of another suite, one whose time is over or has not come, and paths that leave the suite.

use std::collections::BTreeMap;

use image_manifest::Digest;
use time::{Date, Month, PrimitiveDateTime, Time};

use crate::deb822::Stanza;

/// Indexes that one release may list; Debian's list about 1,200.
const MAX_INDEXES: usize = 50_000;
/// Clocks of archives and readers differ.
const CLOCK_SKEW: i64 = 24 * 3600;

/// A release, as its signed text gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// When it was made, in seconds since 1970.
    pub date: i64,
    /// Until when it may be used, in seconds since 1970, if it says so.
    pub valid_until: Option<i64>,
    /// Names of the suite: `Suite` and `Codename`.
    pub names: Vec<String>,
    /// Whether indexes are also found under the name of their digest.
    pub by_hash: bool,
    indexes: BTreeMap<String, Index>,
}

/// One file that a release lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// Size in bytes.
    pub size: u64,
    /// Digest of the file.
    pub sha256: Digest,
}

/// Why a release is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is missing or malformed.
    #[error("the release has no usable field `{0}`")]
    Field(&'static str),
    /// A line of the list of indexes is malformed.
    #[error("the release lists an index as `{0}`")]
    Index(String),
    /// It is of another suite.
    #[error("the release is of suite `{found}`, not `{expected}`")]
    OtherSuite {
        /// The suite that was asked for.
        expected: String,
        /// What the release calls itself.
        found: String,
    },
    /// Its time is over.
    #[error(
        "the release was valid until {until}, which is over: the mirror is out of date, or the clock of this machine is wrong"
    )]
    Expired {
        /// The end of its time, as it writes it.
        until: String,
    },
    /// Its time has not come.
    #[error(
        "the release is dated {date}, which is in the future: the clock of this machine is wrong"
    )]
    Future {
        /// Its date, as it writes it.
        date: String,
    },
}

impl Release {
    /// Parses the text of a release; it must have been verified before.
    ///
    /// # Errors
    /// When a field that is needed is missing or malformed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let stanza = Stanza::first(text);
        let date = stanza
            .field("Date")
            .and_then(parse_date)
            .ok_or(Error::Field("Date"))?;
        let valid_until = match stanza.field("Valid-Until") {
            Some(until) => Some(parse_date(until).ok_or(Error::Field("Valid-Until"))?),
            None => None,
        };
        let names = ["Codename", "Suite"]
            .iter()
            .filter_map(|name| stanza.field(name))
            .map(str::to_owned)
            .collect();
        let by_hash = stanza.field("Acquire-By-Hash") == Some("yes");
        let list = stanza.field("SHA256").ok_or(Error::Field("SHA256"))?;
        let mut indexes = BTreeMap::new();
        for line in list.lines().filter(|line| !line.trim().is_empty()) {
            let (path, index) =
                parse_index(line).ok_or_else(|| Error::Index(line.chars().take(200).collect()))?;
            indexes.insert(path.to_owned(), index);
            if indexes.len() > MAX_INDEXES {
                return Err(Error::Field("SHA256"));
            }
        }
        Ok(Self {
            date,
            valid_until,
            names,
            by_hash,
            indexes,
        })
    }

    /// Checks that it is of this suite and may be used at this moment, in seconds since 1970.
    ///
    /// # Errors
    /// When it is of another suite, or its time is over or has not come.
    pub fn check(&self, suite: &str, now: i64) -> Result<(), Error> {
        if !self.names.iter().any(|name| name == suite) {
            return Err(Error::OtherSuite {
                expected: suite.to_owned(),
                found: self.names.join("` or `"),
            });
        }
        if let Some(until) = self.valid_until.filter(|until| *until <= now) {
            return Err(Error::Expired {
                until: format_date(until),
            });
        }
        if self.date > now + CLOCK_SKEW {
            return Err(Error::Future {
                date: format_date(self.date),
            });
        }
        Ok(())
    }

    /// Finds an index by its path below the suite, such as `main/binary-amd64/Packages.xz`.
    #[must_use]
    pub fn index(&self, path: &str) -> Option<Index> {
        self.indexes.get(path).copied()
    }
}

fn parse_index(line: &str) -> Option<(&str, Index)> {
    let mut words = line.split_ascii_whitespace();
    let sha256 = Digest::from_hex(words.next()?).ok()?;
    let size = words.next()?.parse().ok()?;
    let path = words.next()?;
    let climbs = path.starts_with('/') || path.split('/').any(|part| part == "..");
    (!climbs && words.next().is_none()).then_some((path, Index { size, sha256 }))
}

/// Reads `Sat, 06 Sep 2025 08:15:00 UTC`.
fn parse_date(text: &str) -> Option<i64> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = text.split_ascii_whitespace();
    let day = words.next()?.parse().ok()?;
    let month = words.next()?;
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = months.iter().position(|name| *name == month)? + 1;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let year = words.next()?.parse().ok()?;
    let mut clock = words.next()?.splitn(3, ':').map(|part| part.parse().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !matches!(words.next()?, "UTC" | "GMT" | "+0000" | "Z") || words.next().is_some() {
        return None;
    }
    let date = Date::from_calendar_date(year, month, day).ok()?;
    let time = Time::from_hms(hour, minute, second).ok()?;
    Some(
        PrimitiveDateTime::new(date, time)
            .assume_utc()
            .unix_timestamp(),
    )
}

fn format_date(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| seconds.to_string(), |date| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn text(also: &str) -> String {
        format!(
            "Origin: Debian\nSuite: stable-security\nCodename: trixie-security\nDate: Sat, 06 Sep 2025 08:15:00 UTC\n{also}SHA256:\n {HEX} 17 main/binary-amd64/Packages.xz\n {HEX}        0 main/Contents\n"
        )
    }

    #[test]
    fn a_release_lists_its_indexes() {
        let release = Release::parse(&text(
            "Acquire-By-Hash: yes\nValid-Until: Sat, 13 Sep 2025 08:15:00 UTC\n",
        ))
        .unwrap();
        assert_eq!(release.date, 1_757_146_500);
        assert_eq!(release.valid_until, Some(1_757_146_500 + 7 * 86_400));
        assert!(release.by_hash);
        assert_eq!(
            release.index("main/binary-amd64/Packages.xz").unwrap().size,
            17
        );
        assert_eq!(release.index("main/binary-arm64/Packages.xz"), None);
        assert_eq!(release.check("trixie-security", release.date), Ok(()));
        assert_eq!(release.check("stable-security", release.date), Ok(()));
    }

    #[test]
    fn a_release_out_of_place_or_time_is_refused() {
        let release =
            Release::parse(&text("Valid-Until: Sat, 13 Sep 2025 08:15:00 UTC\n")).unwrap();
        let cases = [
            (
                "another suite",
                "trixie",
                release.date,
                "of suite `trixie-security`",
            ),
            (
                "over",
                "trixie-security",
                release.date + 8 * 86_400,
                "valid until 2025-09-13 8:15:00",
            ),
            (
                "not yet",
                "trixie-security",
                release.date - 2 * 86_400,
                "in the future",
            ),
        ];
        for (name, suite, now, expected) in cases {
            let error = release.check(suite, now).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn a_malformed_release_is_refused() {
        let whole = text("");
        let cases = [
            ("no date", whole.replace("Date:", "Dat:")),
            ("no month", whole.replace("Sep", "Spt")),
            ("no such day", whole.replace("06 Sep", "31 Sep")),
            ("other zone", whole.replace("UTC", "CET")),
            ("no list", whole.replace("SHA256:", "SHA1:")),
            ("no digest", whole.replace("ba78", "zz78")),
            ("climbing", whole.replace("main/Contents", "../Contents")),
            ("absolute", whole.replace("main/Contents", "/Contents")),
            ("end without a date", text("Valid-Until: soon\n")),
        ];
        for (name, text) in cases {
            assert!(Release::parse(&text).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(Date|SHA256|Suite)?[: \n0-9a-fSep]{0,200}") {
            let _outcome = Release::parse(&text);
        }
    }
}
