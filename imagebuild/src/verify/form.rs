//! Forms: composed, digested, and read back as a stranger would read them.
//!
//! It refuses to trust the composer: partition table, qcow2 tables, footers and archives are parsed
//! from the bytes of the form, and the root partition that they lead to must be the root file system.

use std::io::{self, Read, Write};
use std::thread;

use image_disk::{Guid, Image, ReadAt, Window, WriteSink, gce, gpt, gpt::Partition, qcow2, vhd};
use image_manifest::{Digest, Form, FormKind, Manifest, Role};

use crate::forms::{self, Disk};

/// How much of an archive's disk is kept to find its partitions in.
const HEAD: usize = 1 << 20;

/// Why a form is not the image.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It could not be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It could not be composed.
    #[error(transparent)]
    Compose(#[from] forms::Error),
    /// Its digest is another.
    #[error("it has digest {found}, the manifest says {expected}")]
    Digest {
        /// What it has.
        found: Digest,
        /// What the manifest promises.
        expected: Digest,
    },
    /// Its partition table is not one.
    #[error("the partition table cannot be read")]
    Table(#[source] gpt::Error),
    /// It is no qcow2 file.
    #[error("the qcow2 file cannot be read")]
    Qcow2(#[source] qcow2::Error),
    /// It is no VHD.
    #[error("the VHD cannot be read")]
    Vhd(#[source] vhd::Error),
    /// It is no archive.
    #[error("the archive cannot be read")]
    Archive(#[source] gce::Error),
    /// It has no root partition of the image.
    #[error("no partition of the disk is `{0}`, the first half of the root hash")]
    NoRoot(Guid),
    /// Its root partition is not the root file system.
    #[error("the root partition differs from the root file system at byte {0}")]
    Root(u64),
    /// A file differs from the form.
    #[error("it differs from the image at byte {at}, in {region}{}", told(inner.as_deref()))]
    Differs {
        /// Where.
        at: u64,
        /// What should stand there.
        region: String,
        /// What that means for the tree, when it is in the root partition.
        inner: Option<String>,
    },
    /// A file is of another size.
    #[error("it has {found} bytes instead of {expected}")]
    Size {
        /// What it has.
        found: u64,
        /// What the manifest promises.
        expected: u64,
    },
    /// The image has no such form.
    #[error("the image has no such form: its definition does not list it among its `outputs`")]
    NoForm,
}

fn told(inner: Option<&str>) -> String {
    inner.map_or_else(String::new, |inner| format!(": {inner}"))
}

/// Composes a form of an image, and reads it back.
pub(super) fn check(disk: &Disk, form: &Form, manifest: &Manifest) -> Result<(), Fault> {
    let found = disk.form(form.kind)?;
    if found.digest != form.digest {
        return Err(Fault::Digest {
            found: found.digest,
            expected: form.digest,
        });
    }
    let Some(extents) = disk.extents(form.kind) else {
        return check_archive(disk, manifest);
    };
    read_back(disk, form.kind, &disk.image(&extents), manifest)
}

/// Finds the root partition in the bytes of a form, and compares it.
pub(super) fn read_back(
    disk: &Disk,
    kind: FormKind,
    file: &dyn ReadAt,
    manifest: &Manifest,
) -> Result<(), Fault> {
    match kind {
        FormKind::Qcow2 => {
            let found = qcow2::open(file).map_err(Fault::Qcow2)?;
            check_root(disk, &found, manifest)
        }
        FormKind::Vhd => {
            let found = vhd::open(file).map_err(Fault::Vhd)?;
            check_root(disk, &found, manifest)
        }
        FormKind::Raw => check_root(disk, file, manifest),
        FormKind::Gce => read_archive(Window::new(file, 0, file.size()), disk, manifest),
    }
}

fn check_root(disk: &Disk, found: &dyn ReadAt, manifest: &Manifest) -> Result<(), Fault> {
    let partition = root_partition(found, manifest)?;
    let window = Window::new(found, partition.at, partition.size);
    compare_root(window, disk, manifest)
}

fn root_partition(disk: &dyn ReadAt, manifest: &Manifest) -> Result<Partition, Fault> {
    let root_hash = manifest.disk.as_ref().map(|disk| disk.root_hash);
    let [wanted, _] = Guid::halves(&root_hash.unwrap_or(manifest.tree));
    let partitions = gpt::read(disk).map_err(Fault::Table)?;
    let mut partitions = partitions.into_iter();
    let found = partitions.find(|partition| partition.guid == wanted);
    found.ok_or(Fault::NoRoot(wanted))
}

/// Compares a partition with the root file system; what follows that must be zero.
fn compare_root(mut found: impl Read, disk: &Disk, manifest: &Manifest) -> Result<(), Fault> {
    let size = manifest.artifact(Role::Rootfs).map_or(0, |root| root.size);
    let extents = &disk.plan().extents;
    let image: Image<'_> = disk.image(extents);
    let own = disk.plan().partition("root-a").map_or(0, |root| root.at);
    let mut expected = Window::new(&image, own, size);
    let mut at = 0;
    let [mut one, mut other] = [vec![0; 256 << 10], vec![0; 256 << 10]];
    loop {
        let length = fill(&mut found, &mut one).map_err(Fault::Read)?;
        let known = fill(&mut expected, &mut other[..length]).map_err(Fault::Read)?;
        other[known..].fill(0);
        let differs = one[..length].iter().zip(&other).position(|(a, b)| a != b);
        if let Some(byte) = differs {
            return Err(Fault::Root(at + byte as u64));
        }
        at += length as u64;
        if length < one.len() {
            return if at < size {
                Err(Fault::Root(at))
            } else {
                Ok(())
            };
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// The archive is written on one side of a pipe and read on the other.
fn check_archive(disk: &Disk, manifest: &Manifest) -> Result<(), Fault> {
    let (reader, writer) = io::pipe().map_err(Fault::Read)?;
    thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut out = WriteSink::new(io::BufWriter::with_capacity(256 << 10, writer));
            disk.write(FormKind::Gce, &mut out)?;
            let flushed = out.into_inner().flush();
            flushed.map_err(|error| Fault::Archive(gce::Error::Read(error)))
        });
        let checked = read_archive(reader, disk, manifest);
        match writing.join() {
            // A reader that stops early breaks the pipe: its reason counts.
            Ok(written) => checked.and(written),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Finds the root partition in an archive, and compares it.
fn read_archive(archive: impl Read, disk: &Disk, manifest: &Manifest) -> Result<(), Fault> {
    let mut found = gce::open(archive).map_err(Fault::Archive)?;
    let mut head = vec![0; HEAD];
    found.read_exact(&mut head).map_err(Fault::Read)?;
    let size = found.size();
    let partition = root_partition(&Front { head: &head, size }, manifest)?;
    let skip = partition.at.saturating_sub(HEAD as u64);
    io::copy(&mut (&mut found).take(skip), &mut io::sink()).map_err(Fault::Read)?;
    compare_root((&mut found).take(partition.size), disk, manifest)?;
    io::copy(&mut found, &mut io::sink()).map_err(Fault::Read)?;
    found.finish().map_err(Fault::Archive)
}

/// The beginning of a disk whose rest is not there.
struct Front<'a> {
    head: &'a [u8],
    size: u64,
}

impl ReadAt for Front<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.head.read_exact_at(at, buffer)
    }
}
