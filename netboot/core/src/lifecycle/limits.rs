//! What time does to a host: every stage ends.
//!
//! It refuses to count time that nobody watched: see [`super::Watch`].

use std::time::Duration;

use super::event::Outcome;
use super::machine::Machine;
use super::plan::{shutdown, span};
use super::policy::Control;
use super::state::{Goal, Stage};
use super::transition::NoteKind;

/// A host that is proving itself has to be heard this often: three heartbeats of 20 s, and some.
const STALE: Duration = Duration::from_secs(70);

impl Machine<'_> {
    /// Ends what has taken too long, and does what is due.
    pub(super) fn limits(&mut self) {
        let Some(work) = self.state.work() else {
            return;
        };
        let (stage, in_stage) = (work.stage, self.watched().since(work.entered_watched));
        match stage {
            Stage::PoweringOff | Stage::SettingBoot | Stage::PoweringOn => {
                self.power_limits(stage, in_stage);
            }
            Stage::Waiting if in_stage >= self.policy.hands => {
                let text = format!(
                    "nobody started it by hand within {}",
                    span(self.policy.hands)
                );
                self.untried(&text);
            }
            Stage::Waiting => {}
            Stage::Booting => self.boot_limits(),
            Stage::Proving => self.proving_limits(in_stage),
        }
    }

    fn power_limits(&mut self, stage: Stage, in_stage: Duration) {
        let Some(work) = self.state.work() else {
            return;
        };
        if self.policy.control == Control::Hands {
            match work.goal {
                Goal::Deploy { .. } => self.enter(Stage::Waiting),
                Goal::Power { .. } => {
                    self.power_failed("the site no longer names a BMC for it");
                }
            }
            return;
        }
        let limit = match stage {
            Stage::PoweringOff => self
                .policy
                .power
                .saturating_add(shutdown(&work.goal, self.policy)),
            _ => self.policy.power,
        };
        if in_stage >= limit {
            let mut text = format!("its power did not obey within {}", span(limit));
            if let Some(trouble) = &work.trouble {
                text = format!("{text}: {trouble}");
            }
            self.power_failed(&text);
        } else if let Some(operation) = self.lost() {
            let why = "the operation on its power ended without an answer".to_owned();
            self.power_done(operation, &Outcome::Unknown { why });
        } else if self.due() {
            self.issue();
        }
    }

    fn boot_limits(&mut self) {
        let (watched, policy) = (self.watched(), self.policy);
        let Some(work) = self.state.work() else {
            return;
        };
        let waited = watched.since(work.awaited.unwrap_or(work.entered_watched));
        let ill = work.ill.map(|since| watched.since(since));
        let trouble = work.trouble.clone();
        if let Some(ill) = ill.filter(|ill| *ill >= policy.ill_for) {
            let what = trouble.unwrap_or_else(|| "it is not well".to_owned());
            self.boot_failed(&format!("{what}, for {}", span(ill)));
        } else if waited >= policy.deadline {
            let mut text = match &work.boot {
                Some(_) => "it booted, and did not report itself well".to_owned(),
                None => "it never asked for its boot script".to_owned(),
            };
            text = format!("{text} within {}", span(policy.deadline));
            if let Some(trouble) = trouble {
                text = format!("{text}: {trouble}");
            }
            self.boot_failed(&text);
        }
    }

    fn proving_limits(&mut self, in_stage: Duration) {
        let watched = self.watched();
        let Some(work) = self.work() else { return };
        let heard = watched.since(work.heard.unwrap_or(work.entered_watched));
        if heard >= STALE {
            let text = format!("no heartbeat for {}", span(heard));
            work.trouble = Some(text.clone());
            self.note(NoteKind::Trouble, text);
            self.enter(Stage::Booting);
            self.boot_limits();
        } else if in_stage >= self.policy.health_for {
            self.prove();
        }
    }
}
