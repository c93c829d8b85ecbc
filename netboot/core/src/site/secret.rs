//! Where secrets come from, by name.
//!
//! It refuses to hold one: the shell reads them, and the site knows only where they are.

use std::fmt;
use std::sync::Arc;

use super::ProblemKind;
use super::read::{Place, Problems, Table};
use super::word::{CredentialName, SecretPath, VariableName};

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file: relative to the site directory, or absolute on the appliance.
    /// With the ending `.age` it is encrypted for the appliance.
    File(Arc<str>),
    /// A variable of the appliance's environment.
    Environment(Arc<str>),
    /// A credential that systemd gives the appliance.
    Credential(Arc<str>),
}

impl SecretSource {
    /// Returns the path, when it is a file of the site directory.
    #[must_use]
    pub fn site_file(&self) -> Option<&Arc<str>> {
        match self {
            Self::File(path) => (!path.starts_with('/')).then_some(path),
            Self::Environment(_) | Self::Credential(_) => None,
        }
    }

    /// Tells whether it is a file that only the appliance can decrypt.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self, Self::File(path) if path.ends_with(".age"))
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file `{path}`"),
            Self::Environment(name) => write!(f, "environment variable `{name}`"),
            Self::Credential(name) => write!(f, "credential `{name}`"),
        }
    }
}

/// A secret's source that was read, and where it was given.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) source: SecretSource,
    pub(super) place: Place,
}

/// Reads `[secret.X]`.
pub(super) fn read(mut table: Table<'_>, problems: &mut Problems<'_>) -> Option<Draft> {
    let file = table.parsed::<SecretPath>("file", problems);
    let env = table.parsed::<VariableName>("env", problems);
    let credential = table.parsed::<CredentialName>("credential", problems);
    let given = ["file", "env", "credential"].map(|key| usize::from(table.has(key)));
    let place = table.place.clone();
    match given.iter().sum::<usize>() {
        0 => {
            let table = table.title.clone();
            let key = "file";
            problems.add(&place, ProblemKind::MissingKey { key, table });
        }
        1 => {}
        _ => {
            let text = "a secret comes from one of `file`, `env` and `credential`".to_owned();
            problems.contradiction(&place, text);
        }
    }
    table.finish(problems);
    let file = file.map(|file| (SecretSource::File(file.value.0), file.place));
    let env = env.map(|env| (SecretSource::Environment(env.value.0), env.place));
    let credential = credential.map(|name| (SecretSource::Credential(name.value.0), name.place));
    let (source, place) = file.or(env).or(credential)?;
    Some(Draft { source, place })
}
