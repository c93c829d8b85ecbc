//! What is remembered of one rollout; one JSON document.
//!
//! It refuses an empty selection, and caps of zero.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::lifecycle::{HostState, Image, Parameters, Phase, Watch, Watched, span};
use std::time::Duration;

/// How a rollout goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Spec {
    /// What is deployed.
    pub image: Image,
    /// Hosts of the first batch, which must all become healthy; 0 for no canary.
    pub canary: u32,
    /// Hosts of each later batch.
    pub batch: Size,
    /// Hosts that are deployed at the same time.
    pub at_once: u32,
    /// Hosts of one rack that are deployed at the same time, if that is limited.
    #[serde(default)]
    pub at_once_per_rack: Option<u32>,
    /// How many failures halt it.
    pub max_failures: u32,
    /// Milliseconds between the end of one batch and the next one, as watched.
    #[serde(default)]
    pub soak_ms: u64,
}

/// The size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// So many hosts.
    Count(u32),
    /// This share of all hosts of the rollout, rounded up.
    Percent(u8),
}

/// A host that is chosen for a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub host: String,
    /// Its rack.
    pub rack: Option<String>,
    /// What it is told besides its image.
    pub parameters: Parameters,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rollout {
    /// Its id.
    pub id: String,
    /// How it goes.
    pub spec: Spec,
    /// When it was asked for.
    pub created: Timestamp,
    /// Who asked.
    pub by: String,
    /// Whether it goes on.
    pub mode: Mode,
    /// Its hosts, batch by batch.
    pub members: Vec<Member>,
    /// The batch that is under way; the first is 0.
    #[serde(default)]
    pub batch: u32,
    /// When the batches before were done, as watched.
    #[serde(default)]
    pub settled: Option<Watched>,
    /// The time that it was watched.
    #[serde(default)]
    pub watch: Watch,
}

/// Whether a rollout goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "mode",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Mode {
    /// It goes on.
    Running,
    /// It begins no further host until somebody resumes it.
    Paused {
        /// Who paused it.
        by: String,
    },
    /// It begins no further host, ever.
    Halted {
        /// Why, for the operator.
        why: String,
    },
    /// What it touched is rolled back.
    Undoing {
        /// Who asked for that.
        by: String,
    },
    /// All of its hosts have ended.
    Done,
    /// All that could be was rolled back.
    Undone,
}

impl Mode {
    /// Returns the word.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused { .. } => "paused",
            Self::Halted { .. } => "halted",
            Self::Undoing { .. } => "undoing",
            Self::Done => "done",
            Self::Undone => "undone",
        }
    }
}

/// One host of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Member {
    /// Its name.
    pub host: String,
    /// Its rack.
    #[serde(default)]
    pub rack: Option<String>,
    /// What it is told besides its image.
    #[serde(default)]
    pub parameters: Parameters,
    /// Its batch; the first is 0.
    pub batch: u32,
    /// Number of its newest generation when the rollout was asked for.
    pub base: u32,
    /// When it stopped for a person, if it was stopped when the rollout was asked for.
    #[serde(default)]
    pub stopped: Option<Timestamp>,
    /// How far it is.
    pub progress: Progress,
}

/// How far one host of a rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "progress",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Progress {
    /// It was not touched yet.
    Waiting,
    /// It was asked for.
    Deploying,
    /// It is healthy.
    Healthy,
    /// It failed.
    Failed {
        /// Why, for the operator.
        why: String,
    },
    /// It was left alone, or somebody else took over.
    Skipped {
        /// Why, for the operator.
        why: String,
    },
    /// Its roll back was asked for.
    Undoing,
    /// It is back on what it had.
    Undone,
    /// It could not be rolled back.
    NotUndone {
        /// Why, for the operator.
        why: String,
    },
}

impl Progress {
    /// Returns the word.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Deploying => "deploying",
            Self::Healthy => "healthy",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::NotUndone { .. } => "not-undone",
        }
    }

    /// Tells whether nothing more happens to the host unless the rollout is undone.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Deploying | Self::Undoing)
    }

    /// Tells whether the host is being changed now.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Deploying | Self::Undoing)
    }
}

/// Why a rollout cannot be asked for like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSpec {
    /// No host was chosen.
    #[error("the selector names no host")]
    Empty,
    /// A cap or a size is zero.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// A share is no share.
    #[error("a batch is 1 to 100 percent of the hosts")]
    Percent,
}

/// Makes a rollout over hosts in the order in which they are given.
///
/// A host that is named twice takes part once. The caller has asked [`super::breadth`] before.
///
/// # Errors
/// When the selection is empty, or a number has no sense.
pub fn start<'a>(
    id: &str,
    spec: Spec,
    targets: Vec<Target>,
    by: &str,
    states: impl Fn(&str) -> Option<&'a HostState>,
    now: Timestamp,
) -> Result<Rollout, BadSpec> {
    let caps = [
        ("at-once", Some(spec.at_once)),
        ("at-once-per-rack", spec.at_once_per_rack),
        ("max-failures", Some(spec.max_failures)),
    ];
    for (name, cap) in caps {
        if cap == Some(0) {
            return Err(BadSpec::Zero(name));
        }
    }
    let mut members: Vec<Member> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for target in targets {
        if known.insert(target.host.clone()) {
            members.push(Member {
                base: states(&target.host).map_or(0, |state| state.newest),
                stopped: states(&target.host).and_then(|state| match &state.phase {
                    Phase::Stopped { at, .. } => Some(*at),
                    Phase::Idle | Phase::Active(_) => None,
                }),
                host: target.host,
                rack: target.rack,
                parameters: target.parameters,
                batch: 0,
                progress: Progress::Waiting,
            });
        }
    }
    let size = size(spec.batch, members.len())?;
    let canary = usize::try_from(spec.canary).unwrap_or(usize::MAX);
    for (index, member) in members.iter_mut().enumerate() {
        let batch = match index.checked_sub(canary) {
            None => 0,
            Some(later) => later / size + usize::from(canary > 0),
        };
        member.batch = u32::try_from(batch).unwrap_or(u32::MAX);
    }
    Ok(Rollout {
        id: id.to_owned(),
        spec,
        created: now,
        by: by.to_owned(),
        mode: Mode::Running,
        members,
        batch: 0,
        settled: None,
        watch: Watch {
            clock: now,
            ..Watch::default()
        },
    })
}

fn size(size: Size, hosts: usize) -> Result<usize, BadSpec> {
    if hosts == 0 {
        return Err(BadSpec::Empty);
    }
    match size {
        Size::Count(0) => Err(BadSpec::Zero("batch")),
        Size::Count(count) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        Size::Percent(percent @ 1..=100) => Ok(hosts
            .saturating_mul(usize::from(percent))
            .div_ceil(100)
            .max(1)),
        Size::Percent(_) => Err(BadSpec::Percent),
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} at once", self.at_once)?;
        if let Some(rack) = self.at_once_per_rack {
            write!(f, ", {rack} a rack")?;
        }
        if self.soak_ms > 0 {
            write!(
                f,
                ", {} between batches",
                span(Duration::from_millis(self.soak_ms))
            )?;
        }
        match self.max_failures {
            1 => f.write_str("; the first failure halts it"),
            failures => write!(f, "; {failures} failures, or one of a canary, halt it"),
        }
    }
}
