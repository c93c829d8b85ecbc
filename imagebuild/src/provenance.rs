//! How and from what an image was built: an in-toto statement with a predicate of SLSA 1.
//!
//! It refuses to say where and when it ran: the same inputs give the same statement.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use image_manifest::{Digest, Hasher, Manifest};
use serde_json::{Value, json};

use crate::definition::{self, Content, Definition};
use crate::lock::Lock;
use crate::sbom::package_url;

/// Name of the artifact.
pub const FILE: &str = "provenance.json";
/// Media type of the statement.
pub const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// What the predicate is.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "urn:firstboot:imagebuild:build:v1";
const BUILDER: &str = "urn:firstboot:imagebuild";

/// A file of the definition could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read `{}`", path.display())]
pub struct Error {
    /// The file.
    path: PathBuf,
    /// Why.
    source: io::Error,
}

/// Writes the statement about the artifacts of a manifest.
///
/// # Errors
/// When a file of the definition cannot be read.
pub fn write(manifest: &Manifest, definition: &Definition, lock: &Lock) -> Result<Vec<u8>, Error> {
    let named =
        |name: &str, digest: &Digest| json!({"name": name, "digest": {"sha256": digest.hex()}});
    let mut subjects: Vec<Value> = manifest
        .artifacts
        .iter()
        .map(|artifact| named(&artifact.name, &artifact.digest))
        .collect();
    subjects.extend(
        manifest
            .forms
            .iter()
            .map(|form| named(&form.name, &form.digest)),
    );
    let mut dependencies = definition_files(definition)?;
    for release in &lock.releases {
        dependencies.push(json!({
            "name": format!("release {} {}", release.archive, release.suite),
            "digest": {"sha256": release.sha256.hex()},
        }));
    }
    for package in &lock.packages {
        dependencies.push(json!({
            "uri": package_url(package, &manifest.distribution),
            "name": package.path,
            "digest": {"sha256": package.sha256.hex()},
        }));
    }
    let statement = json!({
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "definition": manifest.name,
                    "architecture": manifest.architecture,
                    "distribution": manifest.distribution,
                    "lock": {"sha256": manifest.lock.hex()},
                },
                "internalParameters": {
                    "inputs": {"sha256": manifest.inputs.hex()},
                    "sourceDate": manifest.source_date,
                    "tree": {"sha256": manifest.tree.hex()},
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"imagebuild": manifest.builder}},
            },
        },
    });
    // Plain data: it always has a JSON form.
    let mut bytes = serde_json::to_vec_pretty(&statement).unwrap_or_default();
    bytes.push(b'\n');
    Ok(bytes)
}

/// The files that the definition is made of: each `image.toml`, named after the image that it defines, and what they
/// bring along, named by where it goes.
fn definition_files(definition: &Definition) -> Result<Vec<Value>, Error> {
    let mut files = Vec::new();
    for directory in &definition.ancestors {
        let path = directory.join(definition::FILE);
        let name = name_of(&path).unwrap_or_else(|| "parent".to_owned());
        let digest = hash(&path)?;
        files.push(json!({
            "name": format!("{name}/{}", definition::FILE),
            "digest": {"sha256": digest.hex()},
        }));
    }
    for file in &definition.files {
        if let Content::Source(source) = &file.content {
            let digest = hash(source)?;
            files.push(json!({
                "name": format!("file /{}", file.path),
                "digest": {"sha256": digest.hex()},
            }));
        }
    }
    Ok(files)
}

fn name_of(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let table: toml::Table = text.parse().ok()?;
    Some(table.get("name")?.as_str()?.to_owned())
}

fn hash(path: &Path) -> Result<Digest, Error> {
    let failed = |source| Error {
        path: path.to_owned(),
        source,
    };
    let mut hasher = Hasher::new();
    let mut file = File::open(path).map_err(failed)?;
    io::copy(&mut file, &mut hasher).map_err(failed)?;
    Ok(hasher.finish())
}
