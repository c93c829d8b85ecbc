//! What people and rollouts ask for.
//!
//! It refuses what has no sense now, with a reason; the same request again changes nothing.

use super::event::{Deploy, Event, Power, PowerOrder, Refusal, When};
use super::generation::{Generation, Image, Judgement, Parameters, Reason};
use super::health::UNTRIED;
use super::machine::{Machine, tamed};
use super::policy::{Control, Policy};
use super::state::{Goal, HostState, Phase, Stage};
use super::transition::NoteKind;

/// Returns why a request would not be taken; none when it would.
#[must_use]
pub fn refusal(state: &HostState, policy: &Policy, request: &Event) -> Option<Refusal> {
    match request {
        Event::Rollback { intent, .. } if state.answers(intent).is_none() => state
            .proven_before()
            .is_none()
            .then_some(Refusal::NothingProven),
        Event::Power { .. } if policy.control == Control::Hands => Some(Refusal::NoBmc),
        Event::Power { .. } => match state.work()?.goal {
            Goal::Deploy { .. } => Some(Refusal::Busy),
            Goal::Power { .. } => None,
        },
        Event::Adopt { .. } => (!state.generations.is_empty()).then_some(Refusal::Adopted),
        Event::Cancel { .. } => (state.phase == Phase::Idle).then_some(Refusal::NothingToCancel),
        _ => None,
    }
}

impl HostState {
    /// Returns the generation that answers a request, if one does.
    #[must_use]
    pub fn answers(&self, intent: &str) -> Option<&Generation> {
        let mut newest_first = self.generations.iter().rev();
        newest_first.find(|known| known.intents.iter().any(|id| id == intent))
    }

    /// Tells whether the host was proven on something and runs it, with nothing else under way.
    #[must_use]
    pub fn runs(&self, image: &Image, parameters: &Parameters) -> bool {
        let desired = self.boots();
        let proven =
            desired.is_some_and(|known| known.is_proven() && known.same_as(image, parameters));
        let drifted = self.seen.tree.is_some_and(|tree| tree != image.tree);
        let off = self.seen.power == Some(Power::Off);
        self.phase == Phase::Idle && proven && !drifted && !off
    }

    /// Returns what a roll back goes to: the newest other generation that was healthy.
    #[must_use]
    pub fn proven_before(&self) -> Option<&Generation> {
        let current = match &self.phase {
            Phase::Active(work) => match work.goal {
                Goal::Deploy { generation } => Some(generation),
                Goal::Power { .. } => self.desired,
            },
            Phase::Idle => self.desired,
            // What was tried last; it may boot something proven by now.
            Phase::Stopped { .. } => self.generations.last().map(|known| known.number),
        };
        self.fallback(&[], current?)
    }
}

impl Machine<'_> {
    fn refused(&mut self, request: &Event) -> bool {
        let refusal = refusal(&self.state, self.policy, request);
        if let Some(refusal) = refusal {
            self.note(NoteKind::Refused, refusal.to_string());
        }
        refusal.is_some()
    }

    pub(super) fn deploy(&mut self, deploy: &Deploy) {
        if self.state.answers(&deploy.intent).is_some() {
            return;
        }
        if deploy.when == When::Needed {
            let same = |known: &&Generation| known.same_as(&deploy.image, &deploy.parameters);
            let under_way = self
                .deploying()
                .and_then(|number| self.state.generation(number));
            let under_way = under_way.filter(same).map(|known| known.number);
            let runs = self.state.runs(&deploy.image, &deploy.parameters);
            if let Some(number) = under_way.or(self.state.desired.filter(|_| runs)) {
                self.answer(number, &deploy.intent);
                return;
            }
        }
        let (image, parameters) = (deploy.image.clone(), deploy.parameters.clone());
        self.supersede();
        let intent = Some(deploy.intent.as_str());
        let number = self.generate(image, parameters, &deploy.by, Reason::Deploy, intent);
        let text = format!(
            "{} deploys {} as generation {number}",
            deploy.by, deploy.image
        );
        self.undertake(number, text);
    }

    pub(super) fn rollback(&mut self, intent: &str, by: &str) {
        if self.state.answers(intent).is_some() {
            return;
        }
        let (id, who) = (intent.to_owned(), by.to_owned());
        if self.refused(&Event::Rollback {
            intent: id,
            by: who,
        }) {
            return;
        }
        let Some(back) = self.state.proven_before().cloned() else {
            return;
        };
        self.supersede();
        let reason = Reason::Rollback { of: back.number };
        let text_image = back.image.to_string();
        let number = self.generate(back.image, back.parameters, by, reason, Some(intent));
        let text = format!(
            "{by} rolls back to generation {}, {text_image}, as generation {number}",
            back.number
        );
        self.undertake(number, text);
    }

    /// Deploys a generation that was just made because somebody asked for it.
    fn undertake(&mut self, number: u32, text: String) {
        self.state.desired = Some(number);
        self.state.wanted = Some(Power::On);
        self.state.seen.power_off_since = None;
        self.state.heals.clear();
        self.note(NoteKind::Began, text);
        self.begin(Goal::Deploy { generation: number }, Vec::new());
        self.forget();
    }

    /// Makes room for a new goal; its begin takes over a power-off that is under way.
    fn supersede(&mut self) {
        let (at, Some(number)) = (self.now, self.deploying()) else {
            return;
        };
        if let Some(generation) = self.generation_mut(number)
            && generation.outcome == Judgement::Pending
        {
            generation.outcome = Judgement::Superseded { at };
            self.note(
                NoteKind::Superseded,
                format!("generation {number} is no longer waited for"),
            );
        }
    }

    pub(super) fn order(&mut self, order: PowerOrder, by: &str) {
        let by = by.to_owned();
        let request = Event::Power {
            order,
            by: by.clone(),
        };
        if self.refused(&request) {
            return;
        }
        self.state.wanted = Some(match order {
            PowerOrder::Off | PowerOrder::ForceOff => Power::Off,
            PowerOrder::On | PowerOrder::Cycle | PowerOrder::ForceCycle => Power::On,
        });
        self.state.seen.power_off_since = None;
        self.state.heals.clear();
        self.note(NoteKind::Began, format!("{by} orders: {}", order.label()));
        self.begin(Goal::Power { order, by }, Vec::new());
    }

    pub(super) fn adopt(&mut self, image: &Image, parameters: &Parameters, by: &str) {
        if !self.state.generations.is_empty() {
            return;
        }
        let (image, parameters) = (image.clone(), parameters.clone());
        let text = format!("{by} adopts it with {image} as its first generation");
        let number = self.generate(image, parameters, by, Reason::Adopted, None);
        self.state.desired = Some(number);
        self.note(NoteKind::Began, text);
    }

    pub(super) fn cancel(&mut self, by: &str) {
        let request = Event::Cancel { by: by.to_owned() };
        if self.refused(&request) {
            return;
        }
        self.state.heals.clear();
        let Some(stage) = self.state.work().map(|work| work.stage) else {
            self.state.phase = Phase::Idle;
            let text = format!("{by} takes note: it is no longer stopped");
            return self.note(NoteKind::Cancelled, text);
        };
        self.call_off(
            format!("{by} called it off while it was {}", stage.label()),
            by,
        );
    }

    /// It left the site: whatever is under way is not taken up when it returns.
    pub(super) fn left(&mut self) {
        if let Some(stage) = self.state.work().map(|work| work.stage) {
            let text = format!("it left the site while it was {}", stage.label());
            self.call_off(text, "firstboot");
        }
    }

    /// Ends what is under way where it stands; `text` says why.
    fn call_off(&mut self, mut text: String, by: &str) {
        let at = self.now;
        let Some(work) = self.state.work().cloned() else {
            return;
        };
        let untouched =
            work.stage == Stage::Waiting || (work.stage == Stage::PoweringOff && work.offs == 0);
        if let Goal::Deploy { generation: number } = work.goal {
            if let Some(generation) = self.generation_mut(number) {
                let by = tamed(by);
                generation.outcome = Judgement::Cancelled { at, by };
            }
            if let Some(back) = self.state.fallback(&work.failed, UNTRIED) {
                text = format!(
                    "{text}; when it boots, it boots generation {}, {}",
                    back.number, back.image
                );
                self.state.desired = Some(back.number);
            }
        }
        self.note(NoteKind::Cancelled, text.clone());
        if untouched {
            self.state.phase = Phase::Idle;
        } else {
            self.stop(format!("{text}; it was left as it is, and may be off"));
        }
    }
}
