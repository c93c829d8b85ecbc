//! Metadata blocks as they are written: 8 KiB each, compressed, addressed by block and offset.
//!
//! It refuses to know what is in them.

use std::io;

use super::{METADATA_SIZE, METADATA_STORED};

/// Where something stands in a table: start of the compressed block, offset in it once unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) block: u32,
    pub(super) offset: u16,
}

impl Position {
    /// One number for both, as the superblock and the export table hold them.
    pub(super) fn reference(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}

/// A table that is being written.
#[derive(Debug)]
pub(super) struct Table {
    level: i32,
    open: Vec<u8>,
    packed: Vec<u8>,
    starts: Vec<u64>,
}

impl Table {
    pub(super) fn new(level: i32) -> Self {
        Self {
            level,
            open: Vec::with_capacity(METADATA_SIZE),
            packed: Vec::new(),
            starts: Vec::new(),
        }
    }

    /// Where the next byte will stand.
    pub(super) fn position(&self) -> io::Result<Position> {
        let full = || io::Error::other("the table is larger than 4 GiB");
        Ok(Position {
            block: u32::try_from(self.packed.len()).map_err(|_| full())?,
            offset: u16::try_from(self.open.len()).map_err(|_| full())?,
        })
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = METADATA_SIZE - self.open.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.open.extend_from_slice(now);
            bytes = later;
            if self.open.len() == METADATA_SIZE {
                self.close()?;
            }
        }
        Ok(())
    }

    /// Ends the table: its bytes, and where in them each block starts.
    pub(super) fn finish(mut self) -> io::Result<(Vec<u8>, Vec<u64>)> {
        if !self.open.is_empty() {
            self.close()?;
        }
        Ok((self.packed, self.starts))
    }

    fn close(&mut self) -> io::Result<()> {
        self.starts.push(self.packed.len() as u64);
        let block = block(&self.open, self.level)?;
        self.packed.extend_from_slice(&block);
        self.open.clear();
        Ok(())
    }
}

/// Makes one block with its header from at most 8 KiB.
fn block(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(bytes, level)?;
    Ok(if packed.len() < bytes.len() {
        with_header(&packed, 0)
    } else {
        stored_block(bytes)
    })
}

/// Makes one block that is stored as it is.
pub(super) fn stored_block(bytes: &[u8]) -> Vec<u8> {
    with_header(bytes, METADATA_STORED)
}

fn with_header(bytes: &[u8], flag: u16) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(0);
    [&(length | flag).to_le_bytes(), bytes].concat()
}
