//! One step: takes the event, lets time do its part, and says what has to be stored and done.
//!
//! It refuses to look at a clock or to fail.

use super::event::{Event, Power};
use super::generation::{Generation, Image, Judgement, Parameters, Reason};
use super::plan::{self, Step};
use super::policy::Policy;
use super::state::{Goal, HostState, Operation, Pending, Phase, Stage, Watch, Watched, Work};
use super::transition::{Action, Changed, Note, NoteKind, PowerIntent, Transition};
use crate::Timestamp;
use crate::boot::printable;

/// Generations that are kept of a host, besides those that it may have to go back to.
const GENERATIONS: usize = 32;
/// Ids of requests that are kept of a generation.
const INTENTS: usize = 16;
/// Longest text that is kept, in characters.
const TEXT: usize = 500;

/// Returns a text that came from outside as it may be kept and shown.
pub(super) fn tamed(text: &str) -> String {
    printable(text).chars().take(TEXT).collect()
}

/// A host in the midst of a step.
pub(super) struct Machine<'a> {
    before: &'a HostState,
    pub(super) state: HostState,
    pub(super) policy: &'a Policy,
    pub(super) now: Timestamp,
    actions: Vec<Action>,
    notes: Vec<Note>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(before: &'a HostState, policy: &'a Policy, now: Timestamp) -> Self {
        Self {
            before,
            state: before.clone(),
            policy,
            now,
            actions: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn run(mut self, event: &Event) -> Transition {
        self.pass(event);
        self.fallen();
        match event {
            Event::Deploy(deploy) => self.deploy(deploy),
            Event::Rollback { intent, by } => self.rollback(intent, by),
            Event::Power { order, by } => self.order(*order, by),
            Event::Adopt {
                image,
                parameters,
                by,
            } => self.adopt(image, parameters, by),
            Event::Sending { operation } => self.sending(*operation),
            Event::PowerDone { operation, outcome } => self.power_done(*operation, outcome),
            Event::PowerSeen { power } => self.power_seen(*power),
            Event::BootBegan { boot, generation } => self.boot_began(boot, *generation),
            Event::Reported { boot, said } => self.reported(boot, said),
            Event::Silent { boot } => self.silent(boot),
            Event::Restarted => self.restarted(),
            Event::Left => self.left(),
            Event::Cancel { by } => self.cancel(by),
            Event::PolicyChanged | Event::Tick => {}
        }
        // What was just heard counts before a deadline does.
        self.limits();
        self.heal();
        self.finish()
    }

    /// Lets the watched time pass.
    fn pass(&mut self, event: &Event) {
        match event {
            Event::Tick => self.state.watch.tick(self.now),
            _ => self.state.watch.pass(self.now),
        }
    }

    fn finish(mut self) -> Transition {
        let watch = self.state.watch;
        self.state.watch = self.before.watch;
        let same = self.state == *self.before;
        self.state.watch = watch;
        let behind = watch.total.since(watch.stored);
        let counts = match self.state.phase {
            Phase::Active(_) => behind >= Watch::UNSTORED,
            // The site's limit for an hour goes by it.
            Phase::Idle | Phase::Stopped { .. } => {
                behind >= Watch::UNSTORED_IDLE && self.state.began_within(Watch::HOUR)
            }
        };
        let changed = if same && !counts && self.notes.is_empty() && self.actions.is_empty() {
            Changed::Time
        } else {
            self.state.watch.stored = watch.total;
            Changed::State
        };
        Transition {
            state: self.state,
            changed,
            actions: self.actions,
            notes: self.notes,
        }
    }

    /// The watched time.
    pub(super) fn watched(&self) -> Watched {
        self.state.watch.total
    }

    /// The watched time before this step.
    pub(super) fn before_total(&self) -> Watched {
        self.before.watch.total
    }

    pub(super) fn note(&mut self, kind: NoteKind, text: impl Into<String>) {
        let text = text.into();
        self.notes.push(Note { kind, text });
    }

    /// The work under way, to be changed.
    pub(super) fn work(&mut self) -> Option<&mut Work> {
        match &mut self.state.phase {
            Phase::Active(work) => Some(work),
            Phase::Idle | Phase::Stopped { .. } => None,
        }
    }

    /// The number of the generation that is being deployed.
    pub(super) fn deploying(&self) -> Option<u32> {
        match self.state.work()?.goal {
            Goal::Deploy { generation } => Some(generation),
            Goal::Power { .. } => None,
        }
    }

    pub(super) fn generation_mut(&mut self, number: u32) -> Option<&mut Generation> {
        let mut newest_first = self.state.generations.iter_mut().rev();
        newest_first.find(|generation| generation.number == number)
    }

    /// Makes the next generation, and returns its number.
    pub(super) fn generate(
        &mut self,
        image: Image,
        parameters: Parameters,
        by: &str,
        reason: Reason,
        intent: Option<&str>,
    ) -> u32 {
        let kept = self.state.generations.iter().map(|known| known.number);
        let newest = kept.max().unwrap_or(0).max(self.state.newest);
        let number = newest.saturating_add(1);
        self.state.newest = number;
        self.state.generations.push(Generation {
            number,
            image,
            parameters,
            created: self.now,
            created_watched: self.state.watch.total,
            by: tamed(by),
            reason,
            intents: intent.map(str::to_owned).into_iter().collect(),
            outcome: Judgement::Pending,
        });
        number
    }

    /// Lets a generation answer one more request.
    pub(super) fn answer(&mut self, number: u32, intent: &str) {
        if let Some(generation) = self.generation_mut(number) {
            if generation.intents.len() >= INTENTS {
                generation.intents.remove(0);
            }
            generation.intents.push(intent.to_owned());
        }
    }

    /// Drops the oldest generations that nobody needs any more.
    pub(super) fn forget(&mut self) {
        let mut excess = self.state.generations.len().saturating_sub(GENERATIONS);
        if excess == 0 {
            return;
        }
        let mut needed: Vec<u32> = self.state.desired.into_iter().collect();
        needed.extend(self.state.seen.boot.as_ref().map(|boot| boot.generation));
        if let Some(work) = self.state.work() {
            needed.extend(&work.failed);
        }
        needed.extend(self.deploying());
        // The newest proven one of each of the last images.
        let mut images: Vec<&Generation> = Vec::new();
        for known in self.state.generations.iter().rev() {
            let known_image = images
                .iter()
                .any(|other| other.same_as(&known.image, &known.parameters));
            if known.is_proven() && !known_image && images.len() < GENERATIONS / 2 {
                images.push(known);
            }
        }
        needed.extend(images.iter().map(|known| known.number));
        self.state.generations.retain(|known| {
            if excess == 0 || needed.contains(&known.number) {
                return true;
            }
            excess -= 1;
            false
        });
    }

    /// Begins with something new; what was under way has been dealt with.
    ///
    /// A power-off that is under way already is taken over, since it may have been sent.
    pub(super) fn begin(&mut self, goal: Goal, failed: Vec<u32>) {
        let mut work = Work {
            goal,
            stage: Stage::PoweringOff,
            began: self.now,
            began_watched: self.watched(),
            entered: self.now,
            entered_watched: self.watched(),
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
            failed,
        };
        let first = plan::first(&work.goal, self.policy, &self.state.seen);
        let old = std::mem::take(&mut self.state.phase);
        if let Phase::Active(old) = old
            && old.stage == Stage::PoweringOff
            && first == Stage::PoweringOff
        {
            (work.pending, work.due) = (old.pending, old.due);
            (work.off_until, work.offs) = (old.off_until, old.offs);
            self.state.phase = Phase::Active(work);
            return;
        }
        work.stage = first;
        self.state.phase = Phase::Active(work);
        self.enter(first);
    }

    /// Comes to a stage.
    pub(super) fn enter(&mut self, stage: Stage) {
        let (now, watched) = (self.now, self.watched());
        let Some(work) = self.work() else { return };
        work.stage = stage;
        (work.entered, work.entered_watched) = (now, watched);
        (work.pending, work.due, work.misses) = (None, None, 0);
        match stage {
            Stage::PoweringOff => (work.off_until, work.offs) = (0, 0),
            Stage::PoweringOn | Stage::Waiting => (work.boot, work.ill) = (None, None),
            Stage::Booting => {
                work.awaited.get_or_insert(watched);
            }
            Stage::SettingBoot | Stage::Proving => {}
        }
        let goal = work.goal.clone();
        let text = Step::of(stage, &goal, self.policy).to_string();
        self.note(NoteKind::Step, text);
        self.issue();
    }

    /// Goes on to the next stage, or ends the work.
    pub(super) fn advance(&mut self) {
        let Some(work) = self.state.work() else {
            return;
        };
        match plan::after(work.stage, &work.goal, self.policy) {
            Some(next) => self.enter(next),
            None => self.reached(),
        }
    }

    fn reached(&mut self) {
        let Some(work) = self.state.work() else {
            return;
        };
        match work.goal.clone() {
            Goal::Deploy { .. } => self.prove(),
            Goal::Power { order, .. } => {
                self.state.phase = Phase::Idle;
                self.note(NoteKind::Powered, format!("{}: done", order.label()));
            }
        }
    }

    /// Asks for an operation on the power.
    pub(super) fn ask(&mut self, intent: PowerIntent) {
        self.state.operation = self.state.operation.saturating_add(1);
        let operation = Operation(self.state.operation);
        let since = self.watched();
        if let Some(work) = self.work() {
            work.due = None;
            work.pending = Some(Pending {
                operation,
                intent,
                since,
                sending: None,
            });
            self.actions.push(Action::Power { operation, intent });
        }
    }

    /// Asks for an operation again that may not have been performed.
    pub(super) fn ask_again(&mut self) {
        let Some(work) = self.state.work() else {
            return;
        };
        if let Some(pending) = &work.pending {
            let (operation, intent) = (pending.operation, pending.intent);
            self.actions.push(Action::Power { operation, intent });
        }
    }

    /// Ends all work until a person looks.
    pub(super) fn stop(&mut self, why: String) {
        self.note(NoteKind::Stopped, why.clone());
        let at = self.now;
        self.state.phase = Phase::Stopped { at, why };
    }

    /// Notes what the power is.
    pub(super) fn power_seen(&mut self, power: Power) {
        self.state.seen.power = Some(power);
        let wanted = self.state.wanted;
        let differs = match (wanted, power) {
            (Some(wanted), Power::On | Power::Off) => wanted != power,
            _ => false,
        };
        let since = self.watched();
        let mark = &mut self.state.seen.power_off_since;
        match (differs, power) {
            (true, _) => {
                mark.get_or_insert(since);
            }
            // Not to know it proves nothing.
            (false, Power::Unknown | Power::Changing) => {}
            (false, _) => *mark = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_manifest::Digest;

    fn image(number: u32) -> Image {
        let digest = Digest::of(&number.to_be_bytes());
        Image {
            name: "web".to_owned(),
            manifest: digest,
            tree: digest,
        }
    }

    #[test]
    fn what_a_host_may_go_back_to_is_not_forgotten() {
        let (state, policy) = (HostState::default(), Policy::default());
        let mut machine = Machine::new(&state, &policy, Timestamp(1));
        let at = Timestamp(1);
        for number in 1..=100 {
            let made =
                machine.generate(image(number), Parameters::new(), "a", Reason::Deploy, None);
            if number == 2 || number == 3 {
                let healthy = Judgement::Healthy { at, took_ms: 1 };
                machine.generation_mut(made).unwrap().outcome = healthy;
            }
            machine.state.desired = Some(made);
            machine.forget();
        }
        let kept = &machine.state.generations;
        assert_eq!(kept.len(), GENERATIONS);
        assert_eq!(kept[0].number, 2);
        assert_eq!(kept[1].number, 3);
        assert_eq!(machine.state.fallback(&[], 100).unwrap().number, 3);
        assert_eq!(machine.state.fallback(&[3], 100).unwrap().number, 2);
    }
}
