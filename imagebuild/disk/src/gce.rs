//! The archive that Google's cloud takes: `disk.raw` in a gzip tar of the old GNU kind.
//!
//! It refuses any other member, and to unpack an archive to disk: it is read in one pass.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use crate::gzip::GzipSink;
use crate::{Image, Sink};

/// The one name in the archive.
const NAME: &[u8] = b"disk.raw";
const BLOCK: usize = 512;
/// What GNU tar fills archives up to.
const RECORD: u64 = 10240;
const MAGIC: &[u8; 8] = b"ustar  \0";
/// Region of the header, for people.
const HEADER_REGION: &str = "tar header";
/// Region of what follows the disk, for people.
const END_REGION: &str = "end of the tar";

/// An archive that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read or unpacked.
    #[error("failed to read the archive")]
    Read(#[source] io::Error),
    /// It is none, or holds something else.
    #[error("the archive is malformed: {0}")]
    Malformed(&'static str),
}

/// Writes the archive of a disk.
///
/// # Errors
/// When a piece cannot be read or the sink fails.
pub fn write(disk: &Image<'_>, source_date: i64, out: &mut dyn Sink) -> io::Result<()> {
    out.enter(&HEADER_REGION.into());
    let size = disk.extents.size();
    let mut gzip = GzipSink::new(out)?;
    gzip.data(&header(size, source_date))?;
    disk.stream(&mut gzip)?;
    gzip.enter(&END_REGION.into());
    let tail = size.next_multiple_of(BLOCK as u64) - size;
    let whole = BLOCK as u64 + size + tail + 2 * BLOCK as u64;
    gzip.zeros(whole.next_multiple_of(RECORD) - BLOCK as u64 - size)?;
    gzip.finish()
}

fn header(size: u64, source_date: i64) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    let time = source_date.clamp(0, 0o777_7777_7777);
    put(0, NAME);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, &number(size));
    put(136, format!("{time:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, MAGIC);
    put(265, b"root\0");
    put(297, b"root\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// A size: octal digits, or GNU's binary from 8 GiB on.
fn number(size: u64) -> Vec<u8> {
    if size < 1 << 33 {
        return format!("{size:011o}\0").into_bytes();
    }
    let mut bytes = vec![0x80, 0, 0, 0];
    bytes.extend(size.to_be_bytes());
    bytes
}

/// The disk in an archive, from its start to its end.
#[derive(Debug)]
pub struct Disk<R> {
    decoder: MultiGzDecoder<R>,
    size: u64,
    left: u64,
}

/// Opens an archive.
///
/// # Errors
/// When it is none, or its first member is not `disk.raw` as old GNU tar writes it.
pub fn open<R: Read>(archive: R) -> Result<Disk<R>, Error> {
    let mut decoder = MultiGzDecoder::new(archive);
    let mut header = [0; BLOCK];
    decoder.read_exact(&mut header).map_err(Error::Read)?;
    let summed = header.iter().enumerate().map(|(at, byte)| match at {
        148..156 => u32::from(b' '),
        _ => u32::from(*byte),
    });
    let sum = summed.sum::<u32>();
    let reason = if header[257..265] != *MAGIC {
        "it is not of the old GNU format"
    } else if octal(&header[148..156]) != Some(u64::from(sum)) {
        "the checksum of its header is wrong"
    } else if header[..NAME.len()] != *NAME || header[NAME.len()] != 0 {
        "its first file is not `disk.raw`"
    } else if !matches!(header[156], b'0' | 0) {
        "`disk.raw` is no plain file"
    } else {
        ""
    };
    if !reason.is_empty() {
        return Err(Error::Malformed(reason));
    }
    let size = match header[124] {
        0x80 => header[128..136]
            .iter()
            .try_fold(0u64, |number, byte| Some(number << 8 | u64::from(*byte))),
        _ => octal(&header[124..136]),
    };
    let size = size.ok_or(Error::Malformed("its size is no number"))?;
    Ok(Disk {
        decoder,
        size,
        left: size,
    })
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits: Vec<u8> = field
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b' ' | 0))
        .collect();
    u64::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()
}

impl<R: Read> Disk<R> {
    /// Size of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads to the end of the archive, after the disk was.
    ///
    /// # Errors
    /// When the archive is damaged, or something follows the disk.
    pub fn finish(mut self) -> Result<(), Error> {
        let mut buffer = [0; 8192];
        loop {
            let length = self.decoder.read(&mut buffer).map_err(Error::Read)?;
            if length == 0 {
                return Ok(());
            }
            if buffer[..length].iter().any(|byte| *byte != 0) {
                return Err(Error::Malformed("something follows `disk.raw`"));
            }
        }
    }
}

impl<R: Read> Read for Disk<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = crate::extent::chunk(self.left, buffer.len());
        let read = self.decoder.read(&mut buffer[..length])?;
        if read == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}
