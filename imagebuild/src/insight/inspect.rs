//! One image of a store: its manifest, what can be made of it, what is said about it, and its packages.
//!
//! It refuses to verify: it tells what stands there.

use std::fs;

use image_manifest::layout::{self, Found, Layout};
use image_manifest::{Digest, Manifest, Role};
use serde::Serialize;

use crate::sbom::{self, Component, Format};

/// Largest list of packages that is read.
const LARGEST: u64 = 256 << 20;

/// All that is known about an image; `--json` prints this.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inspected {
    /// Digest that it is asked for by.
    pub digest: Digest,
    /// Its own list.
    pub manifest: Manifest,
    /// How many signatures it has.
    pub signatures: usize,
    /// What is said about it.
    pub referrers: Vec<Referrer>,
    /// Its packages, where it says which.
    pub packages: Vec<Component>,
}

/// Something that is said about an image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Referrer {
    /// What it is.
    pub artifact_type: String,
    /// Digest of its manifest.
    pub digest: Digest,
}

/// Why an image could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read.
    #[error("failed to read `{reference}` from the store")]
    Store {
        /// What was asked for.
        reference: String,
        /// Why.
        source: layout::Error,
    },
    /// Its list of packages cannot be read.
    #[error("failed to read the packages of `{reference}`")]
    Packages {
        /// What was asked for.
        reference: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Looks at an image.
///
/// # Errors
/// When the store does not have it, or it cannot be read.
pub fn inspect(store: &Layout, reference: &str) -> Result<Inspected, Error> {
    let failed = |source| Error::Store {
        reference: reference.to_owned(),
        source,
    };
    let found = store.resolve(reference).map_err(failed)?;
    let packages = packages(store, &found, reference)?;
    let signatures = store.signatures(&found.digest).map_err(failed)?.len();
    let referrers = store.referrers(&found.digest).map_err(failed)?.into_iter();
    let referrers = referrers.map(|entry| Referrer {
        artifact_type: entry.artifact_type.unwrap_or(entry.media_type),
        digest: entry.digest,
    });
    Ok(Inspected {
        digest: found.digest,
        signatures,
        referrers: referrers.collect(),
        packages,
        manifest: found.manifest,
    })
}

/// Reads the packages that an image says it is made of; one that was built without says none.
///
/// # Errors
/// When what it says cannot be read.
pub fn packages(store: &Layout, found: &Found, reference: &str) -> Result<Vec<Component>, Error> {
    let wanted = Format::CycloneDx.file_name();
    let artifacts = found.manifest.artifacts.iter();
    let mut documents = artifacts.filter(|one| one.role == Role::Sbom && one.name == wanted);
    let Some(document) = documents.next().filter(|one| one.size <= LARGEST) else {
        return Ok(Vec::new());
    };
    let failed = |source| Error::Store {
        reference: reference.to_owned(),
        source,
    };
    store.check(document).map_err(failed)?;
    let path = store.blob(&document.digest);
    let bytes = fs::read(&path).map_err(|source| failed(layout::Error::Read { path, source }))?;
    sbom::components(&bytes).map_err(|source| Error::Packages {
        reference: reference.to_owned(),
        source,
    })
}
