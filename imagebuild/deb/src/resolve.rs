//! Resolution: which packages an empty system needs for what is asked of it.
//!
//! It answers as `apt-get install --no-install-recommends` would on an empty system: the newest version of each package,
//! the first alternative that works, real packages before those that provide them. Recommendations are not followed.
//! It refuses to choose an older version of anything while the newest ones fit together.

mod catalogue;
mod provider;
mod walk;

use std::collections::BTreeMap;

use resolvo::{Problem, Solver, UnsolvableOrCancelled};

use crate::packages::{Package, Universe};
use crate::relation;
use catalogue::{Catalogue, Versions};
use provider::Provider;

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Request<'r> {
    /// Architecture of the system.
    pub architecture: &'r str,
    /// Packages to install; with a version, exactly that one.
    pub install: Vec<(&'r str, Option<&'r str>)>,
    /// Whether everything essential is installed too.
    pub essential: Essential,
}

/// Whether everything essential is installed too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Essential {
    /// It is: the system is to run.
    #[default]
    Include,
    /// It is not.
    Omit,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No suite has a package of this name.
    #[error("no suite has a package `{0}`")]
    UnknownPackage(String),
    /// No suite has the package in this version.
    #[error("package `{name}` is not there in version `{version}`, but in {}", list(.found))]
    UnknownVersion {
        /// The package.
        name: String,
        /// The version that was asked for.
        version: String,
        /// The versions that are there, newest first.
        found: Vec<String>,
    },
    /// A package has malformed relations.
    #[error("package `{package}` has malformed relations")]
    Relation {
        /// The package.
        package: String,
        /// What is malformed.
        source: relation::Malformed,
    },
    /// Nothing satisfies the request.
    #[error("the packages do not fit together: {0}")]
    Unsolvable(String),
}

fn list(versions: &[String]) -> String {
    let quoted: Vec<_> = versions
        .iter()
        .map(|version| format!("`{version}`"))
        .collect();
    quoted.join(", ")
}

/// Finds the packages to install, sorted by name. Equal requests of equal universes give equal answers.
///
/// # Errors
/// When a package is unknown, or nothing satisfies the request.
pub fn resolve<'u, 'a>(
    universe: &'u Universe<'a>,
    request: &Request<'_>,
) -> Result<Vec<&'u Package<'a>>, Error> {
    let mut pins = BTreeMap::new();
    for (name, version) in &request.install {
        find(universe, name, *version)?;
        if let Some(version) = version {
            pins.insert(*name, *version);
        }
    }
    match solve(universe, request, &pins, Versions::Newest) {
        // An exact version may need an older sibling: then all versions are looked at.
        Err(Error::Unsolvable(reason)) if !pins.is_empty() => {
            solve(universe, request, &pins, Versions::All).map_err(|_| Error::Unsolvable(reason))
        }
        outcome => outcome,
    }
}

/// Finds one package by name: the newest, or exactly one version of it. Nothing that it depends on.
///
/// # Errors
/// When there is none.
pub fn find<'u, 'a>(
    universe: &'u Universe<'a>,
    name: &str,
    version: Option<&str>,
) -> Result<&'u Package<'a>, Error> {
    let named = universe.named(name);
    let newest = named
        .first()
        .ok_or_else(|| Error::UnknownPackage(name.to_owned()))?;
    let Some(version) = version else {
        return Ok(newest);
    };
    let exact = named
        .iter()
        .find(|package| package.version.as_str() == version);
    exact.copied().ok_or_else(|| {
        let mut found: Vec<_> = named
            .iter()
            .map(|package| package.version.to_string())
            .collect();
        found.dedup();
        Error::UnknownVersion {
            name: name.to_owned(),
            version: version.to_owned(),
            found,
        }
    })
}

fn solve<'u, 'a>(
    universe: &'u Universe<'a>,
    request: &Request<'_>,
    pins: &BTreeMap<&str, &str>,
    versions: Versions,
) -> Result<Vec<&'u Package<'a>>, Error> {
    let catalogue = Catalogue::new(universe, request.architecture, pins, versions)?;
    let mut roots: Vec<&str> = Vec::new();
    if request.essential == Essential::Include {
        roots.extend(catalogue.essential());
    }
    roots.extend(request.install.iter().map(|(name, _)| *name));
    if let Some(positions) = walk::walk(&catalogue, &roots)? {
        return Ok(chosen(universe, positions));
    }
    let provider = Provider::new(&catalogue);
    let requirements = roots.iter().map(|name| provider.root(name)).collect();
    let mut solver = Solver::new(provider);
    let solution = match solver.solve(Problem::new().requirements(requirements)) {
        Ok(solution) => solution,
        Err(UnsolvableOrCancelled::Unsolvable(conflict)) => {
            let text = conflict.display_user_friendly(&solver).to_string();
            return Err(Error::Unsolvable(text.trim_end().to_owned()));
        }
        // Nothing cancels it.
        Err(UnsolvableOrCancelled::Cancelled(_)) => {
            return Err(Error::Unsolvable("cancelled".to_owned()));
        }
    };
    if let Some((package, source)) = solver.provider().malformed() {
        return Err(Error::Relation { package, source });
    }
    let positions = solution
        .into_iter()
        .map(|id| solver.provider().package(id))
        .collect();
    Ok(chosen(universe, positions))
}

fn chosen<'u, 'a>(universe: &'u Universe<'a>, positions: Vec<usize>) -> Vec<&'u Package<'a>> {
    let mut packages: Vec<_> = positions
        .into_iter()
        .map(|at| &universe.packages()[at])
        .collect();
    packages.sort_by(|one, other| one.name.cmp(other.name));
    packages
}

#[cfg(test)]
mod tests;
