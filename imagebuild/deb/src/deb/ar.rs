//! The `ar` container of a binary package, read once from front to back.
//!
//! It refuses headers that are not plain decimal text; long-name forms of other systems do not occur in packages.

use std::io::{self, Read};

use super::Error;

pub(super) const MAGIC: &[u8; 8] = b"!<arch>\n";
/// Bytes of a member's header.
pub(super) const HEADER: usize = 60;

/// Header of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) size: u64,
}

/// Reads the mark that every archive begins with.
pub(super) fn open(reader: &mut impl Read) -> Result<(), Error> {
    let mut magic = [0; MAGIC.len()];
    reader.read_exact(&mut magic).map_err(read("header"))?;
    if &magic == MAGIC {
        Ok(())
    } else {
        Err(Error::NotAPackage)
    }
}

/// Reads the next member's header, or `None` at the end.
pub(super) fn next(reader: &mut impl Read) -> Result<Option<Member>, Error> {
    let mut header = [0; HEADER];
    if reader.read(&mut header[..1]).map_err(read("header"))? == 0 {
        return Ok(None);
    }
    reader
        .read_exact(&mut header[1..])
        .map_err(read("header"))?;
    let text = std::str::from_utf8(&header).map_err(|_| Error::MalformedMember)?;
    let (Some(name), Some(size), true) = (text.get(..16), text.get(48..58), text.ends_with("`\n"))
    else {
        return Err(Error::MalformedMember);
    };
    let name = name.trim_end().trim_end_matches('/').to_owned();
    let size = size.trim();
    if size.is_empty() || !size.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(Error::MalformedMember);
    }
    let size = size.parse().map_err(|_| Error::MalformedMember)?;
    Ok(Some(Member { name, size }))
}

/// Makes a member's header, as dpkg does.
pub(super) fn header(name: &str, size: u64) -> io::Result<[u8; HEADER]> {
    let text = format!("{name:<16}0           0     0     100644  {size:<10}`\n");
    // More than ten digits have no place.
    text.into_bytes()
        .try_into()
        .map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// Passes over the byte that fills a member of odd size.
pub(super) fn skip_padding(reader: &mut impl Read, size: u64) -> Result<(), Error> {
    if size % 2 == 1 {
        io::copy(&mut reader.take(1), &mut io::sink()).map_err(read("padding"))?;
    }
    Ok(())
}

pub(super) fn read(part: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Read { part, source }
}
