//! The block map: which blocks of the disk must be written to a cloud's snapshot.
//!
//! It refuses to guess from content: a block of zeros that something relies on is not one that
//! nobody ever wrote. Only the latter may be left out, since on an encrypted volume it reads as noise.

use serde::{Deserialize, Serialize};

use crate::{Extents, Source};

/// Size of a block of EBS snapshots, the only one there is.
pub const BLOCK: u64 = 512 << 10;

/// Which blocks of a disk are what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BlockMap {
    /// Version of this format.
    pub schema: u32,
    /// Size of a block.
    pub block_size: u64,
    /// Size of the disk; the last block is filled with zeros.
    pub size: u64,
    /// Runs of blocks of one kind, in order and without gaps.
    pub runs: Vec<Run>,
}

/// Blocks of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Run {
    /// What they are.
    pub kind: Kind,
    /// Index of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nobody reads it before it is written: it may be left out.
    NeverWritten,
    /// It must read as zero: it has to be written.
    MustBeZero,
    /// It holds data.
    Data,
}

impl BlockMap {
    /// The map of a disk.
    #[must_use]
    pub fn of(disk: &Extents) -> Self {
        let size = disk.size();
        let mut runs: Vec<Run> = Vec::new();
        for first in 0..size.div_ceil(BLOCK) {
            let from = first * BLOCK;
            let parts = disk.within(from, (from + BLOCK).min(size));
            let kinds = parts.map(|part| match part.source {
                Source::Unwritten => Kind::NeverWritten,
                Source::Zero => Kind::MustBeZero,
                Source::Bytes(..) | Source::Piece(..) => Kind::Data,
            });
            let kind = kinds.max().unwrap_or(Kind::NeverWritten);
            match runs.last_mut() {
                Some(last) if last.kind == kind => last.count += 1,
                _ => runs.push(Run {
                    kind,
                    first,
                    count: 1,
                }),
            }
        }
        Self {
            schema: 1,
            block_size: BLOCK,
            size,
            runs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_what_its_most_demanding_part_is() {
        let mut disk = Extents::default();
        disk.push_bytes("data", vec![0; 1]);
        disk.fill("free", 3 * BLOCK, Source::Unwritten);
        disk.fill("zero", 3 * BLOCK + 1, Source::Zero);
        disk.fill("free", 5 * BLOCK + 1, Source::Unwritten);
        let map = BlockMap::of(&disk);
        let kinds = map.runs.iter().map(|run| (run.kind, run.first, run.count));
        let expected = [
            (Kind::Data, 0, 1),
            (Kind::NeverWritten, 1, 2),
            (Kind::MustBeZero, 3, 1),
            (Kind::NeverWritten, 4, 2),
        ];
        assert!(kinds.eq(expected), "{map:?}");
    }
}
