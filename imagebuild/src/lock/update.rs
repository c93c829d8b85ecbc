//! The verb `update`: resolves anew and tells what changes, by source package, before it writes.
//!
//! It refuses to write a lock that does not answer its definition, and to update a part of a lock that was made for
//! another request: then everything has to be resolved.

mod part;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use deb_archive::version::Version;
use image_manifest::Digest;
use serde::Serialize;
use time::OffsetDateTime;

use super::make::{self, Candidate, Made};
use super::run::{self, Error};
use super::{Change, Lock, Package, StaleLock, Use};
use crate::cache::{Cache, Shelf};
use crate::definition::Definition;
use crate::facts::{self, Change as Entry};
use crate::fetch::{self, Fault, Network, Sources};
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
    /// Fetch the new packages, as a build will, and tell what their changelogs say
    #[arg(long)]
    changelogs: bool,
}

impl UpdateArguments {
    /// Says the same once for each lock that is asked for.
    ///
    /// # Errors
    /// When the definition has problems.
    pub fn each(&self) -> Result<Vec<Self>, Error> {
        let each = self.common.each()?.into_iter();
        let each = each.map(|common| Self {
            common,
            ..self.clone()
        });
        Ok(each.collect())
    }
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
    pub packages: Vec<Change>,
    /// What its changelog says, where the package is in the cache already; newest first.
    pub changes: Vec<Entry>,
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
    /// A new package could not be fetched.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
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
            Self::Fetch(error) => error.fault(),
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
    let definition = common.definition()?;
    let mirrors = Mirrors::find(&common.mirrors, None).map_err(Error::Mirror)?;
    let cache = Cache::open(common.cache.as_deref()).map_err(Error::Cache)?;
    let path = definition.lock_path();
    let old = Lock::load(&path)?;
    check_part(arguments, &definition, &old)?;
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
    let new = choose(arguments, &definition, &old, &made)?;
    if arguments.changelogs {
        let sources = Sources {
            cache: cache.clone(),
            files: None,
            mirrors,
            network: Network::Online,
        };
        fetch::fetch(&definition.clone().lock(new.clone())?, &sources).await?;
    }
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

impl UpdateArguments {
    fn is_part(&self) -> bool {
        self.security || !self.only.is_empty()
    }
}

/// Checks that a part of a lock can be updated: that it answers its definition, and has the packages that are named.
fn check_part(
    arguments: &UpdateArguments,
    definition: &Definition,
    old: &Lock,
) -> Result<(), UpdateError> {
    if arguments.is_part() {
        definition.clone().lock(old.clone())?;
    }
    let kernel = definition.kernel.as_ref().map(|kernel| &kernel.package);
    let known =
        |name: &String| kernel == Some(name) || old.packages.iter().any(|one| one.name == *name);
    match arguments.only.iter().find(|name| !known(name)) {
        None => Ok(()),
        Some(package) => Err(UpdateError::NotThere {
            image: definition.name.clone(),
            package: package.clone(),
        }),
    }
}

/// Takes of what the archives offer as much as was asked for.
fn choose(
    arguments: &UpdateArguments,
    definition: &Definition,
    old: &Lock,
    made: &Made,
) -> Result<Lock, UpdateError> {
    if !arguments.is_part() {
        return Ok(made.lock.clone());
    }
    let kernel = definition.kernel.as_ref().map(|kernel| &kernel.package);
    let wanted = |package: &Package, candidate: &Candidate| {
        let named = |name: &String| {
            *name == package.name || (package.usage == Use::Kernel && Some(name) == kernel)
        };
        arguments.only.iter().any(named) || (arguments.security && candidate.is_security())
    };
    let part = part::select(old, made, wanted);
    definition.clone().lock(part.clone())?;
    Ok(part)
}

type Key<'a> = (Use, &'a str);

fn by_key(lock: &Lock) -> BTreeMap<Key<'_>, &Package> {
    let packages = lock.packages.iter();
    packages
        .map(|package| ((package.usage, package.name.as_str()), package))
        .collect()
}

/// What the archives say about a package.
fn said<'m>(made: &'m Made, package: &Package) -> Option<&'m Candidate> {
    made.candidates.get(&id(package))
}

/// How a package is found among candidates.
fn id(package: &Package) -> (String, String) {
    (package.name.clone(), package.version.clone())
}

fn group(old: &Lock, new: &Lock, made: &Made, cache: &Cache) -> Vec<SourceChange> {
    let (before, after) = (by_key(old), by_key(new));
    let keys: BTreeSet<Key<'_>> = before.keys().chain(after.keys()).copied().collect();
    let mut groups: BTreeMap<String, SourceChange> = BTreeMap::new();
    for key in keys {
        let (from, to) = (before.get(&key).copied(), after.get(&key).copied());
        let Some(change) = Change::between(from, to) else {
            continue;
        };
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
        group.packages.push(change);
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
