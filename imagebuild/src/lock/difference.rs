//! The difference of two locks, for people.
//!
//! It refuses to judge: it names what came, went and changed.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Lock, Package, Use};

/// What is different in a new lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Packages that came.
    pub added: Vec<Change>,
    /// Packages that went.
    pub removed: Vec<Change>,
    /// Packages of another version, or of other bytes.
    pub changed: Vec<Change>,
}

/// One package that is different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// The package.
    pub name: String,
    /// What it is used for.
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// The version of the old lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The version of the new lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Bytes of the old package; 0 where it came.
    pub size_from: u64,
    /// Bytes of the new package; 0 where it went.
    pub size_to: u64,
}

impl Change {
    /// Compares what two locks have of one package; nothing where that is the same.
    pub(super) fn between(old: Option<&Package>, new: Option<&Package>) -> Option<Self> {
        let package = new.or(old).filter(|_| old != new)?;
        let version = |package: &Package| package.version.clone();
        let size = |package: &Package| package.size;
        Some(Self {
            name: package.name.clone(),
            usage: package.usage.word(),
            from: old.map(version),
            to: new.map(version),
            size_from: old.map_or(0, size),
            size_to: new.map_or(0, size),
        })
    }
}

impl Difference {
    /// Compares two locks; without an old one, everything came.
    #[must_use]
    pub fn between(old: Option<&Lock>, new: &Lock) -> Self {
        let mut before = by_name(old.map(|lock| lock.packages.as_slice()).unwrap_or_default());
        let mut difference = Self::default();
        for (key, package) in by_name(&new.packages) {
            let old = before.remove(&key);
            let list = match old {
                None => &mut difference.added,
                Some(_) => &mut difference.changed,
            };
            list.extend(Change::between(old, Some(package)));
        }
        let gone = before.into_values();
        difference.removed = gone
            .filter_map(|package| Change::between(Some(package), None))
            .collect();
        difference
    }

    /// Whether both hold the same packages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// A kernel of a new release has a new name; beside that, a package is one by name and use.
fn by_name(packages: &[Package]) -> BTreeMap<(Use, &str), &Package> {
    packages
        .iter()
        .map(|package| ((package.usage, package.name.as_str()), package))
        .collect()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (sign, changes) in [
            ("-", &self.removed),
            ("+", &self.added),
            ("~", &self.changed),
        ] {
            for change in changes {
                let versions: Vec<_> = [&change.from, &change.to]
                    .into_iter()
                    .flatten()
                    .map(String::as_str)
                    .collect();
                write!(f, "  {sign} {} {}", change.name, versions.join(" -> "))?;
                if change.usage != Use::Install.word() {
                    write!(f, " ({})", change.usage)?;
                }
                writeln!(f)?;
            }
        }
        write!(
            f,
            "{} added, {} removed, {} changed",
            self.added.len(),
            self.removed.len(),
            self.changed.len()
        )
    }
}
