//! The machine's own apt sources, as a last place to learn mirrors from.
//!
//! It refuses sources of others than Debian, as far as apt's configuration tells, and every transport but HTTP.

use std::collections::BTreeMap;
use std::path::Path;

use deb_archive::deb822::{Stanza, stanzas};

use super::{Base, PLAIN, SECURITY};

/// Longest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// One source: where, which suites and components, and who signs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

/// Reads the base URLs by archive below apt's configuration directory.
pub(super) fn bases(directory: &Path) -> BTreeMap<String, Vec<Base>> {
    let mut files = vec![directory.join("sources.list")];
    if let Ok(listing) = std::fs::read_dir(directory.join("sources.list.d")) {
        let mut more: Vec<_> = listing.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    let mut bases: BTreeMap<String, Vec<Base>> = BTreeMap::new();
    for file in files {
        let Some(text) = read(&file) else {
            continue;
        };
        let entries = match file.extension().and_then(|ending| ending.to_str()) {
            Some("sources") => stanzas(&text).filter_map(deb822).collect(),
            Some("list") => text.lines().filter_map(one_line).collect(),
            _ => Vec::new(),
        };
        for entry in entries {
            for (archive, base) in entry.bases() {
                let known = bases.entry(archive.to_owned()).or_default();
                if !known.contains(&base) {
                    known.push(base);
                }
            }
        }
    }
    bases
}

fn read(path: &Path) -> Option<String> {
    let size = std::fs::metadata(path).ok()?.len();
    if size > MAX_BYTES {
        return None;
    }
    std::fs::read_to_string(path).ok()
}

fn words(text: Option<&str>) -> Vec<String> {
    text.unwrap_or("")
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect()
}

fn deb822(stanza: Stanza<'_>) -> Option<Entry> {
    let disabled = stanza
        .field("Enabled")
        .is_some_and(|value| value.eq_ignore_ascii_case("no"));
    if disabled
        || !words(stanza.field("Types"))
            .iter()
            .any(|kind| kind == "deb")
    {
        return None;
    }
    Some(Entry {
        uris: words(stanza.field("URIs")),
        suites: words(stanza.field("Suites")),
        components: words(stanza.field("Components")),
        signed_by: stanza.field("Signed-By").map(str::to_owned),
    })
}

/// Reads `deb [option=value …] uri suite component…`.
fn one_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    Some(Entry {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: options
            .split_ascii_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned),
    })
}

impl Entry {
    fn bases(&self) -> Vec<(&'static str, Base)> {
        let mut found = Vec::new();
        let uris = self.uris.iter().flat_map(|uri| expand(uri));
        for base in uris.filter_map(|uri| Base::parse(&uri).ok()) {
            for suite in &self.suites {
                let security = suite.ends_with("-security") || suite.ends_with("/updates");
                let archive = if security { SECURITY } else { PLAIN };
                if self.is_of(archive, &base) {
                    found.push((archive, base.clone()));
                }
            }
        }
        found
    }

    /// Sources of others have other names at their end, and are signed by others.
    fn is_of(&self, archive: &str, base: &Base) -> bool {
        let named = base.to_string().ends_with(&format!("/{archive}"));
        let signed = self
            .signed_by
            .as_ref()
            .is_none_or(|by| by.contains("debian-archive"));
        named || (signed && self.components.iter().any(|component| component == "main"))
    }
}

/// Debian's cloud images name a file that lists mirrors.
fn expand(uri: &str) -> Vec<String> {
    match uri.strip_prefix("mirror+file:") {
        None => vec![uri.to_owned()],
        Some(path) => read(Path::new(&format!("/{}", path.trim_start_matches('/'))))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().next())
            .filter(|word| !word.starts_with('#'))
            .map(str::to_owned)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_other_sources_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let parts = directory.path().join("sources.list.d");
        std::fs::create_dir(&parts).unwrap();
        let list = parts.join("cloud-mirrors");
        std::fs::write(&list, "# cloud\nhttp://cloud.test/debian\tpriority:1\n").unwrap();
        let files = [
            (
                "debian.sources",
                "Types: deb deb-src\n# a note\nURIs: http://a.test/debian/ http://b.test/mirror\nSuites: trixie trixie-updates\nComponents: main\n\nTypes: deb\nURIs: http://a.test/debian-security\nSuites: trixie-security\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.pgp\n\nTypes: deb\nEnabled: no\nURIs: http://off.test/debian\nSuites: trixie\nComponents: main\n\nTypes: deb\nURIs: https://nodes.test/node\nSuites: nodistro\nComponents: main\nSigned-By: /usr/share/keyrings/nodes.gpg\n".to_owned(),
            ),
            (
                "old.list",
                format!(
                    "# deb http://no.test/debian trixie main\ndeb [arch=amd64 signed-by=/k.gpg] https://c.test/debian trixie main # note\ndeb-src http://s.test/debian trixie main\ndeb cdrom:[x]/ trixie main\ndeb mirror+file:{} trixie main\n",
                    list.display()
                ),
            ),
            ("ignored.bak", "deb http://bak.test/debian trixie main\n".to_owned()),
        ];
        for (name, text) in files {
            std::fs::write(parts.join(name), text).unwrap();
        }
        let bases = bases(directory.path());
        let texts = |archive: &str| {
            bases[archive]
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            texts(PLAIN),
            [
                "http://a.test/debian",
                "http://b.test/mirror",
                "https://c.test/debian",
                "http://cloud.test/debian"
            ]
        );
        assert_eq!(texts(SECURITY), ["http://a.test/debian-security"]);
    }

    #[test]
    fn a_machine_without_apt_knows_no_mirror() {
        assert!(bases(Path::new("/nonexistent")).is_empty());
    }
}
