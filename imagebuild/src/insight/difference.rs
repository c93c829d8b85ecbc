//! What differs between two images of a store, or between two locks.
//!
//! It refuses to unpack anything: an image is compared by its listing, its list of packages and its manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use image_manifest::layout::{self, Found, Layout};
use image_manifest::{Digest, Manifest, Role};
use image_tree::listing;
use serde::Serialize;

use super::inspect;
use crate::lock::Lock;
use crate::sbom::Component;

/// Largest listing that is read: some five million paths.
const LISTING_LIMIT: u64 = 1 << 30;

/// What differs; `--json` prints this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// What is compared.
    pub between: [String; 2],
    /// Whether nothing differs that is compared.
    pub same: bool,
    /// Packages.
    pub packages: Vec<Change>,
    /// Release of the kernel, its command line, and the like.
    pub facts: Vec<Change>,
    /// Names of kernel modules that came or went.
    pub modules: Vec<Change>,
    /// Sizes of artifacts in bytes.
    pub sizes: Vec<Size>,
    /// Files by path.
    pub files: Vec<File>,
}

/// Something that has another value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// What it is.
    pub name: String,
    /// Its value in the first, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its value in the second, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// An artifact of another size or of other bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// The artifact.
    pub name: String,
    /// Bytes in the first; 0 where it is not there.
    pub from: u64,
    /// Bytes in the second; 0 where it is not there.
    pub to: u64,
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct File {
    /// The path, as listings write it.
    pub path: String,
    /// What is different: `added`, `removed`, or some of `type`, `mode`, `owner`, `content`, `target`, `device`,
    /// `attributes`.
    pub what: Vec<&'static str>,
    /// What the first says about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What the second says about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Why two images cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of them cannot be read.
    #[error(transparent)]
    Inspect(#[from] inspect::Error),
    /// One of them has no readable listing.
    #[error("failed to read the listing of `{reference}`")]
    Listing {
        /// Which.
        reference: String,
        /// Why.
        source: layout::Error,
    },
    /// One of them has no listing.
    #[error("image `{reference}` has no listing")]
    NoListing {
        /// Which.
        reference: String,
    },
}

/// Compares two locks.
#[must_use]
pub fn locks(names: [String; 2], first: &Lock, second: &Lock) -> Difference {
    let packages = |lock: &Lock| -> BTreeMap<String, String> {
        let packages = lock.packages.iter();
        packages
            .map(|one| (key(&one.name, one.usage.word()), one.version.clone()))
            .collect()
    };
    let releases = |lock: &Lock| -> BTreeMap<String, String> {
        let releases = lock.releases.iter();
        releases
            .map(|one| {
                let name = format!("release {} {}", one.archive, one.suite);
                (name, one.sha256.to_string())
            })
            .chain([("source date".to_owned(), lock.source_date.to_string())])
            .collect()
    };
    let bytes = (first.bytes(), second.bytes());
    let mut sizes = Vec::new();
    if bytes.0 != bytes.1 {
        sizes.push(Size {
            name: "packages".to_owned(),
            from: bytes.0,
            to: bytes.1,
        });
    }
    Difference {
        between: names,
        packages: changes(&packages(first), &packages(second)),
        facts: changes(&releases(first), &releases(second)),
        sizes,
        ..Difference::default()
    }
    .judged()
}

/// Compares two images of stores.
///
/// # Errors
/// When one of them cannot be read.
pub fn images(first: (&Layout, &str), second: (&Layout, &str)) -> Result<Difference, Error> {
    let (one, other) = (Side::load(first)?, Side::load(second)?);
    let sizes = sizes(&one.found.manifest, &other.found.manifest);
    Ok(Difference {
        between: [one.name(), other.name()],
        packages: changes(&one.packages, &other.packages),
        facts: changes(&facts(&one.found.manifest), &facts(&other.found.manifest)),
        modules: changes(&one.modules(), &other.modules()),
        sizes,
        files: files(&one.lines, &other.lines),
        same: false,
    }
    .judged())
}

impl Difference {
    fn judged(mut self) -> Self {
        self.same = self.packages.is_empty()
            && self.facts.is_empty()
            && self.modules.is_empty()
            && self.sizes.is_empty()
            && self.files.is_empty();
        self
    }
}

/// One image, as far as it is compared.
struct Side {
    found: Found,
    packages: BTreeMap<String, String>,
    lines: BTreeMap<Vec<u8>, String>,
}

impl Side {
    fn load((store, reference): (&Layout, &str)) -> Result<Self, Error> {
        let failed = |source| Error::Listing {
            reference: reference.to_owned(),
            source,
        };
        let found = store.resolve(reference).map_err(failed)?;
        let listed = found.manifest.artifact(Role::Listing);
        let listed = listed.filter(|listed| listed.size <= LISTING_LIMIT);
        let listed = listed.ok_or_else(|| Error::NoListing {
            reference: reference.to_owned(),
        })?;
        store.check(listed).map_err(failed)?;
        let path = store.blob(&listed.digest);
        let text =
            fs::read(&path).map_err(|source| failed(layout::Error::Read { path, source }))?;
        let lines = listing::lines(&text)
            .map(|(path, rest)| (path, String::from_utf8_lossy(rest).into_owned()));
        let packages = inspect::packages(store, &found, reference)?;
        Ok(Self {
            lines: lines.collect(),
            packages: packages.iter().map(named).collect(),
            found,
        })
    }

    fn name(&self) -> String {
        format!("{}@{}", self.found.manifest.name, self.found.digest)
    }

    /// Kernel modules by name: where they stand differs with each release of the kernel.
    fn modules(&self) -> BTreeMap<String, String> {
        let modules = self.lines.keys().filter_map(|path| {
            let path = std::str::from_utf8(path).ok()?;
            let (_, inner) = path.strip_prefix("usr/lib/modules/")?.split_once('/')?;
            let (directory, file) = inner.rsplit_once('/')?;
            let (name, _) = file.split_once(".ko")?;
            Some((name.to_owned(), directory.to_owned()))
        });
        modules.collect()
    }
}

fn named(component: &Component) -> (String, String) {
    let Component {
        name,
        usage,
        version,
        ..
    } = component;
    (key(name, usage), version.clone())
}

fn key(name: &str, usage: &str) -> String {
    match usage {
        "install" => name.to_owned(),
        usage => format!("{name} ({usage})"),
    }
}

fn facts(manifest: &Manifest) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::from([
        ("architecture".to_owned(), manifest.architecture.clone()),
        ("builder".to_owned(), manifest.builder.clone()),
        ("distribution".to_owned(), manifest.distribution.clone()),
        ("lock".to_owned(), manifest.lock.to_string()),
        ("source date".to_owned(), manifest.source_date.to_string()),
        ("tree".to_owned(), manifest.tree.to_string()),
    ]);
    if let Some(kernel) = &manifest.kernel {
        facts.insert("kernel".to_owned(), kernel.release.clone());
        facts.insert("command line".to_owned(), kernel.command_line.clone());
    }
    facts
}

fn sizes(first: &Manifest, second: &Manifest) -> Vec<Size> {
    let by_name = |manifest: &Manifest| -> BTreeMap<String, (Digest, u64)> {
        let artifacts = manifest.artifacts.iter();
        let artifacts = artifacts.map(|one| (one.name.clone(), (one.digest, one.size)));
        let forms = manifest.forms.iter();
        let forms = forms.map(|form| (form.name.clone(), (form.digest, form.size)));
        artifacts.chain(forms).collect()
    };
    let (first, second) = (by_name(first), by_name(second));
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let differing = names
        .into_iter()
        .filter(|name| first.get(*name) != second.get(*name));
    let size = |side: &BTreeMap<String, (Digest, u64)>, name: &str| {
        side.get(name).map_or(0, |(_, size)| *size)
    };
    differing
        .map(|name| Size {
            name: name.clone(),
            from: size(&first, name),
            to: size(&second, name),
        })
        .collect()
}

fn changes(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) -> Vec<Change> {
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let changed = names.into_iter().filter_map(|name| {
        let (from, to) = (first.get(name), second.get(name));
        (from != to).then(|| Change {
            name: name.clone(),
            from: from.cloned(),
            to: to.cloned(),
        })
    });
    changed.collect()
}

fn files(first: &BTreeMap<Vec<u8>, String>, second: &BTreeMap<Vec<u8>, String>) -> Vec<File> {
    let paths: BTreeSet<&Vec<u8>> = first.keys().chain(second.keys()).collect();
    let changed = paths.into_iter().filter_map(|path| {
        let (from, to) = (first.get(path), second.get(path));
        let what = match (from, to) {
            (None, _) => vec!["added"],
            (_, None) => vec!["removed"],
            (Some(from), Some(to)) if from == to => return None,
            (Some(from), Some(to)) => compare(from, to),
        };
        Some(File {
            path: format!("/{}", path.escape_ascii()),
            what,
            from: from.cloned(),
            to: to.cloned(),
        })
    });
    changed.collect()
}

/// Says in which respects two lines about one path differ.
fn compare(from: &str, to: &str) -> Vec<&'static str> {
    let split = |line: &str| -> (Vec<String>, Vec<String>) {
        let words = line.split(' ').map(str::to_owned);
        words.partition(|word| !word.contains('='))
    };
    let ((from, from_attributes), (to, to_attributes)) = (split(from), split(to));
    let mut what = Vec::new();
    if from.first() != to.first() {
        return vec!["type"];
    }
    if from.get(1) != to.get(1) {
        what.push("mode");
    }
    if from.get(2..4) != to.get(2..4) {
        what.push("owner");
    }
    if from.get(4..) != to.get(4..) {
        what.push(match from.first().map(String::as_str) {
            Some("l") => "target",
            Some("c" | "b") => "device",
            _ => "content",
        });
    }
    if from_attributes != to_attributes {
        what.push("attributes");
    }
    what
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<Vec<u8>, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(path, line)| (path.as_bytes().to_vec(), (*line).to_owned()))
            .collect()
    }

    #[test]
    fn paths_differ_in_what_they_are_and_hold() {
        let first = map(&[
            ("a", "f 0644 0 0 1 sha256:1"),
            ("b", "f 0644 0 0 1 sha256:1"),
            ("c", "l 0777 0 0 x"),
            ("d", "d 0755 0 0"),
            ("e", "f 0755 0 0 1 sha256:1 security.capability=01"),
            ("f", "c 0666 0 0 1 3"),
            ("g", "f 0644 0 0 1 sha256:1"),
        ]);
        let second = map(&[
            ("a", "f 0644 0 0 1 sha256:1"),
            ("b", "f 0600 0 7 2 sha256:2"),
            ("c", "l 0777 0 0 y"),
            ("d", "f 0755 0 0 0 sha256:0"),
            ("e", "f 0755 0 0 1 sha256:1"),
            ("f", "c 0666 0 0 1 5"),
            ("h", "d 0755 0 0"),
        ]);
        let found: Vec<_> = files(&first, &second)
            .into_iter()
            .map(|file| (file.path, file.what.join(" ")))
            .collect();
        let expected = [
            ("/b", "mode owner content"),
            ("/c", "target"),
            ("/d", "type"),
            ("/e", "attributes"),
            ("/f", "device"),
            ("/g", "removed"),
            ("/h", "added"),
        ]
        .map(|(path, what)| (path.to_owned(), what.to_owned()));
        assert_eq!(found, expected);
    }
}
