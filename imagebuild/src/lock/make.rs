//! Makes a lock: what the archives offer today, narrowed down to exact packages.
//!
//! It refuses to install what is only extracted: kernels, firmware and loaders come without what they depend on.

use std::collections::{BTreeMap, BTreeSet};

use deb_archive::packages::{Package as Offered, Universe};
use deb_archive::relation;
use deb_archive::resolve::{self, Essential, find, resolve};

use super::index::{self, Offer};
use super::{Lock, Package, Release, Request, Use, text};
use crate::cache::Cache;
use crate::definition::Definition;
use crate::mirror::Mirrors;

/// Names of the packages that a kernel is made of; a package that only names one of them leads to it.
const KERNEL_PARTS: [&str; 3] = ["linux-image-", "linux-modules-", "linux-binary-"];

/// Why a lock could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archives' offer could not be read.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// An index holds what no archive has.
    #[error("suite `{suite}` has a malformed index")]
    Malformed {
        /// The suite.
        suite: String,
        /// Why.
        source: deb_archive::packages::Malformed,
    },
    /// The request has no answer.
    #[error("failed to resolve the packages")]
    Resolve(#[from] resolve::Error),
    /// A package has a path that cannot stand in a lock.
    #[error("package `{package}` has the unusable path `{path}`")]
    Path {
        /// The package.
        package: String,
        /// The path.
        path: String,
    },
    /// The work was stopped from outside.
    #[error("the resolution was stopped")]
    Stopped(#[source] tokio::task::JoinError),
}

/// A lock, and what the archives say about its packages.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// The lock.
    pub(super) lock: Lock,
    /// What is known about its packages, and about those of an older lock that are still there, by name and version.
    pub(super) candidates: BTreeMap<(String, String), Candidate>,
}

/// What an archive says about a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Source package that it is built from.
    pub(super) source: String,
    /// Archive that has it.
    pub(super) archive: String,
    /// Suite that has it.
    pub(super) suite: String,
    pub(super) provides: String,
    pub(super) depends: String,
    pub(super) pre_depends: String,
    pub(super) conflicts: String,
    pub(super) breaks: String,
}

impl Candidate {
    /// Whether it comes from a suite for security.
    pub(super) fn is_security(&self) -> bool {
        // `trixie-security`, `noble-security`; `bookworm/updates` is of an archive `debian-security`.
        self.suite.ends_with("-security") || self.archive.ends_with("-security")
    }

    fn of(found: &Offered<'_>, offers: &[Offer]) -> Self {
        let suite = &offers[found.index].suite;
        Self {
            source: found.source.to_owned(),
            archive: suite.archive.clone(),
            suite: suite.suite.clone(),
            provides: found.provides.to_owned(),
            depends: found.depends.to_owned(),
            pre_depends: found.pre_depends.to_owned(),
            conflicts: found.conflicts.to_owned(),
            breaks: found.breaks.to_owned(),
        }
    }
}

/// Resolves a definition against what its archives offer at this moment, in seconds since 1970.
///
/// # Errors
/// When no mirror has a good release, or the request has no answer.
pub async fn make(
    definition: &Definition,
    mirrors: &Mirrors,
    cache: &Cache,
    now: i64,
) -> Result<Lock, Error> {
    Ok(resolve_all(definition, &[], mirrors, cache, now)
        .await?
        .lock)
}

/// Resolves as [`make`] does, and tells what the archives say about the packages, also those of an older lock.
///
/// # Errors
/// When no mirror has a good release, or the request has no answer.
pub(super) async fn offer(
    definition: &Definition,
    old: &Lock,
    mirrors: &Mirrors,
    cache: &Cache,
    now: i64,
) -> Result<Made, Error> {
    resolve_all(definition, &old.packages, mirrors, cache, now).await
}

async fn resolve_all(
    definition: &Definition,
    old: &[Package],
    mirrors: &Mirrors,
    cache: &Cache,
    now: i64,
) -> Result<Made, Error> {
    let request = Request::of(definition);
    let old = old.to_vec();
    let offers = index::read(
        &request,
        &definition.distribution.keyring,
        mirrors,
        cache,
        now,
    )
    .await?;
    tokio::task::spawn_blocking(move || choose(&request, &old, &offers))
        .await
        .map_err(Error::Stopped)?
}

fn choose(request: &Request, old: &[Package], offers: &[Offer]) -> Result<Made, Error> {
    let mut universe = Universe::new();
    for (at, offer) in offers.iter().enumerate() {
        for text in &offer.indexes {
            universe
                .add(at, &request.architecture, text)
                .map_err(|source| Error::Malformed {
                    suite: offer.suite.suite.clone(),
                    source,
                })?;
        }
    }
    let mut packages = BTreeSet::new();
    let mut add = |usage: Use, found: &Offered<'_>| {
        packages.insert(entry(usage, found, offers)?);
        Ok::<_, Error>(())
    };
    if let Some(install) = &request.install {
        let wanted = resolve::Request {
            architecture: &request.architecture,
            install: install
                .iter()
                .map(|package| (package.name.as_str(), package.version.as_deref()))
                .collect(),
            essential: Essential::Include,
        };
        for found in resolve(&universe, &wanted)? {
            add(Use::Install, found)?;
        }
    }
    if let Some(kernel) = &request.kernel {
        for found in kernel_parts(&universe, kernel)? {
            add(Use::Kernel, found)?;
        }
    }
    for (usage, names) in [
        (Use::Firmware, &request.firmware),
        (Use::Loader, &request.loaders),
        (Use::Boot, &request.boot),
    ] {
        for name in names {
            add(usage, find(&universe, name, None)?)?;
        }
    }
    let mut candidates = BTreeMap::new();
    for package in packages.iter().chain(old) {
        let named = universe.named(&package.name).into_iter();
        let mut same = named.filter(|one| one.version.as_str() == package.version);
        if let Some(found) = same.next() {
            let id = (package.name.clone(), package.version.clone());
            candidates.insert(id, Candidate::of(found, offers));
        }
    }
    let lock = Lock {
        request: request.digest(),
        source_date: offers
            .iter()
            .map(|offer| offer.date)
            .max()
            .unwrap_or_default(),
        releases: offers.iter().map(release).collect(),
        packages: packages.into_iter().collect(),
    };
    Ok(Made { lock, candidates })
}

fn release(offer: &Offer) -> Release {
    Release {
        archive: offer.suite.archive.clone(),
        suite: offer.suite.suite.clone(),
        date: offer.date,
        sha256: offer.sha256,
    }
}

fn entry(usage: Use, found: &Offered<'_>, offers: &[Offer]) -> Result<Package, Error> {
    if !text::is_pool_path(found.path) {
        return Err(Error::Path {
            package: found.name.to_owned(),
            path: found.path.chars().take(200).collect(),
        });
    }
    Ok(Package {
        name: found.name.to_owned(),
        usage,
        version: found.version.to_string(),
        architecture: found.architecture.to_owned(),
        archive: offers[found.index].suite.archive.clone(),
        path: found.path.to_owned(),
        size: found.size,
        sha256: found.sha256,
    })
}

/// Follows a kernel's package to those that hold its files.
///
/// `linux-image-amd64` holds nothing: it depends on the package of one kernel. Newer kernels keep their modules in a
/// package of their own.
fn kernel_parts<'u, 'a>(
    universe: &'u Universe<'a>,
    name: &str,
) -> Result<Vec<&'u Offered<'a>>, Error> {
    let mut parts = Vec::new();
    let mut names = vec![(name.to_owned(), None)];
    let mut seen = BTreeSet::new();
    while let Some((name, version)) = names.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let package: &Offered<'_> = find(universe, &name, version.as_deref())?;
        let relations = [package.pre_depends, package.depends].map(relation::parse);
        let mut leads_on = false;
        for relation in relations
            .iter()
            .flatten()
            .flatten()
            .filter_map(|group| group.first())
        {
            if is_kernel_part(relation.name) {
                let exact = relation
                    .versions
                    .filter(|(operator, _)| *operator == relation::Operator::Equal)
                    .map(|(_, version)| version.to_string());
                names.push((relation.name.to_owned(), exact));
                leads_on |= relation.name.starts_with("linux-image-");
            }
        }
        if !leads_on {
            parts.push(package);
        }
    }
    Ok(parts)
}

/// Whether a kernel may keep files in a package of this name.
pub(super) fn is_kernel_part(name: &str) -> bool {
    KERNEL_PARTS.iter().any(|part| name.starts_with(part))
}
