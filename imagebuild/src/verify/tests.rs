//! Images whose artifacts are of different trees are refused; the first difference is named.

mod disk;

use std::io::Cursor;

use image_manifest::Manifest;
use image_tree::{Entry, Tree};

use super::*;

fn image(tree: &Tree) -> Vec<u8> {
    let options = squashfs::Options {
        level: 3,
        time: 0,
        threads: 1,
    };
    let mut image = Cursor::new(Vec::new());
    squashfs::write(tree, options, &mut image).unwrap();
    image.into_inner()
}

fn store(layout: &Layout, role: Role, bytes: &[u8]) -> Artifact {
    let mut ingest = layout.ingest().unwrap();
    ingest.append(bytes).unwrap();
    let (digest, size) = ingest.finish().unwrap();
    Artifact {
        role,
        name: format!("{role:?}").to_lowercase(),
        media_type: "text/plain".to_owned(),
        digest,
        size,
    }
}

/// Publishes an image whose artifacts may be of different trees, and verifies it.
fn run(listed: &Tree, rootfs: &Tree, loader: &[u8], promised: Digest) -> Result<Verified, Error> {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).unwrap();
    let manifest = Manifest {
        schema: Manifest::SCHEMA,
        name: "host".to_owned(),
        architecture: "amd64".to_owned(),
        distribution: "debian/trixie".to_owned(),
        tree: promised,
        lock: Digest::of(b""),
        inputs: Digest::of(b""),
        source_date: 0,
        builder: "test".to_owned(),
        kernel: None,
        disk: None,
        forms: Vec::new(),
        layers: Vec::new(),
        artifacts: vec![
            store(&layout, Role::Rootfs, &image(rootfs)),
            store(&layout, Role::Listing, &listed.listing()),
            store(&layout, Role::Loader, loader),
        ],
    };
    layout.publish(&manifest).unwrap();
    verify(&layout, "host")
}

#[test]
fn every_artifact_must_be_of_the_same_tree() {
    let mut tree = Tree::new();
    tree.insert_all(b"etc/motd", Entry::file(&b"hello"[..], 0o644))
        .unwrap();
    let mut other = tree.clone();
    other
        .insert(b"etc/motd", Entry::file(&b"HELLO"[..], 0o644))
        .unwrap();
    let verified = run(&tree, &tree, b"hello", tree.digest()).unwrap();
    assert_eq!(verified.trees, ["rootfs"]);
    assert_eq!(verified.artifacts, ["rootfs", "listing", "loader"]);
    let cases = [
        (
            "content",
            run(&tree, &other, b"hello", tree.digest()),
            "`rootfs` differs from the listing at `/etc/motd`",
        ),
        (
            "identity",
            run(&tree, &tree, b"hello", other.digest()),
            "`listing` lists tree",
        ),
        (
            "loader",
            run(&tree, &tree, b"HELLO", tree.digest()),
            "`loader` is no file",
        ),
    ];
    for (name, result, expected) in cases {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}
