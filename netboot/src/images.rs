//! What a site's roles need from the store: images that boot, and loaders that start them.
//!
//! It refuses to read artifacts: it looks at manifests only.

use std::fmt;
use std::path::PathBuf;

use image_manifest::layout::{self, Found, Layout};
use image_manifest::{Artifact, Kernel, Manifest, Role};
use netboot_core::dhcp::loaders;
use netboot_core::site::{ImageRef, Site};

/// An image with all that a host needs to boot it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootable {
    /// Digest of its OCI manifest.
    pub digest: image_manifest::Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// How its kernel is started.
    pub kernel: Kernel,
    /// The kernel.
    pub kernel_artifact: Artifact,
    /// stage1 and its modules.
    pub initrd: Artifact,
    /// The root file system.
    pub rootfs: Artifact,
}

/// Why an image cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store does not give the image.
    #[error(transparent)]
    Store(#[from] layout::Error),
    /// The image was built without what a host needs.
    #[error("image `{image}` has no {lacks}, so no host can boot it")]
    NotBootable {
        /// The image.
        image: String,
        /// What it lacks.
        lacks: &'static str,
    },
}

/// Finds the image of a role.
///
/// # Errors
/// When the store does not hold it, or no host can boot it.
pub fn resolve(store: &Layout, image: &ImageRef) -> Result<Bootable, ImageError> {
    let Found { digest, manifest } = store.resolve(&reference(image))?;
    let lacks = |lacks| ImageError::NotBootable {
        image: reference(image),
        lacks,
    };
    let artifact = |role, name| manifest.artifact(role).cloned().ok_or_else(|| lacks(name));
    Ok(Bootable {
        digest,
        kernel: manifest.kernel.clone().ok_or_else(|| lacks("kernel"))?,
        kernel_artifact: artifact(Role::Kernel, "kernel")?,
        initrd: artifact(Role::Initrd, "initrd")?,
        rootfs: artifact(Role::Rootfs, "root file system")?,
        manifest,
    })
}

/// Makes sure that the store has all that a host needs to boot an image, by name and size.
///
/// # Errors
/// When the store does not hold it, or not whole.
pub fn look(store: &Layout, image: &netboot_core::lifecycle::Image) -> Result<(), ImageError> {
    let found = resolve(
        store,
        &ImageRef {
            name: image.name.as_str().into(),
            digest: Some(image.manifest),
        },
    )?;
    for artifact in [&found.kernel_artifact, &found.initrd, &found.rootfs] {
        store.check_size(artifact)?;
    }
    Ok(())
}

/// Returns which image it is, for a host's generations.
#[must_use]
pub fn identity(image: &Bootable) -> netboot_core::lifecycle::Image {
    netboot_core::lifecycle::Image {
        name: image.manifest.name.clone(),
        manifest: image.digest,
        tree: image.manifest.tree,
    }
}

/// Writes a reference as the store reads it.
#[must_use]
pub fn reference(image: &ImageRef) -> String {
    match image.digest {
        Some(digest) => format!("{}@{digest}", image.name),
        None => image.name.to_string(),
    }
}

/// What a site needs and the store does not give.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// A role's image.
    #[error("role `{role}` cannot boot")]
    Image {
        /// The role.
        role: String,
        /// Why.
        source: ImageError,
    },
    /// A program that firmware loads.
    #[error("no image in `{}` has the loader `{loader}`", store.display())]
    Loader {
        /// Its file name.
        loader: &'static str,
        /// The store.
        store: PathBuf,
    },
}

/// Looks for everything that a site needs and the store does not give.
///
/// # Errors
/// When the store cannot be read at all.
pub fn check(site: &Site, store: &Layout) -> Result<Vec<Missing>, layout::Error> {
    let mut missing = Vec::new();
    let own = site.roles.values();
    let own = own.map(|role| (role.name.to_string(), &role.image));
    let of_environments = site.environments.iter().flat_map(|(name, environment)| {
        let images = environment.images.iter();
        images.map(move |(role, image)| (format!("{role} in {name}"), image))
    });
    for (role, image) in own.chain(of_environments) {
        if let Err(source) = resolve(store, image) {
            missing.push(Missing::Image { role, source });
        }
    }
    let images = store.images()?;
    for loader in loaders() {
        let has = |found: &Found| {
            let mut artifacts = found.manifest.artifacts.iter();
            artifacts.any(|artifact| artifact.role == Role::Loader && artifact.name == loader)
        };
        if !images.iter().any(has) {
            let store = store.root().to_owned();
            missing.push(Missing::Loader { loader, store });
        }
    }
    Ok(missing)
}

impl fmt::Display for Bootable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.manifest.name, self.digest)
    }
}
