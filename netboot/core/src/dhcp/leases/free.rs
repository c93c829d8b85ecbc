//! Which addresses of a pool were never given: a bitmap with a summary.
//!
//! It refuses to know who holds the others.

/// One bit an address, set when it is free; one summary bit a word that has a free one.
#[derive(Clone, Debug)]
pub(super) struct FreeMap {
    words: Vec<u64>,
    summary: Vec<u64>,
}

impl FreeMap {
    /// Makes a map of `size` free addresses.
    pub(super) fn new(size: u32) -> Self {
        let size = size as usize;
        let mut map = Self {
            words: vec![u64::MAX; size.div_ceil(64)],
            summary: vec![u64::MAX; size.div_ceil(64).div_ceil(64)],
        };
        trim(&mut map.words, size);
        trim(&mut map.summary, size.div_ceil(64));
        map
    }

    #[cfg(test)]
    pub(super) fn is_free(&self, index: u32) -> bool {
        let (word, bit) = split(index as usize);
        self.words
            .get(word)
            .is_some_and(|word| word >> bit & 1 == 1)
    }

    pub(super) fn take(&mut self, index: u32) {
        let (at, bit) = split(index as usize);
        if let Some(word) = self.words.get_mut(at) {
            *word &= !(1 << bit);
            if *word == 0 {
                let (at, bit) = split(at);
                self.summary[at] &= !(1 << bit);
            }
        }
    }

    pub(super) fn give(&mut self, index: u32) {
        let (at, bit) = split(index as usize);
        if let Some(word) = self.words.get_mut(at) {
            *word |= 1 << bit;
            let (at, bit) = split(at);
            self.summary[at] |= 1 << bit;
        }
    }

    /// Finds a free address at or after `start`, or else from the beginning.
    pub(super) fn find(&self, start: u32) -> Option<u32> {
        let (at, bit) = split(start as usize);
        let here = self.words.get(at)? & (u64::MAX << bit);
        if here != 0 {
            return index(at, here);
        }
        let word = next_set(&self.summary, at + 1).or_else(|| next_set(&self.summary, 0))?;
        index(word, *self.words.get(word)?)
    }
}

/// Clears the bits from `size` on.
fn trim(words: &mut [u64], size: usize) {
    if let (Some(last), 1..) = (words.last_mut(), size % 64) {
        *last = (1 << (size % 64)) - 1;
    }
}

fn split(index: usize) -> (usize, u32) {
    // The remainder of 64 fits any integer.
    let bit = u32::try_from(index % 64).unwrap_or_default();
    (index / 64, bit)
}

fn index(word: usize, bits: u64) -> Option<u32> {
    u32::try_from(word * 64 + bits.trailing_zeros() as usize).ok()
}

/// Finds the first set bit at or after `start`.
fn next_set(words: &[u64], start: usize) -> Option<usize> {
    let (at, bit) = split(start);
    let here = words.get(at)? & (u64::MAX << bit);
    if here != 0 {
        return Some(at * 64 + here.trailing_zeros() as usize);
    }
    let rest = words.get(at + 1..)?;
    let offset = rest.iter().position(|&word| word != 0)?;
    Some((at + 1 + offset) * 64 + rest[offset].trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_at_the_edges_of_words() {
        for size in [1, 63, 64, 65, 4095, 4096, 4097, 70_000] {
            let mut map = FreeMap::new(size);
            let mut seen = 0;
            while let Some(index) = map.find(size / 2) {
                assert!(index < size, "{index} of {size}");
                map.take(index);
                seen += 1;
            }
            assert_eq!(seen, size);
            map.give(size - 1);
            assert_eq!(map.find(0), Some(size - 1), "{size}");
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(size in 1_u32..9000, steps in prop::collection::vec((any::<bool>(), 0_u32..9000), 0..300)) {
            let mut map = FreeMap::new(size);
            let mut set: BTreeSet<u32> = (0..size).collect();
            for (take, index) in steps {
                let index = index % size;
                if take { map.take(index); set.remove(&index); } else { map.give(index); set.insert(index); }
                prop_assert_eq!(map.is_free(index), set.contains(&index));
                let expected = set.range(index..).next().or(set.iter().next());
                match (map.find(index), expected) {
                    (Some(found), Some(_)) => prop_assert!(set.contains(&found)),
                    (found, expected) => prop_assert_eq!(found, expected.copied()),
                }
            }
        }
    }
}
