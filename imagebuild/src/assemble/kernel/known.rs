//! What is known about the modules of a kernel from an earlier build, by this program and the digests of its packages.
//!
//! With it modules are selected before they are unpacked, so that only those are written that the image keeps. It
//! refuses to decide: whatever it does not know is read from the packages.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use image_manifest::{Digest, Hasher};
use image_tree::kernel::{Modinfo, ModuleError};
use serde::{Deserialize, Serialize};

use super::{Contents, Selected};
use crate::fetch::FetchedPackage;
use crate::{gc, kept};

/// Bytes of all that is kept: some thirty kernels.
const MOST: u64 = 64 << 20;

/// What is known about the packages of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) contents: Contents,
    /// What the modules say that were looked at, by path.
    modules: BTreeMap<String, Said>,
}

/// What a module says about itself: see [`Modinfo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    depends: Vec<String>,
    softdeps: Vec<String>,
    aliases: Vec<String>,
    firmware: Vec<String>,
}

/// Where it is kept what is known about the packages of one kernel.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn of<'p>(
        directory: &Path,
        builder: &str,
        packages: impl Iterator<Item = &'p FetchedPackage>,
    ) -> Self {
        let mut key = Hasher::new();
        // Another program may read other things from the same modules.
        key.update(Digest::of(builder.as_bytes()).as_bytes());
        for package in packages {
            key.update(package.entry.sha256.as_bytes());
        }
        Self(directory.join(key.finish().hex()))
    }

    pub(super) fn find(&self) -> Option<Known> {
        kept::load(&self.0)
    }

    /// Adds what was selected to what is known: another image may keep other modules of the same kernel.
    pub(super) fn keep(&self, contents: &Contents, selected: &Selected) {
        let mut known = Known {
            contents: contents.clone(),
            ..self.find().unwrap_or_default()
        };
        let said = selected.modules.iter();
        let said = said.map(|(_, path, info)| (path.to_owned(), Said::of(info)));
        known.modules.extend(said);
        if let Err(error) = kept::keep(&self.0, &known) {
            tracing::debug!(%error, "what modules say is not kept");
        }
        let directory = self.0.parent().unwrap_or(Path::new("."));
        if let Err(error) = gc::bound(directory, MOST, SystemTime::now()) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "more is kept about modules than should be");
        }
    }
}

impl Known {
    /// Returns what a module says about itself.
    pub(super) fn module(&self, path: &str) -> Result<Modinfo, ModuleError> {
        let said = self.modules.get(path);
        let said = said.ok_or_else(|| ModuleError::Unpack {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, "nothing is known of it"),
        })?;
        Ok(said.clone().into())
    }
}

impl Said {
    fn of(info: &Modinfo) -> Self {
        // Taken apart so that a new part cannot be forgotten here.
        let Modinfo {
            depends,
            softdeps,
            aliases,
            firmware,
        } = info.clone();
        Self {
            depends,
            softdeps,
            aliases,
            firmware,
        }
    }
}

impl From<Said> for Modinfo {
    fn from(said: Said) -> Self {
        let Said {
            depends,
            softdeps,
            aliases,
            firmware,
        } = said;
        Self {
            depends,
            softdeps,
            aliases,
            firmware,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Brought, Error};
    use super::*;
    use crate::definition::Kernel;

    fn contents() -> Contents {
        let names = ["a", "b", "c"];
        let files = names.map(|name| (format!("kernel/{name}.ko.xz"), PathBuf::new()));
        Contents::of(&Brought {
            release: "6.12".to_owned(),
            image: PathBuf::new(),
            files: files.into(),
        })
    }

    /// Selects a module, by what `read` says of it and of those that it needs.
    fn select(
        module: &str,
        read: impl Fn(&str) -> Result<Modinfo, ModuleError>,
    ) -> Result<Selected, Error> {
        let kernel = Kernel {
            modules: vec![module.to_owned()],
            package: String::new(),
            command_line: String::new(),
            exclude_modules: Vec::new(),
            firmware: Vec::new(),
            initrd_modules: Vec::new(),
        };
        contents().select(&kernel, |paths| {
            paths.iter().map(|path| read(path)).collect()
        })
    }

    fn modinfo(path: &str) -> Modinfo {
        let depends = if path == "kernel/a.ko.xz" { "b" } else { "" };
        Modinfo {
            depends: depends.split_whitespace().map(str::to_owned).collect(),
            firmware: vec![format!("{path}.bin")],
            ..Modinfo::default()
        }
    }

    #[test]
    fn what_was_learned_is_known_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let of = |builder| Place::of(&directory.path().join("modules"), builder, [].into_iter());
        let place = of("this program");
        assert_eq!(place.find(), None);
        let first = select("a", |path| Ok(modinfo(path))).unwrap();
        place.keep(&contents(), &first);
        assert_eq!(of("another program").find(), None);
        let known = place.find().unwrap();
        let again = select("a", |path| known.module(path)).unwrap();
        assert_eq!(again.modules, first.modules);
        assert!(select("c", |path| known.module(path)).is_err());

        let second = select("c", |path| Ok(modinfo(path))).unwrap();
        place.keep(&contents(), &second);
        let known = place.find().unwrap();
        for (name, expected) in [("a", &first), ("c", &second)] {
            let again = select(name, |path| known.module(path)).unwrap();
            assert_eq!(again.modules, expected.modules, "{name}");
        }

        let mut bytes = fs::read(&place.0).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(&place.0, bytes).unwrap();
        assert_eq!(place.find(), None, "it is damaged");
    }
}
