//! The lock: exact packages with their digests, and nothing about where they are fetched from.
//!
//! It refuses to be edited into something else: unknown keys, unsorted or unsafe entries, a list of packages without its
//! digest and another version of the format are errors. Only a definition with its fresh lock ([`Locked`]) can be built.

mod answer;
mod difference;
mod index;
mod make;
mod request;
mod run;
mod text;
mod update;

use std::path::{Path, PathBuf};

use image_manifest::Digest;

use crate::definition::Definition;

pub use answer::StaleLock;
pub use difference::{Change, Difference};
pub use index::Error as IndexError;
pub use make::{Error as MakeError, make};
pub use request::Request;
pub use run::{Arguments, Error as RunError, Outcome, run};
pub use update::{SourceChange, UpdateArguments, UpdateError, Updated, update};

/// File name of a lock, beside its definition.
pub const FILE: &str = "image.lock";

/// Exactly what an image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Digest of what the resolver was asked, see [`Request::digest`].
    pub request: Digest,
    /// The only clock of a build: date of the newest release, in seconds since 1970.
    pub source_date: i64,
    /// The releases that it was resolved from, in the definition's order.
    pub releases: Vec<Release>,
    /// All packages, sorted by name, use and version.
    pub packages: Vec<Package>,
}

/// One signed release of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Name of the archive.
    pub archive: String,
    /// Name of the suite.
    pub suite: String,
    /// Its date, in seconds since 1970.
    pub date: i64,
    /// Digest of the signed text.
    pub sha256: Digest,
}

/// One package, exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Name.
    pub name: String,
    /// What the image does with it.
    pub usage: Use,
    /// Version, as the archive writes it.
    pub version: String,
    /// Architecture, or `all`.
    pub architecture: String,
    /// Archive that it came from.
    pub archive: String,
    /// Path below the archive's base, such as `pool/main/b/bash/bash_5.2.37-2_amd64.deb`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the file.
    pub sha256: Digest,
}

/// What an image does with a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// Installed, with its maintainer scripts.
    Install,
    /// Extracted for the kernel and its modules.
    Kernel,
    /// Extracted for firmware.
    Firmware,
    /// Extracted for loaders.
    Loader,
    /// Extracted for what starts the disk.
    Boot,
}

impl Use {
    /// All uses, in the order of the lock.
    pub const ALL: [Self; 5] = [
        Self::Install,
        Self::Kernel,
        Self::Firmware,
        Self::Loader,
        Self::Boot,
    ];

    /// The word for it in the lock.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Kernel => "kernel",
            Self::Firmware => "firmware",
            Self::Loader => "loader",
            Self::Boot => "boot",
        }
    }
}

/// Why a lock could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no lock yet.
    #[error("there is no lock at `{path}`; `imagebuild lock` makes one")]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The text is not a lock.
    #[error("`{path}` is not a lock")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Malformed,
    },
}

/// Why a text is not a lock.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not TOML, an unknown key or a wrong type.
    #[error("line {line}: {message}")]
    Text {
        /// Line, counted from one.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A version of the format that this program does not know.
    #[error("it has version {0} of the format, this program knows version {version}", version = Lock::VERSION)]
    Version(i64),
    /// A value that no archive has.
    #[error("package `{package}` has the unusable {key} `{value}`")]
    Value {
        /// The package.
        package: String,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// Not in the order in which this program writes, or twice.
    #[error("package `{0}` is not where it belongs: a lock is written by `imagebuild lock` only")]
    Unsorted(String),
    /// A lock from before lists of packages had a digest.
    #[error("it has no digest of its packages; `imagebuild lock` makes a new one")]
    NoDigest,
    /// The list of packages was edited, or merged out of two.
    #[error(
        "its packages have digest {found}, not {expected}: they were edited or merged; `imagebuild lock` makes a new one"
    )]
    Packages {
        /// The digest that stands in the lock.
        expected: Digest,
        /// That of its packages.
        found: Digest,
    },
    /// A package from an archive that no release stands for.
    #[error("package `{package}` comes from archive `{archive}`, of which no release is locked")]
    UnknownArchive {
        /// The package.
        package: String,
        /// The archive.
        archive: String,
    },
}

impl Lock {
    /// The version of the format that this program reads and writes.
    pub const VERSION: i64 = 1;

    /// Loads a lock from its file.
    ///
    /// # Errors
    /// When there is none, or it is malformed.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            let path = path.to_path_buf();
            match source.kind() {
                std::io::ErrorKind::NotFound => Error::Absent { path },
                _ => Error::Read { path, source },
            }
        })?;
        Self::parse(&text).map_err(|source| Error::Malformed {
            path: path.to_path_buf(),
            source,
        })
    }

    /// Digest of the lock as it is written.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.render().as_bytes())
    }

    /// Bytes of all packages together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.packages.iter().map(|package| package.size).sum()
    }
}

/// A definition with the lock that was made for it: the only thing that is built.
#[derive(Clone, Debug)]
pub struct Locked {
    definition: Definition,
    lock: Lock,
}

impl Definition {
    /// Joins the definition with its lock.
    ///
    /// # Errors
    /// When the lock was made for something else, or does not hold what is asked for.
    pub fn lock(self, lock: Lock) -> Result<Locked, StaleLock> {
        answer::check(&self, &lock)?;
        Ok(Locked {
            definition: self,
            lock,
        })
    }
}

impl Locked {
    /// The definition.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// All packages of the lock.
    #[must_use]
    pub fn packages(&self) -> &[Package] {
        &self.lock.packages
    }

    /// The lock, which is fresh.
    #[must_use]
    pub fn as_lock(&self) -> &Lock {
        &self.lock
    }
}

#[cfg(test)]
mod tests;
