//! Entries of a package's tar archives, checked before anyone sees them.
//!
//! It refuses paths that are absolute or climb, names longer than Linux takes, sparse files and extended headers:
//! dpkg writes none of these (it knows ustar and GNU long names only).

use std::fmt;
use std::io::{self, Read};

use super::Error;

/// Longest path or link target that Linux takes.
const MAX_NAME: u64 = 4096;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file; its content is read from the entry.
    File {
        /// Size in bytes.
        size: u64,
    },
    /// Another name of a file that came before in the same archive.
    HardLink {
        /// Path of the first name, checked like all paths.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as written.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
}

/// One entry; reading it gives the file's content.
pub struct Entry<'a, R: Read + 'a> {
    path: Vec<u8>,
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    modified: i64,
    inner: tar::Entry<'a, R>,
}

impl<R: Read> fmt::Debug for Entry<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("path", &String::from_utf8_lossy(&self.path))
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Entry<'_, R> {
    /// Path without leading `./` or `/`; empty for the root directory itself. No component is `..`, `.` or empty.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Permission bits with setuid, setgid and sticky.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// Number of the owner.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Number of the group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Name of the owner, empty when the archive has none.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        self.inner.header().username_bytes().unwrap_or_default()
    }

    /// Name of the group, empty when the archive has none.
    #[must_use]
    pub fn group(&self) -> &[u8] {
        self.inner.header().groupname_bytes().unwrap_or_default()
    }

    /// Time of modification in seconds since 1970.
    #[must_use]
    pub fn modified(&self) -> i64 {
        self.modified
    }
}

impl<R: Read> Read for Entry<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

/// Iterator over the entries of an archive.
pub struct Entries<'a, R: Read + 'a> {
    inner: tar::Entries<'a, R>,
    part: &'static str,
    failed: bool,
}

impl<R: Read> fmt::Debug for Entries<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").finish_non_exhaustive()
    }
}

impl<'a, R: Read> Entries<'a, R> {
    pub(super) fn new(archive: &'a mut tar::Archive<R>, part: &'static str) -> Result<Self, Error> {
        let inner = archive
            .entries()
            .map_err(|source| Error::Read { part, source })?
            .raw(true);
        Ok(Self {
            inner,
            part,
            failed: false,
        })
    }

    fn advance(&mut self) -> Result<Option<Entry<'a, R>>, Error> {
        let mut long_path = None;
        let mut long_link = None;
        loop {
            let Some(entry) = self.inner.next() else {
                return Ok(None);
            };
            let mut entry = entry.map_err(|source| self.read_error(source))?;
            let kind = entry.header().entry_type();
            let slot = if kind.is_gnu_longname() {
                &mut long_path
            } else if kind.is_gnu_longlink() {
                &mut long_link
            } else {
                return self.check(entry, long_path, long_link).map(Some);
            };
            *slot = Some(read_name(&mut entry).map_err(|source| self.read_error(source))?);
        }
    }

    fn check(
        &self,
        entry: tar::Entry<'a, R>,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry<'a, R>, Error> {
        let header = entry.header();
        let path = clean(&long_path.unwrap_or_else(|| header.path_bytes().into_owned()))?;
        let numbers = || -> io::Result<_> {
            // Owners beyond 32 bits do not exist on Linux.
            let narrow = |id: u64| u32::try_from(id).map_err(io::Error::other);
            let modified = i64::try_from(header.mtime()?).map_err(io::Error::other)?;
            Ok((
                header.mode()? & 0o7777,
                narrow(header.uid()?)?,
                narrow(header.gid()?)?,
                modified,
            ))
        };
        let (mode, uid, gid, modified) = numbers().map_err(|source| self.read_error(source))?;
        let link = || {
            let target =
                long_link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
            match target {
                Some(target) if !target.is_empty() && !target.contains(&0) => Ok(target),
                _ => Err(unsafe_path(&path)),
            }
        };
        let kind = match header.entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File {
                size: header.size().map_err(|source| self.read_error(source))?,
            },
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Link => Kind::HardLink {
                target: clean(&link()?)?,
            },
            tar::EntryType::Symlink => Kind::Symlink { target: link()? },
            tar::EntryType::Char | tar::EntryType::Block => {
                let path = String::from_utf8_lossy(&path).into_owned();
                return Err(Error::Device { path });
            }
            tar::EntryType::Fifo => Kind::Fifo,
            other => {
                return Err(Error::UnsupportedEntry {
                    path: String::from_utf8_lossy(&path).into_owned(),
                    kind: other.as_byte(),
                });
            }
        };
        if path.is_empty() && kind != Kind::Directory {
            return Err(unsafe_path(&path));
        }
        Ok(Entry {
            path,
            kind,
            mode,
            uid,
            gid,
            modified,
            inner: entry,
        })
    }

    fn read_error(&self, source: io::Error) -> Error {
        Error::Read {
            part: self.part,
            source,
        }
    }
}

impl<'a, R: Read> Iterator for Entries<'a, R> {
    type Item = Result<Entry<'a, R>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let entry = self.advance().transpose();
        self.failed = matches!(entry, Some(Err(_)));
        entry
    }
}

fn read_name(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut name = Vec::new();
    entry.take(MAX_NAME + 2).read_to_end(&mut name)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    if name.len() as u64 > MAX_NAME {
        return Err(io::Error::other("a name is longer than any path of Linux"));
    }
    Ok(name)
}

/// Removes `.` and empty components; refuses to climb, to begin at the root and to hold NUL.
fn clean(path: &[u8]) -> Result<Vec<u8>, Error> {
    let mut cleaned = Vec::with_capacity(path.len());
    if path.first() == Some(&b'/') || path.contains(&0) {
        return Err(unsafe_path(path));
    }
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(unsafe_path(path)),
            name => {
                if name.len() > 255 {
                    return Err(unsafe_path(path));
                }
                if !cleaned.is_empty() {
                    cleaned.push(b'/');
                }
                cleaned.extend_from_slice(name);
            }
        }
    }
    Ok(cleaned)
}

fn unsafe_path(path: &[u8]) -> Error {
    let shown = &path[..path.len().min(200)];
    Error::UnsafePath {
        path: String::from_utf8_lossy(shown).into_owned(),
    }
}
