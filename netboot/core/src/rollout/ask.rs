//! What a rollout is told of hosts, and what it asks of them.
//!
//! It refuses to know more of a host than its state.

use super::state::Rollout;
use crate::lifecycle::{Deploy, Event, HostState, Image, Parameters, When};

/// All hosts as they stand.
pub struct Fleet<'a> {
    /// The state of each; none when the site has no such host any more.
    pub host: &'a dyn Fn(&str) -> Option<&'a HostState>,
    /// How many further hosts may be begun now; see [`super::room`].
    pub room: u32,
}

impl std::fmt::Debug for Fleet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

/// What a rollout asks of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Deploy.
    Deploy {
        /// Name of the host.
        host: String,
        /// Id of the request.
        intent: String,
        /// What to deploy.
        image: Image,
        /// What the host is told besides.
        parameters: Parameters,
    },
    /// Roll back.
    Rollback {
        /// Name of the host.
        host: String,
        /// Id of the request.
        intent: String,
    },
}

impl Action {
    /// Returns the host, and what to tell its lifecycle.
    #[must_use]
    pub fn event(&self, by: &str) -> (&str, Event) {
        let by = by.to_owned();
        match self {
            Self::Deploy {
                host,
                intent,
                image,
                parameters,
            } => {
                let deploy = Deploy {
                    intent: intent.clone(),
                    image: image.clone(),
                    parameters: parameters.clone(),
                    by,
                    when: When::Needed,
                };
                (host, Event::Deploy(deploy))
            }
            Self::Rollback { host, intent } => {
                let intent = intent.clone();
                (host, Event::Rollback { intent, by })
            }
        }
    }
}

/// Something that people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The host that it is about; none when it is about the whole rollout.
    pub host: Option<String>,
    /// In words.
    pub text: String,
}

/// What a rollout does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its next state; store it together with what the actions make of the hosts, or before.
    pub rollout: Rollout,
    /// Whether that differs in more than the time that was watched.
    pub changed: bool,
    /// What to ask, in order.
    pub actions: Vec<Action>,
    /// What to tell people.
    pub notes: Vec<Note>,
}
