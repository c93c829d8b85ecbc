//! What somebody asks of the appliance, who asks it, and what they are told.
//!
//! It refuses to know how it is asked: over HTTP, by a signal, or by the appliance itself.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use netboot_core::Timestamp;
use netboot_core::selector::Selector;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use tokio::sync::oneshot;

use crate::store::{Change, StoreError};

/// Where an answer of the executor goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Name of the token, or what asks without one: `signal`, `appliance`.
    pub name: String,
    /// The role that it had, for the audit log.
    pub role: String,
    /// From where.
    pub peer: Option<IpAddr>,
    /// The hosts that it may touch; all of them without one.
    pub scope: Option<Selector>,
}

impl Who {
    /// The appliance itself.
    #[must_use]
    pub fn appliance() -> Self {
        Self {
            name: "appliance".to_owned(),
            role: "appliance".to_owned(),
            peer: None,
            scope: None,
        }
    }
}

/// Whether something is done, or only told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// It is done.
    Real,
    /// The plan is told, and nothing is done.
    Dry,
}

/// Whether limits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// They hold.
    Held,
    /// Somebody said that they shall not: protected hosts and the blast radius.
    Overridden,
}

/// How something is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who asks.
    pub who: Who,
    /// Whether it is done.
    pub run: Run,
    /// Whether limits hold.
    pub limits: Limits,
    /// What makes asking twice asking once: the same key, the same answer.
    pub key: Option<String>,
}

/// What is asked for the power of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// They shall run.
    On,
    /// They shall be off, after their systems had the time that their roles give them.
    Off,
    /// They shall be off at once.
    ForceOff,
    /// They shall go off and on, once.
    Cycle,
}

/// What happens to one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HostPlan {
    /// The host.
    pub host: String,
    /// The generation that it has, in words: `generation 3, web@0b9c…`.
    pub from: Option<String>,
    /// What it gets.
    pub to: Option<String>,
    /// What is done, step by step.
    pub steps: Vec<String>,
}

/// What was accepted, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Accepted {
    /// Whether it is being done; a dry run only tells.
    pub done: bool,
    /// Id of the operation or rollout, to follow it by; none of a dry run.
    pub id: Option<String>,
    /// What happens to each host.
    pub hosts: Vec<HostPlan>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The token may not touch a host.
    #[error("this token may not touch `{host}`")]
    Forbidden {
        /// The host.
        host: String,
    },
    /// There is no such thing.
    #[error("there is no {what} `{name}`")]
    Unknown {
        /// What it would be.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// What is asked makes no sense.
    #[error("{reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
    /// Something else goes on, or the key was used for something else.
    #[error("{reason}")]
    Conflict {
        /// What.
        reason: String,
    },
    /// More hosts than one request may touch.
    #[error("{limit}, and this touches {hosts}; say so explicitly to override it")]
    TooWide {
        /// The limit, in words.
        limit: String,
        /// How many are touched.
        hosts: usize,
    },
    /// A host is protected.
    #[error("`{host}` is protected; say so explicitly to override it")]
    Protected {
        /// The host.
        host: String,
    },
    /// The appliance cannot write down what it would do, so it does not do it.
    #[error("the appliance's store is not available, so nothing is done: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// A host's BMC does not let us.
    #[error("the bmc of `{host}`: {reason}")]
    Bmc {
        /// The host.
        host: String,
        /// What it said.
        reason: String,
    },
}

impl Refusal {
    /// A constant word for logs, counters and problem documents.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "forbidden",
            Self::Unknown { .. } => "unknown",
            Self::Invalid { .. } => "invalid",
            Self::Conflict { .. } => "conflict",
            Self::TooWide { .. } => "too-wide",
            Self::Protected { .. } => "protected",
            Self::Unavailable { .. } => "unavailable",
            Self::Bmc { .. } => "bmc",
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Unavailable {
            reason: crate::cli::report::chain(&error),
        }
    }
}

/// One line of the audit log, as it is handed in.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    /// When.
    pub at: Timestamp,
    /// Who asked.
    pub who: Who,
    /// What was asked: a constant word.
    pub action: &'static str,
    /// For which hosts, or for what else.
    pub object: String,
    /// The request, without secrets.
    pub request: serde_json::Value,
    /// What came of it.
    pub outcome: String,
}

/// What a [`Ledger`] answers later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The audit log: everything that was asked for and done is one line of it.
pub trait Ledger: Send + Sync + std::fmt::Debug + 'static {
    /// Writes a line and the changes that it is about, in one transaction.
    fn commit(&self, deed: Deed, changes: Vec<Change>) -> Later<'_, Result<(), StoreError>>;
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "kebab-case")]
pub struct Since {
    /// Only what came after this number; without it, the newest ones.
    pub after: Option<u64>,
    /// Only about this host.
    pub host: Option<String>,
    /// How many at most.
    pub limit: Option<u32>,
    /// How long to wait for the first one, in seconds.
    pub wait_seconds: Option<u64>,
}

impl Since {
    /// Returns how long to wait: a minute at most.
    #[must_use]
    pub fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_seconds.unwrap_or(0).min(60))
    }
}

/// Something that happened to a host, a rollout or the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EventView {
    /// Its number; events are counted up.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The host, `rollout/ID`, or `site`.
    pub subject: String,
    /// What kind of event: a constant word.
    pub kind: String,
    /// What happened, in words.
    pub text: String,
}
