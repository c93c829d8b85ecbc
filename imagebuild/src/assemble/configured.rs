//! The configured tree: packages installed, kernel, loaders and locales in place, and nothing yet of what the definition
//! brings itself. A pure function of its key, so it is made once and kept.
//!
//! It refuses to let a kept tree show: what is laid over it, and the bytes that come of it, are the same as over a new one.

mod keep;

use std::thread;

use image_tree::Tree;

use super::kernel::InstalledKernel;
use super::root::Root;
use super::{Build, Error, Reuse, inputs, kernel, loaders, locales, recorded};

/// A tree before the definition is laid over it.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) tree: Tree,
    pub(super) kernel: Option<InstalledKernel>,
}

impl Configured {
    /// Takes the tree that an earlier build kept, or makes and keeps it.
    pub(super) fn of(build: &Build<'_>) -> Result<Self, Error> {
        let definition = build.locked.definition();
        let key = inputs::configured(definition, &build.plan.lock, &build.plan.builder);
        let shelf = keep::Shelf::new(&build.options.configured);
        if build.options.reuse == Reuse::Earlier
            && let Some(kept) = shelf.find(&key, build.options.threads, build.work)
        {
            tracing::info!(
                step = "configured",
                key = key.short(),
                "an earlier build configured the same"
            );
            return Ok(kept);
        }
        let made = Self::make(build)?;
        // Whoever cannot keep it has it all the same.
        if let Err(error) = shelf.keep(&key, &made) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the configured tree is not kept");
        }
        Ok(made)
    }

    fn make(build: &Build<'_>) -> Result<Self, Error> {
        let definition = build.locked.definition();
        let path = build.work.join("root");
        let (owners, taken) = thread::scope(|scope| {
            // It runs beside the maintainer scripts, which use one processor.
            let kernel = definition.kernel.as_ref();
            let beside = kernel.map(|kernel| scope.spawn(move || kernel::take(build, kernel)));
            let owners = build.install(&path);
            let taken = beside.map(|thread| match thread.join() {
                Ok(kernel) => kernel,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            (owners, taken)
        });
        let mut owners = owners?;
        let mut root = Root::new(&path, &mut owners);
        let kernel = taken.transpose()?;
        let kernel = kernel
            .map(|kernel| kernel.install(build, &mut root))
            .transpose()?;
        if let Some(loaders) = &definition.loaders {
            loaders::install(build, loaders, &mut root)?;
        }
        locales::make(build, &mut root)?;
        tracing::info!(step = "scan", "reading the tree");
        let tree = Tree::scan(&path, |device, inode| recorded(&owners, device, inode));
        Ok(Self {
            tree: tree.map_err(Error::Scan)?,
            kernel,
        })
    }
}
