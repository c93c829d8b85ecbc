//! The modules that an image keeps: those that patterns match, and all that they need.
//!
//! It refuses to guess: a pattern that matches nothing and a dependency that is not there are
//! errors.

use std::collections::{BTreeMap, BTreeSet};

use super::modinfo::Modinfo;
use super::{glob, module_name};

/// Which modules are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Patterns<'a> {
    /// Patterns over paths below `lib/modules/<release>`, or names.
    pub keep: &'a [String],
    /// Patterns or names of those that are not kept unless another module needs them.
    pub exclude: &'a [String],
}

/// Why modules could not be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectError<E: std::error::Error + 'static> {
    /// Patterns that match no module, loadable or built in.
    #[error("no kernel module matches {}", quoted(.patterns))]
    Unmatched {
        /// All of them.
        patterns: Vec<String>,
    },
    /// A module depends on one that is not there.
    #[error("kernel module `{module}` depends on `{depends}`, which the kernel does not have")]
    Missing {
        /// The module.
        module: String,
        /// What it depends on.
        depends: String,
    },
    /// A module could not be read.
    #[error("failed to read kernel module `{path}`")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        source: E,
    },
}

fn quoted(patterns: &[String]) -> String {
    let quoted: Vec<_> = patterns
        .iter()
        .map(|pattern| format!("`{pattern}`"))
        .collect();
    quoted.join(", ")
}

/// Modules by name, with all that they need among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    modules: BTreeMap<String, (String, Modinfo)>,
}

/// Selects modules from a list of paths below `lib/modules/<release>`.
///
/// `built_in` lists the modules that are part of the kernel, as `modules.builtin` does. `read`
/// is asked for what each selected module says about itself, and for no other.
///
/// # Errors
/// When a pattern matches nothing, a dependency is not there, or a module cannot be read.
pub fn select<E: std::error::Error + 'static>(
    paths: &[String],
    built_in: &[String],
    patterns: Patterns<'_>,
    mut read: impl FnMut(&[&str]) -> Vec<Result<Modinfo, E>>,
) -> Result<Modules, SelectError<E>> {
    let by_name: BTreeMap<String, &str> = paths
        .iter()
        .filter_map(|path| Some((module_name(path)?, path.as_str())))
        .collect();
    let built_in_names: BTreeSet<_> = built_in.iter().filter_map(|p| module_name(p)).collect();
    let mut wanted = BTreeSet::new();
    let mut unmatched = Vec::new();
    for pattern in patterns.keep {
        let matched = by_name.iter().filter(|(_, path)| is_meant(pattern, path));
        let mut any = false;
        for (name, path) in matched {
            any = true;
            if !patterns
                .exclude
                .iter()
                .any(|pattern| is_meant(pattern, path))
            {
                wanted.insert(name.clone());
            }
        }
        if !any && !built_in.iter().any(|path| is_meant(pattern, path)) {
            unmatched.push(pattern.clone());
        }
    }
    if !unmatched.is_empty() {
        return Err(SelectError::Unmatched {
            patterns: unmatched,
        });
    }
    let mut modules = BTreeMap::new();
    while !wanted.is_empty() {
        let round: Vec<String> = std::mem::take(&mut wanted).into_iter().collect();
        let paths: Vec<&str> = round.iter().map(|name| by_name[name]).collect();
        for ((name, path), info) in round.into_iter().zip(&paths).zip(read(&paths)) {
            let info = info.map_err(|source| SelectError::Read {
                path: (*path).to_owned(),
                source,
            })?;
            for depends in &info.depends {
                if by_name.contains_key(depends) {
                    wanted.insert(depends.clone());
                } else if !built_in_names.contains(depends) {
                    return Err(SelectError::Missing {
                        module: name,
                        depends: depends.clone(),
                    });
                }
            }
            let soft = info.softdeps.iter().map(|name| name.replace('-', "_"));
            wanted.extend(soft.filter(|name| by_name.contains_key(name)));
            modules.insert(name, ((*path).to_owned(), info));
        }
        wanted.retain(|name| !modules.contains_key(name));
    }
    Ok(Modules { modules })
}

/// Whether a pattern means the module at a path: by name, or by path with or without suffix.
fn is_meant(pattern: &str, path: &str) -> bool {
    if pattern.contains(['/', '*', '?']) {
        let stem = path.split_once(".ko").map_or(path, |(stem, _)| stem);
        glob::matches(pattern, path) || glob::matches(pattern, stem)
    } else {
        module_name(path).is_some_and(|name| name == pattern.replace('-', "_"))
    }
}

impl Modules {
    /// Goes through the modules, sorted by name: name, path, what it says about itself.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Modinfo)> {
        let modules = self.modules.iter();
        modules.map(|(name, (path, info))| (name.as_str(), path.as_str(), info))
    }

    /// Finds a module by name: its path, and what it says about itself.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&(String, Modinfo)> {
        self.modules.get(name)
    }

    /// Lists firmware that the modules may ask for, as patterns below `lib/firmware`.
    #[must_use]
    pub fn firmware(&self) -> BTreeSet<&str> {
        let infos = self.modules.values().flat_map(|(_, info)| &info.firmware);
        infos.map(String::as_str).collect()
    }

    /// Lists all that a module needs, in the order in which it is loaded, without the module.
    #[must_use]
    pub fn load_order(&self, name: &str) -> Vec<&str> {
        let Some((name, _)) = self.modules.get_key_value(name) else {
            return Vec::new();
        };
        let mut order = Vec::new();
        let mut seen = BTreeSet::from([name.as_str()]);
        // A stack of our own: how deep it goes is up to the modules' files.
        let mut open = vec![(name.as_str(), self.needs(name))];
        while let Some((name, needs)) = open.last_mut() {
            match needs.pop() {
                Some(next) if seen.insert(next) => open.push((next, self.needs(next))),
                Some(_) => {}
                None => {
                    order.push(*name);
                    open.pop();
                }
            }
        }
        order.pop();
        order
    }

    /// What a module needs directly, last first.
    fn needs<'a>(&'a self, name: &str) -> Vec<&'a str> {
        let Some((_, info)) = self.modules.get(name) else {
            return Vec::new();
        };
        let soft = info.softdeps.iter().map(|name| name.replace('-', "_"));
        let names: Vec<String> = soft.chain(info.depends.iter().cloned()).collect();
        let known = names
            .iter()
            .rev()
            .filter_map(|name| self.modules.get_key_value(name));
        known.map(|(name, _)| name.as_str()).collect()
    }

    /// Writes the index that stage1 loads modules by: one line a module, parted by tabs: name,
    /// path in the initrd, what is loaded before it, aliases.
    #[must_use]
    pub fn index(&self, path_of: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for (name, path, info) in self.iter() {
            let plain = |alias: &&String| !alias.contains(char::is_whitespace);
            let aliases: Vec<_> = info
                .aliases
                .iter()
                .filter(plain)
                .map(String::as_str)
                .collect();
            let fields = [
                name,
                &path_of(path),
                &self.load_order(name).join(","),
                &aliases.join(" "),
            ];
            text.push_str(&fields.join("\t"));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::modinfo::ModuleError;
    use super::*;

    /// Name, path, depends, softdeps.
    const MODULES: [(&str, &str, &str); 6] = [
        ("kernel/drivers/net/virtio_net.ko.xz", "net_failover", ""),
        ("kernel/net/net_failover.ko.xz", "failover,core", ""),
        ("kernel/net/failover.ko.xz", "core", ""),
        ("kernel/fs/btrfs.ko.xz", "", "raid6-pq absent"),
        ("kernel/lib/raid6_pq.ko.xz", "", ""),
        ("kernel/drivers/net/rare.ko.xz", "", ""),
    ];

    type Names<'a> = &'a [&'a str];

    fn run(keep: &[&str], exclude: &[&str]) -> Result<Modules, SelectError<ModuleError>> {
        let owned = |names: &[&str]| names.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let paths: Vec<_> = MODULES
            .iter()
            .map(|(path, ..)| (*path).to_owned())
            .collect();
        let patterns = Patterns {
            keep: &owned(keep),
            exclude: &owned(exclude),
        };
        let built_in = owned(&["kernel/lib/core.ko", "kernel/fs/ext4/ext4.ko"]);
        select(&paths, &built_in, patterns, |paths| {
            let info = |path: &&str| {
                let found = MODULES.iter().find(|(known, ..)| known == path).unwrap();
                let words = |text: &str| text.split([',', ' ']).map(str::to_owned).collect();
                Ok(Modinfo {
                    depends: if found.1.is_empty() {
                        vec![]
                    } else {
                        words(found.1)
                    },
                    softdeps: if found.2.is_empty() {
                        vec![]
                    } else {
                        words(found.2)
                    },
                    aliases: vec![format!("test:{}", found.0.len())],
                    firmware: vec![],
                })
            };
            paths.iter().map(info).collect()
        })
    }

    #[test]
    fn what_a_module_needs_is_kept_and_loaded_first() {
        let names = |modules: &Modules| {
            modules
                .iter()
                .map(|(name, ..)| name.to_owned())
                .collect::<Vec<_>>()
        };
        let cases: [(&str, Names<'_>, Names<'_>, Names<'_>); 5] = [
            (
                "closed",
                &["virtio-net"],
                &[],
                &["failover", "net_failover", "virtio_net"],
            ),
            ("softdep", &["kernel/fs/**"], &[], &["btrfs", "raid6_pq"]),
            (
                "excluded",
                &["kernel/drivers/net/**"],
                &["rare"],
                &["failover", "net_failover", "virtio_net"],
            ),
            (
                "a dependency wins",
                &["virtio_net"],
                &["kernel/net/**"],
                &["failover", "net_failover", "virtio_net"],
            ),
            ("built in", &["ext4", "kernel/fs/ext4/*"], &[], &[]),
        ];
        for (name, keep, exclude, expected) in cases {
            assert_eq!(names(&run(keep, exclude).unwrap()), expected, "{name}");
        }
        let modules = run(&["virtio_net", "btrfs"], &[]).unwrap();
        assert_eq!(
            modules.load_order("virtio_net"),
            ["failover", "net_failover"]
        );
        assert_eq!(modules.load_order("btrfs"), ["raid6_pq"]);
        let index = modules.index(|path| format!("/{path}"));
        let line = index.lines().last().unwrap();
        assert_eq!(
            line,
            "virtio_net\t/kernel/drivers/net/virtio_net.ko.xz\tfailover,net_failover\ttest:35"
        );
    }

    #[test]
    fn what_matches_nothing_is_named() {
        let error = run(&["virtio_net", "typo", "kernel/typo/**"], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no kernel module matches `typo`, `kernel/typo/**`"
        );
    }
}
