//! What becomes of one host: deployed, booted, proven, rolled back, healed, or stopped for a person.
//!
//! One pure function, [`step`], takes what happened and returns the host's next state and what is
//! to be done to its power. It refuses to do anything, and it refuses to fail: whatever the state
//! and the event, there is an answer. The shell commits the state *before* it performs an action.
//!
//! Time: deadlines are counted in *watched* time ([`Watch`]), which no jump of the clock can stretch
//! or use up, and which stands still while the appliance does.

mod event;
mod generation;
mod heal;
mod health;
mod limits;
mod machine;
mod orders;
mod plan;
mod policy;
mod power;
mod state;
mod transition;

pub use event::{Deploy, Event, Outcome, Power, PowerOrder, Refusal, Said, When};
pub use generation::{Generation, Image, Judgement, Parameters, Reason};
pub use orders::refusal;
pub use plan::{Step, plan_of};
pub use policy::{BootBy, Control, Policy};
pub use state::{
    Booted, Falling, Goal, HostState, Operation, Pending, Phase, Seen, Stage, Watch, Watched, Work,
};
pub use transition::{Action, Changed, Note, NoteKind, PowerIntent, Transition};

pub(crate) use heal::{Held, held};
pub(crate) use plan::span;

use crate::Timestamp;

/// Says what becomes of a host when something happened.
///
/// The shell commits [`Transition::state`] and only then performs [`Transition::actions`]. Between
/// two events of a host at most [`HostState::tick_within`] may pass; else it sends [`Event::Tick`].
#[must_use]
pub fn step(state: &HostState, policy: &Policy, event: &Event, now: Timestamp) -> Transition {
    machine::Machine::new(state, policy, now).run(event)
}
