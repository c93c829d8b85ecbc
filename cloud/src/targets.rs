//! The targets: which clouds an image goes to, and how. A file that people keep in git, without a secret in it.
//!
//! It refuses keys that it does not know, and tells everything that is wrong at once.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{aws, azure, gce, glance, oci};

/// All targets of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Targets {
    /// Amazon's cloud: an AMI in each region.
    pub aws: Vec<aws::Target>,
    /// Google's cloud: an image of a project.
    pub gce: Vec<gce::Target>,
    /// Microsoft's cloud: a managed image or a version in a gallery.
    pub azure: Vec<azure::Target>,
    /// The image service of `OpenStack`.
    pub glance: Vec<glance::Target>,
    /// Registries of container images.
    pub oci: Vec<oci::Target>,
}

/// Why a targets file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read as targets.
    #[error("the targets cannot be read: {0}")]
    Text(#[from] toml::de::Error),
    /// It says things that cannot be.
    #[error("{}", .0.join("\n"))]
    Problems(Vec<String>),
}

impl Targets {
    /// Reads a targets file.
    ///
    /// # Errors
    /// When it is no TOML of this shape, or what it says cannot be.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let targets: Self = toml::from_str(text)?;
        let problems = targets.check();
        if problems.is_empty() {
            Ok(targets)
        } else {
            Err(Error::Problems(problems))
        }
    }

    /// Names of all targets, in the order in which they are published to.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let aws = self.aws.iter().map(|target| &target.name);
        let gce = self.gce.iter().map(|target| &target.name);
        let azure = self.azure.iter().map(|target| &target.name);
        let glance = self.glance.iter().map(|target| &target.name);
        let oci = self.oci.iter().map(|target| &target.name);
        let names = aws.chain(gce).chain(azure).chain(glance).chain(oci);
        names.map(String::as_str).collect()
    }

    /// Keeps only targets of these names; returns names that no target has.
    pub fn select(&mut self, names: &[String]) -> Vec<String> {
        let known: BTreeSet<String> = self.names().into_iter().map(str::to_owned).collect();
        let wanted = |name: &String| names.contains(name);
        self.aws.retain(|target| wanted(&target.name));
        self.gce.retain(|target| wanted(&target.name));
        self.azure.retain(|target| wanted(&target.name));
        self.glance.retain(|target| wanted(&target.name));
        self.oci.retain(|target| wanted(&target.name));
        let unknown = names.iter().filter(|name| !known.contains(*name));
        unknown.cloned().collect()
    }

    fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen = BTreeSet::new();
        for name in self.names() {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || name.len() > 63 || !name.chars().all(letters) {
                problems.push(format!(
                    "target `{name}`: a name is 1 to 63 of `a-z`, `0-9` and `-`"
                ));
            }
            if !seen.insert(name) {
                problems.push(format!("target `{name}`: the name is there twice"));
            }
        }
        if seen.is_empty() {
            problems.push(
                "there is no target: `[[aws]]`, `[[gce]]`, `[[azure]]`, `[[glance]]` or `[[oci]]`"
                    .to_owned(),
            );
        }
        let mut projects = BTreeSet::new();
        for target in &self.gce {
            if !projects.insert(&target.project) {
                problems.push(format!(
                    "target `{}`: another target is of project `{}`, too; they would remove and replace each other's images",
                    target.name, target.project
                ));
            }
        }
        let mut projects = BTreeSet::new();
        for target in &self.glance {
            if !projects.insert(&target.openrc) {
                problems.push(format!(
                    "target `{}`: another target has the same credentials; give each project an `openrc` of its own",
                    target.name
                ));
            }
        }
        let mut add = |name: &str, found: Vec<String>| {
            let found = found.into_iter();
            problems.extend(found.map(|problem| format!("target `{name}`: {problem}")));
        };
        self.aws
            .iter()
            .for_each(|target| add(&target.name, target.check()));
        self.gce
            .iter()
            .for_each(|target| add(&target.name, target.check()));
        self.azure
            .iter()
            .for_each(|target| add(&target.name, target.check()));
        self.glance
            .iter()
            .for_each(|target| add(&target.name, target.check()));
        self.oci
            .iter()
            .for_each(|target| add(&target.name, target.check()));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_can_be_used() {
        let mut targets = Targets::parse(include_str!("../examples/targets.toml")).unwrap();
        let names: Vec<_> = targets.names().into_iter().map(str::to_owned).collect();
        assert!(names.len() >= 4, "{names:?}");
        let unknown = targets.select(&["registry".to_owned(), "nobody".to_owned()]);
        assert_eq!(unknown, ["nobody"]);
        assert_eq!(targets.names(), ["registry"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let registry =
            |name: &str| format!("[[oci]]\nname = \"{name}\"\nrepository = \"r.example/a\"\n");
        let cases = [
            ("nothing", String::new(), "there is no target"),
            (
                "a bad name",
                registry("Bad Name"),
                "target `Bad Name`: a name is",
            ),
            (
                "twice",
                registry("a") + &registry("a"),
                "target `a`: the name is there twice",
            ),
            (
                "an unknown key",
                registry("a") + "secret = \"x\"\n",
                "line 4",
            ),
            (
                "one project twice",
                "[[glance]]\nname = \"a\"\n[[glance]]\nname = \"b\"\n".to_owned(),
                "target `b`: another target has the same credentials",
            ),
            (
                "no repository",
                "[[oci]]\nname = \"a\"\nrepository = \"\"\n".to_owned(),
                "`repository` is empty",
            ),
        ];
        for (name, text, expected) in cases {
            let error = Targets::parse(&text).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(expected), "{name}: {said}");
        }
        let both = registry("A") + &registry("B");
        let Error::Problems(problems) = Targets::parse(&both).unwrap_err() else {
            panic!("they can be read");
        };
        assert_eq!(problems.len(), 2, "all at once");
    }
}
