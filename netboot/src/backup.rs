//! Backups: everything that an appliance knows, in one archive, taken while it runs.
//!
//! It refuses to trust an archive: each file in it has its digest in the manifest, and is compared with it before a
//! restored directory gets its name. It holds keys: it is as secret as the data directory itself.

mod archive;
mod restore;
mod take;

use std::io;
use std::path::PathBuf;

use image_manifest::Digest;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

pub use restore::restore;
pub use take::{Taken, sweep, take};

/// Reads an archive and compares each file with the manifest.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub fn check(from: impl io::Read) -> Result<Manifest, BackupError> {
    archive::read(from, |_, _| Ok(()))
}

/// Version of the archive's form.
const FORMAT: u32 = 1;

/// Name of the manifest in the archive: its first entry.
const MANIFEST: &str = "manifest.json";

/// Most files, and most bytes of all but the database.
const FILES_MAX: usize = 20_000;
const BYTES_MAX: u64 = 512 << 20;

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifest {
    /// Version of the archive's form.
    pub format: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// When it was taken, in milliseconds since 1970.
    pub taken_ms: u64,
    /// The end of the audit log: `SEQ:sha256:…`.
    pub audit: String,
    /// Its files and links, by path.
    pub entries: Vec<Entry>,
}

/// One file or link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// Where it stands in the data directory.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum What {
    /// A file.
    File {
        /// Its size.
        size: u64,
        /// Its digest.
        digest: Digest,
        /// Who may read it.
        mode: u32,
    },
    /// A link to something beside it.
    Link {
        /// Where it points.
        target: String,
    },
}

/// Why a backup cannot be taken or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database could not be copied or read.
    #[error("failed to copy the store")]
    Store(#[from] StoreError),
    /// The data directory holds too much.
    #[error("the data directory holds more than {FILES_MAX} files or {} MiB beside the store", BYTES_MAX >> 20)]
    TooLarge,
    /// The site was applied again and again while it was copied.
    #[error("files of the data directory changed while they were copied")]
    Unsteady,
    /// The audit log in the archive does not fit its manifest.
    #[error("the audit log does not hold together: {0}")]
    Audit(String),
    /// The archive could not be read.
    #[error("failed to read the archive")]
    Archive(#[source] io::Error),
    /// The archive is not one of ours, or of a newer version.
    #[error("the archive cannot be used: {0}")]
    Unusable(String),
    /// A file in the archive is not what the manifest says.
    #[error("`{path}` in the archive is damaged")]
    Damaged {
        /// The file.
        path: String,
    },
    /// The directory to restore into is in use.
    #[error("`{}` is not empty", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
}
