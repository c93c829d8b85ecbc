//! Removes from a configured tree what says when, where or in which order it was made.
//!
//! It changes nothing that a package or a definition brought, and no owner.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use image_sandbox::Ownership;

/// Files that hold a time, an inode, a random value, or a former state.
const FILES: [&str; 23] = [
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/01autoremove-kernels",
    "etc/group-",
    "etc/gshadow-",
    "etc/nvme/hostid",
    "etc/nvme/hostnqn",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
];

/// Directories whose content goes; they stay.
const EMPTIED: [&str; 8] = [
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/cache/man",
    "var/lib/apt/lists",
    "var/tmp",
];

/// Files that are removed by the end of their name, by directory.
const ENDINGS: [(&str, &[&str]); 3] = [
    ("var/cache/debconf", &["-old"]),
    ("etc/ssh", &["_key", "_key.pub"]),
    ("var/backups", &["-old", ".bak", ".0"]),
];

/// Why a tree could not be normalised.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path of the tree cannot be read, changed or removed.
    #[error("failed to normalise `{path}`")]
    Path {
        /// The path in the tree.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Normalises a configured tree, and brings the owners up to date with it.
///
/// # Errors
/// When a part of the tree cannot be read or changed.
pub fn normalise(root: &Path, owners: &mut Ownership) -> Result<(), Error> {
    let tree = Tree { root };
    for path in FILES {
        tree.remove(path)?;
    }
    for path in EMPTIED {
        for name in tree.names(path)? {
            tree.remove(&format!("{path}/{name}"))?;
        }
    }
    for (directory, endings) in ENDINGS {
        for name in tree.names(directory)? {
            let own = directory != "etc/ssh" || name.starts_with("ssh_host_");
            if own && endings.iter().any(|ending| name.ends_with(ending)) {
                tree.remove(&format!("{directory}/{name}"))?;
            }
        }
    }
    tree.empty_logs("var/log")?;
    tree.reset_machine_id()?;
    tree.sort_status()?;
    owners.settle(root).map_err(|source| Error::Path {
        path: String::new(),
        source,
    })
}

struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    /// Finds a path, without following a link at any step: a link may lead out of the tree.
    fn find(&self, path: &str) -> Result<Option<(PathBuf, fs::Metadata)>, Error> {
        let mut at = self.root.to_path_buf();
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            at.push(name);
            match fs::symlink_metadata(&at) {
                Ok(found) if names.peek().is_none() => return Ok(Some((at, found))),
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => {
                    return Err(Error::Path {
                        path: path.to_owned(),
                        source,
                    });
                }
            }
        }
        Ok(None)
    }

    fn remove(&self, path: &str) -> Result<(), Error> {
        let Some((at, found)) = self.find(path)? else {
            return Ok(());
        };
        let removed = if found.is_dir() {
            fs::remove_dir_all(at)
        } else {
            fs::remove_file(at)
        };
        removed.map_err(|source| Error::Path {
            path: path.to_owned(),
            source,
        })
    }

    fn names(&self, path: &str) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Path {
            path: path.to_owned(),
            source,
        };
        let Some((at, found)) = self.find(path)? else {
            return Ok(Vec::new());
        };
        if !found.is_dir() {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(at).map_err(failed)? {
            // No path that is removed by name is anything but ASCII.
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        Ok(names)
    }

    /// Removes logs; what must be there for programs to write to (`btmp`, `lastlog`) stays, empty.
    fn empty_logs(&self, directory: &str) -> Result<(), Error> {
        for name in self.names(directory)? {
            let path = format!("{directory}/{name}");
            let Some((at, found)) = self.find(&path)? else {
                continue;
            };
            if found.is_dir() {
                self.empty_logs(&path)?;
            } else if found.is_file() && matches!(&*name, "btmp" | "faillog" | "lastlog" | "wtmp") {
                fs::File::create(at).map_err(|source| Error::Path { path, source })?;
            } else if found.is_file() && name != "README" {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Leaves the machine id empty: systemd then makes one at each boot (machine-id(5)).
    fn reset_machine_id(&self) -> Result<(), Error> {
        if !matches!(self.find("etc")?, Some((_, found)) if found.is_dir()) {
            return Ok(());
        }
        self.remove("etc/machine-id")?;
        let path = "etc/machine-id".to_owned();
        let at = self.root.join(&path);
        fs::write(&at, "")
            .and_then(|()| fs::set_permissions(&at, fs::Permissions::from_mode(0o444)))
            .map_err(|source| Error::Path { path, source })
    }

    /// Sorts what dpkg keeps in the order in which it met it.
    fn sort_status(&self) -> Result<(), Error> {
        let path = "var/lib/dpkg/status";
        let failed = |source| Error::Path {
            path: path.to_owned(),
            source,
        };
        let Some((at, found)) = self.find(path)? else {
            return Ok(());
        };
        if !found.is_file() {
            return Ok(());
        }
        let text = fs::read_to_string(&at).map_err(failed)?;
        let mut packages: Vec<&str> = text
            .split("\n\n")
            .map(str::trim_end)
            .filter(|package| !package.is_empty())
            .collect();
        packages.sort_unstable();
        let sorted: String = packages
            .iter()
            .flat_map(|package| [package, "\n\n"])
            .collect();
        fs::write(&at, sorted).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_goes_and_the_rest_stays() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        let files = [
            ("etc/passwd", "root"),
            ("etc/passwd-", "old"),
            ("etc/machine-id", "0123\n"),
            ("etc/ssh/ssh_host_rsa_key", "secret"),
            ("etc/ssh/sshd_config", "x"),
            ("var/log/dpkg.log", "today"),
            ("var/log/apt/term.log", "today"),
            ("var/log/btmp", "x"),
            ("run/lock/x", ""),
            (
                "var/lib/dpkg/status",
                "Package: b\nA: 1\n\nPackage: a\nA: 2\n\n",
            ),
        ];
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir_all(root.join("var/lib/apt")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("var/lib/apt/lists")).unwrap();
        let mut owners = Ownership::new();
        normalise(root, &mut owners).unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let cases = [
            ("etc/passwd", Some("root")),
            ("etc/passwd-", None),
            ("etc/machine-id", Some("")),
            ("etc/ssh/ssh_host_rsa_key", None),
            ("etc/ssh/sshd_config", Some("x")),
            ("var/log/dpkg.log", None),
            ("var/log/apt/term.log", None),
            ("var/log/btmp", Some("")),
            (
                "var/lib/dpkg/status",
                Some("Package: a\nA: 2\n\nPackage: b\nA: 1\n\n"),
            ),
        ];
        for (path, expected) in cases {
            assert_eq!(read(path).as_deref(), expected, "{path}");
        }
        assert!(root.join("run").is_dir() && root.join("var/log/apt").is_dir());
        assert!(outside.path().join("kept").exists());
        normalise(root, &mut owners).unwrap();
    }
}
