//! Power and boot device, in words that both protocols share.

use std::fmt;

/// Whether a host has power.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// It runs.
    On,
    /// It does not.
    Off,
    /// It is on its way from one to the other.
    Transition,
    /// Nobody knows: a state of its own, never taken for on or off.
    Unknown {
        /// Why not.
        reason: String,
    },
}

impl PowerState {
    /// A short word for it.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Transition => "transition",
            Self::Unknown { .. } => "unknown",
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { reason } => write!(out, "unknown ({reason})"),
            known => out.write_str(known.label()),
        }
    }
}

/// What a BMC is told to do to the power of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetKind {
    /// Power on.
    On,
    /// Power off at once.
    ForceOff,
    /// Ask the operating system to shut down.
    GracefulShutdown,
    /// Power off, then on.
    Cycle,
    /// Reset without a loss of power.
    ForceRestart,
    /// A diagnostic interrupt (NMI).
    Nmi,
}

impl ResetKind {
    /// A short word for it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::ForceOff => "off",
            Self::GracefulShutdown => "shutdown",
            Self::Cycle => "cycle",
            Self::ForceRestart => "reset",
            Self::Nmi => "nmi",
        }
    }

    /// Whether it takes a running host out of service.
    #[must_use]
    pub fn takes_power(self) -> bool {
        match self {
            Self::ForceOff | Self::GracefulShutdown | Self::Cycle | Self::ForceRestart => true,
            Self::On | Self::Nmi => false,
        }
    }
}

impl fmt::Display for ResetKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.label())
    }
}

/// What became of a command that acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The BMC said that it took it.
    Accepted,
    /// It was sent, and what became of it is not known; it must not be sent again.
    Unsure {
        /// What happened instead of an answer.
        why: String,
    },
}

/// What a host boots from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootDevice {
    /// The network, by PXE.
    Network,
    /// The network, by UEFI HTTP Boot.
    Http {
        /// What to fetch; without it DHCP says.
        uri: Option<String>,
    },
    /// The disk.
    Disk,
    /// The firmware's setup.
    Setup,
    /// What the firmware's own order says: no override.
    None,
}

impl fmt::Display for BootDevice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network => out.write_str("network"),
            Self::Http { uri: None } => out.write_str("http"),
            Self::Http { uri: Some(uri) } => write!(out, "http ({uri})"),
            Self::Disk => out.write_str("disk"),
            Self::Setup => out.write_str("setup"),
            Self::None => out.write_str("none"),
        }
    }
}

/// How long a boot override holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Persistence {
    /// For the next boot only.
    Once,
    /// Until it is changed.
    Persistent,
}

/// What kind of firmware the host is asked to boot with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootFirmware {
    /// A PC BIOS, or UEFI that behaves like one.
    Bios,
    /// UEFI.
    Uefi,
}

/// What a host shall boot from instead of what its firmware would choose.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BootOverride {
    /// From where.
    pub device: BootDevice,
    /// For how long.
    pub persistence: Persistence,
    /// With which firmware.
    pub firmware: BootFirmware,
}

impl fmt::Display for BootOverride {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how_long = match self.persistence {
            Persistence::Once => "once",
            Persistence::Persistent => "always",
        };
        let firmware = match self.firmware {
            BootFirmware::Bios => "bios",
            BootFirmware::Uefi => "uefi",
        };
        write!(out, "{} {how_long}, {firmware}", self.device)
    }
}
