//! The block map of a disk, from where its bytes come from.
//!
//! It refuses to look at the bytes: zeros that something relies on and what nobody ever wrote look alike.

use image_manifest::BlockMap;
use image_manifest::block_map::{Kind, Run};

use crate::{Extents, Source};

const BLOCK: u64 = BlockMap::BLOCK;

/// The map of a disk.
#[must_use]
pub fn block_map(disk: &Extents) -> BlockMap {
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
    BlockMap {
        schema: BlockMap::SCHEMA,
        block_size: BLOCK,
        size,
        runs,
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
        let map = block_map(&disk);
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
