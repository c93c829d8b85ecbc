//! The store: an OCI image layout on disk, in which every image is one artifact manifest.
//!
//! It refuses to change a file that has its name by digest, to show half of an image to a reader,
//! and to hand out bytes of a manifest that do not have the digest that they were asked for by.
//!
//! ```text
//! oci-layout              the format's version; writers hold an flock on it while they change index.json
//! index.json              all images; the newest of a name carries org.opencontainers.image.ref.name
//! blobs/sha256/<hex>      OCI manifests, our manifests (their config), artifacts (their layers)
//! ingest/<pid>-<n>        what is being written; locked by its writer, swept when that one is gone
//! ```

mod attach;
mod collect;
mod ingest;
mod oci;
mod signatures;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::{Artifact, Digest, Hasher, Manifest};
pub use attach::{Attachment, Entry};
pub use collect::{Action, Collected, Gone, Rules};
pub use ingest::Ingest;
use oci::{Descriptor, ImageManifest, Index, LayoutFile};
pub use signatures::signature_name;

/// Largest `index.json` that is read: some 50,000 images.
const INDEX_LIMIT: u64 = 16 << 20;
/// Largest OCI manifest or configuration that is read; registries stop at 4 MiB too.
const MANIFEST_LIMIT: u64 = 4 << 20;
/// All that stands in a store.
const OURS: [&str; 4] = ["blobs", "index.json", "ingest", "oci-layout"];
/// Longest name of an image.
const NAME_LIMIT: usize = 128;

/// A store of images: an OCI image layout directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

/// An image found in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Digest of its OCI manifest: what follows the `@` of a reference.
    pub digest: Digest,
    /// The list of its artifacts.
    pub manifest: Manifest,
}

/// Why a store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is no OCI image layout of a version that is known here.
    #[error("`{}` is not an OCI image layout: {reason}", path.display())]
    NotALayout {
        /// The directory.
        path: PathBuf,
        /// What is missing or different.
        reason: String,
    },
    /// A file or directory could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory could not be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store's lock could not be taken.
    #[error("failed to lock the store `{}`", path.display())]
    Lock {
        /// The store.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not the JSON that it should be.
    #[error("failed to parse `{}`", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file is larger than this code is willing to read.
    #[error("`{}` is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The bytes of a file are not those that its name promises.
    #[error("`{}` holds {found}, not what its name says", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Digest of what it holds.
        found: Digest,
    },
    /// A text is not `name` or `name@sha256:…`.
    #[error("`{reference}` is not an image reference: {reason}")]
    Reference {
        /// The text.
        reference: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The store holds no such image.
    #[error("no image `{reference}` in `{}`", path.display())]
    NoImage {
        /// What was asked for.
        reference: String,
        /// The store.
        path: PathBuf,
    },
    /// The OCI manifest is not one of our images, or not one of this version.
    #[error("image {digest} is not one of ours: {reason}")]
    Foreign {
        /// Digest of the OCI manifest.
        digest: Digest,
        /// What is different.
        reason: String,
    },
}

impl Layout {
    /// Opens a store that exists.
    ///
    /// # Errors
    /// When the directory is not an OCI image layout of version 1.0.0.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Self { root: root.into() };
        let path = layout.version_path();
        let file: LayoutFile = match read_json(&path, MANIFEST_LIMIT) {
            Ok(file) => file,
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(layout.not_a_layout("it has no file `oci-layout`".to_owned()));
            }
            Err(error) => return Err(error),
        };
        if file.image_layout_version != oci::LAYOUT_VERSION {
            let reason = format!("its version is `{}`", file.image_layout_version);
            return Err(layout.not_a_layout(reason));
        }
        Ok(layout)
    }

    /// Opens a store, and makes it first when the directory is absent or empty.
    ///
    /// # Errors
    /// When the directory cannot be written, or holds something else.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Self { root: root.into() };
        if layout.version_path().exists() {
            let layout = Self::open(layout.root)?;
            layout.make_directories()?;
            ingest::sweep(&layout.ingest_path());
            return Ok(layout);
        }
        if let Ok(mut entries) = fs::read_dir(&layout.root)
            && entries.any(|entry| {
                // Another creator may be half way.
                entry.is_ok_and(|e| !OURS.iter().any(|ours| e.file_name() == *ours))
            })
        {
            return Err(layout.not_a_layout("the directory is not empty".to_owned()));
        }
        layout.make_directories()?;
        let file = LayoutFile {
            image_layout_version: oci::LAYOUT_VERSION.to_owned(),
        };
        // Never replaced: the writers' lock is held on this very file.
        let mut ingest = layout.ingest()?;
        ingest.append(&to_json(&file))?;
        ingest.finish_new(&layout.version_path())?;
        layout.update_index(|_| ())?;
        Ok(layout)
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the bytes with this digest stand, if the store has them.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Finds an image by `name` (the newest of that name) or by `name@sha256:…`.
    ///
    /// # Errors
    /// When the reference is malformed, when the store has no such image, and when what it has is
    /// damaged or was written by a later version.
    pub fn resolve(&self, reference: &str) -> Result<Found, Error> {
        let (name, digest) = parse_reference(reference)?;
        let index = self.index()?;
        let entry = index.manifests.iter().find(|entry| match digest {
            Some(digest) => entry.digest == digest,
            None => entry.reference() == Some(name),
        });
        let found = entry.map(|entry| self.load(&entry.digest)).transpose()?;
        match found {
            Some(found) if found.manifest.name == name => Ok(found),
            _ => Err(Error::NoImage {
                reference: reference.to_owned(),
                path: self.root.clone(),
            }),
        }
    }

    /// Lists the newest image of every name, sorted by name, without those of another version of
    /// this program: who asks for one of them by name is told.
    ///
    /// # Errors
    /// When the index or one of the images cannot be read.
    pub fn images(&self) -> Result<Vec<Found>, Error> {
        let index = self.index()?;
        let tagged = index.manifests.iter().filter(|e| e.reference().is_some());
        let mut images = tagged
            .filter(|entry| entry.artifact_type.as_deref() == Some(oci::ARTIFACT_TYPE))
            .map(|entry| self.load(&entry.digest))
            .filter(|loaded| !matches!(loaded, Err(Error::Foreign { .. })))
            .collect::<Result<Vec<_>, _>>()?;
        images.sort_by(|a, b| a.manifest.name.cmp(&b.manifest.name));
        Ok(images)
    }

    /// Starts to write bytes whose digest is not known yet.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn ingest(&self) -> Result<Ingest, Error> {
        Ingest::start(self)
    }

    /// Copies a file into the store and returns its digest and size.
    ///
    /// # Errors
    /// When the file cannot be read or the store cannot be written.
    pub fn import(&self, path: &Path) -> Result<(Digest, u64), Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(read)?;
        let mut ingest = self.ingest()?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let length = file.read(&mut buffer).map_err(read)?;
            if length == 0 {
                return ingest.finish();
            }
            ingest.append(&buffer[..length])?;
        }
    }

    /// Makes a manifest whose artifacts are all in the store the newest image of its name, and
    /// returns the digest that it is asked for by.
    ///
    /// An earlier image of that name stays in the store and keeps its digest.
    ///
    /// # Errors
    /// When an artifact is absent, and when the store cannot be written.
    pub fn publish(&self, manifest: &Manifest) -> Result<Digest, Error> {
        check_name(&manifest.name, &manifest.name)?;
        let config = self.store(&to_json(manifest))?;
        let image = to_json(&ImageManifest::new(manifest, config));
        let (digest, size) = self.store(&image)?;
        // Under the lock: what is there now is not swept before the index names it.
        let _lock = self.lock()?;
        for artifact in &manifest.artifacts {
            self.check_size(artifact)?;
        }
        self.change_index(|index| {
            index.tag(Descriptor::image(digest, size, &manifest.name));
        })?;
        Ok(digest)
    }

    /// Whether all artifacts of a manifest are in the store, by name and size.
    #[must_use]
    pub fn holds(&self, manifest: &Manifest) -> bool {
        let mut artifacts = manifest.artifacts.iter();
        artifacts.all(|artifact| self.check_size(artifact).is_ok())
    }

    /// Reads an artifact in full and compares size and digest with what its manifest promises.
    ///
    /// # Errors
    /// When it is absent, cannot be read, or is different.
    pub fn check(&self, artifact: &Artifact) -> Result<(), Error> {
        self.check_size(artifact)?;
        let path = self.blob(&artifact.digest);
        let read = |source| Error::Read {
            path: path.clone(),
            source,
        };
        let mut hasher = Hasher::new();
        let mut file = File::open(&path).map_err(read)?;
        io::copy(&mut file, &mut hasher).map_err(read)?;
        let found = hasher.finish();
        if found == artifact.digest {
            Ok(())
        } else {
            Err(Error::Corrupt { path, found })
        }
    }

    /// Compares the size of an artifact with what its manifest promises, and reads nothing of it.
    ///
    /// # Errors
    /// When it is absent, or of another size.
    pub fn check_size(&self, artifact: &Artifact) -> Result<(), Error> {
        let path = self.blob(&artifact.digest);
        let found = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(source) => return Err(Error::Read { path, source }),
        };
        if found == artifact.size {
            return Ok(());
        }
        let source = io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has {found} bytes, not {}", artifact.size),
        );
        Err(Error::Read { path, source })
    }

    fn load(&self, digest: &Digest) -> Result<Found, Error> {
        let digest = *digest;
        let foreign = |reason: String| Error::Foreign { digest, reason };
        let image: ImageManifest = self.read_blob(&digest)?;
        if image.artifact_type.as_deref() != Some(oci::ARTIFACT_TYPE)
            || image.config.media_type != oci::CONFIG_TYPE
        {
            return Err(foreign(format!("it is no `{}`", oci::ARTIFACT_TYPE)));
        }
        let config: serde_json::Value = self.read_blob(&image.config.digest)?;
        let schema = config.get("schema").and_then(serde_json::Value::as_u64);
        if schema != Some(u64::from(Manifest::SCHEMA)) {
            let known = Manifest::SCHEMA;
            return Err(foreign(format!(
                "its manifest is not of schema {known}, which this program reads: rebuild it"
            )));
        }
        let manifest: Manifest = serde_json::from_value(config).map_err(|source| Error::Parse {
            path: self.blob(&image.config.digest),
            source,
        })?;
        if !image.lists(&manifest) {
            return Err(foreign("its layers are not its artifacts".to_owned()));
        }
        Ok(Found { digest, manifest })
    }

    fn read_blob<T: DeserializeOwned>(&self, digest: &Digest) -> Result<T, Error> {
        let path = self.blob(digest);
        let bytes = read_bounded(&path, MANIFEST_LIMIT)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::Corrupt { path, found });
        }
        serde_json::from_slice(&bytes).map_err(|source| Error::Parse { path, source })
    }

    fn store(&self, bytes: &[u8]) -> Result<(Digest, u64), Error> {
        let mut ingest = self.ingest()?;
        ingest.append(bytes)?;
        ingest.finish()
    }

    fn index(&self) -> Result<Index, Error> {
        read_json(&self.index_path(), INDEX_LIMIT)
    }

    /// Changes the index under the store's lock, so that two writers never lose each other's image.
    fn update_index(&self, change: impl FnOnce(&mut Index)) -> Result<(), Error> {
        let _lock = self.lock()?;
        self.change_index(change)
    }

    /// Takes the lock of all who change the store's index; dropping it lets go.
    fn lock(&self) -> Result<File, Error> {
        let lock_error = |source| Error::Lock {
            path: self.root.clone(),
            source,
        };
        let lock = File::open(self.version_path()).map_err(lock_error)?;
        lock.lock().map_err(lock_error)?;
        Ok(lock)
    }

    fn change_index(&self, change: impl FnOnce(&mut Index)) -> Result<(), Error> {
        let mut index = match self.index() {
            Ok(index) => index,
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Index::default()
            }
            Err(error) => return Err(error),
        };
        let before = to_json(&index);
        change(&mut index);
        let after = to_json(&index);
        if before != after || !self.index_path().exists() {
            self.replace(&self.index_path(), &after)?;
        }
        Ok(())
    }

    /// Writes a file that readers see either as it was or as it will be.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let mut ingest = self.ingest()?;
        ingest.append(bytes)?;
        ingest.finish_as(path)
    }

    fn make_directories(&self) -> Result<(), Error> {
        for path in [self.root.join("blobs/sha256"), self.ingest_path()] {
            fs::create_dir_all(&path).map_err(|source| Error::Write { path, source })?;
        }
        Ok(())
    }

    fn not_a_layout(&self, reason: String) -> Error {
        Error::NotALayout {
            path: self.root.clone(),
            reason,
        }
    }

    fn version_path(&self) -> PathBuf {
        self.root.join("oci-layout")
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }

    fn ingest_path(&self) -> PathBuf {
        self.root.join("ingest")
    }
}

/// Splits `name` or `name@sha256:…`.
///
/// # Errors
/// When the name is not one that a registry takes as a tag, or the digest is malformed.
pub fn parse_reference(reference: &str) -> Result<(&str, Option<Digest>), Error> {
    let (name, digest) = match reference.split_once('@') {
        None => (reference, None),
        Some((name, digest)) => {
            let digest = digest.parse().map_err(|_| Error::Reference {
                reference: reference.chars().take(2 * NAME_LIMIT).collect(),
                reason: "what follows `@` is not `sha256:` and 64 hexadecimal digits",
            })?;
            (name, Some(digest))
        }
    };
    check_name(name, reference)?;
    Ok((name, digest))
}

fn check_name(name: &str, reference: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let reason = if name.is_empty() || name.len() > NAME_LIMIT {
        "a name has 1 to 128 characters"
    } else if !name.starts_with(plain) {
        "a name starts with a lowercase letter or a digit"
    } else if !name
        .chars()
        .all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
    {
        "a name has lowercase letters, digits, `.`, `_` and `-` only"
    } else {
        return Ok(());
    };
    Err(Error::Reference {
        reference: reference.chars().take(2 * NAME_LIMIT).collect(),
        reason,
    })
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(read)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > limit {
        let path = path.to_owned();
        return Err(Error::TooLarge { path, limit });
    }
    Ok(bytes)
}

fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<T, Error> {
    let bytes = read_bounded(path, limit)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Parse {
        path: path.to_owned(),
        source,
    })
}

/// Writes one of our own types, none of which can fail to become JSON.
fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
