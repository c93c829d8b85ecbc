//! The pieces of a disk: each was made from the other artifacts, and is made again here.
//!
//! It refuses to believe that a program starts the kernel that stands beside it: it looks inside.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};

use image_disk::block_map;
use image_disk::{OpenFile, ReadAt, Window, pe, verity};
use image_manifest::layout::Layout;
use image_manifest::{Artifact, Manifest, Role};
use image_tree::{listing, squashfs};

use super::{Error, told};
use crate::assemble::disk::command_line;
use crate::forms::Disk;

/// Checks the pieces of an image's disk and composes it.
pub(super) fn check(store: &Layout, manifest: &Manifest) -> Result<Disk, Error> {
    check_verity(store, manifest)?;
    check_uki(store, manifest)?;
    let disk = Disk::of(store, manifest)?;
    let Some(artifact) = manifest.artifact(Role::BlockMap) else {
        return Ok(disk);
    };
    let map = open(store, artifact)?;
    let made = serde_json::to_vec(&block_map(&disk.plan().extents)).unwrap_or_default();
    if !same(&map, &made).map_err(|source| read_error(artifact, source))? {
        return Err(unrelated(artifact, "the disk has other blocks"));
    }
    Ok(disk)
}

/// Says where a root file system differs from its listing.
pub(super) fn damage(rootfs: impl Read + Seek, listed: &[u8]) -> String {
    match squashfs::read(rootfs, squashfs::Limits::default()) {
        Ok(tree) => match listing::difference(listed, &tree.listing()) {
            Some(difference) => format!("at `{}`, {}", difference.path, told(&difference)),
            None => "outside of all files, in what no reader looks at".to_owned(),
        },
        Err(squashfs::ReadError::File { path, .. }) => {
            format!("the content of `/{path}` cannot be read")
        }
        Err(error) => format!("in its inodes, directories or tables: {error}"),
    }
}

fn open(store: &Layout, artifact: &Artifact) -> Result<OpenFile, Error> {
    let opened = File::open(store.blob(&artifact.digest)).and_then(OpenFile::new);
    opened.map_err(|source| read_error(artifact, source))
}

fn read_error(artifact: &Artifact, source: io::Error) -> Error {
    Error::Read {
        artifact: artifact.name.clone(),
        source,
    }
}

fn unrelated(artifact: &Artifact, reason: impl Into<String>) -> Error {
    Error::Unrelated {
        artifact: artifact.name.clone(),
        reason: reason.into(),
    }
}

/// Compares what is written with a file.
struct Comparison<'a> {
    file: &'a dyn ReadAt,
    at: u64,
    same: bool,
}

impl Write for Comparison<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.at + bytes.len() as u64;
        self.same = self.same && end <= self.file.size() && {
            let mut there = vec![0; bytes.len()];
            self.file.read_exact_at(self.at, &mut there)?;
            there == bytes
        };
        self.at = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether two files hold the same.
fn same(left: &dyn ReadAt, right: &dyn ReadAt) -> io::Result<bool> {
    let mut comparison = Comparison {
        file: left,
        at: 0,
        same: true,
    };
    let mut right = Window::new(right, 0, u64::MAX);
    io::copy(&mut right, &mut comparison)?;
    Ok(comparison.same && comparison.at == left.size())
}

fn check_verity(store: &Layout, manifest: &Manifest) -> Result<(), Error> {
    let (Some(artifact), Some(rootfs), Some(disk)) = (
        manifest.artifact(Role::Verity),
        manifest.artifact(Role::Rootfs),
        &manifest.disk,
    ) else {
        return Ok(());
    };
    let hashes = open(store, artifact)?;
    let data = File::open(store.blob(&rootfs.digest)).map_err(|error| read_error(rootfs, error))?;
    let mut comparison = Comparison {
        file: &hashes,
        at: 0,
        same: true,
    };
    let seed = verity::Seed::of(&manifest.tree);
    let root_hash = verity::write(BufReader::new(data), seed, &mut comparison);
    let root_hash = root_hash.map_err(|source| read_error(artifact, source))?;
    if root_hash != disk.root_hash {
        let reason = format!("the root hash is {}", root_hash.hex());
        return Err(unrelated(artifact, reason));
    }
    if !comparison.same || comparison.at != hashes.size() {
        return Err(unrelated(artifact, "it is another hash tree"));
    }
    Ok(())
}

fn check_uki(store: &Layout, manifest: &Manifest) -> Result<(), Error> {
    let (Some(artifact), Some(kernel), Some(disk)) = (
        manifest.artifact(Role::Uki),
        &manifest.kernel,
        &manifest.disk,
    ) else {
        return Ok(());
    };
    let uki = open(store, artifact)?;
    let words = command_line(&kernel.command_line, &disk.root_hash) + "\0";
    let release = kernel.release.clone() + "\0";
    let mut expected: Vec<(&str, Box<dyn ReadAt>)> = vec![
        (".cmdline", Box::new(words.into_bytes())),
        (".uname", Box::new(release.into_bytes())),
    ];
    for (name, role) in [(".linux", Role::Kernel), (".initrd", Role::Initrd)] {
        if let Some(artifact) = manifest.artifact(role) {
            expected.push((name, Box::new(open(store, artifact)?)));
        }
    }
    for (name, content) in expected {
        let section = pe::section(&uki, name);
        let section = section.map_err(|error| unrelated(artifact, error.to_string()))?;
        let size = content.size();
        // What is left of a section is zero.
        let head = Window::new(&section, 0, size);
        let tail = Window::new(&section, size, u64::MAX);
        let zeros = vec![0; usize::try_from(tail.size()).unwrap_or(0)];
        let equal = same(&head, &*content).and_then(|head| Ok(head && same(&tail, &zeros)?));
        if !equal.map_err(|source| read_error(artifact, source))? {
            return Err(unrelated(artifact, format!("its `{name}` is another")));
        }
    }
    Ok(())
}
