//! How often something is tried, and how long is waited in between: functions over values, without a clock.

use std::time::Duration;

/// Bounds of trying one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Longest time that one attempt may take.
    pub attempt: Duration,
    /// Longest time that all attempts and pauses may take together.
    pub whole: Duration,
    /// Pause after the first attempt; it doubles.
    pub pause: Duration,
    /// Longest pause, also where the cloud asks for more.
    pub longest: Duration,
}

impl Patience {
    /// For a call that is answered at once.
    pub const CALL: Self = Self {
        attempt: Duration::from_secs(30),
        whole: Duration::from_mins(2),
        pause: Duration::from_millis(200),
        longest: Duration::from_secs(20),
    };

    /// For a question that one can do without: nobody waits for it where its interface is not reached.
    pub const ASIDE: Self = Self {
        attempt: Duration::from_secs(5),
        whole: Duration::from_secs(5),
        pause: Duration::from_millis(200),
        longest: Duration::from_secs(2),
    };

    /// Bounds of polling something that takes minutes: asked often at first, then every quarter of a minute.
    #[must_use]
    pub const fn task(whole: Duration) -> Self {
        Self {
            attempt: Duration::from_secs(30),
            whole,
            pause: Duration::from_millis(500),
            longest: Duration::from_secs(15),
        }
    }

    /// How long to wait after an attempt: `None` when there is no time left for another one.
    ///
    /// `chance` is between 0 and 1: the pause is between half of itself and all, so that many who were refused at once do
    /// not come back at once.
    #[must_use]
    pub fn wait(
        &self,
        attempt: u32,
        spent: Duration,
        asked: Option<Duration>,
        chance: f64,
    ) -> Option<Duration> {
        let doubled = self.pause.saturating_mul(1 << attempt.min(16));
        let doubled = doubled.min(self.longest);
        let pause = doubled / 2 + (doubled / 2).mul_f64(chance.clamp(0.0, 1.0));
        let pause = asked.map_or(pause, |asked| asked.min(self.longest).max(pause));
        (spent + pause < self.whole).then_some(pause)
    }
}

/// A number between 0 and 1.
#[must_use]
pub fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness pauses are whole, which is as good for one client.
    let part = getrandom::fill(&mut bytes).map_or(u32::MAX, |()| u32::from_le_bytes(bytes));
    f64::from(part) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_a_bound_and_end() {
        let patience = Patience {
            attempt: SECOND,
            whole: 60 * SECOND,
            pause: SECOND,
            longest: 8 * SECOND,
        };
        let cases = [
            ("the first", 0, 0, None, 1.0, Some(1000)),
            ("the least of it", 0, 0, None, 0.0, Some(500)),
            ("the third", 2, 9, None, 1.0, Some(4000)),
            ("the longest", 30, 9, None, 1.0, Some(8000)),
            ("asked for", 0, 9, Some(5), 1.0, Some(5000)),
            ("asked for too much", 0, 9, Some(500), 1.0, Some(8000)),
            ("asked for less than fits", 2, 9, Some(0), 1.0, Some(4000)),
            ("no time left", 0, 59, None, 1.0, None),
        ];
        for (name, attempt, spent, asked, chance, expected) in cases {
            let asked = asked.map(Duration::from_secs);
            let found = patience.wait(attempt, Duration::from_secs(spent), asked, chance);
            assert_eq!(found, expected.map(Duration::from_millis), "{name}");
        }
    }
}
