//! The archives that layers are: POSIX tar, written in one way and read in all that others write.
//!
//! It refuses to write anything that follows the machine, and to believe a header: sizes, paths and counts that are read are
//! bounded, and nothing is ever put on disk here.

pub mod read;
pub mod write;

/// Size of all that an archive is made of.
const BLOCK: usize = 512;
/// The magic and version of POSIX archives.
const USTAR: &[u8; 8] = b"ustar\x0000";
/// How a record begins that holds an extended attribute.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Where the fields of a header stand (POSIX pax, "ustar Interchange Format").
mod field {
    use std::ops::Range;

    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MTIME: Range<usize> = 136..148;
    pub(super) const SUM: Range<usize> = 148..156;
    pub(super) const TYPE: usize = 156;
    pub(super) const LINK: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..265;
    pub(super) const MAJOR: Range<usize> = 329..337;
    pub(super) const MINOR: Range<usize> = 337..345;
    pub(super) const PREFIX: Range<usize> = 345..500;
}

/// The sum of a header, in which its own field counts as spaces.
fn sum(header: &[u8; BLOCK]) -> u32 {
    let all: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = header[field::SUM].iter().map(|byte| u32::from(*byte)).sum();
    all - own + 8 * u32::from(b' ')
}

/// How many bytes fill up the last block of a content.
pub(crate) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    if over == 0 { 0 } else { BLOCK - over }
}
