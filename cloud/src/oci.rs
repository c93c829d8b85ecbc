//! Registries of container images: what a target says. The conversation with a registry is the builder's own.

use serde::Deserialize;

/// Where the container image goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Target {
    /// Its name in the targets file.
    pub name: String,
    /// The repository, such as `registry.example/team/host`.
    pub repository: String,
    /// Tags that move to the container image last; `{image}`, `{version}` and `{architecture}` are replaced.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Tags that move to the netboot image last.
    #[serde(default)]
    pub netboot_tags: Vec<String>,
    /// A repository of the same registry that may have layers already.
    #[serde(default)]
    pub mount_from: Option<String>,
}

impl Target {
    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.repository.is_empty() {
            problems.push("`repository` is empty".to_owned());
        }
        problems
    }
}
