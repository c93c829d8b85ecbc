//! Packages of an image, kept in the store beside it: they outlive the mirrors that they came from.
//!
//! It refuses packages that differ from the lock: they come checked, and are named by digest.

use std::collections::BTreeMap;

use image_manifest::Digest;
use image_manifest::layout::{Entry, Layout};
use image_oci::spec::{self, Descriptor, Manifest};
use serde::Serialize;

use super::Error;
use crate::fetch::FetchedPackage;

/// What a list of packages says that it is.
pub(super) const TYPE: &str = "application/vnd.firstboot.packages.v1";
const PACKAGE: &str = "application/vnd.debian.binary-package";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const TITLE: &str = "org.opencontainers.image.title";
const SUFFIX: &str = "-packages";

/// The packages of an image in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vendored {
    /// Name of the list.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// How many packages it has.
    pub packages: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The name of the list of packages of an image.
pub(super) fn name_of(image: &str) -> String {
    format!("{image}{SUFFIX}")
}

/// The name that a list of packages has in a store.
pub(super) fn named(manifest: &Manifest) -> Option<String> {
    manifest.annotations.get(TITLE).map(|image| name_of(image))
}

/// Puts the packages of an image into a store, and a list of them, so that nothing sweeps them away.
///
/// # Errors
/// When a package cannot be read, or the store not be written.
pub fn vendor(store: &Layout, image: &str, packages: &[FetchedPackage]) -> Result<Vendored, Error> {
    let mut layers = BTreeMap::new();
    for package in packages {
        let entry = &package.entry;
        if store
            .blob(&entry.sha256)
            .metadata()
            .map(|found| found.len())
            .ok()
            != Some(entry.size)
        {
            let (digest, _) = store.import(&package.path)?;
            if digest != entry.sha256 {
                return Err(Error::Digest {
                    what: entry.name.clone(),
                    expected: entry.sha256,
                    found: digest,
                });
            }
        }
        let title = format!(
            "{}_{}_{}.deb",
            entry.name, entry.version, entry.architecture
        );
        let descriptor = Descriptor {
            annotations: [(TITLE.to_owned(), title.clone())].into(),
            ..descriptor(PACKAGE, entry.sha256, entry.size)
        };
        layers.insert((title, entry.sha256), descriptor);
    }
    let layers: Vec<_> = layers.into_values().collect();
    let (empty, size) = store.put(b"{}")?;
    let bytes = layers.iter().map(|layer| layer.size).sum();
    let packages = layers.len();
    let manifest = spec::to_json(&Manifest {
        schema_version: 2,
        media_type: spec::MANIFEST.to_owned(),
        artifact_type: Some(TYPE.to_owned()),
        config: descriptor(EMPTY, empty, size),
        layers,
        subject: None,
        annotations: [(TITLE.to_owned(), image.to_owned())].into(),
    });
    let (digest, size) = store.put(&manifest)?;
    let name = name_of(image);
    store.enter(&Entry {
        media_type: spec::MANIFEST.to_owned(),
        digest,
        size,
        artifact_type: Some(TYPE.to_owned()),
        name: Some(name.clone()),
    })?;
    Ok(Vendored {
        name,
        digest,
        packages,
        bytes,
    })
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        artifact_type: None,
        platform: None,
        annotations: BTreeMap::new(),
    }
}
