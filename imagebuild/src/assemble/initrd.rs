//! The initrd: stage1, what it knows of its root file system, and the modules that it needs.
//!
//! It refuses anything of a host or a site: every host of an image boots the same initrd.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use image_manifest::{BootImage, Chunks, Digest, Hasher};
use image_tree::{Content, Device, Entry, Kind, Source, Tree, cpio};

use super::extract::Taken;
use super::kernel::InstalledKernel;
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
pub(super) fn tree(image: &BootImage, kernel: &InstalledKernel) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    let console = Device { major: 5, minor: 1 };
    let json = serde_json::to_vec(image).unwrap_or_default();
    let place = |path: &str| format!("lib/modules/{}/{path}", kernel.release);
    let index = kernel
        .initrd_modules
        .index(|path| format!("/{}", place(path)));
    let mut entries = vec![
        ("init".to_owned(), Entry::file(stage1::INIT, 0o755)),
        (BootImage::PATH.to_owned(), Entry::file(json, 0o644)),
        (INDEX.to_owned(), Entry::file(index.into_bytes(), 0o644)),
        (
            "dev/console".to_owned(),
            Entry::new(Kind::Character(console), 0o600),
        ),
    ];
    entries.extend(DIRECTORIES.map(|path| (path.to_owned(), Entry::directory())));
    for (path, stands) in &kernel.initrd_files {
        entries.push((place(path), file(stands)?));
    }
    for (path, taken) in &kernel.initrd_firmware {
        let entry = match taken {
            Taken::File(path) => file(path)?,
            Taken::Link(target) => Entry::new(Kind::Symlink(target.clone().into()), 0o777),
        };
        entries.push((format!("lib/firmware/{path}"), entry));
    }
    for (path, entry) in entries {
        tree.insert_all(path.as_bytes(), entry)
            .map_err(Error::Tree)?;
    }
    Ok(tree)
}

fn file(path: &Path) -> Result<Entry, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Source {
        path: path.to_owned(),
        source,
    })?;
    let content = Content {
        size: bytes.len() as u64,
        digest: Digest::of(&bytes),
        source: Source::Path(path.to_owned()),
    };
    Ok(Entry::new(Kind::File(content), 0o644))
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
