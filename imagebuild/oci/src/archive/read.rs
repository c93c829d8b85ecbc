//! Archives as others write them: POSIX, pax and GNU headers, as a stream of entries.
//!
//! It refuses sparse files, paths that lead out of the root, archives without an end, and more entries, longer names or more
//! bytes than its limits.

use std::collections::BTreeMap;
use std::io::{self, Read};

use image_tree::{Device, Entry, Kind};

use super::{BLOCK, XATTR, field, padding, sum};

/// Longest path that is read, as Linux has it.
const PATH: usize = 4095;
/// Most extended records of one entry: attributes may have 64 KiB each.
const RECORDS: u64 = 1 << 20;

/// What is read at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one archive.
    pub entries: u64,
    /// Bytes of one archive, all headers among them.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            bytes: 64 << 30,
        }
    }
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its bytes could not be read or unpacked.
    #[error("failed to read the archive")]
    Read(#[source] io::Error),
    /// It is larger than the limit.
    #[error("the archive has more than {0} bytes")]
    TooLarge(u64),
    /// It has more entries than the limit.
    #[error("the archive has more than {0} entries")]
    TooMany(u64),
    /// A header is not one.
    #[error("the header at {offset} is malformed: {reason}")]
    Header {
        /// Where it stands.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A path leads out of the root, or is none.
    #[error("`{}` is not a path below the root", String::from_utf8_lossy(.0))]
    Path(Vec<u8>),
    /// An entry is of a kind that layers do not have.
    #[error("`{}` is of a kind that is not known: `{}`", String::from_utf8_lossy(path), kind.escape_ascii())]
    Kind {
        /// The entry.
        path: Vec<u8>,
        /// The letter of its kind.
        kind: u8,
    },
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its path, without leading or trailing slash; the root is `""`.
    pub path: Vec<u8>,
    /// What it is.
    pub what: What,
    /// Mode, owner and attributes; the kind is right for all but files, whose content is still to come.
    pub entry: Entry,
}

/// What an entry of an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A file of so many bytes, which come next.
    File(u64),
    /// Another name of what is at this path.
    Link(Vec<u8>),
    /// Anything else: all of it is in the entry.
    Other,
}

/// A stream of entries.
#[derive(Debug)]
pub struct Archive<R> {
    bytes: R,
    limits: Limits,
    offset: u64,
    entries: u64,
    /// Bytes of the last file that were not read yet, and its padding.
    content: u64,
    padding: usize,
}

impl<R: Read> Archive<R> {
    /// Starts to read.
    pub fn new(bytes: R, limits: Limits) -> Self {
        Self {
            bytes,
            limits,
            offset: 0,
            entries: 0,
            content: 0,
            padding: 0,
        }
    }

    /// Returns the next entry; what was not read of the content before is skipped.
    ///
    /// # Errors
    /// When the archive is malformed or passes a limit.
    pub fn next_entry(&mut self) -> Result<Option<Item>, Error> {
        self.skip()?;
        let mut long = Long::default();
        loop {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(Error::TooMany(self.limits.entries));
            }
            let size = self.number(&header[field::SIZE])?;
            match header[field::TYPE] {
                b'x' => long.records(&self.records(size)?, self.offset)?,
                // What is said about all entries is not about any of them: comments of `git archive`.
                b'g' => drop(self.records(size)?),
                b'L' => long.path = Some(text(&self.records(size)?).to_vec()),
                b'K' => long.link = Some(text(&self.records(size)?).to_vec()),
                _ => return self.item(&header, size, long).map(Some),
            }
        }
    }

    /// Reads the next bytes of the last file; none at its end.
    ///
    /// # Errors
    /// When the archive ends before them.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let most = usize::try_from(self.content)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        self.exact(&mut buffer[..most])?;
        self.content -= most as u64;
        Ok(most)
    }

    /// Reads what is left, to the last byte: what stands behind the end of the archive must be nothing.
    ///
    /// # Errors
    /// When there is anything but zeros.
    pub fn finish(mut self) -> Result<(), Error> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = self.bytes.read(&mut buffer).map_err(Error::Read)?;
            if count == 0 {
                return Ok(());
            }
            self.count(count)?;
            if buffer[..count].iter().any(|byte| *byte != 0) {
                return Err(self.malformed("something stands behind the end of the archive"));
            }
        }
    }

    fn item(&mut self, header: &[u8; BLOCK], size: u64, long: Long) -> Result<Item, Error> {
        let kind = header[field::TYPE];
        let size = long.size.unwrap_or(size);
        let name = long.path.unwrap_or_else(|| name(header));
        // Old archives say by a slash that an entry is a directory.
        let kind = if matches!(kind, 0 | b'0') && name.ends_with(b"/") {
            b'5'
        } else {
            kind
        };
        let path = clean(&name)?;
        let link = long
            .link
            .unwrap_or_else(|| text(&header[field::LINK]).to_vec());
        let number = |range| self.small(self.number(&header[range]));
        let (what, kind) = match kind {
            0 | b'0' | b'7' => (
                What::File(size),
                Kind::File(image_tree::Content::of(&b""[..])),
            ),
            b'1' => (
                What::Link(clean(&link)?),
                Kind::File(image_tree::Content::of(&b""[..])),
            ),
            b'2' => (What::Other, Kind::Symlink(link)),
            b'3' | b'4' => {
                let device = Device {
                    major: number(field::MAJOR)?,
                    minor: number(field::MINOR)?,
                };
                let node = if kind == b'3' {
                    Kind::Character
                } else {
                    Kind::Block
                };
                (What::Other, node(device))
            }
            b'5' => (What::Other, Kind::Directory),
            b'6' => (What::Other, Kind::Fifo),
            kind => return Err(Error::Kind { path, kind }),
        };
        let mut entry = Entry::new(kind, number(field::MODE)?);
        entry.uid = long.uid.map_or_else(|| number(field::UID), Ok)?;
        entry.gid = long.gid.map_or_else(|| number(field::GID), Ok)?;
        entry.xattrs = long.xattrs;
        // A link has no content of its own, whatever some writers say.
        self.content = match what {
            What::File(size) => size,
            What::Link(_) | What::Other => 0,
        };
        self.padding = padding(self.content);
        Ok(Item { path, what, entry })
    }

    /// Reads a header; `None` where the archive ends.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut header = [0; BLOCK];
        self.exact(&mut header)?;
        if header == [0; BLOCK] {
            return Ok(None);
        }
        if self.number(&header[field::SUM])? != u64::from(sum(&header)) {
            return Err(self.malformed("its sum is wrong"));
        }
        Ok(Some(header))
    }

    fn records(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > RECORDS {
            return Err(self.malformed("its records are too long"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.exact(&mut bytes)?;
        let mut rest = [0; BLOCK];
        self.exact(&mut rest[..padding(size)])?;
        Ok(bytes)
    }

    fn skip(&mut self) -> Result<(), Error> {
        let mut buffer = vec![0; 16 << 10];
        while self.read(&mut buffer)? > 0 {}
        let padding = std::mem::take(&mut self.padding);
        self.exact(&mut buffer[..padding])
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        self.count(buffer.len())?;
        self.bytes.read_exact(buffer).map_err(Error::Read)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Error> {
        self.offset = self.offset.saturating_add(bytes as u64);
        if self.offset > self.limits.bytes {
            return Err(Error::TooLarge(self.limits.bytes));
        }
        Ok(())
    }

    /// Reads a number: octal digits, or as GNU writes what those cannot hold.
    fn number(&self, field: &[u8]) -> Result<u64, Error> {
        if let Some((first @ (0x80 | 0xff), rest)) = field.split_first() {
            let (high, low) = rest.split_at(rest.len().saturating_sub(8));
            let plain = *first == 0x80 && high.iter().all(|byte| *byte == 0);
            let number = low
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte));
            return if plain {
                Ok(number)
            } else {
                Err(self.malformed("a number is negative or too large"))
            };
        }
        let digits = text(field);
        let digits = digits.trim_ascii();
        if digits.is_empty() {
            return Ok(0);
        }
        let number = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| !digits.starts_with('+'));
        let number = number.and_then(|digits| u64::from_str_radix(digits, 8).ok());
        number.ok_or_else(|| self.malformed("a number is none"))
    }

    fn small(&self, number: Result<u64, Error>) -> Result<u32, Error> {
        u32::try_from(number?).map_err(|_| self.malformed("a number is too large"))
    }

    fn malformed(&self, reason: &'static str) -> Error {
        Error::Header {
            offset: self.offset.saturating_sub(BLOCK as u64),
            reason,
        }
    }
}

/// What came before a header because the header cannot hold it.
#[derive(Default)]
struct Long {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Long {
    fn records(&mut self, mut bytes: &[u8], offset: u64) -> Result<(), Error> {
        let malformed = |reason| Error::Header { offset, reason };
        while !bytes.is_empty() {
            let (record, rest) = record(bytes).ok_or_else(|| malformed("a record is malformed"))?;
            bytes = rest;
            let equals = record.iter().position(|byte| *byte == b'=');
            let at = equals.ok_or_else(|| malformed("a record has no value"))?;
            let (key, value) = (&record[..at], &record[at + 1..]);
            let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
            let small = || number().and_then(|number| u32::try_from(number).ok());
            let wrong = || malformed("a record's number is none");
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number().ok_or_else(wrong)?),
                b"uid" => self.uid = Some(small().ok_or_else(wrong)?),
                b"gid" => self.gid = Some(small().ok_or_else(wrong)?),
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(malformed("layers must not hold sparse files"));
                }
                key => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        self.xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Splits off the next record, without its length and line end.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?;
    Some((record.strip_suffix(b"\n")?, &bytes[length..]))
}

fn name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&header[field::NAME]);
    // Old GNU archives keep times where POSIX ones have the prefix.
    let posix = header[field::MAGIC].starts_with(b"ustar\0");
    let prefix = if posix {
        text(&header[field::PREFIX])
    } else {
        b""
    };
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// Text up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// Takes `./` and slashes off a path, and refuses one that leads anywhere else.
fn clean(name: &[u8]) -> Result<Vec<u8>, Error> {
    let refused = || Error::Path(name.iter().copied().take(PATH).collect());
    if name.len() > PATH + 3 || name.is_empty() || name.starts_with(b"/") || name.contains(&0) {
        return Err(refused());
    }
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refused()),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}
