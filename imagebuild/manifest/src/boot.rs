//! The boot contract: what `imagebuild` puts into the initrd for stage1, what the appliance tells
//! stage1 and the agent, and what they report.
//!
//! All of it travels as JSON. Readers ignore fields that they do not know, so that an image
//! outlives the appliance that it was made with.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// What an initrd knows about the root file system it was built with; the file
/// [`BootImage::PATH`] of the initrd.
///
/// The root's digests stand here, so that what carries its bytes needs no trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BootImage {
    /// Name of the image.
    pub name: String,
    /// The tree digest that the root file system holds.
    pub tree: Digest,
    /// Digest of the root file system, which is also its name on the appliance.
    pub rootfs: Digest,
    /// Size of the root file system in bytes.
    pub size: u64,
    /// Digests of its pieces, so that each is checked as it arrives.
    pub chunks: Chunks,
}

/// Digests of consecutive pieces of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Chunks {
    /// Size in bytes of every piece but the last.
    pub size: u64,
    /// One digest a piece, in order.
    pub digests: Vec<Digest>,
}

impl BootImage {
    /// Where it stands in the initrd.
    pub const PATH: &str = "etc/firstboot/image.json";
}

/// What one host is told about itself: answer to `GET /v1/boots/<boot>/host`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostConfig {
    /// The host's name, without a domain.
    pub name: String,
    /// Public keys that may log in as root, each one line of `authorized_keys`.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// How the host is connected.
    pub network: NetworkConfig,
    /// Seconds between two heartbeats of the agent.
    pub heartbeat_seconds: u32,
}

/// How one host is connected: the same address from firmware to the running system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NetworkConfig {
    /// Hardware address of the interface that it booted from, as `52:54:00:00:00:01`.
    pub mac: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, 0 to 32.
    pub prefix: u8,
    /// The default router, if the network has one.
    #[serde(default)]
    pub router: Option<Ipv4Addr>,
    /// Name servers, in order.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Domain to search, if any.
    #[serde(default)]
    pub domain: Option<String>,
}

/// One step that stage1 or the agent reports: body of `POST /v1/boots/<boot>/reports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Milliseconds since the kernel started (`CLOCK_BOOTTIME`).
    pub uptime_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub stage: Stage,
}

/// What stage1 and the agent report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "stage",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Stage {
    /// stage1 runs and has reached the appliance.
    Stage1 {
        /// Release of the running kernel.
        kernel: String,
        /// Milliseconds from the kernel's start to the first instruction of stage1.
        started_ms: u64,
    },
    /// The root file system is in memory and each piece of it had its digest.
    RootFetched {
        /// Bytes fetched.
        bytes: u64,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
        /// Pieces that had to be asked for again.
        retries: u32,
    },
    /// The next thing that stage1 does is `switch_root`.
    SwitchRoot,
    /// stage1 gave up; the host does not boot.
    Failed {
        /// What failed and why, for the operator.
        reason: String,
    },
    /// The agent runs on the host.
    AgentStarted {
        /// Digest of the tree that is mounted as root.
        tree: Digest,
    },
    /// The host is up: its own init says that all is well.
    Healthy {
        /// Digest of the tree that is mounted as root.
        tree: Digest,
    },
    /// The host is up and not well.
    Unhealthy(Unhealthy),
    /// The host is still there.
    Heartbeat {
        /// Digest of the tree that is mounted as root.
        tree: Digest,
        /// What `systemctl is-system-running` says now.
        state: String,
    },
}

/// Why a host that is up is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unhealthy {
    /// Digest of the tree that is mounted as root.
    pub tree: Digest,
    /// What `systemctl is-system-running` says.
    pub state: String,
    /// Units that failed.
    #[serde(default)]
    pub failed_units: Vec<String>,
}
