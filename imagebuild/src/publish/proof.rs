//! The proof that an image was booted here: kept beside it in the store, so that nobody boots the same bytes twice.

use std::collections::BTreeMap;

use image_manifest::Digest;
use image_manifest::layout::{self, Attachment, Layout};
use serde::{Deserialize, Serialize};

use super::record::statement;
use crate::trial::Outcome;

/// What kind of statement it is.
pub const TYPE: &str = "application/vnd.firstboot.boot-check.v1+json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Proof {
    /// The manifest whose disk was booted.
    manifest: Digest,
    /// The tree that the host said it runs.
    tree: Digest,
    /// Its checks that passed.
    passed: Vec<String>,
}

/// Keeps the good outcome of a trial; one that is not good proves nothing.
///
/// # Errors
/// When the store cannot be written.
pub fn keep(
    store: &Layout,
    manifest: &Digest,
    tree: &Digest,
    outcome: &Outcome,
) -> Result<(), layout::Error> {
    if !outcome.is_good() {
        return Ok(());
    }
    let checks = outcome.verdict.iter().flat_map(|verdict| &verdict.checks);
    let proof = Proof {
        manifest: *manifest,
        tree: *tree,
        passed: checks.map(|check| check.name.clone()).collect(),
    };
    // A proof is made of texts, which always can be written.
    let bytes = serde_json::to_vec(&proof).unwrap_or_default();
    let attachment = Attachment {
        artifact_type: TYPE,
        media_type: TYPE,
        file: store.put(&bytes)?,
        annotations: BTreeMap::new(),
    };
    store.attach_only(manifest, &attachment).map(drop)
}

/// Whether an image was booted before.
///
/// # Errors
/// When the store cannot be read.
pub fn is_kept(store: &Layout, manifest: &Digest, tree: &Digest) -> Result<bool, layout::Error> {
    for entry in store.referrers(manifest)? {
        if entry.artifact_type.as_deref() != Some(TYPE) {
            continue;
        }
        let bytes = statement(store, &entry.digest)?.unwrap_or_default();
        let proof: Option<Proof> = serde_json::from_slice(&bytes).ok();
        if proof.is_some_and(|proof| proof.manifest == *manifest && proof.tree == *tree) {
            return Ok(true);
        }
    }
    Ok(false)
}
