//! A part of an update: what is wanted of a new lock, what goes with it, and all else of the old one.
//!
//! It refuses to resolve: it takes from two locks that were resolved whole.

use std::collections::{BTreeMap, BTreeSet};

use deb_archive::relation::{self, Relation};
use deb_archive::version::Version;

use super::{Candidate, Key, Lock, Made, Package, Use, by_key, said};

/// Takes of the new lock what is wanted and what goes with it, and all else of the old one.
///
/// What goes with a package: others of the same source, what it needs in a version that the old lock does not have, and
/// what would no longer fit beside it. The packages of a kernel go together, since their names change.
pub(super) fn select(
    old: &Lock,
    made: &Made,
    wanted: impl Fn(&Package, &Candidate) -> bool,
) -> Lock {
    let (before, after) = (by_key(old), by_key(&made.lock));
    let differs = |key: &Key<'_>| before.get(key) != after.get(key);
    let mut taken: BTreeSet<Key<'_>> = after
        .iter()
        .filter(|(key, package)| {
            let candidate = said(made, package);
            differs(key) && candidate.is_some_and(|candidate| wanted(package, candidate))
        })
        .map(|(key, _)| *key)
        .collect();
    loop {
        let count = taken.len();
        let sources: BTreeSet<&str> = taken
            .iter()
            .filter_map(|key| said(made, after.get(key)?))
            .map(|candidate| candidate.source.as_str())
            .collect();
        let same_source = |package: &Package| {
            let candidate = said(made, package);
            candidate.is_some_and(|candidate| sources.contains(candidate.source.as_str()))
        };
        let kernel = taken.iter().any(|(usage, _)| *usage == Use::Kernel);
        let more = after.iter().filter(|(key, package)| {
            differs(key) && (same_source(package) || (kernel && key.0 == Use::Kernel))
        });
        taken.extend(more.map(|(key, _)| *key));
        let merged = merge(&before, &after, &taken);
        taken.extend(
            unfit(&merged, &after, made)
                .into_iter()
                .filter(|key| differs(key)),
        );
        if taken.len() == count {
            return Lock {
                packages: merged
                    .into_values()
                    .cloned()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
                ..made.lock.clone()
            };
        }
    }
}

fn merge<'a>(
    before: &BTreeMap<Key<'a>, &'a Package>,
    after: &BTreeMap<Key<'a>, &'a Package>,
    taken: &BTreeSet<Key<'a>>,
) -> BTreeMap<Key<'a>, &'a Package> {
    let mut merged = before.clone();
    if taken.iter().any(|(usage, _)| *usage == Use::Kernel) {
        merged.retain(|(usage, _), _| *usage != Use::Kernel);
    }
    merged.extend(
        taken
            .iter()
            .filter_map(|key| Some((*key, *after.get(key)?))),
    );
    merged
}

/// Finds installed packages of the new lock that have to be taken too, so that what is merged fits together.
fn unfit<'a>(
    merged: &BTreeMap<Key<'a>, &'a Package>,
    after: &BTreeMap<Key<'a>, &'a Package>,
    made: &Made,
) -> Vec<Key<'a>> {
    let installed = || merged.values().filter(|one| one.usage == Use::Install);
    let mut provided: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    for package in installed() {
        provided
            .entry(&package.name)
            .or_default()
            .push(Some(&package.version));
        for one in said(made, package)
            .iter()
            .flat_map(|one| relations(&one.provides))
            .flatten()
        {
            let version = one.versions.map(|(_, version)| version.as_str());
            provided.entry(one.name).or_default().push(version);
        }
    }
    let met = |relation: &Relation<'_>| {
        let offers = provided.get(relation.name).into_iter().flatten();
        offers.into_iter().any(|version| match version {
            Some(version) => Version::parse(version).is_some_and(|one| relation.admits(one)),
            None => relation.versions.is_none(),
        })
    };
    let newer = |name: &str| newer(after, name);
    let newer_offer = |name: &str| {
        let mut offers = after.values().filter(|one| one.usage == Use::Install);
        let found = offers.find(|one| {
            let candidate = said(made, one);
            candidate.is_some_and(|it| {
                relations(&it.provides)
                    .iter()
                    .flatten()
                    .any(|p| p.name == name)
            })
        });
        found.and_then(|one| newer(&one.name))
    };
    let mut more = Vec::new();
    for package in installed() {
        let Some(candidate) = said(made, package) else {
            continue;
        };
        for group in [&candidate.pre_depends, &candidate.depends]
            .map(|text| relations(text))
            .iter()
            .flatten()
        {
            if group.iter().any(met) {
                continue;
            }
            let names = group.iter().map(|one| one.name);
            more.extend(names.filter_map(|name| newer(name).or_else(|| newer_offer(name))));
            // It may be this one that is too old.
            more.extend(newer(&package.name));
        }
        for one in [&candidate.breaks, &candidate.conflicts]
            .map(|text| relations(text))
            .iter()
            .flatten()
            .flatten()
        {
            let other = merged.get(&(Use::Install, one.name));
            let clash = other.is_some_and(|other| {
                other.name != package.name
                    && Version::parse(&other.version).is_some_and(|version| one.admits(version))
            });
            if clash {
                more.extend(newer(one.name));
                more.extend(newer(&package.name));
            }
        }
    }
    more
}

/// The key of an installed package of the new lock.
fn newer<'a>(after: &BTreeMap<Key<'a>, &'a Package>, name: &str) -> Option<Key<'a>> {
    let mut keys = after.keys().filter(|(usage, _)| *usage == Use::Install);
    keys.find(|(_, known)| *known == name).copied()
}

fn relations(text: &str) -> Vec<Vec<Relation<'_>>> {
    relation::parse(text).unwrap_or_default()
}
