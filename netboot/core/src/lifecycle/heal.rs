//! Drift that is put right without a person.
//!
//! It refuses to heal for ever, to heal a host that is stopped, to switch a host off that somebody
//! switched on by hand, and to start one that somebody switched off.

use std::time::Duration;

use super::event::PowerOrder;
use super::generation::Reason;
use super::machine::Machine;
use super::plan::span;
use super::policy::{Control, Policy};
use super::state::{Goal, HostState, Phase, Watched};
use super::transition::NoteKind;
use crate::drift::{Drift, drifted};

/// For how long drift has to be seen before it is told and healed: hosts reboot by themselves.
pub(crate) const DWELL: Duration = Duration::from_mins(1);
/// The pause after the first heal; it doubles with each one that still counts.
const PAUSE: Duration = Duration::from_mins(10);

/// Why drift is not healed now.
pub(crate) enum Held {
    /// The policy does not say so, or cannot: a person has to.
    ByPolicy,
    /// It was healed as often as the policy allows.
    TooOften(usize),
    /// It is healed when this time has passed.
    Until(Duration),
}

/// Returns why a drift since `since` is not healed now; none when it is due.
pub(crate) fn held(
    state: &HostState,
    policy: &Policy,
    drift: Drift,
    since: Watched,
) -> Option<Held> {
    let watched = state.watch.total;
    let possible = match drift {
        Drift::Power => state.wanted == Some(super::Power::On),
        // To heal it is to start the host, which a person may have switched off for good reason.
        Drift::Tree | Drift::Overlay => {
            let off = Some(super::Power::Off);
            state.wanted != off
                && state.seen.power != off
                && state.boots().is_some_and(super::Generation::is_proven)
        }
    };
    if !possible || policy.control == Control::Hands || !policy.heal.contains(&drift) {
        return Some(Held::ByPolicy);
    }
    let recent = |healed: &&Watched| watched.since(**healed) < policy.heal_window;
    let count = state.heals.iter().filter(recent).count();
    if count >= usize::try_from(policy.max_heals).unwrap_or(usize::MAX) {
        return Some(Held::TooOften(count));
    }
    let doubled = PAUSE.saturating_mul(1 << count.saturating_sub(1).min(10));
    let last = state.heals.iter().filter(recent).max();
    let pause = last.map_or(Duration::ZERO, |last| {
        doubled.saturating_sub(watched.since(*last))
    });
    let wait = pause.max(DWELL.saturating_sub(watched.since(since)));
    (!wait.is_zero()).then_some(Held::Until(wait))
}

impl Machine<'_> {
    /// Tells drift once, and heals what is due.
    pub(super) fn heal(&mut self) {
        if self.state.phase != Phase::Idle {
            return;
        }
        for (drift, since, text) in drifted(&self.state) {
            self.tell(drift, since, &text);
            if held(&self.state, self.policy, drift, since).is_none() {
                self.heal_now(drift, &text);
                return;
            }
        }
    }

    fn tell(&mut self, drift: Drift, since: Watched, text: &str) {
        let before = self.before_total().since(since) >= DWELL;
        if before || self.watched().since(since) < DWELL {
            return;
        }
        let text = match held(&self.state, self.policy, drift, since) {
            Some(Held::TooOften(count)) => format!(
                "{text}; it was healed {count} times within {} and is left to a person",
                span(self.policy.heal_window)
            ),
            _ => text.to_owned(),
        };
        self.note(NoteKind::Drift, text);
    }

    fn heal_now(&mut self, drift: Drift, text: &str) {
        let (watched, window) = (self.watched(), self.policy.heal_window);
        self.state
            .heals
            .retain(|healed| watched.since(*healed) < window);
        self.state.heals.push(watched);
        self.note(NoteKind::Healing, format!("healing: {text}"));
        if drift == Drift::Power {
            let by = "firstboot".to_owned();
            let order = PowerOrder::On;
            return self.begin(Goal::Power { order, by }, Vec::new());
        }
        let Some(desired) = self.state.boots().cloned() else {
            return;
        };
        let reason = Reason::Heal { of: desired.number };
        let number = self.generate(desired.image, desired.parameters, "firstboot", reason, None);
        self.state.desired = Some(number);
        self.begin(Goal::Deploy { generation: number }, Vec::new());
        self.forget();
    }
}
