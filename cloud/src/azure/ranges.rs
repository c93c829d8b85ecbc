//! Sets of bytes of a disk: ranges that neither touch nor overlap.

use std::collections::BTreeMap;
use std::ops::Range;

use image_manifest::block_map::{BlockMap, Kind};

/// A set of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// What has to be written of a disk: its data, and the footer behind it. What must be zero is so in a new blob.
    #[must_use]
    pub fn of_vhd(blocks: &BlockMap) -> Self {
        let mut all = Self::default();
        for run in blocks.runs.iter().filter(|run| run.kind == Kind::Data) {
            let start = run.first.saturating_mul(blocks.block_size);
            let end = (run.first.saturating_add(run.count)).saturating_mul(blocks.block_size);
            all.add(start.min(blocks.size)..end.min(blocks.size));
        }
        all.add(blocks.size..blocks.size + 512);
        all
    }

    /// Adds bytes.
    pub fn add(&mut self, range: Range<u64>) {
        let (mut start, mut end) = (range.start, range.end);
        if start >= end {
            return;
        }
        // Everything that touches it becomes a part of it.
        while let Some((first, last)) = self.before(end).filter(|(_, last)| *last >= start) {
            self.0.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        self.0.insert(start, end);
    }

    /// Whether all of some bytes are in it.
    #[must_use]
    pub fn covers(&self, range: &Range<u64>) -> bool {
        let found = self.before(range.start);
        range.is_empty() || found.is_some_and(|(_, end)| end >= range.end)
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// How many bytes there are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// Parts of at most so many bytes, which begin at multiples of it or at a range's start.
    pub fn pieces(&self, most: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        self.iter().flat_map(move |range| {
            let mut next = range.start;
            std::iter::from_fn(move || {
                let start = next;
                next = range.end.min((start / most + 1).saturating_mul(most));
                (start < range.end).then_some(start..next)
            })
        })
    }

    /// The first bytes that only one of two sets has.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let mut pairs = self.iter().map(Some).chain(std::iter::repeat(None));
        let mut others = other.iter().map(Some).chain(std::iter::repeat(None));
        loop {
            let show = |range: Option<Range<u64>>| {
                range.map_or("nothing more".to_owned(), |range| {
                    format!("bytes {} to {}", range.start, range.end)
                })
            };
            match (pairs.next().flatten(), others.next().flatten()) {
                (None, None) => return None,
                (one, two) if one == two => {}
                (one, two) => return Some(format!("{} where {} are", show(one), show(two))),
            }
        }
    }

    fn before(&self, at: u64) -> Option<(u64, u64)> {
        let found = self.0.range(..=at).next_back();
        found.map(|(start, end)| (*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(ranges: impl IntoIterator<Item = (u64, u64)>) -> Ranges {
        let mut set = Ranges::default();
        for (start, end) in ranges {
            set.add(start..end);
        }
        set
    }

    proptest! {
        #[test]
        fn a_set_has_what_was_added_and_nothing_else(
            added in prop::collection::vec((0u64..60, 0u64..12), 0..12)
        ) {
            let ranges: Vec<_> = added.iter().map(|(at, length)| *at..at + length).collect();
            let set = set(ranges.iter().map(|range| (range.start, range.end)));
            for byte in 0..80 {
                let expected = ranges.iter().any(|range| range.contains(&byte));
                prop_assert_eq!(set.covers(&(byte..byte + 1)), expected, "{}", byte);
            }
            let all: Vec<_> = set.iter().collect();
            prop_assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start));
            let pieces: Vec<_> = set.pieces(7).collect();
            prop_assert!(pieces.iter().all(|piece| piece.start / 7 == (piece.end - 1) / 7));
            prop_assert_eq!(pieces.iter().map(|piece| piece.end - piece.start).sum::<u64>(), set.bytes());
            prop_assert!(pieces.iter().all(|piece| set.covers(piece)));
        }
    }

    #[test]
    fn differences_are_told() {
        let cases: [(&[_], &[_], _); 4] = [
            (&[(0, 2), (2, 4)], &[(0, 4)], true),
            (&[(0, 2)], &[(0, 2), (4, 6)], false),
            (&[(0, 2)], &[], false),
            (&[], &[], true),
        ];
        for (one, two, same) in cases {
            let found = set(one.to_vec()).difference(&set(two.to_vec()));
            assert_eq!(found.is_none(), same, "{one:?} {two:?}");
        }
    }
}
