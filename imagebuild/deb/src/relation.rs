//! Relations between packages: `libc6 (>= 2.38), default-mta | mail-transport-agent`.
//!
//! It refuses the forms that only source packages have: architecture lists and build profiles.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::version::Version;

/// One name that may stand in a relation, with the versions that are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Name of a package, real or virtual.
    pub name: &'a str,
    /// What follows the colon of `python3:any`.
    pub qualifier: Option<&'a str>,
    /// The versions that are meant; `None` for all.
    pub versions: Option<(Operator, Version<'a>)>,
}

/// How versions are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

/// A text that is no relation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no relation between packages")]
pub struct Malformed(String);

impl Operator {
    /// Whether a version is meant.
    #[must_use]
    pub fn admits(self, ordering: Ordering) -> bool {
        match self {
            Self::Earlier => ordering.is_lt(),
            Self::EarlierOrEqual => ordering.is_le(),
            Self::Equal => ordering.is_eq(),
            Self::LaterOrEqual => ordering.is_ge(),
            Self::Later => ordering.is_gt(),
        }
    }
}

impl FromStr for Operator {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // `<` and `>` are deprecated and mean "or equal" (deb-control(5)).
        Ok(match text {
            "<<" => Self::Earlier,
            "<=" | "<" => Self::EarlierOrEqual,
            "=" => Self::Equal,
            ">=" | ">" => Self::LaterOrEqual,
            ">>" => Self::Later,
            _ => return Err(()),
        })
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        })
    }
}

impl Relation<'_> {
    /// Whether a version is meant.
    #[must_use]
    pub fn admits(&self, version: Version<'_>) -> bool {
        self.versions
            .is_none_or(|(operator, bound)| operator.admits(version.cmp(&bound)))
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some((operator, version)) = self.versions {
            write!(f, " ({operator} {version})")?;
        }
        Ok(())
    }
}

/// Parses a list of relations; each is a list of alternatives in order of preference.
///
/// # Errors
/// At the first part that is no relation.
pub fn parse(text: &str) -> Result<Vec<Vec<Relation<'_>>>, Malformed> {
    text.split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(|group| group.split('|').map(parse_one).collect())
        .collect()
}

fn parse_one(text: &str) -> Result<Relation<'_>, Malformed> {
    let text = text.trim();
    let malformed = || Malformed(text.chars().take(200).collect());
    let (name, versions) = match text.split_once('(') {
        None => (text, None),
        Some((name, rest)) => {
            let inner = rest.strip_suffix(')').ok_or_else(malformed)?.trim();
            let end = inner
                .find(|sign| !matches!(sign, '<' | '=' | '>'))
                .ok_or_else(malformed)?;
            let operator = inner[..end].parse().map_err(|()| malformed())?;
            let version = Version::parse(inner[end..].trim()).ok_or_else(malformed)?;
            (name.trim_end(), Some((operator, version)))
        }
    };
    let (name, qualifier) = match name.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (name, None),
    };
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte))
    };
    if !plain(name) || !qualifier.is_none_or(plain) {
        return Err(malformed());
    }
    Ok(Relation {
        name,
        qualifier,
        versions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn relations_read_back_as_written() {
        let cases = [
            ("libc6 (>= 2.38), dpkg", "libc6 (>= 2.38)|dpkg"),
            (
                "default-mta | mail-transport-agent,",
                "default-mta/mail-transport-agent",
            ),
            ("python3:any (>> 3.11~)", "python3:any (>> 3.11~)"),
            ("old(<1:2-3),new ( = 4 )", "old (<= 1:2-3)|new (= 4)"),
            ("", ""),
        ];
        for (text, expected) in cases {
            let groups = parse(text).unwrap();
            let shown: Vec<_> = groups
                .iter()
                .map(|group| {
                    group
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("/")
                })
                .collect();
            assert_eq!(shown.join("|"), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_relation_is_refused() {
        for text in [
            "a b",
            "a (1)",
            "a (>= )",
            "a (>= 1",
            "a (=> 1)",
            "|",
            "a:",
            ":any",
            "a [amd64]",
            "a (== 1)",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[ab:()<>=|, 1~é]{0,40}") {
            let _outcome = parse(&text);
        }
    }
}
