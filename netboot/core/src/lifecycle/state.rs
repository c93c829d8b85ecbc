//! Everything that is remembered of one host between two events.
//!
//! It refuses to hold what can be derived, and to grow: lists and texts have limits.

use std::time::Duration;

use image_manifest::Digest;
use serde::{Deserialize, Serialize};

use super::event::{Power, PowerOrder};
use super::generation::{Generation, Reason};
use super::transition::PowerIntent;
use crate::Timestamp;

/// Everything that is remembered of one host; one JSON document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct HostState {
    /// Its newest generations, oldest first.
    pub generations: Vec<Generation>,
    /// Number of the generation that it boots, whenever it boots.
    pub desired: Option<u32>,
    /// What is under way.
    pub phase: Phase,
    /// Whether it is meant to run; none as long as nobody said so.
    pub wanted: Option<Power>,
    /// What was seen of it last.
    pub seen: Seen,
    /// When its drift was healed, as watched; the newest are kept.
    pub heals: Vec<Watched>,
    /// The time that it was watched.
    pub watch: Watch,
    /// Number of the newest operation on its power.
    pub operation: u64,
    /// The power off that was sent last, as long as it may still take effect.
    pub falling: Option<Falling>,
    /// Number of the newest generation.
    pub newest: u32,
}

/// What is under way with a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "phase",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one a host, and it stands in its state by value"
)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// A deployment or an order about its power.
    Active(Work),
    /// Nothing, until a person looks.
    Stopped {
        /// Since when.
        at: Timestamp,
        /// Why, for the operator on call.
        why: String,
    },
}

/// A deployment or an order about power that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Work {
    /// What it is to reach.
    pub goal: Goal,
    /// Where it stands.
    pub stage: Stage,
    /// When it began.
    pub began: Timestamp,
    /// When it began, as watched.
    pub began_watched: Watched,
    /// When the stage was entered.
    pub entered: Timestamp,
    /// When the stage was entered, as watched.
    pub entered_watched: Watched,
    /// The operation on its power whose end is waited for.
    #[serde(default)]
    pub pending: Option<Pending>,
    /// When the next operation is due, as watched, if one is.
    #[serde(default)]
    pub due: Option<Watched>,
    /// Operations of this stage that did not lead on.
    #[serde(default)]
    pub misses: u32,
    /// The count of ticks until which power off can have been sent, if it can have been at all.
    #[serde(default)]
    pub off_until: u64,
    /// How often power off was sent or may have been; while it is 0, none surely was.
    #[serde(default)]
    pub offs: u32,
    /// The boot that is to prove the generation.
    #[serde(default)]
    pub boot: Option<String>,
    /// When the wait for a healthy report began, as watched.
    #[serde(default)]
    pub awaited: Option<Watched>,
    /// When it last reported itself well, as watched.
    #[serde(default)]
    pub heard: Option<Watched>,
    /// Since when it reports itself ill, as watched.
    #[serde(default)]
    pub ill: Option<Watched>,
    /// What went wrong last.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Generations that failed in this deployment, oldest first: as many as it rolled back.
    #[serde(default)]
    pub failed: Vec<u32>,
}

/// What a piece of work is to reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "goal",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Goal {
    /// A generation is proven.
    Deploy {
        /// Its number.
        generation: u32,
    },
    /// The power is as ordered.
    Power {
        /// The order.
        order: PowerOrder,
        /// Who gave it.
        by: String,
    },
}

/// Where a piece of work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The host is being switched off.
    PoweringOff,
    /// Its boot device is being set, once.
    SettingBoot,
    /// It is being switched on.
    PoweringOn,
    /// Somebody has to start it by hand.
    Waiting,
    /// It is to boot and to report itself well.
    Booting,
    /// It is to stay well for a while.
    Proving,
}

impl Stage {
    /// Returns the word for operators.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::PoweringOff => "powering-off",
            Self::SettingBoot => "setting-boot",
            Self::PoweringOn => "powering-on",
            Self::Waiting => "waiting",
            Self::Booting => "booting",
            Self::Proving => "proving",
        }
    }
}

/// The number of one operation on a host's power: the shell performs each at most once in its
/// lifetime, and names it in [`super::Event::PowerDone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Operation(pub u64);

/// An operation whose end is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pending {
    /// Its number.
    pub operation: Operation,
    /// What it is.
    pub intent: PowerIntent,
    /// When it was asked for, as watched.
    pub since: Watched,
    /// When it was on disk that power off is about to be sent; as long as it is not, none surely was.
    #[serde(default)]
    pub sending: Option<Watched>,
}

/// A power off that may have been sent, and whose effect may still come: a BMC may lag, and what
/// was sent outlives whoever asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Falling {
    /// Its number; none when there are several, since the end of one says nothing about the others.
    pub operation: Option<Operation>,
    /// The count of ticks at which it was about to be sent.
    pub ticks: u64,
}

/// What was seen of a host last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Seen {
    /// Its power.
    pub power: Option<Power>,
    /// Since when its power is not as wanted, as watched.
    pub power_off_since: Option<Watched>,
    /// Its newest boot.
    pub boot: Option<Booted>,
    /// The tree that it runs, as its newest boot reported.
    pub tree: Option<Digest>,
    /// Since when that is another tree than desired, as watched.
    pub tree_off_since: Option<Watched>,
    /// Files that were changed since its newest boot.
    pub overlay: Vec<String>,
    /// How many more there are.
    pub overlay_omitted: u64,
    /// Since when there are some, as watched.
    pub overlay_since: Option<Watched>,
    /// What is not well, as it said last.
    pub ill: Option<String>,
}

/// A boot that was given a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Booted {
    /// Its id.
    pub boot: String,
    /// The generation that the script booted.
    pub generation: u32,
}

/// A point in watched time, in milliseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Watched(pub u64);

impl Watched {
    /// Returns how long after `earlier` this is; nothing when it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time `duration` later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// The time that a host was watched: the clock's, less its jumps and the appliance's absences.
///
/// Between two events at most [`Watch::MOST`] counts: a clock that jumps ahead, or an appliance that
/// was down for an hour and so could hear no report, uses up no more of a deadline. A clock that goes back
/// counts nothing by itself, and every tick counts [`Watch::TICK`] then: no deadline is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Watch {
    /// What the clock said last.
    pub clock: Timestamp,
    /// The time that was watched in all.
    pub total: Watched,
    /// How much of it is stored.
    pub stored: Watched,
    /// The ticks that were counted: the shell sends at most one in [`Watch::TICK`], by a clock that
    /// cannot jump, so at least as much time has truly passed.
    pub ticks: u64,
}

impl Watch {
    /// What counts at most between two events; more than the longest time between two ticks, so that
    /// an appliance that is a little late loses nothing.
    pub const MOST: Duration = Duration::from_secs(30);
    /// What a tick counts when the clock went back or stands; the time between two ticks.
    pub const TICK: Duration = Duration::from_secs(1);
    /// How much of it a crash may lose.
    pub const UNSTORED: Duration = Duration::from_secs(10);
    /// The same of a host with nothing under way that was begun within the last hour.
    pub const UNSTORED_IDLE: Duration = Duration::from_mins(5);
    /// The time for which the site's limit of hosts counts.
    pub const HOUR: Duration = Duration::from_hours(1);
}

impl Watch {
    /// Lets the time pass until `now`, as far as it counts.
    pub(crate) fn pass(&mut self, now: Timestamp) {
        self.total = self.total.after(now.since(self.clock).min(Self::MOST));
        self.clock = now;
    }

    /// Lets the time of a tick pass, which always counts.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        self.ticks = self.ticks.saturating_add(1);
        if now > self.clock {
            return self.pass(now);
        }
        self.total = self.total.after(Self::TICK);
        self.clock = now;
    }
}

/// Longest time between two ticks of a host with nothing under way.
const IDLE_TICK: Duration = Duration::from_secs(20);

impl HostState {
    /// Returns the generation with a number.
    #[must_use]
    pub fn generation(&self, number: u32) -> Option<&Generation> {
        let mut newest_first = self.generations.iter().rev();
        newest_first.find(|generation| generation.number == number)
    }

    /// Returns what the host boots, whenever it boots; none when it has to be adopted first.
    #[must_use]
    pub fn boots(&self) -> Option<&Generation> {
        self.generation(self.desired?)
    }

    /// Tells whether it was deployed, rolled back or healed within some time, as watched: a clock
    /// that jumps neither makes that longer ago nor undone.
    #[must_use]
    pub fn began_within(&self, time: Duration) -> bool {
        let mut newest_first = self.generations.iter().rev();
        newest_first.any(|known| {
            known.reason != Reason::Adopted && self.watch.total.since(known.created_watched) < time
        })
    }

    /// Returns the work that is under way.
    #[must_use]
    pub fn work(&self) -> Option<&Work> {
        match &self.phase {
            Phase::Active(work) => Some(work),
            Phase::Idle | Phase::Stopped { .. } => None,
        }
    }

    /// Tells whether an operation is still waited for: the shell asks right before it performs one
    /// that had to queue, and drops it when something else was asked for meanwhile.
    #[must_use]
    pub fn awaits(&self, operation: Operation) -> bool {
        let pending = self.work().and_then(|work| work.pending.as_ref());
        pending.is_some_and(|pending| pending.operation == operation)
    }

    /// Returns where it stands, in one word.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match &self.phase {
            Phase::Idle => "idle",
            Phase::Active(work) => work.stage.label(),
            Phase::Stopped { .. } => "stopped",
        }
    }

    /// Returns how soon the next tick is due.
    #[must_use]
    pub fn tick_within(&self) -> Duration {
        match self.phase {
            _ if self.falling.is_some() => Watch::TICK,
            Phase::Active(ref work) if work.stage != Stage::Waiting => Watch::TICK,
            Phase::Active(_) | Phase::Idle | Phase::Stopped { .. } => IDLE_TICK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watched_time_is_the_clocks_less_its_jumps() {
        let second = 1_000;
        let cases: [(&str, u64, u64, u64, u64); 5] = [
            ("a second", 100 * second, 101 * second, second, second),
            (
                "a jump ahead, or an absence",
                100 * second,
                9_000 * second,
                30 * second,
                30 * second,
            ),
            ("a jump back", 100 * second, 10 * second, 0, second),
            ("a clock that stands", 100 * second, 100 * second, 0, second),
            (
                "the end of time",
                100 * second,
                u64::MAX,
                30 * second,
                30 * second,
            ),
        ];
        for (name, before, now, passed, ticked) in cases {
            let clock = Timestamp(before);
            let start = Watch {
                clock,
                ..Watch::default()
            };
            let (mut by_event, mut by_tick) = (start, start);
            by_event.pass(Timestamp(now));
            by_tick.tick(Timestamp(now));
            assert_eq!(by_event.total, Watched(passed), "{name}");
            assert_eq!(by_tick.total, Watched(ticked), "{name}");
            assert_eq!((by_event.ticks, by_tick.ticks), (0, 1), "{name}");
            assert_eq!(
                (by_event.clock, by_tick.clock),
                (Timestamp(now), Timestamp(now))
            );
        }
    }
}
