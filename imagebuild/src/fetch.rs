//! Fetches locked packages into the cache.
//!
//! It refuses bytes that differ from the lock, wherever they come from, and resolves nothing: what is not in the lock
//! is not asked for. Sources are tried in order: the cache, the store's files, mirrors, a snapshot archive.

pub(crate) mod client;
pub(crate) mod download;
mod identity;
pub(crate) mod progress;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use deb_archive::deb;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cache::{self, Cache, Shelf};
use crate::lock::{Lock, Locked, Package};
use crate::mirror::Mirrors;
use client::Client;
use download::{Failed, Wanted, copy, download};
use progress::Progress;

pub use client::RequestError;
pub use download::{Answer, Attempt};
pub use identity::identify;

/// Packages that are fetched at the same time.
const PARALLEL: usize = 8;
/// Hours after a release at which a snapshot archive is asked: packages appear there after it, and may leave again.
const SNAPSHOT_HOURS: [i64; 3] = [12, 0, 36];

/// Where packages may come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The cache, looked into first; everything fetched ends there.
    pub cache: Cache,
    /// A directory of files named by the 64 digits of their digest, such as `blobs/sha256` of a store.
    pub files: Option<PathBuf>,
    /// Mirrors and the snapshot archive.
    pub mirrors: Mirrors,
    /// Whether the network may be asked.
    pub network: Network,
}

/// Whether the network may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It may.
    Online,
    /// Only what is on this machine is used.
    Offline,
}

/// All packages of a lock, on disk.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// The packages, in the lock's order.
    pub packages: Vec<FetchedPackage>,
    /// How many came over the network.
    pub downloaded_packages: usize,
    /// Their bytes.
    pub downloaded_bytes: u64,
}

/// One package, on disk and checked.
#[derive(Clone, Debug)]
pub struct FetchedPackage {
    /// Its entry in the lock.
    pub entry: Package,
    /// The file.
    pub path: PathBuf,
}

/// Why packages could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every source was asked and said that it does not have the package.
    #[error("package `{package}` {version} is gone from every source:{}", list(.attempts))]
    Gone {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What each source answered.
        attempts: Vec<Attempt>,
    },
    /// No source gave the package, and at least one could not be asked: it may be there.
    #[error("package `{package}` {version} could not be fetched from any source:{}", list(.attempts))]
    Unreachable {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What each source answered.
        attempts: Vec<Attempt>,
    },
    /// Sources have other bytes under the package's name, and none has the right ones.
    #[error("package `{package}` {version} differs from the lock, which says {expected}:{}", list(.attempts))]
    Differs {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The digest of the lock.
        expected: image_manifest::Digest,
        /// What each source answered.
        attempts: Vec<Attempt>,
    },
    /// A package has the digest of the lock and cannot be read.
    #[error("failed to read package `{package}` from `{path}`")]
    Read {
        /// The package.
        package: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Box<deb::Error>,
    },
    /// A package is another one than the lock says.
    #[error(
        "the package locked as `{package}` has {field} `{found}`, where the lock says `{expected}`"
    )]
    Identity {
        /// The package of the lock.
        package: String,
        /// The field that is different.
        field: &'static str,
        /// What the lock says.
        expected: String,
        /// What the package says.
        found: String,
    },
    /// Some packages are not on this machine, and the network may not be asked.
    #[error(
        "{count} packages are not on this machine, `{first}` among them, and the network may not be asked"
    )]
    Offline {
        /// How many.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// No mirror is known for an archive.
    #[error(transparent)]
    Mirror(#[from] crate::mirror::Error),
    /// The cache does not work.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The fetch was stopped from outside.
    #[error("the fetch was stopped")]
    Stopped(#[source] tokio::task::JoinError),
}

/// Who has to change something before it can work; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Who wrote the definition, the lock or the mirrors.
    Configuration,
    /// Whoever runs the mirrors; asking again may help.
    Remote,
    /// Who locked it: every source says that it is gone, and asking again gives the same.
    Gone,
    /// Whoever runs the mirrors: one gave what must not be used.
    Untrusted,
    /// This machine: its disk, mostly.
    Machine,
}

impl Error {
    /// Who has to change something.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. } | Self::Offline { .. } => Fault::Remote,
            Self::Gone { .. } => Fault::Gone,
            Self::Differs { .. } => Fault::Untrusted,
            Self::Mirror(_) | Self::Identity { .. } => Fault::Configuration,
            Self::Cache(_) | Self::Read { .. } | Self::Stopped(_) => Fault::Machine,
        }
    }

    /// What the user may do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Gone { .. } => Some(
                "archives drop superseded versions: a store that keeps them (`imagebuild vendor`) or `--snapshot URL` still has them; `imagebuild lock` makes a lock of today's",
            ),
            Self::Unreachable { .. } => Some("try again, or name another mirror with `--mirror`"),
            Self::Differs { .. } => Some(
                "do not use that mirror; if the archive itself says so, `imagebuild lock` again",
            ),
            Self::Offline { .. } => Some("run it once without `--offline`"),
            Self::Identity { .. } => {
                Some("the lock was edited, or its archive is at fault: `imagebuild lock` again")
            }
            Self::Mirror(_) | Self::Cache(_) | Self::Read { .. } | Self::Stopped(_) => None,
        }
    }
}

/// One attempt a line, for messages.
pub(crate) fn list(attempts: &[Attempt]) -> String {
    let mut text = String::new();
    for Attempt {
        source, outcome, ..
    } in attempts
    {
        // Writing to a string does not fail.
        write!(text, "\n  {source}: {outcome}").unwrap_or_default();
    }
    text
}

/// Brings all packages of a lock into the cache.
///
/// # Errors
/// When a package is gone everywhere, differs from the lock, or the cache does not work.
pub async fn fetch(locked: &Locked, sources: &Sources) -> Result<Fetched, Error> {
    let lock = locked.as_lock();
    let (mut found, missing) = look(lock, sources).await?;
    if let Some((_, wanted)) = missing.first()
        && sources.network == Network::Offline
    {
        return Err(Error::Offline {
            count: missing.len(),
            first: wanted.entry.name.clone(),
        });
    }
    let bytes = missing.iter().map(|(_, missing)| missing.entry.size).sum();
    let count = missing.len();
    let progress = Progress::begin("packages", count, bytes);
    let client = Client::new();
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let mut tasks = JoinSet::new();
    for (
        at,
        Missing {
            entry,
            mut attempts,
        },
    ) in missing
    {
        let urls = urls(&entry, lock, &sources.mirrors)?;
        let wanted = wanted(&entry, urls);
        let (client, cache, permits, progress) = (
            client.clone(),
            sources.cache.clone(),
            Arc::clone(&permits),
            progress.clone(),
        );
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            match download(&client, &cache, &wanted, &progress).await {
                Ok(path) => Ok((at, FetchedPackage { entry, path })),
                Err(Failed::Cache(error)) => Err(Error::Cache(error)),
                Err(Failed::Everywhere(more)) => {
                    attempts.extend(more);
                    Err(nowhere(entry, attempts))
                }
            }
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        // The first error drops all other tasks with the set.
        found.push(outcome.map_err(Error::Stopped)??);
    }
    progress.finish(count, bytes);
    found.sort_by_key(|(at, _)| *at);
    Ok(Fetched {
        packages: found.into_iter().map(|(_, package)| package).collect(),
        downloaded_packages: count,
        downloaded_bytes: bytes,
    })
}

/// A package that is not on this machine, and where it was looked for.
struct Missing {
    entry: Package,
    attempts: Vec<Attempt>,
}

type Placed<T> = Vec<(usize, T)>;

/// Looks into the cache and the store's files, hashing what is there on all processors.
async fn look(
    lock: &Lock,
    sources: &Sources,
) -> Result<(Placed<FetchedPackage>, Placed<Missing>), Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let permits = Arc::new(Semaphore::new(threads));
    let mut tasks = JoinSet::new();
    for (at, entry) in lock.packages.iter().cloned().enumerate() {
        let (sources, permits) = (sources.clone(), Arc::clone(&permits));
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            let looked =
                tokio::task::spawn_blocking(move || (look_for(&entry, &sources), entry)).await;
            looked.map(|(outcome, entry)| (at, entry, outcome))
        });
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    while let Some(outcome) = tasks.join_next().await {
        let (at, entry, outcome) = outcome.map_err(Error::Stopped)?.map_err(Error::Stopped)?;
        match outcome? {
            Ok(path) => found.push((at, FetchedPackage { entry, path })),
            Err(attempts) => missing.push((at, Missing { entry, attempts })),
        }
    }
    missing.sort_by_key(|(at, _)| *at);
    Ok((found, missing))
}

fn look_for(entry: &Package, sources: &Sources) -> Result<Result<PathBuf, Vec<Attempt>>, Error> {
    if let Some(path) = sources.cache.find(Shelf::Packages, &entry.sha256)? {
        return Ok(Ok(path));
    }
    let mut attempts = vec![Attempt {
        source: sources.cache.root().display().to_string(),
        outcome: "not there".to_owned(),
        answer: Answer::Absent,
    }];
    if let Some(files) = &sources.files {
        match copy(&sources.cache, &wanted(entry, Vec::new()), files) {
            Ok(Ok(path)) => return Ok(Ok(path)),
            Ok(Err(attempt)) => attempts.push(attempt),
            Err(Failed::Cache(error)) => return Err(Error::Cache(error)),
            Err(Failed::Everywhere(more)) => attempts.extend(more),
        }
    }
    Ok(Err(attempts))
}

fn wanted(entry: &Package, urls: Vec<String>) -> Wanted {
    Wanted {
        shelf: Shelf::Packages,
        digest: entry.sha256,
        size: entry.size,
        urls,
    }
}

fn nowhere(entry: Package, attempts: Vec<Attempt>) -> Error {
    let any = |answer| attempts.iter().any(|attempt| attempt.answer == answer);
    let (differs, unreachable) = (any(Answer::Differs), any(Answer::Unreachable));
    let (package, version) = (entry.name, entry.version);
    if differs {
        Error::Differs {
            package,
            version,
            expected: entry.sha256,
            attempts,
        }
    } else if unreachable {
        Error::Unreachable {
            package,
            version,
            attempts,
        }
    } else {
        Error::Gone {
            package,
            version,
            attempts,
        }
    }
}

/// Where a package may be: each mirror of its archive, then the snapshot archive around the lock's date.
fn urls(entry: &Package, lock: &Lock, mirrors: &Mirrors) -> Result<Vec<String>, Error> {
    let mut urls = Vec::new();
    match mirrors.bases(&entry.archive) {
        Ok(bases) => urls.extend(bases.iter().map(|base| base.join(&entry.path))),
        Err(error) if mirrors.snapshot().is_none() => return Err(error.into()),
        Err(_) => {}
    }
    if let Some(snapshot) = mirrors.snapshot() {
        let stamps = SNAPSHOT_HOURS
            .iter()
            .filter_map(|hours| stamp(lock.source_date + hours * 3600));
        urls.extend(
            stamps.map(|stamp| snapshot.join(&format!("{}/{stamp}/{}", entry.archive, entry.path))),
        );
    }
    Ok(urls)
}

fn stamp(seconds: i64) -> Option<String> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()?
        .format(&format)
        .ok()
}

#[cfg(test)]
mod tests;
