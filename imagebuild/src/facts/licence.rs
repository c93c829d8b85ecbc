//! Licences out of machine-readable copyright files (DEP-5), in the words of SPDX.
//!
//! It refuses to read prose: a file that does not say that it is machine-readable gives no licence.

use std::collections::{BTreeMap, BTreeSet};

use deb_archive::deb822::stanzas;
use serde::{Deserialize, Serialize};

/// How a copyright file says that programs can read it.
const FORMAT: &str = "packaging-manuals/copyright-format/";
/// Characters of a licence's text that are kept.
const WIDTH: usize = 20_000;

/// Debian's short names that SPDX has others for.
const NAMES: [(&str, &str); 22] = [
    ("expat", "MIT"),
    ("mit", "MIT"),
    ("isc", "ISC"),
    ("zlib", "Zlib"),
    ("artistic", "Artistic-1.0-Perl"),
    ("artistic-1", "Artistic-1.0"),
    ("artistic-2", "Artistic-2.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("apache-2", "Apache-2.0"),
    ("apache-2.0", "Apache-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause", "BSD-4-Clause"),
    ("bsl-1.0", "BSL-1.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("cc0", "CC0-1.0"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2.0", "MPL-2.0"),
    ("openssl", "OpenSSL"),
    ("psf-2", "PSF-2.0"),
    ("unlicense", "Unlicense"),
    ("0bsd", "0BSD"),
];

/// The GNU licences, which have versions, and versions that SPDX knows.
const GNU: [(&str, &[&str]); 4] = [
    ("gpl", &["1.0", "2.0", "3.0"]),
    ("lgpl", &["2.0", "2.1", "3.0"]),
    ("agpl", &["1.0", "3.0"]),
    ("gfdl", &["1.1", "1.2", "1.3"]),
];

/// A package's licence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licence {
    /// An expression of SPDX that covers all of its files, when a program can read it.
    pub expression: Option<String>,
    /// Texts of the licences in it that SPDX has no name for, by `LicenseRef-…`.
    pub texts: BTreeMap<String, String>,
}

impl Licence {
    /// Reads a copyright file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = stanzas(text);
        let format = parts.next().and_then(|head| head.field("Format"));
        if !format.is_some_and(|format| format.contains(FORMAT)) {
            return Self::default();
        }
        let mut expressions = BTreeSet::new();
        let mut texts = BTreeMap::new();
        let mut written = BTreeMap::new();
        for part in stanzas(text) {
            let Some(licence) = part.field("License") else {
                continue;
            };
            let (name, body) = licence.split_once('\n').unwrap_or((licence, ""));
            let name = name.trim();
            if !body.trim().is_empty() {
                written.insert(name.to_ascii_lowercase(), tidy(body));
            }
            if part.field("Files").is_some() && !name.is_empty() {
                expressions.insert(expression(name, &mut texts));
            }
        }
        for (reference, name) in &mut texts {
            let body = written.get(&name.to_ascii_lowercase());
            if let Some(body) = body {
                name.clone_from(body);
            } else if name.is_empty() {
                name.clone_from(reference);
            }
        }
        let joined: Vec<String> = match expressions.len() {
            0 | 1 => expressions.into_iter().collect(),
            _ => expressions.into_iter().map(grouped).collect(),
        };
        let expression = joined.join(" AND ");
        Self {
            expression: Some(expression).filter(|text| !text.is_empty()),
            texts,
        }
    }
}

fn grouped(expression: String) -> String {
    if expression.contains(" OR ") {
        format!("({expression})")
    } else {
        expression
    }
}

fn tidy(body: &str) -> String {
    let lines = body.lines().map(|line| match line.trim() {
        "." => "",
        line => line,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    text.trim().chars().take(WIDTH).collect()
}

/// Turns `GPL-2+ or Artistic, and MIT` into words of SPDX; `and` binds more tightly, unless a comma is before it.
fn expression(text: &str, texts: &mut BTreeMap<String, String>) -> String {
    let parts = split(text, ", and ");
    let parts: Vec<String> = parts.iter().map(|part| alternatives(part, texts)).collect();
    match parts.len() {
        1 => parts.into_iter().collect(),
        _ => parts
            .into_iter()
            .map(grouped)
            .collect::<Vec<_>>()
            .join(" AND "),
    }
}

fn alternatives(text: &str, texts: &mut BTreeMap<String, String>) -> String {
    let alternatives = split(text, " or ").into_iter().map(|alternative| {
        let together = split(&alternative, " and ").into_iter();
        let names = together.map(|name| one(name.trim_matches([' ', ',']), texts));
        names.collect::<Vec<_>>().join(" AND ")
    });
    alternatives.collect::<Vec<_>>().join(" OR ")
}

/// Splits without regard to case.
fn split(text: &str, word: &str) -> Vec<String> {
    let lower = text.to_ascii_lowercase();
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, _) in lower.match_indices(word) {
        parts.push(text[from..at].trim().to_owned());
        from = at + word.len();
    }
    parts.push(text[from..].trim().to_owned());
    parts
}

/// Names one licence; what SPDX has no name for is a reference of our own.
fn one(name: &str, texts: &mut BTreeMap<String, String>) -> String {
    let lower = name.to_ascii_lowercase();
    if let Some((_, known)) = NAMES.iter().find(|(debian, _)| *debian == lower) {
        return (*known).to_owned();
    }
    if let Some(known) = gnu(&lower) {
        return known;
    }
    let plain: String = name
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') => c,
            '+' => 'p',
            _ => '-',
        })
        .collect();
    let plain = plain.trim_matches('-');
    let reference = format!(
        "LicenseRef-{}",
        if plain.is_empty() { "unnamed" } else { plain }
    );
    texts
        .entry(reference.clone())
        .or_insert_with(|| name.to_owned());
    reference
}

/// Reads `gpl-2+`, `lgpl-2.1` and the like.
fn gnu(lower: &str) -> Option<String> {
    let (lower, suffix) = match lower.strip_suffix('+') {
        Some(lower) => (lower, "-or-later"),
        None => (lower, "-only"),
    };
    let (family, version) = lower.split_once('-')?;
    let (_, versions) = GNU.iter().find(|(known, _)| *known == family)?;
    let version = if version.contains('.') {
        version.to_owned()
    } else {
        format!("{version}.0")
    };
    let known = versions.contains(&version.as_str());
    known.then(|| format!("{}-{version}{suffix}", family.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_become_words_of_spdx() {
        let cases = [
            ("GPL-2+", "GPL-2.0-or-later"),
            ("GPL-3", "GPL-3.0-only"),
            ("LGPL-2.1+", "LGPL-2.1-or-later"),
            ("Expat", "MIT"),
            (
                "GPL-1+ or Artistic",
                "GPL-1.0-or-later OR Artistic-1.0-Perl",
            ),
            ("GPL-2 and Expat", "GPL-2.0-only AND MIT"),
            (
                "GPL-2+ or ISC, and Zlib",
                "(GPL-2.0-or-later OR ISC) AND Zlib",
            ),
            ("public-domain", "LicenseRef-public-domain"),
            ("GPL-9", "LicenseRef-GPL-9"),
            ("a b+", "LicenseRef-a-bp"),
        ];
        for (debian, expected) in cases {
            assert_eq!(
                expression(debian, &mut BTreeMap::new()),
                expected,
                "{debian}"
            );
        }
    }

    #[test]
    fn all_licences_of_a_package_are_joined_and_texts_are_kept() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nLicense: not-of-files\n\nFiles: *\nCopyright: x\nLicense: GPL-2+ or ISC\n\nFiles: a\nLicense: mine\n\nLicense: mine\n Do what\n .\n you want.\n";
        let licence = Licence::parse(text);
        assert_eq!(
            licence.expression.as_deref(),
            Some("(GPL-2.0-or-later OR ISC) AND LicenseRef-mine")
        );
        assert_eq!(licence.texts["LicenseRef-mine"], "Do what\n\nyou want.");
        assert_eq!(Licence::parse("This is GPL."), Licence::default());
        assert_eq!(Licence::parse(""), Licence::default());
    }
}
