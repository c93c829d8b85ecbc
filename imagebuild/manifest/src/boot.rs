//! The boot contract: what `imagebuild` puts into the initrd for stage1, what the appliance tells
//! stage1 and the agent, and what they report.
//!
//! All of it travels as JSON. Readers ignore fields that they do not know, so that an image
//! outlives the appliance that it was made with.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{Digest, Secret, Token};

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
    /// Keys of which one must have signed the image's manifest, when there are any: points of P-256, uncompressed, as
    /// hexadecimal digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
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

/// What only one run of stage1 knows: body of `POST /v1/boots/<boot>/credential`, which the boot
/// token of the command line admits, and of `POST /v1/boots/<boot>/secrets`.
///
/// The token is exchanged once. An exchange whose answer was lost is asked for again with the same
/// nonce, and nothing else is given the credential or a secret again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Exchange {
    /// 16 random bytes, as hexadecimal digits.
    pub nonce: Token,
}

/// What a boot shows from now on, instead of its token: answer to an [`Exchange`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Credential {
    /// The bearer token of everything that the boot asks and reports.
    pub credential: Token,
}

/// The secrets of a host: answer to `POST /v1/boots/<boot>/secrets`, given until stage1 has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostSecrets {
    /// Their contents by name; a name is a plain file name.
    pub secrets: BTreeMap<String, Secret>,
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
    /// What the site says to the host's programs, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// Names of the secrets that the host has to ask for.
    #[serde(default)]
    pub secrets: Vec<String>,
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
    /// Grows from one report of a boot to the next, also over a restart of the agent; a report that
    /// is not the newest one is refused. 0 where it was stored by a version that knew none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// Milliseconds since the kernel started (`CLOCK_BOOTTIME`).
    pub uptime_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub stage: Stage,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference over"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
        /// Names of the image's checks that fail now.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        failed_checks: Vec<String>,
    },
    /// Files of the host are no longer those of its image, or they are again.
    Drift(Drift),
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
    /// Checks of the image that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_checks: Vec<FailedCheck>,
}

/// A check of the image that failed on the running host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FailedCheck {
    /// Its name, such as `unit ssh.service`, `port 22` or `command database`.
    pub name: String,
    /// What was found instead, for the operator.
    pub reason: String,
}

/// What was changed on a running host that is to stay as its image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Drift {
    /// Digest of the tree that is mounted as root.
    pub tree: Digest,
    /// Paths that were added, changed or removed, sorted; the first of them, when there are many.
    pub paths: Vec<String>,
    /// How many more there are.
    #[serde(default)]
    pub omitted: u64,
}
