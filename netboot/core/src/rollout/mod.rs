//! A deployment over many hosts: a canary, then batches, within caps, until it is done or halts.
//!
//! It refuses to touch a host itself, and to remember what a host's own state tells: [`plan`] reads
//! both and says what to ask of which host. Each request has an id of its own, so that one that was
//! lost in a crash is asked again, and one that was not is answered once.

mod breadth;
mod plan;
mod state;

pub use breadth::{TooWide, breadth, room};
pub use plan::{Action, Fleet, Note, Planned, plan};
pub use state::{
    BadSpec, Command, CommandRefused, Member, Mode, Progress, Rollout, Size, Spec, Target, start,
};
