//! The tree: every path of a root file system, with all that identifies it.
//!
//! It refuses paths that are not plain names below the root, so that whoever walks a tree never
//! leaves it. Times are not part of a tree: its writers are told the one time of the image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use image_manifest::Digest;

use crate::listing;

/// Longest name of one entry, as Linux has it.
const NAME_LIMIT: usize = 255;
/// Longest path, as Linux has it.
const PATH_LIMIT: usize = 4095;

/// A root file system as data: entries by path, without a leading slash; the root is `""`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<Vec<u8>, Entry>,
}

/// One path of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permissions, set-id bits and the sticky bit: `0o7777` at most.
    pub mode: u32,
    /// Number of the user that owns it.
    pub uid: u32,
    /// Number of the group that owns it.
    pub gid: u32,
    /// Extended attributes by full name, such as `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Entries with the same number are one inode under several names.
    pub link: Option<u64>,
}

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and where it points.
    Symlink(Vec<u8>),
    /// A character device.
    Character(Device),
    /// A block device.
    Block(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// The content of a regular file.
#[derive(Clone, Debug)]
pub struct Content {
    /// How many bytes.
    pub size: u64,
    /// Their digest.
    pub digest: Digest,
    /// Where to read them again.
    pub source: Source,
}

/// Two contents are equal when their bytes are, wherever they are kept.
impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        (self.size, self.digest) == (other.size, other.digest)
    }
}

impl Eq for Content {}

/// Where the bytes of a file can be read.
#[derive(Clone, Debug)]
pub enum Source {
    /// In a file of this computer.
    Path(PathBuf),
    /// Here.
    Bytes(Arc<[u8]>),
    /// In a file that is open, from a position on; it stays readable when its name is gone.
    Part(Arc<File>, u64),
    /// Nowhere: the tree was read from an image only to be compared.
    Elsewhere,
}

/// Numbers of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The driver's number.
    pub major: u32,
    /// The device's number within its driver.
    pub minor: u32,
}

/// Why a path cannot be in a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A component is empty, `.`, `..`, too long or has a NUL byte.
    #[error("`{}` is not a path below the root", String::from_utf8_lossy(.0))]
    Malformed(Vec<u8>),
    /// The path is in something that is not there, or is no directory.
    #[error("`{}` is not in a directory of the tree", String::from_utf8_lossy(.0))]
    Orphan(Vec<u8>),
}

impl Entry {
    /// Makes an entry that belongs to root.
    #[must_use]
    pub fn new(kind: Kind, mode: u32) -> Self {
        Self {
            kind,
            mode: mode & 0o7777,
            uid: 0,
            gid: 0,
            xattrs: BTreeMap::new(),
            link: None,
        }
    }

    /// Makes a directory that belongs to root and that all may read.
    #[must_use]
    pub fn directory() -> Self {
        Self::new(Kind::Directory, 0o755)
    }

    /// Makes a file that belongs to root from bytes.
    #[must_use]
    pub fn file(bytes: impl Into<Arc<[u8]>>, mode: u32) -> Self {
        Self::new(Kind::File(Content::of(bytes)), mode)
    }
}

impl Content {
    /// Makes a content from bytes.
    #[must_use]
    pub fn of(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            size: bytes.len() as u64,
            digest: Digest::of(&bytes),
            source: Source::Bytes(bytes),
        }
    }

    /// Opens the bytes for reading.
    ///
    /// # Errors
    /// When the file that holds them cannot be opened, or nothing here holds them.
    pub fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        match &self.source {
            Source::Path(path) => Ok(Box::new(File::open(path)?)),
            Source::Bytes(bytes) => Ok(Box::new(Cursor::new(&bytes[..]))),
            Source::Part(file, start) => Ok(Box::new(Part {
                file,
                at: *start,
                left: self.size,
            })),
            Source::Elsewhere => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the content is not at hand",
            )),
        }
    }
}

/// Reads a part of a file without moving the position that others share.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let length = most.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// Starts with nothing but the root directory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: [(Vec::new(), Entry::directory())].into(),
        }
    }

    /// Puts an entry at a path, in place of what was there; a directory keeps what is in it only
    /// when it stays one.
    ///
    /// # Errors
    /// When the path is malformed or its directory is not in the tree.
    pub fn insert(&mut self, path: &[u8], entry: Entry) -> Result<(), PathError> {
        check_path(path)?;
        if let Some(parent) = parent(path)
            && self.entries.get(parent).map(|entry| &entry.kind) != Some(&Kind::Directory)
        {
            return Err(PathError::Orphan(path.to_vec()));
        }
        if entry.kind != Kind::Directory {
            self.remove(path);
        }
        self.entries.insert(path.to_vec(), entry);
        Ok(())
    }

    /// Puts an entry at a path and makes the directories that lead to it.
    ///
    /// # Errors
    /// When the path is malformed or leads through something that is no directory.
    pub fn insert_all(&mut self, path: &[u8], entry: Entry) -> Result<(), PathError> {
        check_path(path)?;
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if !self.entries.contains_key(&path[..at]) {
                self.insert(&path[..at], Entry::directory())?;
            }
        }
        self.insert(path, entry)
    }

    /// Takes a path out, and all that is below it.
    pub fn remove(&mut self, path: &[u8]) {
        let below: Vec<_> = self.below(path).map(|(path, _)| path.to_vec()).collect();
        self.entries.remove(path);
        for path in below {
            self.entries.remove(&path);
        }
    }

    /// Gives a file another content, under all of its names. What is no file stays what it is.
    pub fn rewrite(&mut self, path: &[u8], content: &Content) {
        let link = self.entries.get(path).and_then(|entry| entry.link);
        for (name, entry) in &mut self.entries {
            let same = name == path || link.is_some() && entry.link == link;
            if let (true, Kind::File(known)) = (same, &mut entry.kind) {
                *known = content.clone();
            }
        }
    }

    /// Finds the entry at a path.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub(crate) fn entry_mut(&mut self, path: &[u8]) -> Option<&mut Entry> {
        self.entries.get_mut(path)
    }

    /// Goes through all paths, sorted by bytes; a directory comes before what is in it.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        self.entries.iter().map(|(path, entry)| (&path[..], entry))
    }

    /// Goes through all that is below a directory.
    pub fn below(&self, directory: &[u8]) -> impl Iterator<Item = (&[u8], &Entry)> {
        let mut prefix = directory.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        let from = self.entries.range(prefix.clone()..);
        from.map(|(path, entry)| (&path[..], entry))
            .skip_while(|(path, _)| path.is_empty())
            .take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Returns how many paths there are, the root among them.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a tree has a root, always")]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Writes the canonical listing.
    #[must_use]
    pub fn listing(&self) -> Vec<u8> {
        listing::write(self)
    }

    /// Returns the tree digest: that of the canonical listing.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.listing())
    }
}

/// Returns the path of the directory that a path is in; the root is in none.
pub(crate) fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    let slash = path.iter().rposition(|byte| *byte == b'/');
    Some(&path[..slash.unwrap_or(0)])
}

/// Returns the last component of a path.
pub(crate) fn name(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[slash.map_or(0, |at| at + 1)..]
}

/// Whether a name can be that of an entry.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_LIMIT
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

fn check_path(path: &[u8]) -> Result<(), PathError> {
    let plain = path.is_empty()
        || path.len() <= PATH_LIMIT && path.split(|byte| *byte == b'/').all(is_name);
    if plain {
        Ok(())
    } else {
        Err(PathError::Malformed(
            path.iter().copied().take(PATH_LIMIT).collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_below_the_root_are_taken() {
        let mut tree = Tree::new();
        tree.insert_all(b"usr/bin/sh", Entry::file(&b"#!"[..], 0o755))
            .unwrap();
        let long = vec![b'x'; 256];
        let cases: [(&str, &[u8]); 8] = [
            ("absolute", b"/etc"),
            ("trailing slash", b"etc/"),
            ("empty component", b"usr//bin"),
            ("upwards", b"usr/../etc"),
            ("here", b"./etc"),
            ("nul", b"e\0c"),
            ("long name", &long),
            ("below a file", b"usr/bin/sh/x"),
        ];
        for (name, path) in cases {
            assert!(tree.insert_all(path, Entry::directory()).is_err(), "{name}");
        }
        assert!(tree.insert(b"var/lib", Entry::directory()).is_err());
        assert_eq!(tree.len(), 4);
    }

    #[test]
    fn a_removed_directory_takes_along_what_is_below_it_and_nothing_else() {
        let mut tree = Tree::new();
        for path in [&b"a"[..], b"a/b", b"a/b/c", b"a-b", b"a0"] {
            tree.insert(path, Entry::directory()).unwrap();
        }
        let below: Vec<_> = tree.below(b"").map(|(path, _)| path.to_vec()).collect();
        assert_eq!(below.len(), 5);
        tree.remove(b"a");
        let left: Vec<_> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(left, [&b""[..], b"a-b", b"a0"]);
    }

    #[test]
    fn a_file_is_rewritten_under_all_of_its_names_and_read_from_a_part() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "--part--").unwrap();
        let part = Content {
            size: 4,
            digest: Digest::of(b"part"),
            source: Source::Part(Arc::new(File::open(&path).unwrap()), 2),
        };
        std::fs::remove_file(&path).unwrap();
        let mut tree = Tree::new();
        for (path, link) in [(&b"a"[..], Some(1)), (b"b", Some(1)), (b"c", None)] {
            let entry = Entry {
                link,
                ..Entry::file(&b"old"[..], 0o644)
            };
            tree.insert(path, entry).unwrap();
        }
        tree.rewrite(b"b", &part);
        let read = |path: &[u8]| {
            let Kind::File(content) = &tree.get(path).unwrap().kind else {
                return String::new();
            };
            io::read_to_string(content.open().unwrap()).unwrap()
        };
        let found = [&b"a"[..], b"b", b"c"].map(read);
        assert_eq!(found, ["part", "part", "old"]);
    }
}
