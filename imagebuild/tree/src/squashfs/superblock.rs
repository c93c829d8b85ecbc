//! The superblock: the first 96 bytes of an image.
//!
//! It refuses to judge whether the positions in it make sense: the reader does.

use super::{BLOCK_SIZE, NO_TABLE};

/// Size of the superblock.
pub(super) const SIZE: usize = 96;

const MAGIC: u32 = 0x7371_7368;
const VERSION: (u16, u16) = (4, 0);
/// The number of the compressor zstd.
pub(super) const ZSTD: u16 = 6;

/// Small files and the ends of large ones share blocks.
pub(super) const ALWAYS_FRAGMENTS: u16 = 0x20;
/// Equal files share their data.
pub(super) const DUPLICATES: u16 = 0x40;
/// There is a table from inode numbers to inodes.
pub(super) const EXPORTABLE: u16 = 0x80;
/// Compressor options follow the superblock.
pub(super) const COMPRESSOR_OPTIONS: u16 = 0x400;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) inodes: u32,
    pub(super) time: u32,
    pub(super) block_size: u32,
    pub(super) fragments: u32,
    pub(super) compressor: u16,
    pub(super) flags: u16,
    pub(super) ids: u16,
    pub(super) root: u64,
    pub(super) bytes_used: u64,
    pub(super) id_table: u64,
    pub(super) xattr_table: u64,
    pub(super) inode_table: u64,
    pub(super) directory_table: u64,
    pub(super) fragment_table: u64,
    pub(super) export_table: u64,
}

impl Superblock {
    pub(super) fn new(time: u32) -> Self {
        Self {
            inodes: 0,
            time,
            block_size: u32::try_from(BLOCK_SIZE).unwrap_or_default(),
            fragments: 0,
            compressor: ZSTD,
            flags: ALWAYS_FRAGMENTS | DUPLICATES | EXPORTABLE | COMPRESSOR_OPTIONS,
            ids: 0,
            root: 0,
            bytes_used: 0,
            id_table: NO_TABLE,
            xattr_table: NO_TABLE,
            inode_table: NO_TABLE,
            directory_table: NO_TABLE,
            fragment_table: NO_TABLE,
            export_table: NO_TABLE,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let log = u16::try_from(self.block_size.trailing_zeros()).unwrap_or_default();
        let mut bytes = Vec::with_capacity(SIZE);
        for word in [
            MAGIC,
            self.inodes,
            self.time,
            self.block_size,
            self.fragments,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let (major, minor) = VERSION;
        for half in [self.compressor, log, self.flags, self.ids, major, minor] {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        for position in [
            self.root,
            self.bytes_used,
            self.id_table,
            self.xattr_table,
            self.inode_table,
            self.directory_table,
            self.fragment_table,
            self.export_table,
        ] {
            bytes.extend_from_slice(&position.to_le_bytes());
        }
        bytes
    }

    /// Reads a superblock, or says what is wrong with it.
    pub(super) fn decode(bytes: &[u8; SIZE]) -> Result<Self, &'static str> {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let half = |at: usize| u16::from_le_bytes([0, 1].map(|i| bytes[at + i]));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if word(0) != MAGIC {
            return Err("it is no squashfs");
        }
        if (half(28), half(30)) != VERSION {
            return Err("it is not of version 4.0");
        }
        let block_size = word(12);
        if !block_size.is_power_of_two()
            || !(4 << 10..=1 << 20).contains(&block_size)
            || u32::from(half(22)) != block_size.trailing_zeros()
        {
            return Err("its block size is malformed");
        }
        Ok(Self {
            inodes: word(4),
            time: word(8),
            block_size,
            fragments: word(16),
            compressor: half(20),
            flags: half(24),
            ids: half(26),
            root: long(32),
            bytes_used: long(40),
            id_table: long(48),
            xattr_table: long(56),
            inode_table: long(64),
            directory_table: long(72),
            fragment_table: long(80),
            export_table: long(88),
        })
    }
}
