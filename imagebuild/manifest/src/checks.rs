//! The checks that an image brings along for the hosts that run it.
//!
//! They are data in the tree, so every tier has the same ones; who runs them is not said here.

use serde::{Deserialize, Serialize};

/// What must be so on a host that runs an image: the file [`Checks::PATH`] of its tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Checks {
    /// Units that must be active.
    #[serde(default)]
    pub units: Vec<String>,
    /// TCP ports that a program on the host must listen on.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Commands that must end well.
    #[serde(default)]
    pub commands: Vec<CheckCommand>,
}

/// A command that must end with status 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckCommand {
    /// What people call it.
    pub name: String,
    /// Program and arguments; no shell is between.
    pub run: Vec<String>,
    /// How long it may take.
    pub timeout_seconds: u32,
}

impl Checks {
    /// Where they stand in the tree.
    pub const PATH: &str = "usr/lib/firstboot/test.json";

    /// Tells whether there is nothing to check.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.ports.is_empty() && self.commands.is_empty()
    }
}
