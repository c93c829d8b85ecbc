//! The disk: hash tree, program for UEFI, boot loader, and what can be composed of them.
//!
//! It refuses to write a disk: the store gets its pieces, the manifest the digests of its forms.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use image_disk::block_map;
use image_disk::{OpenFile, PieceSizes, ReadAt, Sizes, esp, pe, size_disk, verity};
use image_manifest::{Digest, Disk, Form, Kernel, Role};
use image_tree::{Kind, Tree};

use super::artifacts::Artifacts;
use super::extract::{Extracted, Taken, extract};
use super::{Build, Error, create};
use crate::forms::{self, Identity, OpenPieces, Places};
use crate::lock::Use;

/// Where a package of systemd has its programs for UEFI.
const PROGRAMS: &str = "usr/lib/systemd/boot/efi";
/// What the image says that it is.
const OS_RELEASE: [&str; 2] = ["usr/lib/os-release", "etc/os-release"];

/// What is known of an image's disk.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) disk: Disk,
    pub(super) forms: Vec<Form>,
}

/// The artifacts that a disk is made from.
pub(super) struct From<'a> {
    pub(super) tree: &'a Tree,
    pub(super) rootfs: &'a Path,
    pub(super) kernel: &'a Kernel,
    pub(super) vmlinuz: &'a Path,
    pub(super) initrd: &'a Path,
}

/// Makes the pieces of the disk, and lists the forms that can be composed of them.
pub(super) fn make(
    build: &Build<'_>,
    from: &From<'_>,
    artifacts: &mut Artifacts,
) -> Result<Made, Error> {
    tracing::info!(step = "disk", "writing the pieces of the disk");
    let definition = build.locked.definition();
    let tree = from.tree.digest();
    let (hashes, root_hash) = write_verity(build, from.rootfs, &tree)?;
    let [stub, boot] = programs(build)?;
    let uki = write_uki(build, from, &stub, root_hash)?;
    let places = Places {
        boot,
        uki,
        rootfs: from.rootfs.to_owned(),
        verity: hashes,
    };
    let pieces = OpenPieces::open(&places).map_err(Error::Disk)?;
    let disk = sizes(build, &pieces.sizes(), root_hash)?;
    let identity = Identity {
        name: &build.plan.name,
        architecture: &build.plan.architecture,
        tree: &tree,
        source_date: build.plan.source_date,
    };
    let composed = forms::Disk::new(&identity, &disk, pieces).map_err(Error::Disk)?;
    tracing::info!(step = "forms", "computing the digests of the disk's forms");
    let outputs = definition.outputs.iter();
    let kinds: Vec<_> = outputs.filter_map(|output| output.form()).collect();
    let forms = composed.forms(&kinds).map_err(Error::Disk)?;
    let map = serde_json::to_vec(&block_map(&composed.plan().extents)).unwrap_or_default();
    artifacts.add(Role::BlockMap, "block-map.json", map);
    artifacts.add_file(Role::Verity, "rootfs.verity", places.verity);
    artifacts.add_file(Role::Uki, &format!("{}.efi", build.plan.name), places.uki);
    let name = places.boot.file_name().unwrap_or_default();
    artifacts.add_file(Role::Boot, &name.to_string_lossy(), places.boot.clone());
    Ok(Made { disk, forms })
}

fn sizes(build: &Build<'_>, pieces: &PieceSizes, root_hash: Digest) -> Result<Disk, Error> {
    let wanted = &build.locked.definition().disk;
    let wanted = Sizes {
        esp: wanted.esp,
        slot: wanted.slot,
        data: wanted.data,
    };
    size_disk(wanted, pieces, root_hash).map_err(|error| Error::Disk(error.into()))
}

fn write_verity(
    build: &Build<'_>,
    rootfs: &Path,
    tree: &Digest,
) -> Result<(PathBuf, Digest), Error> {
    let path = build.work.join("rootfs.verity");
    let failed = |source| Error::Write {
        path: path.clone(),
        source,
    };
    let data = File::open(rootfs).map_err(failed)?;
    let mut out = BufWriter::new(create(&path)?);
    let root_hash = verity::write(BufReader::new(data), verity::Seed::of(tree), &mut out);
    let root_hash = root_hash.map_err(failed)?;
    out.flush().map_err(failed)?;
    Ok((path, root_hash))
}

/// Takes stub and boot loader out of the image's own release of systemd.
fn programs(build: &Build<'_>) -> Result<[PathBuf; 2], Error> {
    let architecture = &build.plan.architecture;
    let firmware = esp::firmware_name(architecture).ok_or_else(|| {
        let unknown = image_disk::PlanError::Architecture(architecture.clone());
        Error::Disk(unknown.into())
    })?;
    let mut extracted = Extracted::new();
    for (number, package) in build.of(Use::Boot).enumerate() {
        let into = build.work.join(format!("boot-{number}"));
        extracted.extend(extract(build, package, &into, |path| {
            path.starts_with(PROGRAMS)
        })?);
    }
    let find = |name: String| match extracted.get(&format!("{PROGRAMS}/{name}")) {
        Some(Taken::File(path)) => Ok(path.clone()),
        _ => Err(Error::NoBootProgram(name)),
    };
    Ok([
        find(format!("linux{firmware}.efi.stub"))?,
        find(format!("systemd-boot{firmware}.efi"))?,
    ])
}

/// Writes kernel, initrd and command line as one program.
fn write_uki(
    build: &Build<'_>,
    from: &From<'_>,
    stub: &Path,
    root_hash: Digest,
) -> Result<PathBuf, Error> {
    let path = build.work.join("uki.efi");
    let open = |path: &Path| {
        let opened = File::open(path).and_then(OpenFile::new);
        opened.map_err(|source| Error::Source {
            path: path.to_owned(),
            source,
        })
    };
    let (stub, kernel, initrd) = (open(stub)?, open(from.vmlinuz)?, open(from.initrd)?);
    let words = command_line(&from.kernel.command_line, &root_hash);
    let os_release = os_release(from.tree)?;
    let [words, release] = [words.as_str(), &from.kernel.release].map(|text| {
        // The stub takes these for texts that end with a zero.
        [text.as_bytes(), b"\0"].concat()
    });
    let contents: [(&str, &dyn ReadAt); 5] = [
        (".osrel", &os_release),
        (".cmdline", &words),
        (".uname", &release),
        (".initrd", &initrd),
        (".linux", &kernel),
    ];
    let sections = contents.map(|(name, content)| pe::Section { name, content });
    let mut out = BufWriter::new(create(&path)?);
    let written = pe::compose(&stub, &sections, &mut out);
    written.map_err(Error::Uki)?;
    out.flush().map_err(|source| Error::Write {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

/// The image's words, and where its root is.
pub(crate) fn command_line(words: &str, root_hash: &Digest) -> String {
    let root = format!("roothash={}", root_hash.hex());
    [words, &root].join(" ").trim_start().to_owned()
}

/// What the image says that it is; the boot loader shows no image that does not.
fn os_release(tree: &Tree) -> Result<Vec<u8>, Error> {
    let file = OS_RELEASE.into_iter().find_map(|path| {
        let entry = tree.get(path.as_bytes())?;
        match &entry.kind {
            Kind::File(content) => Some((path, content)),
            _ => None,
        }
    });
    let (path, content) = file.ok_or(Error::NoOsRelease)?;
    let mut bytes = Vec::new();
    let read = content.open().and_then(|mut file| {
        std::io::Read::read_to_end(&mut std::io::Read::take(&mut file, 1 << 16), &mut bytes)
    });
    read.map_err(|source| Error::Source {
        path: path.into(),
        source,
    })?;
    Ok(bytes)
}
