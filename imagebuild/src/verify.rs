//! Turns stored artifacts and composed forms back into the listing and compares.
//!
//! It refuses to take one artifact's word for another: every digest is computed from bytes, the
//! tree is read from the root file system itself, and every form is read back the way that others
//! would read it.

mod file;
mod form;
mod pieces;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use image_manifest::layout::{self, Found, Layout};
use image_manifest::{Artifact, Digest, Manifest, Role};
use image_tree::listing::{self, Difference};
use image_tree::squashfs;
use serde::Serialize;

use crate::{forms, layers};
pub use file::{Signed, verify_files};
pub use form::Fault;

/// Largest listing that is read: some five million paths.
const LISTING_LIMIT: u64 = 1 << 30;

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verified {
    /// Name of the image.
    pub name: String,
    /// Digest that it is asked for by.
    pub manifest: Digest,
    /// The tree digest, computed from the root file system where there is one.
    pub tree: Digest,
    /// Names of the artifacts whose bytes have the digests that the manifest promises.
    pub artifacts: Vec<String>,
    /// Names of the artifacts, forms and layers that hold the tree.
    pub trees: Vec<String>,
    /// Names of the forms that were composed and have the digests that the manifest promises.
    pub forms: Vec<String>,
    /// The layers that were turned back into the listing, by encoding.
    pub layers: Vec<String>,
    /// The container image whose documents name these layers and this tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// Why an image is not what its manifest says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image could not be found in the store.
    #[error("failed to find `{reference}` in the store")]
    Find {
        /// What was asked for.
        reference: String,
        /// Why.
        source: layout::Error,
    },
    /// An artifact is absent or damaged.
    #[error("artifact `{artifact}` is damaged{}", told_place(place.as_deref()))]
    Damaged {
        /// The artifact's name.
        artifact: String,
        /// Where, if that could be found out.
        place: Option<String>,
        /// Why.
        source: layout::Error,
    },
    /// An artifact could not be read.
    #[error("failed to read artifact `{artifact}`")]
    Read {
        /// The artifact's name.
        artifact: String,
        /// Why.
        source: io::Error,
    },
    /// The image has no listing.
    #[error("the image has no listing")]
    NoListing,
    /// The listing does not have the tree digest of the manifest.
    #[error("artifact `{artifact}` lists tree {found}, the manifest says {expected}")]
    Identity {
        /// The listing's name.
        artifact: String,
        /// What it has.
        found: Digest,
        /// What the manifest promises.
        expected: Digest,
    },
    /// A root file system could not be turned back into a tree.
    #[error("artifact `{artifact}` cannot be turned back into a tree")]
    Tree {
        /// The artifact's name.
        artifact: String,
        /// Why.
        source: squashfs::ReadError,
    },
    /// A root file system holds another tree.
    #[error("artifact `{artifact}` differs from the listing at `{}`: {}", difference.path, told(difference))]
    Differs {
        /// The artifact's name.
        artifact: String,
        /// Where and how.
        difference: Difference,
    },
    /// A loader is not a file of the tree.
    #[error("artifact `{artifact}` is no file of the tree")]
    Stray {
        /// The artifact's name.
        artifact: String,
    },
    /// An artifact of the disk was not made from the others.
    #[error("artifact `{artifact}` does not belong to the others: {reason}")]
    Unrelated {
        /// The artifact's name.
        artifact: String,
        /// What is different.
        reason: String,
    },
    /// The disk could not be composed.
    #[error(transparent)]
    Compose(#[from] forms::Error),
    /// A form is not what it should be.
    #[error("form `{form}` is not the image")]
    Form {
        /// Its file name.
        form: String,
        /// Why.
        source: Fault,
    },
    /// A layer is not what it should be.
    #[error(transparent)]
    Layers(#[from] layers::VerifyError),
    /// The documents of the container image are not what they should be.
    #[error(transparent)]
    Documents(#[from] layers::DocumentsError),
}

fn told(difference: &Difference) -> String {
    match (&difference.left, &difference.right) {
        (Some(listed), Some(found)) => format!("listed as `{listed}`, found as `{found}`"),
        (Some(listed), None) => format!("listed as `{listed}`, not found"),
        (None, Some(found)) => format!("not listed, found as `{found}`"),
        (None, None) => "the texts differ".to_owned(),
    }
}

fn told_place(place: Option<&str>) -> String {
    place.map_or_else(String::new, |place| format!(": {place}"))
}

/// Verifies an image of a store.
///
/// # Errors
/// The first thing that is not as the manifest says.
pub fn verify(store: &Layout, reference: &str) -> Result<Verified, Error> {
    let Found { digest, manifest } = find(store, reference)?;
    let listed = check_artifacts(store, &manifest)?;
    let mut trees = Vec::new();
    for artifact in &manifest.artifacts {
        match artifact.role {
            Role::Rootfs => {
                tracing::info!(artifact = artifact.name, "reading the tree");
                compare_rootfs(store, artifact, &listed)?;
                trees.push(artifact.name.clone());
            }
            Role::Loader => compare_loader(artifact, &listed)?,
            _ => {}
        }
    }
    let mut composed = Vec::new();
    if manifest.disk.is_some() {
        let disk = pieces::check(store, &manifest)?;
        for form in &manifest.forms {
            tracing::info!(form = form.name, bytes = form.size, "composing and reading");
            form::check(&disk, form, &manifest).map_err(|source| Error::Form {
                form: form.name.clone(),
                source,
            })?;
            composed.push(form.name.clone());
        }
    }
    trees.extend(composed.iter().cloned());
    let layers = layers::verify(store, &manifest, &listed)?;
    let container = container(store, digest, &manifest)?;
    let artifacts = manifest.artifacts.into_iter();
    Ok(Verified {
        name: manifest.name,
        manifest: digest,
        tree: manifest.tree,
        artifacts: artifacts.map(|artifact| artifact.name).collect(),
        trees,
        forms: composed,
        layers,
        container,
    })
}

/// Checks the documents of the container image. An earlier image of its name may have lost them to `gc`; the newest has
/// them.
fn container(store: &Layout, image: Digest, manifest: &Manifest) -> Result<Option<String>, Error> {
    let newest = store.named(&manifest.name).map_err(|source| Error::Find {
        reference: manifest.name.clone(),
        source,
    })?;
    match layers::check_documents(store, manifest) {
        Err(layers::DocumentsError::Absent(_)) if newest.is_none_or(|it| it.digest != image) => {
            Ok(None)
        }
        checked => Ok(checked?.map(|container| container.name)),
    }
}

fn find(store: &Layout, reference: &str) -> Result<Found, Error> {
    store.resolve(reference).map_err(|source| Error::Find {
        reference: reference.to_owned(),
        source,
    })
}

/// Checks the digests of all artifacts, and returns the listing.
fn check_artifacts(store: &Layout, manifest: &Manifest) -> Result<Vec<u8>, Error> {
    let listing = manifest.artifact(Role::Listing).ok_or(Error::NoListing)?;
    for artifact in &manifest.artifacts {
        let (artifact, bytes) = (artifact, artifact.size);
        tracing::info!(artifact = artifact.name, bytes, "checking the digest");
        store.check(artifact).map_err(|source| Error::Damaged {
            place: place_of(store, artifact, listing),
            artifact: artifact.name.clone(),
            source,
        })?;
    }
    if listing.digest != manifest.tree {
        return Err(Error::Identity {
            artifact: listing.name.clone(),
            found: listing.digest,
            expected: manifest.tree,
        });
    }
    read_listing(store, listing)
}

/// Says where a root file system is damaged: its bytes are all that is known of it.
fn place_of(store: &Layout, artifact: &Artifact, listing: &Artifact) -> Option<String> {
    let is_rootfs = artifact.role == Role::Rootfs && store.check(listing).is_ok();
    let listed = is_rootfs.then(|| read_listing(store, listing).ok())??;
    let file = File::open(store.blob(&artifact.digest)).ok()?;
    Some(pieces::damage(file, &listed))
}

fn path_of(store: &Layout, artifact: &Artifact) -> PathBuf {
    store.blob(&artifact.digest)
}

fn read_listing(store: &Layout, listing: &Artifact) -> Result<Vec<u8>, Error> {
    let read = |source| Error::Read {
        artifact: listing.name.clone(),
        source,
    };
    if listing.size > LISTING_LIMIT {
        return Err(read(io::Error::other("it has more than 1 GiB")));
    }
    fs::read(path_of(store, listing)).map_err(read)
}

/// Turns a root file system back into the listing.
fn compare_rootfs(store: &Layout, artifact: &Artifact, listed: &[u8]) -> Result<(), Error> {
    let file = File::open(path_of(store, artifact)).map_err(|source| Error::Read {
        artifact: artifact.name.clone(),
        source,
    })?;
    let tree = squashfs::read(file, squashfs::Limits::default());
    let tree = tree.map_err(|source| Error::Tree {
        artifact: artifact.name.clone(),
        source,
    })?;
    match listing::difference(listed, &tree.listing()) {
        None => Ok(()),
        Some(difference) => Err(Error::Differs {
            artifact: artifact.name.clone(),
            difference,
        }),
    }
}

/// A loader is a file of the tree, byte for byte.
fn compare_loader(artifact: &Artifact, listed: &[u8]) -> Result<(), Error> {
    let file = format!(" {} {}", artifact.size, artifact.digest);
    let mut lines = listed.split(|byte| *byte == b'\n');
    if lines.any(|line| line.ends_with(file.as_bytes())) {
        return Ok(());
    }
    Err(Error::Stray {
        artifact: artifact.name.clone(),
    })
}
