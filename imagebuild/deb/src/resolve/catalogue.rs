//! The packages that may be chosen, and what satisfies a relation.
//!
//! It refuses to choose: it lists what would do, in apt's order of preference.

use std::collections::{BTreeMap, HashMap};

use super::Error;
use crate::packages::{Package, Universe};
use crate::relation::{self, Operator, Relation};
use crate::version::Version;

/// Which versions of a package may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    /// The newest, or the one that is pinned: all that apt considers.
    Newest,
    /// All, but for what is pinned.
    All,
}

/// A package that provides a name.
#[derive(Clone, Copy, Debug)]
struct Provision<'u> {
    package: usize,
    version: Option<Version<'u>>,
}

/// Candidates by name, and who provides what.
#[derive(Debug)]
pub(super) struct Catalogue<'u, 'a> {
    universe: &'u Universe<'a>,
    architecture: String,
    /// Positions in the universe, best first.
    candidates: BTreeMap<&'a str, Vec<usize>>,
    provisions: HashMap<&'a str, Vec<Provision<'a>>>,
}

impl<'u, 'a> Catalogue<'u, 'a> {
    pub(super) fn new(
        universe: &'u Universe<'a>,
        architecture: &str,
        pins: &BTreeMap<&str, &str>,
        versions: Versions,
    ) -> Result<Self, Error> {
        let mut candidates: BTreeMap<&'a str, Vec<usize>> = BTreeMap::new();
        for (at, package) in universe.packages().iter().enumerate() {
            if pins
                .get(package.name)
                .is_some_and(|pin| *pin != package.version.as_str())
            {
                continue;
            }
            let found = candidates.entry(package.name).or_default();
            let same = |other: &usize| universe.packages()[*other].version == package.version;
            if !found.iter().any(same) {
                found.push(at);
            }
        }
        for found in candidates.values_mut() {
            found.sort_by(|one, other| {
                let version = |at: &usize| universe.packages()[*at].version;
                version(other).cmp(&version(one))
            });
            if versions == Versions::Newest {
                found.truncate(1);
            }
        }
        let mut catalogue = Self {
            universe,
            architecture: architecture.to_owned(),
            candidates,
            provisions: HashMap::new(),
        };
        catalogue.read_provisions()?;
        Ok(catalogue)
    }

    fn read_provisions(&mut self) -> Result<(), Error> {
        for at in self.candidates.values().flatten() {
            let package = &self.universe.packages()[*at];
            let names = relation::parse(package.provides).map_err(|source| Error::Relation {
                package: package.name.to_owned(),
                source,
            })?;
            for name in names.iter().filter_map(|group| group.first()) {
                let version = match name.versions {
                    Some((Operator::Equal, version)) => Some(version),
                    _ => None,
                };
                self.provisions
                    .entry(name.name)
                    .or_default()
                    .push(Provision {
                        package: *at,
                        version,
                    });
            }
        }
        let packages = self.universe.packages();
        for found in self.provisions.values_mut() {
            // As apt's CompareProviders: essential first, then by priority; by name where apt takes its own order.
            found.sort_by_key(|provision| {
                let package = &packages[provision.package];
                (!package.essential, package.priority, package.name)
            });
        }
        Ok(())
    }

    pub(super) fn package(&self, at: usize) -> &'u Package<'a> {
        &self.universe.packages()[at]
    }

    /// All candidates, by name.
    pub(super) fn candidates(&self) -> impl Iterator<Item = (&'a str, &[usize])> {
        self.candidates
            .iter()
            .map(|(name, found)| (*name, found.as_slice()))
    }

    /// Candidates of a name, best first.
    pub(super) fn named(&self, name: &str) -> &[usize] {
        self.candidates
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Names whose best candidate is essential, sorted.
    pub(super) fn essential(&self) -> impl Iterator<Item = &'a str> {
        self.candidates
            .iter()
            .filter(|(_, found)| found.first().is_some_and(|at| self.package(*at).essential))
            .map(|(name, _)| *name)
    }

    /// What satisfies a relation, best first: packages of that name, then those that provide it.
    pub(super) fn satisfying(&self, relation: &Relation<'_>) -> Vec<usize> {
        let here = |qualifier: &str| {
            matches!(qualifier, "any" | "native") || qualifier == self.architecture
        };
        if !relation.qualifier.is_none_or(here) {
            return Vec::new();
        }
        let mut found: Vec<usize> = self
            .named(relation.name)
            .iter()
            .copied()
            .filter(|at| relation.admits(self.package(*at).version))
            .collect();
        for provision in self.provisions.get(relation.name).into_iter().flatten() {
            // A name that is provided without a version satisfies no versioned relation (Debian Policy §7.5).
            let admitted = match provision.version {
                Some(version) => relation.admits(version),
                None => relation.versions.is_none(),
            };
            if admitted && !found.contains(&provision.package) {
                found.push(provision.package);
            }
        }
        found
    }
}
