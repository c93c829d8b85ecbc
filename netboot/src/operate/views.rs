//! What people and programs are shown of hosts and rollouts.
//!
//! It refuses to show what nobody needs to act: internal numbers and clocks stay inside.

use netboot_core::Timestamp;
use netboot_core::drift::{Finding, findings};
use netboot_core::lifecycle::{Generation, HostState, Judgement, Parameters, Phase, Policy, Power};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One generation of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct GenerationView {
    /// Its number; the first is 1.
    pub number: u32,
    /// Name of its image.
    pub image: String,
    /// Digest of the image's manifest.
    pub manifest: String,
    /// Tree digest of the image.
    pub tree: String,
    /// What the host is told besides.
    #[schema(value_type = Object)]
    pub parameters: Parameters,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Who asked for it.
    pub by: String,
    /// Why: `deploy`, `roll back to 3`, `heal of 3`, `adopted`.
    pub reason: String,
    /// `pending`, `healthy`, `failed`, `superseded` or `cancelled`.
    pub outcome: String,
    /// Why it failed, if it did.
    pub why: Option<String>,
    /// Milliseconds from the request to the healthy report.
    pub took_ms: Option<u64>,
    /// Whether the host boots it.
    pub desired: bool,
}

/// What is under way with a host, and how it differs from what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct StateView {
    /// Number of the generation that it boots.
    pub generation: Option<u32>,
    /// `idle`, `stopped`, or the step of what is under way.
    pub phase: String,
    /// Why it is stopped, or what goes wrong.
    pub trouble: Option<String>,
    /// Its power as its BMC said last: `on`, `off`, `changing`; `unknown` once that is two minutes old or an operation on
    /// it failed since; none without a BMC.
    pub power: Option<String>,
    /// What its BMC said last, when the power is `unknown` now.
    pub power_was: Option<String>,
    /// When its BMC said that, in milliseconds since 1970.
    pub power_was_ms: Option<u64>,
    /// What its BMC's problem is, if it has one.
    pub bmc: Option<String>,
    /// How it differs from what is wanted, in words.
    pub drift: Vec<String>,
}

impl GenerationView {
    /// Shows a generation of a host.
    #[must_use]
    pub fn of(generation: &Generation, desired: Option<u32>) -> Self {
        let (why, took_ms) = match &generation.outcome {
            Judgement::Healthy { took_ms, .. } => (None, Some(*took_ms)),
            Judgement::Failed { why, .. } => (Some(why.clone()), None),
            Judgement::Cancelled { by, .. } => (Some(format!("cancelled by {by}")), None),
            Judgement::Pending | Judgement::Superseded { .. } => (None, None),
        };
        Self {
            number: generation.number,
            image: generation.image.name.clone(),
            manifest: generation.image.manifest.to_string(),
            tree: generation.image.tree.to_string(),
            parameters: generation.parameters.clone(),
            created_ms: generation.created.0,
            by: generation.by.clone(),
            reason: generation.reason.to_string(),
            outcome: generation.outcome.label().to_owned(),
            why,
            took_ms,
            desired: desired == Some(generation.number),
        }
    }
}

impl StateView {
    /// Shows a host's state beside what its policy wants, and what is wrong with its BMC.
    #[must_use]
    pub fn with(state: &HostState, policy: &Policy, bmc: Option<String>) -> Self {
        let shown =
            |finding: Finding| format!("{}: {}; {}", finding.drift, finding.text, finding.healing);
        let trouble = match &state.phase {
            Phase::Stopped { why, .. } => Some(why.clone()),
            Phase::Active(work) => work.trouble.clone(),
            Phase::Idle => None,
        };
        Self {
            generation: state.desired,
            phase: state.label().to_owned(),
            trouble,
            power: state.seen.power.map(|power| power.label().to_owned()),
            power_was: None,
            power_was_ms: None,
            bmc,
            drift: findings(state, policy).into_iter().map(shown).collect(),
        }
    }
}

impl StateView {
    /// Says the power no longer as if it were known.
    #[must_use]
    pub(super) fn without_power(self, told: Option<Timestamp>) -> Self {
        let was = self.power.zip(told);
        Self {
            power: Some(Power::Unknown.label().to_owned()),
            power_was: was.as_ref().map(|(power, _)| power.clone()),
            power_was_ms: was.map(|(_, at)| at.0),
            ..self
        }
    }
}

/// A rollout and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutView {
    /// Its id.
    pub id: String,
    /// The image that it brings.
    pub image: String,
    /// Who began it.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub began_ms: u64,
    /// `running`, `paused`, `halted`, `undoing`, `done`, ….
    pub state: String,
    /// Why it is in that state, if there is more to say.
    pub why: Option<String>,
    /// How far each of its hosts is, in the order in which they are taken.
    pub hosts: Vec<RolloutHost>,
}

/// One host of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutHost {
    /// Its name.
    pub host: String,
    /// The batch that it is in; 0 is the canary.
    pub batch: u32,
    /// `waiting`, `deploying`, `healthy`, `failed`, `undone`, ….
    pub state: String,
    /// Why, if there is more to say.
    pub why: Option<String>,
}
