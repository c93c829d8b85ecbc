//! How often somebody may ask, and how long one waits who shows wrong tokens.
//!
//! It refuses to grow with the number of strangers: each table has a bound, and who was quiet longest is forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Keys of one table.
const MOST: usize = 4_096;

/// Wrong tokens of one address that are answered at once: a typing error, an old file.
const FREE_FAILURES: u32 = 3;
/// First and longest wait for the answer to the next ones; each doubles it.
const WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Refusals of one token or address that are recorded at once, and how often later: 5 MB a day at most.
const REFUSALS: u32 = 60;
const REFUSED_EVERY: Duration = Duration::from_secs(10);
/// The same of all strangers together: 30 MB a day at most.
const STRANGERS: u32 = 600;
const STRANGER_EVERY: Duration = Duration::from_secs(2);
/// After which time of good behaviour they are forgotten.
const FORGIVEN: Duration = Duration::from_mins(10);

/// Token buckets by key.
#[derive(Debug)]
pub(crate) struct Pace<K> {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<K, (f64, Instant)>>,
}

impl<K: Hash + Eq + Clone> Pace<K> {
    /// Lets each key ask this often, and this many times at once.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
            buckets: Mutex::default(),
        }
    }

    /// Lets each key ask once in this time, and this many times at once.
    fn slow(every: Duration, burst: u32) -> Self {
        Self {
            per_second: every.as_secs_f64().recip(),
            ..Self::new(1, burst)
        }
    }

    /// Takes one request of a key.
    ///
    /// # Errors
    /// With the time after which to ask again.
    pub(crate) fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut buckets, key, |(_, last)| *last);
        let (left, last) = buckets.entry(key.clone()).or_insert((self.burst, now));
        let gained = now.saturating_duration_since(*last).as_secs_f64() * self.per_second;
        *left = (*left + gained).min(self.burst);
        *last = now;
        if *left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - *left) / self.per_second));
        }
        *left -= 1.0;
        Ok(())
    }
}

/// Which refusals are written to the audit log: enough to see an attack, and never so many that it fills the disk.
///
/// Strangers have their own part of it: however many ask, the refusals of tokens that are known are written.
#[derive(Debug)]
pub(crate) struct Refusals {
    by_token: Pace<String>,
    by_peer: Pace<IpAddr>,
    of_strangers: Pace<()>,
    unrecorded: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            by_token: Pace::slow(REFUSED_EVERY, REFUSALS),
            by_peer: Pace::slow(REFUSED_EVERY, REFUSALS),
            of_strangers: Pace::slow(STRANGER_EVERY, STRANGERS),
            unrecorded: AtomicU64::new(0),
        }
    }
}

impl Refusals {
    /// Tells whether the refusal of a token, or of a stranger, is to be recorded, and how many before it were not.
    pub(crate) fn take(&self, token: Option<&str>, peer: IpAddr, now: Instant) -> Option<u64> {
        let counted = match token {
            Some(token) => self.by_token.take(&token.to_owned(), now),
            None => self
                .by_peer
                .take(&peer, now)
                .and_then(|()| self.of_strangers.take(&(), now)),
        };
        if counted.is_err() {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.unrecorded.swap(0, Ordering::Relaxed))
    }
}

/// Returns what one client can hardly have two of: an IPv4 address, or the network of an IPv6 address.
///
/// A host has 2^64 addresses of its own there. Addresses of a link alone are all in one network, and count each.
pub(crate) fn client(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_unicast_link_local() => {
            IpAddr::V6((u128::from(address) & NETWORK).into())
        }
        address => address,
    }
}

/// Wrong tokens by address.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<IpAddr, (u32, Instant)>>);

impl Failures {
    /// Counts one more of an address, and returns how long its answer has to wait.
    pub(crate) fn count(&self, peer: IpAddr, now: Instant) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut failures, &peer, |(_, last)| *last);
        let (count, last) = failures.entry(peer).or_insert((0, now));
        if now.saturating_duration_since(*last) > FORGIVEN {
            *count = 0;
        }
        *count = count.saturating_add(1);
        *last = now;
        match count.checked_sub(FREE_FAILURES + 1) {
            None => Duration::ZERO,
            Some(more) => LONGEST_WAIT.min(WAIT.saturating_mul(1 << more.min(10))),
        }
    }
}

/// Forgets the key that was quiet longest where a new one would be too many.
fn make_room<K: Hash + Eq + Clone, V>(
    table: &mut HashMap<K, V>,
    key: &K,
    last: impl Fn(&V) -> Instant,
) {
    if table.len() < MOST || table.contains_key(key) {
        return;
    }
    let quiet = table.iter().min_by_key(|(_, value)| last(value));
    if let Some(key) = quiet.map(|(key, _)| key.clone()) {
        table.remove(&key);
    }
}
