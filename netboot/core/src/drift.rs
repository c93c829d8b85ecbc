//! Where a host is not as it is wanted: its tree, its files, its power.
//!
//! It refuses to change anything: the lifecycle heals what the role's policy names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lifecycle::{Held, HostState, Policy, Power, Watched, held, span};

/// In what a host is not as it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drift {
    /// It is off and should be on, or the other way round.
    Power,
    /// It runs another tree than its generation's.
    Tree,
    /// Files of its tree were changed since it booted.
    Overlay,
}

impl Drift {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Power, Self::Tree, Self::Overlay];

    /// Returns the word of a site file.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Tree => "tree",
            Self::Overlay => "overlay",
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A word that names no drift.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of `power`, `tree`, `overlay`")]
pub struct UnknownDrift(String);

impl FromStr for Drift {
    type Err = UnknownDrift;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|drift| drift.label() == word);
        found.ok_or_else(|| UnknownDrift(word.chars().take(80).collect()))
    }
}

/// One way in which a host is not as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// In what.
    pub drift: Drift,
    /// What is wanted and what was seen, for the operator.
    pub text: String,
    /// What is done about it.
    pub healing: String,
}

/// Returns everything in which a host is not as it is wanted.
#[must_use]
pub fn findings(state: &HostState, policy: &Policy) -> Vec<Finding> {
    let finding = |(drift, since, text)| Finding {
        drift,
        text,
        healing: match held(state, policy, drift, since) {
            _ if state.work().is_some() => "work on the host is under way".to_owned(),
            Some(Held::ByPolicy) => "not healed by policy".to_owned(),
            Some(Held::TooOften(count)) => {
                format!("healed {count} times already; left to a person")
            }
            Some(Held::Until(wait)) => format!("healed in {} if it stays so", span(wait)),
            None => "healed next".to_owned(),
        },
    };
    drifted(state).into_iter().map(finding).collect()
}

/// Returns each drift, since when it is watched, and what it is.
pub(crate) fn drifted(state: &HostState) -> Vec<(Drift, Watched, String)> {
    let seen = &state.seen;
    let mut all = Vec::new();
    if let (Some(since), Some(wanted), Some(power)) =
        (seen.power_off_since, state.wanted, seen.power)
        // What is not known now is not known to differ.
        && matches!(power, Power::On | Power::Off)
    {
        let text = format!("it is {}, and wanted {}", power.label(), wanted.label());
        all.push((Drift::Power, since, text));
    }
    if let (Some(since), Some(tree), Some(desired)) =
        (seen.tree_off_since, seen.tree, state.boots())
        && tree != desired.image.tree
    {
        let text = format!(
            "it runs tree {}, and generation {} is tree {}",
            tree.short(),
            desired.number,
            desired.image.tree.short()
        );
        all.push((Drift::Tree, since, text));
    }
    if let Some(since) = seen.overlay_since {
        let shown: Vec<&str> = seen.overlay.iter().take(5).map(String::as_str).collect();
        let more = seen.overlay.len().saturating_sub(shown.len()) as u64;
        let more = more.saturating_add(seen.overlay_omitted);
        let mut text = format!("files were changed: {}", shown.join(", "));
        if more > 0 {
            text = format!("{text} and {more} more");
        }
        all.push((Drift::Overlay, since, text));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_site_file_are_read_back() {
        for drift in Drift::ALL {
            assert_eq!(drift.to_string().parse(), Ok(drift));
        }
        assert!("heal".parse::<Drift>().is_err());
    }
}
