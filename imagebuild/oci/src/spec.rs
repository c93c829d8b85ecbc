//! The documents of OCI images: descriptors, manifests, indexes, configurations; and how strangers' ones are read.
//!
//! It refuses documents that are two things at once, that are larger than registries take, and digests other than SHA-256.
//! What it does not know in them is left alone.

use std::collections::BTreeMap;

use image_manifest::Digest;
use serde::{Deserialize, Serialize};

/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the configuration of a container image.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer that is not compressed.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a layer under gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Media type of a layer under zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Largest document that is read; registries stop there too (OCI distribution specification, "Pushing Manifests").
pub const LIMIT: u64 = 4 << 20;
/// Most manifests of an index, and most layers of a manifest.
const MOST: usize = 4096;

/// What a document says about bytes that stand elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What they are.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// What kind of artifact they are the manifest of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What a container image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// More about them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a container image runs on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name of the architecture.
    pub architecture: String,
    /// Go's name of the system.
    pub os: String,
    /// Version of the architecture, where it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A manifest: a configuration and layers, or an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of itself.
    #[serde(default = "manifest_type")]
    pub media_type: String,
    /// What kind of artifact it is; a container image has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An index: manifests of one image for several platforms, or all referrers of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of itself.
    #[serde(default = "index_type")]
    pub media_type: String,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its manifests, best first.
    pub manifests: Vec<Descriptor>,
    /// The manifest that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The configuration of a container image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When it was made: the one time of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What it runs on.
    #[serde(flatten)]
    pub platform: Platform,
    /// How it is run.
    #[serde(default)]
    pub config: Run,
    /// Digests of its layers' archives.
    pub rootfs: Rootfs,
    /// Where its layers come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// How a container is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Run {
    /// Who runs in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Ports that it listens on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[expect(
        clippy::zero_sized_map_values,
        reason = "the specification writes this set as an object of empty objects"
    )]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Its environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What is run, before its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// What is run, or its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// What is known about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// An object with nothing in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The layers of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the archives, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// Where a layer comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
}

fn manifest_type() -> String {
    MANIFEST.to_owned()
}

fn index_type() -> String {
    INDEX.to_owned()
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A manifest.
    Manifest(Manifest),
    /// An index.
    Index(Index),
}

/// Why a document was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is larger than registries take.
    #[error("the document has {0} bytes, more than {LIMIT}")]
    TooLarge(u64),
    /// It is no JSON of the shape that it should have.
    #[error("the document is malformed")]
    Malformed(#[source] serde_json::Error),
    /// It is of another version.
    #[error("the document is of schema version {0}, not 2")]
    Version(u64),
    /// It is of a media type that is not known here.
    #[error("the document is a `{0}`, neither an OCI manifest nor an OCI index")]
    MediaType(String),
    /// It says that it is one thing and is another, so that two readers may see two images.
    #[error("the document is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// It lists more than anybody needs.
    #[error("the document lists {0} entries, more than {MOST}")]
    TooMany(usize),
}

impl Document {
    /// Reads a manifest or an index; `said` is the media type that came with it.
    ///
    /// # Errors
    /// When it is none, or not clearly one of them.
    pub fn parse(bytes: &[u8], said: Option<&str>) -> Result<Self, Error> {
        let value: serde_json::Value = read(bytes)?;
        let version = value
            .get("schemaVersion")
            .and_then(serde_json::Value::as_u64);
        if version != Some(2) {
            return Err(Error::Version(version.unwrap_or_default()));
        }
        let own = value.get("mediaType").and_then(serde_json::Value::as_str);
        if let (Some(own), Some(said)) = (own, said)
            && own != said
        {
            return Err(Error::Ambiguous(
                "it came with another media type than it has",
            ));
        }
        let has = |key| value.get(key).is_some();
        // GHSA-77vh-xpmg-72qh: without a media type, only one of them tells what it is.
        let media_type = match own.or(said) {
            Some(media_type) => media_type.to_owned(),
            None if has("manifests") => index_type(),
            None => manifest_type(),
        };
        let document = match media_type.as_str() {
            MANIFEST if has("manifests") => {
                return Err(Error::Ambiguous("a manifest lists manifests"));
            }
            INDEX if has("layers") || has("config") => {
                return Err(Error::Ambiguous("an index has layers"));
            }
            MANIFEST => Self::Manifest(serde_json::from_value(value).map_err(Error::Malformed)?),
            INDEX => Self::Index(serde_json::from_value(value).map_err(Error::Malformed)?),
            _ => return Err(Error::MediaType(media_type.chars().take(200).collect())),
        };
        match document.len() {
            count if count > MOST => Err(Error::TooMany(count)),
            _ => Ok(document),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Manifest(manifest) => manifest.layers.len(),
            Self::Index(index) => index.manifests.len(),
        }
    }

    /// The manifest that it is about.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }
}

impl Manifest {
    /// Whether it is a container image: something that runtimes unpack.
    #[must_use]
    pub fn is_container(&self) -> bool {
        self.config.media_type == CONFIG
    }
}

impl Config {
    /// Reads the configuration of a container image.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let config: Self = read(bytes)?;
        match config.rootfs.diff_ids.len() {
            count if count > MOST => Err(Error::TooMany(count)),
            _ => Ok(config),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Error> {
    if bytes.len() as u64 > LIMIT {
        return Err(Error::TooLarge(bytes.len() as u64));
    }
    serde_json::from_slice(bytes).map_err(Error::Malformed)
}

/// Writes one of these documents, none of which can fail to become JSON.
#[must_use]
pub fn to_json<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn manifest(more: &str) -> String {
        let layer = format!(
            r#"{{"mediaType":"{LAYER}","digest":"{DIGEST}","size":3,"urls":["http://x/"]}}"#
        );
        format!(
            r#"{{"schemaVersion":2,"config":{layer},"layers":[{layer}],"new":{{"a":1}}{more}}}"#
        )
    }

    #[test]
    fn what_is_not_known_is_left_alone() {
        let text = manifest("");
        let Document::Manifest(found) = Document::parse(text.as_bytes(), Some(MANIFEST)).unwrap()
        else {
            panic!("it is a manifest");
        };
        assert_eq!((found.layers.len(), found.layers[0].size), (1, 3));
        assert!(!found.is_container());
    }

    #[test]
    fn a_document_that_may_be_read_in_two_ways_is_refused() {
        let large = "x".repeat(5 << 20);
        let many =
            vec![format!(r#"{{"mediaType":"m","digest":"{DIGEST}","size":1}}"#); 5000].join(",");
        let many = format!(r#"{{"schemaVersion":2,"manifests":[{many}]}}"#);
        let sha512 = manifest("").replacen("sha256:", "sha512:", 1);
        let negative = manifest("").replace(":3", ":-3");
        let cases = [
            ("both", manifest(r#","manifests":[]"#), None, "ambiguous"),
            (
                "said otherwise",
                manifest(&format!(r#","mediaType":"{MANIFEST}""#)),
                Some(INDEX),
                "ambiguous",
            ),
            (
                "an index with layers",
                manifest(""),
                Some(INDEX),
                "ambiguous",
            ),
            (
                "another type",
                manifest(r#","mediaType":"text/html""#),
                None,
                "`text/html`",
            ),
            (
                "old",
                r#"{"schemaVersion":1}"#.to_owned(),
                None,
                "version 1",
            ),
            ("no json", "<html>".to_owned(), None, "malformed"),
            ("large", large, None, "more than"),
            ("many", many, None, "5000 entries"),
            ("another digest", sha512, None, "malformed"),
            ("negative", negative, None, "malformed"),
        ];
        for (name, text, said, expected) in cases {
            let error = Document::parse(text.as_bytes(), said)
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
