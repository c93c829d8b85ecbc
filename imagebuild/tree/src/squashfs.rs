//! squashfs 4.0: a deterministic writer, and a reader that checks what was written.
//!
//! It refuses to depend on anything but the tree and its options: the same tree gives the same
//! bytes on any computer and for any number of threads. The reader refuses to believe an image: it
//! takes any bytes, within bounds, and ends in a tree or in an error.
//!
//! The format is that of the kernel's `fs/squashfs/squashfs_fs.h` and of `mksquashfs -comp zstd`:
//!
//! ```text
//! superblock · compressor options · data and fragments · inodes · directories · fragment table
//! · export table (NFS) · ids · extended attributes · padding to 4 KiB
//! ```

mod data;
mod inode;
mod metadata;
mod read;
mod superblock;
#[cfg(test)]
mod tests;
mod write;
mod xattr;

pub use read::{Limits, ReadError, read};
pub use write::{Options, WriteError, write};

/// Size of a data block: the format's default, and what the kernel reads at once.
const BLOCK_SIZE: usize = 128 << 10;
/// Size of a metadata block, which the format fixes.
const METADATA_SIZE: usize = 8 << 10;
/// The bit of a data block's size that says it is stored as it is.
const STORED: u32 = 1 << 24;
/// The bit of a metadata block's header that says it is stored as it is.
const METADATA_STORED: u16 = 1 << 15;
/// What stands in place of a table or index that is not there.
const NO_TABLE: u64 = u64::MAX;
/// What stands in place of the number of a fragment or attribute set that is not there.
const NONE: u32 = u32::MAX;

/// Numbers of the inode types; an extended type is its basic one plus [`kind::EXTENDED`].
mod kind {
    pub(super) const DIRECTORY: u16 = 1;
    pub(super) const FILE: u16 = 2;
    pub(super) const SYMLINK: u16 = 3;
    pub(super) const BLOCK: u16 = 4;
    pub(super) const CHARACTER: u16 = 5;
    pub(super) const FIFO: u16 = 6;
    pub(super) const SOCKET: u16 = 7;
    pub(super) const EXTENDED: u16 = 7;
}
