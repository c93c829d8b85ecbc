//! What packages say about themselves: source, licence, relations, changes.
//!
//! It is read from the packages' own files, whose digests are those of the lock, and kept beside them in the cache: it
//! follows from the bytes alone. It refuses to guess: a licence that is not written so that a program can read it is
//! not known.

mod changelog;
mod licence;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use deb_archive::deb::{self, Deb, Kind};
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};

use crate::fetch::FetchedPackage;
use crate::kept;
pub use changelog::Change;
pub use licence::Licence;

/// Grows whenever the same package gives other facts.
const VERSION: u32 = 1;
/// Largest copyright file or changelog that is read.
const LARGEST: u64 = 4 << 20;

/// What one package says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// Source package that it is built from.
    pub source: String,
    /// Version of the source package.
    pub source_version: String,
    /// One line for people.
    pub summary: String,
    /// Who maintains it.
    pub maintainer: String,
    /// Where its authors are found.
    pub homepage: Option<String>,
    /// Bytes that it takes when it is installed, as it says.
    pub installed: u64,
    /// Whether every system has it.
    pub essential: bool,
    /// What must be installed before it is configured.
    pub depends: String,
    /// What must be installed before it is unpacked.
    pub pre_depends: String,
    /// What else it may be called.
    pub provides: String,
    /// Its licence, as far as a program can read it.
    pub licence: Licence,
    /// Its newest changes, newest first.
    pub changes: Vec<Change>,
}

/// Why a package could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no package.
    #[error("failed to read the package `{}`", path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// Why.
        source: deb::Error,
    },
}

/// Where facts are kept, in a cache.
#[must_use]
pub fn directory(cache: &Path) -> PathBuf {
    cache.join("facts")
}

/// Reads the facts of all packages, in their order, on several threads; what stands in the directory is not read again.
/// What is read stands where `place` says: it holds the same as the package.
///
/// # Errors
/// When a package cannot be read. Facts that cannot be kept are read again the next time.
pub fn read_all(
    packages: &[FetchedPackage],
    cache: &Path,
    place: impl Fn(&FetchedPackage) -> PathBuf + Sync,
) -> Result<Vec<Facts>, Error> {
    let directory = cache.join(VERSION.to_string());
    let next = AtomicUsize::new(0);
    let found = Mutex::new(vec![None; packages.len()]);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || -> Result<(), Error> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(package) = packages.get(at) else {
                return Ok(());
            };
            let known = directory.join(package.entry.sha256.hex());
            let facts = if let Some(facts) = kept::load(&known) {
                facts
            } else {
                let facts = read(&place(package))?;
                if let Err(error) = kept::keep(&known, &facts) {
                    tracing::debug!(%error, "facts are not kept");
                }
                facts
            };
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found[at] = Some(facts);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })?;
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(found.into_iter().flatten().collect())
}

/// Reads the facts of one package.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Facts, Error> {
    let damaged = |source| Error::Package {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let deb = Deb::open(BufReader::with_capacity(128 << 10, file)).map_err(damaged)?;
    let mut facts = of_control(&deb);
    let name = deb
        .control()
        .field("Package")
        .unwrap_or_default()
        .to_owned();
    let folder = format!("usr/share/doc/{name}/");
    let mut data = deb.into_data();
    let (mut copyright, mut changes) = (false, false);
    for entry in data.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = String::from_utf8_lossy(entry.path()).into_owned();
        let Some(file) = path.strip_prefix(&folder) else {
            // Archives are sorted: behind its folder there is nothing of it.
            if path.as_str() > folder.as_str() && copyright {
                break;
            }
            continue;
        };
        match (file, entry.kind()) {
            ("copyright", Kind::File { .. }) => {
                facts.licence = Licence::parse(&text(&mut entry));
                copyright = true;
            }
            ("changelog.Debian.gz" | "changelog.gz", Kind::File { .. }) if !changes => {
                facts.changes = changelog::parse(&text(&mut GzDecoder::new(&mut entry)));
                changes = file == "changelog.Debian.gz";
            }
            _ => {}
        }
        if copyright && changes {
            break;
        }
    }
    Ok(facts)
}

/// Reads a bounded text; what is not UTF-8 in it is replaced, what cannot be unpacked is left out.
fn text(from: &mut dyn Read) -> String {
    let mut bytes = Vec::new();
    // As much as there was until it failed is as much as is known.
    if let Err(error) = from.take(LARGEST).read_to_end(&mut bytes) {
        tracing::debug!(%error, "a file of documentation is damaged");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn of_control(deb: &Deb<'_>) -> Facts {
    let field = |name: &str| deb.control().field(name).unwrap_or_default().to_owned();
    let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let name = field("Package");
    let (source, version) = (field("Source"), field("Version"));
    let (source, source_version) = match source.split_once('(') {
        Some((source, version)) => (source.trim(), version.trim_end_matches(')').trim()),
        None => (source.trim(), version.as_str()),
    };
    let source = if source.is_empty() { &name } else { source };
    let homepage = Some(field("Homepage")).filter(|url| !url.is_empty());
    Facts {
        source: source.to_owned(),
        source_version: source_version.to_owned(),
        summary: field("Description")
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
        maintainer: one_line(field("Maintainer")),
        homepage,
        installed: field("Installed-Size")
            .parse::<u64>()
            .unwrap_or(0)
            .saturating_mul(1024),
        essential: field("Essential") == "yes",
        depends: one_line(field("Depends")),
        pre_depends: one_line(field("Pre-Depends")),
        provides: one_line(field("Provides")),
        licence: Licence::default(),
        changes: Vec::new(),
    }
}
