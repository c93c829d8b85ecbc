//! When a BMC may be spoken with again: a bucket of tokens, and a breaker for the silent.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A BMC earns a poll each so often, and can save up so many: polls that come closer wear BMCs out
/// (Ironic keeps 5 s between commands: "setting this too low may cause the BMC to crash").
const EARNS: Duration = Duration::from_secs(5);
const SAVES: u32 = 2;
/// After this many failures in a row a BMC is left alone, the first time this long, and twice as long each time.
const FAILURES: u32 = 3;
const FIRST_REST: Duration = Duration::from_secs(30);
const LONGEST_REST: Duration = Duration::from_mins(10);

/// Why a BMC was left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Somebody else speaks with it.
    Busy,
    /// It was polled a moment ago.
    Recent,
    /// It was silent too often.
    Silent {
        /// When it is tried again.
        until: Instant,
    },
}

/// What the poller keeps of one BMC.
#[derive(Debug, Default)]
pub(crate) struct Track(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// When the last token was earned, and how many were spent of those saved since.
    refilled: Option<Instant>,
    spent: u32,
    failures: u32,
    rests_until: Option<Instant>,
}

impl Track {
    /// Whether a poll may begin now; takes a token if so.
    pub(crate) fn begin(&self, now: Instant) -> Result<(), Rest> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = state.rests_until.filter(|until| now < *until) {
            return Err(Rest::Silent { until });
        }
        let refilled = *state.refilled.get_or_insert(now);
        let earned = now.saturating_duration_since(refilled).as_millis() / EARNS.as_millis();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            state.spent = state.spent.saturating_sub(earned);
            state.refilled = Some(if state.spent == 0 {
                now
            } else {
                refilled + EARNS * earned
            });
        }
        if state.spent >= SAVES {
            return Err(Rest::Recent);
        }
        state.spent += 1;
        Ok(())
    }

    /// Records how a poll ended.
    pub(crate) fn end(&self, now: Instant, well: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if well {
            (state.failures, state.rests_until) = (0, None);
            return;
        }
        state.failures += 1;
        if state.failures >= FAILURES {
            // One poll decides whether it is back; if not, it rests twice as long.
            let doublings = (state.failures - FAILURES).min(8);
            state.rests_until = Some(now + (FIRST_REST * (1 << doublings)).min(LONGEST_REST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn polls_are_earned() {
        let (track, start) = (Track::default(), Instant::now());
        let cases = [
            (0, true),
            (0, true),
            (0, false),
            (4, false),
            (5, true),
            (5, false),
            (60, true),
            (60, true),
            (61, false),
        ];
        for (at, allowed) in cases {
            assert_eq!(track.begin(start + second(at)).is_ok(), allowed, "at {at}");
        }
    }

    #[test]
    fn the_silent_rest_longer_each_time_and_come_back_at_once() {
        let (track, start) = (Track::default(), Instant::now());
        let mut now = start;
        for rest in [0, 0, 30, 60, 120, 240, 480, 600, 600] {
            assert_eq!(track.begin(now), Ok(()), "{rest}");
            track.end(now, false);
            if rest > 0 {
                let until = now + second(rest);
                assert_eq!(
                    track.begin(now + second(rest - 1)),
                    Err(Rest::Silent { until })
                );
                now = until;
            } else {
                now += second(10);
            }
        }
        assert_eq!(track.begin(now), Ok(()));
        track.end(now, true);
        assert_eq!(track.begin(now + second(5)), Ok(()));
    }
}
