//! One tree in every form; one changed byte of any form, artifact or layer, and `verify` says which and where.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use e2e::need;
use e2e::rig::{check, run};
use e2e::shop;
use image_manifest::layout::Layout;
use image_manifest::{Manifest, Role};

use super::{folder, imagebuild, json, lock, partition, said};

/// Flips a bit of one byte; done twice, nothing was done.
fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("a file to change");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("a byte");
}

/// Flips a byte, and asserts that `verify` fails and says all of these words.
fn refused(folder: &Path, words: &[&str], path: &Path, at: u64, expected: &[&str]) {
    flip(path, at);
    let verified = run(imagebuild(folder).arg("verify").arg("host").args(words));
    flip(path, at);
    let told = said(&verified);
    let told = told.split_once("error:").map_or("", |(_, error)| error);
    assert_eq!(verified.status.code(), Some(1), "{expected:?}: {told}");
    for word in expected {
        assert!(told.contains(word), "no {word:?} in {told}");
    }
}

#[test]
fn every_form_is_one_tree_and_a_flipped_byte_of_any_is_named() {
    if !need::has(&["sfdisk", "qemu-img"]) {
        return;
    }
    shop::image("host");
    let folder = folder();
    let folder = folder.path();
    shop::copy_tree(&shop::state().store(), &folder.join("store")).expect("a copy of the store");
    let manifest = shop::manifest(&folder.join("store"), "host");

    // The store has it all, so that this only writes the files.
    let mut build = imagebuild(folder);
    build
        .arg("build")
        .arg(shop::workshop().definitions.join("host"));
    build.arg("--lock").arg(lock());
    build.args(["--store", "store", "--offline", "--json", "--output", "out"]);
    let outcome = json(&run(&mut build));
    assert_eq!(outcome["cached"], true, "{outcome}");
    let files = ["host.raw", "host.qcow2", "host.vhd", "host.tar.gz"];
    let files = files.map(|name| format!("out/{name}"));

    let mut verify = imagebuild(folder);
    verify.args(["verify", "host", "--store", "store", "--json"]);
    let stored = json(&run(&mut verify));
    for file in &files {
        verify.arg("--file").arg(file);
    }
    let exported = json(&run(&mut verify));
    for verified in [&stored, &exported] {
        assert_eq!(verified["tree"], manifest.tree.to_string());
    }
    let trees = |verified: &serde_json::Value| verified["trees"].clone();
    let names = [
        "rootfs.squashfs",
        "host.raw",
        "host.qcow2",
        "host.vhd",
        "host.tar.gz",
    ];
    assert_eq!(trees(&stored), serde_json::json!(names));
    assert_eq!(trees(&exported), serde_json::json!(files));
    let layers = stored["layers"].as_array().expect("layers").len();
    assert_eq!(layers, 2 * manifest.layers.len());
    assert_eq!(stored["container"], "host-oci");

    thread::scope(|scope| {
        scope.spawn(|| flip_files(folder));
        scope.spawn(|| flip_store(folder, &manifest));
    });
    check(&run(&mut verify));
}

/// Where the program that firmware starts names its root: a place in a file of the EFI system partition.
fn command_line(disk: &Path) -> u64 {
    let (start, size) = partition(disk, "esp");
    let mut bytes = vec![0; usize::try_from(size).expect("a size")];
    let file = File::open(disk).expect("a disk");
    file.read_exact_at(&mut bytes, start)
        .expect("the partition");
    let found = bytes.windows(9).position(|nine| nine == b"roothash=");
    start + found.expect("a command line") as u64
}

/// Where a byte of the disk stands in a qcow2 file, as QEMU sees it.
fn mapped(qcow2: &Path, at: u64) -> u64 {
    let map = ["map", "--output=json", "-f", "qcow2"];
    let map = json(&run(Command::new("qemu-img").args(map).arg(qcow2)));
    let number = |extent: &serde_json::Value, key: &str| extent[key].as_u64();
    let mut extents = map.as_array().expect("extents").iter();
    let found = extents.find_map(|extent| {
        let (start, length) = (number(extent, "start")?, number(extent, "length")?);
        let inside = (start..start + length).contains(&at);
        inside.then_some(number(extent, "offset")? + at - start)
    });
    found.expect("an allocated byte")
}

fn flip_files(folder: &Path) {
    let out = |name: &str| folder.join("out").join(name);
    // The copy is being damaged meanwhile.
    let store = shop::state().store().display().to_string();
    let raw = out("host.raw");
    let size = |name: &str| fs::metadata(out(name)).expect("a file").len();
    let start = |name: &str| partition(&raw, name).0;
    // A third of the root file system is in the middle of what files hold.
    let root = start("root-a") + (24 << 20);
    let esp = command_line(&raw);
    let qcow2 = out("host.qcow2");
    let cases: [(&str, u64, &[&str]); 15] = [
        ("host.raw", 440, &["`protective MBR`"]),
        ("host.raw", 512 + 56, &["`GPT header`"]),
        ("host.raw", size("host.raw") - 500, &["`backup GPT header`"]),
        ("host.raw", esp, &["`esp: EFI/Linux/host.efi`"]),
        ("host.raw", root, &["`root-a`", "`/"]),
        (
            "host.raw",
            start("root-a-verity") + 9000,
            &["`root-a-verity`"],
        ),
        ("host.raw", start("data") + (9 << 20), &["`data`"]),
        ("host.qcow2", 27, &["`qcow2 header`"]),
        ("host.qcow2", 3 << 16, &["`qcow2 first table`"]),
        ("host.qcow2", mapped(&qcow2, root), &["`root-a`", "`/"]),
        ("host.vhd", root, &["`root-a`", "`/"]),
        ("host.vhd", size("host.vhd") - 400, &["`VHD footer`"]),
        ("host.tar.gz", 5, &["`tar header`"]),
        ("host.tar.gz", size("host.tar.gz") / 2, &["`root-a`", "`/"]),
        (
            "host.tar.gz",
            size("host.tar.gz") - 6,
            &["`end of the tar`"],
        ),
    ];
    for (name, at, expected) in cases {
        let file = format!("out/{name}");
        let named = [&format!("form `{file}`"), &format!("at byte {at}, in ")];
        let named = named.map(String::as_str);
        let expected = [&named, expected].concat();
        let words = ["--store", &store, "--file", &file];
        refused(folder, &words, &out(name), at, &expected);
    }
}

fn flip_store(folder: &Path, manifest: &Manifest) {
    let store = folder.join("store");
    let words = ["--store", "store"];
    for artifact in &manifest.artifacts {
        let damaged = format!("artifact `{}` is damaged", artifact.name);
        let path = shop::artifact(&store, artifact);
        let mut expected = vec![damaged.as_str()];
        // Whoever serves hosts from the store wants to know what they would have got.
        if artifact.role == Role::Rootfs {
            expected.push("`/");
        }
        refused(folder, &words, &path, artifact.size / 3, &expected);
    }
    for layer in &manifest.layers {
        for (blob, encoding) in [(&layer.gzip, "gzip"), (&layer.zstd, "zstd")] {
            let named = format!("layer `{}` ({encoding})", layer.definition);
            let path = blob_path(&store, &blob.digest.hex());
            refused(folder, &words, &path, blob.size / 2, &[&named, "`/"]);
        }
    }
    let layout = Layout::open(&store).expect("the store");
    for name in ["host-oci", "host-oci-amd64", "host-oci-amd64-zstd"] {
        let entry = layout.named(name).expect("an index").expect("a document");
        let path = blob_path(&store, &entry.digest.hex());
        refused(folder, &words, &path, entry.size / 2, &["`host-oci`"]);
    }
}

fn blob_path(store: &Path, hex: &str) -> PathBuf {
    store.join("blobs/sha256").join(hex)
}
