//! Turns stored artifacts back into the listing and compares.
//!
//! It refuses to take one artifact's word for another: every digest is computed from bytes, and
//! the tree is read from the root file system itself.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use image_manifest::layout::{self, Found, Layout};
use image_manifest::{Artifact, Digest, Role};
use image_tree::listing::{self, Difference};
use image_tree::squashfs;
use serde::Serialize;

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
    /// Names of the artifacts that were turned back into the listing.
    pub trees: Vec<String>,
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
    #[error("artifact `{artifact}` is damaged")]
    Damaged {
        /// The artifact's name.
        artifact: String,
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
}

fn told(difference: &Difference) -> String {
    match (&difference.left, &difference.right) {
        (Some(listed), Some(found)) => format!("listed as `{listed}`, found as `{found}`"),
        (Some(listed), None) => format!("listed as `{listed}`, not found"),
        (None, Some(found)) => format!("not listed, found as `{found}`"),
        (None, None) => "the texts differ".to_owned(),
    }
}

/// Verifies an image of a store.
///
/// # Errors
/// The first thing that is not as the manifest says.
pub fn verify(store: &Layout, reference: &str) -> Result<Verified, Error> {
    let found = store.resolve(reference).map_err(|source| Error::Find {
        reference: reference.to_owned(),
        source,
    })?;
    let Found { digest, manifest } = found;
    for artifact in &manifest.artifacts {
        tracing::info!(
            artifact = artifact.name,
            bytes = artifact.size,
            "checking the digest"
        );
        store.check(artifact).map_err(|source| Error::Damaged {
            artifact: artifact.name.clone(),
            source,
        })?;
    }
    let listing = manifest.artifact(Role::Listing).ok_or(Error::NoListing)?;
    let listed = read_listing(store, listing)?;
    if listing.digest != manifest.tree {
        return Err(Error::Identity {
            artifact: listing.name.clone(),
            found: listing.digest,
            expected: manifest.tree,
        });
    }
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
    Ok(Verified {
        name: manifest.name,
        manifest: digest,
        tree: manifest.tree,
        artifacts: manifest
            .artifacts
            .into_iter()
            .map(|artifact| artifact.name)
            .collect(),
        trees,
    })
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image_manifest::Manifest;
    use image_tree::{Entry, Tree};

    use super::*;

    fn image(tree: &Tree) -> Vec<u8> {
        let options = squashfs::Options {
            level: 3,
            time: 0,
            threads: 1,
        };
        let mut image = Cursor::new(Vec::new());
        squashfs::write(tree, options, &mut image).unwrap();
        image.into_inner()
    }

    fn store(layout: &Layout, role: Role, bytes: &[u8]) -> Artifact {
        let mut ingest = layout.ingest().unwrap();
        ingest.append(bytes).unwrap();
        let (digest, size) = ingest.finish().unwrap();
        Artifact {
            role,
            name: format!("{role:?}").to_lowercase(),
            media_type: "text/plain".to_owned(),
            digest,
            size,
        }
    }

    /// Publishes an image whose artifacts may be of different trees, and verifies it.
    fn run(
        listed: &Tree,
        rootfs: &Tree,
        loader: &[u8],
        promised: Digest,
    ) -> Result<Verified, Error> {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let manifest = Manifest {
            schema: Manifest::SCHEMA,
            name: "host".to_owned(),
            architecture: "amd64".to_owned(),
            distribution: "debian/trixie".to_owned(),
            tree: promised,
            lock: Digest::of(b""),
            inputs: Digest::of(b""),
            source_date: 0,
            builder: "test".to_owned(),
            kernel: None,
            disk: None,
            forms: Vec::new(),
            layers: Vec::new(),
            artifacts: vec![
                store(&layout, Role::Rootfs, &image(rootfs)),
                store(&layout, Role::Listing, &listed.listing()),
                store(&layout, Role::Loader, loader),
            ],
        };
        layout.publish(&manifest).unwrap();
        verify(&layout, "host")
    }

    #[test]
    fn every_artifact_must_be_of_the_same_tree() {
        let mut tree = Tree::new();
        tree.insert_all(b"etc/motd", Entry::file(&b"hello"[..], 0o644))
            .unwrap();
        let mut other = tree.clone();
        other
            .insert(b"etc/motd", Entry::file(&b"HELLO"[..], 0o644))
            .unwrap();
        let verified = run(&tree, &tree, b"hello", tree.digest()).unwrap();
        assert_eq!(verified.trees, ["rootfs"]);
        assert_eq!(verified.artifacts, ["rootfs", "listing", "loader"]);
        let cases = [
            (
                "content",
                run(&tree, &other, b"hello", tree.digest()),
                "`rootfs` differs from the listing at `/etc/motd`",
            ),
            (
                "identity",
                run(&tree, &tree, b"hello", other.digest()),
                "`listing` lists tree",
            ),
            (
                "loader",
                run(&tree, &tree, b"HELLO", tree.digest()),
                "`loader` is no file",
            ),
        ];
        for (name, result, expected) in cases {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
