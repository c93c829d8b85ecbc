//! The image service of `OpenStack`.

use serde::Deserialize;

/// Where an image goes in an `OpenStack` cloud.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Target {
    /// Its name in the targets file.
    pub name: String,
}

impl Target {
    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        Vec::new()
    }
}
