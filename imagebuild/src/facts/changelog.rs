//! Debian changelogs (deb-changelog(5)): the newest entries, a line each.
//!
//! It refuses to keep more than people read.

use serde::{Deserialize, Serialize};

/// Entries that are kept.
const MOST: usize = 12;
/// Characters of a headline that are kept.
const WIDTH: usize = 200;

/// One entry of a changelog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The version that it made.
    pub version: String,
    /// Where it went to, such as `trixie-security`.
    pub suite: String,
    /// How urgent it was.
    pub urgency: String,
    /// The first thing that it says.
    pub headline: String,
    /// Vulnerabilities that it names, such as `CVE-2026-0001`, sorted.
    pub vulnerabilities: Vec<String>,
}

/// Reads the newest entries, newest first.
pub(super) fn parse(text: &str) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut current: Option<Change> = None;
    for line in text.lines() {
        if let Some(change) = head(line) {
            changes.extend(current.replace(change).map(finish));
            if changes.len() == MOST {
                return changes;
            }
            continue;
        }
        let Some(change) = current.as_mut().filter(|_| line.starts_with("  ")) else {
            continue;
        };
        let said = line.trim_start_matches([' ', '*', '-']).trim_end();
        let is_name = said.starts_with('[') && said.ends_with(']');
        if change.headline.is_empty() && !is_name {
            change.headline = said.chars().take(WIDTH).collect();
        }
        change.vulnerabilities.extend(vulnerabilities(line));
    }
    changes.extend(current.map(finish));
    changes.truncate(MOST);
    changes
}

/// Reads `bash (5.2-1) unstable; urgency=medium`.
fn head(line: &str) -> Option<Change> {
    if line.starts_with(char::is_whitespace) {
        return None;
    }
    let (_, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(") ")?;
    let (suite, options) = rest.split_once(';')?;
    let urgency = options
        .split(',')
        .find_map(|option| option.trim().strip_prefix("urgency="));
    Some(Change {
        version: version.to_owned(),
        suite: suite.trim().to_owned(),
        urgency: urgency.unwrap_or_default().to_owned(),
        ..Change::default()
    })
}

fn finish(mut change: Change) -> Change {
    change.vulnerabilities.sort();
    change.vulnerabilities.dedup();
    change
}

fn vulnerabilities(line: &str) -> impl Iterator<Item = String> {
    line.match_indices("CVE-").filter_map(|(at, _)| {
        let name: String = line[at..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        let mut parts = name.split('-').skip(1);
        let number = |part: Option<&str>| {
            part.is_some_and(|part| part.len() >= 4 && part.bytes().all(|b| b.is_ascii_digit()))
        };
        (number(parts.next()) && number(parts.next()) && parts.next().is_none()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entries_are_read_a_line_each() {
        let text = "openssl (3.5.1-1+deb13u2) trixie-security; urgency=high\n\n  [ Someone ]\n  * CVE-2026-1234 (Fix a hole)\n  * CVE-2026-1234, CVE-2026-22222, CVE-x\n\n -- A <a@b>  Mon, 1 Jan 2026\n\nopenssl (3.5.1-1) unstable; urgency=medium, binary-only=yes\n\n  * New upstream.\n";
        let changes = parse(text);
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[0].headline, "CVE-2026-1234 (Fix a hole)");
        assert_eq!(
            changes[0].vulnerabilities,
            ["CVE-2026-1234", "CVE-2026-22222"]
        );
        assert_eq!(
            (changes[0].suite.as_str(), changes[0].urgency.as_str()),
            ("trixie-security", "high")
        );
        assert_eq!(changes[1].version, "3.5.1-1");
        assert_eq!(changes[1].urgency, "medium");
        assert_eq!(parse("no changelog\n at all"), []);
        assert_eq!(parse(&text.repeat(20)).len(), MOST);
    }
}
