//! The timeline of one boot: what happened, which stages it made, and what that means.
//!
//! It refuses to store and to count time: the shell keeps the events and says what time it is.

mod event;
mod progress;
mod stages;
#[cfg(test)]
mod tests;
mod verdict;

pub use event::{Answer, Asked, Event, File, Protocol, Transfer, What, printable};
pub use progress::{Progress, Step, begins};
pub use stages::{StageSummary, bytes, stages};
pub(crate) use verdict::unwell;
pub use verdict::{Expectation, State, Verdict, verdict};
