//! Disks and their forms, judged by programs that we did not write.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use image_disk::{
    DiskPlan, Image, OpenFile, PieceSizes, Pieces, ReadAt, Request, Sizes, SparseSink, Window,
    WriteSink, esp, gce, gpt, qcow2, size_disk, verity, vhd,
};
use image_manifest::{Digest, Disk};

const TIME: i64 = 1_763_700_000;
const MIB: u64 = 1 << 20;

/// Bytes that do not compress and never repeat.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// An example: pieces, and the plan of their disk.
struct Example {
    boot: Vec<u8>,
    uki: Vec<u8>,
    rootfs: Vec<u8>,
    verity: Vec<u8>,
    root_hash: Digest,
    disk: Disk,
    plan: DiskPlan,
}

impl Example {
    fn new(rootfs: usize) -> Self {
        let tree = Digest::of(b"tree");
        let (boot, uki, rootfs) = (noise(1, 100_001), noise(2, 3_000_000), noise(3, rootfs));
        let mut verity = Vec::new();
        let root_hash = verity::write(&rootfs[..], verity::Seed::of(&tree), &mut verity).unwrap();
        let pieces = PieceSizes {
            boot: boot.len() as u64,
            uki: uki.len() as u64,
            rootfs: rootfs.len() as u64,
        };
        let sizes = Sizes {
            esp: Some(64 * MIB),
            slot: Some(128 * MIB),
            data: None,
        };
        let disk = size_disk(sizes, &pieces, root_hash).unwrap();
        let plan = DiskPlan::new(&Request {
            name: "host",
            architecture: "amd64",
            tree: &tree,
            source_date: TIME,
            disk: &disk,
            pieces,
        });
        Self {
            boot,
            uki,
            rootfs,
            verity,
            root_hash,
            disk,
            plan: plan.unwrap(),
        }
    }

    fn pieces(&self) -> Pieces<'_> {
        Pieces {
            boot: &self.boot,
            uki: &self.uki,
            rootfs: &self.rootfs,
            verity: &self.verity,
        }
    }

    fn image<'a>(&'a self, extents: &'a image_disk::Extents) -> Image<'a> {
        Image {
            extents,
            pieces: self.pieces(),
        }
    }

    /// Writes the disk or one of its forms, with holes.
    fn write(&self, extents: &image_disk::Extents, path: &Path) {
        let mut sink = SparseSink::new(File::create_new(path).unwrap());
        self.image(extents).stream(&mut sink).unwrap();
        sink.finish().unwrap();
    }

    /// Writes one partition.
    fn write_partition(&self, name: &str, path: &Path) {
        let partition = self.plan.partition(name).unwrap();
        let image = self.image(&self.plan.extents);
        let mut window = Window::new(&image, partition.at, partition.size);
        std::io::copy(&mut window, &mut File::create_new(path).unwrap()).unwrap();
    }
}

/// Whether a program is there; where it must be, its absence fails.
fn have(program: &str) -> bool {
    let found = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .chain(["/sbin".into(), "/usr/sbin".into()])
        .any(|directory| directory.join(program).is_file());
    assert!(found || env::var_os("CI").is_none(), "{program} is missing");
    if !found {
        eprintln!("skipped: {program} is missing");
    }
    found
}

/// Runs a program and returns what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let path = env::var("PATH").unwrap_or_default() + ":/sbin:/usr/sbin";
    let done = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    let status = done.status;
    assert!(
        status.success(),
        "{program} {arguments:?}: {status}\n{text}{errors}"
    );
    text
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn sgdisk_and_sfdisk_find_the_partitions_and_no_fault() {
    if !have("sgdisk") || !have("sfdisk") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    let example = Example::new(5_000_000);
    example.write(&example.plan.extents, &path);
    let verdict = run("sgdisk", &["-v", text(&path)]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let verdict = run("sfdisk", &["--verify", text(&path)]);
    assert!(verdict.contains("No errors detected"), "{verdict}");
    let dump = run("sfdisk", &["--dump", text(&path)]).to_lowercase();
    let [first, second] = [
        &example.root_hash.hex()[..32],
        &example.root_hash.hex()[32..],
    ]
    .map(|half| {
        let parts = [
            &half[..8],
            &half[8..12],
            &half[12..16],
            &half[16..20],
            &half[20..],
        ];
        parts.join("-")
    });
    for expected in [
        "type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        &format!("type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, uuid={first}, name=\"root-a\""),
        &format!(
            "type=2c7357ed-ebd2-46d9-aec1-23d437ec2bf5, uuid={second}, name=\"root-a-verity\""
        ),
        "name=\"data\"",
    ] {
        assert!(dump.contains(expected), "{expected} in\n{dump}");
    }
    let read = gpt::read(&OpenFile::new(File::open(&path).unwrap()).unwrap()).unwrap();
    assert_eq!(read, example.plan.partitions);
    assert_eq!(example.disk.size, 1 << 30);
}

#[test]
fn fsck_and_mtools_find_the_files_of_the_esp() {
    if !have("fsck.fat") || !have("mcopy") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("esp");
    let example = Example::new(4096);
    example.write_partition("esp", &path);
    let verdict = run("fsck.fat", &["-n", "-v", text(&path)]);
    for expected in ["32 bit entries", "6 files, "] {
        assert!(verdict.contains(expected), "{expected} in\n{verdict}");
    }
    let warned = verdict.lines().any(|line| {
        ["differ", "wrong", "dirty", "Bad", "invalid", "Reclaim"]
            .iter()
            .any(|word| line.contains(word))
    });
    assert!(!warned, "{verdict}");
    for (name, bytes) in [
        ("EFI/BOOT/BOOTX64.EFI", &example.boot),
        ("EFI/Linux/host.efi", &example.uki),
    ] {
        let copy = directory.path().join("copy");
        run(
            "mcopy",
            &["-n", "-i", text(&path), &format!("::{name}"), text(&copy)],
        );
        assert!(fs::read(&copy).unwrap() == *bytes, "{name}");
        fs::remove_file(copy).unwrap();
    }
    let listed = run("mdir", &["-i", text(&path), "::EFI/Linux"]);
    assert!(listed.contains("2025-11-21   4:40"), "{listed}");
}

#[test]
fn an_esp_of_any_size_is_fat32_and_whole() {
    if !have("fsck.fat") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (boot, uki) = (noise(1, 7000), noise(2, 1));
    for size in [34 * MIB, 100 * MIB, 256 * MIB, 512 * MIB, 1 << 30] {
        let extents = esp::compose(&esp::Esp {
            name: "a-long-name.of_an-image",
            architecture: "arm64",
            tree: &Digest::of(b"tree"),
            boot: boot.len() as u64,
            uki: uki.len() as u64,
            size,
            at: MIB,
            time: TIME,
        });
        let extents = extents.unwrap();
        assert_eq!(extents.size(), size);
        let path = directory.path().join("esp");
        let mut sink = SparseSink::new(File::create(&path).unwrap());
        let image = Image {
            extents: &extents,
            pieces: Pieces {
                boot: &boot,
                uki: &uki,
                rootfs: &boot,
                verity: &boot,
            },
        };
        image.stream(&mut sink).unwrap();
        sink.finish().unwrap();
        let verdict = run("fsck.fat", &["-n", "-v", text(&path)]);
        assert!(verdict.contains("32 bit entries"), "{size}: {verdict}");
        let free = verdict.contains("Free cluster summary wrong");
        assert!(!free, "{size}: {verdict}");
    }
}

#[test]
fn veritysetup_verifies_trees_of_every_depth() {
    if !have("veritysetup") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for size in [4096, 100_000, 128 * 4096, 5_000_000, 68_000_000] {
        let example = Example::new(size);
        let [data, hashes] = ["data", "hashes"].map(|name| directory.path().join(name));
        let padded = size.next_multiple_of(4096);
        let mut bytes = example.rootfs.clone();
        bytes.resize(padded, 0);
        fs::write(&data, &bytes).unwrap();
        fs::write(&hashes, &example.verity).unwrap();
        let root = example.root_hash.hex();
        run(
            "veritysetup",
            &["verify", text(&data), text(&hashes), &root],
        );
        let dump = run("veritysetup", &["dump", text(&hashes)]);
        for expected in ["Hash type:       \t1", "Hash algorithm:  \tsha256"] {
            assert!(dump.contains(expected), "{dump}");
        }
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&data, bytes).unwrap();
        let refused = Command::new("/sbin/veritysetup")
            .args(["verify", text(&data), text(&hashes), &root])
            .output();
        assert!(!refused.unwrap().status.success(), "{size}");
    }
}

#[test]
fn qemu_img_takes_qcow2_and_vhd_for_the_same_disk() {
    if !have("qemu-img") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new(5_000_000);
    let [raw, qcow, vhd_path] = ["raw", "qcow2", "vhd"].map(|name| directory.path().join(name));
    example.write(&example.plan.extents, &raw);
    let composed = qcow2::compose(&example.plan.extents);
    example.write(&composed, &qcow);
    let composed = vhd::compose(&example.plan.extents, example.plan.guid, TIME);
    example.write(&composed, &vhd_path);

    let verdict = run("qemu-img", &["check", "-f", "qcow2", text(&qcow)]);
    assert!(verdict.contains("No errors were found"), "{verdict}");
    let equal = |format, path| {
        let verdict = run(
            "qemu-img",
            &["compare", "-f", "raw", "-F", format, text(&raw), path],
        );
        assert!(verdict.contains("Images are identical"), "{verdict}");
    };
    equal("qcow2", text(&qcow));
    equal("vpc", text(&vhd_path));
    for (format, path) in [("qcow2", &qcow), ("vpc", &vhd_path)] {
        let information = run("qemu-img", &["info", "-f", format, text(path)]);
        let size = "virtual size: 1 GiB (1073741824 bytes)";
        assert!(information.contains(size), "{information}");
    }
    let length = fs::metadata(&vhd_path).unwrap().len();
    assert_eq!(length % MIB, 512, "whole mebibytes and a footer");
    assert!(fs::metadata(&qcow).unwrap().len() < 20 * MIB);

    // What another program makes of the disk, ours reads as the same.
    let other = directory.path().join("other");
    run(
        "qemu-img",
        &["convert", "-O", "qcow2", text(&raw), text(&other)],
    );
    for path in [&qcow, &other] {
        let file = OpenFile::new(File::open(path).unwrap()).unwrap();
        let disk = qcow2::open(&file).unwrap();
        same(&disk, &example.image(&example.plan.extents));
    }
    let file = OpenFile::new(File::open(&vhd_path).unwrap()).unwrap();
    same(
        &vhd::open(&file).unwrap(),
        &example.image(&example.plan.extents),
    );
}

fn same(left: &dyn ReadAt, right: &dyn ReadAt) {
    assert_eq!(left.size(), right.size());
    let [mut one, mut other] = [vec![0; 1 << 20], vec![0; 1 << 20]];
    for at in (0..left.size()).step_by(1 << 20) {
        left.read_exact_at(at, &mut one).unwrap();
        right.read_exact_at(at, &mut other).unwrap();
        assert!(one == other, "{at}");
    }
}

#[test]
fn gnu_tar_takes_the_archive_for_an_old_gnu_one() {
    if !have("tar") || !have("gzip") || !have("file") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host.tar.gz");
    let example = Example::new(5_000_000);
    let image = example.image(&example.plan.extents);
    let mut sink = WriteSink::new(File::create_new(&path).unwrap());
    gce::write(&image, TIME, &mut sink).unwrap();
    run("gzip", &["--test", text(&path)]);
    let listed = run(
        "tar",
        &["--list", "--verbose", "--full-time", "--file", text(&path)],
    );
    assert_eq!(
        listed.trim(),
        "-rw-r--r-- root/root 1073741824 2025-11-21 04:40:00 disk.raw"
    );
    let kind = run("file", &["--uncompress", text(&path)]);
    assert!(kind.contains("POSIX tar archive (GNU)"), "{kind}");
    let arguments = ["--extract", "--file", text(&path), "--directory"];
    run("tar", &[&arguments[..], &[text(directory.path())]].concat());
    let unpacked = OpenFile::new(File::open(directory.path().join("disk.raw")).unwrap());
    same(&unpacked.unwrap(), &image);

    let mut disk = gce::open(File::open(&path).unwrap()).unwrap();
    assert_eq!(disk.size(), 1 << 30);
    let start = example.plan.partition("root-a").unwrap().at;
    std::io::copy(&mut (&mut disk).take(start), &mut std::io::sink()).unwrap();
    let mut root = vec![0; example.rootfs.len()];
    disk.read_exact(&mut root).unwrap();
    assert!(root == example.rootfs);
    std::io::copy(&mut disk, &mut std::io::sink()).unwrap();
    disk.finish().unwrap();
}

#[test]
fn every_byte_of_a_disk_has_a_name() {
    let example = Example::new(5_000_000);
    let mut regions: BTreeMap<&str, u64> = BTreeMap::new();
    for extent in example.plan.extents.list() {
        *regions.entry(&extent.region).or_default() += extent.size;
    }
    assert_eq!(regions.values().sum::<u64>(), example.disk.size);
    assert_eq!(regions["root-a"], 5_000_000);
    assert_eq!(regions["esp: EFI/Linux/host.efi"], 3_000_000);
    for partition in &example.plan.partitions {
        let first = example.plan.extents.at(partition.at).unwrap();
        assert_eq!(first.at, partition.at, "{}", partition.name);
    }
}
