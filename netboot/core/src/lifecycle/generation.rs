//! The numbered deployments of one host.
//!
//! It refuses to forget a generation that the host may have to go back to.

use std::fmt;

use image_manifest::Digest;
use serde::{Deserialize, Serialize};

use super::state::Watched;
use crate::Timestamp;

pub use crate::site::Parameters;

/// An image, resolved to what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Its tree digest.
    pub tree: Digest,
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.manifest.short())
    }
}

/// One numbered deployment of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Generation {
    /// Its number; the first is 1.
    pub number: u32,
    /// What the host boots.
    pub image: Image,
    /// What it is told besides.
    #[serde(default)]
    pub parameters: Parameters,
    /// When it was made.
    pub created: Timestamp,
    /// When it was made, as its host was watched.
    #[serde(default)]
    pub created_watched: Watched,
    /// Who asked for it.
    pub by: String,
    /// Why it was made.
    pub reason: Reason,
    /// Ids of the requests that it answers, so that a repeated request makes no second one.
    #[serde(default)]
    pub intents: Vec<String>,
    /// What became of it.
    pub outcome: Judgement,
}

impl Generation {
    /// Tells whether its host reported itself well on it.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        matches!(self.outcome, Judgement::Healthy { .. })
    }

    /// Tells whether it boots the same image with the same parameters.
    #[must_use]
    pub fn same_as(&self, image: &Image, parameters: &Parameters) -> bool {
        self.image.manifest == image.manifest
            && self.image.tree == image.tree
            && self.parameters == *parameters
    }
}

/// Why a generation was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "reason",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Reason {
    /// Somebody deployed it.
    Deploy,
    /// It is generation `of` again, because somebody or a missed deadline asked for that.
    Rollback {
        /// Number of the generation that it repeats.
        of: u32,
    },
    /// It is generation `of` again, because the host had drifted from it.
    Heal {
        /// Number of the generation that it repeats.
        of: u32,
    },
    /// The host had none and took the image of its role.
    Adopted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy => f.write_str("deploy"),
            Self::Rollback { of } => write!(f, "roll back to {of}"),
            Self::Heal { of } => write!(f, "heal of {of}"),
            Self::Adopted => f.write_str("adopted"),
        }
    }
}

/// What became of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "outcome",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Judgement {
    /// Not known yet.
    Pending,
    /// Its host reported itself well on it.
    Healthy {
        /// When it was proven.
        at: Timestamp,
        /// Milliseconds that it took from the request on, as watched.
        took_ms: u64,
    },
    /// It was not proven, or could not be tried.
    Failed {
        /// When it was given up.
        at: Timestamp,
        /// Why, for the operator.
        why: String,
    },
    /// Another one was asked for before it was proven.
    Superseded {
        /// When.
        at: Timestamp,
    },
    /// Somebody called it off.
    Cancelled {
        /// When.
        at: Timestamp,
        /// Who.
        by: String,
    },
}

impl Judgement {
    /// Returns it in one word.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Healthy { .. } => "healthy",
            Self::Failed { .. } => "failed",
            Self::Superseded { .. } => "superseded",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}
