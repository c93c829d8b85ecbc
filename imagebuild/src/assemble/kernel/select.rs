//! Which modules of a kernel an image keeps, and the initrd among them.
//!
//! It refuses to know where modules stand: what they say about themselves is read for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use image_tree::kernel::{
    Modinfo, ModuleError, Modules, Patterns, module_name, select, unpack_module,
};
use serde::{Deserialize, Serialize};

use super::super::Error;
use super::{Brought, LISTS};
use crate::definition::Kernel;

/// The modules of a kernel's packages, by their names alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    release: String,
    /// Paths below their directory, sorted.
    modules: Vec<String>,
    /// Paths of what is part of the kernel itself.
    built_in: Vec<String>,
}

/// The modules that an image keeps.
#[derive(Debug)]
pub(super) struct Selected {
    pub(super) modules: Modules,
    /// Those of them that the initrd has, too.
    pub(super) initrd: Modules,
}

impl Contents {
    pub(super) fn of(files: &Brought) -> Self {
        let known = files.files.iter();
        let list = known.clone().find(|(path, _)| path == "modules.builtin");
        let text = list.and_then(|(_, file)| fs::read_to_string(file).ok());
        let text = text.unwrap_or_default();
        let modules = known.filter(|(path, _)| module_name(path).is_some());
        Self {
            release: files.release.clone(),
            modules: modules.map(|(path, _)| path.clone()).collect(),
            built_in: text.lines().map(str::to_owned).collect(),
        }
    }

    /// Selects modules, and those of the initrd among them.
    pub(super) fn select(
        &self,
        kernel: &Kernel,
        read: impl FnMut(&[&str]) -> Vec<Result<Modinfo, ModuleError>>,
    ) -> Result<Selected, Error> {
        let failed = |source| Error::Modules {
            release: self.release.clone(),
            source,
        };
        let patterns = Patterns {
            keep: &kernel.modules,
            exclude: &kernel.exclude_modules,
        };
        let modules = select(&self.modules, &self.built_in, patterns, read);
        let modules = modules.map_err(failed)?;
        let paths: Vec<String> = modules.iter().map(|(_, path, _)| path.to_owned()).collect();
        let patterns = Patterns {
            keep: &kernel.initrd_modules,
            exclude: &[],
        };
        // What the modules say is known already.
        let say = |path: &&str| {
            let name = module_name(path).unwrap_or_default();
            let known = modules.get(&name).map(|(_, info)| info.clone());
            Ok(known.unwrap_or_default())
        };
        let initrd = select(&paths, &self.built_in, patterns, |paths| {
            paths.iter().map(say).collect()
        });
        let initrd = initrd.map_err(failed)?;
        Ok(Selected { modules, initrd })
    }
}

impl Selected {
    /// Whether a file of the directory of modules stays: a module that was selected, or what `depmod` reads.
    pub(super) fn keeps(&self, path: &str) -> bool {
        let module = module_name(path).and_then(|name| self.modules.get(&name));
        LISTS.contains(&path) || module.is_some_and(|(kept, _)| kept == path)
    }
}

/// Reads what modules say about themselves, on as many threads as there are processors.
pub(super) fn read_all(
    paths: &[&str],
    file: impl Fn(&str) -> PathBuf + Sync,
) -> Vec<Result<Modinfo, ModuleError>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = paths.len().div_ceil(threads).max(1);
    let read = |path: &&str| {
        let bytes = read_module(path, &file(path))?;
        Modinfo::parse(path, &bytes)
    };
    thread::scope(|scope| {
        let shares = paths.chunks(share);
        let workers: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(read).collect::<Vec<_>>()))
            .collect();
        let joined = workers.into_iter().flat_map(|worker| match worker.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

/// Reads and unpacks a module.
fn read_module(path: &str, file: &Path) -> Result<Vec<u8>, ModuleError> {
    let bytes = fs::read(file).map_err(|source| ModuleError::Unpack {
        path: path.to_owned(),
        source,
    })?;
    unpack_module(path, &bytes)
}
