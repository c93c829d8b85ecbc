//! Signatures in a store, where cosign looks for them: `sha256-<hex>.sig` beside the image.
//!
//! It refuses to judge them, and to keep one twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::attach::Entry;
use super::oci::{ARTIFACT_TYPE, MANIFEST_TYPE};
use super::{Error, Layout, to_json};
use crate::signed::{Signature, Signed};
use crate::{Digest, Role};

/// Media type of a payload.
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What a manifest of signatures says that it is, for those who list what refers to an image.
const SIGNATURE_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// Where the signature itself stands.
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Most signatures of one image.
const MOST: usize = 64;

#[derive(Debug, Deserialize)]
struct SignatureManifest {
    layers: Vec<SignatureLayer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignatureLayer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The name under which the signatures of an image are kept.
#[must_use]
pub fn signature_name(image: &Digest) -> String {
    format!("sha256-{}.sig", image.hex())
}

impl Layout {
    /// Reads the signatures of an image or container image.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn signatures(&self, image: &Digest) -> Result<Vec<Signature>, Error> {
        let mut signatures = Vec::new();
        for layer in self.signature_layers(image)? {
            let payload = String::from_utf8(self.read(&layer.digest)?);
            let signature = layer.annotations.get(ANNOTATION).cloned();
            if let (Ok(payload), Some(signature)) = (payload, signature) {
                signatures.push(Signature { payload, signature });
            }
        }
        Ok(signatures)
    }

    fn signature_layers(&self, image: &Digest) -> Result<Vec<SignatureLayer>, Error> {
        let Some(entry) = self.named(&signature_name(image))? else {
            return Ok(Vec::new());
        };
        let manifest: SignatureManifest = self.read_blob(&entry.digest)?;
        let layers = manifest.layers.into_iter();
        let known = layers.filter(|layer| layer.media_type == PAYLOAD_TYPE);
        Ok(known.take(MOST).collect())
    }

    /// Keeps a signature beside those that an image has, and returns the digest of the manifest that lists them.
    ///
    /// # Errors
    /// When the store has no such image, or cannot be written.
    pub fn add_signature(&self, image: &Digest, new: &Signature) -> Result<Digest, Error> {
        let subject = self.read(image)?;
        let (payload, size) = self.put(new.payload.as_bytes())?;
        let layer = SignatureLayer {
            media_type: PAYLOAD_TYPE.to_owned(),
            digest: payload,
            size,
            annotations: [(ANNOTATION.to_owned(), new.signature.clone())].into(),
        };
        let mut layers = self.signature_layers(image)?;
        if !layers.contains(&layer) {
            layers.push(layer);
        }
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
        // As cosign writes it, whose signatures have no date.
        let config = to_json(&json!({
            "architecture": "",
            "created": "0001-01-01T00:00:00Z",
            "history": vec![json!({"created": "0001-01-01T00:00:00Z"}); layers.len()],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": {},
        }));
        let (config, config_size) = self.put(&config)?;
        let media_type = serde_json::from_slice::<serde_json::Value>(&subject)
            .ok()
            .and_then(|value| Some(value.get("mediaType")?.as_str()?.to_owned()));
        let manifest = to_json(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": SIGNATURE_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "size": config_size, "digest": config},
            "layers": layers,
            "subject": {
                "mediaType": media_type.as_deref().unwrap_or(MANIFEST_TYPE),
                "digest": image,
                "size": subject.len(),
            },
        }));
        let (digest, size) = self.put(&manifest)?;
        self.enter(&Entry {
            media_type: MANIFEST_TYPE.to_owned(),
            digest,
            size,
            artifact_type: Some(SIGNATURE_TYPE.to_owned()),
            name: Some(signature_name(image)),
        })?;
        Ok(digest)
    }

    /// Finds an image that has a root file system, with its signatures; one that is signed comes first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn signed(&self, rootfs: &Digest) -> Result<Option<Signed>, Error> {
        let mut found = None;
        for entry in self.entries()? {
            if entry.artifact_type.as_deref() != Some(ARTIFACT_TYPE) {
                continue;
            }
            let Ok(image) = self.load(&entry.digest) else {
                continue;
            };
            let artifact = image.manifest.artifact(Role::Rootfs);
            if artifact.map(|artifact| artifact.digest) != Some(*rootfs) {
                continue;
            }
            let Ok(manifest) = String::from_utf8(self.read(&entry.digest)?) else {
                continue;
            };
            let signatures = self.signatures(&entry.digest)?;
            let is_signed = !signatures.is_empty();
            found = Some(Signed {
                manifest,
                signatures,
            });
            if is_signed {
                break;
            }
        }
        Ok(found)
    }
}
