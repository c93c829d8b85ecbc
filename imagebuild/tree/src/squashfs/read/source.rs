//! The image's bytes: blocks unpacked on demand, within the image and within limits.
//!
//! It refuses to know what the blocks hold.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::super::superblock::{self, Superblock};
use super::super::{METADATA_SIZE, METADATA_STORED, STORED};
use super::{Limits, ReadError, malformed};

/// The smallest block size of the format.
const SMALLEST_BLOCK: u64 = 4 << 10;
/// What keeping a metadata block costs, however small it is.
const BLOCK_COST: usize = 256;

/// A metadata block once unpacked, and where the next one starts.
type Unpacked = (Arc<[u8]>, u64);

pub(super) struct Image<R> {
    source: R,
    length: u64,
    pub(super) superblock: Superblock,
    blocks: HashMap<u64, Unpacked>,
    metadata_left: u64,
    /// Entries of block lists that may still come.
    pub(super) blocks_left: u64,
    packed: Vec<u8>,
}

impl<R: Read + Seek> Image<R> {
    pub(super) fn open(mut source: R, limits: Limits) -> Result<Self, ReadError> {
        let read = |source| ReadError::Read { source };
        let length = source.seek(SeekFrom::End(0)).map_err(read)?;
        source.seek(SeekFrom::Start(0)).map_err(read)?;
        let mut bytes = [0; superblock::SIZE];
        if length < bytes.len() as u64 {
            return Err(malformed("it has no superblock"));
        }
        source.read_exact(&mut bytes).map_err(read)?;
        let superblock = Superblock::decode(&bytes).map_err(malformed)?;
        if superblock.bytes_used > length {
            return Err(malformed("it is cut off"));
        }
        Ok(Self {
            source,
            length: superblock.bytes_used,
            superblock,
            blocks: HashMap::new(),
            metadata_left: limits.metadata,
            blocks_left: limits.content / SMALLEST_BLOCK,
            packed: Vec::new(),
        })
    }

    /// Reads bytes that stand in the image as they are.
    fn fill(&mut self, position: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let end = position.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(malformed("it points outside itself"));
        }
        let read = |source| ReadError::Read { source };
        self.source.seek(SeekFrom::Start(position)).map_err(read)?;
        self.source.read_exact(buffer).map_err(read)
    }

    pub(super) fn array<const N: usize>(&mut self, position: u64) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.fill(position, &mut bytes)?;
        Ok(bytes)
    }

    /// Unpacks one block of data, whose size is as inodes hold it; returns where it ends.
    pub(super) fn block(
        &mut self,
        position: u64,
        size: u32,
        block: &mut Vec<u8>,
    ) -> Result<u64, ReadError> {
        let length = size & !STORED;
        if length > self.superblock.block_size {
            return Err(malformed("a block is larger than the block size"));
        }
        let mut packed = std::mem::take(&mut self.packed);
        packed.resize(length as usize, 0);
        self.fill(position, &mut packed)?;
        if size & STORED == 0 {
            let limit = self.superblock.block_size as usize;
            *block = unpack(&packed, limit)?;
            self.packed = packed;
        } else {
            self.packed = std::mem::replace(block, packed);
        }
        Ok(position + u64::from(length))
    }

    /// Unpacks the metadata block at a position, or remembers it.
    fn metadata(&mut self, position: u64) -> Result<Unpacked, ReadError> {
        if let Some(known) = self.blocks.get(&position) {
            return Ok(known.clone());
        }
        let header = u16::from_le_bytes(self.array(position)?);
        let length = usize::from(header & !METADATA_STORED);
        if length == 0 || length > METADATA_SIZE {
            return Err(malformed("a metadata block has no sensible size"));
        }
        let mut bytes = vec![0; length];
        self.fill(position + 2, &mut bytes)?;
        if header & METADATA_STORED == 0 {
            bytes = unpack(&bytes, METADATA_SIZE)?;
        }
        let left = self
            .metadata_left
            .checked_sub(bytes.len().max(BLOCK_COST) as u64);
        self.metadata_left = left.ok_or(ReadError::Limit("metadata"))?;
        let known = (Arc::from(bytes), position + 2 + length as u64);
        self.blocks.insert(position, known.clone());
        Ok(known)
    }

    /// Reads a piece of a table that is found through a list of its blocks.
    pub(super) fn table(
        &mut self,
        list: u64,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let size = METADATA_SIZE as u64;
        let mut piece = Vec::with_capacity(length.min(4 * METADATA_SIZE));
        let mut at = offset;
        while piece.len() < length {
            let entry = list.checked_add(8 * (at / size));
            let entry = entry.ok_or(malformed("it points outside itself"))?;
            let position = u64::from_le_bytes(self.array(entry)?);
            let (block, _) = self.metadata(position)?;
            let from = usize::try_from(at % size).unwrap_or(0);
            let rest = block.get(from..).filter(|rest| !rest.is_empty());
            let rest = rest.ok_or(malformed("a table is too short"))?;
            let now = &rest[..rest.len().min(length - piece.len())];
            piece.extend_from_slice(now);
            at += now.len() as u64;
        }
        Ok(piece)
    }
}

/// Unpacks at most so many bytes; what would be more is an error.
fn unpack(packed: &[u8], limit: usize) -> Result<Vec<u8>, ReadError> {
    let bytes = zstd::bulk::decompress(packed, limit);
    bytes.map_err(|source: io::Error| ReadError::Unpack { source })
}

/// A place in a row of metadata blocks.
pub(super) struct Cursor {
    block: u64,
    offset: usize,
}

impl Cursor {
    /// Starts in a table, at a block and an offset in one number.
    pub(super) fn new(table: u64, reference: u64) -> Result<Self, ReadError> {
        let block = table.checked_add(reference >> 16);
        let offset = usize::try_from(reference & 0xffff).unwrap_or(0);
        if offset >= METADATA_SIZE {
            return Err(malformed("an offset is outside its block"));
        }
        Ok(Self {
            block: block.ok_or(malformed("it points outside itself"))?,
            offset,
        })
    }

    pub(super) fn bytes<R: Read + Seek>(
        &mut self,
        image: &mut Image<R>,
        length: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::with_capacity(length.min(METADATA_SIZE));
        while bytes.len() < length {
            let (block, next) = image.metadata(self.block)?;
            let rest = block.get(self.offset..).unwrap_or_default();
            let now = &rest[..rest.len().min(length - bytes.len())];
            bytes.extend_from_slice(now);
            self.offset += now.len();
            if now.is_empty() {
                (self.block, self.offset) = (next, 0);
            }
        }
        Ok(bytes)
    }

    fn array<R: Read + Seek, const N: usize>(
        &mut self,
        image: &mut Image<R>,
    ) -> Result<[u8; N], ReadError> {
        let bytes = self.bytes(image, N)?;
        bytes
            .try_into()
            .map_err(|_| malformed("a table is too short"))
    }

    pub(super) fn half<R: Read + Seek>(&mut self, image: &mut Image<R>) -> Result<u16, ReadError> {
        self.array(image).map(u16::from_le_bytes)
    }

    pub(super) fn word<R: Read + Seek>(&mut self, image: &mut Image<R>) -> Result<u32, ReadError> {
        self.array(image).map(u32::from_le_bytes)
    }

    pub(super) fn long<R: Read + Seek>(&mut self, image: &mut Image<R>) -> Result<u64, ReadError> {
        self.array(image).map(u64::from_le_bytes)
    }
}
