//! Writes the container image of an image into an OCI image layout of its own, with all that is attached to it.
//!
//! It refuses to name a document there before all that it names is there, and files that do not have their digest.

use std::path::{Path, PathBuf};

use image_manifest::layout::{self, Entry, Layout};
use image_manifest::{Digest, Layer, Manifest};

use crate::gather::{self, Load, Sheet};
use crate::layers::{self, Container};

/// Why a container image could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image has no container form.
    #[error(
        "image `{0}` has no container image: its definition does not list `oci` among its `outputs`"
    )]
    NoContainer(String),
    /// Its documents are not the image's.
    #[error(transparent)]
    Documents(#[from] layers::DocumentsError),
    /// What belongs to it could not be gathered.
    #[error("failed to gather the container image `{name}`")]
    Gather {
        /// Its name.
        name: String,
        /// Why.
        source: gather::Error,
    },
    /// A file of the store could not be read, or the layout not be written.
    #[error("failed to export `{name}` to `{}`", directory.display())]
    Copy {
        /// Name of the container image.
        name: String,
        /// The layout.
        directory: PathBuf,
        /// Why.
        source: layout::Error,
    },
    /// A file of the store is damaged.
    #[error("{what} of `{name}` is damaged: it has digest {found} instead of {expected}")]
    Damaged {
        /// Name of the container image.
        name: String,
        /// Which file.
        what: String,
        /// What it should have.
        expected: Digest,
        /// What it has.
        found: Digest,
    },
}

/// A container image that was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Its names in the layout: the index, then one for each of its manifests.
    pub names: Vec<String>,
    /// Digest of the index.
    pub digest: Digest,
    /// Bytes of all files and documents.
    pub size: u64,
}

/// Writes the container image of an image into a directory: an OCI image layout, made if it is absent. What is in it
/// stays.
///
/// # Errors
/// When the image has none, the store's is damaged, or the directory cannot be written or is something else.
pub fn to_layout(store: &Layout, manifest: &Manifest, directory: &Path) -> Result<Exported, Error> {
    let container = layers::check_documents(store, manifest)?;
    let container = container.ok_or_else(|| Error::NoContainer(manifest.name.clone()))?;
    let copying = Copying {
        store,
        manifest,
        name: &container.name,
        directory,
    };
    let load = copying.gather(&container)?;
    let target = Layout::create(directory).map_err(|error| copying.failed(error))?;
    for digest in load.files.keys() {
        copying.file(&target, digest)?;
    }
    for sheet in &load.sheets {
        let put = target.put(&sheet.bytes);
        put.map_err(|error| copying.failed(error))?;
    }
    enter(&target, &load).map_err(|error| copying.failed(error))?;
    let documents = load.sheets.iter().map(|sheet| sheet.bytes.len() as u64);
    Ok(Exported {
        size: load.files.values().sum::<u64>() + documents.sum::<u64>(),
        names: load.names.into_keys().collect(),
        digest: container.index,
    })
}

struct Copying<'a> {
    store: &'a Layout,
    manifest: &'a Manifest,
    name: &'a str,
    directory: &'a Path,
}

impl Copying<'_> {
    /// Gathers the documents, under the names that the store has for them.
    fn gather(&self, container: &Container) -> Result<Load, Error> {
        let gathered = |source| Error::Gather {
            name: self.name.to_owned(),
            source,
        };
        let mut load = Load::default();
        for (name, digest) in container.names(self.manifest) {
            load.root(self.store, digest, name).map_err(gathered)?;
        }
        load.attachments(self.store).map_err(gathered)?;
        Ok(load)
    }

    /// Copies a file that the layout does not have.
    fn file(&self, target: &Layout, digest: &Digest) -> Result<(), Error> {
        if target.blob(digest).exists() {
            return Ok(());
        }
        let copied = target.import(&self.store.blob(digest));
        let (found, _) = copied.map_err(|error| self.failed(error))?;
        if found == *digest {
            return Ok(());
        }
        let layer = |layer: &&Layer| [layer.gzip.digest, layer.zstd.digest].contains(digest);
        let layer = self.manifest.layers.iter().find(layer);
        Err(Error::Damaged {
            name: self.name.to_owned(),
            what: layer.map_or_else(
                || "a file".to_owned(),
                |layer| format!("layer `{}`", layer.definition),
            ),
            expected: *digest,
            found,
        })
    }

    fn failed(&self, source: layout::Error) -> Error {
        Error::Copy {
            name: self.name.to_owned(),
            directory: self.directory.to_owned(),
            source,
        }
    }
}

/// Enters all that is named or attached; what is only named by an index is found through that.
fn enter(target: &Layout, load: &Load) -> Result<(), layout::Error> {
    let entry = |sheet: &Sheet, name: Option<String>| Entry {
        media_type: sheet.media_type.clone(),
        digest: sheet.digest,
        size: sheet.bytes.len() as u64,
        artifact_type: sheet.subject.and(sheet.descriptor.artifact_type.clone()),
        name,
    };
    let attached = load.sheets.iter().filter(|sheet| sheet.subject.is_some());
    for sheet in attached {
        target.enter(&entry(sheet, None))?;
    }
    for (name, digest) in &load.names {
        if let Some(sheet) = load.sheets.iter().find(|sheet| sheet.digest == *digest) {
            target.enter(&entry(sheet, Some(name.clone())))?;
        }
    }
    Ok(())
}
