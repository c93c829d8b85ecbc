//! Blocks of a snapshot, in a sparse file that is gone with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image_manifest::{BlockMap, Digest};

/// Size of a block.
pub(super) const BLOCK: u64 = BlockMap::BLOCK;

#[derive(Debug)]
pub(super) struct Blocks {
    file: File,
    digests: Mutex<BTreeMap<u64, Digest>>,
}

impl Blocks {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile()?,
            digests: Mutex::default(),
        })
    }

    pub(super) fn digests(&self) -> MutexGuard<'_, BTreeMap<u64, Digest>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, index: u64, bytes: &[u8], digest: Digest) -> io::Result<()> {
        self.file.write_all_at(bytes, index * BLOCK)?;
        self.digests().insert(index, digest);
        Ok(())
    }

    pub(super) fn read(&self, index: u64) -> io::Result<Vec<u8>> {
        #[expect(clippy::cast_possible_truncation, reason = "half a MiB")]
        let mut buffer = vec![0; BLOCK as usize];
        self.file.read_exact_at(&mut buffer, index * BLOCK)?;
        Ok(buffer)
    }
}

/// The disk that a volume made of a snapshot has. What was never written reads as zero, and as noise when it is encrypted.
#[derive(Clone, Debug)]
pub struct SnapshotDisk {
    blocks: Arc<Blocks>,
    size: u64,
    noisy: bool,
    at: u64,
}

impl SnapshotDisk {
    pub(super) fn new(blocks: Arc<Blocks>, size: u64, noisy: bool) -> Self {
        Self {
            blocks,
            size,
            noisy,
            at: 0,
        }
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills the buffer from an offset on.
    ///
    /// # Errors
    /// When the disk ends before.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        if at
            .checked_add(buffer.len() as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < buffer.len() {
            let place = at + done as u64;
            let left = usize::try_from(BLOCK - place % BLOCK).unwrap_or(usize::MAX);
            let length = left.min(buffer.len() - done);
            let part = &mut buffer[done..done + length];
            if self.blocks.digests().contains_key(&(place / BLOCK)) {
                self.blocks.file.read_exact_at(part, place)?;
            } else if self.noisy {
                noise(place, part);
            } else {
                part.fill(0);
            }
            done += length;
        }
        Ok(())
    }
}

impl Read for SnapshotDisk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        self.read_at(self.at, &mut buffer[..length])?;
        self.at += length as u64;
        Ok(length)
    }
}

/// The same noise at the same place, each time: `SplitMix64` of the word's number.
fn noise(at: u64, buffer: &mut [u8]) {
    for (index, byte) in buffer.iter_mut().enumerate() {
        let place = at + index as u64;
        let mut word = (place / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        *byte = (word ^ word >> 31).to_le_bytes()[(place % 8) as usize];
    }
}
