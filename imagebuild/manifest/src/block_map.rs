//! The block map: which blocks of a disk must be written to a cloud's snapshot.
//!
//! It refuses to guess from content: a block of zeros that something relies on is not one that
//! nobody ever wrote. Only the latter may be left out, since on an encrypted volume it reads as noise.

use serde::{Deserialize, Serialize};

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

impl BlockMap {
    /// Size of a block of EBS snapshots, the only one there is.
    pub const BLOCK: u64 = 512 << 10;
    /// The version of the format that this code reads and writes.
    pub const SCHEMA: u32 = 1;

    /// Whether the runs cover the disk in order and without gaps, in blocks of [`BlockMap::BLOCK`].
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let end = self.runs.iter().try_fold(0, |next, run| {
            (run.first == next && run.count > 0).then_some(())?;
            run.first.checked_add(run.count)
        });
        self.schema == Self::SCHEMA
            && self.block_size == Self::BLOCK
            && end == Some(self.size.div_ceil(Self::BLOCK))
    }

    /// Indexes of the blocks that have to be written, in order.
    pub fn written(&self) -> impl Iterator<Item = (u64, Kind)> + '_ {
        let runs = self.runs.iter();
        let runs = runs.filter(|run| run.kind != Kind::NeverWritten);
        runs.flat_map(|run| (run.first..run.first + run.count).map(|index| (index, run.kind)))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn map(size: u64, runs: &[(Kind, u64, u64)]) -> BlockMap {
        let runs = runs.iter().map(|(kind, first, count)| Run {
            kind: *kind,
            first: *first,
            count: *count,
        });
        BlockMap {
            schema: BlockMap::SCHEMA,
            block_size: BlockMap::BLOCK,
            size,
            runs: runs.collect(),
        }
    }

    #[test]
    fn a_map_covers_its_disk_and_tells_what_to_write() {
        let size = 3 * BlockMap::BLOCK + 1;
        let whole = [
            (Kind::Data, 0, 1),
            (Kind::NeverWritten, 1, 2),
            (Kind::MustBeZero, 3, 1),
        ];
        let cases = [
            ("whole", map(size, &whole), true),
            ("a gap", map(size, &[whole[0], whole[2]]), false),
            ("too short", map(size, &whole[..2]), false),
            ("nothing in a run", map(0, &[(Kind::Data, 0, 0)]), false),
            (
                "past all numbers",
                map(
                    size,
                    &[(Kind::Data, 0, u64::MAX), (Kind::Data, u64::MAX, 2)],
                ),
                false,
            ),
        ];
        for (name, map, expected) in cases {
            assert_eq!(map.is_whole(), expected, "{name}");
        }
        let written = map(size, &whole);
        assert!(
            written
                .written()
                .eq([(0, Kind::Data), (3, Kind::MustBeZero)])
        );
    }
}
