//! The files that the appliance serves: loaders by name, artifacts by digest.
//!
//! It refuses to know paths: what is not a loader of an image in the store, or a digest that the store holds, has no
//! name here, so no request can lead anywhere else.

mod map;
#[cfg(test)]
pub(super) mod tests;
mod transfer;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use bytes::Bytes;
use image_manifest::layout::{self, Found, Layout};
use image_manifest::{Digest, Role, Signed};
use netboot_core::tftp::{Mode, to_netascii};

use crate::cli::report::chain;

pub use transfer::{End, Outcome, Transfer, TransferLog, Wanted};

/// Files that are kept mapped: every loader of a site and the artifacts of some images. A mapping costs address space and,
/// for what is read, page cache that is shared with everyone else.
const OPEN_FILES: usize = 64;
/// Largest file that is turned into its netascii form, which is a copy in memory. Loaders are 1 MiB; who wants more
/// asks in octet mode, as all firmware does.
const NETASCII_LIMIT: u64 = 4 << 20;
/// The image whose loaders win when two images have one of the same name.
const LOADERS_IMAGE: &str = "loaders";

/// A program that firmware loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loader {
    /// The name that it is asked for.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// Why a file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No image in the store has a loader of this name.
    #[error("no image in the store has a loader `{0}`")]
    NoLoader(String),
    /// The store holds nothing with this digest.
    #[error("the store holds no artifact {0}")]
    NoArtifact(Digest),
    /// A file of the store is not there, or not readable.
    #[error("failed to open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the store does not have the size that its manifest gives.
    #[error("`{}` has {found} bytes instead of {expected}: the store is damaged", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Size in the manifest.
        expected: u64,
        /// Size on disk.
        found: u64,
    },
    /// The file is too large for netascii.
    #[error("`{0}` is too large for netascii mode: ask in octet (binary) mode")]
    Netascii(String),
}

impl OpenError {
    /// What a client is told: the reason, and no path of ours.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::NoLoader(_) | Self::NoArtifact(_) | Self::Netascii(_) => self.to_string(),
            Self::Open { .. } => "the appliance cannot read this file of its store".to_owned(),
            Self::Size { .. } => "this file is damaged in the appliance's store".to_owned(),
        }
    }
}

/// The files that the appliance serves.
#[derive(Debug)]
pub struct Catalogue {
    store: Layout,
    loaders: RwLock<Arc<Loaders>>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Loaders {
    by_name: BTreeMap<String, Loader>,
    /// The store's index as it was read.
    index: Option<(SystemTime, u64)>,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<(Digest, Mode), (Bytes, u64)>,
    clock: u64,
}

impl Catalogue {
    /// Serves from a store.
    ///
    /// # Errors
    /// When the images of the store cannot be read.
    pub fn new(store: Layout) -> Result<Self, layout::Error> {
        let index = Self::index(&store);
        let by_name = read_loaders(&store)?;
        Ok(Self {
            loaders: RwLock::new(Arc::new(Loaders { by_name, index })),
            open: Mutex::default(),
            store,
        })
    }

    /// Lists the loaders that are served, by name.
    #[must_use]
    pub fn loaders(&self) -> Vec<Loader> {
        self.current().by_name.values().cloned().collect()
    }

    /// Finds a loader by name. A newer image is served as soon as the store's index names it.
    ///
    /// # Errors
    /// When there is none.
    pub fn loader(&self, name: &str) -> Result<Loader, OpenError> {
        let loaders = self.current();
        let found = loaders.by_name.get(name).cloned();
        found.ok_or_else(|| OpenError::NoLoader(name.to_owned()))
    }

    /// Opens a loader, in the form that a TFTP mode asks for.
    ///
    /// # Errors
    /// When the store lacks it, or has another file in its place.
    pub fn open_loader(&self, loader: &Loader, mode: Mode) -> Result<Bytes, OpenError> {
        if let Some(bytes) = self.cached(&loader.digest, mode) {
            return Ok(bytes);
        }
        let bytes = self.open(&loader.digest)?;
        if bytes.len() as u64 != loader.size {
            return Err(OpenError::Size {
                path: self.store.blob(&loader.digest),
                expected: loader.size,
                found: bytes.len() as u64,
            });
        }
        match mode {
            Mode::Octet => Ok(bytes),
            Mode::Netascii if loader.size > NETASCII_LIMIT => {
                Err(OpenError::Netascii(loader.name.clone()))
            }
            Mode::Netascii => {
                let text = Bytes::from(to_netascii(&bytes));
                self.keep((loader.digest, mode), text.clone());
                Ok(text)
            }
        }
    }

    /// Returns the bytes of an artifact if it is open already: this never touches the disk.
    #[must_use]
    pub fn opened(&self, digest: &Digest) -> Option<Bytes> {
        self.cached(digest, Mode::Octet)
    }

    /// Opens an artifact by digest. The bytes are a mapping of the file, not a copy.
    ///
    /// # Errors
    /// When the store does not hold it.
    pub fn open(&self, digest: &Digest) -> Result<Bytes, OpenError> {
        if let Some(bytes) = self.opened(digest) {
            return Ok(bytes);
        }
        let path = self.store.blob(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::NoArtifact(*digest));
            }
            Err(source) => return Err(OpenError::Open { path, source }),
        };
        let bytes = map::map(&file).map_err(|source| OpenError::Open { path, source })?;
        self.keep((*digest, Mode::Octet), bytes.clone());
        Ok(bytes)
    }

    /// Finds the manifest that lists a root file system, with its signatures.
    ///
    /// # Errors
    /// When no image of the store has it.
    pub fn signed(&self, rootfs: &Digest) -> Result<Signed, OpenError> {
        let found = self.store.signed(rootfs).map_err(|error| OpenError::Open {
            path: self.store.root().to_owned(),
            source: io::Error::other(error),
        })?;
        found.ok_or(OpenError::NoArtifact(*rootfs))
    }

    fn cached(&self, digest: &Digest, mode: Mode) -> Option<Bytes> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clock += 1;
        let now = open.clock;
        let (bytes, used) = open.files.get_mut(&(*digest, mode))?;
        *used = now;
        Some(bytes.clone())
    }

    /// Keeps a file open, and lets go of the one that was not used for longest.
    fn keep(&self, key: (Digest, Mode), bytes: Bytes) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clock += 1;
        let now = open.clock;
        if open.files.len() >= OPEN_FILES && !open.files.contains_key(&key) {
            let oldest = open.files.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                open.files.remove(&oldest);
            }
        }
        open.files.insert(key, (bytes, now));
    }

    /// Returns the loaders, read anew when the store's index has changed.
    fn current(&self) -> Arc<Loaders> {
        let now = Self::index(&self.store);
        let loaders = Arc::clone(&self.loaders.read().unwrap_or_else(PoisonError::into_inner));
        if now == loaders.index {
            return loaders;
        }
        let by_name = match read_loaders(&self.store) {
            Ok(by_name) => by_name,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "loaders not read anew, the old ones stay");
                loaders.by_name.clone()
            }
        };
        let loaders = Arc::new(Loaders {
            by_name,
            index: now,
        });
        *self.loaders.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&loaders);
        loaders
    }

    fn index(store: &Layout) -> Option<(SystemTime, u64)> {
        let index = fs::metadata(store.root().join("index.json")).ok()?;
        Some((index.modified().ok()?, index.len()))
    }
}

fn read_loaders(store: &Layout) -> Result<BTreeMap<String, Loader>, layout::Error> {
    let mut images = store.images()?;
    images.sort_by_key(|found| found.manifest.name == LOADERS_IMAGE);
    let artifacts = images
        .into_iter()
        .flat_map(|Found { manifest, .. }| manifest.artifacts);
    Ok(artifacts
        .filter(|artifact| artifact.role == Role::Loader)
        .map(|artifact| {
            let loader = Loader {
                name: artifact.name.clone(),
                digest: artifact.digest,
                size: artifact.size,
            };
            (artifact.name, loader)
        })
        .collect())
}
