//! What can happen to a host.
//!
//! It refuses what has no meaning for the lifecycle: packets and transfers stay in the timeline.

use image_manifest::{Digest, Stage};
use serde::{Deserialize, Serialize};

use super::generation::{Image, Parameters};
use super::state::Operation;

/// Something that happened to a host, or that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants an image on it.
    Deploy(Deploy),
    /// Somebody wants the newest other generation that was healthy.
    Rollback {
        /// Id of the request; the same one again changes nothing.
        intent: String,
        /// Who.
        by: String,
    },
    /// Somebody wants its power changed, and nothing else.
    Power {
        /// What is wanted.
        order: PowerOrder,
        /// Who.
        by: String,
    },
    /// It has no generation, and takes what its role says: the shell sends this before the first script.
    Adopt {
        /// The image.
        image: Image,
        /// What it is told besides.
        parameters: Parameters,
        /// Who, or what.
        by: String,
    },
    /// An action is about to switch it off. The shell commits this before it sends, and sends nothing
    /// unless the operation [is still waited for](super::HostState::awaits) afterwards.
    Sending {
        /// Which.
        operation: Operation,
    },
    /// An action on its power ended.
    PowerDone {
        /// Which.
        operation: Operation,
        /// How.
        outcome: Outcome,
    },
    /// Its power was read by the poller of the fleet.
    PowerSeen {
        /// What was read.
        power: Power,
    },
    /// A script was made for it; commit this before the script leaves.
    BootBegan {
        /// Id of the boot.
        boot: String,
        /// The generation that the script boots.
        generation: u32,
    },
    /// It reported.
    Reported {
        /// The boot that the report belongs to, as its credential shows.
        boot: String,
        /// What it said.
        said: Said,
    },
    /// It reported once and no longer does.
    Silent {
        /// The boot that fell silent.
        boot: String,
    },
    /// Its policy was replaced; the next step sees the new one.
    PolicyChanged,
    /// The appliance was started, and does not know which of the actions it asked for were performed.
    Restarted,
    /// Time passed.
    Tick,
    /// It left the site a while ago: nobody goes on with what is under way.
    Left,
    /// Somebody calls off what is under way, or takes note that it stopped.
    Cancel {
        /// Who.
        by: String,
    },
}

/// An image that somebody wants on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deploy {
    /// Id of the request; the same one again changes nothing.
    pub intent: String,
    /// The image.
    pub image: Image,
    /// What the host is told besides.
    pub parameters: Parameters,
    /// Who.
    pub by: String,
    /// Whether a host that runs it already is deployed again.
    pub when: When,
}

/// Whether a host that runs what is asked for is deployed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// It is left alone.
    Needed,
    /// It is booted anew.
    Always,
}

/// What somebody wants of a host's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerOrder {
    /// On; a running host is not touched.
    On,
    /// Off, after its system had the policy's time to shut down.
    Off,
    /// Off at once.
    ForceOff,
    /// Off as by [`PowerOrder::Off`], then on.
    Cycle,
    /// Off at once, then on.
    ForceCycle,
}

impl PowerOrder {
    /// Returns the word for operators.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::On => "power on",
            Self::Off => "power off",
            Self::ForceOff => "power off at once",
            Self::Cycle => "power cycle",
            Self::ForceCycle => "power cycle at once",
        }
    }
}

/// The power of a host, as its BMC says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// On.
    On,
    /// Off.
    Off,
    /// Between the two.
    Changing,
    /// Not known.
    Unknown,
}

impl Power {
    /// Returns the word for operators.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Changing => "changing",
            Self::Unknown => "unknown",
        }
    }
}

/// How an action on a host's power ended; the shell makes one of every error of a BMC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, or was so already, and was read back.
    Done {
        /// The power that was read.
        power: Power,
    },
    /// Surely nothing was sent, and it may work later: unreachable, busy.
    NotSent {
        /// Why.
        why: String,
    },
    /// Something may have been sent, and what became of it is not known, or not as asked.
    Unknown {
        /// What is known.
        why: String,
    },
    /// It will not work until a person changes something: credentials, TLS, unsupported.
    Refused {
        /// Why.
        why: String,
    },
    /// The BMC is not that of this host; nothing was sent.
    WrongHost {
        /// What the site or the record says.
        expected: String,
        /// What the BMC says.
        found: String,
    },
}

/// What a host said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its system is up and its checks pass: a first report, or a heartbeat.
    Healthy {
        /// The tree that is mounted as root.
        tree: Digest,
    },
    /// Its system is up, and not well.
    Unhealthy {
        /// The tree that is mounted as root.
        tree: Digest,
        /// What is not well.
        why: String,
    },
    /// It gave up booting.
    Failed {
        /// Why.
        why: String,
    },
    /// Which files of its tree were changed since it booted; none when none are any more.
    Overlay {
        /// Their paths, as many as it told.
        paths: Vec<String>,
        /// How many more there are.
        omitted: u64,
    },
}

impl Said {
    /// Returns what a report means for the lifecycle; none when it only tells progress.
    #[must_use]
    pub fn of(stage: &Stage) -> Option<Self> {
        match stage {
            Stage::Healthy { tree } => Some(Self::Healthy { tree: *tree }),
            Stage::Heartbeat { state, .. } if state == "initializing" || state == "starting" => {
                None
            }
            Stage::Heartbeat {
                tree,
                state,
                failed_checks,
            } => Some(match (state.as_str(), failed_checks.as_slice()) {
                ("running", []) => Self::Healthy { tree: *tree },
                ("running", failed) => Self::Unhealthy {
                    tree: *tree,
                    why: format!("failing: {}", failed.join(", ")),
                },
                (other, _) => Self::Unhealthy {
                    tree: *tree,
                    why: format!("systemd says `{other}`"),
                },
            }),
            Stage::Unhealthy(ill) => Some(Self::Unhealthy {
                tree: ill.tree,
                why: crate::boot::unwell(ill),
            }),
            Stage::Failed { reason } => Some(Self::Failed {
                why: reason.clone(),
            }),
            Stage::Drift(drift) => Some(Self::Overlay {
                paths: drift.paths.clone(),
                omitted: drift.omitted,
            }),
            Stage::Stage1 { .. }
            | Stage::RootFetched { .. }
            | Stage::SwitchRoot
            | Stage::AgentStarted { .. } => None,
        }
    }
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Nothing to roll back to.
    #[error("no other generation of this host was ever healthy")]
    NothingProven,
    /// The host has no BMC.
    #[error("the host has no BMC, so its power can only be changed by hand")]
    NoBmc,
    /// A deployment is under way.
    #[error("a deployment is under way; cancel it first")]
    Busy,
    /// There is nothing to cancel.
    #[error("nothing is under way")]
    NothingToCancel,
    /// The host has generations already.
    #[error("the host has a generation already; deploy instead")]
    Adopted,
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_manifest::{FailedCheck, Unhealthy};

    #[test]
    fn reports_mean_what_they_say() {
        let tree = Digest::of(b"tree");
        let beat = |state: &str, failed: &[&str]| Stage::Heartbeat {
            tree,
            state: state.to_owned(),
            failed_checks: failed.iter().map(|&name| name.to_owned()).collect(),
        };
        let ill = |why: &str| {
            let why = why.to_owned();
            Some(Said::Unhealthy { tree, why })
        };
        let unhealthy = Stage::Unhealthy(Unhealthy {
            tree,
            state: "running".to_owned(),
            failed_units: Vec::new(),
            failed_checks: vec![FailedCheck {
                name: "port 22".to_owned(),
                reason: "nobody listens".to_owned(),
            }],
        });
        let cases = [
            (
                "healthy",
                Stage::Healthy { tree },
                Some(Said::Healthy { tree }),
            ),
            (
                "a heartbeat",
                beat("running", &[]),
                Some(Said::Healthy { tree }),
            ),
            ("a heartbeat too early", beat("starting", &[]), None),
            (
                "a failing check",
                beat("running", &["port 22"]),
                ill("failing: port 22"),
            ),
            (
                "a degraded system",
                beat("degraded", &[]),
                ill("systemd says `degraded`"),
            ),
            ("progress", Stage::SwitchRoot, None),
            (
                "unhealthy",
                unhealthy,
                ill("systemd says `running`, and failing: port 22: nobody listens"),
            ),
        ];
        for (name, stage, said) in cases {
            assert_eq!(Said::of(&stage), said, "{name}");
        }
    }
}
