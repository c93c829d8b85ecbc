//! What operators ask of the appliance, and the one task that does it: deployments, power, rollouts.
//!
//! It refuses to decide: `netboot_core::lifecycle` and `rollout` do. It refuses to act on anything
//! that is not on disk, and to keep a boot decision anywhere but there.

mod order;
mod views;

use std::sync::Arc;

use image_manifest::Digest;
use netboot_core::selector::Selector;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

pub use order::{
    Accepted, Deed, EventView, HostPlan, Later, Ledger, Limits, Order, Power, Refusal, Run, Since,
    Who,
};
pub use views::{GenerationView, RolloutHost, RolloutView, StateView};

/// Where operators' orders are handed in; clones hand them to the same executor.
#[derive(Clone, Debug)]
pub struct Operator {
    commands: mpsc::Sender<Command>,
}

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
    /// How many hosts go first, alone.
    #[serde(default)]
    pub canary: Option<u32>,
    /// How many hosts a batch has: `5` or `20%`.
    #[serde(default)]
    pub batch: Option<String>,
    /// How many hosts are deployed at the same time, at most.
    #[serde(default)]
    pub at_once: Option<u32>,
    /// How many of one rack, at most.
    #[serde(default)]
    pub at_once_per_rack: Option<u32>,
    /// How many hosts may fail before it halts: with the next one it does.
    #[serde(default)]
    pub max_failures: Option<u32>,
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

type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the executor is asked.
#[derive(Debug)]
enum Command {
    Deploy(Order, DeployOrder, Answer<Accepted>),
    Rollback(Order, Selector, Answer<Accepted>),
    Cancel(Order, Selector, Answer<Accepted>),
    Power(Order, Selector, Power, Answer<Accepted>),
    Enroll(Order, Selector, Enroll, Answer<Accepted>),
    RolloutStart(Order, RolloutOrder, Answer<Accepted>),
    RolloutControl(Order, String, Control, Answer<Accepted>),
    Rollouts(Answer<Vec<RolloutView>>),
    States(Answer<Vec<(Arc<str>, StateView)>>),
    History(Arc<str>, Answer<Vec<GenerationView>>),
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

impl Operator {
    /// Puts an image on hosts.
    ///
    /// # Errors
    /// Why nothing is done at all.
    pub async fn deploy(&self, order: Order, deploy: DeployOrder) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::Deploy(order, deploy, answer))
            .await
    }

    /// Returns hosts to their newest other generation that was healthy.
    ///
    /// # Errors
    /// Why nothing is done at all.
    pub async fn rollback(&self, order: Order, hosts: Selector) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::Rollback(order, hosts, answer))
            .await
    }

    /// Calls off what is under way with hosts, and lets stopped ones go on.
    ///
    /// # Errors
    /// Why nothing is done at all.
    pub async fn cancel(&self, order: Order, hosts: Selector) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::Cancel(order, hosts, answer))
            .await
    }

    /// Changes the power of hosts.
    ///
    /// # Errors
    /// Why nothing is done at all.
    pub async fn power(
        &self,
        order: Order,
        hosts: Selector,
        power: Power,
    ) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::Power(order, hosts, power, answer))
            .await
    }

    /// Asks the BMCs of hosts who they are, and records it.
    ///
    /// # Errors
    /// Why nothing is recorded at all.
    pub async fn enroll(
        &self,
        order: Order,
        hosts: Selector,
        enroll: Enroll,
    ) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::Enroll(order, hosts, enroll, answer))
            .await
    }

    /// Begins a rollout.
    ///
    /// # Errors
    /// Why nothing is done at all.
    pub async fn rollout_start(
        &self,
        order: Order,
        rollout: RolloutOrder,
    ) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::RolloutStart(order, rollout, answer))
            .await
    }

    /// Pauses, resumes, halts or undoes a rollout.
    ///
    /// # Errors
    /// When there is no such rollout, or it has come too far.
    pub async fn rollout_control(
        &self,
        order: Order,
        id: String,
        control: Control,
    ) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::RolloutControl(order, id, control, answer))
            .await
    }

    /// Returns all rollouts that are kept, newest first.
    ///
    /// # Errors
    /// When the appliance stops.
    pub async fn rollouts(&self) -> Result<Vec<RolloutView>, Refusal> {
        self.ask(Command::Rollouts).await
    }

    /// Returns how each host of the site stands.
    ///
    /// # Errors
    /// When the appliance stops.
    pub async fn states(&self) -> Result<Vec<(Arc<str>, StateView)>, Refusal> {
        self.ask(Command::States).await
    }

    /// Returns the generations of a host, newest first.
    ///
    /// # Errors
    /// When the site has no such host.
    pub async fn history(&self, host: &Arc<str>) -> Result<Vec<GenerationView>, Refusal> {
        let host = Arc::clone(host);
        self.ask(|answer| Command::History(host, answer)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, Refusal> {
        let (answer, wait) = oneshot::channel();
        let stopping = || Refusal::Unavailable {
            reason: "the appliance stops".to_owned(),
        };
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| stopping())?;
        wait.await.map_err(|_| stopping())?
    }
}
