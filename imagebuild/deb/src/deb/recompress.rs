//! A package once more, with a data archive that is read many times faster.
//!
//! It refuses to change what a reader finds in it: control files and entries are the same, byte for byte.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{Error, ar, check_format, data_bound, decode, find};

/// How hard the data archive is compressed: as much as costs next to nothing.
const LEVEL: i32 = 1;

/// What became of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompressed {
    /// It was written anew.
    Written,
    /// There is nothing to be gained; what was written so far is worth nothing.
    Needless,
}

/// Why a package was not written anew.
#[derive(Debug, thiserror::Error)]
pub enum RecompressError {
    /// It cannot be read.
    #[error(transparent)]
    Package(#[from] Error),
    /// It could not be written.
    #[error("failed to write the package anew")]
    Write(#[from] io::Error),
}

/// Writes a package whose data archive is compressed by xz anew, with zstd. Give a buffered reader and writer.
///
/// Debian's packages are then read some ten times faster, and a third larger.
///
/// # Errors
/// When the bytes are not a package, damaged, or beyond the bounds of this module, or cannot be written.
pub fn recompress(
    mut reader: impl Read + Send,
    out: &mut (impl Write + Seek),
) -> Result<Recompressed, RecompressError> {
    ar::open(&mut reader)?;
    check_format(&mut reader)?;
    let (control, control_size) = find(&mut reader, "control.tar")?;
    out.write_all(ar::MAGIC)?;
    let version = b"2.0\n";
    out.write_all(&ar::header("debian-binary", version.len() as u64)?)?;
    out.write_all(version)?;
    out.write_all(&ar::header(&control, control_size)?)?;
    let mut member = (&mut reader).take(control_size);
    if copy(&mut member, out)? != control_size {
        return Err(Error::MissingMember { name: "data.tar" }.into());
    }
    fill(out, control_size)?;
    ar::skip_padding(&mut reader, control_size)?;
    let (data, packed) = find(&mut reader, "data.tar")?;
    if data != "data.tar.xz" {
        return Ok(Recompressed::Needless);
    }
    let start = out.stream_position()?;
    // Its size is known when it is written.
    out.write_all(&ar::header("data.tar.zst", 0)?)?;
    let member = decode::decoder(reader.take(packed), &data, "data.tar")?;
    let mut member = decode::Bounded::new(member, data_bound(packed));
    let mut encoder = zstd::Encoder::new(&mut *out, LEVEL)?;
    let unpacked = copy(&mut member, &mut encoder)?;
    encoder.finish()?;
    let end = out.stream_position()?;
    let size = end - start - ar::HEADER as u64;
    if unpacked > data_bound(size) {
        // Its readers would take it for a bomb.
        return Ok(Recompressed::Needless);
    }
    out.seek(SeekFrom::Start(start))?;
    out.write_all(&ar::header("data.tar.zst", size)?)?;
    out.seek(SeekFrom::Start(end))?;
    fill(out, size)?;
    Ok(Recompressed::Written)
}

/// Members of odd size are followed by one byte.
fn fill(out: &mut impl Write, size: u64) -> io::Result<()> {
    if size % 2 == 1 {
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Copies all there is; which of the two sides failed is told apart.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<u64, RecompressError> {
    let mut buffer = vec![0; 128 << 10];
    let mut copied = 0;
    loop {
        let count = from.read(&mut buffer).map_err(ar::read("data"))?;
        if count == 0 {
            return Ok(copied);
        }
        to.write_all(&buffer[..count])?;
        copied += count as u64;
    }
}
