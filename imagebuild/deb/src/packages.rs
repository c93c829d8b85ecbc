//! Indexes of packages: what a suite offers, borrowed from the text of its `Packages` files.
//!
//! It refuses entries that lack what is needed to fetch and resolve them; it does not resolve.

use std::collections::HashMap;

use image_manifest::Digest;

use crate::deb822::stanzas;
use crate::version::Version;

/// One package as an index offers it.
#[derive(Clone, Debug)]
pub struct Package<'a> {
    /// Name.
    pub name: &'a str,
    /// Version.
    pub version: Version<'a>,
    /// Architecture, or `all`.
    pub architecture: &'a str,
    /// Whether every system has it.
    pub essential: bool,
    /// How needed it is.
    pub priority: Priority,
    /// Source package that it is built from.
    pub source: &'a str,
    /// What else it may be called.
    pub provides: &'a str,
    /// What must be installed before it is configured.
    pub depends: &'a str,
    /// What must be installed before it is unpacked.
    pub pre_depends: &'a str,
    /// What cannot be unpacked beside it.
    pub conflicts: &'a str,
    /// What cannot be configured beside it.
    pub breaks: &'a str,
    /// Path below the archive's base.
    pub path: &'a str,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the file.
    pub sha256: Digest,
    /// Which of the indexes it was read from.
    pub index: usize,
}

/// How needed a package is, the most needed first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Needed for dpkg to work.
    Required,
    /// Expected on any Unix.
    Important,
    /// Part of a small character-mode system.
    Standard,
    /// Everything else.
    #[default]
    Optional,
    /// Conflicts with others, or of little use.
    Extra,
}

/// An entry of an index that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the index has an unusable entry for package `{package}`: `{field}`")]
pub struct Malformed {
    /// The package, or nothing when it has no name.
    pub package: String,
    /// The field.
    pub field: &'static str,
}

/// All packages of several indexes, by name.
#[derive(Debug, Default)]
pub struct Universe<'a> {
    packages: Vec<Package<'a>>,
    by_name: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Universe<'a> {
    /// Starts with no packages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all packages of an index that are for this architecture, or for all.
    ///
    /// # Errors
    /// At the first entry that cannot be used.
    pub fn add(
        &mut self,
        index: usize,
        architecture: &str,
        text: &'a str,
    ) -> Result<(), Malformed> {
        for stanza in stanzas(text) {
            let package = parse(stanza.fields(), index)?;
            if package.architecture != architecture && package.architecture != "all" {
                continue;
            }
            self.by_name
                .entry(package.name)
                .or_default()
                .push(self.packages.len());
            self.packages.push(package);
        }
        Ok(())
    }

    /// Returns all packages, in the order in which they were read.
    #[must_use]
    pub fn packages(&self) -> &[Package<'a>] {
        &self.packages
    }

    /// Returns the packages of a name, newest first; of equal versions the one that was read first.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<&Package<'a>> {
        let mut found: Vec<_> = self
            .by_name
            .get(name)
            .into_iter()
            .flatten()
            .map(|at| &self.packages[*at])
            .collect();
        found.sort_by(|one, other| other.version.cmp(&one.version));
        found
    }

    /// Returns the names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&'a str> {
        let mut names: Vec<_> = self.by_name.keys().copied().collect();
        names.sort_unstable();
        names
    }
}

fn parse<'a>(
    fields: impl Iterator<Item = (&'a str, &'a str)>,
    index: usize,
) -> Result<Package<'a>, Malformed> {
    let mut name = None;
    let mut version = None;
    let mut architecture = None;
    let mut path = None;
    let mut size = None;
    let mut sha256 = None;
    let mut source = None;
    let mut essential = false;
    let mut priority = Priority::default();
    let (mut provides, mut depends, mut pre_depends, mut conflicts, mut breaks) =
        ("", "", "", "", "");
    for (field, value) in fields {
        match field {
            "Package" => name = Some(value),
            "Version" => version = Version::parse(value),
            "Architecture" => architecture = Some(value),
            "Filename" => path = Some(value),
            "Size" => size = value.parse().ok(),
            "SHA256" => sha256 = Digest::from_hex(value).ok(),
            "Source" => source = value.split_ascii_whitespace().next(),
            "Essential" => essential = value == "yes",
            "Priority" => priority = parse_priority(value),
            "Provides" => provides = value,
            "Depends" => depends = value,
            "Pre-Depends" => pre_depends = value,
            "Conflicts" => conflicts = value,
            "Breaks" => breaks = value,
            _ => {}
        }
    }
    let missing = |field| Malformed {
        package: name.unwrap_or_default().to_owned(),
        field,
    };
    Ok(Package {
        name: name
            .filter(|name| !name.is_empty())
            .ok_or_else(|| missing("Package"))?,
        version: version.ok_or_else(|| missing("Version"))?,
        architecture: architecture.ok_or_else(|| missing("Architecture"))?,
        essential,
        priority,
        source: source.or(name).unwrap_or_default(),
        provides,
        depends,
        pre_depends,
        conflicts,
        breaks,
        path: path.ok_or_else(|| missing("Filename"))?,
        size: size.ok_or_else(|| missing("Size"))?,
        sha256: sha256.ok_or_else(|| missing("SHA256"))?,
        index,
    })
}

fn parse_priority(text: &str) -> Priority {
    match text {
        "required" => Priority::Required,
        "important" => Priority::Important,
        "standard" => Priority::Standard,
        "extra" => Priority::Extra,
        _ => Priority::Optional,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, version: &str, architecture: &str) -> String {
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nFilename: pool/{name}.deb\nSize: 7\nSHA256: {}\n\n",
            "ab".repeat(32)
        )
    }

    #[test]
    fn the_newest_comes_first_and_the_first_suite_wins() {
        let one = [
            entry("a", "1", "amd64"),
            entry("b", "1", "all"),
            entry("c", "1", "arm64"),
        ]
        .concat();
        let two = [entry("a", "1", "amd64"), entry("a", "2", "amd64")].concat();
        let mut universe = Universe::new();
        universe.add(0, "amd64", &one).unwrap();
        universe.add(1, "amd64", &two).unwrap();
        let found: Vec<_> = universe
            .named("a")
            .iter()
            .map(|package| (package.version.as_str(), package.index))
            .collect();
        assert_eq!(found, [("2", 1), ("1", 0), ("1", 1)]);
        assert_eq!(universe.names(), ["a", "b"]);
    }

    #[test]
    fn an_entry_without_what_is_needed_is_refused() {
        let whole = entry("a", "1", "amd64");
        for field in [
            "Package",
            "Version",
            "Architecture",
            "Filename",
            "Size",
            "SHA256",
        ] {
            let text = whole.replace(&format!("{field}:"), "Other:");
            let error = Universe::new().add(0, "amd64", &text).unwrap_err();
            assert_eq!(error.field, field);
        }
    }
}
