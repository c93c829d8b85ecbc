//! Boots and reports: what proves a generation, what fails it, and what it goes back to.
//!
//! It refuses to believe a report of another boot, of another generation or of another tree.

use super::event::{Power, Said};
use super::generation::{Generation, Judgement, Reason};
use super::machine::{Machine, tamed};
use super::plan::span;
use super::state::{Booted, Goal, HostState, Phase, Stage, Work};
use super::transition::NoteKind;
use crate::site::MOST_ROLLBACKS;

/// Paths of changed files that are kept, and their length in characters.
const PATHS: usize = 32;
/// Stands for a generation whose image need not be avoided; numbers begin with 1.
pub(super) const UNTRIED: u32 = 0;

impl HostState {
    /// Returns the newest generation that was healthy and boots something else than `current` and
    /// than those that `failed`.
    #[must_use]
    pub fn fallback(&self, failed: &[u32], current: u32) -> Option<&Generation> {
        let excluded = failed.iter().copied().chain([current]);
        let excluded: Vec<&Generation> = excluded
            .filter_map(|number| self.generation(number))
            .collect();
        let other = |known: &&Generation| {
            let mut excluded = excluded.iter();
            known.is_proven()
                && !excluded.any(|failed| failed.same_as(&known.image, &known.parameters))
        };
        self.generations.iter().rev().find(other)
    }
}

impl Machine<'_> {
    /// A script was made for the host.
    pub(super) fn boot_began(&mut self, boot: &str, generation: u32) {
        let known = self.state.seen.boot.as_ref();
        if known.is_some_and(|known| known.boot == boot && known.generation == generation) {
            return;
        }
        self.power_seen(Power::On);
        let seen = &mut self.state.seen;
        seen.boot = Some(Booted {
            boot: tamed(boot),
            generation,
        });
        (seen.tree, seen.tree_off_since) = (None, None);
        (seen.overlay_since, seen.ill) = (None, None);
        seen.overlay.clear();
        let unproven = self.state.boots().is_some_and(|desired| {
            desired.number == generation && desired.outcome == Judgement::Pending
        });
        if self.state.phase == Phase::Idle && unproven {
            self.follow(generation);
        }
        if self.deploying() != Some(generation) {
            return;
        }
        let Some(work) = self.work() else { return };
        match work.stage {
            // It is about to be switched off.
            Stage::PoweringOff | Stage::SettingBoot => {}
            // It asked for its script, so it runs, whatever its BMC says.
            Stage::PoweringOn | Stage::Waiting | Stage::Booting | Stage::Proving => {
                if work.stage != Stage::Booting {
                    self.enter(Stage::Booting);
                }
                if let Some(work) = self.work() {
                    (work.boot, work.heard, work.ill) = (Some(tamed(boot)), None, None);
                }
                self.note(NoteKind::Step, format!("it boots generation {generation}"));
            }
        }
    }

    /// Watches a boot that nobody asked for, of a generation that is not proven.
    fn follow(&mut self, generation: u32) {
        let (now, watched) = (self.now, self.watched());
        self.state.phase = Phase::Active(Work {
            goal: Goal::Deploy { generation },
            stage: Stage::Waiting,
            began: now,
            began_watched: watched,
            entered: now,
            entered_watched: watched,
            pending: None,
            due: None,
            misses: 0,
            off_until: 0,
            offs: 0,
            boot: None,
            awaited: None,
            heard: None,
            ill: None,
            trouble: None,
            failed: Vec::new(),
        });
    }

    /// The host said something about itself.
    pub(super) fn reported(&mut self, boot: &str, said: &Said) {
        let booted = self.state.seen.boot.as_ref();
        let Some(generation) = booted
            .filter(|known| known.boot == boot)
            .map(|known| known.generation)
        else {
            return;
        };
        self.see(said);
        let counts = self.deploying() == Some(generation)
            && self
                .state
                .work()
                .is_some_and(|work| work.boot.as_deref() == Some(boot));
        if counts {
            self.judge(generation, said);
        } else if let Said::Healthy { tree } = said
            && self.state.work().is_none()
            && self.state.desired == Some(generation)
            && self
                .state
                .boots()
                .is_some_and(|desired| desired.image.tree == *tree)
        {
            self.recovered(generation);
        }
    }

    /// Keeps what the host said.
    fn see(&mut self, said: &Said) {
        let watched = self.watched();
        let wanted = self.state.boots().map(|desired| desired.image.tree);
        let seen = &mut self.state.seen;
        let tree = match said {
            Said::Healthy { tree } => {
                seen.ill = None;
                tree
            }
            Said::Unhealthy { tree, why } => {
                seen.ill = Some(tamed(why));
                tree
            }
            Said::Failed { why } => {
                seen.ill = Some(tamed(why));
                return;
            }
            Said::Overlay { paths, omitted } => {
                seen.overlay_omitted = *omitted;
                seen.overlay = paths.iter().take(PATHS).map(|path| tamed(path)).collect();
                if seen.overlay.is_empty() {
                    seen.overlay_since = None;
                } else {
                    seen.overlay_since.get_or_insert(watched);
                }
                return;
            }
        };
        seen.tree = Some(*tree);
        match wanted {
            Some(wanted) if wanted != *tree => {
                seen.tree_off_since.get_or_insert(watched);
            }
            _ => seen.tree_off_since = None,
        }
    }

    /// The boot that is waited for said something.
    fn judge(&mut self, generation: u32, said: &Said) {
        let watched = self.watched();
        let wanted = self
            .state
            .generation(generation)
            .map(|known| known.image.tree);
        let Some(work) = self.work() else { return };
        let stage = work.stage;
        if !matches!(stage, Stage::Booting | Stage::Proving) {
            return;
        }
        match said {
            Said::Healthy { tree } if Some(*tree) == wanted => {
                (work.heard, work.ill) = (Some(watched), None);
                if stage == Stage::Booting {
                    work.trouble = None;
                    self.advance();
                }
            }
            Said::Healthy { tree } => {
                let wanted = wanted.map_or_else(|| "unknown".to_owned(), |tree| tree.short());
                self.troubled(format!(
                    "it runs tree {}, and generation {generation} is tree {wanted}",
                    tree.short()
                ));
            }
            Said::Unhealthy { why, .. } => {
                work.ill.get_or_insert(watched);
                self.troubled(tamed(why));
            }
            Said::Failed { why } => self.boot_failed(&format!("it gave up: {}", tamed(why))),
            Said::Overlay { .. } => {}
        }
    }

    fn troubled(&mut self, text: String) {
        let Some(work) = self.work() else { return };
        let (news, stage) = (work.trouble.as_ref() != Some(&text), work.stage);
        work.trouble = Some(text.clone());
        if news {
            self.note(NoteKind::Trouble, text);
        }
        if stage == Stage::Proving {
            self.enter(Stage::Booting);
        }
    }

    /// The host no longer reports.
    pub(super) fn silent(&mut self, boot: &str) {
        let proving = self
            .state
            .work()
            .is_some_and(|work| work.stage == Stage::Proving && work.boot.as_deref() == Some(boot));
        if proving {
            self.troubled("it fell silent".to_owned());
        }
    }

    /// The generation is proven, and the work is done.
    pub(super) fn prove(&mut self) {
        let (number, now, watched) = (self.deploying(), self.now, self.watched());
        let Some(work) = self.state.work() else {
            return;
        };
        let took = watched.since(work.began_watched);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let Some(generation) = number.and_then(|number| self.generation_mut(number)) else {
            return self.stop("the generation that was deployed is not on record".to_owned());
        };
        generation.outcome = Judgement::Healthy { at: now, took_ms };
        let text = format!(
            "generation {}, {}, is healthy after {}",
            generation.number,
            generation.image,
            span(took)
        );
        self.state.phase = Phase::Idle;
        self.state.wanted.get_or_insert(Power::On);
        self.note(NoteKind::Healthy, text);
        self.forget();
    }

    /// A host that nobody waits for runs, and is well on, what it is to run.
    fn recovered(&mut self, number: u32) {
        let (now, watched) = (self.now, self.watched());
        let stopped = matches!(self.state.phase, Phase::Stopped { .. });
        let Some(generation) = self.generation_mut(number) else {
            return;
        };
        if !generation.is_proven() {
            let took = watched.since(generation.created_watched);
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            generation.outcome = Judgement::Healthy { at: now, took_ms };
        } else if !stopped {
            return;
        }
        if stopped {
            self.state.phase = Phase::Idle;
        }
        self.note(
            NoteKind::Recovered,
            format!("it is well on generation {number} after all"),
        );
    }

    /// The generation was tried, and is not well: goes back, or stops.
    pub(super) fn boot_failed(&mut self, why: &str) {
        let Some((number, reason)) = self.fail(why) else {
            return;
        };
        let mut failed = self
            .state
            .work()
            .map(|work| work.failed.clone())
            .unwrap_or_default();
        let rolled = u32::try_from(failed.len()).unwrap_or(u32::MAX);
        let allowed = self.policy.max_rollbacks.min(MOST_ROLLBACKS);
        let back = self.state.fallback(&failed, number).cloned();
        if let Reason::Heal { of } = reason {
            self.state.desired = Some(of);
            let text = format!(
                "generation {of} was proven, and did not come up when it was booted to heal drift: {why}"
            );
            return self.stop(text);
        }
        let Some(back) = back else {
            let text = format!(
                "generation {number} failed: {why}; no other generation was ever healthy, so there is nothing to go back to"
            );
            return self.stop(text);
        };
        if rolled >= allowed {
            self.state.desired = Some(back.number);
            let spent = match allowed {
                0 => "its policy allows no roll back by itself".to_owned(),
                _ => format!(
                    "it was rolled back {rolled} times already, as often as its policy allows"
                ),
            };
            let text = format!(
                "generation {number} failed: {why}; {spent}; when it boots, it boots generation {}, {}",
                back.number, back.image
            );
            return self.stop(text);
        }
        failed.push(number);
        let reason = Reason::Rollback { of: back.number };
        let next = self.generate(
            back.image.clone(),
            back.parameters,
            "firstboot",
            reason,
            None,
        );
        self.state.desired = Some(next);
        let text = format!(
            "back to generation {}, {}, as generation {next}",
            back.number, back.image
        );
        self.note(NoteKind::RolledBack, text);
        self.begin(Goal::Deploy { generation: next }, failed);
    }

    /// The generation could not be tried: whenever the host boots, it boots a proven one.
    pub(super) fn untried(&mut self, why: &str) {
        if self.fail(why).is_none() {
            return;
        }
        let failed = self
            .state
            .work()
            .map(|work| work.failed.clone())
            .unwrap_or_default();
        let mut text = why.to_owned();
        // Nothing was learnt about its image, so the same one counts when it was healthy before.
        if let Some(back) = self.state.fallback(&failed, UNTRIED) {
            text = format!(
                "{text}; when it boots, it boots generation {}, {}",
                back.number, back.image
            );
            self.state.desired = Some(back.number);
        }
        self.stop(text);
    }

    /// Its power does not obey, so nothing more can be done for it.
    pub(super) fn power_failed(&mut self, why: &str) {
        let left = match self.state.work().map(|work| (work.stage, work.offs)) {
            Some((Stage::PoweringOff, 0)) => "nothing was sent to it, so it is as it was",
            Some((Stage::PoweringOff, _)) => "power off may have been sent, so it may be off",
            Some((Stage::SettingBoot | Stage::PoweringOn, 1..)) => {
                "it was switched off, and may still be off"
            }
            _ => "it is as it was",
        };
        let why = format!("{why}; {left}");
        match self.deploying() {
            Some(_) => self.untried(&why),
            None => self.stop(why),
        }
    }

    /// Gives the generation that is being deployed up.
    fn fail(&mut self, why: &str) -> Option<(u32, Reason)> {
        let (at, number) = (self.now, self.deploying()?);
        let Some(generation) = self.generation_mut(number) else {
            self.stop(format!("generation {number} is not on record: {why}"));
            return None;
        };
        let why = why.to_owned();
        let text = format!("generation {number}, {}, failed: {why}", generation.image);
        generation.outcome = Judgement::Failed { at, why };
        let reason = generation.reason.clone();
        self.note(NoteKind::Failed, text);
        Some((number, reason))
    }
}
