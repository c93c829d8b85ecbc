//! Every form in the hands of tools that no one here wrote, and what they find in it compared with each other.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use e2e::need;
use e2e::rig::{printed, run};
use e2e::shop;
use image_manifest::Role;
use serde_json::Value;

use super::{export, folder, partition};

const TOOLS: [&str; 12] = [
    "diff",
    "file",
    "fsck.fat",
    "gzip",
    "qemu-img",
    "sfdisk",
    "sgdisk",
    "skopeo",
    "tar",
    "umoci",
    "unsquashfs",
    "veritysetup",
];
const GIB: u64 = 1 << 30;

fn told(program: &str, words: &[&str], folder: &Path) -> String {
    let mut command = Command::new(lab::tools::find(program).expect("the tool"));
    command.current_dir(folder).args(words);
    command.env("LC_ALL", "C").env("TZ", "UTC");
    printed(&run(&mut command))
}

#[test]
fn others_tools_take_every_form_for_the_same_disk() {
    if !need::has(&TOOLS) {
        return;
    }
    shop::image("host");
    let folder = folder();
    let folder = folder.path();
    let mut sizes = [0; 4];
    let forms = ["raw", "qcow2", "vhd", "gce"];
    for (size, form) in sizes.iter_mut().zip(forms) {
        let exported = export(folder, form, &format!("disk.{form}"), &[]);
        *size = exported["size"].as_u64().expect("a size");
    }
    let [raw, _, vhd, _] = sizes;
    assert!(raw.is_multiple_of(GIB), "{raw}");
    assert_eq!(vhd, raw + 512, "whole mebibytes and a footer");

    let verdict = told("qemu-img", &["check", "-f", "qcow2", "disk.qcow2"], folder);
    assert!(verdict.contains("No errors were found"), "{verdict}");
    for (format, file) in [("qcow2", "disk.qcow2"), ("vpc", "disk.vhd")] {
        let words = ["info", "--output=json", "-f", format, file];
        let information: Value =
            serde_json::from_str(&told("qemu-img", &words, folder)).expect("JSON");
        assert_eq!(information["virtual-size"], raw, "{format}");
        let words = ["compare", "-f", "raw", "-F", format, "disk.raw", file];
        let verdict = told("qemu-img", &words, folder);
        assert!(verdict.contains("Images are identical"), "{verdict}");
    }

    // GNU tar unpacks the disk, and says of which kind the archive is.
    told("gzip", &["--test", "disk.gce"], folder);
    let listed = told(
        "tar",
        &["--list", "--verbose", "--file", "disk.gce"],
        folder,
    );
    let listed: Vec<_> = listed.split_whitespace().collect();
    assert_eq!(listed[..3], ["-rw-r--r--", "root/root", &raw.to_string()]);
    assert_eq!((listed.len(), listed[5]), (6, "disk.raw"));
    let kind = told("file", &["--uncompress", "disk.gce"], folder);
    assert!(kind.contains("POSIX tar archive (GNU)"), "{kind}");
    fs::create_dir(folder.join("gce")).expect("a directory");
    let words = [
        "--extract",
        "--sparse",
        "--file",
        "disk.gce",
        "--directory",
        "gce",
    ];
    told("tar", &words, folder);
    told("cmp", &["disk.raw", "gce/disk.raw"], folder);

    assert_parts_are_whole(folder, "disk.raw");
    map_is_enough(folder);
    one_tree_for_hosts_and_containers(folder);
}

/// Copies a partition into a file of its own.
fn take(folder: &Path, disk: &str, name: &str) {
    let disk = folder.join(disk);
    let (start, size) = partition(&disk, name);
    let mut from = File::open(&disk).expect("a disk");
    from.seek(SeekFrom::Start(start)).expect("it seeks");
    let mut to = File::create(folder.join(name)).expect("a file");
    let copied = std::io::copy(&mut from.take(size), &mut to);
    assert_eq!(copied.expect("it is copied"), size);
}

/// Asserts that partition table, EFI system partition and hash tree are in order.
fn assert_parts_are_whole(folder: &Path, disk: &str) {
    let verdict = told("sgdisk", &["--verify", disk], folder);
    assert!(verdict.contains("No problems found"), "{verdict}");
    for name in ["esp", "root-a", "root-a-verity"] {
        take(folder, disk, name);
    }
    let verdict = told("fsck.fat", &["-n", "-v", "esp"], folder);
    assert!(verdict.contains("32 bit entries"), "{verdict}");
    let manifest = shop::manifest(&shop::state().store(), "host");
    let root_hash = manifest.disk.expect("a disk").root_hash.hex();
    let words = ["verify", "root-a", "root-a-verity", &root_hash];
    told("veritysetup", &words, folder);
}

/// The block map, read on its own: data is where it says, and a volume that has noise in what was never written is as good
/// as the disk.
fn map_is_enough(folder: &Path) {
    let store = shop::state().store();
    let manifest = shop::manifest(&store, "host");
    let map = manifest.artifact(Role::BlockMap).expect("a block map");
    let map = fs::read(shop::artifact(&store, map)).expect("the map");
    let map: Value = serde_json::from_slice(&map).expect("JSON");
    let number = |value: &Value| value.as_u64().expect("a number");
    let (block, size) = (number(&map["block-size"]), number(&map["size"]));
    let disk = File::open(folder.join("disk.raw")).expect("a disk");
    assert_eq!(
        (block, size),
        (512 << 10, disk.metadata().expect("a size").len())
    );

    let volume = folder.join("volume.raw");
    let volume = File::create_new(volume).expect("a file");
    volume.set_len(size).expect("a sparse file");
    let noise = (0..block).map(|at| u8::try_from(at * 7919 % 251).unwrap_or_default() | 1);
    let noise: Vec<u8> = noise.collect();
    let mut bytes = vec![0; noise.len()];
    let mut next = 0;
    let mut counts = std::collections::BTreeMap::new();
    for run in map["runs"].as_array().expect("runs") {
        let kind = run["kind"].as_str().expect("a kind");
        assert_eq!(number(&run["first"]), next, "runs have no gaps");
        for index in next..next + number(&run["count"]) {
            disk.read_exact_at(&mut bytes, index * block)
                .expect("a block");
            let is_zero = bytes.iter().all(|byte| *byte == 0);
            match kind {
                "data" => volume
                    .write_all_at(&bytes, index * block)
                    .expect("it is written"),
                "must-be-zero" => assert!(is_zero, "block {index}"),
                "never-written" => {
                    assert!(is_zero, "block {index}");
                    volume
                        .write_all_at(&noise, index * block)
                        .expect("it is written");
                }
                other => panic!("{other}"),
            }
            *counts.entry(kind.to_owned()).or_insert(0u64) += 1;
        }
        next += number(&run["count"]);
    }
    assert_eq!((next * block, counts.len()), (size, 3), "{counts:?}");
    assert!(counts["data"] * block < size / 4, "{counts:?}");
    assert_parts_are_whole(folder, "volume.raw");
}

/// What `unsquashfs` makes of the partition is what `umoci` makes of the container image's layers.
fn one_tree_for_hosts_and_containers(folder: &Path) {
    let exported = export(folder, "oci", "oci", &[]);
    let names = ["host-oci", "host-oci-amd64", "host-oci-amd64-zstd"];
    assert_eq!(exported["names"], serde_json::json!(names));
    let inspected = told("skopeo", &["inspect", "--raw", "oci:oci:host-oci"], folder);
    let index: Value = serde_json::from_str(&inspected).expect("an index");
    assert_eq!(index["manifests"].as_array().expect("a list").len(), 2);
    // All of it is there, with both encodings, and has its digests: skopeo looks.
    let words = [
        "copy",
        "--quiet",
        "--all",
        "oci:oci:host-oci",
        "oci:copy:host",
    ];
    told("skopeo", &words, folder);
    for name in &names[1..] {
        let words = [
            "copy",
            "--quiet",
            &format!("oci:oci:{name}"),
            &format!("dir:{name}"),
        ];
        told("skopeo", &words, folder);
    }

    told(
        "umoci",
        &["unpack", "--image", "oci:host-oci-amd64", "bundle"],
        folder,
    );
    told(
        "unsquashfs",
        &["-quiet", "-no-progress", "-dest", "root", "root-a"],
        folder,
    );
    let words = ["--recursive", "--no-dereference", "root", "bundle/rootfs"];
    told("diff", &words, folder);
    let listing = |root: &str| {
        // Of a directory the size is the file system's own.
        let words = [".", "-printf", "%P %y %m %U %G %l\\n"];
        let found = told("find", &words, &folder.join(root));
        let mut listed: Vec<_> = found.lines().map(str::to_owned).collect();
        listed.sort_unstable();
        listed
    };
    let (host, container) = (listing("root"), listing("bundle/rootfs"));
    assert!(host.len() > 1000, "{}", host.len());
    let different = host
        .iter()
        .zip(&container)
        .find(|(one, other)| one != other);
    assert_eq!((different, host.len()), (None, container.len()));
}
