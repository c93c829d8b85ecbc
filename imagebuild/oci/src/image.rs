//! Composes the documents of a container image from its layers.
//!
//! It refuses anything that is not of the image itself: the one time is the image's, and platforms are said as OCI says them.

use std::collections::BTreeMap;

use image_manifest::{Digest, Layer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::compress::Encoding;
use crate::spec::{self, Config, Descriptor, History, Manifest, Platform, Rootfs, Run};

/// Where programs are looked for when the image does not say it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What runs when the image does not say it.
const SHELL: &str = "/bin/sh";
/// Label that carries the tree digest.
pub const TREE: &str = "vnd.firstboot.tree";
/// Annotation of a layer that names its definition.
pub const DEFINITION: &str = "vnd.firstboot.definition";
/// Annotation of an index entry by which podman and skopeo prefer zstd where they can (containers/image, "zstd variants").
const PREFERS_ZSTD: &str = "io.github.containers.compression.zstd";

/// Annotations of an index of several platforms.
const ABOUT_ALL: [&str; 2] = [
    "org.opencontainers.image.description",
    "org.opencontainers.image.title",
];

/// What the documents of a container image say.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// One line for people.
    pub description: &'a str,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// The tree digest.
    pub tree: Digest,
    /// Digest of all that it was built from.
    pub inputs: Digest,
    /// The one time of the image, in seconds since 1970.
    pub source_date: i64,
    /// How it is run.
    pub run: Run,
    /// Its layers, lowest first.
    pub layers: &'a [Layer],
}

/// The configuration of a container image, the same for both encodings.
#[must_use]
pub fn config(about: &About<'_>) -> Vec<u8> {
    let created = Some(created(about.source_date));
    let mut run = about.run.clone();
    if !run.env.iter().any(|variable| variable.starts_with("PATH=")) {
        run.env.insert(0, PATH.to_owned());
    }
    if run.cmd.is_empty() && run.entrypoint.is_empty() {
        run.cmd = vec![SHELL.to_owned()];
    }
    for (key, value) in annotations(about) {
        run.labels.entry(key).or_insert(value);
    }
    let history = about.layers.iter().map(|layer| History {
        created: created.clone(),
        created_by: Some(format!("imagebuild {}", layer.definition)),
    });
    spec::to_json(&Config {
        created: created.clone(),
        platform: platform(about.architecture),
        config: run,
        rootfs: Rootfs {
            kind: "layers".to_owned(),
            diff_ids: about.layers.iter().map(|layer| layer.diff_id).collect(),
        },
        history: history.collect(),
    })
}

/// The manifest of a container image in one encoding, whose configuration has this digest and size.
#[must_use]
pub fn manifest(about: &About<'_>, encoding: Encoding, config: (Digest, u64)) -> Vec<u8> {
    let layers = about.layers.iter().map(|layer| {
        let (media_type, blob) = match encoding {
            Encoding::Zstd => (spec::LAYER_ZSTD, &layer.zstd),
            Encoding::Gzip | Encoding::Plain => (spec::LAYER_GZIP, &layer.gzip),
        };
        let definition = (DEFINITION.to_owned(), layer.definition.clone());
        Descriptor {
            annotations: [definition].into(),
            ..descriptor(media_type, (blob.digest, blob.size))
        }
    });
    spec::to_json(&Manifest {
        schema_version: 2,
        media_type: spec::MANIFEST.to_owned(),
        artifact_type: None,
        config: descriptor(spec::CONFIG, config),
        layers: layers.collect(),
        subject: None,
        annotations: annotations(about),
    })
}

/// The index of a container image: this platform's manifests, gzip first because old clients take the first, in place of
/// those that `known` has for it; other platforms stay.
#[must_use]
pub fn index(
    about: &About<'_>,
    known: Vec<Descriptor>,
    gzip: (Digest, u64),
    zstd: (Digest, u64),
) -> Vec<u8> {
    let platform = Some(platform(about.architecture));
    let mut manifests = known;
    manifests.retain(|one| one.platform != platform);
    let gzip = Descriptor {
        platform: platform.clone(),
        ..descriptor(spec::MANIFEST, gzip)
    };
    let zstd = Descriptor {
        platform: platform.clone(),
        annotations: [(PREFERS_ZSTD.to_owned(), "true".to_owned())].into(),
        ..descriptor(spec::MANIFEST, zstd)
    };
    manifests.extend([gzip, zstd]);
    // The order within a platform stays.
    manifests.sort_by(|a, b| a.platform.cmp(&b.platform));
    let mut annotations = annotations(about);
    if manifests.iter().any(|one| one.platform != platform) {
        // What is true of one platform alone is said by its manifests.
        annotations.retain(|key, _| ABOUT_ALL.contains(&key.as_str()));
    }
    spec::to_json(&spec::Index {
        schema_version: 2,
        media_type: spec::INDEX.to_owned(),
        artifact_type: None,
        manifests,
        subject: None,
        annotations,
    })
}

fn descriptor(media_type: &str, (digest, size): (Digest, u64)) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        artifact_type: None,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn annotations(about: &About<'_>) -> BTreeMap<String, String> {
    let mut said = BTreeMap::from([
        (
            "org.opencontainers.image.created",
            created(about.source_date),
        ),
        ("org.opencontainers.image.revision", about.inputs.hex()),
        ("org.opencontainers.image.title", about.name.to_owned()),
        (TREE, about.tree.to_string()),
    ]);
    if !about.description.is_empty() {
        said.insert(
            "org.opencontainers.image.description",
            about.description.to_owned(),
        );
    }
    said.into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn created(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

/// Says a platform as OCI does (Go's GOARCH and variant).
fn platform(debian: &str) -> Platform {
    let (architecture, variant) = match debian {
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v5")),
        "arm64" => ("arm64", Some("v8")),
        "i386" => ("386", None),
        "ppc64el" => ("ppc64le", None),
        "mips64el" => ("mips64le", None),
        same => (same, None),
    };
    Platform {
        architecture: architecture.to_owned(),
        os: "linux".to_owned(),
        variant: variant.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use image_manifest::LayerBlob;

    use super::*;
    use crate::spec::Document;

    fn blob(of: &str) -> LayerBlob {
        LayerBlob {
            digest: Digest::of(of.as_bytes()),
            size: of.len() as u64,
        }
    }

    #[test]
    fn an_index_keeps_other_platforms_and_puts_gzip_first() {
        let layers = [Layer {
            definition: "base".to_owned(),
            diff_id: Digest::of(b"plain"),
            gzip: blob("gzip"),
            zstd: blob("zstd"),
        }];
        let about = |architecture| About {
            name: "base",
            description: "",
            architecture,
            tree: Digest::of(b"tree"),
            inputs: Digest::of(b"inputs"),
            source_date: 1_700_000_000,
            run: Run::default(),
            layers: &layers,
        };
        let of = |text: &str| (Digest::of(text.as_bytes()), 1);
        let read = |bytes: &[u8]| match Document::parse(bytes, Some(spec::INDEX)).unwrap() {
            Document::Index(index) => index.manifests,
            Document::Manifest(_) => panic!("it is an index"),
        };
        let first = read(&index(&about("arm64"), Vec::new(), of("a"), of("b")));
        let second = read(&index(&about("amd64"), first, of("c"), of("d")));
        let third = read(&index(&about("arm64"), second, of("e"), of("f")));
        let digests: Vec<_> = third.iter().map(|one| one.digest).collect();
        assert_eq!(digests, ["c", "d", "e", "f"].map(|text| of(text).0));
        let architectures: Vec<_> = third
            .iter()
            .map(|one| one.platform.as_ref().unwrap().architecture.as_str())
            .collect();
        assert_eq!(architectures, ["amd64", "amd64", "arm64", "arm64"]);
        let config = String::from_utf8(config(&about("amd64"))).unwrap();
        for part in [
            r#"{"created":"2023-11-14T22:13:20Z","architecture":"amd64","os":"linux","#,
            r#""Cmd":["/bin/sh"]"#,
            r#""rootfs":{"type":"layers","diff_ids":["sha256:"#,
            r#""vnd.firstboot.tree":"sha256:"#,
        ] {
            assert!(config.contains(part), "{part} in {config}");
        }
        let config = Config::parse(config.as_bytes()).unwrap();
        assert_eq!(config.rootfs.diff_ids, [Digest::of(b"plain")]);
    }
}
