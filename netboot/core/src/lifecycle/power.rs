//! What operations on a host's power led to.
//!
//! It refuses to send power off twice without having seen that the first one had no effect.
//!
//! Why a crash cannot make it so: between the decision to switch a host off and the packet stands
//! [`super::Event::Sending`], which is on disk before the packet leaves, and counts in `Work::offs`.
//! So after a restart (or an operation that was lost) there are two cases. Nothing was written
//! down: then nothing was sent, nothing of the dead process can send any more, and the operation
//! begins again at once. It was written down: then it may have been sent, however little came back,
//! and only the host is asked for [`super::Policy::settle`] before the one further off that
//! [`OFFS`] allows. What is no longer waited for gets no leave to send, so what was called off or
//! superseded before its packet left is never sent at all.

use super::event::{Outcome, Power};
use super::machine::{Machine, tamed};
use super::plan::shutdown;
use super::state::{Falling, Operation, Stage, Watched};
use super::transition::{NoteKind, PowerIntent};
use crate::lifecycle::plan::span;
use std::time::Duration;

/// How often power off is sent for one goal, at most: the second time only after the host was seen
/// running for [`super::Policy::settle`] after the last moment at which the first can have been sent.
const OFFS: u32 = 2;
/// Time between two reads of a power that is waited for.
const OBSERVE: Duration = Duration::from_secs(5);
/// The longest pause before something that did not work is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

impl Machine<'_> {
    /// Asks for what the stage needs next.
    pub(super) fn issue(&mut self) {
        let milliseconds =
            |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let policy = self.policy;
        let Some(work) = self.work() else { return };
        let intent = match work.stage {
            Stage::PoweringOff if work.offs == 0 => {
                let shutdown_ms = milliseconds(shutdown(&work.goal, policy));
                PowerIntent::EnsureOff { shutdown_ms }
            }
            Stage::PoweringOff => PowerIntent::Observe,
            Stage::SettingBoot => PowerIntent::BootOnce { by: policy.boot },
            Stage::PoweringOn => PowerIntent::EnsureOn,
            Stage::Waiting | Stage::Booting | Stage::Proving => return,
        };
        self.ask(intent);
    }

    /// Power off is about to be sent: from here on it counts as sent.
    pub(super) fn sending(&mut self, operation: Operation) {
        let (watched, ticks) = (self.watched(), self.state.watch.ticks);
        let Some(work) = self.work() else { return };
        if let Some(pending) = &mut work.pending
            && pending.operation == operation
            && matches!(pending.intent, PowerIntent::EnsureOff { .. })
            && pending.sending.is_none()
        {
            pending.sending = Some(watched);
            work.offs = work.offs.saturating_add(1);
            work.off_until = ticks;
            let operation = self.state.falling.is_none().then_some(operation);
            self.state.falling = Some(Falling { operation, ticks });
        }
    }

    /// Lets go of a power off that can take effect no more.
    pub(super) fn fallen(&mut self) {
        let (ticks, settle) = (self.state.watch.ticks, self.policy.settle.as_secs());
        self.state
            .falling
            .take_if(|falling| ticks.saturating_sub(falling.ticks) >= settle);
    }

    /// Takes the end of an operation.
    pub(super) fn power_done(&mut self, operation: Operation, outcome: &Outcome) {
        let ticks = self.state.watch.ticks;
        let came_to_nothing = match outcome {
            Outcome::Done { power } => *power == Power::Off,
            Outcome::NotSent { .. } | Outcome::Refused { .. } | Outcome::WrongHost { .. } => true,
            Outcome::Unknown { .. } => false,
        };
        // It says so of itself, whether it is waited for or not.
        self.state
            .falling
            .take_if(|falling| came_to_nothing && falling.operation == Some(operation));
        let Some(work) = self.work() else { return };
        // Whatever is not waited for any more says nothing about what is.
        let Some(pending) = work
            .pending
            .take_if(|pending| pending.operation == operation)
        else {
            return;
        };
        let sending = pending.sending.is_some();
        if sending {
            work.off_until = ticks;
        }
        if let Outcome::Done { power } = outcome {
            self.power_seen(*power);
        }
        // It was about to be sent, and surely was not, or was refused.
        if let Outcome::NotSent { .. } | Outcome::Refused { .. } | Outcome::WrongHost { .. } =
            outcome
            && sending
            && let Some(work) = self.work()
        {
            work.offs = work.offs.saturating_sub(1);
        }
        match (pending.intent, outcome) {
            (_, Outcome::WrongHost { expected, found }) => self.power_failed(&format!(
                "its BMC belongs to another machine: expected {}, found {}",
                tamed(expected),
                tamed(found)
            )),
            // The firmware's own order may begin with the network: the boot will show.
            (PowerIntent::BootOnce { .. }, Outcome::Refused { why }) => {
                let text = format!("its boot device could not be set: {}", tamed(why));
                self.note(NoteKind::Trouble, text);
                self.advance();
            }
            (_, Outcome::Refused { why }) => {
                self.power_failed(&format!("its BMC refused: {}", tamed(why)));
            }
            (
                PowerIntent::EnsureOff { .. } | PowerIntent::Observe,
                Outcome::Done { power: Power::Off },
            )
            | (PowerIntent::BootOnce { .. }, Outcome::Done { .. }) => self.advance(),
            (PowerIntent::EnsureOn, Outcome::Done { power: Power::On }) => self.is_on(),
            (PowerIntent::Observe, Outcome::Done { power }) => self.still(*power),
            (_, Outcome::NotSent { why } | Outcome::Unknown { why }) => self.missed(why),
            (_, Outcome::Done { power }) => {
                let why = format!(
                    "the BMC took the command, and says that the power is {}",
                    power.label()
                );
                self.missed(&why);
            }
        }
    }

    /// The host is on; it is asked again as long as an off that was superseded may still come.
    fn is_on(&mut self) {
        if self.state.falling.is_none() {
            return self.advance();
        }
        let (watched, settle) = (self.watched(), self.policy.settle);
        let Some(work) = self.work() else { return };
        work.due = Some(watched.after(OBSERVE));
        let text = format!(
            "a power off that was sent before may still take effect: it is watched for {}",
            span(settle)
        );
        let news = work.trouble.as_ref() != Some(&text);
        work.trouble = Some(text.clone());
        if news {
            self.note(NoteKind::Step, text);
        }
    }

    /// The host is not off yet, as the BMC says.
    fn still(&mut self, power: Power) {
        let (watched, ticks, settle) = (self.watched(), self.state.watch.ticks, self.policy.settle);
        let Some(work) = self.work() else { return };
        // Ticks, since a clock that jumps ahead must not make the first one look ineffective.
        let waited = ticks.saturating_sub(work.off_until) >= settle.as_secs();
        if power == Power::On && work.offs < OFFS && waited {
            let text = format!(
                "power off had no effect for {}: the host was seen running, so it is sent once more",
                span(settle)
            );
            self.note(NoteKind::Trouble, text);
            self.ask(PowerIntent::EnsureOff { shutdown_ms: 0 });
            return;
        }
        work.due = Some(watched.after(OBSERVE));
    }

    /// Tries again later what did not work.
    fn missed(&mut self, why: &str) {
        let (watched, why) = (self.watched(), tamed(why));
        let Some(work) = self.work() else { return };
        work.misses = work.misses.saturating_add(1);
        let pause = Duration::from_secs(1 << work.misses.min(5)).min(LONGEST_PAUSE);
        work.due = Some(watched.after(pause));
        let news = work.trouble.as_ref() != Some(&why);
        work.trouble = Some(why.clone());
        // A BMC that is away for minutes is one line of the timeline.
        if news {
            self.note(NoteKind::Trouble, why);
        }
    }

    /// Takes up what the appliance may have been doing when it died.
    pub(super) fn restarted(&mut self) {
        let (watched, ticks) = (self.watched(), self.state.watch.ticks);
        let Some(work) = self.work() else { return };
        match work.pending.as_ref().map(|pending| pending.intent) {
            // One may have been sent, this one or one before: look before anything else.
            Some(PowerIntent::EnsureOff { .. }) if work.offs > 0 => {
                if work.pending.take_if(|off| off.sending.is_some()).is_some() {
                    work.off_until = ticks;
                }
                (work.pending, work.due) = (None, Some(watched));
            }
            Some(_) => self.ask_again(),
            None => {}
        }
    }

    /// Tells whether an operation has been waited for too long.
    pub(super) fn lost(&self) -> Option<Operation> {
        let pending = self.state.work()?.pending.as_ref()?;
        let patience = self
            .policy
            .operation(&pending.intent)
            .saturating_add(Duration::from_secs(15));
        let late = self.watched().since(pending.since) >= patience;
        late.then_some(pending.operation)
    }

    /// Tells whether the next operation is due.
    pub(super) fn due(&self) -> bool {
        let due = |due: Watched| due <= self.watched();
        self.state
            .work()
            .is_some_and(|work| work.pending.is_none() && work.due.is_none_or(due))
    }
}
