//! What somebody wants of a host's power, and what came of it.

use std::fmt;
use std::time::Duration;

use super::{BootOverride, Identity, PowerState};

/// The id of one operation, by which its journal is found again after a crash.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct OperationId(pub String);

impl fmt::Display for OperationId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// How a host is turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Off {
    /// At once.
    Forced,
    /// Its operating system is asked, and given this long; then at once.
    Graceful {
        /// How long it is given.
        within: Duration,
    },
}

/// What somebody wants of a host's power.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// It shall run; a running host is not touched.
    EnsureOn,
    /// It shall be off.
    EnsureOff(Off),
    /// It shall boot from there.
    Boot(BootOverride),
    /// It shall go off and on, once, however often this is asked for.
    CycleOnce(OperationId),
    /// A diagnostic interrupt (NMI).
    Diagnose,
}

impl fmt::Display for Intent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnsureOn => out.write_str("ensure on"),
            Self::EnsureOff(Off::Forced) => out.write_str("ensure off"),
            Self::EnsureOff(Off::Graceful { within }) => {
                write!(
                    out,
                    "ensure off, after a shutdown of at most {} s",
                    within.as_secs()
                )
            }
            Self::Boot(boot) => write!(out, "boot from {boot}"),
            Self::CycleOnce(operation) => write!(out, "cycle once ({operation})"),
            Self::Diagnose => out.write_str("diagnose"),
        }
    }
}

/// Whether an intent needed anything to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acted {
    /// It was so already.
    Nothing,
    /// A command was sent.
    Sent,
}

/// An intent that was carried out and read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The power that was read back.
    pub power: PowerState,
    /// Who said so.
    pub identity: Identity,
    /// The boot override that was read back.
    pub boot: Option<BootOverride>,
    /// Whether anything was sent.
    pub acted: Acted,
    /// How long it took.
    pub elapsed: Duration,
}

/// What a BMC says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The power of its host.
    pub power: PowerState,
    /// Who says so.
    pub identity: Identity,
    /// The boot override that is set, if the BMC tells.
    pub boot: Option<BootOverride>,
    /// Firmware versions, as (what, version).
    pub firmware: Vec<(String, String)>,
}
