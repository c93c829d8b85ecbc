//! dm-verity: the hash tree over a root file system, format 1, as `veritysetup` writes it.
//!
//! It refuses other hashes and block sizes than SHA-256 over 4096 bytes: those are what every kernel
//! is built with. The tree takes 1/127 of the size of the file system, its lowest level in memory.

use std::io::{self, Read, Write};

use image_manifest::Digest;
use sha2::Digest as _;

use crate::Guid;

/// Size of data blocks and of hash blocks.
pub const BLOCK: u64 = BLOCK_SIZE as u64;
/// The same, as the superblock has it and as memory is counted.
const BLOCK_SIZE: u32 = 4096;
const BLOCK_BYTES: usize = BLOCK_SIZE as usize;
/// Hashes in a block.
const FAN_OUT: u64 = BLOCK / 32;

/// What makes the tree of one image different from that of another with the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// UUID of the superblock.
    pub uuid: Guid,
    /// Hashed before every block.
    pub salt: [u8; 32],
}

impl Seed {
    /// The seed that belongs to a tree.
    #[must_use]
    pub fn of(tree: &Digest) -> Self {
        let mut hasher = image_manifest::Hasher::new();
        hasher.update(b"firstboot verity\0");
        hasher.update(tree.as_bytes());
        Self {
            uuid: Guid::of(tree, "verity"),
            salt: *hasher.finish().as_bytes(),
        }
    }
}

/// How many data blocks a file system of a size has; the last one is filled with zeros.
#[must_use]
pub fn data_blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// The size of superblock and hash tree over a file system of a size.
#[must_use]
pub fn size(size: u64) -> u64 {
    let mut blocks = data_blocks(size);
    let mut total = 1;
    while blocks > 1 {
        blocks = blocks.div_ceil(FAN_OUT);
        total += blocks;
    }
    total * BLOCK
}

/// Writes superblock and hash tree over a file system, and returns the root hash.
///
/// # Errors
/// When the file system cannot be read or the tree cannot be written.
pub fn write(mut data: impl Read, seed: Seed, mut out: impl Write) -> io::Result<Digest> {
    let salted = sha2::Sha256::new_with_prefix(seed.salt);
    let hash = |block: &[u8]| -> [u8; 32] { salted.clone().chain_update(block).finalize().into() };
    let mut lowest = Vec::new();
    let mut blocks = 0u64;
    let mut buffer = vec![0; 64 * BLOCK_BYTES];
    loop {
        let length = fill(&mut data, &mut buffer)?;
        let padded = length.next_multiple_of(BLOCK_BYTES);
        buffer[length..padded].fill(0);
        for block in buffer[..padded].chunks_exact(BLOCK_BYTES) {
            lowest.extend(hash(block));
            blocks += 1;
        }
        if length < buffer.len() {
            break;
        }
    }
    out.write_all(&superblock(seed, blocks))?;
    if blocks == 0 {
        return Err(io::Error::other("there is nothing to hash"));
    }
    let mut levels = vec![lowest];
    while let Some(level) = levels.last_mut().filter(|level| level.len() > 32) {
        level.resize(level.len().next_multiple_of(BLOCK_BYTES), 0);
        let above = level.chunks_exact(BLOCK_BYTES).flat_map(hash).collect();
        levels.push(above);
    }
    let root = levels.pop().unwrap_or_default();
    for level in levels.iter().rev() {
        out.write_all(level)?;
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(&root);
    Ok(Digest::from_bytes(digest))
}

fn superblock(seed: Seed, data_blocks: u64) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    block.extend(b"verity\0\0");
    block.extend(1u32.to_le_bytes());
    block.extend(1u32.to_le_bytes());
    block.extend(seed.uuid.0);
    block.extend(b"sha256");
    block.resize(64, 0);
    block.extend(BLOCK_SIZE.to_le_bytes());
    block.extend(BLOCK_SIZE.to_le_bytes());
    block.extend(data_blocks.to_le_bytes());
    block.extend(32u16.to_le_bytes());
    block.extend([0; 6]);
    block.extend(seed.salt);
    block.resize(BLOCK_BYTES, 0);
    block
}

fn fill(data: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match data.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_that_is_told_is_the_size_that_is_written() {
        let seed = Seed::of(&Digest::of(b"tree"));
        for blocks in [1u64, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1] {
            for less in [0, 1] {
                let bytes = blocks * BLOCK - less;
                let mut out = Vec::new();
                write(io::repeat(7).take(bytes), seed, &mut out).unwrap();
                assert_eq!(out.len() as u64, size(bytes), "{bytes}");
            }
        }
    }
}
