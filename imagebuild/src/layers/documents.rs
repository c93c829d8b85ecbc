//! The documents of a container image: do they name the layers of the image, and nothing else?
//!
//! It refuses to believe a store's index: every document is read by its digest, and compared with the manifest.

use image_manifest::layout::Layout;
use image_manifest::{Digest, Layer, LayerBlob, Manifest};
use image_oci::compress::Encoding;
use image_oci::image::TREE;
use image_oci::spec::{self, Config, Document};

use crate::gather;

/// Why the documents are not those of the image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They could not be found or read.
    #[error("failed to read the container image `{name}`")]
    Read {
        /// Its name.
        name: String,
        /// Why.
        source: gather::Error,
    },
    /// There are none.
    #[error("the store has no container image `{0}` that was built with the image")]
    Absent(String),
    /// One of them says something else.
    #[error("container image `{name}`: {what} {digest} is not the image's: {reason}")]
    Differs {
        /// Its name.
        name: String,
        /// What kind of document.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// What is different.
        reason: &'static str,
    },
}

/// The container image of an image, as a store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Digest of its index.
    pub index: Digest,
    /// Digest of its manifest of layers under gzip.
    pub gzip: Digest,
    /// Digest of its manifest of layers under zstd.
    pub zstd: Digest,
}

impl Container {
    /// The names of its documents, for tools that can choose in an index and for those that cannot.
    #[must_use]
    pub fn names(&self, manifest: &Manifest) -> [(String, Digest); 3] {
        super::names(
            &self.name,
            &manifest.architecture,
            [self.index, self.gzip, self.zstd],
        )
    }
}

/// Checks the container image that was built with an image. An image without layers has none.
///
/// # Errors
/// The first document that is damaged, or is not the image's.
pub fn check(store: &Layout, manifest: &Manifest) -> Result<Option<Container>, Error> {
    if manifest.layers.is_empty() {
        return Ok(None);
    }
    let name = super::name_of(&manifest.name);
    let check = Check {
        store,
        manifest,
        name: name.clone(),
    };
    let found = gather::container(store, manifest).map_err(|error| check.read(error))?;
    let found = found.ok_or(Error::Absent(name))?;
    check.container(&found.digest).map(Some)
}

struct Check<'a> {
    store: &'a Layout,
    manifest: &'a Manifest,
    name: String,
}

impl Check<'_> {
    /// Checks every manifest of this platform; there is one an encoding.
    fn container(&self, digest: &Digest) -> Result<Container, Error> {
        let Document::Index(index) = self.document(digest)? else {
            return Err(self.differs("document", digest, "it is no index"));
        };
        let [mut gzip, mut zstd] = [None; 2];
        for child in &index.manifests {
            let Document::Manifest(found) = self.document(&child.digest)? else {
                return Err(self.differs("document", &child.digest, "it is no manifest"));
            };
            let revision = self.manifest.inputs.hex();
            if found.annotations.get(gather::REVISION) != Some(&revision) {
                // Another platform's.
                continue;
            }
            match self.layers(&child.digest, &found)? {
                Encoding::Zstd => zstd = Some(child.digest),
                Encoding::Gzip | Encoding::Plain => gzip = Some(child.digest),
            }
            self.config(&found.config.digest)?;
        }
        let missing = || self.differs("index", digest, "an encoding is missing");
        Ok(Container {
            name: self.name.clone(),
            index: *digest,
            gzip: gzip.ok_or_else(missing)?,
            zstd: zstd.ok_or_else(missing)?,
        })
    }

    /// Compares the layers that a manifest names, and tells their encoding.
    fn layers(&self, digest: &Digest, found: &spec::Manifest) -> Result<Encoding, Error> {
        let is = |media_type, blob: fn(&Layer) -> &LayerBlob| {
            let known = self.manifest.layers.iter().map(blob);
            let known = known.map(|blob| (media_type, blob.digest, blob.size));
            let named = found.layers.iter();
            known.eq(named.map(|one| (one.media_type.as_str(), one.digest, one.size)))
        };
        if is(spec::LAYER_GZIP, |layer| &layer.gzip) {
            Ok(Encoding::Gzip)
        } else if is(spec::LAYER_ZSTD, |layer| &layer.zstd) {
            Ok(Encoding::Zstd)
        } else {
            Err(self.differs("manifest", digest, "it names other layers"))
        }
    }

    fn config(&self, digest: &Digest) -> Result<(), Error> {
        let bytes = self.store.read(digest);
        let bytes = bytes.map_err(|error| self.read(error.into()))?;
        let config = Config::parse(&bytes).map_err(|source| {
            let what = digest.to_string();
            self.read(gather::Error::Document { what, source })
        })?;
        let layers = self.manifest.layers.iter().map(|layer| &layer.diff_id);
        if !layers.eq(&config.rootfs.diff_ids) {
            return Err(self.differs("configuration", digest, "it names other layers"));
        }
        if config.config.labels.get(TREE) != Some(&self.manifest.tree.to_string()) {
            return Err(self.differs("configuration", digest, "it names another tree"));
        }
        Ok(())
    }

    fn document(&self, digest: &Digest) -> Result<Document, Error> {
        let bytes = self.store.read(digest);
        let bytes = bytes.map_err(|error| self.read(error.into()))?;
        gather::parse(&bytes, *digest).map_err(|error| self.read(error))
    }

    fn read(&self, source: gather::Error) -> Error {
        let name = self.name.clone();
        Error::Read { name, source }
    }

    fn differs(&self, what: &'static str, digest: &Digest, reason: &'static str) -> Error {
        Error::Differs {
            name: self.name.clone(),
            what,
            digest: *digest,
            reason,
        }
    }
}
