//! The initrd: stage1, what it knows of its root file system, and the modules that it needs.
//!
//! It refuses anything of a host or a site: every host of an image boots the same initrd.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use image_manifest::{BootImage, Chunks, Digest, Hasher};
use image_tree::{Device, Entry, Kind, Tree, cpio};

use super::kernel::{Firmware, InstalledKernel};
use super::{Error, create, plan};
use crate::stage1;

/// Size of the pieces in which stage1 fetches and checks the root file system.
const CHUNK: usize = 4 << 20;
/// The index of modules that stage1 reads.
const INDEX: &str = "etc/firstboot/modules.index";
/// Mount points that stage1 needs.
const DIRECTORIES: [&str; 5] = ["dev", "newroot", "proc", "run", "sys"];

/// Describes a root file system to the stage1 that fetches it.
pub(super) fn describe(name: &str, tree: Digest, rootfs: &Path) -> Result<BootImage, Error> {
    let read = |source| Error::Source {
        path: rootfs.to_owned(),
        source,
    };
    let mut file = File::open(rootfs).map_err(read)?;
    let mut whole = Hasher::new();
    let mut digests = Vec::new();
    let mut chunk = Vec::with_capacity(CHUNK);
    loop {
        chunk.clear();
        let mut piece = (&mut file).take(CHUNK as u64);
        if piece.read_to_end(&mut chunk).map_err(read)? == 0 {
            break;
        }
        whole.update(&chunk);
        digests.push(Digest::of(&chunk));
    }
    Ok(BootImage {
        name: name.to_owned(),
        tree,
        size: whole.bytes(),
        rootfs: whole.finish(),
        chunks: Chunks {
            size: CHUNK as u64,
            digests,
        },
        signers: Vec::new(),
    })
}

/// Makes the content of the initrd.
///
/// Modules stay as their package has them: the kernel takes them apart itself
/// (`CONFIG_MODULE_DECOMPRESS`), and a host loads a handful of them. Unpacked they are five times
/// the memory, and the time to write it, on every boot.
pub(super) fn tree(
    image: &BootImage,
    kernel: &InstalledKernel,
    root: &Tree,
) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    let console = Device { major: 5, minor: 1 };
    let json = serde_json::to_vec(image).unwrap_or_default();
    let index = kernel.index.clone().into_bytes();
    let mut entries = vec![
        ("init".to_owned(), Entry::file(stage1::INIT, 0o755)),
        (BootImage::PATH.to_owned(), Entry::file(json, 0o644)),
        (INDEX.to_owned(), Entry::file(index, 0o644)),
        (
            "dev/console".to_owned(),
            Entry::new(Kind::Character(console), 0o600),
        ),
    ];
    entries.extend(DIRECTORIES.map(|path| (path.to_owned(), Entry::directory())));
    for (path, stands) in &kernel.modules {
        entries.push((kernel.place(path), file(root, stands)?));
    }
    for (path, firmware) in &kernel.firmware {
        let entry = match firmware {
            Firmware::File(stands) => file(root, stands)?,
            Firmware::Link(target) => Entry::new(Kind::Symlink(target.clone().into()), 0o777),
        };
        entries.push((format!("lib/firmware/{path}"), entry));
    }
    for (path, entry) in entries {
        tree.insert_all(path.as_bytes(), entry)
            .map_err(Error::Tree)?;
    }
    Ok(tree)
}

/// A file as the image has it, also where the definition brought another one.
fn file(root: &Tree, path: &str) -> Result<Entry, Error> {
    match root.get(path.as_bytes()).map(|entry| &entry.kind) {
        Some(Kind::File(content)) => Ok(Entry::new(Kind::File(content.clone()), 0o644)),
        _ => Err(Error::NoFile(path.to_owned())),
    }
}

/// Writes the initrd: one archive in one zstd frame, as Debian's kernels unpack it.
pub(super) fn write(content: &Tree, time: u32, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let out = BufWriter::new(create(path)?);
    let mut encoder = zstd::stream::Encoder::new(out, plan::INITRD_LEVEL).map_err(failed)?;
    cpio::write(content, time, &mut encoder).map_err(Error::Initrd)?;
    encoder
        .finish()
        .and_then(|mut out| out.flush())
        .map_err(failed)
}
