//! A deployment over many hosts: a canary, then batches, within caps, until it is done or halts.
//!
//! It refuses to touch a host itself, and to remember what a host's own state tells: [`plan`] reads
//! both and says what to ask of which host. Each request has an id of its own, so that one that was
//! lost in a crash is asked again, and one that was not is answered once.

mod ask;
mod breadth;
mod command;
mod meddle;
mod plan;
mod state;

pub use ask::{Action, Fleet, Note, Planned};
pub use breadth::{TooWide, breadth, room};
pub use command::{Command, CommandRefused};
pub use plan::plan;
pub use state::{BadSpec, Member, Mode, Progress, Rollout, Size, Spec, Target, start};
