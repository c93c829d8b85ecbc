//! The targets: which clouds an image goes to, and how. A file that people keep in git, without a secret in it.
//!
//! It refuses keys that it does not know, and tells everything that is wrong at once.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

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

/// One thing that is wrong with a targets file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Bytes of the text that it is about; empty for the file as a whole.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    /// Why a text is no TOML, or not of the shape that is read.
    #[must_use]
    pub fn of(text: &str, error: &toml::de::Error) -> Self {
        let mut span = error.span().unwrap_or_default();
        // What ends too early is told of the letter before its end.
        let before = text.get(..span.start).unwrap_or_default();
        if span.is_empty()
            && let Some(last) = before.trim_end().char_indices().next_back()
        {
            span = last.0..last.0 + last.1.len_utf8();
        }
        Self {
            span,
            message: error.message().to_owned(),
        }
    }
}

/// Where the names of targets stand.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Places {
    aws: Vec<Place>,
    gce: Vec<Place>,
    azure: Vec<Place>,
    glance: Vec<Place>,
    oci: Vec<Place>,
}

#[derive(Debug, Deserialize)]
struct Place {
    name: Spanned<toml::Value>,
}

impl Places {
    /// In the order of [`Targets::names`].
    fn spans(&self) -> Vec<Range<usize>> {
        let all = [&self.aws, &self.gce, &self.azure, &self.glance, &self.oci];
        let all = all.into_iter().flatten();
        all.map(|place| place.name.span()).collect()
    }
}

impl Targets {
    /// Reads a targets file.
    ///
    /// # Errors
    /// All that is wrong with it, when it is no TOML of this shape, or what it says cannot be.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let read = |error: toml::de::Error| vec![Problem::of(text, &error)];
        let targets: Self = toml::from_str(text).map_err(read)?;
        let places: Places = toml::from_str(text).map_err(read)?;
        let problems = targets.check(&places.spans());
        if problems.is_empty() {
            Ok(targets)
        } else {
            Err(problems)
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

    /// What is wrong, target by target; `spans` are the places of their names.
    fn check(&self, spans: &[Range<usize>]) -> Vec<Problem> {
        let names = self.names();
        if names.is_empty() {
            let message =
                "there is no target: `[[aws]]`, `[[gce]]`, `[[azure]]`, `[[glance]]` or `[[oci]]`";
            return vec![Problem {
                span: 0..0,
                message: message.to_owned(),
            }];
        }
        let own = self.own_problems();
        let mut seen = BTreeSet::new();
        let mut problems = Vec::new();
        for (at, (name, own)) in names.into_iter().zip(own).enumerate() {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let mut found = Vec::new();
            if name.is_empty() || name.len() > 63 || !name.chars().all(letters) {
                found.push("a name is 1 to 63 of `a-z`, `0-9` and `-`".to_owned());
            }
            if !seen.insert(name) {
                found.push("the name is there twice".to_owned());
            }
            found.extend(own);
            problems.extend(found.into_iter().map(|problem| Problem {
                span: spans.get(at).cloned().unwrap_or_default(),
                message: format!("target `{name}`: {problem}"),
            }));
        }
        problems
    }

    /// What each target says that cannot be, in the order of their names.
    fn own_problems(&self) -> Vec<Vec<String>> {
        let mut all: Vec<Vec<String>> = self.aws.iter().map(aws::Target::check).collect();
        let mut projects = BTreeSet::new();
        for target in &self.gce {
            let mut found = target.check();
            if !projects.insert(&target.project) {
                found.push(format!(
                    "another target is of project `{}`, too; they would remove and replace each other's images",
                    target.project
                ));
            }
            all.push(found);
        }
        all.extend(self.azure.iter().map(azure::Target::check));
        let mut projects = BTreeSet::new();
        for target in &self.glance {
            let mut found = target.check();
            if !projects.insert(&target.openrc) {
                found.push(
                    "another target has the same credentials; give each project an `openrc` of its own"
                        .to_owned(),
                );
            }
            all.push(found);
        }
        all.extend(self.oci.iter().map(oci::Target::check));
        all
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
                "unknown field `secret`",
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
            let problems = Targets::parse(&text).unwrap_err();
            let said = problems.iter().any(|one| one.message.contains(expected));
            assert!(said, "{name}: {problems:?}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_with_its_place() {
        let text = "[[oci]]\nname = \"A\"\nrepository = \"r.example/a\"\n\
            [[aws]]\nname = \"b\"\nregions = [\"mars\"]\nendpoint = \"http://10.0.0.1\"\n";
        let problems = Targets::parse(text).unwrap_err();
        let told: Vec<_> = problems
            .iter()
            .map(|one| (&text[one.span.clone()], one.message.as_str()))
            .collect();
        let expected = [
            ("\"b\"", "target `b`: `mars` is no region"),
            (
                "\"b\"",
                "target `b`: `endpoint`: `http://10.0.0.1` is no URL of `https`, or of `http` on this computer",
            ),
            (
                "\"A\"",
                "target `A`: a name is 1 to 63 of `a-z`, `0-9` and `-`",
            ),
        ];
        assert_eq!(told, expected);
        let unknown = "[[oci]]\nname = \"a\"\nrepository = \"r.example/a\"\nsecret = \"x\"\n";
        let problems = Targets::parse(unknown).unwrap_err();
        assert_eq!(&unknown[problems[0].span.clone()], "secret");
        let problems = Targets::parse("[[oci]]\nnonsense").unwrap_err();
        assert_eq!(problems[0].span, 15..16, "{problems:?}");
    }
}
