//! Writes a layer: changes become one archive, which comes out under gzip and under zstd at once.
//!
//! It refuses to hold more of a layer in memory than a few segments, and to let the order in which threads end show.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::thread::{self, ScopedJoinHandle};

use image_manifest::{Digest, Hasher};
use image_tree::{Entry, Kind};
use serde::{Deserialize, Serialize};

use crate::archive::{
    self,
    write::{self, end, header, whiteout},
};
use crate::compress;
use crate::difference::Change;

/// A file from this size on has segments of its own, as large as this.
const LARGE: usize = 1 << 20;
/// Most bytes of small entries in one segment.
const FULL: usize = 4 << 20;
/// One path in so many begins a segment: where segments end follows from the paths around it only, so a change moves no
/// segment but its own.
const ONE_IN: u32 = 64;

/// What every layer of one image is written with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The time of every entry, in seconds since 1970.
    pub time: u64,
    /// How many threads compress.
    pub threads: usize,
}

/// A layer that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Digest of the archive.
    pub diff_id: Digest,
    /// What it was compressed in, in order.
    pub segments: Vec<Segment>,
    /// How many segments were taken over from an earlier layer.
    pub reused: usize,
}

/// A part of a layer that was compressed on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Digest of its bytes in the archive.
    pub plain: Digest,
    /// Where it stands in the layer under gzip.
    pub gzip: Piece,
    /// Where it stands in the layer under zstd.
    pub zstd: Piece,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u32,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// An earlier layer, whose segments need not be compressed again.
#[derive(Debug)]
pub struct Earlier {
    gzip: File,
    zstd: File,
    segments: BTreeMap<Digest, (Piece, Piece)>,
}

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An entry cannot be in an archive.
    #[error(transparent)]
    Entry(#[from] write::Error),
    /// A file of the tree could not be read.
    #[error("failed to read `/{}` of the tree", String::from_utf8_lossy(path))]
    Read {
        /// The file.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// A file of the tree is not as long as it was.
    #[error("`/{}` changed while it was read", String::from_utf8_lossy(.0))]
    Changed(Vec<u8>),
    /// A segment could not be compressed.
    #[error("failed to compress a layer")]
    Compress(#[source] io::Error),
    /// The layer could not be written.
    #[error("failed to write a layer")]
    Write(#[source] io::Error),
}

impl Earlier {
    /// Remembers an earlier layer: its two files, and the segments that they are made of.
    #[must_use]
    pub fn new(gzip: File, zstd: File, segments: &[Segment]) -> Self {
        let by_plain = segments.iter().map(|one| (one.plain, (one.gzip, one.zstd)));
        Self {
            gzip,
            zstd,
            segments: by_plain.collect(),
        }
    }

    /// Takes over what a segment was compressed to, if it is there and undamaged.
    fn find(&self, plain: &Digest) -> Option<(Vec<u8>, Vec<u8>)> {
        let (gzip, zstd) = self.segments.get(plain)?;
        Some((piece(&self.gzip, gzip)?, piece(&self.zstd, zstd)?))
    }
}

fn piece(file: &File, piece: &Piece) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(piece.length).ok()?];
    file.read_exact_at(&mut bytes, piece.offset).ok()?;
    (Digest::of(&bytes) == piece.digest).then_some(bytes)
}

/// Writes changes as one layer, in both encodings.
///
/// # Errors
/// When a file cannot be read, or a layer not be written.
pub fn write(
    changes: &[Change<'_>],
    options: Options,
    earlier: Option<&Earlier>,
    gzip: &mut dyn Write,
    zstd: &mut dyn Write,
) -> Result<Written, Error> {
    thread::scope(|scope| {
        let mut layer = Layer {
            spawn: |plain: Vec<u8>| scope.spawn(move || compress(&plain, earlier)),
            most: options.threads.max(1),
            pending: VecDeque::new(),
            buffer: Vec::with_capacity(FULL),
            hasher: Hasher::new(),
            outputs: [(gzip, 0), (zstd, 0)],
            segments: Vec::new(),
            reused: 0,
        };
        let mut first_names: BTreeMap<u64, &[u8]> = BTreeMap::new();
        for change in changes {
            match change {
                Change::Gone(path) => layer.small(path, &whiteout(path, options.time))?,
                Change::Put(path, entry) => {
                    let first = entry.link.and_then(|link| first_names.get(&link).copied());
                    if let (Some(link), None) = (entry.link, first) {
                        first_names.insert(link, path);
                    }
                    layer.put(path, entry, first, options.time)?;
                }
            }
        }
        layer.small(b"", &end())?;
        layer.finish()
    })
}

/// One segment on its way.
struct Compressed {
    plain: Digest,
    gzip: Vec<u8>,
    zstd: Vec<u8>,
    reused: bool,
}

fn compress(plain: &[u8], earlier: Option<&Earlier>) -> io::Result<Compressed> {
    let digest = Digest::of(plain);
    let known = earlier.and_then(|earlier| earlier.find(&digest));
    let reused = known.is_some();
    let (gzip, zstd) = match known {
        Some(known) => known,
        None => (compress::gzip(plain), compress::zstd(plain)?),
    };
    Ok(Compressed {
        plain: digest,
        gzip,
        zstd,
        reused,
    })
}

struct Layer<'scope, 'a, F> {
    spawn: F,
    most: usize,
    pending: VecDeque<ScopedJoinHandle<'scope, io::Result<Compressed>>>,
    buffer: Vec<u8>,
    hasher: Hasher,
    outputs: [(&'a mut dyn Write, u64); 2],
    segments: Vec<Segment>,
    reused: usize,
}

impl<'scope, F> Layer<'scope, '_, F>
where
    F: FnMut(Vec<u8>) -> ScopedJoinHandle<'scope, io::Result<Compressed>>,
{
    fn put(
        &mut self,
        path: &[u8],
        entry: &Entry,
        link: Option<&[u8]>,
        time: u64,
    ) -> Result<(), Error> {
        let header = header(path, entry, link, time)?;
        let content = match &entry.kind {
            Kind::File(content) if link.is_none() => content,
            _ => return self.small(path, &header),
        };
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let large = content.size >= LARGE as u64;
        if large {
            self.cut()?;
        }
        self.small(path, &header)?;
        let mut bytes = content.open().map_err(read)?;
        let mut left = content.size;
        while left > 0 {
            let most = left.min(LARGE as u64);
            let taken = bytes.by_ref().take(most).read_to_end(&mut self.buffer);
            if taken.map_err(read)? as u64 != most {
                return Err(Error::Changed(path.to_owned()));
            }
            left -= most;
            if large && left > 0 {
                self.cut()?;
            }
        }
        let filled = self.buffer.len() + archive::padding(content.size);
        self.buffer.resize(filled, 0);
        if large { self.cut() } else { Ok(()) }
    }

    /// Takes the next header; a segment may end before it.
    fn small(&mut self, path: &[u8], header: &[u8]) -> Result<(), Error> {
        if self.buffer.len() >= FULL || begins_a_segment(path) {
            self.cut()?;
        }
        self.buffer.extend_from_slice(header);
        Ok(())
    }

    /// Ends a segment and has it compressed.
    fn cut(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let plain = std::mem::replace(&mut self.buffer, Vec::with_capacity(LARGE));
        self.hasher.update(&plain);
        let started = (self.spawn)(plain);
        self.pending.push_back(started);
        if self.pending.len() > self.most {
            self.take()
        } else {
            Ok(())
        }
    }

    /// Waits for the oldest segment and writes it.
    fn take(&mut self) -> Result<(), Error> {
        let Some(oldest) = self.pending.pop_front() else {
            return Ok(());
        };
        let done = match oldest.join() {
            Ok(done) => done.map_err(Error::Compress)?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let [gzip, zstd] = [(0, &done.gzip), (1, &done.zstd)].map(|(at, bytes)| {
            let (output, offset) = &mut self.outputs[at];
            let piece = Piece {
                offset: *offset,
                // A segment has a few MiB.
                length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                digest: Digest::of(bytes),
            };
            *offset += bytes.len() as u64;
            output.write_all(bytes).map(|()| piece)
        });
        self.segments.push(Segment {
            plain: done.plain,
            gzip: gzip.map_err(Error::Write)?,
            zstd: zstd.map_err(Error::Write)?,
        });
        self.reused += usize::from(done.reused);
        Ok(())
    }

    fn finish(mut self) -> Result<Written, Error> {
        self.cut()?;
        while !self.pending.is_empty() {
            self.take()?;
        }
        Ok(Written {
            diff_id: self.hasher.finish(),
            segments: self.segments,
            reused: self.reused,
        })
    }
}

/// Whether a segment begins at a path, which is decided by the path alone (FNV-1a).
fn begins_a_segment(path: &[u8]) -> bool {
    let hash = path.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    hash % ONE_IN == 0
}

#[cfg(test)]
mod tests;
