//! Why a package is in an image: the shortest ways to it from what the definition asks for.
//!
//! It refuses to resolve: it follows what the locked packages say they need.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::BufReader;

use deb_archive::deb::{Deb, Error as DebError, Kind};
use deb_archive::relation;
use serde::Serialize;

use crate::definition::{self, Definition};
use crate::facts::Facts;
use crate::fetch::FetchedPackage;
use crate::lock::{Package, Use};

/// Ways that are told.
const MOST: usize = 5;

/// Why a package is there; `--json` prints this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reasons {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// What the image does with it.
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// The shortest ways to it; the most telling first.
    pub chains: Vec<Chain>,
}

/// One way from what is asked for to a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Chain {
    /// Who asks: the name of a definition, or `essential`.
    pub asked_by: String,
    /// The packages on the way, the one that is asked for first.
    pub packages: Vec<String>,
}

/// Where a file of an image comes from; `--json` prints this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Origin {
    /// The path.
    pub path: String,
    /// Packages that bring it.
    pub packages: Vec<String>,
    /// Whether the definition brings it, over what packages brought.
    pub by_definition: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock has no such package.
    #[error("the lock of `{image}` has no package `{package}`{}", like(near))]
    NotThere {
        /// The image.
        image: String,
        /// The package.
        package: String,
        /// Packages with a name like it.
        near: Vec<String>,
    },
    /// Nothing brings the file.
    #[error(
        "neither a package nor the definition of `{image}` brings `/{path}`: a maintainer script or the builder makes it, or it is not there"
    )]
    NoOrigin {
        /// The image.
        image: String,
        /// The path.
        path: String,
    },
    /// A package cannot be read.
    #[error("failed to read package `{package}`")]
    Read {
        /// The package.
        package: String,
        /// Why.
        source: DebError,
    },
    /// A package cannot be opened.
    #[error("failed to open package `{package}`")]
    Open {
        /// The package.
        package: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Finds why a package is in the image of a definition.
///
/// # Errors
/// When it is not there.
pub fn package(
    definition: &Definition,
    packages: &[(&Package, &Facts)],
    name: &str,
) -> Result<Reasons, Error> {
    let kernel = definition.kernel.as_ref().map(|kernel| &*kernel.package);
    // The package that is asked for only leads to the one with the kernel, which is locked.
    let is_it = |package: &Package| {
        package.name == name || (package.usage == Use::Kernel && kernel == Some(name))
    };
    let found = packages.iter().find(|(package, _)| is_it(package));
    let (package, _) = found.ok_or_else(|| Error::NotThere {
        image: definition.name.clone(),
        package: name.to_owned(),
        near: near(packages, name),
    })?;
    let chains = match package.usage {
        Use::Install => shortest(packages, &asked(definition), name),
        usage => {
            let lead = kernel.filter(|lead| usage == Use::Kernel && *lead != package.name);
            let way = lead.into_iter().chain([&*package.name]);
            vec![Chain {
                asked_by: format!("{} ({})", definition.name, usage.word()),
                packages: way.map(str::to_owned).collect(),
            }]
        }
    };
    Ok(Reasons {
        package: package.name.clone(),
        version: package.version.clone(),
        usage: package.usage.word(),
        chains,
    })
}

/// Names that hold what was asked for, or begin as it does.
fn near(packages: &[(&Package, &Facts)], name: &str) -> Vec<String> {
    let stem = name.trim_end_matches(|last: char| last.is_ascii_digit() || ".-+".contains(last));
    let names = packages.iter().map(|(package, _)| &package.name);
    let like = names.filter(|one| !stem.is_empty() && one.contains(stem));
    let like: BTreeSet<_> = like.cloned().collect();
    like.into_iter().take(MOST).collect()
}

fn like(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!(", but `{}`", near.join("`, `")),
    }
}

/// Which definition asks for each package; of several the topmost parent.
fn asked(definition: &Definition) -> BTreeMap<String, String> {
    let mut asked = BTreeMap::new();
    for directory in &definition.ancestors {
        let own;
        let one = if *directory == definition.directory {
            definition
        } else {
            match definition::load_for(directory, Some(&definition.architecture)) {
                Ok(parent) => {
                    own = parent;
                    &own
                }
                // A parent may be no image by itself.
                Err(_) => continue,
            }
        };
        for request in one.packages.iter().flat_map(|packages| &packages.install) {
            let by = || one.name.clone();
            asked.entry(request.name.clone()).or_insert_with(by);
        }
    }
    asked
}

fn shortest(
    packages: &[(&Package, &Facts)],
    asked: &BTreeMap<String, String>,
    name: &str,
) -> Vec<Chain> {
    let installed: Vec<_> = packages
        .iter()
        .filter(|(package, _)| package.usage == Use::Install)
        .collect();
    let needs = needs(&installed);
    let mut roots: Vec<(&str, String)> = Vec::new();
    for (package, facts) in &installed {
        if let Some(by) = asked.get(&package.name) {
            roots.push((&package.name, by.clone()));
        } else if facts.essential {
            roots.push((&package.name, "essential".to_owned()));
        }
    }
    let mut chains: Vec<Chain> = roots
        .into_iter()
        .filter_map(|(root, asked_by)| {
            let packages = way(&needs, root, name)?;
            Some(Chain { asked_by, packages })
        })
        .collect();
    let rank = |chain: &Chain| (chain.packages.len(), chain.asked_by == "essential");
    chains.sort_by(|a, b| (rank(a), &a.packages).cmp(&(rank(b), &b.packages)));
    let least = chains.first().map_or(0, |chain| chain.packages.len());
    // Where it is asked for itself, longer ways say nothing.
    chains.retain(|chain| least > 1 || chain.packages.len() == 1);
    chains.truncate(MOST);
    chains
}

/// What each installed package needs of the others.
fn needs<'a>(installed: &[&(&'a Package, &'a Facts)]) -> BTreeMap<&'a str, Vec<&'a str>> {
    let names: BTreeSet<&str> = installed.iter().map(|(one, _)| one.name.as_str()).collect();
    let mut providers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (package, facts) in installed {
        let provided = relation::parse(&facts.provides).unwrap_or_default();
        for one in provided.iter().flatten() {
            providers.entry(one.name).or_default().push(&package.name);
        }
    }
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (package, facts) in installed {
        let relations = [&facts.pre_depends, &facts.depends];
        let groups = relations.map(|text| relation::parse(text).unwrap_or_default());
        let needed = needs.entry(&package.name).or_default();
        for one in groups.iter().flatten().flatten() {
            if let Some(name) = names.get(one.name) {
                needed.push(name);
            }
            needed.extend(providers.get(one.name).into_iter().flatten().copied());
        }
    }
    needs
}

fn way(needs: &BTreeMap<&str, Vec<&str>>, from: &str, to: &str) -> Option<Vec<String>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut open = VecDeque::from([from]);
    while let Some(at) = open.pop_front() {
        if at == to {
            let mut way = vec![to.to_owned()];
            let mut at = at;
            while at != from {
                at = before.get(at)?;
                way.push(at.to_owned());
            }
            way.reverse();
            return Some(way);
        }
        for next in needs.get(at).into_iter().flatten() {
            if *next != from && !before.contains_key(next) {
                before.insert(next, at);
                open.push_back(next);
            }
        }
    }
    None
}

/// A way to find out whether a package has a file, by the spellings of its path.
type Look = fn(&FetchedPackage, &[String]) -> Result<bool, Error>;

/// Finds what brings a path into the image of a definition.
///
/// # Errors
/// When nothing does, or a package cannot be read.
pub fn file(
    definition: &Definition,
    packages: &[FetchedPackage],
    path: &str,
) -> Result<Origin, Error> {
    let path = path.trim_start_matches('/').trim_end_matches('/');
    let spellings = spellings(path);
    let by_definition = definition.files.iter().any(|file| file.path == path)
        || definition.directories.iter().any(|one| one.path == path);
    let mut found = Vec::new();
    // Most are listed in a few kilobytes at the front of their package; only links and the like are not.
    let looks: [Look; 2] = [listed, archived];
    for look in looks {
        for package in packages {
            if look(package, &spellings)? {
                found.push(package.entry.name.clone());
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    if found.is_empty() && !by_definition {
        return Err(Error::NoOrigin {
            image: definition.name.clone(),
            path: path.to_owned(),
        });
    }
    Ok(Origin {
        path: format!("/{path}"),
        packages: found,
        by_definition,
    })
}

/// A path with and without the `usr` that its directory was moved into.
fn spellings(path: &str) -> Vec<String> {
    const MOVED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
    let mut spellings = vec![path.to_owned()];
    let other = match path.strip_prefix("usr/") {
        Some(inner) => inner.to_owned(),
        None => format!("usr/{path}"),
    };
    let inner = path.strip_prefix("usr/").unwrap_or(path);
    let first = inner.split('/').next().unwrap_or_default();
    if MOVED.contains(&first) {
        spellings.push(other);
    }
    spellings
}

fn open(package: &FetchedPackage) -> Result<Deb<'static>, Error> {
    let file = File::open(&package.path).map_err(|source| Error::Open {
        package: package.entry.name.clone(),
        source,
    })?;
    let reader = BufReader::with_capacity(128 << 10, file);
    Deb::open(reader).map_err(|source| unreadable(package, source))
}

fn unreadable(package: &FetchedPackage, source: DebError) -> Error {
    Error::Read {
        package: package.entry.name.clone(),
        source,
    }
}

/// Whether a package lists a regular file or a file of configuration.
fn listed(package: &FetchedPackage, spellings: &[String]) -> Result<bool, Error> {
    let deb = open(package)?;
    let control = deb.control();
    let is_it = |path: &str| spellings.iter().any(|one| one == path);
    if control.conffiles().into_iter().any(is_it) {
        return Ok(true);
    }
    let Some(sums) = control.files.get("md5sums") else {
        return Ok(false);
    };
    let sums = String::from_utf8_lossy(&sums.bytes);
    let mut paths = sums.lines().filter_map(|line| line.split_once("  "));
    Ok(paths.any(|(_, path)| is_it(path)))
}

/// Whether a package has anything but a directory at the path.
fn archived(package: &FetchedPackage, spellings: &[String]) -> Result<bool, Error> {
    let damaged = |source| unreadable(package, source);
    let mut data = open(package)?.into_data();
    for entry in data.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let is_directory = matches!(entry.kind(), Kind::Directory);
        let path = entry.path();
        if !is_directory && spellings.iter().any(|one| one.as_bytes() == path) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_way_is_told() {
        let needs: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
            ("a", vec!["b", "c"]),
            ("b", vec!["d"]),
            ("c", vec!["a", "e"]),
            ("d", vec!["e"]),
        ]);
        let way = |from, to| way(&needs, from, to).map(|way| way.join(" "));
        assert_eq!(way("a", "e").as_deref(), Some("a c e"));
        assert_eq!(way("a", "a").as_deref(), Some("a"));
        assert_eq!(way("e", "a"), None);
    }

    #[test]
    fn paths_are_looked_for_in_both_spellings() {
        assert_eq!(spellings("bin/sh"), ["bin/sh", "usr/bin/sh"]);
        assert_eq!(spellings("usr/lib64/x"), ["usr/lib64/x", "lib64/x"]);
        assert_eq!(spellings("usr/share/x"), ["usr/share/x"]);
        assert_eq!(spellings("etc/x"), ["etc/x"]);
    }
}
