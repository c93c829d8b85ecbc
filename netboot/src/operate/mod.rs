//! What operators ask of the appliance, and the one task that does it: deployments, power, rollouts.
//!
//! It refuses to decide: `netboot_core::lifecycle` and `rollout` do. It refuses to act on anything
//! that is not on disk, and to keep a boot decision anywhere but there.

mod bmc;
mod bmcs;
mod clock;
mod departed;
mod events;
mod executor;
mod metrics;
mod order;
mod orders;
pub(crate) mod persist;
mod poll;
mod power;
mod rollouts;
mod round;
mod service;
#[cfg(test)]
mod tests;
mod views;

use std::sync::Arc;

use image_manifest::{Digest, Stage};
use netboot_core::lifecycle::{Image, Parameters};
use netboot_core::selector::Selector;
use netboot_core::site::Site;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::order::Answer;
use self::power::Reached;
use crate::secrets::Secrets;
use crate::store::Change;

pub use order::{
    Accepted, Deed, EventView, HostPlan, Later, Ledger, Limits, Order, Power, Refusal, Run, Since,
    Who,
};
pub use service::Operator;
pub(crate) use service::Surroundings;
pub use views::{GenerationView, RolloutHost, RolloutView, StateView};

/// An image for hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DeployOrder {
    /// Which hosts.
    #[schema(value_type = Vec<String>)]
    pub hosts: Selector,
    /// Name of the image; that of each host's role and environment without one.
    #[serde(default)]
    pub image: Option<String>,
    /// Digest of its manifest; the newest of that name without one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub digest: Option<Digest>,
    /// Whether hosts that run it already are booted anew.
    #[serde(default)]
    pub again: bool,
}

/// A deployment over many hosts in batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutOrder {
    /// What to deploy, and where.
    pub deploy: DeployOrder,
    /// How it goes.
    #[serde(flatten)]
    pub pace: Pace,
}

/// How a rollout goes; what is not said is as the site's limits say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Pace {
    /// How many hosts go first, alone; one when it is not said, none when it is 0.
    pub canary: Option<u32>,
    /// How many hosts a batch has: `5` or `20%`.
    pub batch: Option<String>,
    /// How many hosts are deployed at the same time, at most.
    pub at_once: Option<u32>,
    /// How many of one rack, at most.
    pub at_once_per_rack: Option<u32>,
    /// With how many failures it halts; one when it is not said.
    pub max_failures: Option<u32>,
    /// How long a batch stays as it is before the next one begins.
    pub soak_seconds: Option<u64>,
}

/// What is asked of a rollout that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// Take no further host for now.
    Pause,
    /// Go on.
    Resume,
    /// Take no further host for good.
    Halt,
    /// Roll back what was touched.
    Undo,
}

/// What is done with the identity that a BMC says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Enroll {
    /// It is recorded where none is; another one than recorded is refused.
    Record,
    /// It is recorded in place of the old one: the machine was exchanged.
    Replace,
}

/// What a host boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Number of the generation.
    pub(crate) generation: u32,
    /// Its image.
    pub(crate) image: Image,
    /// What the host is told besides.
    pub(crate) parameters: Parameters,
}

/// A script that is about to be given to a host.
#[derive(Clone, Debug)]
pub(crate) struct Began {
    /// The host.
    pub(crate) host: Arc<str>,
    /// Id of the boot.
    pub(crate) boot: String,
    /// The generation that the script was made for; nothing when it has none yet.
    pub(crate) generation: u32,
    /// What the host is adopted with, when it has no generation.
    pub(crate) adopt: Option<(Image, Parameters)>,
}

/// What a host reported in its running boot.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    /// The host.
    pub(crate) host: Arc<str>,
    /// Id of the boot.
    pub(crate) boot: String,
    /// What.
    pub(crate) stage: Stage,
    /// What has to be stored of it together with what it leads to.
    pub(crate) changes: Vec<Change>,
}

/// The site as it is served now, and what reads its secrets; replaced whole.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) site: Arc<Site>,
    pub(crate) secrets: Arc<Secrets>,
}

/// An image for one host, looked up.
#[derive(Clone, Debug)]
struct Target {
    host: Arc<str>,
    image: Image,
    parameters: Parameters,
}

/// An order about images, looked up in the store of images.
#[derive(Clone, Debug)]
struct Prepared {
    request: serde_json::Value,
    targets: Vec<Target>,
    again: bool,
    rollout: Option<Pace>,
}

/// What the executor is asked.
#[derive(Debug)]
enum Command {
    Deploy(Order, Prepared, Answer<Accepted>),
    Rollback(Order, Selector, Answer<Accepted>),
    Cancel(Order, Selector, Answer<Accepted>),
    Power(Order, Selector, Power, Answer<Accepted>),
    RolloutStart(Order, Prepared, Answer<Accepted>),
    RolloutControl(Order, String, Control, Answer<Accepted>),
    Rollouts(Answer<Vec<RolloutView>>),
    States(Answer<Vec<(Arc<str>, StateView)>>),
    History(Arc<str>, Answer<Vec<GenerationView>>),
    Reach(Arc<str>, Answer<Reached>),
    Recorded(Order, Arc<str>, Box<ipmi::Seen>, Enroll, Answer<String>),
    Choose(Arc<str>, Answer<Option<Chosen>>),
    Began(Began, Answer<Chosen>),
    Reported(Reported, Answer<()>),
    Heartbeat(Reported),
    Refused(Arc<str>, String),
}
