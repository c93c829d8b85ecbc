//! How fast blocks are sent: found out by what is refused. Functions over values, without a clock.
//!
//! It refuses to be told a limit: Amazon's differ by account, region and snapshot, and change.

use std::collections::VecDeque;
use std::time::Duration;

/// Most blocks on their way at once; together with what is read ahead this bounds memory.
const WIDEST: f64 = 64.0;
/// What was delivered in this time is the measure of what may be sent.
const MEASURE: Duration = Duration::from_secs(1);
/// Refusals within this time have one cause.
const SAME: Duration = Duration::from_millis(500);
/// After this time without a refusal the limit may be gone.
const QUIET: Duration = Duration::from_secs(10);

/// How fast to send.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    window: f64,
    /// Calls in a second; none as long as nothing was refused.
    rate: Option<f64>,
    /// When the next may be sent.
    next: Duration,
    delivered: VecDeque<Duration>,
    cut: Option<Duration>,
    grown: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            window: 16.0,
            rate: None,
            next: Duration::ZERO,
            delivered: VecDeque::new(),
            cut: None,
            grown: Duration::ZERO,
        }
    }
}

impl Pace {
    /// When the next one may be sent, with so many on their way; `None` when an answer must come first.
    pub(super) fn when(&self, flying: usize, now: Duration) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "at most a few dozen")]
        let flying = flying as f64;
        (flying < self.window.floor()).then(|| self.next.max(now))
    }

    /// One was sent.
    pub(super) fn sent(&mut self, now: Duration) {
        if let Some(rate) = self.rate {
            // What was not sent in time may be caught up on for a moment, so that a late timer costs nothing.
            let earliest = now.saturating_sub(Duration::from_millis(100));
            self.next = self.next.max(earliest) + Duration::from_secs_f64(1.0 / rate);
        }
    }

    /// One arrived.
    pub(super) fn arrived(&mut self, now: Duration) {
        self.delivered.push_back(now);
        self.forget(now);
        self.window = (self.window + 1.0 / self.window).min(WIDEST);
        let Some(rate) = &mut self.rate else { return };
        let quiet = self.cut.is_none_or(|cut| now.saturating_sub(cut) > QUIET);
        let share = if quiet { 0.25 } else { 0.02 };
        let passed = now.saturating_sub(self.grown).as_secs_f64();
        *rate += (*rate * share).max(0.5) * passed.min(1.0);
        self.grown = now;
    }

    /// One was refused because too much was asked.
    pub(super) fn throttled(&mut self, now: Duration) {
        if self.cut.is_some_and(|cut| now.saturating_sub(cut) < SAME) {
            return;
        }
        self.forget(now);
        #[expect(clippy::cast_precision_loss, reason = "thousands at most")]
        let delivered = self.delivered.len() as f64 / MEASURE.as_secs_f64();
        let rate = self.rate.map_or(delivered, |rate| rate.min(delivered));
        self.rate = Some((rate * 0.9).max(1.0));
        self.next = now;
        self.cut = Some(now);
        self.grown = now;
    }

    /// One got lost, or no answer came in time: the way is narrower than thought.
    pub(super) fn lost(&mut self) {
        self.window = (self.window / 2.0).max(1.0);
    }

    fn forget(&mut self, now: Duration) {
        let before = now.saturating_sub(MEASURE);
        while self.delivered.front().is_some_and(|at| *at < before) {
            self.delivered.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends for some seconds against a limit of calls in a second, with answers that take as long as said; returns what
    /// was taken and what was refused in each second.
    fn simulate(limit: f64, answer: Duration, seconds: u32) -> Vec<(u32, u32)> {
        let mut pace = Pace::default();
        let (mut tokens, mut flying) = (limit, VecDeque::new());
        let mut counts = vec![(0, 0); seconds as usize];
        let step = Duration::from_millis(1);
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(u64::from(seconds)) {
            tokens = (tokens + limit * step.as_secs_f64()).min(limit);
            while flying.front().is_some_and(|(at, _)| *at <= now) {
                let (_, taken) = flying.pop_front().unwrap();
                if taken {
                    pace.arrived(now);
                } else {
                    pace.throttled(now);
                }
            }
            while pace.when(flying.len(), now).is_some_and(|at| at <= now) {
                pace.sent(now);
                let taken = tokens >= 1.0;
                let count = &mut counts[usize::try_from(now.as_secs()).unwrap()];
                if taken {
                    tokens -= 1.0;
                    count.0 += 1;
                } else {
                    count.1 += 1;
                }
                flying.push_back((now + answer, taken));
            }
            now += step;
        }
        counts
    }

    #[test]
    fn the_rate_settles_near_a_limit() {
        for (limit, answer) in [(50.0, 1), (50.0, 100), (200.0, 5), (10.0, 20)] {
            let counts = simulate(limit, Duration::from_millis(answer), 30);
            let settled = &counts[5..];
            let length = f64::from(u32::try_from(settled.len()).unwrap());
            let taken = f64::from(settled.iter().map(|count| count.0).sum::<u32>()) / length;
            let refused = f64::from(settled.iter().map(|count| count.1).sum::<u32>()) / length;
            let told = format!(
                "limit {limit}, {answer} ms: {taken} taken, {refused} refused a second: {counts:?}"
            );
            assert!(
                taken >= 0.8 * limit && taken + refused <= 1.2 * limit,
                "{told}"
            );
        }
    }

    #[test]
    fn without_a_limit_the_window_is_all_that_bounds() {
        let counts = simulate(1e9, Duration::from_millis(10), 5);
        assert!(counts[4].0 > 5000, "{counts:?}");
    }

    #[test]
    fn what_gets_lost_narrows_the_window_down_to_one() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.lost();
        }
        assert!(pace.when(0, Duration::ZERO).is_some());
        assert!(pace.when(1, Duration::ZERO).is_none());
    }
}
