//! What `netboot hosts --json` says about a host, as far as the lab reads it.
//!
//! It refuses to judge a boot: the verdict is the appliance's, except that the tree must be the built one.

use image_manifest::Digest;
use serde::{Deserialize, Serialize};

/// One host as the appliance sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// Its address.
    #[serde(default)]
    pub address: Option<String>,
    /// How its firmware introduced itself.
    #[serde(default)]
    pub firmware: Option<String>,
    /// The loader that it was given.
    #[serde(default)]
    pub loader: Option<String>,
    /// Its newest boot.
    #[serde(default)]
    pub boot: Option<Boot>,
}

/// One boot of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Boot {
    /// Its identity.
    pub id: String,
    /// Its stages so far, in order.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// All bytes sent for it.
    #[serde(default)]
    pub bytes: u64,
    /// The tree that the host says it runs.
    #[serde(default)]
    pub tree: Option<Digest>,
    /// The tree of the image that it was given.
    #[serde(default)]
    pub expected_tree: Option<Digest>,
    /// How it ended, or how far it is.
    pub verdict: Verdict,
}

/// One stage of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stage {
    /// Its name, such as `kernel`.
    pub name: String,
    /// When it was reached, in milliseconds since the boot started.
    pub at_ms: u64,
    /// Milliseconds until the next stage began.
    pub elapsed_ms: u64,
    /// Bytes that it moved.
    pub bytes: u64,
}

/// The appliance's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How it is.
    pub state: Condition,
    /// The same in words.
    #[serde(default)]
    pub text: String,
}

/// How a boot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The host says that all is well.
    Healthy,
    /// On its way.
    Booting,
    /// Up, and not well.
    Unhealthy,
    /// It gave up.
    Failed,
    /// Nothing was heard.
    Silent,
}

impl HostView {
    /// Says how the host is; silent when it never booted.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.boot
            .as_ref()
            .map_or(Condition::Silent, |boot| boot.verdict.state)
    }

    /// Says whether the host is well and runs exactly this tree.
    #[must_use]
    pub fn runs(&self, tree: &Digest) -> bool {
        self.condition() == Condition::Healthy
            && self
                .boot
                .as_ref()
                .is_some_and(|boot| boot.tree.as_ref() == Some(tree))
    }

    /// Says whether waiting longer is of use.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self.condition() {
            Condition::Healthy | Condition::Unhealthy | Condition::Failed => true,
            Condition::Booting | Condition::Silent => false,
        }
    }
}
