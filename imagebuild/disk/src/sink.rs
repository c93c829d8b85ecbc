//! Sinks: what takes a composed file, with runs of zeros told as such.
//!
//! It refuses to know what the bytes are.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use image_manifest::{Digest, Hasher};

use crate::extent::chunk;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What takes the bytes of a file in order.
pub trait Sink {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be taken.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Takes so many zeros.
    ///
    /// # Errors
    /// When they cannot be taken.
    fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let length = chunk(count, ZEROS.len());
            self.data(&ZEROS[..length])?;
            count -= length as u64;
        }
        Ok(())
    }

    /// Says what the next bytes are.
    fn enter(&mut self, _region: &Arc<str>) {}
}

/// Writes all bytes, zeros too.
#[derive(Debug)]
pub struct WriteSink<W> {
    out: W,
}

impl<W: Write> WriteSink<W> {
    /// Writes into `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Returns what was written into.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write> Sink for WriteSink<W> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }
}

/// Writes a regular file and leaves holes for zeros.
#[derive(Debug)]
pub struct SparseSink {
    file: File,
    size: u64,
}

impl SparseSink {
    /// Writes into an empty file.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { file, size: 0 }
    }

    /// Gives the file its size.
    ///
    /// # Errors
    /// When that fails.
    pub fn finish(self) -> io::Result<File> {
        self.file.set_len(self.size)?;
        Ok(self.file)
    }
}

impl Sink for SparseSink {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.size += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        self.size += count;
        self.file.seek(SeekFrom::Start(self.size))?;
        Ok(())
    }
}

/// Computes a digest.
#[derive(Clone, Debug, Default)]
pub struct HashSink {
    hasher: Hasher,
}

impl HashSink {
    /// The digest and size of what was taken.
    #[must_use]
    pub fn finish(self) -> (Digest, u64) {
        let size = self.hasher.bytes();
        (self.hasher.finish(), size)
    }
}

impl Sink for HashSink {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        Ok(())
    }
}
