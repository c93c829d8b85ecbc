use std::io::Write;

use super::*;
use crate::Role;

pub(super) fn manifest(layout: &Layout, name: &str, content: &[u8]) -> Manifest {
    let mut ingest = layout.ingest().unwrap();
    ingest.write_all(content).unwrap();
    let (digest, size) = ingest.finish().unwrap();
    Manifest {
        schema: Manifest::SCHEMA,
        name: name.to_owned(),
        architecture: "amd64".to_owned(),
        distribution: "debian/trixie".to_owned(),
        tree: Digest::of(b"tree"),
        lock: Digest::of(b"lock"),
        inputs: Digest::of(content),
        source_date: 1_700_000_000,
        builder: "imagebuild 0.1.0".to_owned(),
        kernel: None,
        disk: None,
        forms: Vec::new(),
        layers: Vec::new(),
        artifacts: vec![Artifact {
            role: Role::Listing,
            name: "listing".to_owned(),
            media_type: "text/plain".to_owned(),
            digest,
            size,
        }],
    }
}

#[test]
fn the_newest_of_a_name_is_found_and_older_ones_by_digest() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path().join("store")).unwrap();
    let old = manifest(&layout, "host", b"old");
    let new = manifest(&layout, "host", b"new");
    let other = manifest(&layout, "base", b"base");
    let old_digest = layout.publish(&old).unwrap();
    let new_digest = layout.publish(&new).unwrap();
    layout.publish(&other).unwrap();

    let layout = Layout::open(layout.root()).unwrap();
    let found = layout.resolve("host").unwrap();
    assert_eq!((found.digest, found.manifest), (new_digest, new.clone()));
    let found = layout.resolve(&format!("host@{old_digest}")).unwrap();
    assert_eq!(found.manifest, old);
    let names = layout.images().unwrap();
    let names: Vec<_> = names.iter().map(|f| f.manifest.name.as_str()).collect();
    assert_eq!(names, ["base", "host"]);

    let again = layout.publish(&old).unwrap();
    assert_eq!(again, old_digest, "same manifest, same bytes");
    assert_eq!(layout.resolve("host").unwrap().manifest, old);
    assert_eq!(layout.index().unwrap().manifests.len(), 3);
    for artifact in old.artifacts.iter().chain(&new.artifacts) {
        layout.check(artifact).unwrap();
    }
}

#[test]
fn what_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).unwrap();
    let digest = layout.publish(&manifest(&layout, "host", b"x")).unwrap();
    let other = format!("base@{digest}");
    let unknown = format!("host@{}", Digest::of(b"?"));
    let cases = [
        ("another name", "base"),
        ("the digest of another name", &other),
        ("an unknown digest", &unknown),
    ];
    for (name, reference) in cases {
        let error = layout.resolve(reference).unwrap_err();
        assert!(matches!(error, Error::NoImage { .. }), "{name}: {error}");
    }
    for reference in ["", "Host", "../x", "host:1", "host@sha256:1", "-x", "a b"] {
        let error = layout.resolve(reference).unwrap_err();
        assert!(matches!(error, Error::Reference { .. }), "{reference}");
    }
}

#[test]
fn damage_is_found_and_never_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).unwrap();
    let manifest = manifest(&layout, "host", b"content");
    let digest = layout.publish(&manifest).unwrap();
    fs::write(layout.blob(&manifest.artifacts[0].digest), b"CONTENT").unwrap();
    let error = layout.check(&manifest.artifacts[0]).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");

    fs::write(layout.blob(&digest), b"{}").unwrap();
    let error = layout.resolve("host").unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");

    let mut absent = manifest;
    absent.artifacts[0].digest = Digest::of(b"absent");
    assert!(layout.publish(&absent).is_err(), "artifacts come first");
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.txt"), "do not touch").unwrap();
    let error = Layout::create(directory.path()).unwrap_err();
    assert!(matches!(error, Error::NotALayout { .. }), "{error}");
    let error = Layout::open(directory.path()).unwrap_err();
    assert!(matches!(error, Error::NotALayout { .. }), "{error}");
    fs::write(
        directory.path().join("oci-layout"),
        r#"{"imageLayoutVersion":"9.0.0"}"#,
    )
    .unwrap();
    let error = Layout::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("9.0.0"), "{error}");
}

#[test]
fn writers_at_once_lose_no_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let layout = Layout::create(path).unwrap();
                let name = format!("image-{number}");
                let manifest = manifest(&layout, &name, name.as_bytes());
                layout.publish(&manifest).unwrap();
            });
        }
    });
    let layout = Layout::open(path).unwrap();
    assert_eq!(layout.images().unwrap().len(), 8);
    assert_eq!(fs::read_dir(path.join("ingest")).unwrap().count(), 0);
}

#[test]
fn what_a_dead_writer_left_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).unwrap();
    fs::write(directory.path().join("ingest/1-1"), b"half").unwrap();
    let ours = layout.ingest().unwrap();
    let layout = Layout::create(directory.path()).unwrap();
    let left: Vec<_> = fs::read_dir(layout.ingest_path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the one whose writer lives");
    ours.finish().unwrap();
}

/// The bytes of version 2: they are in stores and are never written differently again.
#[test]
fn version_2_is_frozen() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).unwrap();
    let blob = |content: &[u8]| crate::LayerBlob {
        digest: Digest::of(content),
        size: content.len() as u64,
    };
    let full = Manifest {
        disk: Some(crate::Disk {
            root_hash: Digest::of(b"root hash"),
            size: 1 << 30,
            esp: 256 << 20,
            slot: 256 << 20,
            hashes: 4 << 20,
            data: 64 << 20,
        }),
        forms: vec![crate::Form {
            kind: crate::FormKind::Qcow2,
            name: "host.qcow2".to_owned(),
            digest: Digest::of(b"qcow2"),
            size: 5,
        }],
        layers: vec![crate::Layer {
            definition: "base".to_owned(),
            diff_id: Digest::of(b"layer"),
            gzip: blob(b"gzip"),
            zstd: blob(b"zstd"),
        }],
        ..manifest(&layout, "host", b"frozen")
    };
    let digest = layout.publish(&full).unwrap();
    let image: ImageManifest = layout.read_blob(&digest).unwrap();
    let config = fs::read_to_string(layout.blob(&image.config.digest)).unwrap();
    assert_eq!(config, include_str!("testdata/manifest-v2.json").trim_end());
    let image = fs::read_to_string(layout.blob(&digest)).unwrap();
    assert_eq!(image, include_str!("testdata/image-v2.json").trim_end());
    let index = fs::read_to_string(layout.index_path()).unwrap();
    assert_eq!(index, include_str!("testdata/index-v2.json").trim_end());
}

#[test]
fn an_image_of_version_1_must_be_rebuilt() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).unwrap();
    for text in [
        include_str!("testdata/manifest-v1.json"),
        include_str!("testdata/image-v1.json"),
    ] {
        layout.store(text.trim_end().as_bytes()).unwrap();
    }
    let index = include_str!("testdata/index-v1.json");
    fs::write(layout.index_path(), index).unwrap();
    let error = layout.resolve("host").unwrap_err().to_string();
    assert!(error.contains("rebuild it"), "{error}");
    // It is in nobody else's way.
    assert!(layout.images().unwrap().is_empty());
    let newer = manifest(&layout, "web", b"web");
    layout.publish(&newer).unwrap();
    assert_eq!(layout.images().unwrap().len(), 1);
}
