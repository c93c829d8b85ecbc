//! Environments and parameters: what differs between staging and production, and between hosts.
//!
//! It refuses parameters that are not plain values: structure belongs in the image.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::read::{Place, Problems, Table};
use super::word::{Label, ParameterName};
use super::{Host, ImageRef, ProblemKind, Site, check};

/// Values that hosts are given at boot, by name.
pub type Parameters = BTreeMap<Arc<str>, Parameter>;

/// One value that hosts are given at boot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parameter {
    /// True or false.
    Truth(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(Arc<str>),
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truth(truth) => write!(f, "{truth}"),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A part of the site that changes before or after others: staging, production.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Parameters of its hosts.
    pub parameters: Parameters,
    /// Images of roles that differ from the role's own, by role.
    pub images: BTreeMap<Arc<str>, ImageRef>,
}

/// An environment that was read, with the places that later checks point at.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) environment: Environment,
    roles: Vec<(Arc<str>, Place)>,
}

/// Reads `[environment.X]`.
pub(super) fn read(mut table: Table<'_>, problems: &mut Problems<'_>) -> Draft {
    let parameters = read_parameters(&mut table, problems);
    let images = table.pairs::<Label, ImageRef>("images", problems);
    table.finish(problems);
    let roles = images
        .iter()
        .map(|(role, _)| (Arc::clone(&role.value.0), role.place.clone()))
        .collect();
    let images = images
        .into_iter()
        .map(|(role, image)| (role.value.0, image.value))
        .collect();
    let environment = Environment { parameters, images };
    Draft { environment, roles }
}

/// Reads `parameters` of the site, an environment, a role or a host.
pub(super) fn read_parameters(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Parameters {
    /// What fits a host's configuration beside everything else.
    const LONGEST: usize = 4096;
    const MOST: usize = 256;
    let mut parameters = Parameters::new();
    for (name, value) in table.parameters("parameters", problems) {
        let long = matches!(&value.value, Parameter::Text(text) if text.len() > LONGEST);
        if long || parameters.len() == MOST {
            let text = format!("there are at most {MOST} parameters of at most {LONGEST} bytes");
            problems.contradiction(&value.place, text);
            break;
        }
        match name.value.parse::<ParameterName>() {
            Ok(parsed) => drop(parameters.insert(parsed.0, value.value)),
            Err(error) => {
                let key = "parameters".to_owned();
                let reason = error.to_string();
                problems.add(&name.place, ProblemKind::BadValue { key, reason });
            }
        }
    }
    parameters
}

/// Checks that environments and their roles exist.
pub(super) fn check(draft: &check::Draft, problems: &mut Problems<'_>) {
    for environment in draft.environments.values() {
        for (role, place) in &environment.value.roles {
            if !draft.unread.contains(&check::Part::Role) && !draft.roles.contains_key(role) {
                problems.contradiction(place, format!("there is no role `{role}`"));
            }
        }
    }
    for host in &draft.hosts {
        if let (Some(name), Some(place)) = (&host.host.environment, &host.environment)
            && !draft.unread.contains(&check::Part::Environment)
            && !draft.environments.contains_key(name)
        {
            problems.contradiction(place, format!("there is no environment `{name}`"));
        }
    }
}

impl Site {
    /// Returns the image that a host boots: its environment's for its role, or else the role's.
    #[must_use]
    pub fn image_of(&self, host: &Host) -> Option<&ImageRef> {
        let of_environment = host
            .environment
            .as_ref()
            .and_then(|name| self.environments.get(name)?.images.get(&host.role));
        of_environment.or_else(|| self.roles.get(&host.role).map(|role| &role.image))
    }

    /// Returns all images that the site names, each once, in the order of their names.
    #[must_use]
    pub fn images(&self) -> Vec<&ImageRef> {
        let of_environments = self.environments.values().flat_map(|it| it.images.values());
        let of_roles = self.roles.values().map(|role| &role.image);
        let mut images: Vec<_> = of_roles.chain(of_environments).collect();
        images.sort_by_key(|image| (&image.name, image.digest));
        images.dedup();
        images
    }

    /// Returns a host's parameters: the site's, then its role's, then its environment's, then its
    /// own; the later wins, so that an environment changes what a role says, as it does for images.
    #[must_use]
    pub fn parameters_of(&self, host: &Host) -> Parameters {
        let environment = host
            .environment
            .as_ref()
            .and_then(|name| self.environments.get(name));
        let environment = environment.map(|environment| &environment.parameters);
        let role = self.roles.get(&host.role).map(|role| &role.parameters);
        [
            Some(&self.parameters),
            role,
            environment,
            Some(&host.parameters),
        ]
        .into_iter()
        .flatten()
        .flatten()
        .map(|(name, value)| (Arc::clone(name), value.clone()))
        .collect()
    }
}
