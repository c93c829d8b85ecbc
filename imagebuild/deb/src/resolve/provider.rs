//! The catalogue as the solver asks for it.
//!
//! It refuses to have opinions: order of preference is the catalogue's, search is the solver's.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use resolvo::utils::{Pool, VersionSet};
use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, Dependencies, DependencyProvider,
    HintDependenciesAvailable, Interner, KnownDependencies, NameId, SolvableId, SolverCache,
    StringId, VersionSetId, VersionSetUnionId,
};

use super::catalogue::Catalogue;
use crate::relation::{self, Malformed, Relation};

/// Position of a package in the universe.
#[derive(Clone, Copy, Debug)]
pub(super) struct At(usize);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Some of the candidates of one name, and how they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Allowed {
    packages: Vec<usize>,
    text: String,
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl VersionSet for Allowed {
    type V = At;
}

pub(super) struct Provider<'c, 'u, 'a> {
    catalogue: &'c Catalogue<'u, 'a>,
    pool: Pool<Allowed>,
    solvables: BTreeMap<usize, SolvableId>,
    malformed: RefCell<Option<(String, Malformed)>>,
}

impl<'c, 'u, 'a> Provider<'c, 'u, 'a> {
    pub(super) fn new(catalogue: &'c Catalogue<'u, 'a>) -> Self {
        let pool = Pool::new();
        let mut solvables = BTreeMap::new();
        for (name, packages) in catalogue.candidates() {
            let name = pool.intern_package_name(name);
            for at in packages {
                solvables.insert(*at, pool.intern_solvable(name, At(*at)));
            }
        }
        Self {
            catalogue,
            pool,
            solvables,
            malformed: RefCell::new(None),
        }
    }

    /// The position of a chosen package in the universe.
    pub(super) fn package(&self, id: SolvableId) -> usize {
        self.pool.resolve_solvable(id).record.0
    }

    /// The first package whose relations could not be read, if there was one.
    pub(super) fn malformed(&self) -> Option<(String, Malformed)> {
        self.malformed.borrow().clone()
    }

    /// The requirement of a package by name.
    pub(super) fn root(&self, name: &str) -> ConditionalRequirement {
        let packages = self.catalogue.named(name).to_vec();
        self.version_set(name, packages, String::new()).into()
    }

    fn version_set(&self, name: &str, packages: Vec<usize>, text: String) -> VersionSetId {
        let name = self.pool.intern_package_name(name);
        self.pool
            .intern_version_set(name, Allowed { packages, text })
    }

    /// One requirement of alternatives: each candidate in its place, so that the solver tries them in this order.
    fn requirement(&self, group: &[Relation<'_>]) -> ConditionalRequirement {
        let mut sets: Vec<VersionSetId> = Vec::new();
        for relation in group {
            let mut by_name: Vec<(&str, Vec<usize>)> = Vec::new();
            for at in self.catalogue.satisfying(relation) {
                let name = self.catalogue.package(at).name;
                match by_name.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, packages)) => packages.push(at),
                    None => by_name.push((name, vec![at])),
                }
            }
            for (name, packages) in by_name {
                let text = relation.to_string();
                let set = self.version_set(name, packages, text);
                if !sets.contains(&set) {
                    sets.push(set);
                }
            }
        }
        match sets.as_slice() {
            [] => {
                let name = group.first().map_or("", |relation| relation.name);
                let text = group
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" | ");
                self.version_set(name, Vec::new(), text).into()
            }
            [set] => (*set).into(),
            [first, others @ ..] => self
                .pool
                .intern_version_set_union(*first, others.iter().copied())
                .into(),
        }
    }

    fn read(&self, at: usize) -> Result<KnownDependencies, Malformed> {
        let package = self.catalogue.package(at);
        let mut known = KnownDependencies::default();
        for text in [package.pre_depends, package.depends] {
            for group in relation::parse(text)? {
                known.requirements.push(self.requirement(&group));
            }
        }
        for text in [package.conflicts, package.breaks] {
            for relation in relation::parse(text)?.iter().flatten() {
                let mut refused: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
                for other in self.catalogue.satisfying(relation) {
                    let name = self.catalogue.package(other).name;
                    // A package may conflict with a name that it provides itself, meaning all others of that name.
                    if name != package.name {
                        refused.entry(name).or_default().push(other);
                    }
                }
                for (name, refused) in refused {
                    let mut allowed = self.catalogue.named(name).to_vec();
                    allowed.retain(|other| !refused.contains(other));
                    let text = format!("not {relation}");
                    known.constrains.push(self.version_set(name, allowed, text));
                }
            }
        }
        Ok(known)
    }
}

impl Interner for Provider<'_, '_, '_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl fmt::Display + '_ {
        let package = self.catalogue.package(self.package(solvable));
        format!("{} {}", package.name, package.version)
    }

    fn display_name(&self, name: NameId) -> impl fmt::Display + '_ {
        self.pool.resolve_package_name(name)
    }

    fn display_version_set(&self, set: VersionSetId) -> impl fmt::Display + '_ {
        self.pool.resolve_version_set(set)
    }

    fn display_string(&self, string: StringId) -> impl fmt::Display + '_ {
        self.pool.resolve_string(string)
    }

    fn version_set_name(&self, set: VersionSetId) -> NameId {
        self.pool.resolve_version_set_package_name(set)
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        self.pool.resolve_solvable(solvable).name
    }

    fn version_sets_in_union(
        &self,
        union: VersionSetUnionId,
    ) -> impl Iterator<Item = VersionSetId> {
        self.pool.resolve_version_set_union(union)
    }

    fn resolve_condition(&self, condition: ConditionId) -> Condition {
        self.pool.resolve_condition(condition).clone()
    }
}

impl DependencyProvider for Provider<'_, '_, '_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        let allowed = &self.pool.resolve_version_set(set).packages;
        candidates
            .iter()
            .copied()
            .filter(|id| allowed.contains(&self.package(*id)) != inverse)
            .collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let packages = self.catalogue.named(self.pool.resolve_package_name(name));
        let candidates: Vec<_> = packages
            .iter()
            .filter_map(|at| self.solvables.get(at).copied())
            .collect();
        Some(Candidates {
            candidates,
            hint_dependencies_available: HintDependenciesAvailable::None,
            ..Candidates::default()
        })
    }

    async fn sort_candidates(&self, _solver: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        solvables.sort_by_key(|id| {
            let at = self.package(*id);
            let named = self.catalogue.named(self.catalogue.package(at).name);
            named.iter().position(|other| *other == at)
        });
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        let at = self.package(solvable);
        match self.read(at) {
            Ok(known) => Dependencies::Known(known),
            Err(error) => {
                let text = error.to_string();
                let name = self.catalogue.package(at).name.to_owned();
                self.malformed.borrow_mut().get_or_insert((name, error));
                Dependencies::Unknown(self.pool.intern_string(text))
            }
        }
    }
}
