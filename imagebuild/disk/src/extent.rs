//! Extents: a file described as a list of ranges, each with the place that its bytes come from.
//!
//! It refuses gaps and overlaps: what is appended starts where the last one ended.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::Sink;

/// Bytes that are read from the middle.
pub trait ReadAt: Sync {
    /// How many there are.
    fn size(&self) -> u64;

    /// Fills the buffer from an offset.
    ///
    /// # Errors
    /// When the bytes end before, or cannot be read.
    fn read_exact_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// A file whose size was asked for once; a block device is one too.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    size: u64,
}

impl OpenFile {
    /// Takes an open file.
    ///
    /// # Errors
    /// When its size cannot be found.
    pub fn new(mut file: File) -> io::Result<Self> {
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, size })
    }
}

impl ReadAt for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        let range = from..from.saturating_add(buffer.len());
        let bytes = self.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_exact_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_exact_at(at, buffer)
    }
}

/// A part of something, read from its start on.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    inner: &'a dyn ReadAt,
    from: u64,
    size: u64,
    position: u64,
}

impl std::fmt::Debug for Window<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Window({}..+{})", self.from, self.size)
    }
}

impl<'a> Window<'a> {
    /// A part of `inner`, cut off where that ends.
    #[must_use]
    pub fn new(inner: &'a dyn ReadAt, from: u64, size: u64) -> Self {
        let from = from.min(inner.size());
        Self {
            inner,
            from,
            size: size.min(inner.size() - from),
            position: 0,
        }
    }
}

impl ReadAt for Window<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.inner.read_exact_at(self.from + at, buffer)
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.position);
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let at = self.from + self.position.min(self.size);
        self.inner.read_exact_at(at, &mut buffer[..length])?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// The files that a disk is composed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The boot loader of the ESP.
    Boot,
    /// Kernel, initrd and command line.
    Uki,
    /// The root file system.
    Rootfs,
    /// Its hash tree.
    Verity,
}

/// Where the bytes of each piece are.
#[derive(Clone, Copy)]
pub struct Pieces<'a> {
    /// Of [`Piece::Boot`].
    pub boot: &'a dyn ReadAt,
    /// Of [`Piece::Uki`].
    pub uki: &'a dyn ReadAt,
    /// Of [`Piece::Rootfs`].
    pub rootfs: &'a dyn ReadAt,
    /// Of [`Piece::Verity`].
    pub verity: &'a dyn ReadAt,
}

impl std::fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pieces")
    }
}

impl<'a> Pieces<'a> {
    fn of(&self, piece: Piece) -> &'a dyn ReadAt {
        match piece {
            Piece::Boot => self.boot,
            Piece::Uki => self.uki,
            Piece::Rootfs => self.rootfs,
            Piece::Verity => self.verity,
        }
    }
}

/// Where the bytes of an extent come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// These bytes, from an offset.
    Bytes(Arc<[u8]>, usize),
    /// A piece, from an offset.
    Piece(Piece, u64),
    /// They are zero, and something may rely on it.
    Zero,
    /// Nobody reads them before they are written; composed as zero.
    Unwritten,
}

/// A range of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts.
    pub at: u64,
    /// How long it is.
    pub size: u64,
    /// What it is, for people.
    pub region: Arc<str>,
    /// Where its bytes come from.
    pub source: Source,
}

/// All ranges of a file, in order and without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    list: Vec<Extent>,
}

impl Extents {
    /// Size of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.list.last().map_or(0, |last| last.at + last.size)
    }

    /// The ranges.
    #[must_use]
    pub fn list(&self) -> &[Extent] {
        &self.list
    }

    /// Appends a range.
    pub fn push(&mut self, region: &Arc<str>, size: u64, source: Source) {
        if size > 0 {
            let region = region.clone();
            let at = self.size();
            self.list.push(Extent {
                at,
                size,
                region,
                source,
            });
        }
    }

    /// Appends bytes.
    pub fn push_bytes(&mut self, region: &str, bytes: Vec<u8>) {
        let size = bytes.len() as u64;
        self.push(&region.into(), size, Source::Bytes(bytes.into(), 0));
    }

    /// Appends ranges up to an offset; nothing when that is reached already.
    pub fn fill(&mut self, region: &str, until: u64, source: Source) {
        self.push(&region.into(), until.saturating_sub(self.size()), source);
    }

    /// Appends all ranges of another file, their regions behind a name.
    pub fn append(&mut self, name: &str, inner: &Self) {
        for extent in &inner.list {
            let region = format!("{name}: {}", extent.region).into();
            self.push(&region, extent.size, extent.source.clone());
        }
    }

    /// What stands at an offset.
    #[must_use]
    pub fn at(&self, offset: u64) -> Option<&Extent> {
        let after = self.list.partition_point(|extent| extent.at <= offset);
        let extent = self.list.get(after.checked_sub(1)?)?;
        (offset < extent.at + extent.size).then_some(extent)
    }

    /// The parts of the extents that lie in a range.
    pub(crate) fn within(&self, from: u64, until: u64) -> impl Iterator<Item = Extent> {
        let first = self
            .list
            .partition_point(|extent| extent.at + extent.size <= from);
        let inside = self.list[first..]
            .iter()
            .take_while(move |extent| extent.at < until);
        inside.map(move |extent| extent.cut(from, until))
    }
}

impl Extent {
    fn cut(&self, from: u64, until: u64) -> Self {
        let at = self.at.max(from);
        let skip = at - self.at;
        Self {
            at,
            size: (self.at + self.size).min(until) - at,
            region: self.region.clone(),
            source: match &self.source {
                Source::Bytes(bytes, start) => Source::Bytes(
                    bytes.clone(),
                    start + usize::try_from(skip).unwrap_or(usize::MAX),
                ),
                Source::Piece(piece, start) => Source::Piece(*piece, start + skip),
                other => other.clone(),
            },
        }
    }
}

/// A file that is composed from its pieces.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Its ranges.
    pub extents: &'a Extents,
    /// What they are taken from.
    pub pieces: Pieces<'a>,
}

impl Image<'_> {
    /// Streams the whole file; at most 256 KiB of it are in memory.
    ///
    /// # Errors
    /// When a piece cannot be read or the sink fails.
    pub fn stream(&self, sink: &mut dyn Sink) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        for extent in &self.extents.list {
            sink.enter(&extent.region);
            match &extent.source {
                Source::Zero | Source::Unwritten => sink.zeros(extent.size)?,
                Source::Bytes(bytes, from) => {
                    sink.data(slice(bytes, *from, extent.size)?)?;
                }
                Source::Piece(piece, from) => {
                    let piece = self.pieces.of(*piece);
                    let mut done = 0;
                    while done < extent.size {
                        let length = chunk(extent.size - done, buffer.len());
                        piece.read_exact_at(from + done, &mut buffer[..length])?;
                        sink.data(&buffer[..length])?;
                        done += length as u64;
                    }
                }
            }
        }
        Ok(())
    }
}

impl ReadAt for Image<'_> {
    fn size(&self) -> u64 {
        self.extents.size()
    }

    fn read_exact_at(&self, at: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(buffer.len() as u64);
        let Some(end) = end.filter(|end| *end <= self.size()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        for part in self.extents.within(at, end) {
            let (here, rest) = buffer.split_at_mut(chunk(part.size, buffer.len()));
            match &part.source {
                Source::Zero | Source::Unwritten => here.fill(0),
                Source::Bytes(bytes, from) => {
                    here.copy_from_slice(slice(bytes, *from, part.size)?);
                }
                Source::Piece(piece, from) => self.pieces.of(*piece).read_exact_at(*from, here)?,
            }
            buffer = rest;
        }
        Ok(())
    }
}

fn slice(bytes: &[u8], from: usize, size: u64) -> io::Result<&[u8]> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let inside = bytes.get(from..from.saturating_add(size));
    inside.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

pub(crate) fn chunk(left: u64, most: usize) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WriteSink;

    #[test]
    fn a_composed_file_reads_the_same_at_any_offset_as_in_one_stream() {
        let mut extents = Extents::default();
        extents.push_bytes("head", (1..=9).collect());
        extents.push(&"gap".into(), 5, Source::Zero);
        extents.push(&"piece".into(), 7, Source::Piece(Piece::Uki, 3));
        extents.fill("tail", 30, Source::Unwritten);
        let piece: Vec<u8> = (100..120).collect();
        let pieces = Pieces {
            boot: &piece,
            uki: &piece,
            rootfs: &piece,
            verity: &piece,
        };
        let image = Image {
            extents: &extents,
            pieces,
        };
        let mut whole = WriteSink::new(Vec::new());
        image.stream(&mut whole).unwrap();
        let whole = whole.into_inner();
        assert_eq!(whole.len(), 30);
        assert_eq!(whole[14..21], piece[3..10]);
        for from in 0..30 {
            for until in from..=30 {
                let mut part = vec![9; until - from];
                image.read_exact_at(from as u64, &mut part).unwrap();
                assert_eq!(part, whole[from..until], "{from}..{until}");
            }
        }
        assert!(image.read_exact_at(29, &mut [0; 2]).is_err());
        assert_eq!(&*extents.at(13).unwrap().region, "gap");
        assert_eq!(extents.at(30), None);
    }
}
