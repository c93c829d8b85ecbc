//! How long to wait before something is sent again.
//!
//! It refuses to learn from a packet that was sent twice: its answer may belong to either copy (Karn).

use std::time::Duration;

/// Before anything was measured. RFC 6298 §2.1 says the same.
const INITIAL: Duration = Duration::from_secs(1);
/// Below this, an emulated or busy client that pauses looks like loss.
const FLOOR: Duration = Duration::from_millis(100);
/// Above this a person believes that the host hangs.
const CEILING: Duration = Duration::from_secs(8);
/// Each try waits three times as long as the one before: five waits from the floor last 12 s, which outlives a
/// link that flaps or firmware that erases its flash, with six packets.
const BACK_OFF: u32 = 3;

/// Round-trip estimate of one transfer (RFC 6298 §2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Rto {
    smoothed: Option<Duration>,
    variation: Duration,
    shortest: Duration,
    ceiling: Duration,
}

impl Rto {
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self {
            smoothed: None,
            variation: Duration::ZERO,
            shortest: Duration::MAX,
            ceiling: timeout.map_or(CEILING, |timeout| timeout.min(CEILING)),
        }
    }

    /// Learns from one answer to something that was sent once.
    pub(super) fn sample(&mut self, rtt: Duration) {
        match self.smoothed {
            None => {
                self.variation = rtt / 2;
                self.smoothed = Some(rtt);
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    /// The wait after the first copy of a packet.
    pub(super) fn first(&self) -> Duration {
        let learned = self
            .smoothed
            .map_or(INITIAL, |rtt| rtt + self.variation * 4);
        learned.max(FLOOR).min(self.ceiling)
    }

    /// The wait after `resent` more copies of it.
    pub(super) fn after(&self, resent: u32) -> Duration {
        let factor = BACK_OFF.saturating_pow(resent.min(8));
        self.first().saturating_mul(factor).min(self.ceiling)
    }

    /// Learns that one round trip took at most this long: the time since the *first* copy left.
    pub(super) fn at_most(&mut self, rtt: Duration) {
        self.shortest = self.shortest.min(rtt);
    }

    /// No round trip is known to be shorter: an answer that comes sooner was under way before.
    pub(super) fn shortest(&self) -> Duration {
        self.shortest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_the_round_trip_and_grow_to_a_ceiling() {
        let ms = Duration::from_millis;
        let mut rto = Rto::new(None);
        assert_eq!(rto.first(), INITIAL);
        for _ in 0..50 {
            rto.sample(ms(1));
        }
        let waits: Vec<_> = (0..6).map(|resent| rto.after(resent)).collect();
        assert_eq!(
            waits,
            [ms(100), ms(300), ms(900), ms(2700), ms(8000), ms(8000)]
        );
        rto.sample(ms(2000));
        assert!(rto.first() > ms(1000), "{:?}", rto.first());
        assert_eq!(Rto::new(Some(ms(2000))).after(5), ms(2000));
    }
}
