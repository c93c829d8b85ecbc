//! Binary packages: the `ar` container, the control files, and the data archive as a stream.
//!
//! It refuses what dpkg would not write and what no package may have: absolute paths, `..`, devices, members beyond the
//! bounds below, extended tar headers and compressions that Debian does not use. Nothing here touches the disk; the caller owns every path.

mod ar;
mod decode;
mod entries;
mod recompress;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use crate::deb822::Stanza;

pub use entries::{Entries, Entry, Kind};
pub use recompress::{RecompressError, Recompressed, recompress};

/// A control archive, unpacked; the largest in Debian 13 is below 4 MiB.
const MAX_CONTROL: u64 = 32 << 20;
/// A data archive, unpacked; the largest in Debian 13 is below 4 GiB.
const MAX_DATA: u64 = 16 << 30;
/// What any data archive may unpack to, and beyond it for each of its own bytes. Of 140,481 entries of indexes of Debian 13
/// the most compressible is `librocblas0-tests-data`, 570 times its size; zeros under zstd come to 20,000 times.
const FREE_DATA: u64 = 64 << 20;
const MAX_RATIO: u64 = 1024;
/// Files in a control archive.
const MAX_CONTROL_FILES: usize = 256;

/// Why a package could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not an `ar` archive.
    #[error("not a Debian package")]
    NotAPackage,
    /// A header of the container is damaged.
    #[error("a member header of the package is damaged")]
    MalformedMember,
    /// The format is not 2.x, or a member stands in the wrong place.
    #[error("unexpected member `{name}` in the package")]
    UnexpectedMember {
        /// Name of the member.
        name: String,
    },
    /// The package ends before this member.
    #[error("the package has no `{name}`")]
    MissingMember {
        /// Name of the member.
        name: &'static str,
    },
    /// Compressed in a way that Debian does not use.
    #[error("`{name}` has an unknown compression")]
    UnknownCompression {
        /// Name of the member.
        name: String,
    },
    /// Reading or decompressing failed.
    #[error("failed to read the {part} of the package")]
    Read {
        /// What was being read.
        part: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// More than the bound of this module.
    #[error("the {part} of the package is larger than {limit} allowed")]
    TooLarge {
        /// What is too large.
        part: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A path that leads out of the tree, or is none.
    #[error("the package holds the unsafe path `{path}`")]
    UnsafePath {
        /// The path, readable.
        path: String,
    },
    /// A device, which would be as good on every host that runs the package.
    #[error("the package holds the device `{path}`, which no package may (Debian Policy §10.6)")]
    Device {
        /// The path, readable.
        path: String,
    },
    /// A kind of archive entry that packages do not hold.
    #[error("`{path}` has the unsupported tar type {kind:#04x}")]
    UnsupportedEntry {
        /// The path, readable.
        path: String,
        /// Type byte of the tar header.
        kind: u8,
    },
    /// The control file is missing or not UTF-8.
    #[error("the package has no readable control file")]
    NoControl,
}

/// One file of the control archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub bytes: Vec<u8>,
}

/// The control archive: `control` itself, maintainer scripts, conffiles, triggers, md5sums and the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    text: String,
    /// All files by name, without `control`; names have no slash.
    pub files: BTreeMap<String, ControlFile>,
}

impl Control {
    /// Returns the text of the file `control`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns a field of the file `control`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        Stanza::first(&self.text).field(name)
    }

    /// Returns the paths that `conffiles` lists, without leading slash.
    #[must_use]
    pub fn conffiles(&self) -> Vec<&str> {
        let text = self
            .files
            .get("conffiles")
            .and_then(|file| std::str::from_utf8(&file.bytes).ok())
            .unwrap_or("");
        // `remove-on-upgrade /path` names a file that the package no longer has.
        text.lines()
            .filter_map(|line| line.trim_end().strip_prefix('/'))
            .collect()
    }
}

/// A package whose control files have been read, and whose data waits to be streamed.
pub struct Deb<'r> {
    control: Control,
    data: Box<dyn Read + Send + 'r>,
}

impl fmt::Debug for Deb<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deb")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl<'r> Deb<'r> {
    /// Reads a package up to its data archive. Give a buffered reader.
    ///
    /// # Errors
    /// When the bytes are not a package, damaged, or beyond the bounds of this module.
    pub fn open(mut reader: impl Read + Send + 'r) -> Result<Self, Error> {
        ar::open(&mut reader)?;
        check_format(&mut reader)?;
        let (name, size) = find(&mut reader, "control.tar")?;
        let control = {
            let member = (&mut reader).take(size);
            let mut tar = decode::decoder(member, &name, "control.tar")?;
            let control = read_control(&mut tar)?;
            drain(&mut tar)?;
            control
        };
        ar::skip_padding(&mut reader, size)?;
        let (name, size) = find(&mut reader, "data.tar")?;
        let data = decode::decoder(reader.take(size), &name, "data.tar")?;
        let data = Box::new(decode::Bounded::new(data, data_bound(size)));
        Ok(Self { control, data })
    }

    /// Returns the control files.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Turns to the data archive.
    #[must_use]
    pub fn into_data(self) -> Data<'r> {
        self.split().1
    }

    /// Splits into the control files and the data archive.
    #[must_use]
    pub fn split(self) -> (Control, Data<'r>) {
        let archive = tar::Archive::new(self.data);
        (self.control, Data { archive })
    }
}

/// The data archive of a package.
pub struct Data<'r> {
    archive: tar::Archive<Box<dyn Read + Send + 'r>>,
}

impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data").finish_non_exhaustive()
    }
}

impl<'r> Data<'r> {
    /// Goes through the entries in archive order; each must be read before the next is asked for, or is passed over.
    ///
    /// # Errors
    /// When it was called before.
    pub fn entries(&mut self) -> Result<Entries<'_, Box<dyn Read + Send + 'r>>, Error> {
        Entries::new(&mut self.archive, "data")
    }
}

/// Returns what a data archive of that size, as it is compressed, may unpack to.
fn data_bound(size: u64) -> u64 {
    let most = size.saturating_mul(MAX_RATIO).saturating_add(FREE_DATA);
    most.min(MAX_DATA)
}

fn check_format(reader: &mut (impl Read + Send)) -> Result<(), Error> {
    let member = ar::next(reader)?.ok_or(Error::MissingMember {
        name: "debian-binary",
    })?;
    if member.name != "debian-binary" || member.size > 64 {
        return Err(Error::UnexpectedMember { name: member.name });
    }
    let mut text = Vec::new();
    reader
        .take(member.size)
        .read_to_end(&mut text)
        .map_err(ar::read("format"))?;
    ar::skip_padding(reader, member.size)?;
    if text.starts_with(b"2.") {
        Ok(())
    } else {
        Err(Error::NotAPackage)
    }
}

/// Finds the next member of that name, whatever its compression; members whose name begins with `_` are passed over (deb(5)).
fn find(reader: &mut (impl Read + Send), name: &'static str) -> Result<(String, u64), Error> {
    loop {
        let member = ar::next(reader)?.ok_or(Error::MissingMember { name })?;
        if member.name.starts_with(name) {
            return Ok((member.name, member.size));
        }
        if !member.name.starts_with('_') {
            return Err(Error::UnexpectedMember { name: member.name });
        }
        io::copy(&mut reader.take(member.size), &mut io::sink()).map_err(ar::read("container"))?;
        ar::skip_padding(reader, member.size)?;
    }
}

fn read_control(reader: &mut (impl Read + Send)) -> Result<Control, Error> {
    let mut archive = tar::Archive::new(decode::Bounded::new(reader, MAX_CONTROL));
    let mut files = BTreeMap::new();
    for entry in Entries::new(&mut archive, "control files")? {
        let mut entry = entry?;
        let Kind::File { .. } = entry.kind() else {
            continue;
        };
        let name = String::from_utf8_lossy(entry.path()).into_owned();
        if name.contains('/') {
            return Err(Error::UnsafePath { path: name });
        }
        let mut bytes = Vec::new();
        entry
            .read_to_end(&mut bytes)
            .map_err(ar::read("control files"))?;
        let mode = entry.mode();
        files.insert(name, ControlFile { mode, bytes });
        if files.len() > MAX_CONTROL_FILES {
            return Err(Error::TooLarge {
                part: "list of control files",
                limit: MAX_CONTROL_FILES as u64,
            });
        }
    }
    let control = files.remove("control").ok_or(Error::NoControl)?;
    let text = String::from_utf8(control.bytes).map_err(|_| Error::NoControl)?;
    Ok(Control { text, files })
}

/// Reads what follows the end mark, so that the container stands at the next member.
fn drain(reader: &mut (impl Read + Send)) -> Result<(), Error> {
    let mut rest = decode::Bounded::new(reader, MAX_CONTROL);
    io::copy(&mut rest, &mut io::sink()).map_err(ar::read("control files"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
