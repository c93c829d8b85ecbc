//! Reads a directory of this computer into a tree.
//!
//! It refuses to believe what the disk says about owners: an unprivileged builder owns all of it
//! alone, so owners come from whoever recorded them, and are root where nobody did.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use image_manifest::{Digest, Hasher};

use crate::{Content, Entry, Kind, PathError, Source, Tree};

/// What was recorded about an inode while packages were unpacked and configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// What the inode stands for, when the disk holds an empty file in its place.
    pub stands_for: Option<Kind>,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Why a directory could not be read into a tree.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A file or directory could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path cannot be in a tree.
    #[error("failed to take a path into the tree")]
    Path(#[source] PathError),
    /// A file changed while it was read.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
}

impl Tree {
    /// Reads a directory; `owner` is asked for each inode by device and number.
    ///
    /// # Errors
    /// When something in it cannot be read.
    pub fn scan(root: &Path, owner: impl Fn(u64, u64) -> Option<Owner>) -> Result<Self, ScanError> {
        let mut scan = Scan {
            owner,
            tree: Self::new(),
            inodes: BTreeMap::new(),
            files: Vec::new(),
        };
        scan.directory(root, b"")?;
        let digests = digest_all(&scan.files)?;
        let mut tree = scan.tree;
        for (file, digest) in scan.files.into_iter().zip(digests) {
            for path in file.names {
                let content = Content {
                    size: file.size,
                    digest,
                    source: Source::Path(file.path.clone()),
                };
                if let Some(entry) = tree.entry_mut(&path) {
                    entry.kind = Kind::File(content);
                }
            }
        }
        Ok(tree)
    }
}

struct Scan<F> {
    owner: F,
    tree: Tree,
    /// Inodes with several names: their number in `files`, if they are files, and in the tree.
    inodes: BTreeMap<(u64, u64), (u64, Option<usize>)>,
    files: Vec<FoundFile>,
}

/// A file whose digest is still to be computed.
struct FoundFile {
    path: PathBuf,
    size: u64,
    names: Vec<Vec<u8>>,
}

impl<F: Fn(u64, u64) -> Option<Owner>> Scan<F> {
    fn directory(&mut self, directory: &Path, path: &[u8]) -> Result<(), ScanError> {
        self.take(directory, path)?;
        let read = |source| ScanError::Read {
            path: directory.to_owned(),
            source,
        };
        let entries = fs::read_dir(directory).map_err(read)?;
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(read)?;
        names.sort();
        for name in names {
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(name.as_bytes());
            let file = directory.join(&name);
            if file.symlink_metadata().map_err(read)?.is_dir() {
                self.directory(&file, &below)?;
            } else {
                self.take(&file, &below)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, file: &Path, path: &[u8]) -> Result<(), ScanError> {
        let read = |source| ScanError::Read {
            path: file.to_owned(),
            source,
        };
        let metadata = file.symlink_metadata().map_err(read)?;
        let inode = (metadata.dev(), metadata.ino());
        let owner = (self.owner)(inode.0, inode.1).unwrap_or_default();
        let kind = match owner.stands_for {
            Some(kind) => kind,
            None => kind_of(file, &metadata).map_err(read)?,
        };
        let is_file = matches!(kind, Kind::File(_));
        let mut entry = Entry::new(kind, metadata.mode());
        (entry.uid, entry.gid) = (owner.uid, owner.gid);
        entry.xattrs = owner.xattrs;
        let mut known = None;
        if metadata.nlink() > 1 && !metadata.is_dir() {
            let number = self.inodes.len() as u64;
            let next_file = is_file.then_some(self.files.len());
            let (link, at) = *self.inodes.entry(inode).or_insert((number, next_file));
            entry.link = Some(link);
            known = at.filter(|at| *at < self.files.len());
        }
        match known {
            Some(at) => self.files[at].names.push(path.to_vec()),
            None if is_file => self.files.push(FoundFile {
                path: file.to_owned(),
                size: metadata.len(),
                names: vec![path.to_vec()],
            }),
            None => {}
        }
        self.tree.insert(path, entry).map_err(ScanError::Path)
    }
}

fn kind_of(file: &Path, metadata: &Metadata) -> io::Result<Kind> {
    let kind = metadata.file_type();
    Ok(if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Symlink(fs::read_link(file)?.into_os_string().as_bytes().to_vec())
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_char_device() {
        Kind::Character(device(metadata.rdev()))
    } else if kind.is_block_device() {
        Kind::Block(device(metadata.rdev()))
    } else {
        // Its content is put in when all digests are known.
        Kind::File(Content::of(&b""[..]))
    })
}

/// Splits a device number as glibc packs it.
fn device(number: u64) -> crate::Device {
    let low = |number: u64| u32::try_from(number & 0xffff_ffff).unwrap_or_default();
    crate::Device {
        major: low((number >> 8) & 0xfff | (number >> 32) & 0xffff_f000),
        minor: low(number & 0xff | (number >> 12) & 0xffff_ff00),
    }
}

/// Computes the digests of all files, on as many threads as there are processors.
fn digest_all(files: &[FoundFile]) -> Result<Vec<Digest>, ScanError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        let mut buffer = vec![0; 256 << 10];
        while let Some((at, file)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            files.get(at).map(|file| (at, file))
        } {
            done.push((at, digest_file(file, &mut buffer)?));
        }
        Ok(done)
    };
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect::<Result<Vec<_>, ScanError>>()
    })?;
    let mut digests: Vec<_> = parts.into_iter().flatten().collect();
    digests.sort_unstable_by_key(|(at, _)| *at);
    Ok(digests.into_iter().map(|(_, digest)| digest).collect())
}

fn digest_file(file: &FoundFile, buffer: &mut [u8]) -> Result<Digest, ScanError> {
    let read = |source| ScanError::Read {
        path: file.path.clone(),
        source,
    };
    let mut bytes = File::open(&file.path).map_err(read)?;
    let mut hasher = Hasher::new();
    loop {
        let length = bytes.read(buffer).map_err(read)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
    }
    if hasher.bytes() != file.size {
        let path = file.path.clone();
        return Err(ScanError::Changed { path });
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::Device;

    #[test]
    fn a_directory_becomes_the_tree_that_was_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(root.join("bin")).unwrap();
        fs::write(root.join("bin/one"), "one").unwrap();
        fs::hard_link(root.join("bin/one"), root.join("two")).unwrap();
        fs::write(root.join("null"), "").unwrap();
        symlink("bin/one", root.join("link")).unwrap();
        for (path, mode) in [("bin", 0o2755), ("bin/one", 0o4711), ("null", 0o666)] {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        let null = root.join("null").metadata().unwrap().ino();
        let one = root.join("two").metadata().unwrap().ino();
        let recorded = |_, inode| {
            let device = Kind::Character(Device { major: 1, minor: 3 });
            let stands_for = (inode == null).then_some(device);
            (inode == null || inode == one).then(|| Owner {
                uid: 1,
                gid: 2,
                stands_for,
                ..Owner::default()
            })
        };
        let tree = Tree::scan(root, recorded).unwrap();
        let one =
            "f 4711 1 2 3 sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
        let expected = format!(
            "firstboot-listing 1\n/ d 0755 0 0\n/bin d 2755 0 0\n/bin/one {one}\n\
             /link l 0777 0 0 bin/one\n/null c 0666 1 2 1 3\n/two {one}\n"
        );
        assert_eq!(String::from_utf8(tree.listing()).unwrap(), expected);
        let link = |path: &[u8]| tree.get(path).unwrap().link;
        assert!(link(b"two").is_some() && link(b"two") == link(b"bin/one"));
    }
}
