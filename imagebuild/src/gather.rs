//! What belongs to an image in a store: its documents, the files that they name, and what is attached to them.
//!
//! It refuses to guess which container image is an image's: the one that was built from the same inputs.

use std::collections::{BTreeMap, BTreeSet};

use image_manifest::layout::{self, Entry, Layout};
use image_manifest::{Digest, Manifest};
use image_oci::spec::{self, Descriptor, Document};

use crate::layers;

/// Annotation of a container image that says what it was built from.
pub(crate) const REVISION: &str = "org.opencontainers.image.revision";

/// Why things could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not have them, or what it has is damaged.
    #[error(transparent)]
    Store(#[from] layout::Error),
    /// A document was refused.
    #[error("`{what}` is no image that can be used")]
    Document {
        /// What it is.
        what: String,
        /// Why.
        source: spec::Error,
    },
}

/// A document on its way.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// All of it.
    pub bytes: Vec<u8>,
    /// What it is about, when it is attached to something.
    pub subject: Option<Digest>,
    /// What others are told of it.
    pub descriptor: Descriptor,
}

/// Documents, in an order in which each comes after those that it names, and their files.
#[derive(Debug, Default)]
pub struct Load {
    /// The documents.
    pub sheets: Vec<Sheet>,
    /// The files that they name, with their sizes.
    pub files: BTreeMap<Digest, u64>,
    /// Names, and the documents that have them.
    pub names: BTreeMap<String, Digest>,
    seen: BTreeSet<Digest>,
}

impl Load {
    /// Takes a document under a name, after all that it names.
    ///
    /// # Errors
    /// When the store does not have it all.
    pub fn root(&mut self, store: &Layout, digest: Digest, name: String) -> Result<(), Error> {
        self.document(store, digest)?;
        self.names.insert(name, digest);
        Ok(())
    }

    /// Takes what is attached to the documents that were taken.
    ///
    /// # Errors
    /// When the store does not have it all.
    pub fn attachments(&mut self, store: &Layout) -> Result<(), Error> {
        // Attachments may have attachments of their own: a signature of a list of parts.
        let mut at = 0;
        while at < self.sheets.len() {
            let subject = self.sheets[at].digest;
            for entry in store.referrers(&subject)? {
                self.document(store, entry.digest)?;
            }
            let signature = layout::signature_name(&subject);
            if let Some(entry) = store.named(&signature)? {
                self.root(store, entry.digest, signature)?;
            }
            at += 1;
        }
        Ok(())
    }

    fn document(&mut self, store: &Layout, digest: Digest) -> Result<(), Error> {
        if !self.seen.insert(digest) {
            return Ok(());
        }
        let bytes = store.read(&digest)?;
        let document = parse(&bytes, digest)?;
        let (media_type, artifact_type, annotations) = match &document {
            Document::Index(index) => {
                for child in &index.manifests {
                    self.document(store, child.digest)?;
                }
                let kind = index.artifact_type.clone();
                (spec::INDEX, kind, index.annotations.clone())
            }
            Document::Manifest(manifest) => {
                let files = manifest.layers.iter().chain([&manifest.config]);
                self.files
                    .extend(files.map(|file| (file.digest, file.size)));
                // What has no type of its own is known by that of its configuration.
                let kind = manifest.artifact_type.clone();
                let kind = kind.or_else(|| Some(manifest.config.media_type.clone()));
                (spec::MANIFEST, kind, manifest.annotations.clone())
            }
        };
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size: bytes.len() as u64,
            artifact_type,
            platform: None,
            annotations,
        };
        self.sheets.push(Sheet {
            digest,
            media_type: media_type.to_owned(),
            bytes,
            subject: document.subject().map(|subject| subject.digest),
            descriptor,
        });
        Ok(())
    }
}

pub(crate) fn parse(bytes: &[u8], digest: Digest) -> Result<Document, Error> {
    Document::parse(bytes, None).map_err(|source| Error::Document {
        what: digest.to_string(),
        source,
    })
}

/// Finds the container image that was built with an image: the one that has its name, or an earlier one that lost it.
///
/// # Errors
/// When the index, or the container image that has the name, cannot be read.
pub fn container(store: &Layout, manifest: &Manifest) -> Result<Option<Entry>, Error> {
    let revision = manifest.inputs.hex();
    if let Some(named) = store.named(&layers::name_of(&manifest.name))?
        && is_of(store, &named, &revision)?
    {
        return Ok(Some(named));
    }
    let earlier = store.entries()?.into_iter();
    let earlier = earlier.filter(|entry| entry.name.is_none() && entry.media_type == spec::INDEX);
    // What has no name and cannot be read is nobody's.
    let found = earlier
        .rev()
        .find(|entry| is_of(store, entry, &revision).unwrap_or(false));
    Ok(found)
}

/// Whether a container image was built from these inputs, for whichever of its platforms.
fn is_of(store: &Layout, container: &Entry, revision: &str) -> Result<bool, Error> {
    let says = |annotations: &BTreeMap<String, String>| {
        annotations.get(REVISION).is_some_and(|it| it == revision)
    };
    match parse(&store.read(&container.digest)?, container.digest)? {
        Document::Manifest(manifest) => Ok(says(&manifest.annotations)),
        Document::Index(index) if says(&index.annotations) => Ok(true),
        Document::Index(index) => {
            for child in &index.manifests {
                let child = parse(&store.read(&child.digest)?, child.digest)?;
                if matches!(child, Document::Manifest(manifest) if says(&manifest.annotations)) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}
