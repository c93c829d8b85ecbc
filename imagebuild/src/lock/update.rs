//! The verb `update`: resolves anew and tells what changes, by source package, before it writes.
//!
//! It refuses to write a lock that does not answer its definition, and to update a part of a lock that was made for
//! another request: then everything has to be resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use deb_archive::relation::{self, Relation};
use deb_archive::version::Version;
use image_manifest::Digest;
use serde::Serialize;
use time::OffsetDateTime;

use super::make::{self, Candidate, Made};
use super::run::{self, Error};
use super::{Lock, Package, StaleLock, Use};
use crate::cache::{Cache, Shelf};
use crate::definition;
use crate::facts::{self, Change as Entry};
use crate::fetch::Fault;
use crate::mirror::Mirrors;

/// Lines of changelogs that are told of one source package.
const HEADLINES: usize = 6;

/// What the verb takes.
#[derive(Clone, Debug, clap::Args)]
pub struct UpdateArguments {
    #[command(flatten)]
    common: run::Arguments,
    /// Update this package alone, with what it needs and what is built from the same source
    #[arg(long, value_name = "PACKAGE", conflicts_with = "security")]
    only: Vec<String>,
    /// Update only what the security archive has, with what that needs
    #[arg(long)]
    security: bool,
}

/// What came of it; `--json` prints this.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Updated {
    /// Name of the image.
    pub name: String,
    /// The file, written or not.
    pub lock: PathBuf,
    /// Digest of the lock.
    pub digest: Digest,
    /// Whether the file was written.
    pub written: bool,
    /// Bytes of all packages before.
    pub bytes_from: u64,
    /// Bytes of all packages after.
    pub bytes_to: u64,
    /// What changes, by source package.
    pub sources: Vec<SourceChange>,
}

/// What changes of one source package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SourceChange {
    /// The source package.
    pub source: String,
    /// The suite that the new packages come from, if any is new.
    pub suite: Option<String>,
    /// Whether that is one of security.
    pub security: bool,
    /// Its packages that change.
    pub packages: Vec<PackageChange>,
    /// What its changelog says, where the package is in the cache already; newest first.
    pub changes: Vec<Entry>,
}

/// A package that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PackageChange {
    /// The package.
    pub name: String,
    /// What the image does with it.
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// The old version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The new version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Bytes of the old package.
    pub size_from: u64,
    /// Bytes of the new package.
    pub size_to: u64,
}

/// Why nothing was updated.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// It could not be locked anew.
    #[error(transparent)]
    Lock(#[from] Error),
    /// There is no lock to update.
    #[error(transparent)]
    Load(#[from] super::Error),
    /// The lock is one of another request.
    #[error("a part of it cannot be updated")]
    Stale(#[from] StaleLock),
    /// The lock has no such package.
    #[error("the lock of `{image}` has no package `{package}`")]
    NotThere {
        /// The image.
        image: String,
        /// The package.
        package: String,
    },
}

impl UpdateError {
    /// Who has to change something.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Lock(error) => error.fault(),
            Self::Load(_) | Self::Stale(_) | Self::NotThere { .. } => Fault::Configuration,
        }
    }
}

/// Resolves anew, tells what changes, and writes the lock.
///
/// # Errors
/// When the definition has problems, no mirror answers well, or the file cannot be written; the lock stays as it is.
pub async fn update(arguments: &UpdateArguments) -> Result<Updated, UpdateError> {
    let common = &arguments.common;
    let definition = definition::load(&common.directory).map_err(Error::Definition)?;
    let mirrors = Mirrors::find(&common.mirrors, None).map_err(Error::Mirror)?;
    let cache = Cache::open(common.cache.as_deref()).map_err(Error::Cache)?;
    let path = definition.lock_path();
    let old = Lock::load(&path)?;
    let is_part = arguments.security || !arguments.only.is_empty();
    if is_part {
        definition.clone().lock(old.clone())?;
    }
    for package in &arguments.only {
        let kernel = definition.kernel.as_ref().map(|kernel| &kernel.package);
        let known = old.packages.iter().any(|one| one.name == *package);
        if !known && kernel != Some(package) {
            return Err(UpdateError::NotThere {
                image: definition.name.clone(),
                package: package.clone(),
            });
        }
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let made = make::offer(&definition, &old, &mirrors, &cache, now)
        .await
        .map_err(|source| Error::Make {
            name: definition.name.clone(),
            source,
        })?;
    if !common.allow_older {
        run::check_age(&old, &made.lock)?;
    }
    let kernel = definition
        .kernel
        .as_ref()
        .map(|kernel| kernel.package.as_str());
    let new = if is_part {
        let wanted = |package: &Package, candidate: &Candidate| {
            let named = |name: &String| {
                *name == package.name
                    || (package.usage == Use::Kernel && Some(name.as_str()) == kernel)
            };
            arguments.only.iter().any(named) || (arguments.security && candidate.is_security())
        };
        let part = select(&old, &made, wanted);
        definition.clone().lock(part.clone())?;
        part
    } else {
        made.lock.clone()
    };
    let same = old.packages == new.packages && old.request == new.request;
    let written = !same && !common.dry_run;
    let target = common.output.clone().unwrap_or(path);
    if written {
        run::write(&target, &new.render())?;
    }
    let kept = if same { &old } else { &new };
    Ok(Updated {
        name: definition.name.clone(),
        lock: target,
        digest: kept.digest(),
        written,
        bytes_from: old.bytes(),
        bytes_to: new.bytes(),
        sources: group(&old, &new, &made, &cache),
    })
}

type Key<'a> = (Use, &'a str);

fn by_key(lock: &Lock) -> BTreeMap<Key<'_>, &Package> {
    let packages = lock.packages.iter();
    packages
        .map(|package| ((package.usage, package.name.as_str()), package))
        .collect()
}

/// Takes of the new lock what is wanted and what goes with it, and all else of the old one.
///
/// What goes with a package: others of the same source, what it needs in a version that the old lock does not have, and
/// what would no longer fit beside it. The packages of a kernel go together, since their names change.
fn select(old: &Lock, made: &Made, wanted: impl Fn(&Package, &Candidate) -> bool) -> Lock {
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

/// What the archives say about a package.
fn said<'m>(made: &'m Made, package: &Package) -> Option<&'m Candidate> {
    made.candidates.get(&id(package))
}

/// How a package is found among candidates.
fn id(package: &Package) -> (String, String) {
    (package.name.clone(), package.version.clone())
}

fn relations(text: &str) -> Vec<Vec<Relation<'_>>> {
    relation::parse(text).unwrap_or_default()
}

fn group(old: &Lock, new: &Lock, made: &Made, cache: &Cache) -> Vec<SourceChange> {
    let (before, after) = (by_key(old), by_key(new));
    let keys: BTreeSet<Key<'_>> = before.keys().chain(after.keys()).copied().collect();
    let mut groups: BTreeMap<String, SourceChange> = BTreeMap::new();
    for key in keys {
        let (from, to) = (before.get(&key).copied(), after.get(&key).copied());
        if from == to {
            continue;
        }
        let candidate = [to, from]
            .into_iter()
            .flatten()
            .find_map(|package| said(made, package));
        // What the archive no longer knows has the source that its name says.
        let source = candidate.map_or_else(|| key.1.to_owned(), |one| one.source.clone());
        let group = groups
            .entry(source.clone())
            .or_insert_with(|| SourceChange {
                source,
                suite: None,
                security: false,
                packages: Vec::new(),
                changes: Vec::new(),
            });
        if let Some(candidate) = to.and_then(|to| said(made, to)) {
            group.suite.get_or_insert_with(|| candidate.suite.clone());
            group.security |= candidate.is_security();
        }
        if group.changes.is_empty()
            && let Some((from, to)) = from.zip(to)
        {
            group.changes = headlines(from, to, cache);
        }
        group.packages.push(PackageChange {
            name: key.1.to_owned(),
            usage: key.0.word(),
            from: from.map(|package| package.version.clone()),
            to: to.map(|package| package.version.clone()),
            size_from: from.map_or(0, |package| package.size),
            size_to: to.map_or(0, |package| package.size),
        });
    }
    groups.into_values().collect()
}

/// What the changelog of a new package says since the old one; nothing where it was not fetched yet.
fn headlines(from: &Package, to: &Package, cache: &Cache) -> Vec<Entry> {
    let Ok(Some(file)) = cache.find(Shelf::Packages, &to.sha256) else {
        return Vec::new();
    };
    let Ok(facts) = facts::read(&file) else {
        return Vec::new();
    };
    let old = Version::parse(&from.version);
    let newer = |entry: &Entry| Version::parse(&entry.version) > old;
    facts
        .changes
        .into_iter()
        .filter(newer)
        .take(HEADLINES)
        .collect()
}

#[cfg(test)]
mod tests;
