//! Fetches locked packages into the cache.
//!
//! It refuses bytes that differ from the lock, wherever they come from, and resolves nothing: what is not in the lock
//! is not asked for. Sources are tried in order: the cache, the store's files, mirrors, a snapshot archive.

use std::path::PathBuf;

use crate::cache::Cache;
use crate::lock::Package;
use crate::mirror::Mirrors;

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
