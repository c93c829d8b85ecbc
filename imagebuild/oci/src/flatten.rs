//! Layers back into a tree: what a container sees, with whiteouts applied.
//!
//! It refuses a layer that says two things about one path, or that puts something where its directory is not.

use std::collections::BTreeSet;
use std::io::BufRead;

use image_manifest::{Digest, Hasher};
use image_tree::{Content, Entry, Kind, PathError, Source, Tree};

use crate::archive::read::{Archive, Error as ArchiveError, Item, Limits, What};
use crate::compress;
use crate::difference::WHITEOUT;

/// Says that all that lower layers have in a directory is gone.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Why a layer could not be laid over a tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive was refused.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Two entries are about one path.
    #[error("`/{}` is in the layer twice", String::from_utf8_lossy(.0))]
    Twice(Vec<u8>),
    /// A path cannot be in the tree.
    #[error("failed to take a path into the tree")]
    Path(#[source] PathError),
    /// A link to what is not there, or is a directory.
    #[error(
        "`/{}` is a link to `/{}`, which is no file",
        String::from_utf8_lossy(path),
        String::from_utf8_lossy(target)
    )]
    Link {
        /// The link.
        path: Vec<u8>,
        /// Where it leads.
        target: Vec<u8>,
    },
    /// A whiteout of something that is no name.
    #[error("`/{}` is a whiteout of nothing", String::from_utf8_lossy(.0))]
    Nameless(Vec<u8>),
    /// The root must stay a directory.
    #[error("the root of the layer is no directory")]
    Root,
    /// The archive is not the one that the configuration names.
    #[error("the layer unpacks to {found}, its configuration says {expected}")]
    Different {
        /// What the configuration says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
}

/// How far a layer was laid: where something is wrong with it, this says where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Paths of the layer that are in the tree by now; those that it removes are said by their whiteouts.
    pub paths: BTreeSet<Vec<u8>>,
    /// The path that was read last.
    pub last: Vec<u8>,
}

/// Lays a layer over a tree; the archive must have this digest. Contents of files are hashed, not kept.
///
/// # Errors
/// When the layer is refused; the tree holds then what came before.
pub fn lay(
    tree: &mut Tree,
    layer: impl BufRead,
    diff_id: &Digest,
    limits: Limits,
    progress: &mut Progress,
) -> Result<(), Error> {
    let found = lay_any(tree, layer, limits, progress)?;
    if found == *diff_id {
        return Ok(());
    }
    Err(Error::Different {
        expected: *diff_id,
        found,
    })
}

/// Lays a layer over a tree, and returns the digest of its archive.
///
/// # Errors
/// When the layer is refused; the tree holds then what came before.
pub fn lay_any(
    tree: &mut Tree,
    mut layer: impl BufRead,
    limits: Limits,
    progress: &mut Progress,
) -> Result<Digest, Error> {
    let read = |source| Error::Archive(ArchiveError::Read(source));
    let encoding = compress::detect(layer.fill_buf().map_err(read)?);
    let plain = compress::decode(encoding, layer).map_err(read)?;
    let mut hashed = Hashed {
        bytes: plain,
        hasher: Hasher::new(),
    };
    let mut archive = Archive::new(&mut hashed, limits);
    let mut buffer = vec![0; 128 << 10];
    while let Some(item) = archive.next_entry()? {
        progress.last.clone_from(&item.path);
        if progress.paths.contains(&item.path) {
            return Err(Error::Twice(item.path));
        }
        if let Some(gone) = whiteout(&item.path) {
            remove(tree, &gone, &progress.paths)?;
            progress.paths.insert(item.path);
            continue;
        }
        let (path, entry) = finished(tree, &mut archive, item, &mut buffer)?;
        if path.is_empty() && entry.kind != Kind::Directory {
            return Err(Error::Root);
        }
        tree.insert(&path, entry).map_err(Error::Path)?;
        progress.paths.insert(path);
    }
    archive.finish()?;
    Ok(hashed.hasher.finish())
}

/// What a name says that is gone.
enum Gone {
    Path(Vec<u8>),
    Below(Vec<u8>),
}

fn whiteout(path: &[u8]) -> Option<Gone> {
    let start = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    let (directory, name) = path.split_at(start);
    if name == OPAQUE {
        let end = directory.len().saturating_sub(1);
        return Some(Gone::Below(directory[..end].to_vec()));
    }
    let name = name.strip_prefix(WHITEOUT)?;
    Some(Gone::Path([directory, name].concat()))
}

/// Removes what lower layers have at or below a path; what this layer brings stays.
fn remove(tree: &mut Tree, gone: &Gone, own: &BTreeSet<Vec<u8>>) -> Result<(), Error> {
    let directory = match gone {
        Gone::Path(path) if own.contains(path) => return Err(Error::Twice(path.clone())),
        Gone::Path(path) if path.is_empty() || path.ends_with(b"/") => {
            return Err(Error::Nameless(path.clone()));
        }
        Gone::Path(path) => {
            tree.remove(path);
            return Ok(());
        }
        Gone::Below(directory) => directory,
    };
    let below = tree.below(directory).map(|(path, _)| path.to_vec());
    let lower: Vec<_> = below.filter(|path| !own.contains(path)).collect();
    for path in lower {
        // A directory of a lower layer stays where this layer put something into it.
        let kept = tree.below(&path).any(|(path, _)| own.contains(path));
        if !kept {
            tree.remove(&path);
        }
    }
    Ok(())
}

fn finished<R: std::io::Read>(
    tree: &Tree,
    archive: &mut Archive<R>,
    item: Item,
    buffer: &mut [u8],
) -> Result<(Vec<u8>, Entry), Error> {
    let Item {
        path,
        what,
        mut entry,
    } = item;
    match what {
        What::Other => {}
        What::File(size) => {
            let mut hasher = Hasher::new();
            loop {
                match archive.read(buffer)? {
                    0 => break,
                    count => hasher.update(&buffer[..count]),
                }
            }
            entry.kind = Kind::File(Content {
                size,
                digest: hasher.finish(),
                source: Source::Elsewhere,
            });
        }
        What::Link(target) => match tree.get(&target) {
            Some(first) if first.kind != Kind::Directory => entry = first.clone(),
            _ => return Err(Error::Link { path, target }),
        },
    }
    Ok((path, entry))
}

struct Hashed<R> {
    bytes: R,
    hasher: Hasher,
}

impl<R: std::io::Read> std::io::Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
