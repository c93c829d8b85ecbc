//! Hosts that left the site: what is remembered of one is kept for a while, so that one that
//! returns has its history and is known to be the same machine.
//!
//! It refuses to go by the clock, which may jump: it counts the hours that the appliance was there.
//! It refuses to forget a host with something under way; what is, is called off after an hour,
//! since a host that returns after days must not be switched off by an order nobody remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use netboot_core::Timestamp;
use netboot_core::lifecycle::Event;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::executor::Executor;
use super::persist;
use super::round::Round;
use crate::store::{Change, StoreError};

/// Hours for which a host that left is remembered: a machine is repaired within weeks.
const KEPT: u32 = 30 * 24;
/// Hosts that left and are remembered; beyond that, who left first is forgotten first.
const MOST: usize = 1_000;
/// How often the hours are counted.
const HOUR: Duration = Duration::from_hours(1);

/// A host that left the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Departed {
    /// When, for people.
    pub(super) left: Timestamp,
    /// How many hours were counted since.
    pub(super) hours: u32,
}

/// The hosts that left the site, and when to look again.
#[derive(Debug)]
pub(super) struct Departures {
    known: BTreeMap<Arc<str>, Departed>,
    /// When the hours were counted last, by a clock that cannot jump.
    counted: Instant,
    /// Whether the site was replaced since.
    pub(super) look: Look,
}

/// Whether somebody may have left or returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Due,
    Done,
}

/// How a host that is remembered stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is a host of the site.
    Listed,
    /// It is not.
    Away,
    /// It is not, and something is under way with it.
    Busy,
}

/// Whether an hour passed since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hour {
    Passed,
    Open,
}

/// What a look at the hosts leads to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    left: Vec<Arc<str>>,
    returned: Vec<Arc<str>>,
    /// Away for an hour with something under way.
    ended: Vec<Arc<str>>,
    forgotten: Vec<Arc<str>>,
    next: BTreeMap<Arc<str>, Departed>,
}

impl Departures {
    pub(super) fn new(known: BTreeMap<Arc<str>, Departed>) -> Self {
        Self {
            known,
            counted: Instant::now(),
            look: Look::Due,
        }
    }
}

/// Says who left, returned, and is to be forgotten.
fn find(
    known: &BTreeMap<Arc<str>, Departed>,
    hosts: &BTreeMap<Arc<str>, Standing>,
    hour: Hour,
    now: Timestamp,
) -> Found {
    let mut found = Found::default();
    let mut idle = Vec::new();
    for (host, standing) in hosts {
        let before = known.get(host);
        if *standing == Standing::Listed {
            found.returned.extend(before.map(|_| Arc::clone(host)));
            continue;
        }
        let mut away = before.copied().unwrap_or_else(|| {
            found.left.push(Arc::clone(host));
            Departed {
                left: now,
                hours: 0,
            }
        });
        if hour == Hour::Passed && before.is_some() {
            away.hours = away.hours.saturating_add(1);
        }
        match standing {
            Standing::Busy if away.hours > 0 => found.ended.push(Arc::clone(host)),
            Standing::Busy | Standing::Listed => {}
            Standing::Away => idle.push((away.hours, Arc::clone(host))),
        }
        found.next.insert(Arc::clone(host), away);
    }
    // Who was away for longest comes first.
    idle.sort_by(|one, other| other.cmp(one));
    let mut excess = found.next.len().saturating_sub(MOST);
    for (hours, host) in idle {
        if hours >= KEPT || excess > 0 {
            excess = excess.saturating_sub(1);
            found.next.remove(&host);
            found.left.retain(|left| *left != host);
            found.forgotten.push(host);
        }
    }
    found
}

impl Executor {
    /// Takes note of who left the site and who returned, and forgets whoever was away for long: when the
    /// site was replaced, and once an hour. What cannot be stored now is looked at again with the next tick.
    pub(super) async fn departures(&mut self) {
        let passed = self.departures.counted.elapsed() >= self.clock.wait(HOUR);
        if !passed && self.departures.look == Look::Done {
            return;
        }
        let hour = if passed { Hour::Passed } else { Hour::Open };
        let now = self.clock.now();
        let found = find(&self.departures.known, &self.standings(), hour, now);
        let Ok(round) = self.departing(&found, now) else {
            return;
        };
        if self.commit(round, None).await.is_err() {
            return;
        }
        for host in &found.forgotten {
            self.forget(host);
        }
        self.departures.known = found.next;
        self.departures.look = Look::Done;
        if passed {
            self.departures.counted = Instant::now();
        }
    }

    fn standings(&self) -> BTreeMap<Arc<str>, Standing> {
        let names: BTreeSet<&Arc<str>> = self.hosts.keys().chain(self.identities.keys()).collect();
        let standing = |host: &Arc<str>| {
            if self.place.site.host(host).is_some() {
                return Standing::Listed;
            }
            let works = self
                .hosts
                .get(host)
                .is_some_and(|state| state.work().is_some());
            if works || self.powers.is_busy(host) {
                Standing::Busy
            } else {
                Standing::Away
            }
        };
        names
            .into_iter()
            .map(|host| (Arc::clone(host), standing(host)))
            .collect()
    }

    fn departing(&self, found: &Found, now: Timestamp) -> Result<Round, StoreError> {
        let mut round = Round::new(now);
        let remove = |round: &mut Round, kind: &str, host: &Arc<str>| {
            round.store(Change::Remove {
                kind: kind.to_owned(),
                name: host.to_string(),
            });
        };
        let days = KEPT / 24;
        for host in &found.left {
            let text =
                format!("it is no longer a host of the site; its history is kept for {days} days");
            round.tell(&**host, "left", text);
        }
        for host in &found.returned {
            remove(&mut round, persist::DEPARTED, host);
            let text = "it is a host of the site again, and has its history".to_owned();
            round.tell(&**host, "returned", text);
        }
        for host in &found.ended {
            if let Some(state) = self.hosts.get(host) {
                round.away(host, state, &Event::Left);
            }
        }
        for host in &found.forgotten {
            for kind in [persist::STATE, persist::IDENTITY, persist::DEPARTED] {
                remove(&mut round, kind, host);
            }
            let away = self.departures.known.get(host).map_or(0, |away| away.hours);
            let text = format!(
                "its history and what its BMC said of itself are removed: it left the site {away} hours ago"
            );
            round.tell(&**host, "forgotten", text);
        }
        for (host, away) in &found.next {
            if self.departures.known.get(host) != Some(away) {
                round.store(persist::put(persist::DEPARTED, host, away)?);
            }
        }
        Ok(round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away(hours: u32) -> Departed {
        Departed {
            left: Timestamp(1),
            hours,
        }
    }

    #[test]
    fn who_is_away_is_kept_for_a_while_and_never_forgotten_at_work() {
        use Standing::{Away, Busy, Listed};
        let nothing = |found: &Found| {
            found.forgotten.is_empty() && found.returned.is_empty() && found.ended.is_empty()
        };
        let look = |before: Option<u32>, standing, hour| {
            let host: Arc<str> = "web1".into();
            let known = before.map(|hours| (Arc::clone(&host), away(hours)));
            let hosts = [(host, standing)].into();
            find(&known.into_iter().collect(), &hosts, hour, Timestamp(9))
        };
        let left = look(None, Away, Hour::Passed);
        assert!(nothing(&left) && left.left.len() == 1);
        assert_eq!(
            left.next["web1"],
            Departed {
                left: Timestamp(9),
                hours: 0
            }
        );
        // Without an hour nothing is counted, whatever the clock says.
        assert_eq!(look(Some(5), Away, Hour::Open).next["web1"], away(5));
        assert_eq!(look(Some(5), Away, Hour::Passed).next["web1"], away(6));
        let back = look(Some(KEPT - 1), Listed, Hour::Passed);
        assert_eq!(
            (back.returned.len(), back.next.len(), back.forgotten.len()),
            (1, 0, 0)
        );
        assert!(nothing(&look(None, Listed, Hour::Passed)));
        let long = look(Some(KEPT - 1), Away, Hour::Passed);
        assert_eq!((long.forgotten.len(), long.next.len()), (1, 0));
        // What is under way is called off first.
        let busy = look(Some(KEPT), Busy, Hour::Passed);
        assert_eq!(
            (busy.forgotten.len(), busy.ended.len(), busy.next.len()),
            (0, 1, 1)
        );
        assert!(nothing(&look(None, Busy, Hour::Passed)));
        assert!(nothing(&look(Some(0), Busy, Hour::Open)));
    }

    #[test]
    fn there_is_a_most_of_who_is_remembered() {
        let name = |number: usize| Arc::<str>::from(format!("h{number}"));
        let known: BTreeMap<_, _> = (0..MOST)
            .map(|number| (name(number), away(u32::from(number == 7))))
            .collect();
        let hosts = (0..=MOST).map(|number| (name(number), Standing::Away));
        let found = find(&known, &hosts.collect(), Hour::Open, Timestamp(9));
        assert_eq!(found.forgotten, [name(7)]);
        assert_eq!((found.next.len(), found.left.len()), (MOST, 1));
    }
}
