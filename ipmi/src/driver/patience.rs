//! How long each try of a message waits for an answer.
//!
//! It refuses to wait long because a packet was lost, and to hurry a BMC that was seen to be slow: the first
//! tries wait as long as its answers suggest, and only what goes on unanswered is asked for more seldom.

use std::time::Duration;

use crate::session::{Entropy as _, Kernel};

/// How many tries are quick. Where half of all packets is lost, one of four tries is answered: three quick ones
/// are enough more often than not, and cost a BMC that is merely busy three small packets.
const QUICK: u32 = 3;
/// What any try waits at most, unless the BMC is slower than that.
const LONGEST: Duration = Duration::from_millis(500);

/// The waits of one message, in order.
#[derive(Debug)]
pub(super) struct Patience {
    base: Duration,
    tries: u32,
}

impl Patience {
    /// Begins with waits of `base`.
    pub(super) fn new(base: Duration) -> Self {
        Self { base, tries: 0 }
    }

    /// How long the next try waits. Up to an eighth more or less, so that many BMCs are not asked in step.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = self.tries.saturating_sub(QUICK - 1).min(2);
        self.tries = self.tries.saturating_add(1);
        let wait = self.base.saturating_mul(1 << doubled);
        let wait = wait.min(LONGEST.max(self.base));
        let [dice] = Kernel.array();
        wait * (224 + u32::from(dice) / 4) / 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_quick_at_first_and_never_hurry_a_slow_bmc() {
        let cases = [
            (150, [150, 150, 150, 300, 500, 500]),
            (3000, [3000, 3000, 3000, 3000, 3000, 3000]),
        ];
        for (base, waits) in cases {
            let mut patience = Patience::new(Duration::from_millis(base));
            for wait in waits {
                let next = patience.next();
                let (least, most) = (wait * 7 / 8, wait * 9 / 8);
                let range = Duration::from_millis(least)..=Duration::from_millis(most);
                assert!(range.contains(&next), "{next:?} for {wait} of {base}");
            }
        }
    }
}
