//! Which sequence numbers were seen: a packet is taken once.

/// How far behind the newest packet another may be (IPMI 2.0 §6.12.13).
const BEHIND: u32 = 16;

/// The sequence numbers that were seen of one session.
///
/// It is for numbers under an authentication code: a jump ahead is believed, because packets may be lost in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    newest: u32,
    /// Bit n: `newest - 1 - n` was seen.
    seen: u16,
}

impl Window {
    /// Takes in `sequence`; false if it was seen before, or is too old to tell.
    pub fn accept(&mut self, sequence: u32) -> bool {
        if sequence == 0 {
            return false;
        }
        let ahead = sequence.wrapping_sub(self.newest);
        let behind = self.newest.wrapping_sub(sequence);
        if ahead == 0 || self.newest == 0 && ahead >= 1 << 31 {
            return false;
        }
        if ahead < 1 << 31 {
            self.seen = match ahead {
                1..=15 => self.seen << ahead | 1 << (ahead - 1),
                16 => 1 << 15,
                _ => 0,
            };
            self.newest = sequence;
            return true;
        }
        if behind > BEHIND {
            return false;
        }
        let bit = 1 << (behind - 1);
        let fresh = self.seen & bit == 0;
        self.seen |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_taken_once_and_old_ones_are_not() {
        let mut window = Window::default();
        let cases = [
            (0, false),
            (1, true),
            (1, false),
            (5, true),
            (3, true),
            (3, false),
            (2, true),
            (40, true),
            (24, true),
            (23, false),
            (24, false),
            (5, false),
            (41, true),
            (24, false),
            (40, false),
        ];
        for (sequence, taken) in cases {
            assert_eq!(window.accept(sequence), taken, "{sequence}");
        }
    }

    #[test]
    fn numbers_may_begin_again() {
        let mut window = Window {
            newest: u32::MAX - 1,
            seen: 0,
        };
        assert!(window.accept(u32::MAX));
        assert!(window.accept(1));
        assert!(!window.accept(u32::MAX));
        assert!(window.accept(u32::MAX - 3));
    }

    proptest! {
        #[test]
        fn nothing_is_taken_twice(sequences in proptest::collection::vec(0_u32..64, 0..200)) {
            let mut window = Window::default();
            let mut taken = HashSet::new();
            for sequence in sequences {
                if window.accept(sequence) {
                    prop_assert!(taken.insert(sequence));
                }
            }
        }

        #[test]
        fn numbers_in_order_are_all_taken(from in 1_u32..=u32::MAX / 2, steps in proptest::collection::vec(1_u32..5000, 0..100)) {
            let mut window = Window::default();
            let mut sequence = from;
            prop_assert!(window.accept(sequence));
            for step in steps {
                sequence += step;
                prop_assert!(window.accept(sequence));
            }
        }
    }
}
