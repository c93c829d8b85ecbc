//! The shapes of the OCI image specification 1.1 that the store is written in.
//!
//! It refuses to know where they stand on disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::{Artifact, Digest, Manifest, Role};

/// The one version of the image layout that exists.
pub(super) const LAYOUT_VERSION: &str = "1.0.0";
/// What an OCI manifest of ours says that it is.
pub(super) const ARTIFACT_TYPE: &str = "application/vnd.firstboot.image.v1";
/// Media type of our manifest.
pub(super) const CONFIG_TYPE: &str = "application/vnd.firstboot.manifest.v1+json";

/// Media type of manifests.
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const REFERENCE: &str = "org.opencontainers.image.ref.name";
const TITLE: &str = "org.opencontainers.image.title";
const ROLE: &str = "vnd.firstboot.role";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayoutFile {
    pub(super) image_layout_version: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    pub(super) manifests: Vec<Descriptor>,
    /// What others wrote beside the manifests stays there.
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(INDEX_TYPE.to_owned()),
            manifests: Vec::new(),
            rest: BTreeMap::new(),
        }
    }
}

impl Index {
    /// Adds an image, and takes its name away from the one that had it.
    pub(super) fn tag(&mut self, image: Descriptor) {
        let name = image.reference().map(str::to_owned);
        for entry in &mut self.manifests {
            if entry.reference() == name.as_deref() {
                entry.annotations.remove(REFERENCE);
            }
        }
        self.manifests
            .retain(|entry| entry.digest != image.digest || entry.reference().is_some());
        self.manifests.push(image);
    }

    /// Adds what has no name of its own, once.
    pub(super) fn add(&mut self, nameless: Descriptor) {
        if self
            .manifests
            .iter()
            .all(|entry| entry.digest != nameless.digest)
        {
            self.manifests.push(nameless);
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
            rest: BTreeMap::new(),
        }
    }

    /// Describes an OCI manifest of ours in the index.
    pub(super) fn image(digest: Digest, size: u64, name: &str) -> Self {
        let annotations = [(REFERENCE.to_owned(), name.to_owned())];
        Self {
            artifact_type: Some(ARTIFACT_TYPE.to_owned()),
            annotations: annotations.into(),
            ..Self::new(MANIFEST_TYPE, digest, size)
        }
    }

    /// Describes any manifest in the index.
    pub(super) fn entry(entry: &Entry) -> Self {
        let name = entry.name.clone().map(|name| (REFERENCE.to_owned(), name));
        Self {
            artifact_type: entry.artifact_type.clone(),
            annotations: name.into_iter().collect(),
            ..Self::new(&entry.media_type, entry.digest, entry.size)
        }
    }

    fn artifact(artifact: &Artifact) -> Self {
        let annotations = [
            (TITLE.to_owned(), artifact.name.clone()),
            (ROLE.to_owned(), role_name(artifact.role).to_owned()),
        ];
        Self {
            annotations: annotations.into(),
            ..Self::new(&artifact.media_type, artifact.digest, artifact.size)
        }
    }

    /// The name that the entry is found by.
    pub(super) fn reference(&self) -> Option<&str> {
        self.annotations.get(REFERENCE).map(String::as_str)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageManifest {
    schema_version: u32,
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    pub(super) config: Descriptor,
    layers: Vec<Descriptor>,
}

impl ImageManifest {
    pub(super) fn new(manifest: &Manifest, (config, size): (Digest, u64)) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: Some(ARTIFACT_TYPE.to_owned()),
            config: Descriptor::new(CONFIG_TYPE, config, size),
            layers: manifest
                .artifacts
                .iter()
                .map(Descriptor::artifact)
                .collect(),
        }
    }

    /// Whether its layers are the artifacts of the manifest, one for one.
    pub(super) fn lists(&self, manifest: &Manifest) -> bool {
        let layers = self.layers.iter().map(|layer| (layer.digest, layer.size));
        layers.eq(manifest.artifacts.iter().map(|a| (a.digest, a.size)))
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Kernel => "kernel",
        Role::Initrd => "initrd",
        Role::Rootfs => "rootfs",
        Role::Listing => "listing",
        Role::Loader => "loader",
        Role::Verity => "verity",
        Role::Uki => "uki",
        Role::Boot => "boot",
        Role::BlockMap => "block-map",
        Role::Sbom => "sbom",
        Role::Provenance => "provenance",
    }
}
