//! What a rollout asks next, given what became of its hosts.
//!
//! It refuses to begin a host beyond a cap, after a halt, or that somebody else has changed meanwhile.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::ask::{Action, Fleet, Note, Planned};
use super::meddle::{meddled, skipped, works_on};
use super::state::{Member, Mode, Progress, Rollout};
use crate::Timestamp;
use crate::lifecycle::Judgement;

/// Says what a rollout does next.
///
/// The shell asks whenever one of its hosts changed, after a command, after a start, and now and
/// then. Asking twice asks for nothing twice: what was asked is found in the hosts' states.
#[must_use]
pub fn plan(rollout: &Rollout, fleet: &Fleet<'_>, now: Timestamp) -> Planned {
    let mut planner = Planner {
        rollout: rollout.clone(),
        fleet,
        room: fleet.room,
        actions: Vec::new(),
        notes: Vec::new(),
    };
    planner.rollout.watch.pass(now);
    planner.refresh();
    planner.halt();
    match planner.rollout.mode {
        Mode::Running => planner.deploy(),
        Mode::Undoing { .. } => planner.undo(),
        Mode::Paused { .. } | Mode::Halted { .. } | Mode::Done | Mode::Undone => {}
    }
    let watch = planner.rollout.watch;
    planner.rollout.watch = rollout.watch;
    let changed = planner.rollout != *rollout;
    planner.rollout.watch = watch;
    Planned {
        rollout: planner.rollout,
        changed,
        actions: planner.actions,
        notes: planner.notes,
    }
}

struct Planner<'a, 'f> {
    rollout: Rollout,
    fleet: &'a Fleet<'f>,
    room: u32,
    actions: Vec<Action>,
    notes: Vec<Note>,
}

impl Planner<'_, '_> {
    fn note(&mut self, host: Option<&str>, text: impl Into<String>) {
        let (host, text) = (host.map(str::to_owned), text.into());
        self.notes.push(Note { host, text });
    }

    fn set(&mut self, index: usize, progress: Progress) {
        let member = &mut self.rollout.members[index];
        let text = match &progress {
            Progress::Failed { why } | Progress::Skipped { why } | Progress::NotUndone { why } => {
                format!("{}: {why}", progress.label())
            }
            _ => progress.label().to_owned(),
        };
        let host = member.host.clone();
        member.progress = progress;
        self.note(Some(&host), text);
    }

    /// Takes from the hosts' states what became of them.
    fn refresh(&mut self) {
        for index in 0..self.rollout.members.len() {
            let member = &self.rollout.members[index];
            let seen = match member.progress {
                Progress::Deploying => self.deployed(member),
                Progress::Undoing => self.undone(member),
                _ => None,
            };
            if let Some(progress) = seen {
                self.set(index, progress);
            }
        }
    }

    /// What became of a host that was asked to deploy; none while that is open.
    fn deployed(&self, member: &Member) -> Option<Progress> {
        let Some(state) = (self.fleet.host)(&member.host) else {
            return Some(skipped("it is no longer a host of the site"));
        };
        let Some(generation) = state.answers(&self.rollout.intent(&member.host)) else {
            // The request was lost in a crash.
            return Some(Progress::Waiting);
        };
        match &generation.outcome {
            Judgement::Healthy { .. } => Some(Progress::Healthy),
            Judgement::Failed { why, .. } => Some(Progress::Failed { why: why.clone() }),
            Judgement::Superseded { .. } => {
                Some(skipped("somebody else deployed something meanwhile"))
            }
            Judgement::Cancelled { by, .. } => Some(skipped(&format!("{by} called it off"))),
            Judgement::Pending if works_on(state, generation.number) => None,
            Judgement::Pending => {
                let why = "its deployment is no longer under way".to_owned();
                Some(Progress::Failed { why })
            }
        }
    }

    fn undone(&self, member: &Member) -> Option<Progress> {
        let Some(state) = (self.fleet.host)(&member.host) else {
            return Some(skipped("it is no longer a host of the site"));
        };
        let Some(generation) = state.answers(&self.rollout.undo_intent(&member.host)) else {
            // Lost in a crash, as above; it is asked for again, since it counts as touched.
            return Some(Progress::Healthy);
        };
        match &generation.outcome {
            Judgement::Healthy { .. } => Some(Progress::Undone),
            Judgement::Failed { why, .. } => Some(Progress::NotUndone { why: why.clone() }),
            Judgement::Superseded { .. } => {
                Some(skipped("somebody else deployed something meanwhile"))
            }
            Judgement::Cancelled { by, .. } => Some(skipped(&format!("{by} called it off"))),
            Judgement::Pending if works_on(state, generation.number) => None,
            Judgement::Pending => {
                let why = "its roll back is no longer under way".to_owned();
                Some(Progress::NotUndone { why })
            }
        }
    }

    /// Halts when too much failed.
    fn halt(&mut self) {
        let undoing = match self.rollout.mode {
            Mode::Running | Mode::Paused { .. } => false,
            Mode::Undoing { .. } => true,
            Mode::Halted { .. } | Mode::Done | Mode::Undone => return,
        };
        let canary = self.rollout.spec.canary > 0;
        let mut failed = Vec::new();
        let mut canary_failed = None;
        for member in &self.rollout.members {
            let counts = match member.progress {
                Progress::Failed { .. } => !undoing,
                Progress::NotUndone { .. } => undoing,
                _ => false,
            };
            if counts {
                failed.push(member.host.as_str());
                if canary && member.batch == 0 && !undoing {
                    canary_failed = Some(member.host.as_str());
                }
            }
        }
        let limit = usize::try_from(self.rollout.spec.max_failures).unwrap_or(usize::MAX);
        let why = if failed.len() >= limit {
            format!(
                "{} of at most {limit} failures: {}",
                failed.len(),
                failed.join(", ")
            )
        } else if let Some(host) = canary_failed {
            format!("the canary {host} failed")
        } else {
            return;
        };
        self.note(None, format!("halted: {why}"));
        self.rollout.mode = Mode::Halted { why };
    }

    /// How many hosts are under way, and in which racks.
    fn active(&self) -> (u32, HashMap<String, u32>) {
        let mut racks = HashMap::new();
        let mut count = 0;
        for member in &self.rollout.members {
            let active = member.progress.is_active() || self.rolls_back(member);
            if active && !self.waits_for_hands(member) {
                count += 1;
                if let Some(rack) = &member.rack {
                    *racks.entry(rack.clone()).or_default() += 1;
                }
            }
        }
        (count, racks)
    }

    /// Tells whether a host that failed is still being brought back by its lifecycle.
    fn rolls_back(&self, member: &Member) -> bool {
        let Progress::Failed { .. } = member.progress else {
            return false;
        };
        let state = (self.fleet.host)(&member.host);
        state.is_some_and(|state| {
            let ours = state.answers(&self.rollout.intent(&member.host));
            let work = state.work();
            ours.zip(work)
                .is_some_and(|(ours, work)| work.failed.contains(&ours.number))
        })
    }

    /// Tells whether a host waits for somebody to start it by hand.
    fn waits_for_hands(&self, member: &Member) -> bool {
        let state = (self.fleet.host)(&member.host);
        state.is_some_and(|state| self.rollout.waits_for_hands(member, state))
    }

    /// Asks for hosts as far as caps allow: `ask` says what to do with one.
    fn fill(&mut self, mut ask: impl FnMut(&mut Self, usize) -> Option<Action>) {
        let (mut active, mut racks) = self.active();
        for index in 0..self.rollout.members.len() {
            if active >= self.rollout.spec.at_once || self.room == 0 {
                return;
            }
            let rack = self.rollout.members[index].rack.clone();
            let in_rack = rack
                .as_ref()
                .and_then(|rack| racks.get(rack))
                .copied()
                .unwrap_or(0);
            if rack.is_some()
                && self
                    .rollout
                    .spec
                    .at_once_per_rack
                    .is_some_and(|cap| in_rack >= cap)
            {
                continue;
            }
            let Some(action) = ask(self, index) else {
                continue;
            };
            self.actions.push(action);
            active += 1;
            self.room -= 1;
            if let Some(rack) = rack {
                *racks.entry(rack).or_default() += 1;
            }
        }
    }

    fn deploy(&mut self) {
        self.next_batch();
        let batch = self.rollout.batch;
        let soaking = self.rollout.settled.is_some_and(|settled| {
            let soak = Duration::from_millis(self.rollout.spec.soak_ms);
            self.rollout.watch.total.since(settled) < soak
        });
        if !soaking {
            self.fill(|planner, index| planner.ask_deploy(index, batch));
        }
        if self
            .rollout
            .members
            .iter()
            .all(|member| member.progress.is_settled())
        {
            self.rollout.mode = Mode::Done;
            self.note(None, "done");
        }
    }

    /// Comes to the next batch when all before it have ended. Who waits for hands holds up none, as
    /// that may take a day and says nothing of the image: once another host of its batch is healthy.
    /// A batch of which nothing was proven is waited for, and so is a canary, whatever it waits for.
    fn next_batch(&mut self) {
        let members = &self.rollout.members;
        let canary = |member: &Member| member.batch == 0 && self.rollout.spec.canary > 0;
        let healthy: HashSet<u32> = members
            .iter()
            .filter(|member| member.progress == Progress::Healthy)
            .map(|member| member.batch)
            .collect();
        let open = members.iter().filter(|member| {
            let proven = healthy.contains(&member.batch) && !canary(member);
            !member.progress.is_settled() && (!proven || !self.waits_for_hands(member))
        });
        let Some(open) = open.map(|member| member.batch).min() else {
            return;
        };
        if open > self.rollout.batch {
            self.rollout.batch = open;
            self.rollout.settled = Some(self.rollout.watch.total);
        }
    }

    fn ask_deploy(&mut self, index: usize, batch: u32) -> Option<Action> {
        let member = &self.rollout.members[index];
        if member.batch > batch || member.progress != Progress::Waiting {
            return None;
        }
        let Some(state) = (self.fleet.host)(&member.host) else {
            self.set(index, skipped("it is no longer a host of the site"));
            return None;
        };
        let intent = self.rollout.intent(&member.host);
        if state.runs(&self.rollout.spec.image, &member.parameters) {
            self.set(index, skipped("it runs this already"));
            return None;
        }
        if let Some(why) = meddled(state, member, &intent) {
            self.set(index, skipped(&why));
            return None;
        }
        // Somebody's work on it ends, and then it is its turn.
        if state.work().is_some() {
            return None;
        }
        let action = Action::Deploy {
            host: member.host.clone(),
            intent,
            image: self.rollout.spec.image.clone(),
            parameters: member.parameters.clone(),
        };
        self.set(index, Progress::Deploying);
        Some(action)
    }

    fn undo(&mut self) {
        self.fill(Self::ask_undo);
        if !self
            .rollout
            .members
            .iter()
            .any(|member| member.progress.is_active())
            && !self
                .rollout
                .members
                .iter()
                .any(|member| member.progress == Progress::Healthy)
        {
            self.rollout.mode = Mode::Undone;
            self.note(None, "undone");
        }
    }

    fn ask_undo(&mut self, index: usize) -> Option<Action> {
        let member = &self.rollout.members[index];
        // What failed has rolled itself back, or waits for a person.
        if !matches!(member.progress, Progress::Healthy | Progress::Deploying) {
            return None;
        }
        let Some(state) = (self.fleet.host)(&member.host) else {
            self.set(index, skipped("it is no longer a host of the site"));
            return None;
        };
        let ours = state.answers(&self.rollout.intent(&member.host));
        let current = state.boots();
        let (Some(ours), Some(current)) = (ours, current) else {
            self.set(index, skipped("it was changed by somebody else meanwhile"));
            return None;
        };
        if !current.same_as(&ours.image, &ours.parameters) {
            self.set(index, skipped("it boots something else meanwhile"));
            return None;
        }
        if state.proven_before().is_none() {
            let why = "no other generation of it was ever healthy".to_owned();
            self.set(index, Progress::NotUndone { why });
            return None;
        }
        let action = Action::Rollback {
            host: member.host.clone(),
            intent: self.rollout.undo_intent(&member.host),
        };
        self.set(index, Progress::Undoing);
        Some(action)
    }
}
