//! What a step leads to: the next state, what is to be done, and what to tell people.
//!
//! It refuses actions that touch anything but a host's power.

use serde::{Deserialize, Serialize};

use super::policy::BootBy;
use super::state::{HostState, Operation};

/// What a step leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The host's next state.
    pub state: HostState,
    /// Whether it has to be stored.
    pub changed: Changed,
    /// What is to be done, after the state is stored.
    pub actions: Vec<Action>,
    /// What to tell people, in order; stored with the state.
    pub notes: Vec<Note>,
}

/// Whether a state has to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing changed but the time: keep it in memory.
    Time,
    /// Store it before anything is done or answered.
    State,
}

/// What is to be done to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the host's BMC, and answer with [`super::Event::PowerDone`].
    Power {
        /// Number of the operation.
        operation: Operation,
        /// What to ask for.
        intent: PowerIntent,
    },
}

/// What a BMC is asked for. All but [`PowerIntent::EnsureOff`] do no harm when they are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(
    tag = "intent",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum PowerIntent {
    /// Read the power, and change nothing.
    Observe,
    /// Off, and read back; a host that is off is not touched.
    EnsureOff {
        /// Milliseconds that its system has to shut down before; 0 is at once.
        shutdown_ms: u64,
    },
    /// Set the boot device for the next boot only, and read it back.
    BootOnce {
        /// From where.
        by: BootBy,
    },
    /// On, and read back; a running host is not touched.
    EnsureOn,
}

/// Something that people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// In words.
    pub text: String,
}

/// What a note is about; one word for metrics and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// Work began.
    Began,
    /// Work came to its next step.
    Step,
    /// Something did not work, and is tried again.
    Trouble,
    /// A generation is proven.
    Healthy,
    /// The power is as ordered.
    Powered,
    /// A generation failed.
    Failed,
    /// The host goes back to a proven generation.
    RolledBack,
    /// A person has to look.
    Stopped,
    /// Something else replaced what was under way.
    Superseded,
    /// Somebody called it off.
    Cancelled,
    /// The host is not as wanted.
    Drift,
    /// Drift is being healed.
    Healing,
    /// A request or a report was not taken.
    Refused,
    /// A host that was stopped reported itself well after all.
    Recovered,
}

impl NoteKind {
    /// Returns the word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Step => "step",
            Self::Trouble => "trouble",
            Self::Healthy => "healthy",
            Self::Powered => "powered",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Stopped => "stopped",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
            Self::Drift => "drift",
            Self::Healing => "healing",
            Self::Refused => "refused",
            Self::Recovered => "recovered",
        }
    }
}
