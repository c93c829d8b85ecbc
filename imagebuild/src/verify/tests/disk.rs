//! Every byte of every form and piece counts: whichever is flipped, it is found and named.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use image_disk::{Extents, PieceSizes, ReadAt, Sizes, WriteSink, block_map, pe, size_disk, verity};
use image_manifest::{FormKind, Kernel};
use proptest::prelude::*;

use super::super::form::Fault;
use super::super::{file, form, pieces};
use super::*;
use crate::assemble::disk::command_line;
use crate::forms::{Disk, OpenPieces, Places};

const KINDS: [FormKind; 4] = [FormKind::Raw, FormKind::Qcow2, FormKind::Vhd, FormKind::Gce];

/// The smallest program for UEFI that sections can be added to: headers and one section.
fn stub() -> Vec<u8> {
    let mut stub = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| stub[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(60, &64u32.to_le_bytes());
    put(64, b"PE\0\0\x64\x86\x01\0");
    put(84, &240u16.to_le_bytes());
    let optional = 88;
    put(optional, &0x20bu16.to_le_bytes());
    put(optional + 32, &4096u32.to_le_bytes());
    put(optional + 36, &512u32.to_le_bytes());
    put(optional + 60, &512u32.to_le_bytes());
    let section = optional + 240;
    put(section, b".sbat");
    for (field, value) in [(8, 10u32), (12, 4096), (16, 512), (20, 512)] {
        put(section + field, &value.to_le_bytes());
    }
    stub
}

/// An image with a disk, in a store of its own.
struct Example {
    _directory: tempfile::TempDir,
    layout: Layout,
    manifest: Manifest,
    listed: Vec<u8>,
}

impl Example {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let tree = tree();
        let rootfs = image(&tree);
        let mut hashes = Vec::new();
        let seed = verity::Seed::of(&tree.digest());
        let root_hash = verity::write(&rootfs[..], seed, &mut hashes).unwrap();
        let (kernel, initrd) = (vec![1; 5000], vec![2; 70_000]);
        let texts = [
            command_line("quiet", &root_hash) + "\0",
            "6.12\0".to_owned(),
        ];
        let texts = texts.map(String::into_bytes);
        let sections = [
            (".cmdline", &texts[0]),
            (".uname", &texts[1]),
            (".initrd", &initrd),
            (".linux", &kernel),
        ];
        let sections = sections.map(|(name, content)| pe::Section { name, content });
        let mut uki = Vec::new();
        pe::compose(&stub(), &sections, &mut uki).unwrap();
        let sizes = PieceSizes {
            boot: 9000,
            uki: uki.len() as u64,
            rootfs: rootfs.len() as u64,
        };
        let mut manifest = Manifest {
            tree: tree.digest(),
            kernel: Some(Kernel {
                release: "6.12".to_owned(),
                command_line: "quiet".to_owned(),
            }),
            disk: Some(size_disk(Sizes::default(), &sizes, root_hash).unwrap()),
            artifacts: vec![
                store(&layout, Role::Kernel, &kernel),
                store(&layout, Role::Initrd, &initrd),
                store(&layout, Role::Rootfs, &rootfs),
                store(&layout, Role::Listing, &tree.listing()),
                store(&layout, Role::Verity, &hashes),
                store(&layout, Role::Uki, &uki),
                store(&layout, Role::Boot, &vec![7; 9000]),
            ],
            ..manifest(&layout)
        };
        let disk = Disk::of(&layout, &manifest).unwrap();
        let map = block_map(&disk.plan().extents);
        let map = serde_json::to_vec(&map).unwrap();
        manifest
            .artifacts
            .push(store(&layout, Role::BlockMap, &map));
        manifest.forms = disk.forms(&KINDS).unwrap();
        layout.publish(&manifest).unwrap();
        Self {
            _directory: directory,
            layout,
            manifest,
            listed: tree.listing(),
        }
    }

    fn disk(&self) -> Disk {
        Disk::of(&self.layout, &self.manifest).unwrap()
    }

    fn blob(&self, role: Role) -> std::path::PathBuf {
        let artifact = self.manifest.artifact(role).unwrap();
        self.layout.blob(&artifact.digest)
    }
}

/// A tree with files that share a block, fill some, and cannot be compressed.
fn tree() -> Tree {
    let mut tree = Tree::new();
    let noise: Vec<u8> = (0..100_000u32)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect();
    for (path, content) in [
        ("etc/motd", b"hello".to_vec()),
        ("usr/bin/large", noise.clone()),
        ("usr/bin/small", noise[1..9000].to_vec()),
    ] {
        let entry = Entry::file(content, 0o644);
        tree.insert_all(path.as_bytes(), entry).unwrap();
    }
    tree
}

fn manifest(layout: &Layout) -> Manifest {
    Manifest {
        schema: Manifest::SCHEMA,
        name: "host".to_owned(),
        architecture: "amd64".to_owned(),
        distribution: "debian/trixie".to_owned(),
        tree: Digest::of(b""),
        lock: Digest::of(b""),
        inputs: Digest::of(layout.root().as_os_str().as_encoded_bytes()),
        source_date: 1_700_000_000,
        builder: "test".to_owned(),
        kernel: None,
        disk: None,
        forms: Vec::new(),
        layers: Vec::new(),
        artifacts: Vec::new(),
    }
}

/// Bytes of which one is flipped.
struct Flipped<'a> {
    inner: &'a dyn ReadAt,
    at: u64,
    mask: u8,
}

impl ReadAt for Flipped<'_> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_exact_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact_at(at, buffer)?;
        if let Some(byte) = self.at.checked_sub(at) {
            let byte = usize::try_from(byte).unwrap();
            buffer
                .get_mut(byte)
                .into_iter()
                .for_each(|byte| *byte ^= self.mask);
        }
        Ok(())
    }
}

#[test]
fn an_image_with_a_disk_is_one_tree_in_every_form() {
    let example = Example::new();
    let verified = verify(&example.layout, "host").unwrap();
    let forms = ["host.raw", "host.qcow2", "host.vhd", "host.tar.gz"];
    assert_eq!(verified.forms, forms);
    assert_eq!(verified.trees[1..], forms);
    assert_eq!(verified.tree, tree().digest());
}

/// Compares a form of which one byte is flipped, and returns what was found.
fn flip(example: &Example, kind: FormKind, form: &dyn ReadAt, at: u64, mask: u8) -> Fault {
    let disk = example.disk();
    let flipped = Flipped {
        inner: form,
        at,
        mask,
    };
    file::compare(&disk, kind, &flipped, &example.listed).unwrap_err()
}

/// Offsets of every region of a form, and how far into the region they are.
fn in_every_region(extents: &Extents) -> impl Strategy<Value = Vec<u64>> + use<> {
    let ranges: Vec<_> = extents
        .list()
        .iter()
        .map(|extent| extent.at..extent.at + extent.size)
        .collect();
    ranges
}

#[test]
fn a_flipped_byte_of_any_region_of_any_form_is_found_and_named() {
    let example = Example::new();
    let disk = example.disk();
    for kind in [FormKind::Raw, FormKind::Qcow2, FormKind::Vhd] {
        let extents = disk.extents(kind).unwrap();
        let image = disk.image(&extents);
        let config = ProptestConfig::with_cases(2);
        proptest!(config, |(offsets in in_every_region(&extents), bit in 0u32..8)| {
            for at in offsets {
                let fault = flip(&example, kind, &image, at, 1 << bit);
                let Fault::Differs { at: found, region, inner } = &fault else {
                    panic!("{kind:?} at {at}: {fault}");
                };
                let expected = &extents.at(at).unwrap().region;
                prop_assert_eq!((*found, region), (at, &format!("`{expected}`")));
                prop_assert_eq!(inner.is_some(), &**expected == "root-a");
            }
        });
    }
}

#[test]
fn a_flipped_byte_of_an_archive_is_found() {
    let example = Example::new();
    let mut archive = WriteSink::new(Vec::new());
    example.disk().write(FormKind::Gce, &mut archive).unwrap();
    let archive = archive.into_inner();
    let ends = [0, 9, 10, 600, archive.len() - 1, archive.len() - 9];
    let config = ProptestConfig::with_cases(24);
    proptest!(config, |(at in 0..archive.len(), bit in 0u32..8)| {
        for at in ends.into_iter().chain([at]) {
            let fault = flip(&example, FormKind::Gce, &archive, at as u64, 1 << bit);
            let Fault::Differs { at: found, .. } = &fault else {
                panic!("at {at}: {fault}");
            };
            prop_assert_eq!(*found, at as u64);
        }
    });
}

#[test]
fn a_flipped_byte_of_a_file_names_its_path_in_every_form() {
    let example = Example::new();
    let disk = example.disk();
    let rootfs = fs::read(example.blob(Role::Rootfs)).unwrap();
    // What cannot be compressed stands in the image as it is.
    let needle = 50_000u32.wrapping_mul(0x9e37_79b9).to_le_bytes();
    let place = rootfs.windows(4).position(|four| four == needle).unwrap();
    let mut forms: Vec<(FormKind, Vec<u8>)> = Vec::new();
    for kind in KINDS {
        if kind != FormKind::Raw && kind != FormKind::Vhd {
            let mut out = WriteSink::new(Vec::new());
            disk.write(kind, &mut out).unwrap();
            forms.push((kind, out.into_inner()));
        }
    }
    let root = disk.plan().partition("root-a").unwrap().at + place as u64;
    let mut faults = Vec::new();
    for kind in [FormKind::Raw, FormKind::Vhd] {
        let extents = disk.extents(kind).unwrap();
        faults.push(flip(&example, kind, &disk.image(&extents), root, 1));
    }
    for (kind, form) in &forms {
        let at = form.windows(4).position(|four| four == needle).unwrap();
        faults.push(flip(&example, *kind, form, at as u64, 1));
    }
    for fault in faults {
        let shown = fault.to_string();
        assert!(shown.contains("in `root-a`: "), "{shown}");
        assert!(shown.contains("/usr/bin/large"), "{shown}");
    }
}

#[test]
fn a_flipped_byte_of_any_artifact_is_found_and_named() {
    let example = Example::new();
    for artifact in &example.manifest.artifacts {
        let path = example.layout.blob(&artifact.digest);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.unwrap();
        let config = ProptestConfig::with_cases(8);
        proptest!(config, |(at in 0..artifact.size, bit in 0u32..8)| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
            let error = verify(&example.layout, "host").unwrap_err().to_string();
            file.write_all_at(&byte, at).unwrap();
            let named = error.contains(&format!("artifact `{}` is damaged", artifact.name));
            prop_assert!(named, "{}", error);
            if artifact.role == Role::Rootfs {
                prop_assert!(error.contains("is damaged: "), "{}", error);
            }
        });
    }
    verify(&example.layout, "host").unwrap();
}

/// Publishes an image with another artifact in place of one, with the right digest.
fn with_other(example: &Example, role: Role, bytes: &[u8]) -> Error {
    let mut manifest = example.manifest.clone();
    let other = store(&example.layout, role, bytes);
    for artifact in &mut manifest.artifacts {
        if artifact.role == role {
            *artifact = other.clone();
        }
    }
    example.layout.publish(&manifest).unwrap();
    verify(&example.layout, "host").unwrap_err()
}

#[test]
fn pieces_that_were_not_made_from_the_others_are_refused() {
    let example = Example::new();
    let mut uki = fs::read(example.blob(Role::Uki)).unwrap();
    let words = uki.windows(5).position(|five| five == b"quiet").unwrap();
    uki[words] = b'Q';
    let mut hashes = fs::read(example.blob(Role::Verity)).unwrap();
    hashes[600] = 1;
    let cases = [
        (Role::Uki, uki, "its `.cmdline` is another"),
        (Role::Kernel, vec![3; 5000], "its `.linux` is another"),
        (Role::Initrd, vec![3; 70_000], "its `.initrd` is another"),
        (Role::Verity, hashes, "it is another hash tree"),
        (Role::BlockMap, b"{}".to_vec(), "the disk has other blocks"),
    ];
    for (role, bytes, expected) in cases {
        let error = with_other(&example, role, &bytes).to_string();
        assert!(error.contains(expected), "{role:?}: {error}");
    }
}

#[test]
fn files_are_verified_in_the_form_that_they_have() {
    let example = Example::new();
    let disk = example.disk();
    let directory = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for form in &example.manifest.forms {
        let path = directory.path().join(&form.name);
        crate::export::to_file(&disk, form.kind, &path, Some(form)).unwrap();
        paths.push(path);
    }
    let verified = verify_files(&example.layout, "host", &paths, Signed::Nobody).unwrap();
    assert_eq!(verified.tree, tree().digest());
    assert_eq!(verified.forms.len(), 4);

    let longer = |path: &Path| {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"x").unwrap();
        let only = [path.to_owned()];
        verify_files(&example.layout, "host", &only, Signed::Nobody).unwrap_err()
    };
    for path in &paths {
        let error = longer(path);
        assert!(error.to_string().contains("is not the image"), "{error}");
    }
}

#[test]
fn a_form_that_is_promised_otherwise_is_refused() {
    let example = Example::new();
    let mut promised = example.manifest.forms[1].clone();
    promised.digest = Digest::of(b"another");
    let fault = form::check(&example.disk(), &promised, &example.manifest).unwrap_err();
    assert!(fault.to_string().contains("the manifest says"), "{fault}");
    let damaged = pieces::damage(Cursor::new(vec![0; 10]), &example.listed);
    assert!(damaged.contains("in its inodes"), "{damaged}");
    let places = Places {
        boot: "/nonexistent".into(),
        ..Places::of(&example.layout, &example.manifest).unwrap()
    };
    assert!(OpenPieces::open(&places).is_err());
}
